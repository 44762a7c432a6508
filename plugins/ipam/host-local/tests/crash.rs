//! `kill -9` and failing system calls, at every place where they can happen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Answer, Lab, OURS};
use serde_json::Value;

/// What a call does to files; what else it does can't leave anything.
const CALLS: &str = "openat,open,creat,mkdir,mkdirat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,read,pread64,write,pwrite64,\
                     ftruncate,utimensat,statx,flock,close,getdents64";

/// A system call of a run: its name, and the how manieth of that name it is (strace counts each name on its own).
#[derive(Debug, Clone)]
struct Call {
    name: String,
    nth: usize,
}

/// The calls a verb makes from taking the lock to its end.
fn calls(lab: &Lab, verb: &str, container: &str, config: &Value) -> Vec<Call> {
    let log = lab.root.join("trace");
    let options = ["-f", "-o", log.to_str().unwrap(), "-e", &format!("trace={CALLS}")].map(str::to_owned);
    common::run(common::traced(&lab.command(OURS, verb, container, "eth0"), &options), config);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut locked = false;
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let name = name.split_whitespace().last().unwrap().to_owned();
        let nth = seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(1);
        locked |= line.contains("/net/lock");
        if locked {
            found.push(Call { name, nth: *nth });
        }
    }
    assert!(found.len() > 10, "{verb} makes {} calls", found.len());
    found
}

/// Runs a verb and lets something happen to one of its calls.
fn hit(
    lab: &Lab,
    verb: &str,
    container: &str,
    config: &Value,
    what: &str,
    call: &Call,
) -> std::process::Output {
    let inject = format!("inject={}:{what}:when={}", call.name, call.nth);
    let options = ["-f", "-o", "/dev/null", "-e", &inject].map(str::to_owned);
    common::run(common::traced(&lab.command(OURS, verb, container, "eth0"), &options), config)
}

fn lab_with_two() -> (Lab, Value) {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/29", "fd00::/64"]);
    lab.add("old1", &config);
    lab.add("old2", &config);
    (lab, config)
}

/// Whatever happened to `victim`: nobody shares an address with it, after its DEL nothing of it is left, and every address can be had.
fn assert_nothing_lost(lab: &Lab, config: &Value, victim: &str, context: &str) {
    let next = lab.add("next", config);
    assert_eq!(next.len(), 2, "{context}");
    for address in &next {
        assert_eq!(lab.leases()[address], "next\r\neth0", "{context}");
    }
    lab.del(victim, config);
    let leases = lab.leases();
    assert!(
        leases.values().all(|owner| !owner.is_empty() && !owner.starts_with(victim)),
        "{context}: {leases:?}"
    );
    lab.assert_tidy();
    // Five addresses of the /29: those that are left, and no more, can still be given.
    let free = 5 - leases.keys().filter(|address| address.starts_with("10.")).count();
    for number in 0..free {
        lab.add(&format!("fill{number}"), config);
    }
    lab.call("ADD", "more", config).failed(104);
    lab.gc(config, &[]).ok();
    assert!(lab.leases().is_empty(), "{context}");
    assert!(lab.index_is_valid(), "{context}");
}

fn kill_everywhere(verb: &str, victim_has_lease: bool, warm: bool) {
    let prepare = || {
        let (lab, config) = lab_with_two();
        if victim_has_lease {
            lab.add("victim", &config);
        }
        if !warm {
            fs::remove_dir_all(lab.data().join(".ferrule")).unwrap();
        }
        (lab, config)
    };
    let (lab, config) = prepare();
    for call in calls(&lab, verb, "victim", &config) {
        let (lab, config) = prepare();
        let output = hit(&lab, verb, "victim", &config, "signal=SIGKILL", &call);
        let context = format!("{verb} killed at {call:?}");
        assert!(!output.status.success(), "{context}: it was not reached");
        // An ADD leaves both addresses or none once the next call is over.
        lab.call("CHECK", "old1", &config).ok();
        let made = lab.leases().values().filter(|owner| owner.starts_with("victim")).count();
        if verb == "ADD" {
            assert!(made == 0 || made == 2, "{context}: {made} leases");
        }
        assert_nothing_lost(&lab, &config, "victim", &context);
    }
}

