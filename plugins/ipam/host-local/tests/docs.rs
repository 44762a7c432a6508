//! The documentation's example is the file in `testdata`, and does what is written.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]

mod common;

use std::fs;
use std::path::Path;

use common::Lab;
use serde_json::{Value, json};

fn workspace(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_example_is_the_file_and_gives_the_result_shown() {
    let page = workspace("docs/plugins/host-local.md");
    let example = workspace("testdata/host-local/dual-stack.json");
    let result = workspace("testdata/host-local/dual-stack.result.json");
    for text in [&example, &result] {
        assert!(
            page.contains(&format!("```json\n{text}```\n")),
            "not in the page as it is in the file:\n{text}"
        );
    }

    let lab = Lab::new();
    let mut config: Value = serde_json::from_str(&example).unwrap();
    config["ipam"]["dataDir"] = json!(lab.data());
    let expected: Value = serde_json::from_str(&result).unwrap();
    assert_eq!(*lab.call("ADD", "first", &config).ok(), expected);
    lab.call("CHECK", "first", &config).ok();
    lab.call("STATUS", "", &config).ok();
    lab.del("first", &config);
}

#[test]
fn the_page_names_every_file_and_message() {
    let page = workspace("docs/plugins/host-local.md");
    let lab = Lab::new();
    let mut config = lab.subnets(&["10.88.1.8/31"]);
    config["name"] = json!("apps");
    lab.call("ADD", "a", &config).ok();
    for directory in [lab.data().join("apps"), lab.data().join(".ferrule/apps")] {
        for entry in fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(page.contains(&format!("<network>/{name} ")), "{name}");
        }
    }
    for (verb, container, code) in
        [("ADD", "b", 104), ("ADD", "a", 103), ("CHECK", "b", 102), ("STATUS", "", 50)]
    {
        let answer = lab.call(verb, container, &config);
        let message = answer.failed(code);
        let rows = page.lines().filter(|line| line.starts_with('|') && line.contains(&format!("{code}")));
        let known = rows.filter_map(|row| row.split('`').nth(1)).any(|text| {
            text.split(['…', ':'])
                .filter(|part| !part.trim().is_empty())
                .all(|part| message.contains(&part.trim().replace("ID", container)))
        });
        assert!(known, "{code} {message}");
    }
}
