//! One store, two suites: the Go plugin (Debian's package containernetworking-plugins, or `FERRULE_REFERENCE_BIN`) and ours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use common::{Answer, Lab, OURS, reference};
use serde_json::{Value, json};

/// The Go plugin, or the end of the test.
macro_rules! go {
    () => {
        match reference() {
            Some(program) => program,
            None => {
                testkit::skip!("the Go host-local is not installed (package containernetworking-plugins)")
            }
        }
    };
}

/// A configuration both understand: 1.1.0 came to the Go plugin after Debian's version.
fn config(lab: &Lab, subnets: &[&str]) -> Value {
    let mut config = lab.subnets(subnets);
    config["cniVersion"] = json!("1.0.0");
    config
}

#[test]
fn each_finds_and_deletes_what_the_other_wrote() {
    let go = go!();
    for (writer, other) in [(OURS, go.as_str()), (go.as_str(), OURS)] {
        let lab = Lab::new();
        let config = config(&lab, &["10.0.0.0/24", "fd00::/64"]);
        let call = |program: &str, verb: &str, container: &str| {
            lab.call_with(program, verb, container, "eth0", &config)
        };
        assert_eq!(call(writer, "ADD", "c1").addresses(), ["10.0.0.2", "fd00::2"]);
        call(other, "CHECK", "c1").ok();
        let duplicate = call(other, "ADD", "c1");
        assert!(!duplicate.success);
        let message = duplicate.document["msg"].as_str().unwrap();
        assert_eq!(
            message,
            "failed to allocate for range 0: 10.0.0.2 has been allocated to c1, duplicate allocation is not allowed"
        );
        // The cursor is shared.
        assert_eq!(call(other, "ADD", "c2").addresses(), ["10.0.0.3", "fd00::3"]);
        assert_eq!(call(writer, "ADD", "c3").addresses(), ["10.0.0.4", "fd00::4"]);
        call(other, "DEL", "c1").ok();
        assert!(!call(writer, "CHECK", "c1").success);
        call(writer, "DEL", "c2").ok();
        call(other, "DEL", "c3").ok();
        assert!(lab.leases().is_empty());
        assert_eq!(call(writer, "ADD", "c4").addresses(), ["10.0.0.5", "fd00::5"]);
    }
}

#[test]
fn both_leave_the_same_files() {
    let go = go!();
    let files = |program: &str| {
        let lab = Lab::new();
        let mut config = config(&lab, &["10.0.0.0/24", "2001:db8::/64"]);
        config["args"] = json!({ "cni": { "ips": ["10.0.0.77"] } });
        lab.call_with(program, "ADD", "c1", "eth0", &config).ok();
        config["args"] = Value::Null;
        lab.call_with(program, "ADD", "c1", "eth1", &config).ok();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(lab.store()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // Go versions before 1.2 made leases readable to all.
            files.insert(name, (fs::read(&path).unwrap(), common::mode(&path) & !0o044));
        }
        (files, common::mode(&lab.store()))
    };
    assert_eq!(files(OURS), files(&go));
}

#[test]
fn results_and_refusals_are_the_same() {
    let go = go!();
    let resolv = |lab: &Lab| {
        let path = lab.root.join("resolv.conf");
        fs::write(&path, "# c\nnameserver 192.0.2.1\nsearch a b\nsearch c\noptions ndots:2\ndomain d\n")
            .unwrap();
        path
    };
    let ipams = [
        json!({ "subnet": "10.1.0.0/16" }),
        json!({ "subnet": "10.1.0.0/16", "rangeStart": "10.1.9.9", "gateway": "10.1.255.254", "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.9.0.0/16", "gw": "10.1.0.7" }] }),
        json!({ "ranges": [[{ "subnet": "10.1.0.0/30" }, { "subnet": "10.2.0.0/30" }], [{ "subnet": "fd00::/64", "rangeStart": "fd00::a:0" }]] }),
        json!({ "subnet": "10.0.0.0/24", "ranges": [[{ "subnet": "fd00::/120", "rangeEnd": "fd00::4" }]], "resolvConf": "RESOLV" }),
        json!({ "Subnet": "10.4.0.0/24", "RANGESTART": "10.4.0.250" }),
        // Refused by both, with the same words.
        json!({}),
        json!({ "ranges": [[]] }),
        json!({ "subnet": "10.1.0.1/16" }),
        json!({ "subnet": "10.1.0.0/16", "rangeStart": "10.2.0.1" }),
        json!({ "subnet": "10.1.0.0/16", "rangeEnd": "10.2.0.1" }),
        json!({ "subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8" }),
        json!({ "ranges": [[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "10.1.2.0/24" }]] }),
        json!({ "ranges": [[{ "subnet": "10.1.0.0/16" }, { "subnet": "10.1.2.0/24" }]] }),
        json!({ "ranges": [[{ "subnet": "10.1.0.0/16" }, { "subnet": "fd00::/64" }]] }),
    ];
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        for ipam in &ipams {
            let answers = [OURS, go.as_str()].map(|program| {
                let lab = Lab::new();
                let mut config = lab.config(ipam);
                config["cniVersion"] = json!(version);
                if ipam.get("resolvConf").is_some() {
                    config["ipam"]["resolvConf"] = json!(resolv(&lab));
                }
                // Until the range is full.
                let calls = (0..4)
                    .map(|number| lab.call_with(program, "ADD", &format!("c{number}"), "eth0", &config));
                calls.map(|answer| comparable(&answer)).collect::<Vec<_>>()
            });
            let [ours, theirs] = &answers;
            for (ours, theirs) in ours.iter().zip(theirs) {
                match (ours, theirs) {
                    // Ours goes on to name path and value.
                    (Err(ours), Err(theirs)) => {
                        assert!(ours.starts_with(theirs), "{ipam}: {ours:?} and {theirs:?}");
                    }
                    _ => assert_eq!(ours, theirs, "{version} {ipam}"),
                }
            }
        }
    }
}

