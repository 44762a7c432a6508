//! The environment: verbs, variables, and what is refused before anything is done.

mod identity;
mod netns;

use serde_json::Value;

use super::protocol::{asks_nobody_unasked, call, delegates, ready, untouched, verbs};
use super::{ALL, Case, INTERFACE};
use crate::lab::{Call, Lab, Stdin};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ENV-01", "each-verb", ALL, each_verb),
    Case::new("ENV-01", "case-matters", ALL, case_matters),
    Case::new("ENV-02", "unknown-verb", ALL, unknown_verb),
    Case::new("ENV-03", "one-missing", ALL, one_missing),
    Case::new("ENV-04", "without-args", ALL, without_args),
    Case::new("ENV-04", "without-netns", ALL, without_netns),
    Case::new("ENV-04", "without-path", ALL, without_path).when(asks_nobody_unasked),
    Case::new("ENV-05", "empty-required", ALL, empty_required),
    Case::new("ENV-05", "empty-unneeded", ALL, empty_unneeded),
    Case::new("ENV-06", "all-missing", ALL, all_missing),
    Case::new("ENV-07", "bad-container-ids", ALL, identity::bad_container_ids),
    Case::new("ENV-07", "good-container-ids", ALL, identity::good_container_ids),
    Case::new("ENV-08", "impossible-names", ALL, identity::impossible_names),
    Case::new("ENV-08", "templates-and-lo", INTERFACE, identity::templates),
    Case::new("ENV-09", "missing-is-named", ALL, identity::missing_is_named),
    Case::new("ENV-09", "invalid-is-named", ALL, identity::invalid_is_named),
    Case::new("ENV-10", "garbage-unneeded", ALL, garbage_unneeded),
    Case::new("ENV-11", "not-a-namespace", netns::ENTERING, netns::not_a_namespace),
    Case::new("ENV-11", "not-a-namespace-in-a-chain", super::META, netns::not_a_namespace),
    Case::new("ENV-12", "add-to-own-namespace", ALL, netns::add_to_own),
    Case::new("ENV-12", "del-and-check-in-own-namespace", ALL, netns::del_in_own),
    Case::new("ENV-12", "override", netns::ENTERING, netns::allowed_by_override),
    Case::new("ENV-13", "forms-of-a-path", super::CALLED, netns::forms_of_a_path),
    Case::new("ENV-14", "tracing-and-locale", ALL, tracing_and_locale),
    Case::new("ENV-14", "nothing-but-cni", ALL, nothing_but_cni),
    Case::new("ENV-15", "started-by-hand", ALL, started_by_hand),
];

/// A whole life, to see that each verb is known: what it does then is the business of other items.
fn each_verb(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in ["VERSION"].into_iter().chain(verbs(lab)) {
        let reply = lab.run(&call(lab, verb, &container, &result))?;
        lab.check(reply.code() != Some(4), Some(&reply), || {
            format!("{verb} is not taken for a verb: {}", reply.summary())
        });
        if verb == "ADD" && reply.ok() {
            result = reply.document().unwrap_or_default();
        }
    }
    Ok(())
}

/// What looks like a verb and is none.
fn case_matters(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in ["add", "Add", "ADD ", " ADD", "ADD\n", "version", "ADDX"] {
        let reply = lab.run(&lab.call("ADD", &container).verb(verb))?;
        lab.refused(&reply, None, &format!("CNI_COMMAND={verb:?}"));
    }
    untouched(lab, &before, "a call with a verb that is none was refused or not")?;
    Ok(())
}

fn unknown_verb(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in ["NOPE", "DELETE", "CNI_COMMAND"] {
        let reply = lab.run(&lab.call("ADD", &container).verb(verb))?;
        // The value itself must not pass for the name.
        if lab.refused(&reply, Some(4), &format!("CNI_COMMAND={verb}")) && verb == "NOPE" {
            lab.check(reply.message().contains("CNI_COMMAND"), Some(&reply), || {
                format!("the message does not name CNI_COMMAND: {:?}", reply.message())
            });
        }
    }
    untouched(lab, &before, "a call with an unknown verb was made")?;
    Ok(())
}

