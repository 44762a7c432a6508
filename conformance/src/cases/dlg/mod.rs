//! Delegation to other plugins, with a stub that writes down how it was called.

mod errors;
mod other;
mod passing;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Case, INTERFACE};
use crate::lab::{Act, Call, Container, Lab, Reply, Script, Seen, in_version, parse_version};
use crate::profile::Profile;
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    of("DLG-01", "search-path", passing::search_path),
    of("DLG-01", "what-is-no-file", passing::what_is_no_file),
    of("DLG-02", "environment", passing::environment),
    of("DLG-03", "configuration", passing::configuration),
    of("DLG-04", "standard-error", passing::standard_error),
    of("DLG-05", "check", |lab| passing::forwarded(lab, "CHECK")),
    of("DLG-05", "del", |lab| passing::forwarded(lab, "DEL")),
    of("DLG-05", "gc", |lab| passing::forwarded(lab, "GC")),
    of("DLG-05", "status", |lab| passing::forwarded(lab, "STATUS")),
    of("DLG-06", "codes", errors::codes),
    of("DLG-07", "taken-back", errors::taken_back),
    of("DLG-08", "route-refused", errors::route_refused),
    of("DLG-08", "interface-taken-meanwhile", errors::interface_taken),
    of("DLG-09", "absent", errors::absent),
    of("DLG-09", "not-executable", errors::not_executable),
    of("DLG-10", "senseless", errors::senseless),
    of("DLG-10", "flood", errors::flood),
    of("DLG-10", "child-left-running", errors::child_left_running),
    of("DLG-10", "hangs", errors::hangs),
    of("DLG-10", "killed-while-it-hangs", errors::killed_while_it_hangs),
    Case::new("DLG-11", "any-delegate", super::ALL, other::any_delegate).when(other::delegates_to_any),
    Case::new("DLG-11", "any-delegate-fails", super::ALL, other::any_delegate_fails)
        .when(other::delegates_to_any),
    of("DLG-12", "result-versions", passing::result_versions),
];

/// A case for plugins that execute the plugin of `ipam.type`.
const fn of(item: &'static str, name: &'static str, run: fn(&mut Lab) -> Outcome) -> Case {
    Case::new(item, name, INTERFACE, run).when(delegates)
}

fn delegates(profile: &Profile) -> bool {
    profile.delegates
}

/// The stub that stands for address management.
pub(super) const DELEGATE: &str = "cnf-ipam";

/// The profile's configuration with the stub for address management.
pub(super) fn delegated(lab: &Lab) -> Value {
    let mut config = lab.config();
    config["ipam"] = json!({ "type": DELEGATE });
    config
}

/// A call with the stub for address management.
pub(super) fn call(lab: &Lab, verb: &str, container: &Container) -> Call {
    let call = match verb {
        "STATUS" | "GC" => lab.call_network(verb),
        _ => lab.call(verb, container),
    };
    call.config(&delegated(lab))
}

/// What address management answers, in version 1.0.0.
pub(super) fn answer() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "ips": [{ "address": "10.66.0.5/24", "gateway": "10.66.0.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": {},
    })
}

/// A stub that answers ADD with this result and all else with success.
pub(super) fn grants(result: &Value) -> Script {
    BTreeMap::from([("ADD".to_owned(), Act::reply(result))])
}

/// A stub that gives one address, in the case's version.
pub(super) fn good(lab: &Lab) -> Script {
    grants(&in_version(&answer(), &lab.version))
}

/// One verb of a whole life with the stub.
pub(super) struct Stage {
    /// The verb.
    pub verb: &'static str,
    /// What was executed.
    pub call: Call,
    /// What came back.
    pub reply: Reply,
    /// What the stub saw of it.
    pub seen: Vec<Seen>,
}

/// Every verb that the case's version has, in the order of a life, with the stub for address management: each call changed by `edit`.
///
/// # Errors
/// Skips the case if ADD does not work.
pub(super) fn life(lab: &mut Lab, edit: fn(Call) -> Call) -> Outcome<Vec<Stage>> {
    let container = lab.container("c1")?;
    let script = good(lab);
    lab.stub(DELEGATE, &script)?;
    let mut stages: Vec<Stage> = Vec::new();
    let mut result = Value::Null;
    for verb in ["ADD", "CHECK", "STATUS", "GC", "DEL"] {
        if parse_version(&lab.version) < parse_version(since(verb)) {
            continue;
        }
        let mut call = edit(call(lab, verb, &container));
        match verb {
            "CHECK" | "DEL" if parse_version(&lab.version) >= parse_version("0.4.0") => {
                call = call.previous(&result);
            }
            "GC" => {
                let valid = json!([{ "containerID": container.id, "ifname": container.ifname }]);
                call = call.edit(|config| {
                    config["cni.dev/valid-attachments"] = valid.clone();
                    config["cni.dev/attachments"] = valid;
                });
            }
            _ => {}
        }
        lab.forget(DELEGATE);
        let reply = lab.run(&call)?;
        if verb == "ADD" {
            result = reply.document().ok().filter(|_| reply.ok()).ok_or_else(|| {
                Stop::Skip(format!("needs an ADD that works (see ADD-02): {}", reply.summary()))
            })?;
        }
        let seen = lab.seen(DELEGATE);
        stages.push(Stage { verb, call, reply, seen });
    }
    Ok(stages)
}

/// The version that brought a verb.
fn since(verb: &str) -> &'static str {
    match verb {
        "CHECK" => "0.4.0",
        "GC" | "STATUS" => "1.1.0",
        _ => "0.1.0",
    }
}
