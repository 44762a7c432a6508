//! The administrator's list of sysctls that may be set: `/etc/cni/tuning/allowlist.conf`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use cni::{Code, Failure};
use regex_lite::Regex;

/// Where the list is.
pub const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// Regular expressions, one a line; a key has to match one of them, anywhere in it.
#[derive(Debug)]
pub struct Allowlist {
    lines: Vec<(String, Regex)>,
}

impl Allowlist {
    /// Reads the list; `None` where there is none, which allows everything. Errors: 5 for one that can't be read, 7 for a line that is no
    /// regular expression.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::new(Code::Io, format!("can't read the sysctl allowlist {}", path.display()))
                    .detail(error.to_string())
                    .hint("without it nobody can tell which sysctls are allowed"))
            }
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let regex = Regex::new(line).map_err(|error| {
                let place = format!("{} line {}", path.display(), index + 1);
                Failure::new(Code::InvalidConfig, format!("{place}: {line:?} is not a regular expression"))
                    .detail(error.to_string())
            })?;
            lines.push((line.to_owned(), regex));
        }
        Ok(Self { lines })
    }

    /// Refuses a key, as it is written in the configuration, that no line matches.
    pub fn check(&self, key: &str) -> Result<(), Failure> {
        if self.lines.iter().any(|(_, regex)| regex.is_match(key)) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.lines.iter().map(|(line, _)| line.as_str()).collect();
        let message = format!(
            "Sysctl {key} is not allowed. Only the following sysctls are allowed: [{}]",
            allowed.join(" ")
        );
        Err(Failure::new(Code::InvalidConfig, message).hint(format!("the administrator's list is {PATH}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Allowlist {
        Allowlist::parse(text, Path::new("allowlist.conf")).unwrap()
    }

    #[test]
    fn a_key_matches_a_line_anywhere() {
        let list = list("^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n\n  arp_filter  \n");
        assert!(list.check("net.ipv4.conf.IFNAME.rp_filter").is_ok());
        assert!(list.check("net.ipv6.conf.eth0.arp_filter").is_ok());
        let failure = list.check("net.ipv4.ip_forward").unwrap_err();
        assert_eq!(failure.code(), Code::InvalidConfig);
        assert_eq!(
            failure.message(),
            "Sysctl net.ipv4.ip_forward is not allowed. Only the following sysctls are allowed: [^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$ arp_filter]"
        );
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert!(list("\n\n").check("net.ipv4.ip_forward").is_err());
    }

    #[test]
    fn a_bad_line_is_named() {
        let failure = Allowlist::parse("net\n(\n", Path::new("allowlist.conf")).unwrap_err();
        assert!(failure.message().contains("allowlist.conf line 2"), "{failure}");
    }

    #[test]
    fn no_list_allows_everything_but_an_unreadable_one_nothing() {
        assert!(Allowlist::read(Path::new("/nonexistent/allowlist.conf")).unwrap().is_none());
        assert!(Allowlist::read(Path::new("/")).is_err());
    }
}
