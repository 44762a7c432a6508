//! Version negotiation: which version of the specification a call is in, and what is refused for it.

use serde_json::{Value, json};

use super::cfg::{contrast, effect};
use super::protocol::{call, ready, taken, untouched, verbs};
use super::{ALL, Case};
use crate::lab::{Lab, parse_version};
use crate::profile::merge;
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("NEG-01", "result-in-the-version-asked", ALL, result_in_the_version),
    Case::new("NEG-02", "unsupported", ALL, unsupported),
    Case::new("NEG-03", "absent-or-empty", ALL, absent_or_empty),
    Case::new("NEG-04", "not-a-version", ALL, not_a_version),
    Case::new("NEG-05", "verb-newer-than-version", ALL, verb_newer_than_version),
    Case::new("NEG-06", "each-version-lives", ALL, each_version_lives),
    Case::new("NEG-07", "same-network-in-1-x", ALL, |lab| same_network(lab, "1.0.0", "1.1.0")),
    Case::new("NEG-07", "same-network-in-0-3", ALL, |lab| same_network(lab, "0.3.0", "0.3.1")),
    Case::new("NEG-08", "cni-versions", ALL, cni_versions),
];

fn result_in_the_version(lab: &mut Lab) -> Outcome {
    let mut worked = 0;
    for (number, version) in lab.versions.clone().into_iter().enumerate() {
        lab.version.clone_from(&version);
        let container = ready(lab, &format!("c{number}"))?;
        let call = lab.call("ADD", &container);
        let reply = lab.run(&call)?;
        // Whether it works in each version is NEG-06's.
        let Ok(result) = reply.document() else { continue };
        if reply.ok() {
            worked += 1;
            lab.check(result["cniVersion"] == version.as_str(), Some(&reply), || {
                format!("the configuration is of version {version}, the result of {}", result["cniVersion"])
            });
            let (old, new) =
                (result.get("ip4").is_some() || result.get("ip6").is_some(), result.get("ips").is_some());
            let legacy = parse_version(&version) < parse_version("0.3.0");
            lab.check(if legacy { !new } else { !old }, Some(&reply), || {
                format!("the result says version {version} and has the form of another: {result}")
            });
        }
        lab.run(&call.verb("DEL").previous(&result))?;
    }
    if worked == 0 {
        return Err(Stop::Skip("needs an ADD that works in some version (see NEG-06)".to_owned()));
    }
    Ok(())
}

fn unsupported(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let result = lab.add(&container)?;
    let before = lab.snapshot()?;
    let newest = lab.version.clone();
    for verb in verbs(lab) {
        // A short form is another version: versions are compared as they are written.
        for version in ["9.9.9", "0.5.0", "1.1", "1"] {
            let call =
                call(lab, verb, &container, &result).edit(|config| config["cniVersion"] = json!(version));
            let reply = lab.run(&call)?;
            let held = lab.refused(&reply, Some(1), &format!("{verb} in version {version}"));
            if held && verb == "ADD" && !reply.message().contains(&newest) {
                lab.inform(
                    format!(
                        "{verb} in version {version}: the error does not tell what is supported: {:?}",
                        reply.message()
                    ),
                    Some(&reply),
                );
            }
        }
    }
    untouched(lab, &before, "the version was not supported")?;
    Ok(())
}

fn absent_or_empty(lab: &mut Lab) -> Outcome {
    let speaks = ["0.1.0", "0.2.0"].into_iter().find(|old| lab.versions.iter().any(|version| version == old));
    if let Some(version) = speaks {
        version.clone_into(&mut lab.version);
    }
    let container = ready(lab, "c1")?;
    for (what, patch) in
        [("without", json!({ "cniVersion": "<remove>" })), ("with an empty", json!({ "cniVersion": "" }))]
    {
        let call = lab.call("ADD", &container).edit(|config| merge(config, &patch));
        let why = format!("ADD {what} cniVersion");
        if speaks.is_none() {
            let reply = lab.run(&call)?;
            lab.refused(&reply, Some(1), &why);
            continue;
        }
        let reply = taken(lab, &container, &call, &why)?;
        if let Ok(result) = reply.document()
            && reply.ok()
        {
            let version = result["cniVersion"].as_str().unwrap_or_default();
            lab.check(
                ["0.1.0", "0.2.0"].contains(&version) && result.get("ips").is_none(),
                Some(&reply),
                || format!("{why}: the result is not in the oldest format: {result}"),
            );
        }
    }
    Ok(())
}

