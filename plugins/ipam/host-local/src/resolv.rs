//! `resolvConf`: the DNS part of the result, read from a file in the format of `resolv.conf(5)`.

use std::fs;
use std::path::Path;

use cni::Dns;

use crate::error::{Error, Result};

/// Reads a file. Errors: [`Error::ResolvConf`].
pub(crate) fn read(path: &Path) -> Result<Dns> {
    fs::read(path)
        .map(|bytes| parse(&String::from_utf8_lossy(&bytes)))
        .map_err(|source| Error::ResolvConf { path: path.to_owned(), source })
}

/// As the Go plugin reads it: `search` and `options` accumulate (the C library lets the last `search` win), the last `domain` wins,
/// a keyword without a value is skipped.
pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut fields = line.split_whitespace();
        let (Some(keyword), Some(first)) = (fields.next(), fields.next()) else { continue };
        let values = std::iter::once(first).chain(fields).map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.push(first.to_owned()),
            "domain" => first.clone_into(&mut dns.domain),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_file() {
        let dns = parse("nameserver 192.0.2.0\nnameserver 192.0.2.1\n");
        assert_eq!(dns, Dns { nameservers: vec!["192.0.2.0".into(), "192.0.2.1".into()], ..Dns::default() });
    }

    #[test]
    fn comments_blank_lines_and_bare_keywords_are_skipped() {
        let dns = parse(
            "\n  # nameserver 192.0.2.9\n;nameserver 192.0.2.8\nnameserver\n  nameserver 192.0.2.0  \n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.0"]);
    }

    #[test]
    fn every_field_and_what_accumulates() {
        let dns = parse(
            "nameserver 192.0.2.0 ignored\ndomain example.com\ndomain example.net\nsearch example.com\nsearch a.net b.net\n\
             options one two\noptions three\nsortlist 1.2.3.4\n",
        );
        let expected = Dns {
            nameservers: vec!["192.0.2.0".into()],
            domain: "example.net".into(),
            search: vec!["example.com".into(), "a.net".into(), "b.net".into()],
            options: vec!["one".into(), "two".into(), "three".into()],
            ..Dns::default()
        };
        assert_eq!(dns, expected);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(error.to_string(), "ipam.resolvConf: can't read \"/nonexistent/resolv.conf\"");
    }
}
