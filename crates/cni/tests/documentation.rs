//! `docs/errors.md` explains every code that a plugin answers with, and no other.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

use std::collections::BTreeSet;

use cni::Code;

#[test]
fn every_code_is_explained() {
    let text = std::fs::read_to_string(testkit::workspace_dir().join("docs/errors.md")).unwrap();
    let explained: BTreeSet<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## ")?.split_once(": "))
        .map(|(number, _)| number.parse().unwrap())
        .collect();
    let codes = [
        Code::IncompatibleVersion,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidConfig,
        Code::TryAgainLater,
        Code::NotAvailable,
        Code::LimitedConnectivity,
        Code::Kernel,
        Code::Netns,
        Code::CheckFailed,
        Code::Conflict,
        Code::Exhausted,
        Code::Delegate,
        Code::NotPermitted,
        Code::Several,
        Code::Internal,
    ];
    assert_eq!(explained, codes.iter().map(|code| code.number()).collect());
    // The table at the top leads to each of them.
    for number in &explained {
        assert!(text.contains(&format!("[{number}](#{number}-")), "{number} is not in the table");
    }
}

#[test]
fn links_within_the_page_lead_somewhere() {
    let text = std::fs::read_to_string(testkit::workspace_dir().join("docs/errors.md")).unwrap();
    let anchors: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(": ", "-").replace(' ', "-"))
        .collect();
    let links: BTreeSet<&str> =
        text.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(anchor, _)| anchor).collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(anchors.contains(link), "{link} is no heading: {anchors:?}");
    }
}
