//! What a plugin process refuses, with which code, and that it changes nothing by it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use common::{Stage, VERSIONS, example, example_path, silent};
use serde_json::{Value, json};

#[test]
fn an_unknown_verb_is_refused_by_name() {
    let stage = Stage::new();
    let config = stage.config("1.0.0");
    for verb in ["NOPE", "add", "Add", "ADD ", "DEL\n"] {
        stage.refused(&stage.call(verb, &config), 4, "CNI_COMMAND");
    }
    assert_eq!(stage.call("NOPE", &config).run().error()["cniVersion"], "1.0.0");
}

#[test]
fn variables_are_checked_before_anything_is_done() {
    let stage = Stage::new();
    let config = stage.config("1.1.0");
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        stage.refused(&stage.call("ADD", &config).without(name), 4, name);
        stage.refused(&stage.call("CHECK", &config).env(name, ""), 4, name);
    }
    stage.refused(&stage.call("GC", &config).without("CNI_PATH"), 4, "CNI_PATH");
    stage.refused(&stage.call("ADD", &config).env("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID");
    stage.refused(&stage.call("ADD", &config).env("CNI_IFNAME", "eth%d"), 4, "CNI_IFNAME");
    let nothing = example("hello").verb("ADD").config(&config);
    stage.refused(&nothing, 4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
    // What a verb does not need is not looked at; without a delegate nobody needs CNI_PATH.
    let bare = example("hello").verb("STATUS").config(&config);
    silent(&bare.attachment("../x", "", "a/b").run());
    silent(&stage.call("DEL", &config).without("CNI_PATH").without("CNI_NETNS").run());
    stage.call("ADD", &config).without("CNI_PATH").run().success();
}

#[test]
fn the_namespace_is_checked_before_anything_is_done() {
    let stage = Stage::new();
    let config = stage.config("1.1.0");
    let file = stage.scratch.path().join("file");
    File::create(&file).unwrap();
    let own = stage.host.netns().path();
    for path in [
        own,
        "/proc/self/ns/net".as_ref(),
        "/proc/self/ns/mnt".as_ref(),
        "/nonexistent".as_ref(),
        &file,
        stage.scratch.path(),
    ] {
        for verb in ["ADD", "CHECK"] {
            stage.refused(&stage.call(verb, &config).env("CNI_NETNS", path), 4, "CNI_NETNS");
        }
        // DEL goes on without it, and says so.
        let output = stage.call("DEL", &config).env("CNI_NETNS", path).run();
        silent(&output);
        assert!(output.stderr.contains("CNI_NETNS"), "{}", output.describe());
    }
    // The right namespace under a name that a result could not repeat.
    let undecodable = stage.scratch.path().join(OsStr::from_bytes(b"blue\xff"));
    std::os::unix::fs::symlink(stage.container.path(), &undecodable).unwrap();
    stage.refused(&stage.call("ADD", &config).env("CNI_NETNS", &undecodable), 4, "not UTF-8");
    silent(&stage.call("DEL", &config).env("CNI_NETNS", &undecodable).run());
}

#[test]
fn the_own_namespace_has_to_be_meant() {
    let stage = Stage::new();
    let config = stage.config("1.1.0");
    let own = |value: &str| {
        stage
            .call("ADD", &config)
            .env("CNI_NETNS", stage.host.netns().path())
            .env("CNI_NETNS_OVERRIDE", value)
    };
    for no in ["", "0", "yes", "false", "11"] {
        stage.refused(&own(no), 4, "should not be the same");
    }
    for yes in ["1", "true", "TRUE"] {
        own(yes).run().success();
        silent(&stage.call("DEL", &config).run());
    }
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let stage = Stage::new();
    let good = stage.config("1.1.0");
    let with = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        config.to_string().into_bytes()
    };
    let table: Vec<(Vec<u8>, u32, &str)> = vec![
        (b"".to_vec(), 6, "empty"),
        (b"xx".to_vec(), 6, "JSON"),
        (b"[]".to_vec(), 6, "object"),
        (format!("{good} {{}}").into_bytes(), 6, "JSON"),
        (b"{\"name\":\"n\",\"x\":\"\xff\"}".to_vec(), 6, "JSON"),
        (format!("{}1{}", "[".repeat(1 << 19), "]".repeat(1 << 19)).into_bytes(), 6, "recursion"),
        (with("name", json!(1)), 6, "name"),
        (with("name", json!("a b")), 7, "name"),
        (with("greeting", json!(7)), 7, "greeting"),
        (with("greeting", json!("")), 7, "greeting"),
        (with("stateDir", Value::Null), 7, "stateDir"),
        (with("cniVersion", json!("9.9.9")), 1, "9.9.9"),
        (with("cniVersion", json!("1.1")), 1, "1.1"),
        (with("cniVersion", json!(1)), 6, "cniVersion"),
        (with("prevResult", json!("x")), 7, "prevResult"),
        (with("prevResult", json!({ "ips": [{ "address": "10.0.0.1" }] })), 7, "prevResult.ips[0].address"),
        (with("ipam", json!({ "type": "../hello" })), 7, "type"),
        (with("ipam", json!({ "type": "missing" })), 105, "missing"),
    ];
    for (text, code, what) in table {
        stage.refused(&stage.call("ADD", &good).stdin(text), code, what);
    }
}

#[test]
fn an_error_has_the_version_of_the_request_if_there_is_one() {
    let stage = Stage::new();
    let version = |config: &Value| stage.call("ADD", config).run().error()["cniVersion"].clone();
    let mut config = stage.config("0.4.0");
    config["greeting"] = "".into();
    assert_eq!(version(&config), "0.4.0");
    config["cniVersion"] = Value::Null;
    assert_eq!(version(&config), "0.1.0");
    config["cniVersion"] = "9.9.9".into();
    assert_eq!(version(&config), "1.1.0");
    assert_eq!(version(&json!("text")), "1.1.0");
}

#[test]
fn verbs_have_an_age() {
    let stage = Stage::new();
    for version in VERSIONS {
        for (verb, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
            let output = stage.call(verb, &stage.config(version)).run();
            if version < since {
                assert_eq!(output.error()["code"], 1, "{verb} in {version}");
            } else if verb == "CHECK" {
                assert_eq!(output.error()["code"], 7, "it has no prevResult, which is not about the version");
            } else {
                silent(&output);
            }
        }
    }
}

#[test]
fn standard_input_that_can_not_be_read_is_code_5() {
    let directory = File::open("/").unwrap();
    let output = Command::new(example_path("hello"))
        .env_clear()
        .env("CNI_COMMAND", "STATUS")
        .stdin(OwnedFd::from(directory))
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 5, "{error}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_large_configuration_is_read_to_its_end() {
    let stage = Stage::new();
    let mut config = stage.config("1.1.0");
    config["pad"] = "x".repeat(1 << 20).into();
    stage.call("ADD", &config).run().success();
    // Also where the call fails for another reason: the writer never meets a closed pipe.
    for call in [stage.call("NOPE", &config), stage.call("ADD", &config).without("CNI_IFNAME")] {
        let mut child = call.spawn();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["code"], 4);
    }
}

#[test]
fn an_endless_input_is_refused() {
    let zero = File::open("/dev/zero").unwrap();
    let output = Command::new(example_path("hello"))
        .env_clear()
        .env("CNI_COMMAND", "STATUS")
        .stdin(zero)
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 6, "{error}");
}
