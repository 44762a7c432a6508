//! What a plugin makes of the result of those before it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cases::attach::{Attachment, attached, in_each_version, since};
use crate::cases::truth::{joined, list};
use crate::lab::{Call, Container, Lab, Reply};
use crate::profile::Kind;
use crate::verdict::{Outcome, Stop};

/// An ADD behind another plugin, which has made an interface: for a meta plugin the one it works on, for others one called `net1`.
pub(super) fn chained(lab: &mut Lab, container: &Container) -> Outcome<(Call, Value)> {
    if !since(&lab.version, "0.3.0") {
        return Err(Stop::Skip("chains came with 0.3.0".to_owned()));
    }
    let base = match lab.profile.kind {
        Kind::Meta => lab.beneath(container)?,
        _ => lab.earlier(&container.interface("net1"))?,
    };
    Ok((lab.call("ADD", container).previous(&base), base))
}

/// One thing that differs between two documents.
struct Change {
    /// Where, as a JSON pointer.
    pointer: String,
    before: Value,
    after: Value,
}

fn compare(pointer: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(one), Value::Object(two)) => {
            let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
            for key in keys {
                compare(&format!("{pointer}/{key}"), &before[key.as_str()], &after[key.as_str()], changes);
            }
        }
        (Value::Array(one), Value::Array(two)) => {
            for index in 0..one.len().max(two.len()) {
                let none = &Value::Null;
                let (left, right) = (one.get(index).unwrap_or(none), two.get(index).unwrap_or(none));
                compare(&format!("{pointer}/{index}"), left, right, changes);
            }
        }
        _ if before != after => {
            changes.push(Change {
                pointer: pointer.to_owned(),
                before: before.clone(),
                after: after.clone(),
            });
        }
        _ => {}
    }
}

/// Empty lists and objects, and what is null, mean the same as nothing.
fn tidied(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(object) = result.as_object_mut() {
        object.remove("cniVersion");
        object.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            _ => true,
        });
    }
    result
}

/// What of `base` is not in the result of this attachment, and cannot be explained by what the kernel now has.
fn lost(base: &Value, attachment: &Attachment) -> Vec<String> {
    let (before, after) = (tidied(base), tidied(&attachment.result));
    let mut changes = Vec::new();
    compare("", &before, &after, &mut changes);
    let added = list(&before, "interfaces").count();
    changes.retain(|change| !explained(change, &after, attachment, added));
    changes
        .iter()
        .map(|change| {
            let text = |value: &Value| if value.is_null() { "nothing".to_owned() } else { value.to_string() };
            format!("{} was {} and is {}", change.pointer, text(&change.before), text(&change.after))
        })
        .collect()
}

/// A hardware address or MTU that is now the kernel's, or an interface behind those that were there.
fn explained(change: &Change, after: &Value, attachment: &Attachment, interfaces: usize) -> bool {
    let mut parts = change.pointer.split('/').skip(1);
    if parts.next() != Some("interfaces") {
        return false;
    }
    let Some(index) = parts.next().and_then(|part| part.parse::<usize>().ok()) else { return false };
    let entry = &after["interfaces"][index];
    let Some(link) = attachment.world.link(entry) else { return false };
    match parts.next() {
        None => index >= interfaces && change.before.is_null(),
        Some("mac") => change.after == *link.mac,
        Some("mtu") => change.after == link.mtu,
        Some(_) => false,
    }
}

pub(super) fn passes_on(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, base) = chained(lab, &container)?;
    let attachment = attached(lab, &container, &call)?;
    for key in ["interfaces", "ips", "routes"] {
        let here = list(&attachment.result, key).count();
        let there = list(&base, key).count();
        lab.check(here >= there, Some(&attachment.reply), || {
            format!("prevResult has {there} {key}, the result {here}: {}", attachment.result)
        });
    }
    Ok(())
}

/// A plugin that makes an interface, behind one that has made another.
pub(super) fn adds_its_own(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, base) = chained(lab, &container)?;
    let attachment = attached(lab, &container, &call)?;
    let has = |key: &str, entry: &Value, same: &str| {
        list(&attachment.result, key).any(|other| other[same] == entry[same])
    };
    let mut missing: Vec<String> = Vec::new();
    for (key, same) in [("interfaces", "name"), ("ips", "address")] {
        let gone = list(&base, key).filter(|entry| !has(key, entry, same));
        missing.extend(gone.map(|entry| entry[same].to_string()));
    }
    lab.check(missing.is_empty(), Some(&attachment.reply), || {
        format!("of prevResult the result does not have {}", missing.join(", "))
    });
    let own = list(&attachment.result, "interfaces").any(|entry| entry["name"] == *container.ifname);
    lab.check(own, Some(&attachment.reply), || {
        format!("the result does not have the plugin's own interface {}", container.ifname)
    });
    Ok(())
}

fn tell_lost(lab: &mut Lab, base: &Value, attachment: &Attachment) {
    let lost = lost(base, attachment);
    let version = &attachment.version;
    lab.check(lost.is_empty(), Some(&attachment.reply), || {
        format!("version {version}: of prevResult {}", joined(&lost))
    });
}

