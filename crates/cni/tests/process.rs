//! Plugins as a runtime meets them: processes with an environment, three streams and an exit status.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use common::{Stage, VERSIONS, example, example_path, silent};
use serde_json::{Value, json};
use testkit::Invocation;

#[test]
fn a_life_in_every_version() {
    for version in VERSIONS {
        let stage = Stage::new();
        stage.scratch.script(
            "fixed",
            r#"[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24","gateway":"10.1.2.1"}}'"#,
        );
        let mut config = stage.config(version);
        config["ipam"] = json!({ "type": "fixed" });
        let result = stage.call("ADD", &config).run().success();
        assert_eq!(result["cniVersion"], version);
        let address = if version < "0.3.0" { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert_eq!(address, "10.1.2.3/24");
        if version >= "0.3.0" {
            let sandbox = stage.container.path().to_str().unwrap();
            assert_eq!(result["interfaces"], json!([{ "name": "eth0", "sandbox": sandbox }]));
        }
        assert_eq!(stage.greeted(), ["c1:eth0"]);
        config["prevResult"] = result;
        let mut verbs = vec!["ADD"];
        if version >= "0.4.0" {
            silent(&stage.call("CHECK", &config).run());
            verbs.push("CHECK");
        }
        for _ in 0..3 {
            silent(&stage.call("DEL", &config).run());
        }
        assert!(stage.greeted().is_empty());
        verbs.extend(["DEL"; 3]);
        assert_eq!(stage.scratch.calls(), verbs, "the delegate sees what its caller sees");
    }
}

#[test]
fn a_result_passes_through_a_chain_unchanged() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let stage = Stage::new();
        let mut config = stage.config(version);
        let path = testkit::workspace_dir().join(format!("testdata/results/container/{version}.json"));
        let mut previous: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        previous["interfaces"][2]["sandbox"] = stage.container.path().to_str().unwrap().into();
        previous["x-unknown"] = json!({ "kept": [1, 2] });
        config["prevResult"] = previous.clone();
        assert_eq!(stage.call("ADD", &config).run().success(), previous);
        // A version that is not said is the request's.
        config["prevResult"].as_object_mut().unwrap().remove("cniVersion");
        silent(&stage.call("DEL", &config).run());
        assert_eq!(stage.call("ADD", &config).run().success(), previous);
    }
}

#[test]
fn without_a_verb_it_introduces_itself() {
    let hello = example("hello").verb("").without("CNI_COMMAND");
    for call in [hello.clone(), hello.env("CNI_COMMAND", "")] {
        let output = call.run();
        assert!(output.succeeded() && output.stdout.is_empty(), "{}", output.describe());
        assert!(output.stderr.contains("CNI hello plugin"));
        assert!(
            output
                .stderr
                .contains("CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")
        );
    }
}

