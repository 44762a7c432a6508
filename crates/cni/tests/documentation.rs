//! `docs/errors.md` explains every code that a plugin answers with, and no other.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

/// Every Markdown file below `directory`, but for what a build made.
fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn links_to_files_lead_somewhere() {
    let mut found = Vec::new();
    pages(&testkit::workspace_dir(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    let mut dead = Vec::new();
    for page in found {
        let text = std::fs::read_to_string(&page).unwrap();
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let below =
            text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
        for link in inline.chain(below.map(|(_, link)| link)) {
            let file = link.split('#').next().unwrap();
            let outside = file.contains("://") || file.starts_with("mailto:") || file.contains(' ');
            if !file.is_empty() && !outside && !page.parent().unwrap().join(file).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}