pub(super) fn nothing_lost(lab: &mut Lab) -> Outcome {
    if lab.profile.kind == Kind::Meta {
        return in_each_version(
            lab,
            |_| true,
            |lab, attachment| {
                let base = attachment.call.read_config().unwrap_or_default()["prevResult"].clone();
                tell_lost(lab, &base, attachment);
                Ok(())
            },
        );
    }
    let container = lab.container("c1")?;
    let (call, base) = chained(lab, &container)?;
    let attachment = attached(lab, &container, &call)?;
    tell_lost(lab, &base, &attachment);
    Ok(())
}

/// With everything in it that a result can have, among it interfaces that are none of the kernel's.
pub(super) fn nothing_lost_of_much(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, mut base) = chained(lab, &container)?;
    base["dns"] = json!({
        "nameservers": ["192.0.2.53", "192.0.2.9"], "domain": "example.net", "search": ["b.net", "a.net"], "options": ["rotate"],
    });
    if since(&lab.version, "1.1.0") {
        if let Some(interfaces) = base["interfaces"].as_array_mut() {
            for interface in interfaces.iter_mut() {
                interface["mtu"] = json!(1500);
            }
            interfaces.push(json!({ "name": "vhost0", "socketPath": "/run/cnf-vhost.sock" }));
            interfaces.push(json!({ "name": "vf0", "sandbox": container.netns, "pciID": "0000:00:1f.6" }));
        }
        if let Some(routes) = base["routes"].as_array_mut() {
            routes.push(json!({ "dst": "10.250.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 500, "scope": 253 }));
            routes.push(json!({ "dst": "10.251.0.0/16", "gw": "10.55.1.1", "table": 0, "scope": 0 }));
        }
    }
    let call = call.previous(&base);
    let attachment = attached(lab, &container, &call)?;
    tell_lost(lab, &base, &attachment);
    Ok(())
}

/// What the kernel has otherwise than before is told, with the new value.
pub(super) fn new_values(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, mut base) = chained(lab, &container)?;
    if since(&lab.version, "1.1.0")
        && let Some(interfaces) = base["interfaces"].as_array_mut()
    {
        for interface in interfaces.iter_mut() {
            interface["mtu"] = json!(1500);
        }
    }
    let attachment = attached(lab, &container, &call.previous(&base))?;
    let mut changed = false;
    for (old, entry) in list(&base, "interfaces").zip(list(&attachment.result, "interfaces")) {
        let (Some(was), Some(is)) = (attachment.before.link(old), attachment.world.link(old)) else {
            continue;
        };
        let name = &is.name;
        if was.mac != is.mac {
            changed = true;
            lab.check(entry["mac"] == *is.mac, Some(&attachment.reply), || {
                format!("{name} now has the hardware address {}, the result says {}", is.mac, entry["mac"])
            });
        }
        if was.mtu != is.mtu && old["mtu"].is_u64() {
            changed = true;
            lab.check(entry["mtu"] == is.mtu, Some(&attachment.reply), || {
                format!("{name} now has the MTU {}, the result says {}", is.mtu, entry["mtu"])
            });
        }
    }
    if changed {
        return Ok(());
    }
    Err(Stop::Skip(
        "with its smallest configuration the plugin changes nothing that a result shows".to_owned(),
    ))
}

/// What was listed before stays where it was, so that the indexes of addresses stay right.
pub(super) fn appended(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, base) = chained(lab, &container)?;
    let attachment = attached(lab, &container, &call)?;
    for (index, old) in list(&base, "interfaces").enumerate() {
        let now = &attachment.result["interfaces"][index];
        lab.check(now["name"] == old["name"], Some(&attachment.reply), || {
            format!("interface {index} was {} and is {}", old["name"], now["name"])
        });
    }
    Ok(())
}

fn version_of(reply: &Reply) -> Value {
    reply.document().unwrap_or_default()["cniVersion"].clone()
}

pub(super) fn no_version(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, mut base) = chained(lab, &container)?;
    if let Some(base) = base.as_object_mut() {
        base.remove("cniVersion");
    }
    let reply = lab.run(&call.previous(&base))?;
    if lab.accepted(&reply, "ADD with a prevResult without cniVersion") {
        let (found, version) = (version_of(&reply), lab.version.clone());
        lab.check(found == *version, Some(&reply), || {
            format!("the configuration's version is {version}, prevResult names none, and the result {found}")
        });
    }
    Ok(())
}

pub(super) fn unknown_keys(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, mut base) = chained(lab, &container)?;
    base["example.net/later"] = json!({ "x": 1 });
    base["interfaces"][0]["example.net/later"] = json!("y");
    let reply = lab.run(&call.previous(&base))?;
    if !lab.accepted(&reply, "ADD with a prevResult that has unknown keys") {
        return Ok(());
    }
    let result = reply.document().unwrap_or_default();
    let kept = result["example.net/later"] == base["example.net/later"]
        && result["interfaces"][0]["example.net/later"] == "y";
    lab.check(kept, Some(&reply), || "keys of prevResult that no version knows are lost".to_owned());
    Ok(())
}
