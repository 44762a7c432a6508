use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use super::{Environment, Verb, parameters};

const FULL: &[(&str, &str)] = &[
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/blue"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

fn with(changes: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(FULL.iter().chain(changes).copied())
}

fn refused(environment: &Environment, verb: Verb) -> String {
    let failure = parameters(environment, verb).unwrap_err();
    assert_eq!(failure.code().number(), 4);
    failure.message().to_owned()
}

#[test]
fn each_verb_needs_what_the_specification_says() {
    let table: [(Verb, &[&str]); 6] = [
        (Verb::Add, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        (Verb::Check, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        (Verb::Del, &["CNI_CONTAINERID", "CNI_IFNAME"]),
        (Verb::Gc, &["CNI_PATH"]),
        (Verb::Status, &[]),
        (Verb::Version, &[]),
    ];
    for (verb, required) in table {
        assert!(parameters(&with(&[]), verb).is_ok());
        for (name, _) in FULL {
            let without = Environment::from_pairs(FULL.iter().filter(|(key, _)| key != name).copied());
            let empty = with(&[(name, "")]);
            for environment in [without, empty] {
                if required.contains(name) {
                    assert_eq!(
                        refused(&environment, verb),
                        format!("required env variables [{name}] missing")
                    );
                } else {
                    assert!(parameters(&environment, verb).is_ok(), "{verb} without {name}");
                }
            }
        }
        if !required.is_empty() {
            let message = refused(&Environment::default(), verb);
            assert_eq!(message, format!("required env variables [{}] missing", required.join(",")));
        }
    }
}

#[test]
fn a_bad_value_is_refused_under_the_variable_s_name() {
    for (name, values) in [
        ("CNI_CONTAINERID", ["-a", "a b", "a/b", "../x", "é", "a\n"]),
        ("CNI_IFNAME", ["sixteen_bytes_xx", ".", "a/b", "a:b", "a b", "eth%d"]),
    ] {
        for value in values {
            for verb in [Verb::Add, Verb::Check, Verb::Del] {
                assert!(refused(&with(&[(name, value)]), verb).contains(name), "{verb} {value:?}");
            }
            for verb in [Verb::Gc, Verb::Status, Verb::Version] {
                assert!(parameters(&with(&[(name, value)]), verb).is_ok(), "{verb} does not look at {name}");
            }
        }
    }
}

#[test]
fn a_value_that_is_not_text_is_refused() {
    let bytes = OsString::from_vec(vec![b'a', 0xff]);
    let pairs = FULL.iter().map(|(key, value)| (OsString::from(key), OsString::from(value)));
    let environment = Environment::from_pairs(pairs.chain([("CNI_CONTAINERID".into(), bytes)]));
    assert!(refused(&environment, Verb::Add).contains("CNI_CONTAINERID"));
}

#[test]
fn a_value_of_any_length_makes_a_short_error() {
    let failure = parameters(&with(&[("CNI_IFNAME", &"x".repeat(1 << 17))]), Verb::Add).unwrap_err();
    assert!(failure.document(crate::SpecVersion::NEWEST).to_string().len() < 600);
}

#[test]
fn verbs_are_matched_exactly() {
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        assert_eq!(Verb::parse(verb).map(Verb::as_str), Some(verb));
        assert_eq!(Verb::parse(&verb.to_lowercase()), None);
        assert_eq!(Verb::parse(&format!("{verb} ")), None);
    }
    assert_eq!(Verb::parse(""), None);
}

#[test]
fn the_later_of_two_variables_counts() {
    let environment = Environment::from_pairs([("A", "1"), ("B", "2"), ("A", "3"), ("B", "")]);
    assert_eq!(environment.text("A").unwrap(), Some("3"));
    assert_eq!(environment.text("B").unwrap(), None, "empty is unset");
    let changed = environment.with([("A", "4"), ("C", "5")]);
    assert_eq!(["A", "B", "C"].map(|name| changed.text(name).unwrap()), [Some("4"), None, Some("5")]);
    assert_eq!(environment.text("A").unwrap(), Some("3"), "a clone is one of its own");
    // What a delegate gets.
    let variables: std::collections::HashMap<_, _> = changed.iter().collect();
    assert_eq!(variables.get(OsStr::new("A")), Some(&OsStr::new("4")));
}
