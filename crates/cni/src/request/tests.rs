use serde_json::{Value, json};

use super::{Config, Request, ValidAttachments};
use crate::environment::{Attachment, Environment};
use crate::failure::{Code, Failure};
use crate::name::{ContainerId, LinkName};
use crate::version::SpecVersion;

fn read(text: impl AsRef<[u8]>) -> Result<Config, Failure> {
    Config::read(text.as_ref().to_vec(), SpecVersion::ALL)
}

fn config(value: &Value) -> Config {
    read(value.to_string()).unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> (u32, String) {
    let failure = read(text).unwrap_err();
    (failure.code().number(), failure.message().to_owned())
}

#[test]
fn what_is_no_object_is_code_6() {
    let deep = format!("{{\"name\":\"n\",\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let table: [&[u8]; 14] = [
        b"",
        b"  \n",
        b"xx",
        b"[]",
        b"\"name\"",
        b"1",
        b"true",
        b"{} {}",
        b"{\"name\":\"n\"",
        b"{\"name\":1}",
        b"{\"name\":{\"password\":\"hunter2\"}}",
        b"{\"name\":\"n\",\"type\":[]}",
        b"{\"name\":\"\xff\"}",
        deep.as_bytes(),
    ];
    for text in table {
        let (code, message) = refused(text);
        assert_eq!(code, 6, "{:?}", String::from_utf8_lossy(text));
        assert!(!message.contains("hunter2") && message.len() < 300, "{message}");
    }
}

#[test]
fn a_missing_or_illegal_name_is_code_7() {
    let long = format!("{{\"name\":\"{}\"}}", "/".repeat(1 << 20));
    let table = [
        "null",
        "{}",
        r#"{"name":null}"#,
        r#"{"name":""}"#,
        r#"{"name":"a b"}"#,
        r#"{"name":"../x"}"#,
        r#"{"name":"-x"}"#,
        r#"{"name":"a/b"}"#,
        r#"{"name":"é"}"#,
        long.as_str(),
    ];
    for text in table {
        let (code, message) = refused(text);
        assert_eq!(code, 7, "{text}");
        assert!(message.contains("name") && message.len() < 400, "{message}");
    }
}

#[test]
fn versions_are_exact_strings() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let config = config(&json!({ "cniVersion": version, "name": "n" }));
        assert_eq!(config.version().as_str(), version);
    }
    for absent in [
        json!({ "name": "n" }),
        json!({ "name": "n", "cniVersion": "" }),
        json!({ "name": "n", "cniVersion": null }),
    ] {
        assert_eq!(config(&absent).version(), SpecVersion::V0_1_0);
    }
    for (version, code) in [
        (json!("9.9.9"), 1),
        (json!("1.1"), 1),
        (json!("1"), 1),
        (json!("0.5.0"), 1),
        (json!("1.1.00"), 1),
        (json!(1), 6),
        (json!(["1.1.0"]), 6),
        (json!("abc"), 6),
        (json!("1.0.0.0"), 6),
        (json!("1..0"), 6),
        (json!("v1.0.0"), 6),
        (json!(" 1.0.0"), 6),
    ] {
        let failure = read(json!({ "cniVersion": version, "name": "n" }).to_string()).unwrap_err();
        assert_eq!(failure.code().number(), code, "{version}");
        if code == 1 {
            assert!(failure.details().contains("1.1.0"), "the supported versions are listed");
        }
    }
}

