//! ADD that fails, or is killed, and the DEL after it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cases::attach::{STUB, addresses, attached, delegated, stubbed, with_routes};
use crate::lab::{Act, Call, Container, Lab};
use crate::profile;
use crate::verdict::{Outcome, Stop};

pub(super) fn delegate_is_called_again(lab: &mut Lab) -> Outcome {
    for (why, act) in
        [("fails", Act::error(123, "told to fail")), ("crashes", Act { crash: true, ..Act::default() })]
    {
        let container = lab.container(why)?;
        let call = stubbed(lab, &container, act)?;
        lab.forget(STUB);
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("ADD whose delegate {why}"));
        let verbs = lab.verbs_seen(STUB);
        // How often DEL follows is the plugin's affair: DEL may come any number of times.
        let again = verbs.split_first().is_some_and(|(first, rest)| {
            first == "ADD" && !rest.is_empty() && rest.iter().all(|verb| verb == "DEL")
        });
        lab.check(again, Some(&reply), || {
            format!("the delegate {why}; it was called with {verbs:?} and not with ADD and then DEL")
        });
    }
    Ok(())
}

/// ADDs that fail in the delegate: what is wrong with it, and the call.
fn broken_delegates(lab: &mut Lab, container: &Container) -> Outcome<Vec<(&'static str, Call)>> {
    let missing = lab.call("ADD", container).edit(|config| config["ipam"] = json!({ "type": "cnf-missing" }));
    let mut calls = vec![("is not in CNI_PATH", missing)];
    let version = lab.version.clone();
    let bad = json!({ "cniVersion": version, "ips": [{ "version": "4", "address": "10.88.0.555/24" }] });
    let acts = [
        ("fails", "cnf-fails", Act::error(123, "told to fail")),
        ("crashes", "cnf-crashes", Act { crash: true, ..Act::default() }),
        ("says nothing", "cnf-silent", Act::default()),
        ("talks nonsense", "cnf-nonsense", Act { stdout: "nonsense".to_owned(), ..Act::default() }),
        ("gives an address that is none", "cnf-bad", Act::reply(&bad)),
    ];
    for (why, name, act) in acts {
        lab.stub(name, &[("ADD".to_owned(), act)].into())?;
        calls.push((why, lab.call("ADD", container).edit(|config| config["ipam"] = json!({ "type": name }))));
    }
    Ok(calls)
}

pub(super) fn delegate_unchanged(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for (why, call) in broken_delegates(lab, &container)? {
        let before = lab.snapshot()?;
        let reply = lab.run(&call)?;
        let why = format!("ADD whose delegate {why}");
        lab.check(!reply.ok(), Some(&reply), || format!("{why} succeeded"));
        if !lab.unchanged(&before, &format!("{why} left something"))? {
            // What is left would be found again in the next.
            lab.run(&call.clone().verb("DEL"))?;
            lab.sh(&format!("ip -n {0} link del {1} 2>/dev/null || true", container.name, container.ifname))?;
        }
    }
    Ok(())
}

/// What address management gives is of the right form, and the kernel does not take it.
fn refused_answers() -> Vec<(&'static str, Value)> {
    let mut multicast = addresses(1);
    multicast["ips"][1] = json!({ "address": "ff02::5/64" });
    let routes = json!([{ "dst": "10.250.0.0/16" }, { "dst": "10.251.0.0/16", "gw": "203.0.113.1" }]);
    vec![
        ("a second address that is multicast", multicast),
        ("a second route whose gateway cannot be reached", with_routes(addresses(1), routes)),
    ]
}

pub(super) fn kernel_refuses(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for (why, answer) in refused_answers() {
        let before = lab.snapshot()?;
        let call = delegated(lab, &container, &answer)?;
        let reply = lab.run(&call)?;
        if reply.ok() {
            // Not a failed ADD: whether the result is true is for ADD-05.
            lab.run(&call.verb("DEL").previous(&reply.document().unwrap_or_default()))?;
            continue;
        }
        if !lab.unchanged(&before, &format!("ADD with {why} failed and left something"))? {
            lab.run(&call.verb("DEL"))?;
            lab.sh(&format!("ip -n {0} link del {1} 2>/dev/null || true", container.name, container.ifname))?;
        }
    }
    Ok(())
}

