//! The result of one ADD in every version, and every conversion between two of them, as documents a person can read
//! (`testdata/results`). `V.json` is what the newest version's document is in version V; `A-as-B.json` is what A becomes in a richer
//! version B, where A had already lost something.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

use std::fs;

use cni::{AddResult, ResultError, SpecVersion};
use serde_json::Value;

const LEGACY: [SpecVersion; 2] = [SpecVersion::V0_1_0, SpecVersion::V0_2_0];
const VERSIONED: [SpecVersion; 3] = [SpecVersion::V0_3_0, SpecVersion::V0_3_1, SpecVersion::V0_4_0];

fn document(case: &str, name: &str) -> Option<Value> {
    let path = testkit::workspace_dir().join("testdata/results").join(case).join(format!("{name}.json"));
    let text = fs::read(&path).ok()?;
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The fixture that shows `from` written as `to`, with the version it is to have.
fn expected(case: &str, from: SpecVersion, to: SpecVersion) -> Option<Value> {
    let upgraded = if LEGACY.contains(&from) && VERSIONED.contains(&to) {
        Some("0.2.0-as-0.4.0")
    } else if LEGACY.contains(&from) && to >= SpecVersion::V1_0_0 {
        Some("0.2.0-as-1.1.0")
    } else if VERSIONED.contains(&from) && to == SpecVersion::V1_1_0 {
        Some("0.4.0-as-1.1.0")
    } else if from == SpecVersion::V1_0_0 && to == SpecVersion::V1_1_0 {
        Some("1.0.0-as-1.1.0")
    } else {
        None
    };
    let mut document = document(case, upgraded.unwrap_or(to.as_str()))?;
    document["cniVersion"] = to.as_str().into();
    Some(document)
}

fn every_conversion(case: &str) -> usize {
    let mut conversions = 0;
    for from in SpecVersion::ALL {
        let Some(source) = document(case, from.as_str()) else { continue };
        // The version in the document counts, not the one assumed for a document without.
        let result = AddResult::read(&source, SpecVersion::V0_1_0).unwrap();
        for to in SpecVersion::ALL {
            let written = result.write(*to);
            match expected(case, *from, *to) {
                Some(expected) => {
                    let written = written.unwrap();
                    assert_eq!(written, expected, "{case}: {from} as {to}");
                    assert_eq!(
                        written.to_string(),
                        expected.to_string(),
                        "{case}: {from} as {to}: the order of keys"
                    );
                }
                None => assert_eq!(written, Err(ResultError::NoAddress), "{case}: {from} as {to}"),
            }
            conversions += 1;
        }
    }
    conversions
}

#[test]
fn a_container_with_everything() {
    assert_eq!(every_conversion("container"), 7 * 7);
}

#[test]
fn an_abbreviated_result_keeps_route_attributes_for_the_plugin_that_asked() {
    assert_eq!(every_conversion("ipam"), 7 * 7);
    let routes = &document("ipam", "0.4.0").unwrap()["routes"];
    assert_eq!(
        routes[1]["priority"], 100,
        "an IPAM plugin's order to its caller, in any version with routes"
    );
    let routes = &document("container", "0.4.0").unwrap()["routes"];
    assert_eq!(routes[2].get("priority"), None, "a report in a version that has no priority");
}

#[test]
fn an_interface_without_addresses_has_no_legacy_form() {
    assert_eq!(every_conversion("bare"), 5 * 7);
}
