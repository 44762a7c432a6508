//! A rule as `iptables-save` prints it and `iptables-restore` reads it: a list of words.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use cni::Cidr;

/// The words of a rule, without `-A CHAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule(Vec<String>);

/// A rule taken apart, in an order that does not depend on who wrote it: two rules are the same rule if these are equal.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    /// `-s`, `-d`, `-i`, `-o`, `-p`: the option, whether it is negated, its value.
    general: Vec<(&'static str, bool, String)>,
    /// The words of each match, `-m` included.
    matches: Vec<Vec<String>>,
    /// `-j` or `-g` and what follows.
    target: Vec<String>,
}

impl Rule {
    /// A rule of these words.
    pub(super) fn new<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }

    /// The same rule with more words behind it.
    #[must_use]
    pub(super) fn with<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.0.extend(words.into_iter().map(Into::into));
        self
    }

    /// The same rule with a comment behind it.
    #[must_use]
    pub(super) fn comment(self, text: &str) -> Self {
        self.with(["-m", "comment", "--comment", text])
    }

    /// The same rule with a jump at its end.
    #[must_use]
    pub(super) fn jump(self, target: &str) -> Self {
        self.with(["-j", target])
    }

    /// The words.
    pub(super) fn words(&self) -> &[String] {
        &self.0
    }

    /// Whether this is the same rule, whatever the order of its words.
    pub(super) fn is(&self, other: &Self) -> bool {
        // Taking a rule apart costs more than seeing that it leads elsewhere or is about another port.
        self.0 == other.0
            || (self.target() == other.target()
                && self.value("--dport") == other.value("--dport")
                && self.parts() == other.parts())
    }

    /// The word behind an option such as `--comment`; `None` where the option is not there.
    pub(super) fn value(&self, option: &str) -> Option<&str> {
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            if word == option {
                return words.next().map(String::as_str);
            }
            if word == "--comment" {
                words.next(); // its text may look like an option
            }
        }
        None
    }

    /// The text of the comment.
    pub(super) fn comment_text(&self) -> Option<&str> {
        self.value("--comment")
    }

    /// The chain or verdict of the rule.
    pub(super) fn target(&self) -> Option<&str> {
        self.value("-j").or_else(|| self.value("-g"))
    }

    /// The source, where it is one address or network and not negated.
    pub(super) fn source(&self) -> Option<Cidr> {
        self.network("-s")
    }

    /// The destination, where it is one address or network and not negated.
    pub(super) fn destination(&self) -> Option<Cidr> {
        self.network("-d")
    }

    fn network(&self, option: &str) -> Option<Cidr> {
        let parts = self.parts();
        let (_, negated, value) = parts.general.iter().find(|(name, ..)| *name == option)?;
        if *negated { None } else { value.parse().ok() }
    }

    fn parts(&self) -> Parts {
        let mut parts = Parts { general: Vec::new(), matches: Vec::new(), target: Vec::new() };
        let mut negated = false;
        let mut in_target = false;
        let mut words = self.0.iter().peekable();
        while let Some(word) = words.next() {
            if let Some(option) = general_option(word) {
                let value = words.next().map(|value| canonical_value(option, value)).unwrap_or_default();
                // A rule for every address is printed without the option.
                if negated || !matches!(value.as_str(), "0.0.0.0/0" | "::/0") {
                    parts.general.push((option, negated, value));
                }
                negated = false;
                continue;
            }
            match word.as_str() {
                "!" => {
                    negated = true;
                    continue;
                }
                "-m" | "--match" => {
                    parts.matches.push(Vec::new());
                    in_target = false; // matches may follow the target
                }
                "-j" | "-g" | "--jump" | "--goto" => in_target = true,
                _ => {}
            }
            let group = if in_target {
                Some(&mut parts.target)
            } else {
                if parts.matches.is_empty() {
                    parts.matches.push(Vec::new());
                }
                parts.matches.last_mut()
            };
            let Some(group) = group else { continue };
            if std::mem::take(&mut negated) {
                group.push("!".to_owned());
            }
            group.push(word.clone());
            if word == "--comment" {
                group.extend(words.next().cloned());
            }
        }
        parts.general.sort();
        parts.matches.sort();
        parts
    }

    /// The words that are not part of `known` matches, general options or the target: what an operator's conditions added.
    /// `general` options stay, since conditions may have them.
    pub(super) fn beyond(&self, known: &[&str]) -> Vec<String> {
        let parts = self.parts();
        let mut rest = Vec::new();
        for (option, negated, value) in parts.general {
            if option == "-p" {
                continue;
            }
            if negated {
                rest.push("!".to_owned());
            }
            rest.extend([option.to_owned(), value]);
        }
        for group in parts.matches {
            if !group.get(1).is_some_and(|name| known.contains(&name.as_str())) {
                rest.extend(group);
            }
        }
        rest
    }

    /// The line `iptables-restore` reads: the words, quoted. `None` if a word can't be written in a line (it has a line break or a NUL).
    pub(super) fn line(&self) -> Option<String> {
        let mut line = String::new();
        for word in &self.0 {
            if !line.is_empty() {
                line.push(' ');
            }
            quote(word, &mut line)?;
        }
        Some(line)
    }

    /// The words of a line that `iptables-save` printed.
    pub(super) fn split(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let (mut inside, mut started) = (false, false);
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => {
                    inside = !inside;
                    started = true;
                }
                '\\' if inside => word.extend(characters.next()),
                ' ' | '\t' if !inside => {
                    if std::mem::take(&mut started) {
                        words.push(std::mem::take(&mut word));
                    }
                }
                other => {
                    word.push(other);
                    started = true;
                }
            }
        }
        if started {
            words.push(word);
        }
        words
    }
}