#[test]
fn version_needs_nothing_and_echoes_what_it_supports() {
    let version = |stdin: &str| {
        let answer = example("hello").verb("VERSION").stdin(stdin).run().success();
        assert_eq!(answer["supportedVersions"], json!(VERSIONS));
        answer["cniVersion"].as_str().unwrap().to_owned()
    };
    for known in VERSIONS {
        assert_eq!(version(&format!("{{\"cniVersion\":\"{known}\"}}")), known);
    }
    for other in [
        r#"{"cniVersion":"9.9.9"}"#,
        r#"{"cniVersion":7}"#,
        "{}",
        "null",
        "",
        "garbage",
        "[",
        "{\"cniVersion\":\"0.4.0\"",
    ] {
        assert_eq!(version(other), "1.1.0", "{other}");
    }
    // libcni's probe: its variables hold `dummy`, or nothing.
    let probe = example("hello").verb("VERSION").attachment("", "dummy", "dummy").env("CNI_PATH", "dummy");
    assert_eq!(probe.stdin(r#"{"cniVersion":"1.1.0"}"#).run().success()["cniVersion"], "1.1.0");
}

#[test]
fn version_does_not_wait_for_the_end_of_its_input() {
    for said in [None, Some(r#"{"cniVersion":"0.4.0"}"#)] {
        let mut child = example("hello").verb("VERSION").spawn();
        let mut stdin = child.stdin.take().unwrap();
        if let Some(said) = said {
            stdin.write_all(said.as_bytes()).unwrap();
        }
        // The write end stays open until the plugin has ended.
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(child.wait().unwrap().success());
        let answer: Value = serde_json::from_str(&printed).unwrap();
        assert!(answer["cniVersion"].is_string(), "{answer}");
        drop(stdin);
    }
}

#[test]
fn gc_takes_what_is_not_listed_and_nothing_without_a_list() {
    let stage = Stage::new();
    let config = stage.config("1.1.0");
    let fill = || {
        let _ = fs::remove_dir_all(stage.scratch.path().join("state"));
        for (container, ifname) in [("c1", "eth0"), ("c1", "eth1"), ("c2", "eth0")] {
            stage.call("ADD", &config).attachment(container, stage.container.path(), ifname).run().success();
        }
    };
    let gc = |list: Option<(&str, Value)>| {
        fill();
        let mut config = config.clone();
        if let Some((key, value)) = list {
            config[key] = value;
        }
        // libcni sets all variables, the unused ones to nothing.
        let output = stage.call("GC", &config).attachment("", "", "").run();
        silent(&output);
        (stage.greeted(), output.stderr)
    };
    let all = ["c1:eth0", "c1:eth1", "c2:eth0"];
    let (left, said) = gc(None);
    assert_eq!(left, all);
    assert!(said.contains("cni.dev/valid-attachments"), "{said}");
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let (left, said) = gc(Some((
            key,
            json!([{ "containerID": "c1", "ifname": "eth0" }, { "containerID": "c9", "ifname": "x" }]),
        )));
        assert_eq!((left, said), (vec!["c1:eth0".to_owned()], String::new()));
        assert!(gc(Some((key, json!([])))).0.is_empty());
        assert!(gc(Some((key, Value::Null))).0.is_empty(), "a nil slice of Go");
        fill();
        let mut config = config.clone();
        config[key] = json!([{ "containerID": "c1" }]);
        assert_eq!(stage.call("GC", &config).run().error()["code"], 7);
        assert_eq!(stage.greeted(), all);
    }
}

#[test]
fn a_failure_after_the_delegate_s_add_takes_the_address_back() {
    let stage = Stage::new();
    stage.scratch.script("fixed", r#"echo '{"ips":[{"address":"10.1.2.3/24"}]}'"#);
    let mut config = stage.config("1.1.0");
    config["ipam"] = json!({ "type": "fixed" });
    // A plain file where the directory should be.
    fs::write(stage.scratch.path().join("state"), "").unwrap();
    let error = stage.call("ADD", &config).run().error();
    assert_eq!(error["code"], 5);
    assert_eq!(stage.scratch.calls(), ["ADD", "DEL"]);
}

#[test]
fn a_second_add_leaves_the_first_its_lease() {
    let stage = Stage::new();
    stage.scratch.script("fixed", r#"echo '{"ips":[{"address":"10.1.2.3/24"}]}'"#);
    let mut config = stage.config("1.1.0");
    config["ipam"] = json!({ "type": "fixed" });
    stage.call("ADD", &config).run().success();
    assert_eq!(stage.call("ADD", &config).run().error()["code"], 103);
    assert_eq!(stage.scratch.calls(), ["ADD"]);
}

#[test]
fn a_delegate_s_standard_error_reaches_the_plugin_s() {
    let stage = Stage::new();
    stage.scratch.script(
        "chatty",
        r#"echo "noticed during $CNI_COMMAND" >&2; echo '{"ips":[{"address":"10.1.2.3/24"}]}'"#,
    );
    stage.scratch.script("failing", r#"echo "why $CNI_COMMAND failed" >&2; exit 1"#);
    let mut config = stage.config("1.1.0");
    config["ipam"] = json!({ "type": "chatty" });
    let output = stage.call("ADD", &config).run();
    output.success();
    assert_eq!(output.stderr, "noticed during ADD\n");
    config["ipam"] = json!({ "type": "failing" });
    let output = stage.call("ADD", &config).env("CNI_IFNAME", "eth1").run();
    assert!(output.error()["details"].as_str().unwrap().contains("why ADD failed"));
    assert!(output.stderr.contains("why ADD failed"));
}

#[test]
fn a_del_hides_the_host_s_namespace_from_delegates_and_no_other() {
    let stage = Stage::new();
    stage.scratch.script("fixed", r#"echo "$CNI_COMMAND ${CNI_NETNS-unset}" >>"$DIR/seen""#);
    let mut config = stage.config("1.1.0");
    config["ipam"] = json!({ "type": "fixed" });
    let own = stage.host.netns().path().display().to_string();
    let inside = stage.container.path().display().to_string();
    for path in [own.as_str(), "/gone", inside.as_str()] {
        silent(&stage.call("DEL", &config).env("CNI_NETNS", path).run());
    }
    silent(&stage.call("DEL", &config).env("CNI_NETNS", &own).env("CNI_NETNS_OVERRIDE", "1").run());
    assert_eq!(stage.scratch.read("seen"), format!("DEL \nDEL /gone\nDEL {inside}\nDEL {own}\n"));
}

/// The plugin that misbehaves on demand, and the verbs it was called with.
fn faulty(stage: &Stage, verb: &str, version: &str, fault: &str) -> Invocation {
    let log = stage.scratch.path().join("log");
    let config = json!({ "cniVersion": version, "name": "n", "log": log, "fault": fault });
    example("faulty")
        .verb(verb)
        .attachment("c1", stage.container.path(), "eth0")
        .env("CNI_PATH", "/x")
        .config(&config)
}

fn log(stage: &Stage) -> Vec<String> {
    stage.scratch.read("log").lines().map(ToOwned::to_owned).collect()
}

#[test]
fn an_add_that_no_version_can_report_is_taken_back() {
    for version in ["0.1.0", "0.2.0"] {
        let stage = Stage::new();
        let error = faulty(&stage, "ADD", version, "no address").run().error();
        assert_eq!((&error["code"], &error["cniVersion"]), (&json!(7), &json!(version)));
        assert_eq!(error["msg"], "cannot convert: no valid IP addresses");
        assert_eq!(log(&stage), ["add", "del inside"]);
    }
    let stage = Stage::new();
    faulty(&stage, "ADD", "0.3.0", "no address").run().success();
    assert_eq!(log(&stage), ["add"]);
}

#[test]
fn a_panic_is_an_error_document() {
    for (verb, fault, calls) in [
        ("ADD", "panic in add", vec!["add", "del inside"]),
        ("DEL", "panic in del inside", vec!["del inside"]),
        ("CHECK", "panic in check", vec!["check"]),
        ("GC", "panic in gc", vec!["gc"]),
        ("STATUS", "panic in status", vec!["status"]),
    ] {
        let stage = Stage::new();
        let call = faulty(&stage, verb, "1.1.0", fault);
        let mut config: Value =
            json!({ "cni.dev/valid-attachments": [], "cniVersion": "1.1.0", "name": "n" });
        config["log"] = stage.scratch.path().join("log").to_str().unwrap().into();
        config["fault"] = fault.into();
        let output = call.config(&config).run();
        let error = output.error();
        assert_eq!(error["code"], 199, "{verb}");
        assert!(error["details"].as_str().unwrap().contains("asked to"), "{error}");
        assert!(error["details"].as_str().unwrap().contains("faulty.rs:"), "where: {error}");
        assert!(!output.stderr.contains("backtrace"), "{}", output.stderr);
        assert_eq!(log(&stage), calls, "{verb}");
    }
}

#[test]
fn a_plugin_that_does_not_look_at_prev_result_is_guarded_from_a_bad_one() {
    let stage = Stage::new();
    let mut config = json!({ "cniVersion": "1.1.0", "name": "n", "log": stage.scratch.path().join("log") });
    for wrong in [json!("x"), json!({ "ips": [{ "address": "10.0.0.1" }] }), json!({ "cniVersion": "7.0.0" })]
    {
        config["prevResult"] = wrong;
        assert_eq!(faulty(&stage, "ADD", "1.1.0", "").config(&config).run().error()["code"], 7);
    }
    assert!(log(&stage).is_empty(), "it was not called");
}

#[test]
fn a_failed_add_is_the_plugin_s_own_to_take_back() {
    let stage = Stage::new();
    let error = faulty(&stage, "ADD", "1.1.0", "error").run().error();
    assert_eq!(error["msg"], "two lines of [31m text");
    assert_eq!(log(&stage), ["add"]);
}

#[test]
fn an_add_whose_runtime_has_gone_is_taken_back() {
    let stage = Stage::new();
    let call = faulty(&stage, "ADD", "1.1.0", "large");
    let mut child = call.spawn();
    // Nobody will ever read the result.
    drop(child.stdout.take());
    let log_path = stage.scratch.path().join("log");
    let config = json!({ "cniVersion": "1.1.0", "name": "n", "log": log_path, "fault": "" });
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "no signal");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("standard output"), "{said}");
    assert!(said.contains("released what was inside"), "what was noted while it was taken back: {said}");
    assert_eq!(log(&stage), ["add", "del inside"]);
}

#[test]
fn streams_that_were_never_open_are_no_trouble() {
    let stage = Stage::new();
    let program = example_path("hello");
    let script = r#""$0" >&- 2>&- <<END
$1
END"#;
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(&program)
        .arg(stage.config("1.1.0").to_string())
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", stage.container.path())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(stage.greeted(), ["c1:eth0"]);
}

#[test]
fn the_document_comes_in_one_piece() {
    let stage = Stage::new();
    let output = faulty(&stage, "ADD", "1.1.0", "large").run();
    let result = output.success();
    assert_eq!(result["ips"].as_array().unwrap().len(), 20_000);
    assert!(output.stdout.len() > 1 << 20 && output.stdout.ends_with(b"}\n"));
    assert!(
        output.stdout.starts_with(b"{\n    \"cniVersion\": \"1.1.0\","),
        "indented as the Go library does"
    );
}

#[test]
fn a_full_standard_output_fails_the_add_and_takes_it_back() {
    let stage = Stage::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let call =
        json!({ "cniVersion": "1.1.0", "name": "n", "log": stage.scratch.path().join("log"), "fault": "" });
    let mut child = Command::new(example_path("faulty"))
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", stage.container.path())
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(call.to_string().as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(log(&stage), ["add", "del inside"]);
}

#[test]
fn what_else_is_in_the_environment_does_not_matter() {
    let stage = Stage::new();
    let plain = stage.call("ADD", &stage.config("1.1.0"));
    let traced = plain
        .clone()
        .env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .env("LANG", "tr_TR.UTF-8")
        .env("RUST_BACKTRACE", "full")
        .env("CNI_VERSION", "0.1.0");
    let (plain, del, traced) = (plain.run(), stage.call("DEL", &stage.config("1.1.0")).run(), traced.run());
    silent(&del);
    assert_eq!(plain.success(), traced.success());
    assert_eq!((plain.stderr.as_str(), traced.stderr.as_str()), ("", ""));
}