#[test]
fn an_add_killed_anywhere() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    kill_everywhere("ADD", false, true);
}

#[test]
fn an_add_killed_anywhere_while_it_rebuilds_the_index() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    kill_everywhere("ADD", false, false);
}

#[test]
fn a_del_killed_anywhere() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    kill_everywhere("DEL", true, true);
}

#[test]
fn a_gc_killed_anywhere() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let config_of = |config: &Value| {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] =
            serde_json::json!([{ "containerID": "old1", "ifname": "eth0" }]);
        config
    };
    let (lab, config) = lab_with_two();
    for call in calls(&lab, "GC", "victim", &config_of(&config)) {
        let (lab, config) = lab_with_two();
        lab.add("victim", &config);
        hit(&lab, "GC", "", &config_of(&config), "signal=SIGKILL", &call);
        lab.call("CHECK", "old1", &config).ok();
        assert_nothing_lost(&lab, &config, "victim", &format!("GC killed at {call:?}"));
    }
}

#[test]
fn an_add_with_an_error_anywhere_succeeds_or_leaves_nothing() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let (lab, config) = lab_with_two();
    let calls = calls(&lab, "ADD", "victim", &config);
    let mut failures = 0;
    for errno in ["ENOSPC", "EIO"] {
        for call in &calls {
            let (lab, config) = lab_with_two();
            let context = format!("{errno} at {call:?}");
            let output = hit(&lab, "ADD", "victim", &config, &format!("error={errno}"), call);
            let made = lab.leases().values().filter(|owner| owner.starts_with("victim")).count();
            if output.status.success() {
                assert_eq!(made, 2, "{context}");
            } else {
                failures += 1;
                // Answering may be what failed.
                if !output.stdout.is_empty() {
                    let answer = Answer::of(&output);
                    assert!(answer.document["code"].is_u64(), "{context}: {}", answer.document);
                }
                assert_eq!(made, 0, "{context}");
            }
            assert_nothing_lost(&lab, &config, "victim", &context);
        }
    }
    assert!(failures > 10, "only {failures} injected errors were noticed");
}

#[test]
fn a_gc_that_cannot_read_a_lease_does_not_hide_it_from_del() {
    if !common::have("strace") {
        testkit::skip!("strace is not installed");
    }
    let keep_old = |config: &Value| {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] =
            serde_json::json!([{ "containerID": "old1", "ifname": "eth0" }]);
        config
    };
    let (lab, config) = lab_with_two();
    for call in calls(&lab, "GC", "", &keep_old(&config)).iter().filter(|call| call.name == "read") {
        let (lab, config) = lab_with_two();
        hit(&lab, "GC", "", &keep_old(&config), "error=EIO", call);
        lab.del("old2", &config);
        let left: Vec<String> =
            lab.leases().into_values().filter(|owner| !owner.starts_with("old1")).collect();
        assert!(left.is_empty(), "after EIO at {call:?}, DEL left {left:?}");
    }
}

#[test]
fn the_draft_of_a_dead_process_is_taken_back_by_whoever_comes_next() {
    for verb in ["ADD", "DEL", "CHECK"] {
        let (lab, config) = lab_with_two();
        // As if killed after the first of two links.
        let draft = lab.index().join("claim");
        fs::write(&draft, "victim\r\neth0").unwrap();
        fs::hard_link(&draft, lab.lease("10.0.0.4")).unwrap();
        let answer = lab.call(verb, "next", &config);
        assert_eq!(answer.success, verb != "CHECK", "{}", answer.document);
        assert!(answer.stderr.contains("took back 1 lease(s)"), "{}", answer.stderr);
        assert!(!Path::new(&draft).exists());
        assert!(lab.leases().values().all(|owner| !owner.starts_with("victim")));
        if verb == "ADD" {
            assert_eq!(answer.addresses(), ["10.0.0.4", "fd00::4"], "the address is free again");
        }
    }
}