/// What each verb requires (section 2).
fn required(verb: &str) -> &'static [&'static str] {
    match verb {
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME"],
        "GC" => &["CNI_PATH"],
        _ => &[],
    }
}

fn one_missing(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let result = lab.add(&container)?;
    let before = lab.snapshot()?;
    for verb in verbs(lab) {
        for variable in required(verb) {
            let call = call(lab, verb, &container, &result).without(variable);
            let reply = lab.run(&call)?;
            lab.refused(&reply, Some(4), &format!("{verb} without {variable}"));
        }
    }
    untouched(lab, &before, "a required variable was missing")?;
    Ok(())
}

fn without_args(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let call = call(lab, verb, &container, &result).without("CNI_ARGS");
        let reply = lab.run(&call)?;
        // A verb that fails anyway is another item's.
        if reply.code() == Some(4) || verb == "ADD" {
            lab.accepted(&reply, &format!("{verb} without CNI_ARGS"));
        }
        if verb == "ADD" {
            result = reply.document().unwrap_or_default();
        }
    }
    Ok(())
}

fn without_netns(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let result = lab.add(&container)?;
    for value in [None, Some("")] {
        let call = call(lab, "DEL", &container, &result).without("CNI_NETNS");
        let call = match value {
            Some(empty) => call.env("CNI_NETNS", empty),
            None => call,
        };
        let reply = lab.run(&call)?;
        let how = if value.is_some() { "with an empty" } else { "without" };
        lab.accepted(&reply, &format!("DEL {how} CNI_NETNS"));
    }
    Ok(())
}

/// `CNI_PATH` matters only where a delegate has to be found. The reference asks for it always, which the specification does not.
fn without_path(lab: &mut Lab) -> Outcome {
    if delegates(&lab.profile)
        && let Some(config) = Some(&mut lab.profile.config)
    {
        config.remove("ipam");
    }
    let container = ready(lab, "c1")?;
    let with = lab.run(&lab.call("ADD", &container))?;
    if !with.ok() {
        let said = with.summary();
        return Err(Stop::Skip(format!("does not work without address management: {said}")));
    }
    let result = with.document().unwrap_or_default();
    lab.run(&call(lab, "DEL", &container, &result))?;
    for verb in verbs(lab).into_iter().filter(|verb| *verb != "GC") {
        let reply = lab.run(&call(lab, verb, &container, &result).without("CNI_PATH"))?;
        if reply.code() == Some(4) {
            lab.warn(
                format!("{verb} without CNI_PATH, which it has no use for here: {}", reply.summary()),
                Some(&reply),
            );
        } else if verb == "ADD" {
            lab.accepted(&reply, "ADD without CNI_PATH and without a delegate");
        }
    }
    Ok(())
}

fn empty_required(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for variable in required("ADD") {
        let reply = lab.run(&lab.call("ADD", &container).env(variable, ""))?;
        lab.refused(&reply, Some(4), &format!("ADD with an empty {variable}"));
    }
    untouched(lab, &before, "a required variable was empty")?;
    Ok(())
}

fn empty_unneeded(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let container = ready(lab, "c1")?;
    for verb in ["STATUS", "GC"] {
        let reply = lab.run(&call(lab, verb, &container, &Value::Null))?;
        lab.accepted(&reply, &format!("{verb} with the empty variables that libcni sends"));
    }
    Ok(())
}

fn all_missing(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let missing = required("ADD");
    let call = missing.iter().fold(lab.call("ADD", &container), |call, name| call.without(name));
    let reply = lab.run(&call)?;
    if lab.refused(&reply, Some(4), "ADD without container, namespace and interface") {
        let unsaid: Vec<&str> =
            missing.iter().copied().filter(|name| !reply.message().contains(name)).collect();
        lab.check(unsaid.is_empty(), Some(&reply), || {
            format!(
                "{} are missing too, and the message does not say so: {:?}",
                unsaid.join(", "),
                reply.message()
            )
        });
    }
    Ok(())
}

