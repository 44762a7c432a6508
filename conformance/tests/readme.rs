//! The README says how much of the specification is checked. It must not go stale.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use conformance::{cases, catalogue};

const MARK: &str = "which compares it with the catalogue. -->\n\n";

/// Of how many items the specification, its conventions and practice consist, by our count.
const WHOLE: usize = 187;

fn coverage() -> String {
    let items = catalogue::items().unwrap();
    let number = |id: &str| cases::of_item(id).count();
    let checked = items.iter().filter(|item| number(&item.id) > 0).count();
    let mut text = format!("{checked} of {WHOLE} items are checked, by {} cases.", cases::all().count());
    let missing: Vec<_> = items.iter().filter(|item| number(&item.id) == 0).collect();
    if !missing.is_empty() {
        text.push_str(" The others:\n\n| item | asks | is not checked because |\n|---|---|---|\n");
        for item in missing {
            let why = item.unchecked.as_deref().unwrap_or("it has no case yet");
            writeln!(text, "| {} | {} | {why} |", item.id, item.statement).unwrap();
        }
    }
    if items.len() < WHOLE {
        write!(text, "\n{} items are not in the catalogue yet.", WHOLE - items.len()).unwrap();
    }
    format!("{}\n", text.trim_end())
}

#[test]
fn the_readme_tells_what_is_checked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once(MARK).unwrap();
    let coverage = coverage();
    if std::env::var_os("WRITE_README").is_some() {
        fs::write(&path, format!("{head}{MARK}{coverage}")).unwrap();
    } else {
        assert_eq!(
            tail, coverage,
            "conformance/README.md is out of date: WRITE_README=1 cargo test -p conformance --test readme"
        );
    }
}

#[test]
fn every_option_is_in_the_readme() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let help =
        std::process::Command::new(env!("CARGO_BIN_EXE_cni-conformance")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
        let obvious = ["--help", "--version", "--jobs", "--all"];
        assert!(obvious.contains(&option) || text.contains(&format!("`{option}")), "{option}");
    }
}
