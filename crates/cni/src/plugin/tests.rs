use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Plugin, Response, respond};
use crate::environment::{Attachment, Environment};
use crate::failure::Failure;
use crate::request::{Request, Target, ValidAttachments};
use crate::result::AddResult;
use crate::version::SpecVersion;

/// Does nothing, and notes that it did.
struct Idle;

impl Plugin for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn versions(&self) -> &'static [SpecVersion] {
        &[SpecVersion::V0_4_0, SpecVersion::V1_0_0]
    }

    fn add(&self, request: &Request, _: &Target) -> Result<AddResult, Failure> {
        Ok(request.config().prev_result()?.unwrap_or_default())
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        request.note(format!("released {attachment} {}", if netns.is_some() { "inside" } else { "outside" }));
        Ok(())
    }

    fn check(&self, request: &Request, _: &Target) -> Result<(), Failure> {
        request.config().required_prev_result().map(|_| ())
    }

    fn gc(&self, _: &Request, _: &ValidAttachments) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }
}

fn call(variables: &[(&str, &str)], stdin: impl Into<Vec<u8>>) -> Response {
    respond(&Idle, &Environment::from_pairs(variables.iter().copied()), Cursor::new(stdin.into()))
}

fn code(response: &Response) -> u64 {
    response.document.as_ref().unwrap()["code"].as_u64().unwrap()
}

#[test]
fn a_plugin_of_few_versions_says_so() {
    let version = |asked: &str| {
        let stdin = json!({ "cniVersion": asked }).to_string();
        call(&[("CNI_COMMAND", "VERSION")], stdin).document.unwrap()
    };
    assert_eq!(version("0.4.0"), json!({ "cniVersion": "0.4.0", "supportedVersions": ["0.4.0", "1.0.0"] }));
    assert_eq!(version("1.1.0")["cniVersion"], "1.0.0", "known, but not to this plugin");
    let config = json!({ "cniVersion": "1.1.0", "name": "n" }).to_string();
    let response = call(&[("CNI_COMMAND", "STATUS")], config);
    assert_eq!(code(&response), 1);
    assert_eq!(response.document.unwrap()["cniVersion"], "1.1.0", "the language of the one who asked");
}

#[test]
fn notes_of_the_plugin_and_of_the_library_come_together() {
    let config = json!({ "cniVersion": "1.0.0", "name": "n" }).to_string();
    let variables = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/gone\nfor good"),
    ];
    let response = call(&variables, config);
    assert!(response.success && response.document.is_none());
    assert_eq!(
        response.notes,
        [
            "DEL: CNI_NETNS /gone?for good: it is gone; releasing everything outside it",
            "released c1/eth0 outside",
        ]
    );
}

#[test]
fn variables_come_before_the_configuration() {
    let response = call(&[("CNI_COMMAND", "ADD")], "garbage");
    assert_eq!(code(&response), 4, "what is wrong with the call itself is said first");
}

fn any_variable() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("eth0".to_owned()),
        Just("/proc/self/ns/net".to_owned()),
        Just("/proc/self/ns/mnt".to_owned()),
        "\\PC{0,20}",
    ]
}

fn any_configuration() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![
        prop::sample::select(vec!["0.1.0", "0.4.0", "1.0.0", "1.1.0", "abc"]).prop_map(Value::from),
        Just(Value::Null),
        Just(json!(1)),
    ];
    let previous = prop_oneof![
        Just(Value::Null),
        Just(json!({ "ips": [{ "address": "10.0.0.5/24", "interface": 3 }] })),
        Just(json!({ "cniVersion": "0.2.0", "ip4": { "ip": "x" } })),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let document =
        (version, "[a-z/ ]{0,4}", previous, any::<bool>()).prop_map(|(version, name, previous, gc)| {
            let mut document = json!({ "cniVersion": version, "name": name, "prevResult": previous });
            if gc {
                document["cni.dev/attachments"] = previous;
            }
            document.to_string().into_bytes()
        });
    prop_oneof![document, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    /// Whatever comes in, what goes out is nothing, a result, or a well-formed error.
    #[test]
    fn every_answer_keeps_the_contract(
        command in prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "add", "x\ny"]),
        id in any_variable(), netns in any_variable(), ifname in any_variable(), over in any::<bool>(),
        configuration in any_configuration(),
    ) {
        let over = if over { "1" } else { "" };
        let response = call(
            &[
                ("CNI_COMMAND", command), ("CNI_CONTAINERID", &id), ("CNI_NETNS", &netns), ("CNI_IFNAME", &ifname),
                ("CNI_NETNS_OVERRIDE", over), ("CNI_PATH", "/nonexistent"),
            ],
            configuration,
        );
        for note in &response.notes {
            prop_assert!(!note.contains(char::is_control), "{note:?}");
        }
        if response.success {
            prop_assert_eq!(response.document.is_some(), command == "ADD");
        } else {
            let document = response.document.unwrap();
            let code = document["code"].as_u64().unwrap();
            prop_assert!([1, 4, 6, 7].contains(&code), "{document}");
            let message = document["msg"].as_str().unwrap();
            prop_assert!(!message.is_empty() && !message.contains(char::is_control), "{document}");
            prop_assert!(SpecVersion::parse(document["cniVersion"].as_str().unwrap()).is_some());
        }
    }
}