fn garbage_unneeded(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let calls: Vec<&str> = ["VERSION"]
        .into_iter()
        .chain(verbs(lab).into_iter().filter(|v| *v == "STATUS" || *v == "GC"))
        .collect();
    for verb in calls {
        let call = call(lab, verb, &container, &Value::Null)
            .env("CNI_CONTAINERID", "../ no id")
            .env("CNI_NETNS", "/does/not/exist")
            .env("CNI_IFNAME", "not/an interface name");
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("{verb} with garbage in variables it has no use for"));
    }
    Ok(())
}

/// What a runtime may pass on from its own environment.
fn tracing_and_locale(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let plain = call(lab, verb, &container, &result);
        let call = [
            ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("TRACESTATE", "vendor=opaque"),
            ("BAGGAGE", "key=value"),
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "tr_TR"),
            ("LD_BIND_NOW", "1"),
            ("DEBUG", "1"),
            ("GODEBUG", "madvdontneed=1"),
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "full"),
            ("HOME", "/nonexistent"),
            ("TMPDIR", "/nonexistent"),
            ("CNI_COMMANDS", "DEL"),
            ("cni_command", "DEL"),
        ]
        .into_iter()
        .fold(plain.clone(), |call, (name, value)| call.env(name, value));
        if !same_with(lab, verb, &plain, &call, "variables of tracing, locale and debugging", &mut result)? {
            break;
        }
    }
    Ok(())
}

/// Whether `changed`, which differs from `plain` in what should make no difference, succeeds. Where `plain` fails too, that is not its fault.
/// An ADD leaves its result in `result`.
fn same_with(
    lab: &mut Lab,
    verb: &str,
    plain: &Call,
    changed: &Call,
    what: &str,
    result: &mut Value,
) -> Outcome<bool> {
    let reply = lab.run(changed)?;
    if reply.ok() {
        match (verb, reply.document()) {
            ("ADD", Ok(document)) => *result = document,
            ("ADD", Err(problem)) => lab.violated(format!("ADD with {what}: {problem}"), Some(&reply)),
            _ => {}
        }
        return Ok(true);
    }
    if lab.run(plain)?.ok() {
        lab.violated(format!("{verb} with {what}: {}", reply.summary()), Some(&reply));
    }
    Ok(verb != "ADD")
}

/// A runtime that gives nothing but the parameters: no PATH, no HOME.
fn nothing_but_cni(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let plain = call(lab, verb, &container, &result);
        let mut bare = plain.clone();
        bare.environment.retain(|name, _| name.starts_with("CNI_"));
        if !same_with(lab, verb, &plain, &bare, "no variable but the parameters", &mut result)? {
            break;
        }
    }
    Ok(())
}

/// A person types the plugin's name to see what it is.
fn started_by_hand(lab: &mut Lab) -> Outcome {
    let before = lab.snapshot()?;
    for argument in [None, Some("--help"), Some("--version")] {
        let mut call = lab.call_network("VERSION").without("CNI_COMMAND");
        call.environment.retain(|name, _| !name.starts_with("CNI_"));
        call.stdin = Stdin::Bytes(Vec::new());
        call.arguments = argument.map(str::to_owned).into_iter().collect();
        let reply = lab.run(&call)?;
        let how = format!("started with {:?} and no CNI_COMMAND", argument.unwrap_or("nothing"));
        lab.accepted(&reply, &how);
        lab.check(reply.stdout.is_empty(), Some(&reply), || {
            format!("{how}: standard output, which is the runtime's, has {:?}", reply.text())
        });
        let newest = lab.versions.last().cloned().unwrap_or_default();
        lab.check(reply.errors().contains(&newest), Some(&reply), || {
            format!(
                "{how}: standard error does not tell the versions it speaks ({newest} among them): {:?}",
                reply.errors()
            )
        });
    }
    untouched(lab, &before, "it was started by hand")?;
    Ok(())
}
