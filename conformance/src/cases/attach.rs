//! Attachments as cases need them: in every version of the specification, with address management that answers as it is told, in variants.

use serde_json::{Value, json};

use super::truth::World;
use crate::lab::{Act, Call, Container, Lab, Reply, Script, in_version, parse_version};
use crate::profile::{self, Kind};
use crate::verdict::{Outcome, Stop};

/// The name of the stub that plays address management.
pub(super) const STUB: &str = "cnf-ipam";

/// An ADD that succeeded.
#[derive(Debug)]
pub(super) struct Attachment {
    /// For whom.
    pub container: Container,
    /// The version of the configuration.
    pub version: String,
    /// The call.
    pub call: Call,
    /// The execution.
    pub reply: Reply,
    /// What was there before.
    pub before: World,
    /// What is there now.
    pub world: World,
    /// The result.
    pub result: Value,
}

impl Attachment {
    /// The call of another verb for the same attachment, with the result as `prevResult`, as a runtime makes it.
    pub(super) fn call(&self, verb: &str) -> Call {
        // Runtimes give DEL and CHECK the result since 0.4.0.
        let result = if since(&self.version, "0.4.0") { self.result.clone() } else { Value::Null };
        self.call.clone().verb(verb).previous(&result)
    }
}

/// Whether a version is `least` or later.
pub(super) fn since(version: &str, least: &str) -> bool {
    parse_version(version) >= parse_version(least)
}

/// Executes an ADD. `None`, and the case goes on, if it fails: that is for ADD-02 to say.
pub(super) fn attach(
    lab: &mut Lab,
    container: &Container,
    call: &Call,
) -> Outcome<Result<Attachment, Reply>> {
    let before = World::read(lab, container)?;
    let reply = lab.run(call)?;
    let result = match reply.document() {
        Ok(result) if reply.ok() => result,
        _ => return Ok(Err(reply)),
    };
    let world = World::read(lab, container)?;
    Ok(Ok(Attachment {
        container: container.clone(),
        version: lab.version.clone(),
        call: call.clone(),
        reply,
        before,
        world,
        result,
    }))
}

/// As [`attach`], for cases that need it to succeed.
///
/// # Errors
/// Skips the case if it does not.
pub(super) fn attached(lab: &mut Lab, container: &Container, call: &Call) -> Outcome<Attachment> {
    attach(lab, container, call)?.map_err(|reply| {
        Stop::Skip(format!("needs an ADD that works (see ADD-02), and this one did not: {}", reply.summary()))
    })
}

/// The versions in which a runtime calls such a plugin: chains came with 0.3.0.
pub(super) fn versions(lab: &Lab) -> Vec<String> {
    let least = if lab.profile.kind == Kind::Meta { "0.3.0" } else { "0.1.0" };
    lab.versions.iter().filter(|version| since(version, least)).cloned().collect()
}

/// ADD, `check`, DEL in every version that the plugin supports and `wanted` holds for, each with a container of its own.
///
/// # Errors
/// Skips the case if there is no such version, or ADD works in none.
pub(super) fn in_each_version(
    lab: &mut Lab,
    wanted: impl Fn(&str) -> bool,
    check: impl Fn(&mut Lab, &Attachment) -> Outcome,
) -> Outcome {
    let versions: Vec<String> = versions(lab).into_iter().filter(|version| wanted(version)).collect();
    let mut failed = format!("the plugin supports no such version ({})", lab.versions.join(", "));
    let mut worked = false;
    for version in versions {
        version.clone_into(&mut lab.version);
        let container = lab.container(&format!("v{}", version.replace('.', "")))?;
        lab.beneath(&container)?;
        let call = lab.call("ADD", &container);
        match attach(lab, &container, &call)? {
            Ok(attachment) => {
                worked = true;
                check(lab, &attachment)?;
                let del = attachment.call("DEL");
                lab.run(&del)?;
            }
            Err(reply) => failed = format!("needs an ADD that works (see ADD-02): {}", reply.summary()),
        }
        lab.destroy(&container)?;
    }
    if worked { Ok(()) } else { Err(Stop::Skip(failed)) }
}

/// ADD, `check`, DEL with the smallest configuration and with each variant of the profile. `check` gets what the variant is about.
pub(super) fn in_each_variant(
    lab: &mut Lab,
    check: impl Fn(&mut Lab, &str, Result<&Attachment, &Reply>) -> Outcome,
) -> Outcome {
    let mut patches = vec![("the smallest configuration".to_owned(), json!({}))];
    patches.extend(lab.profile.variants.iter().map(|variant| (variant.why.clone(), variant.patch.clone())));
    for (index, (why, patch)) in patches.iter().enumerate() {
        let container = lab.container(&format!("w{index}"))?;
        lab.beneath(&container)?;
        let call = lab.call("ADD", &container).edit(|config| profile::merge(config, patch));
        match attach(lab, &container, &call)? {
            Ok(attachment) => {
                check(lab, why, Ok(&attachment))?;
                let del = attachment.call("DEL");
                lab.run(&del)?;
            }
            Err(reply) => {
                check(lab, why, Err(&reply))?;
                lab.run(&call.verb("DEL"))?;
            }
        }
        lab.destroy(&container)?;
    }
    Ok(())
}

/// An ADD whose address management is a stub with this answer, which is written as of 1.0.0 or later.
pub(super) fn delegated(lab: &mut Lab, container: &Container, answer: &Value) -> Outcome<Call> {
    let answer = in_version(answer, &lab.version);
    stubbed(lab, container, Act::reply(&answer))
}

/// An ADD whose address management is a stub that does this.
pub(super) fn stubbed(lab: &mut Lab, container: &Container, act: Act) -> Outcome<Call> {
    lab.stub(STUB, &Script::from([("ADD".to_owned(), act)]))?;
    Ok(lab.call("ADD", container).edit(|config| config["ipam"] = json!({ "type": STUB })))
}

/// An answer of address management: one address of each family, of the subnets number `number`, with gateways, and no routes.
pub(super) fn addresses(number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "ips": [
            { "address": format!("10.88.{number}.5/24"), "gateway": format!("10.88.{number}.1") },
            { "address": format!("fd00:88:{number}::5/64"), "gateway": format!("fd00:88:{number}::1") },
        ],
    })
}

/// The same, with these routes.
pub(super) fn with_routes(mut answer: Value, routes: Value) -> Value {
    answer["routes"] = routes;
    answer
}
