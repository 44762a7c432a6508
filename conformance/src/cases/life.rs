//! What the cases of DEL, CHECK, STATUS and GC have in common: attachments with what each brought into the world, and a delegate under control.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kernel::{Difference, Snapshot};
use crate::lab::{Act, Call, Container, Lab, Reply, Script, in_version};
use crate::profile::Kind;
use crate::verdict::{Outcome, Stop};

/// An attachment, and what its ADD made or changed.
pub(super) struct Attached {
    pub(super) container: Container,
    pub(super) result: Value,
    /// Keys of snapshots.
    pub(super) own: BTreeSet<String>,
}

impl Attached {
    /// Of a difference, what is not of this attachment.
    pub(super) fn foreign(&self, difference: Difference) -> Difference {
        not_of(&[self], difference)
    }
}

/// Of a difference, what is of none of these attachments.
pub(super) fn not_of(attachments: &[&Attached], mut difference: Difference) -> Difference {
    difference.lines.retain(|(key, _)| !attachments.iter().any(|attached| attached.own.contains(key)));
    difference
}

/// Of a difference, what is outside of containers: the host, and files.
pub(super) fn outside(mut difference: Difference) -> Difference {
    difference.lines.retain(|(key, _)| key.starts_with("host/") || key.starts_with("file/"));
    difference
}

/// A container with what a chain needs beneath the plugin, and the world just before ADD.
pub(super) fn fresh(lab: &mut Lab, name: &str) -> Outcome<(Container, Snapshot)> {
    let container = lab.container(name)?;
    lab.beneath(&container)?;
    let before = lab.snapshot()?;
    Ok((container, before))
}

/// ADD, with what it changed. Needs [`Lab::beneath`] before.
pub(super) fn attach(lab: &mut Lab, container: &Container) -> Outcome<Attached> {
    let before = lab.snapshot()?;
    let result = lab.add(container)?;
    let own = lab.all_changes(&before)?.lines.into_iter().map(|(key, _)| key).collect();
    Ok(Attached { container: container.clone(), result, own })
}

/// A container of this name, attached.
pub(super) fn attached(lab: &mut Lab, name: &str) -> Outcome<Attached> {
    let container = lab.container(name)?;
    lab.beneath(&container)?;
    attach(lab, &container)
}

/// A second attachment of the same container; for the loopback plugin, which has one interface, of another container.
pub(super) fn second(lab: &mut Lab, first: &Container) -> Outcome<Container> {
    let container = if lab.profile.kind == Kind::Loopback {
        lab.container(&format!("{}b", first.name))?
    } else {
        first.interface("eth1")
    };
    lab.beneath(&container)?;
    Ok(container)
}

/// CHECK with this result, as a runtime does it.
pub(super) fn verify(lab: &mut Lab, container: &Container, result: &Value) -> Outcome<Reply> {
    let call = lab.call("CHECK", container).previous(result);
    lab.run(&call)
}

/// An attachment that must be whole: tried by CHECK, where the plugin has it.
pub(super) fn still_whole(lab: &mut Lab, attached: &Attached, why: &str) -> Outcome {
    if lab.need_verb("CHECK").is_ok() {
        let reply = verify(lab, &attached.container, &attached.result)?;
        lab.accepted(&reply, why);
    }
    Ok(())
}

/// Skips the case if CHECK does not even succeed directly after ADD.
pub(super) fn healthy(lab: &mut Lab, container: &Container, result: &Value) -> Outcome {
    let reply = verify(lab, container, result)?;
    if reply.ok() {
        Ok(())
    } else {
        Err(Stop::Skip(format!(
            "needs a CHECK that succeeds after ADD (see CHK-01), and this one did not: {}",
            reply.summary()
        )))
    }
}

/// The name of the stub for address management.
pub(super) const DELEGATE: &str = "cnf-ipam";

/// Puts a stub for address management into `CNI_PATH`, which hands out one address and for `verb` does `act`.
pub(super) fn delegate(lab: &mut Lab, verb: &str, act: Act) -> Outcome {
    let result = json!({
        "ips": [{ "address": "10.99.0.2/24", "gateway": "10.99.0.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": {},
    });
    let mut script = Script::new();
    script.insert("ADD".to_owned(), Act::reply(&in_version(&result, &lab.version)));
    script.insert(verb.to_owned(), act);
    lab.stub(DELEGATE, &script)
}

/// The call, with the stub for address management.
pub(super) fn delegating(call: Call) -> Call {
    call.edit(|config| config["ipam"] = json!({ "type": DELEGATE, "cnf": [1, "two"] }))
}

/// ADD through the stub.
pub(super) fn add_delegating(lab: &mut Lab, container: &Container) -> Outcome<Value> {
    let call = delegating(lab.call("ADD", container));
    lab.must_add(&call)
}
