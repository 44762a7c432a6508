//! VERSION: the one verb that needs nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::protocol::untouched;
use super::{ALL, Case};
use crate::lab::{Lab, Reply, Stdin, parse_version};
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("VER-01", "answer", ALL, answer),
    Case::new("VER-02", "echo", ALL, echo),
    Case::new("VER-03", "only-the-verb", ALL, only_the_verb),
    Case::new("VER-04", "any-input", ALL, any_input),
    Case::new("VER-05", "probe-of-libcni", ALL, probe_of_libcni),
    Case::new("VER-06", "nothing-changed", ALL, nothing_changed),
    Case::new("VER-06", "unprivileged", ALL, unprivileged),
    Case::new("VER-06", "fast", ALL, fast),
    Case::new("VER-06", "sorted", ALL, sorted),
];

/// The list of an answer that is as the specification says.
fn list(reply: &Reply) -> Result<Vec<String>, String> {
    if !reply.ok() {
        return Err(format!("expected success, got {}", reply.summary()));
    }
    let document = reply.document()?;
    if !document["cniVersion"].is_string() {
        return Err(format!("cniVersion is {}, not a text", document["cniVersion"]));
    }
    let versions: Vec<Value> = document["supportedVersions"].as_array().cloned().unwrap_or_default();
    let texts: Vec<String> =
        versions.iter().filter_map(|version| version.as_str().map(str::to_owned)).collect();
    if texts.is_empty() || texts.len() < versions.len() {
        return Err(format!("supportedVersions is not a list of texts: {}", document["supportedVersions"]));
    }
    Ok(texts)
}

fn right(lab: &mut Lab, reply: &Reply, why: &str) -> Vec<String> {
    match list(reply) {
        Ok(versions) => versions,
        Err(problem) => {
            lab.violated(format!("{why}: {problem}"), Some(reply));
            Vec::new()
        }
    }
}

fn answer(lab: &mut Lab) -> Outcome {
    let reply = lab.run(&lab.call_network("VERSION").config(&json!({ "cniVersion": "1.0.0" })))?;
    for version in right(lab, &reply, "VERSION") {
        let numbers: Vec<&str> = version.split('.').collect();
        lab.check(
            numbers.len() == 3 && numbers.iter().all(|part| part.parse::<u32>().is_ok()),
            Some(&reply),
            || format!("{version:?} in supportedVersions is no version"),
        );
    }
    Ok(())
}

fn echo(lab: &mut Lab) -> Outcome {
    for version in ["0.4.0", "1.0.0", "1.1.0", "9.9.9"] {
        let reply = lab.run(&lab.call_network("VERSION").config(&json!({ "cniVersion": version })))?;
        let versions = right(lab, &reply, &format!("VERSION with {version}"));
        let Some(newest) = versions.last() else { continue };
        let said = reply.document().unwrap_or_default()["cniVersion"].clone();
        if said == version {
            continue;
        }
        let known = versions.iter().any(|supported| supported == version);
        if said != newest.as_str() {
            lab.violated(format!("VERSION with {version} is answered in version {said}, which is neither that nor its newest"), Some(&reply));
        } else if known {
            // The library of the reference does not read the input.
            lab.warn(format!("VERSION with {version} is answered in version {said}"), Some(&reply));
        }
    }
    Ok(())
}

fn only_the_verb(lab: &mut Lab) -> Outcome {
    let mut call = lab.call_network("VERSION").config(&json!({ "cniVersion": "1.0.0" }));
    call.environment.retain(|name, _| name == "CNI_COMMAND");
    let reply = lab.run(&call)?;
    right(lab, &reply, "VERSION with no other variable");
    Ok(())
}

fn any_input(lab: &mut Lab) -> Outcome {
    let inputs = [
        ("nothing", Stdin::Bytes(Vec::new())),
        ("garbage", Stdin::Bytes(b"xx".to_vec())),
        ("a list", Stdin::Bytes(b"[]".to_vec())),
        ("a number for cniVersion", Stdin::Bytes(b"{\"cniVersion\": 1}".to_vec())),
        ("bytes that are not UTF-8", Stdin::Bytes(vec![0xff, 0xfe])),
        ("a pipe that stays open", Stdin::Open(Vec::new())),
        ("half a document in a pipe that stays open", Stdin::Open(b"{\"cniVersion\":".to_vec())),
        ("a directory", Stdin::Directory),
        ("nothing, not even open", Stdin::Closed),
    ];
    for (what, stdin) in inputs {
        let mut call = lab.call_network("VERSION").timeout(Duration::from_secs(5));
        call.stdin = stdin;
        let reply = lab.run(&call)?;
        right(lab, &reply, &format!("VERSION with {what} on standard input"));
    }
    Ok(())
}

fn probe_of_libcni(lab: &mut Lab) -> Outcome {
    let mut call = lab.call_network("VERSION").config(&json!({ "cniVersion": "1.1.0" }));
    for name in ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
        call = call.env(name, "dummy");
    }
    let reply = lab.run(&call)?;
    right(lab, &reply, "VERSION as libcni asks");
    Ok(())
}

fn nothing_changed(lab: &mut Lab) -> Outcome {
    let before = lab.snapshot()?;
    lab.run(&lab.call_network("VERSION"))?;
    untouched(lab, &before, "VERSION was asked")?;
    Ok(())
}

/// The whole list of privileges is dropped, which root in a namespace of users may do.
fn unprivileged(lab: &mut Lab) -> Outcome {
    let mut call = lab.call_network("VERSION");
    call.wrapper =
        ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned).to_vec();
    let reply = lab.run(&call)?;
    right(lab, &reply, "VERSION without privileges");
    Ok(())
}

/// Runtimes ask every plugin of every network when they start.
fn fast(lab: &mut Lab) -> Outcome {
    const LIMIT: Duration = Duration::from_millis(50);
    let mut best = Duration::MAX;
    // One run may have been waiting for a processor; that all of ten have is unlikely.
    for _ in 0..10 {
        let reply = lab.run(&lab.call_network("VERSION"))?;
        best = best.min(reply.duration);
        if best < LIMIT {
            return Ok(());
        }
    }
    lab.violated(format!("VERSION takes {} ms at best", best.as_millis()), None);
    Ok(())
}

fn sorted(lab: &mut Lab) -> Outcome {
    let reply = lab.run(&lab.call_network("VERSION"))?;
    let versions = right(lab, &reply, "VERSION");
    lab.check(versions.is_sorted_by(|a, b| parse_version(a) < parse_version(b)), Some(&reply), || {
        format!("supportedVersions is not in order, or has one twice: {}", versions.join(", "))
    });
    Ok(())
}