#[test]
fn a_plugin_may_support_fewer_versions() {
    let supported = &[SpecVersion::V1_0_0, SpecVersion::V1_1_0];
    let code = |text: &str| Config::read(text.into(), supported).map_err(|failure| failure.code().number());
    assert!(code(r#"{"cniVersion":"1.0.0","name":"n"}"#).is_ok());
    assert_eq!(code(r#"{"cniVersion":"0.4.0","name":"n"}"#).unwrap_err(), 1);
    assert_eq!(code(r#"{"name":"n"}"#).unwrap_err(), 1, "absent is 0.1.0");
}

#[test]
fn keys_of_the_runtime_are_no_reason_to_refuse() {
    let text = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "x", "args": 5, "runtimeConfig": [], "capabilities": { "mac": true },
        "cniVersions": ["1.0.0", 7], "disableCheck": "true", "disableGC": true, "cni.dev/anything": {}, "x-test": { "k": 7 },
        "ipam": { "type": "host-local" }, "prevResult": { "ips": "garbage" },
    });
    let config = config(&text);
    assert_eq!(config.kind(), "x");
    assert_eq!(config.ipam_type().unwrap().as_deref(), Some("host-local"));
    assert_eq!(config.bytes(), text.to_string().as_bytes(), "a delegate gets what we got, to the byte");
}

#[test]
fn the_common_keys_are_found_in_any_case() {
    let config = config(&json!({ "CNIVersion": "0.4.0", "NAME": "n", "Type": "x", "IPAM": { "Type": "y" } }));
    assert_eq!(config.version(), SpecVersion::V0_4_0);
    assert_eq!((config.name().as_str(), config.kind()), ("n", "x"));
    assert_eq!(config.ipam_type().unwrap().as_deref(), Some("y"));
}

#[test]
fn a_configuration_of_a_megabyte_is_no_trouble() {
    let text = json!({ "name": "n", "pad": "x".repeat(1 << 20), "list": vec![1; 100_000] }).to_string();
    assert_eq!(read(&text).unwrap().name().as_str(), "n");
}

#[test]
fn ipam_that_is_not_there_is_none() {
    let kind = |ipam: Value| config(&json!({ "name": "n", "ipam": ipam })).ipam_type();
    for none in [Value::Null, json!({}), json!({ "type": "" }), json!({ "type": null })] {
        assert_eq!(kind(none), Ok(None));
    }
    for (wrong, path) in [(json!("host-local"), "ipam:"), (json!({ "type": 5 }), "ipam.type:")] {
        let failure = kind(wrong).unwrap_err();
        assert_eq!(failure.code().number(), 7);
        assert!(failure.message().contains(path), "{}", failure.message());
    }
}

#[test]
fn prev_result_is_read_in_its_own_version() {
    let previous = |version: &str, value: Value| {
        config(&json!({ "cniVersion": version, "name": "n", "prevResult": value })).prev_result()
    };
    for none in [Value::Null, json!({})] {
        assert_eq!(previous("1.1.0", none), Ok(None));
    }
    let legacy = json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.5/24" } });
    assert_eq!(previous("1.1.0", legacy).unwrap().unwrap().ips.len(), 1);
    let without = json!({ "ips": [{ "address": "10.0.0.5/24" }] });
    assert_eq!(previous("1.0.0", without).unwrap().unwrap().ips.len(), 1, "without a version, the request's");
    let empty = json!({ "cniVersion": "1.0.0" });
    assert!(previous("1.0.0", empty).unwrap().is_some(), "a result without addresses is a result");
}

#[test]
fn a_malformed_prev_result_is_code_7_with_its_path() {
    for (value, path) in [
        (json!("x"), "prevResult"),
        (json!([]), "prevResult"),
        (json!({ "ips": {} }), "prevResult.ips"),
        (json!({ "ips": [{ "address": "10.0.0.5" }] }), "prevResult.ips[0].address"),
        (json!({ "ips": [{}] }), "prevResult.ips[0].address"),
        (
            json!({ "routes": [{ "dst": "::/0" }, { "dst": "10.0.0.0/8", "gw": "x" }] }),
            "prevResult.routes[1].gw",
        ),
        (json!({ "interfaces": [{ "mtu": -1 }] }), "prevResult.interfaces[0].mtu"),
        (json!({ "cniVersion": "0.2.0", "ip4": { "gateway": "10.0.0.1" } }), "prevResult.ip4.ip"),
        (json!({ "cniVersion": "7.0.0" }), "prevResult"),
    ] {
        let config = config(&json!({ "cniVersion": "1.1.0", "name": "n", "prevResult": value }));
        let failure = config.prev_result().unwrap_err();
        assert_eq!(failure.code().number(), 7, "{value}");
        assert!(failure.message().contains(path), "{value}: {}", failure.message());
    }
}

#[test]
fn a_missing_prev_result_can_be_required() {
    let failure = config(&json!({ "name": "n" })).required_prev_result().unwrap_err();
    assert_eq!(failure.code().number(), 7);
    assert!(failure.message().contains("prevResult"));
}

fn valid(list: Option<(&str, Value)>) -> Result<Option<ValidAttachments>, Failure> {
    let mut document = json!({ "cniVersion": "1.1.0", "name": "n" });
    if let Some((key, value)) = list {
        document[key] = value;
    }
    ValidAttachments::read(&config(&document))
}

#[test]
fn the_list_of_valid_attachments_has_two_names_and_an_empty_form() {
    let entries = json!([
        { "containerID": "c1", "ifname": "eth0" },
        { "containerID": "c1", "ifname": "eth0" },
        { "containerId": "c2", "IFNAME": "eth1" },
    ]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments", "CNI.dev/Valid-Attachments"] {
        let list = valid(Some((key, entries.clone()))).unwrap().unwrap();
        assert!(list.contains("c1", "eth0") && list.contains("c2", "eth1"));
        assert!(!list.contains("c1", "eth1") && !list.contains("c2", "eth0"), "both halves count");
        for empty in [json!([]), Value::Null] {
            assert_eq!(valid(Some((key, empty))), Ok(Some(ValidAttachments::default())));
        }
    }
    assert_eq!(valid(None), Ok(None), "no list at all says nothing");
}

#[test]
fn the_newer_name_of_the_list_wins() {
    let text = json!({
        "cniVersion": "1.1.0", "name": "n",
        "cni.dev/attachments": [{ "containerID": "old", "ifname": "eth0" }],
        "cni.dev/valid-attachments": [{ "containerID": "new", "ifname": "eth0" }],
    });
    let list = ValidAttachments::read(&config(&text)).unwrap().unwrap();
    assert!(list.contains("new", "eth0") && !list.contains("old", "eth0"));
}

#[test]
fn a_list_with_half_an_entry_is_refused_rather_than_taken_for_less() {
    for wrong in [
        json!({}),
        json!("c1"),
        json!(["c1"]),
        json!([{ "containerID": "c1" }]),
        json!([{ "ifname": "eth0" }]),
        json!([{ "containerID": "c1", "ifname": "" }]),
        json!([{ "containerID": "", "ifname": "eth0" }]),
        json!([null]),
    ] {
        let failure = valid(Some(("cni.dev/valid-attachments", wrong.clone()))).unwrap_err();
        assert_eq!(failure.code().number(), 7, "{wrong}");
        assert!(failure.message().contains("cni.dev/valid-attachments"), "{}", failure.message());
    }
}

#[test]
fn a_list_can_be_made_of_attachments() {
    let attachment =
        Attachment { container_id: ContainerId::new("c1").unwrap(), ifname: LinkName::new("eth0").unwrap() };
    let list = ValidAttachments::from_attachments([attachment]);
    assert!(list.contains("c1", "eth0") && !list.contains("c1", "eth1"));
}

#[test]
fn the_search_path_has_no_working_directory_in_it() {
    let request = |path: &str| {
        Request::new(config(&json!({ "name": "n" })), Environment::from_pairs([("CNI_PATH", path)]))
    };
    let paths = request("/a::/b:").search_path();
    assert_eq!(paths, [std::path::Path::new("/a"), std::path::Path::new("/b")]);
    assert!(request("").search_path().is_empty());
}

#[test]
fn a_plugin_is_looked_for_once_in_a_call() {
    let directory = std::env::temp_dir().join(format!("ferrule-cni-found-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let program = |kind: &str| directory.join(kind);
    let config = config(&json!({ "cniVersion": "1.1.0", "name": "n" }));
    let environment = Environment::from_pairs([("CNI_PATH", directory.as_os_str())]);
    let request = Request::new(config, environment);
    assert_eq!(request.delegate("one").unwrap_err().code(), Code::Delegate, "not there yet");
    for kind in ["one", "other"] {
        std::fs::write(program(kind), "").unwrap();
        assert_eq!(request.delegate(kind).unwrap().kind(), kind);
    }
    // The same call, to a delegate.
    let other = request.without_netns();
    std::fs::remove_dir_all(&directory).unwrap();
    for request in [&request, &other] {
        assert!(request.delegate("one").is_ok());
        assert_eq!(request.delegate("other").unwrap_err().code(), Code::Delegate, "each its own program");
    }
}

#[test]
fn prev_result_is_the_same_whoever_asks_and_however_often() {
    let previous = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.2/24" }] });
    let of = |value: &Value| config(&json!({ "cniVersion": "1.0.0", "name": "n", "prevResult": value }));
    let address = |config: &Config| {
        let previous = config.prev_result().unwrap();
        previous.map(|previous| previous.ips.iter().map(|ip| ip.address.to_string()).collect::<String>())
    };
    let request = Request::new(of(&previous), Environment::default());
    request.config().check_prev_result().unwrap();
    let other = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.3/24" }] });
    let changed = request.with_key("prevResult", other);
    assert_eq!(address(changed.config()).as_deref(), Some("10.0.0.3/24"), "not that of the other");
    let copy = request.without_netns();
    for config in [request.config(), copy.config(), request.config()] {
        assert_eq!(address(config).as_deref(), Some("10.0.0.2/24"));
    }
    let without = of(&Value::Null);
    without.check_prev_result().unwrap();
    assert_eq!(address(&without), None);
    assert_eq!(of(&json!([])).check_prev_result().unwrap_err().code(), Code::InvalidConfig);
}
