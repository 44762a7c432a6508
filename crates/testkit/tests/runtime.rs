//! The runtime double, judged by plugins that are shell scripts and write down what they were given.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Attachment, Container, Host, Plugin, Runtime};

const BIN: &str = "/run/bin";
const LOG: &str = "/run/log";

/// Installs a plugin whose ADD prints `result`; every execution is logged: variables, then the configuration.
fn install(kind: &str, script: &str) {
    fs::create_dir_all(BIN).unwrap();
    let path = Path::new(BIN).join(kind);
    let text = format!(
        "#!/bin/sh\nconfig=$(cat)\necho \"{kind} $CNI_COMMAND|$CNI_CONTAINERID|$CNI_IFNAME|$CNI_NETNS|$CNI_ARGS|$CNI_PATH\" >> {LOG}\n\
         echo \"$config\" >> {LOG}\n{script}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The calls so far, each with the configuration it got.
fn calls() -> Vec<(String, Value)> {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    fs::write(LOG, "").unwrap();
    let lines: Vec<&str> = log.lines().collect();
    lines.chunks(2).map(|call| (call[0].to_owned(), serde_json::from_str(call[1]).unwrap())).collect()
}

fn result_of(address: &str) -> String {
    format!(
        "[ $CNI_COMMAND != ADD ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"{address}\"}}]}}'"
    )
}

fn chain(version: &str) -> testkit::Chain {
    install("first", &result_of("10.0.0.1/24").replace("1.1.0", version));
    install("second", &result_of("10.0.0.2/24").replace("1.1.0", version));
    Runtime::with_directories([BIN]).chain(&json!({
        "cniVersion": version,
        "name": "net",
        "plugins": [{"type": "first"}, {"type": "second", "capabilities": {"portMappings": true, "mac": false}}],
    }))
}

fn attachment(container: &Container) -> Attachment {
    Attachment::new("id-1", container, "eth0")
        .args("IgnoreUnknown=1")
        .capability("portMappings", json!([{"hostPort": 80}]))
        .capability("mac", json!("aa:bb:cc:dd:ee:ff"))
}

#[test]
fn add_threads_results_and_del_goes_backwards_with_the_last() {
    let host = Host::new();
    let container = host.container("c1");
    let (chain, attachment) = (chain("1.1.0"), attachment(&container));

    let result = chain.add(&attachment).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.0.0.2/24");
    let added = calls();
    assert_eq!(added[0].0, "first ADD|id-1|eth0|/run/netns/c1|IgnoreUnknown=1|/run/bin");
    assert_eq!(added[0].1, json!({"type": "first", "name": "net", "cniVersion": "1.1.0"}));
    assert_eq!(added[1].1["prevResult"]["ips"][0]["address"], "10.0.0.1/24");
    assert_eq!(added[1].1["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));

    chain.check(&attachment).unwrap();
    let checked = calls();
    assert!(checked[0].0.starts_with("first CHECK|") && checked[1].0.starts_with("second CHECK|"));
    assert_eq!(checked[0].1["prevResult"], result);

    chain.del(&attachment).unwrap();
    let deleted = calls();
    assert!(deleted[0].0.starts_with("second DEL|") && deleted[1].0.starts_with("first DEL|"));
    assert_eq!(deleted[1].1["prevResult"], result);

    chain.del(&attachment).unwrap();
    assert_eq!(calls()[0].1.get("prevResult"), None, "a second DEL has nothing to go by");
}

#[test]
fn gc_deletes_what_it_knows_and_passes_both_keys() {
    let host = Host::new();
    let container = host.container("c1");
    let (chain, attachment) = (chain("1.1.0"), attachment(&container));
    chain.add(&attachment).unwrap();
    calls();

    chain.gc(&[("id-1", "eth0")]).unwrap();
    let collected = calls();
    assert_eq!(collected.len(), 2, "a valid attachment stays");
    assert_eq!(collected[0].0, "first GC|||||/run/bin");
    let list = json!([{"containerID": "id-1", "ifname": "eth0"}]);
    assert_eq!(collected[0].1["cni.dev/valid-attachments"], list);
    assert_eq!(collected[0].1["cni.dev/attachments"], list);

    chain.gc(&[]).unwrap();
    let verbs: Vec<String> =
        calls().into_iter().map(|(line, _)| line.split('|').next().unwrap().to_owned()).collect();
    assert_eq!(verbs, ["second DEL", "first DEL", "first GC", "second GC"]);
}

#[test]
fn old_versions_have_no_status_no_gc_and_no_previous_result_at_del() {
    let host = Host::new();
    let container = host.container("c1");
    let (chain, attachment) = (chain("0.3.1"), attachment(&container));
    chain.add(&attachment).unwrap();
    calls();
    chain.status().unwrap();
    chain.gc(&[("id-1", "eth0")]).unwrap();
    assert_eq!(calls(), []);
    chain.del(&attachment).unwrap();
    assert_eq!(calls()[0].1.get("prevResult"), None);
}

#[test]
fn a_failure_tells_which_plugin_and_stops_the_chain() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = chain("1.1.0");
    install("first", r#"echo '{"code": 7, "msg": "bad", "details": "very"}'; exit 1"#);
    let failure = chain.add(&attachment(&container)).unwrap_err();
    assert_eq!((failure.plugin.as_str(), failure.verb, failure.code()), ("first", "ADD", 7));
    assert_eq!(failure.text(), "bad very");
    assert!(failure.to_string().contains("CNI_COMMAND='ADD'"), "the message repeats the call: {failure}");
    assert_eq!(calls().len(), 1);
}

#[test]
#[should_panic(expected = "standard output is not one JSON document")]
fn a_second_document_on_standard_output_is_refused() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = chain("1.1.0");
    install("first", "echo '{\"cniVersion\":\"1.1.0\"} {}'");
    let _ = chain.add(&attachment(&container));
}

#[test]
fn a_plugin_starts_from_an_empty_environment() {
    let _host = Host::new();
    install("nosy", "/usr/bin/env");
    let output = Plugin::at("/run/bin/nosy").verb("VERSION").run();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    // The shell that plays the plugin adds its own.
    let given: Vec<&&str> =
        names.iter().filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(*name)).collect();
    assert_eq!(given, [&"CNI_COMMAND"]);
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let _host = Host::new();
    install("hanging", "sleep 1000 & echo $! > /run/child; sleep 1000");
    let output = Plugin::at("/run/bin/hanging").verb("ADD").deadline(Duration::from_millis(300)).run();
    assert!(output.timed_out);
    assert_eq!(output.signal, Some(9));
    let child = fs::read_to_string("/run/child").unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // Dead, or a zombie nobody has reaped yet.
    testkit::eventually("the plugin's child to die", || {
        fs::read_to_string(&stat).map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
    });
}