/// The configurations of the profile with which ADD fails late.
fn late_calls(lab: &mut Lab, container: &Container) -> Outcome<Vec<(String, Call)>> {
    lab.beneath(container)?;
    let mut calls = Vec::new();
    for variant in lab.profile.fails.clone() {
        let call = lab.call("ADD", container).edit(|config| profile::merge(config, &variant.patch));
        calls.push((variant.why, call));
    }
    Ok(calls)
}

pub(super) fn late(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for (why, call) in late_calls(lab, &container)? {
        let before = lab.snapshot()?;
        let reply = lab.run(&call)?;
        // A plugin that succeeds with it has not failed late.
        if reply.failed() {
            lab.unchanged(&before, &format!("ADD with {why} failed and left something"))?;
        }
        lab.run(&call.verb("DEL"))?;
    }
    Ok(())
}

/// Address management with one free address in one of two sets: the second container gets none, and the other set keeps nothing of it.
pub(super) fn no_room(lab: &mut Lab) -> Outcome {
    let Some(patch) = lab.profile.facts.get("room_for_one").cloned() else { return Ok(()) };
    let first = lab.container("c1")?;
    let call = lab.call("ADD", &first).edit(|config| profile::merge(config, &patch));
    attached(lab, &first, &call)?;
    let second = lab.container("c2")?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &second).edit(|config| profile::merge(config, &patch));
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "ADD where one of two sets of addresses is used up");
    lab.unchanged(&before, "ADD where one of two sets of addresses is used up left something")?;
    Ok(())
}

/// DEL twice, as runtimes do after a failure; nothing may be left.
fn cleared(lab: &mut Lab, call: &Call, before: &crate::kernel::Snapshot, why: &str) -> Outcome<bool> {
    let del = call.clone().verb("DEL");
    for time in ["DEL", "a second DEL"] {
        let reply = lab.run(&del)?;
        lab.accepted(&reply, &format!("{time} {why}"));
    }
    lab.unchanged(before, &format!("DEL {why} leaves something"))
}

pub(super) fn deleted_after_failure(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let mut calls = broken_delegates(lab, &container)?;
    // Of a delegate that is not there DEL may complain (section 4); all others have nothing against DEL.
    calls.remove(0);
    for (why, answer) in refused_answers() {
        calls.push((why, delegated(lab, &container, &answer)?));
    }
    for (why, call) in calls {
        let before = lab.snapshot()?;
        lab.run(&call)?;
        let why = format!("after ADD with a delegate that {why}");
        if !cleared(lab, &call, &before, &why)? {
            break;
        }
    }
    Ok(())
}

pub(super) fn deleted_after_late_failure(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for (why, call) in late_calls(lab, &container)? {
        let before = lab.snapshot()?;
        lab.run(&call)?;
        if !cleared(lab, &call, &before, &format!("after ADD with {why}"))? {
            break;
        }
    }
    Ok(())
}

/// SIGKILL at eight moments of an ADD, spread over the time that one takes.
pub(super) fn killed(lab: &mut Lab) -> Outcome {
    const MOMENTS: u32 = 8;
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    let before = lab.snapshot()?;
    let attachment = attached(lab, &container, &call)?;
    lab.run(&attachment.call("DEL"))?;
    if !lab.changes(&before)?.is_empty() {
        return Err(Stop::Skip("needs a DEL that leaves nothing (see DEL-01)".to_owned()));
    }
    let whole = attachment.reply.duration;
    for moment in 0..MOMENTS {
        let mut dying = call.clone();
        dying.kill_after = Some(whole * moment / MOMENTS + Duration::from_micros(500));
        lab.run(&dying)?;
        let why = format!("after ADD was killed at {moment} eighths of its time");
        if !cleared(lab, &call, &before, &why)? {
            break;
        }
    }
    Ok(())
}

/// SIGKILL while the delegate is at work: that ADD has come so far, and no farther, whatever the machine's speed.
pub(super) fn killed_in_delegate(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let call = stubbed(lab, &container, Act { sleep: 5_000, ..Act::default() })?;
    let before = lab.snapshot()?;
    let mut dying = call.clone();
    dying.kill_after = Some(Duration::from_millis(300));
    lab.run(&dying)?;
    if lab.verbs_seen(STUB).is_empty() {
        lab.note("the delegate had not been reached yet");
    }
    cleared(lab, &call, &before, "after ADD was killed while its delegate was at work")?;
    Ok(())
}