/// A result, or the message of a refusal.
fn comparable(answer: &Answer) -> Result<Value, String> {
    if answer.success {
        let mut result = answer.document.clone();
        // Go versions before 1.2 wrote an empty one into every result.
        if result["dns"] == json!({}) {
            result.as_object_mut().unwrap().remove("dns");
        }
        return Ok(result);
    }
    Err(answer.document["msg"].as_str().unwrap().to_owned())
}

/// A small generator of pseudo-random numbers: the history must be the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_mixed_history_never_surprises_either() {
    let go = go!();
    for seed in 0..4 {
        let mut random = Random(seed);
        let lab = Lab::new();
        let config = config(&lab, &["10.0.0.0/28", "fd00::/64"]);
        let mut model: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for step in 0..60 {
            let program = if random.below(2) == 0 { OURS } else { go.as_str() };
            let container = format!("c{}", random.below(9));
            let context = format!("seed {seed} step {step} {program} {container}");
            match random.below(5) {
                0 | 1 => {
                    let answer = lab.call_with(program, "ADD", &container, "eth0", &config);
                    assert_eq!(
                        answer.success,
                        !model.contains_key(&container),
                        "{context} {}",
                        answer.document
                    );
                    if answer.success {
                        let addresses = answer.addresses();
                        assert!(
                            model.values().flatten().all(|taken| !addresses.contains(taken)),
                            "{context}"
                        );
                        model.insert(container, addresses);
                    }
                }
                2 | 3 => {
                    lab.call_with(program, "DEL", &container, "eth0", &config).ok();
                    model.remove(&container);
                }
                _ => {
                    let answer = lab.call_with(program, "CHECK", &container, "eth0", &config);
                    assert_eq!(answer.success, model.contains_key(&container), "{context}");
                }
            }
            let leases: BTreeSet<String> = lab.leases().into_keys().collect();
            assert_eq!(leases, model.values().flatten().cloned().collect(), "{context}");
        }
    }
}

#[test]
fn a_mixed_storm_gives_every_address_once() {
    let go = go!();
    let lab = Lab::new();
    let config = config(&lab, &["10.0.0.0/24", "fd00::/64"]);
    let programs = [OURS, go.as_str()];
    let start = |verb: &str, shift: usize| -> Vec<Answer> {
        let children: Vec<_> = (0..40)
            .map(|number| {
                let program = programs[(number + shift) % 2];
                common::start(lab.command(program, verb, &format!("c{number}"), "eth0"), &config)
            })
            .collect();
        children.into_iter().map(|child| Answer::of(&child.wait_with_output().unwrap())).collect()
    };
    let mut seen = BTreeSet::new();
    for answer in start("ADD", 0) {
        for address in answer.addresses() {
            assert!(seen.insert(address.clone()), "{address} was given twice");
        }
    }
    assert_eq!(seen.len(), 80);
    // Each deletes what the other added.
    for answer in start("DEL", 1) {
        answer.ok();
    }
    assert!(lab.leases().is_empty());
}

#[test]
fn debris_of_a_killed_go_plugin_is_recovered() {
    let go = go!();
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let lab = Lab::new();
    let config = config(&lab, &["10.0.0.0/30"]);
    // Killed when it writes, after it has created: the first lease is empty.
    let mut debris = false;
    for nth in 1..8 {
        let inject = format!("inject=write:signal=SIGKILL:when={nth}");
        let options = ["-f", "-o", "/dev/null", "-e", &inject].map(str::to_owned);
        let command = lab.command(&go, "ADD", "dead", "eth0");
        common::run(common::traced(&command, &options), &config);
        if lab.leases().get("10.0.0.2").is_some_and(String::is_empty) {
            debris = true;
            break;
        }
        lab.del("dead", &config);
    }
    assert!(debris, "the Go plugin was not caught between create and write");
    let exhausted = lab.call_with(&go, "ADD", "next", "eth0", &config);
    assert!(!exhausted.success, "the Go plugin has lost the address");
    assert_eq!(lab.call("ADD", "next", &config).addresses(), ["10.0.0.2"]);
}