fn general_option(word: &str) -> Option<&'static str> {
    Some(match word {
        "-s" | "--source" | "--src" => "-s",
        "-d" | "--destination" | "--dst" => "-d",
        "-i" | "--in-interface" => "-i",
        "-o" | "--out-interface" => "-o",
        "-p" | "--protocol" | "--proto" => "-p",
        _ => return None,
    })
}

fn canonical_value(option: &str, value: &str) -> String {
    match option {
        "-s" | "-d" => canonical_network(value).unwrap_or_else(|| value.to_owned()),
        "-p" => value.to_ascii_lowercase(),
        _ => value.to_owned(),
    }
}

/// A network as `iptables-save` prints it: always with a prefix length, host bits zero.
fn canonical_network(value: &str) -> Option<String> {
    let cidr = match value.split_once('/') {
        None => Cidr::host(value.parse().ok()?),
        Some((address, mask)) if mask.contains('.') => {
            let mask: Ipv4Addr = mask.parse().ok()?;
            let prefix = u8::try_from(mask.to_bits().leading_ones()).ok()?;
            Cidr::new(address.parse::<IpAddr>().ok()?, prefix)?
        }
        Some(_) => value.parse().ok()?,
    };
    Some(cidr.network().to_string())
}

/// `iptables-restore` splits at white space, and knows double quotes with `\` before a quote or a backslash inside them.
fn quote(word: &str, line: &mut String) -> Option<()> {
    if word.chars().any(|c| matches!(c, '\n' | '\r' | '\0')) {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,!=+@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        line.push_str(word);
        return Some(());
    }
    line.push('"');
    for character in word.chars() {
        if matches!(character, '"' | '\\') {
            line.push('\\');
        }
        line.write_char(character).ok()?;
    }
    line.push('"');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule(Rule::split(text))
    }

    #[test]
    fn a_quoted_comment_survives_writing_and_reading() {
        for comment in ["plain", "dnat name: \"a b\" id: \"c\\d\"", "-s", "it's", ""] {
            let written = Rule::new(["-s", "10.0.0.1/32"]).comment(comment).jump("X");
            let line = written.line().unwrap();
            let read = Rule::new(Rule::split(&line));
            assert_eq!(read, written, "{line}");
            assert_eq!(read.comment_text(), Some(comment));
        }
    }

    #[test]
    fn a_word_with_a_line_break_cannot_smuggle_a_second_command_in() {
        assert_eq!(Rule::new(["-s", "1.1.1.1\n-F"]).line(), None);
    }

    #[test]
    fn rules_are_the_same_in_any_order_of_their_words() {
        let ours = rule("-d 10.1.0.5/16 -j ACCEPT -m comment --comment x");
        assert!(ours.is(&rule("-d 10.1.0.0/16 -m comment --comment x -j ACCEPT")));
        assert!(!ours.is(&rule("! -d 10.1.0.0/16 -m comment --comment x -j ACCEPT")));
        assert!(!ours.is(&rule("-s 10.1.0.0/16 -m comment --comment x -j ACCEPT")));
        assert!(!ours.is(&rule("-d 10.1.0.0/16 -m comment --comment y -j ACCEPT")));
        assert!(rule("-s 0.0.0.0/0 -j X").is(&rule("-j X")));
        assert!(rule("-s 10.0.0.1 -j X").is(&rule("-s 10.0.0.1/255.255.255.255 -j X")));
    }

    #[test]
    fn values_are_found_behind_their_option_only() {
        let rule = rule(r#"-s 10.1.0.5/32 -m comment --comment -j -j "CNI-X""#);
        assert_eq!(rule.comment_text(), Some("-j"));
        assert_eq!(rule.target(), Some("CNI-X"));
        assert_eq!(rule.source(), Some("10.1.0.5/32".parse().unwrap()));
    }

    #[test]
    fn what_conditions_added_is_told_from_the_rest() {
        let rule = rule(
            "! -s 192.0.2.0/24 -p tcp -m comment --comment x -m multiport --dports 80 -m mark --mark 0x1 -j Y",
        );
        assert_eq!(
            rule.beyond(&["comment", "multiport"]),
            ["!", "-s", "192.0.2.0/24", "-m", "mark", "--mark", "0x1"]
        );
    }
}
