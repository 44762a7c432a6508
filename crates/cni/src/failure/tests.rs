use serde_json::json;

use super::{Code, Failure};
use crate::version::SpecVersion;

#[test]
fn the_document_has_the_keys_of_the_specification() {
    let failure = Failure::new(Code::InvalidConfig, "mtu: is 70000")
        .detail("a link takes up to 65535")
        .detail("")
        .hint("first")
        .hint("write less");
    assert_eq!(
        failure.document(SpecVersion::V0_4_0),
        json!({
            "cniVersion": "0.4.0", "code": 7, "msg": "mtu: is 70000",
            "details": "a link takes up to 65535\nhint: write less",
        })
    );
    let bare = Failure::new(Code::Io, "no").document(SpecVersion::NEWEST);
    assert_eq!(bare, json!({ "cniVersion": "1.1.0", "code": 5, "msg": "no" }));
}

#[test]
fn the_message_is_one_line_without_control_characters() {
    let document = Failure::new(Code::Io, "a\nb\r\tc\u{1b}[31m").document(SpecVersion::NEWEST);
    assert_eq!(document["msg"], "a b  c [31m");
}

#[test]
fn no_code_of_ours_is_one_the_specification_keeps() {
    let ours = [
        Code::IncompatibleVersion,
        Code::UnsupportedField,
        Code::UnknownContainer,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidConfig,
        Code::TryAgainLater,
        Code::NotAvailable,
        Code::LimitedConnectivity,
    ];
    let numbers: Vec<u32> = ours.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 11, 50, 51]);
    let own = [
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
    assert!(own.iter().all(|code| (100..200).contains(&code.number())));
}

#[test]
fn a_received_number_keeps_its_value_but_for_zero() {
    for number in 1..1000 {
        assert_eq!(Code::received(number).number(), number);
    }
    assert_eq!(Code::received(u32::MAX).number(), u32::MAX);
    assert_eq!(Code::received(11), Code::TryAgainLater, "so that a caller may match on it");
    assert_eq!(Code::received(104), Code::Foreign(104), "another plugin's 104 is not ours");
    assert_eq!(Code::received(0).number(), 105);
}

#[test]
fn joining_keeps_everything_that_was_said() {
    assert!(Failure::join(Vec::new()).is_ok());
    let one = Failure::new(Code::Io, "one").detail("because").hint("do this");
    assert_eq!(Failure::join(vec![one.clone()]), Err(one.clone()));
    let other = Failure::new(Code::Kernel, "other").detail("EBUSY");
    let joined = Failure::join(vec![one.clone(), other]).unwrap_err();
    assert_eq!(joined.code(), Code::Several);
    assert_eq!(joined.message(), "2 operations failed; the first: one");
    assert_eq!(joined.details(), "because\nother\nEBUSY\nhint: do this");
    let same = Failure::join(vec![one, Failure::new(Code::Io, "two")]).unwrap_err();
    assert_eq!(same.code(), Code::Io, "the same code twice is that code");
}

#[test]
fn the_sources_of_an_error_become_details() {
    #[derive(Debug, thiserror::Error)]
    #[error("can't set the address")]
    struct Outer(#[source] std::io::Error);
    let error = Outer(std::io::Error::other("Permission denied"));
    let failure = Failure::from_error(Code::Kernel, &error);
    assert_eq!(failure.message(), "can't set the address");
    assert_eq!(failure.details(), "Permission denied");
}

/// A sysctl's key, a chain's name, a path: texts of any length are quoted in messages.
#[test]
fn a_message_is_one_line_of_bounded_length_that_keeps_its_start_and_end() {
    let key = "ä".repeat(5000);
    let failure =
        Failure::new(Code::InvalidConfig, format!("invalid configuration: sysctl:\n{key:?}: no such key"));
    let document = failure.document(SpecVersion::NEWEST);
    let message = document["msg"].as_str().unwrap();
    assert!(message.starts_with("invalid configuration: sysctl: \"ä"), "{message}");
    assert!(message.ends_with("ä\": no such key"), "{message}");
    assert!(message.contains(" […] "), "{message}");
    assert_eq!(message.chars().count(), 1005);

    let whole = "a".repeat(1000);
    let failure = Failure::new(Code::InvalidConfig, whole.clone());
    assert_eq!(failure.document(SpecVersion::NEWEST)["msg"], whole);
}
