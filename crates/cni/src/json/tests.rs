use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{decode, decode_object, get, parse};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    r#type: String,
    subnet: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Outer {
    host_port: u16,
    n: i64,
    f: f64,
    b: bool,
    s: String,
    l: Vec<String>,
    li: Vec<i32>,
    ls: Vec<Inner>,
    m: BTreeMap<String, String>,
    p: Option<i32>,
    ipam: Inner,
}

fn read(text: &str) -> Option<Outer> {
    decode(&parse(text.as_bytes()).ok()?).ok()
}

/// Every line was run through Go 1.26's `encoding/json` into the same structure; the right side is what came out.
#[test]
fn documents_are_read_as_go_reads_them() {
    let port = |host_port| Some(Outer { host_port, ..Outer::default() });
    let nothing = || Some(Outer::default());
    let table: Vec<(&str, Option<Outer>)> = vec![
        // Keys: without regard to case, the last one counts, whichever way it matches.
        (r#"{"hostPort":80}"#, port(80)),
        (r#"{"HostPort":80}"#, port(80)),
        (r#"{"HOSTPORT":80}"#, port(80)),
        (r#"{"host_port":80}"#, nothing()),
        (r#"{"hostPort":1,"hostPort":2}"#, port(2)),
        (r#"{"hostPort":1,"HostPort":2}"#, port(2)),
        (r#"{"HostPort":2,"hostPort":1}"#, port(1)),
        (r#"{"hostPort":1,"HostPort":2,"hostPort":3}"#, port(3)),
        (r#"{"unknown":{"deep":[1,2]}}"#, nothing()),
        // null leaves a key as it was.
        (r#"{"hostPort":null}"#, nothing()),
        (r#"{"hostPort":1,"hostPort":null}"#, port(1)),
        (r#"{"b":null,"s":null,"l":null,"p":null,"ipam":null}"#, nothing()),
        // and is the zero value inside lists and maps.
        (r#"{"l":["a",null]}"#, Some(Outer { l: vec!["a".into(), String::new()], ..Outer::default() })),
        (r#"{"li":[1,null,2]}"#, Some(Outer { li: vec![1, 0, 2], ..Outer::default() })),
        (
            r#"{"ls":[{"TYPE":"a"},null]}"#,
            Some(Outer {
                ls: vec![Inner { r#type: "a".into(), ..Inner::default() }, Inner::default()],
                ..Outer::default()
            }),
        ),
        (r#"{"m":{"a":null}}"#, Some(Outer { m: [("a".into(), String::new())].into(), ..Outer::default() })),
        // The keys of a map are data, not names.
        (
            r#"{"m":{"a":"1","A":"2"}}"#,
            Some(Outer {
                m: [("a".into(), "1".into()), ("A".into(), "2".into())].into(),
                ..Outer::default()
            }),
        ),
        (r#"{"p":0}"#, Some(Outer { p: Some(0), ..Outer::default() })),
        (r#"{"l":["a","b"],"l":["c"]}"#, Some(Outer { l: vec!["c".into()], ..Outer::default() })),
        // Numbers: nothing with a point or an exponent is an integer.
        (r#"{"hostPort":65536}"#, None),
        (r#"{"hostPort":-1}"#, None),
        (r#"{"hostPort":80.0}"#, None),
        (r#"{"hostPort":8e1}"#, None),
        (r#"{"hostPort":"80"}"#, None),
        (r#"{"hostPort":true}"#, None),
        (r#"{"hostPort":[80]}"#, None),
        (r#"{"n":1.0}"#, None),
        (r#"{"n":1e2}"#, None),
        (r#"{"n":9223372036854775807}"#, Some(Outer { n: i64::MAX, ..Outer::default() })),
        (r#"{"n":9223372036854775808}"#, None),
        (r#"{"n":1e400}"#, None),
        (r#"{"f":1e400}"#, None),
        (r#"{"f":1}"#, Some(Outer { f: 1.0, ..Outer::default() })),
        (r#"{"n":01}"#, None),
        (r#"{"n":+1}"#, None),
        (r#"{"n":.5}"#, None),
        (r#"{"n":NaN}"#, None),
        // Kinds are not converted.
        (r#"{"b":"true"}"#, None),
        (r#"{"b":1}"#, None),
        (r#"{"s":1}"#, None),
        (r#"{"l":{}}"#, None),
        (r#"{"l":"a"}"#, None),
        (r#"{"m":[]}"#, None),
        (r#"{"ipam":"x"}"#, None),
        (r#"{"ipam":[]}"#, None),
        (r#"{"s":"\u0000"}"#, Some(Outer { s: "\0".into(), ..Outer::default() })),
        ("{\"s\":\"a\tb\"}", None),
        // Whole documents.
        ("null", nothing()),
        ("{}\n\t ", nothing()),
        ("[]", None),
        ("{} {}", None),
        ("{} x", None),
        (r#"{"a":1,}"#, None),
        ("{'a':1}", None),
        ("\u{feff}{}", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(read(text), expected, "{text}");
    }
}

/// Where we differ from Go, knowingly: each of these Go accepts, and nothing that writes configurations emits it.
#[test]
fn what_go_accepts_and_we_do_not() {
    // The long s and the Kelvin sign, which fold to ASCII letters in Unicode.
    assert_eq!(read("{\"ho\u{17f}tPort\":80}"), Some(Outer::default()));
    // Overflow in a key nobody reads, half surrogates, bytes that are no UTF-8, minus zero.
    assert_eq!(read(r#"{"unknown":1e400}"#), None);
    assert_eq!(read(r#"{"s":"\ud800"}"#), None);
    assert!(parse(b"{\"s\":\"\xff\"}").is_err());
    assert_eq!(read(r#"{"n":-0}"#), None);
    // A repeated object replaces the earlier one; Go merges the two.
    let repeated = read(r#"{"ipam":{"type":"x"},"ipam":{"subnet":"y"}}"#).unwrap();
    assert_eq!(repeated.ipam, Inner { r#type: String::new(), subnet: "y".into() });
}

#[test]
fn nesting_is_limited_before_it_can_hurt() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(parse(nested(100).as_bytes()).is_ok());
        for depth in [128, 10_000, 100_000] {
            let error = parse(nested(depth).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("recursion limit"), "{error}");
        }
    }
}

#[test]
fn a_value_can_be_had_by_key() {
    let object = parse(br#"{"Name":"first","type":null,"NAME":"last","name":null}"#).unwrap();
    let object = object.as_object().unwrap();
    assert_eq!(get(object, "name"), Some(&json!("last")));
    assert_eq!(get(object, "type"), None);
    assert_eq!(get(object, "absent"), None);
}

#[test]
fn an_error_says_where_and_what() {
    let says = |text: &str| decode::<Outer>(&parse(text.as_bytes()).unwrap()).unwrap_err().to_string();
    assert_eq!(
        says(r#"{"HostPort":70000}"#),
        "HostPort: expected a whole number from 0 to 65535, found a number (value: 70000)"
    );
    assert_eq!(
        says(r#"{"HostPort":"8080"}"#),
        r#"HostPort: expected a whole number from 0 to 65535, without quotes (value: "8080")"#
    );
    assert_eq!(
        says(r#"{"HostPort":"http"}"#),
        r#"HostPort: expected a whole number from 0 to 65535, found a string (value: "http")"#
    );
    assert_eq!(
        says(r#"{"ls":[{},{"subnet":5}]}"#),
        "ls[1].subnet: expected a string, found a number (value: 5)"
    );
    assert_eq!(says(r#"{"ipam":[{"a":1}]}"#), "ipam: expected an object, found a list (value: […])");
    assert_eq!(says(r#"{"m":{"a b":{}}}"#), "m.a b: expected a string, found an object (value: {})");
    assert_eq!(says("[]"), "expected an object, found a list (value: [])");
}

#[test]
fn a_missing_key_is_named_with_its_path() {
    #[derive(Debug, Deserialize)]
    struct Range {
        #[expect(dead_code, reason = "only its absence matters")]
        subnet: String,
    }
    #[derive(Debug, Deserialize)]
    struct Ranges {
        #[expect(dead_code, reason = "only its absence matters")]
        ranges: Vec<Vec<Range>>,
    }
    let error = decode::<Ranges>(&json!({ "ranges": [[], [{ "Gateway": "x" }]] })).unwrap_err();
    assert_eq!(error.to_string(), "ranges[1][0].subnet: is required");
    assert_eq!(error.value(), None);
    let error = decode_object::<Ranges>(&serde_json::Map::new()).unwrap_err();
    assert_eq!(error.path(), "ranges");
}

#[test]
fn a_choice_is_listed_when_it_is_missed() {
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Backend {
        Nftables,
        Iptables,
    }
    #[derive(Debug, Deserialize)]
    struct Config {
        backend: Option<Backend>,
    }
    let read = |value: Value| decode::<Config>(&json!({ "backend": value }));
    assert_eq!(read(json!("nftables")).unwrap().backend, Some(Backend::Nftables));
    assert_eq!(read(Value::Null).unwrap().backend, None);
    let error = read(json!("nft")).unwrap_err().to_string();
    assert!(error.contains("`nftables`") && error.contains("(value: \"nft\")"), "{error}");
}

#[test]
fn credentials_and_bulk_stay_out_of_errors() {
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Secrets {
        api_token: u32,
        private_key: Option<crate::Cidr>,
        text: u32,
    }
    for document in [
        json!({ "apiToken": "hunter2" }),
        json!({ "privateKey": "hunter2" }),
        json!({ "text": { "password": "hunter2" } }),
        json!({ "text": ["hunter2"] }),
    ] {
        let error = decode::<Secrets>(&document).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!error.path().is_empty());
    }
    let error = decode::<Secrets>(&json!({ "text": "x".repeat(1 << 20) })).unwrap_err();
    assert!(error.to_string().len() < 300);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn without_repeated_keys_it_is_the_ordinary_parser(value in any_json()) {
        let text = value.to_string();
        let ordinary: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), ordinary);
    }

    #[test]
    fn any_document_decodes_or_is_refused_with_a_short_reason(value in any_json()) {
        prop_assert_eq!(&decode::<Value>(&value).unwrap(), &value);
        if let Err(error) = decode::<Outer>(&value) {
            prop_assert!(error.to_string().chars().count() < 400);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }
}

#[test]
fn the_last_of_equal_keys_counts_at_its_place() {
    for (text, expected) in [
        (r#"{"a":1,"b":2,"a":3,"c":4}"#, r#"{"b":2,"a":3,"c":4}"#),
        (r#"{"a":1,"b":2,"a":null,"c":4}"#, r#"{"b":2,"a":1,"c":4}"#),
        (r#"{"a":1,"a":2,"a":null}"#, r#"{"a":2}"#),
        (r#"{"a":null,"a":null,"b":1}"#, r#"{"a":null,"b":1}"#),
        (r#"{"x":{"a":1,"b":{"c":2,"c":3},"a":4}}"#, r#"{"x":{"b":{"c":3},"a":4}}"#),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), expected, "{text}");
    }
    // However many they are, and whether it shows early or late.
    for first in [0, 5, 99] {
        let all: Vec<String> = (0..100).map(|key| format!("\"k{key}\":{key}")).collect();
        let text = format!("{{{},\"k{first}\":\"again\",\"z\":0,\"k{first}\":null}}", all.join(","));
        let mut left = all;
        left.remove(first);
        let expected = format!("{{{},\"z\":0,\"k{first}\":\"again\"}}", left.join(","));
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), expected, "{first}");
    }
}
