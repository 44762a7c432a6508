//! The list of valid attachments, in the forms in which versions of libcni send it.

use serde_json::{Value, json};

use crate::cases::life::{Attached, attached, outside};
use crate::kernel::{Difference, Snapshot};
use crate::lab::{Call, Container, Lab, Reply};
use crate::verdict::Outcome;

/// The key of the specification's text at its tag 1.1.0, and the one that it and all code have now. libcni sends both since 1.2.3.
pub(super) const KEYS: [&str; 2] = ["cni.dev/attachments", "cni.dev/valid-attachments"];

/// GC without a list and, as libcni has it, without `runtimeConfig`.
pub(super) fn bare_call(lab: &Lab) -> Call {
    lab.call_network("GC").edit(|config| {
        if let Some(object) = config.as_object_mut() {
            object.remove("runtimeConfig");
        }
    })
}

/// The call, with this list under these keys.
pub(super) fn listing(call: Call, keys: &[&str], list: &Value) -> Call {
    call.edit(|config| {
        for key in keys {
            config[*key] = list.clone();
        }
    })
}

/// The entries of a list.
pub(super) fn entries(valid: &[&Container]) -> Value {
    valid.iter().map(|one| json!({ "containerID": one.id, "ifname": one.ifname })).collect()
}

/// A listed attachment and a stale one, whose namespace is gone.
struct Pair {
    kept: Attached,
    /// The world with only the listed one.
    before: Snapshot,
    stale: Attached,
}

fn pair(lab: &mut Lab) -> Outcome<Pair> {
    lab.need_verb("GC")?;
    let kept = attached(lab, "k1")?;
    let before = lab.snapshot()?;
    let stale = attached(lab, "c1")?;
    lab.destroy(&stale.container)?;
    Ok(Pair { kept, before, stale })
}

/// The stale one is gone and the listed one is not.
fn collected(lab: &mut Lab, pair: &Pair, reply: &Reply, why: &str) -> Outcome {
    lab.accepted(reply, why);
    let difference = lab.lasting_changes(&pair.before, |changes| changes)?;
    lab.check(difference.is_empty(), Some(reply), || {
        format!("{why} did not remove what is not listed, or more than that: {difference}")
    });
    Ok(())
}

/// Nothing is gone: neither the listed one nor the stale one.
fn spared(lab: &mut Lab, before: &Snapshot, reply: &Reply, why: &str) -> Outcome {
    let lost = outside(lab.changes(before)?);
    lab.check(lost.is_empty(), Some(reply), || format!("{why} removed something: {lost}"));
    Ok(())
}

/// Only the key that the text had first.
pub(super) fn old_key(lab: &mut Lab) -> Outcome {
    let pair = pair(lab)?;
    let call = listing(bare_call(lab), &KEYS[..1], &entries(&[&pair.kept.container]));
    let reply = lab.run(&call)?;
    collected(lab, &pair, &reply, "GC with the list only under cni.dev/attachments")
}

/// An empty list, and null, which an empty list in Go becomes.
pub(super) fn nothing_is_valid(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let before = lab.snapshot()?;
    for (name, list) in [("c1", json!([])), ("c2", Value::Null)] {
        let stale = attached(lab, name)?;
        lab.destroy(&stale.container)?;
        let call = listing(bare_call(lab), &KEYS, &list);
        let reply = lab.run(&call)?;
        let why = format!("GC with {list} as the list");
        lab.accepted(&reply, &why);
        let left = lab.lasting_changes(&before, Difference::added)?;
        lab.check(left.is_empty(), Some(&reply), || format!("{why} left something: {left}"));
    }
    Ok(())
}

/// No list at all, as `cnitool gc` and older libraries send it: nobody has said what is valid.
pub(super) fn no_list(lab: &mut Lab) -> Outcome {
    pair(lab)?;
    let before = lab.snapshot()?;
    let call = bare_call(lab);
    let reply = lab.run(&call)?;
    spared(lab, &before, &reply, "GC without a list")?;
    if !reply.ok() {
        lab.refused(&reply, Some(7), "GC without a list (success would do as well)");
    }
    Ok(())
}

/// Something that is no list, or whose entries are none: whatever it means, it does not mean that everything may go.
pub(super) fn unusable_list(lab: &mut Lab) -> Outcome {
    pair(lab)?;
    let before = lab.snapshot()?;
    for list in [json!("all"), json!({}), json!([7]), json!([{ "containerID": 5, "ifname": "eth0" }])] {
        let call = listing(bare_call(lab), &KEYS, &list);
        let reply = lab.run(&call)?;
        let why = format!("GC with {list} as the list");
        lab.refused(&reply, None, &why);
        spared(lab, &before, &reply, &why)?;
    }
    Ok(())
}

/// The same entry twice, entries of attachments that nobody knows, and keys in them that nobody knows.
pub(super) fn double_and_unknown(lab: &mut Lab) -> Outcome {
    let pair = pair(lab)?;
    let kept = &pair.kept.container;
    let mut list = entries(&[kept, kept]);
    if let Some(list) = list.as_array_mut() {
        list.push(json!({ "containerID": "cnf-nobody", "ifname": "eth0" }));
        list.push(json!({ "containerID": kept.id, "ifname": kept.ifname, "x-cnf": { "since": 1 } }));
        list.push(json!({ "containerID": pair.stale.container.id, "ifname": "eth7" }));
    }
    let call = listing(bare_call(lab), &KEYS, &list);
    let reply = lab.run(&call)?;
    collected(lab, &pair, &reply, "GC with double and unknown entries in the list")
}
