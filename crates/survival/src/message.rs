//! Whether an error document says what it is about: a message that only repeats the kernel's word helps nobody.

use std::net::{IpAddr, SocketAddr};

use crate::call::Ended;
use crate::job::Failure;

/// Links, the container and programs of the networks that are tried.
const NAMES: [&str; 8] = ["eth0", "lo", "cni-net0", "vx-net", "c1", "c2", "host-local", "firewalld"];

/// How the names of our tables, ends of pairs, chains, sysctls and the programs of `iptables` begin.
const BEGINNINGS: [&str; 7] = ["ferrule", "veth", "CNI-", "net.", "net/", "iptables-", "ip6tables-"];

/// What has no name of its own.
const PHRASES: [&str; 5] = ["netlink socket", "ruleset", "standard input", "standard output", "chain '"];

/// The kernel's words that look like a path.
const NO_PATHS: [&str; 1] = ["Input/output error"];

/// Fails unless an error document says which object it is about.
pub(crate) fn judge(ended: &Ended) -> Result<(), Failure> {
    let Some(message) = ended.message() else {
        return Err(Failure::new(format!("no error document: {}", ended.describe())));
    };
    if names_something(&message) {
        return Ok(());
    }
    Err(Failure::new(format!("the message names no object: {message}")))
}

fn names_something(message: &str) -> bool {
    let message = NO_PATHS.iter().fold(message.to_owned(), |message, words| message.replace(words, ""));
    let quotes = |letter: char| letter.is_whitespace() || "'\"`(),;".contains(letter);
    PHRASES.iter().any(|phrase| message.contains(phrase))
        || message.split(quotes).any(|word| is_object(word.trim_end_matches([':', '.'])))
}

/// A path, an address, or a name.
fn is_object(word: &str) -> bool {
    let is_path = word.len() > 1 && word.starts_with('/');
    let address = word.split('/').next().unwrap_or(word);
    let is_address = address.parse::<IpAddr>().is_ok() || address.parse::<SocketAddr>().is_ok();
    let begins = |start: &&str| word.len() > start.len() && word.starts_with(start);
    is_path
        || is_address
        || BEGINNINGS.iter().any(begins)
        || word.split('/').any(|part| NAMES.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_an_errno_only_names_nothing() {
        for message in [
            "Input/output error",
            "out of memory (os error 12)",
            "can't lock it: Input/output error (os error 5)",
            "the link is gone",
            "a lower limit",
        ] {
            assert!(!names_something(message), "{message}");
        }
    }

    #[test]
    fn a_path_a_link_an_address_and_an_attachment_are_objects() {
        for message in [
            "can't open /run/ferrule/x: No space left on device",
            "can't add address 10.98.0.2/24: Operation not permitted",
            "can't add fd00:98::2: out of memory",
            "link eth0: busy",
            "attachment net/c2/eth0 was made for another network namespace",
            "iptables-restore: killed by signal 9",
            "can't set net.ipv4.ip_forward",
        ] {
            assert!(names_something(message), "{message}");
        }
    }
}
