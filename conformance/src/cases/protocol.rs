//! What the protocol's cases share: a container ready for ADD, the verbs a plugin has, and calls of each of them as a runtime makes them.

use serde_json::{Value, json};

use crate::catalogue::Level;
use crate::kernel::Snapshot;
use crate::lab::{Call, Container, Lab, Reply, parse_version};
use crate::profile::Profile;
use crate::verdict::Outcome;

/// The address management of a delegating plugin, replaced by a stub that passes every call on to it, so that its calls are on record.
#[derive(Debug)]
pub(super) struct Delegate(pub(super) String);

impl Delegate {
    /// Puts the spy in the way of the plugin that the configuration delegates to.
    pub(super) fn spy(lab: &mut Lab) -> Outcome<Option<Self>> {
        let name = lab.profile.config.get("ipam").and_then(|ipam| ipam["type"].as_str()).map(str::to_owned);
        let Some(name) = name.filter(|_| lab.profile.delegates) else { return Ok(None) };
        let real = crate::lab::world::plugins().join(&name);
        let script = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]
            .into_iter()
            .map(|verb| (verb.to_owned(), crate::lab::Act { real: Some(real.clone()), ..Default::default() }))
            .collect();
        lab.stub(&name, &script)?;
        Ok(Some(Self(name)))
    }

    /// The delegate gave something that was not given back.
    pub(super) fn holds(&self, lab: &Lab) -> bool {
        lab.verbs_seen(&self.0).iter().rev().find(|verb| *verb == "ADD" || *verb == "DEL").map(String::as_str)
            == Some("ADD")
    }
}

/// A container with what an earlier plugin of the chain would have made in it, ready for ADD.
pub(super) fn ready(lab: &mut Lab, name: &str) -> Outcome<Container> {
    let container = lab.container(name)?;
    lab.beneath(&container)?;
    Ok(container)
}

/// The verbs that the plugin has in the case's version, but for VERSION.
pub(super) fn verbs(lab: &Lab) -> Vec<&'static str> {
    let version = parse_version(&lab.version);
    let since = |least: &str| version >= parse_version(least);
    let mut verbs = vec!["ADD"];
    if since("0.4.0") {
        verbs.push("CHECK");
    }
    if since("1.1.0") {
        verbs.extend(["STATUS", "GC"]);
    }
    verbs.push("DEL");
    verbs
}

/// A right call of any verb for a container whose ADD gave `result` (null before it): GC lists the container as valid.
pub(super) fn call(lab: &Lab, verb: &str, container: &Container, result: &Value) -> Call {
    match verb {
        "CHECK" | "DEL" if !result.is_null() => lab.call(verb, container).previous(result),
        "GC" => lab.call_network(verb).edit(|config| {
            let valid = json!([{ "containerID": container.id, "ifname": container.ifname }]);
            config["cni.dev/valid-attachments"] = valid.clone();
            config["cni.dev/attachments"] = valid;
        }),
        "STATUS" | "VERSION" => lab.call_network(verb),
        _ => lab.call(verb, container),
    }
}

/// Nothing at all may have changed since `before`: what only exists for a moment is exempt from nothing.
pub(super) fn untouched(lab: &mut Lab, before: &Snapshot, why: &str) -> Outcome<bool> {
    let difference = lab.all_changes(before)?;
    Ok(lab.check(difference.is_empty(), None, || format!("{why}, and changed something: {difference}")))
}

/// Tells what a call that was refused, late, has left behind. That it leaves nothing is another item's (ADD-09), so here it is information.
pub(super) fn leftovers(lab: &mut Lab, before: &Snapshot, why: &str) -> Outcome {
    let difference = lab.changes(before)?;
    if !difference.is_empty() {
        lab.inform(format!("{why}, and something is left: {difference}"), None);
    }
    Ok(())
}

/// A call that must fail, for which `code` is the code of the specification's table. A code of the plugin's own (100 and above)
/// tells the runtime less than it could, which is a warning at most; a code that means something else breaks the item.
pub(super) fn refused_with(lab: &mut Lab, reply: &Reply, code: i64, why: &str) {
    match reply.code() {
        Some(own) if own >= 100 && reply.failed() => {
            let message =
                format!("{why}: refused, but with code {own} where {code} says it: {:?}", reply.message());
            if lab.level == Level::Must {
                lab.warn(message, Some(reply));
            } else {
                lab.violated(message, Some(reply));
            }
        }
        _ => {
            lab.refused(reply, Some(code), why);
        }
    }
}

/// Executes a call that must succeed, and for ADD takes back at once what it made. Returns its reply.
pub(super) fn taken(lab: &mut Lab, container: &Container, call: &Call, why: &str) -> Outcome<Reply> {
    let reply = lab.run(call)?;
    lab.accepted(&reply, why);
    let mut back = call.clone().verb("DEL");
    if let Ok(result) = reply.document()
        && reply.ok()
    {
        back = back.previous(&result);
    }
    lab.note(&format!("and take {} back", container.name));
    lab.run(&back)?;
    Ok(reply)
}

/// Whether the profile says that the plugin reads `CNI_ARGS` (fact `reads_args`).
pub(super) fn reads_args(profile: &Profile) -> bool {
    profile.facts.get("reads_args").is_some_and(|fact| fact == true)
}

/// Whether it executes another plugin, named by `ipam.type`.
pub(super) fn delegates(profile: &Profile) -> bool {
    profile.delegates
}

/// Whether it gives no addresses where `ipam` is absent. Others choose a plugin then: fact `default_ipam`, with its name.
pub(super) fn asks_nobody_unasked(profile: &Profile) -> bool {
    !profile.facts.contains_key("default_ipam")
}

/// The addresses in a result of any version, with their prefix lengths.
pub(super) fn addresses(result: &Value) -> Vec<String> {
    let mut found: Vec<String> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str().map(str::to_owned))
        .collect();
    found.extend(["ip4", "ip6"].into_iter().filter_map(|key| result[key]["ip"].as_str().map(str::to_owned)));
    found
}