fn not_a_version(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    let mut unsupported = Vec::new();
    for verb in verbs(lab) {
        for version in [
            json!(1),
            json!(1.1),
            json!(true),
            json!(["1.0.0"]),
            json!({}),
            json!("abc"),
            json!("1.0.0.0"),
            json!("1.x.0"),
        ] {
            let call = call(lab, verb, &container, &Value::Null)
                .edit(|config| config["cniVersion"] = version.clone());
            let reply = lab.run(&call)?;
            let why = format!("{verb} with cniVersion {version}");
            if version.is_string() && reply.failed() && reply.code() == Some(1) {
                // A text that is no version is no supported version either; the table has it with what cannot be decoded.
                unsupported.push((why, reply));
            } else {
                lab.refused(&reply, Some(6), &why);
            }
        }
    }
    if let Some((why, reply)) = unsupported.first() {
        let more = unsupported.len() - 1;
        lab.warn(
            format!(
                "{why}, and in {more} cases more: code 1, where a version that cannot be decoded is code 6"
            ),
            Some(reply),
        );
    }
    untouched(lab, &before, "the version was none")?;
    Ok(())
}

fn verb_newer_than_version(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let newest = lab.version.clone();
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for (verb, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        if parse_version(&newest) < parse_version(since) {
            continue;
        }
        for version in lab.versions.clone() {
            if parse_version(&version) < parse_version(since) {
                let call = call(lab, verb, &container, &Value::Null)
                    .edit(|config| config["cniVersion"] = json!(version));
                let reply = lab.run(&call)?;
                lab.refused(
                    &reply,
                    Some(1),
                    &format!("{verb}, which came with {since}, in version {version}"),
                );
            }
        }
    }
    untouched(lab, &before, "the version does not have the verb")?;
    Ok(())
}

fn each_version_lives(lab: &mut Lab) -> Outcome {
    let versions = lab.versions.clone();
    lab.check(versions.len() > 1, None, || format!("it supports a single version: {}", versions.join(", ")));
    for (number, version) in versions.into_iter().enumerate() {
        lab.version.clone_from(&version);
        let container = ready(lab, &format!("c{number}"))?;
        let mut result = Value::Null;
        for verb in verbs(lab) {
            let reply = lab.run(&call(lab, verb, &container, &result))?;
            if !lab.accepted(&reply, &format!("{verb} in version {version}, which it says it supports")) {
                break;
            }
            if verb == "ADD" {
                match reply.document() {
                    Ok(document) => result = document,
                    Err(problem) => {
                        lab.violated(format!("ADD in version {version}: {problem}"), Some(&reply));
                    }
                }
            }
        }
    }
    Ok(())
}

fn same_network(lab: &mut Lab, one: &str, other: &str) -> Outcome {
    for version in [other, one] {
        lab.need_version(version)?;
    }
    let container = ready(lab, "c1")?;
    // What a first attachment leaves (a bridge, a directory) is no difference between the two that follow.
    effect(lab, &container, |_| {})?;
    let earlier = effect(lab, &container, |config| config["cniVersion"] = json!(one))?;
    let later = effect(lab, &container, |config| config["cniVersion"] = json!(other))?;
    lab.check(earlier == later, None, || {
        format!(
            "the same configuration in {other} makes another network than in {one}: {}",
            contrast(&earlier, &later)
        )
    });
    Ok(())
}

fn cni_versions(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for list in [json!(["0.1.0"]), json!(["9.9.9"]), json!([]), json!(["0.3.1", "1.0.0", "1.1.0"])] {
        let call = lab.call("ADD", &container).edit(|config| config["cniVersions"] = list.clone());
        let why = format!("ADD with cniVersions {list}");
        let reply = taken(lab, &container, &call, &why)?;
        let got = reply.document().unwrap_or_default()["cniVersion"].clone();
        lab.check(!reply.ok() || got == lab.version.as_str(), Some(&reply), || {
            format!(
                "{why} and cniVersion {}: the result is of version {got}",
                call.read_config().unwrap_or_default()["cniVersion"]
            )
        });
    }
    Ok(())
}
