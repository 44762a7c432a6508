//! Many at once, locks that somebody holds, and processes that are killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::truth::{About, falsehoods, joined, list};
use super::{ALL, CALLED, Case, attach};
use crate::kernel::Snapshot;
use crate::lab::{Call, Container, Lab, Reply, world};
use crate::profile::{Kind, Profile};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("CON-01", "add-check-del", CALLED, add_check_del),
    Case::new("CON-01", "add-beside-del", CALLED, add_beside_del),
    Case::new("CON-02", "interfaces-of-one-container", &[Kind::Interface, Kind::Meta], interfaces),
    Case::new("CON-03", "first-use", &[Kind::Interface, Kind::Meta, Kind::Ipam], first_use),
    Case::new("CON-03", "last-leaves-first-comes", &[Kind::Interface, Kind::Meta, Kind::Ipam], last_leaves),
    Case::new("CON-04", "after-a-kill", ALL, after_a_kill),
    Case::new("CON-04", "lock-held", ALL, lock_held).waits(),
    Case::new("CON-05", "killed-in-add", ALL, |lab| killed(lab, "ADD")),
    Case::new("CON-05", "killed-in-del", ALL, |lab| killed(lab, "DEL")),
    Case::new("CON-05", "killed-then-gc", ALL, killed_then_gc),
];

/// So many containers at once, unless fact `at_once` says that the plugin cannot serve so many.
const CROWD: usize = 16;

/// The number of attachments that the plugin can serve at the same time, at most `wanted`.
fn at_once(profile: &Profile, wanted: usize) -> usize {
    let limit =
        profile.facts.get("at_once").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(wanted).min(wanted)
}

/// Containers with what lies beneath the plugin in a chain.
fn crowd(lab: &mut Lab, prefix: &str, number: usize) -> Outcome<Vec<Container>> {
    let mut containers = Vec::new();
    for index in 0..number {
        let container = lab.container(&format!("{prefix}{index}"))?;
        lab.beneath(&container)?;
        containers.push(container);
    }
    Ok(containers)
}

/// Skips a case about several attachments for a plugin that can only serve one.
fn need_several(lab: &Lab, wanted: usize) -> Outcome<usize> {
    match at_once(&lab.profile, wanted) {
        0 | 1 => Err(Stop::Skip("the plugin serves one attachment at a time".to_owned())),
        number => Ok(number),
    }
}

/// One verb for all containers, side by side, with what each ADD said as `prevResult`. All must succeed.
fn together(lab: &mut Lab, verb: &str, of: &[(Container, Value)]) -> Outcome<Vec<Reply>> {
    let calls: Vec<Call> = of
        .iter()
        .map(|(container, result)| match verb {
            "ADD" => lab.call(verb, container),
            _ => attach_call(lab, verb, container, result),
        })
        .collect();
    let replies = lab.race(&calls)?;
    all_accepted(lab, &replies, &format!("{} {verb}s side by side", calls.len()));
    Ok(replies)
}

/// All of them must have succeeded: one finding for those that did not.
fn all_accepted(lab: &mut Lab, replies: &[Reply], what: &str) {
    let failed: Vec<&Reply> = replies.iter().filter(|reply| !reply.ok()).collect();
    if let Some(first) = failed.first() {
        let message = format!("{what}: {} of them failed; the first: {}", failed.len(), first.summary());
        lab.violated(message, Some(first));
    }
}

/// What the results say must be there. How well they say it is for other items.
fn all_true(lab: &mut Lab, attachments: &[(Container, Value)], what: &str) -> Outcome {
    for (container, result) in attachments {
        let mut wrong = falsehoods(lab, container, result)?;
        wrong.retain(|falsehood| {
            matches!(
                falsehood.about,
                About::Interface | About::Sandbox | About::Mac | About::Address | About::Route
            )
        });
        let Container { id, ifname, .. } = container;
        lab.check(wrong.is_empty(), None, || {
            format!("after {what}, the result for {ifname} of {id} is not so: {}", joined(&wrong))
        });
    }
    Ok(())
}

/// A later verb of an attachment, as a runtime makes it.
fn attach_call(lab: &Lab, verb: &str, container: &Container, result: &Value) -> Call {
    let call = lab.call(verb, container);
    if result.is_null() || !attach::since(&lab.version, "0.4.0") { call } else { call.previous(result) }
}

/// ADD for all, side by side: the attachments that came out.
fn add_all(lab: &mut Lab, containers: Vec<Container>) -> Outcome<Vec<(Container, Value)>> {
    let of: Vec<_> = containers.into_iter().map(|container| (container, Value::Null)).collect();
    let replies = together(lab, "ADD", &of)?;
    let results = replies.iter().map(|reply| reply.document().ok().filter(|_| reply.ok()));
    Ok(of
        .into_iter()
        .zip(results)
        .filter_map(|((container, _), result)| Some((container, result?)))
        .collect())
}

/// Nothing that belongs to one attachment is another's as well: addresses, hardware addresses, interfaces on the host.
fn distinct(lab: &mut Lab, attachments: &[(Container, Value)]) {
    let mut seen = BTreeSet::new();
    for (container, result) in attachments {
        let own = |interface: &&Value| interface["sandbox"] == container.netns;
        let mut things: Vec<String> =
            list(result, "ips").map(|ip| format!("address {}", ip["address"])).collect();
        if lab.profile.kind == Kind::Interface {
            things.extend(
                list(result, "interfaces").filter(own).map(|interface| format!("MAC {}", interface["mac"])),
            );
        }
        if lab.profile.kind == Kind::Loopback {
            things.clear();
        }
        for thing in things {
            lab.check(seen.insert(thing.clone()), None, || {
                format!("{thing} was given to two containers that came side by side")
            });
        }
    }
}

/// All ADDs, then all CHECKs, then all DELs, each side by side, beginning on a host that has nothing yet.
fn add_check_del(lab: &mut Lab) -> Outcome {
    let number = need_several(lab, CROWD)?;
    let containers = crowd(lab, "c", number)?;
    let before = lab.snapshot()?;
    let attachments = add_all(lab, containers)?;
    distinct(lab, &attachments);
    all_true(lab, &attachments, &format!("{number} ADDs side by side"))?;
    if attach::since(&lab.version, "0.4.0") {
        together(lab, "CHECK", &attachments)?;
    }
    together(lab, "DEL", &attachments)?;
    lab.unchanged(&before, &format!("{number} ADDs, then {number} DELs, side by side, left something"))?;
    Ok(())
}

/// One half leaves while another comes: who has come must be whole.
fn add_beside_del(lab: &mut Lab) -> Outcome {
    let half = need_several(lab, CROWD)? / 2;
    let leaving = crowd(lab, "old", half)?;
    let coming = crowd(lab, "new", half)?;
    let before = lab.snapshot()?;
    let leaving = add_all(lab, leaving)?;
    let mut calls: Vec<Call> =
        leaving.iter().map(|(container, result)| attach_call(lab, "DEL", container, result)).collect();
    calls.extend(coming.iter().map(|container| lab.call("ADD", container)));
    let replies = lab.race(&calls)?;
    let mut there = Vec::new();
    all_accepted(lab, &replies, &format!("{half} ADDs beside {half} DELs"));
    for (index, reply) in replies.iter().enumerate() {
        if let (Some(container), Ok(result)) =
            (index.checked_sub(leaving.len()).map(|at| &coming[at]), reply.document())
        {
            there.push((container.clone(), result));
        }
    }
    if attach::since(&lab.version, "0.4.0") {
        together(lab, "CHECK", &there)?;
    }
    together(lab, "DEL", &there)?;
    lab.unchanged(&before, &format!("{half} ADDs beside {half} DELs, and then their DELs, left something"))?;
    Ok(())
}

/// Five interfaces of one container. Default routes, of which there can be one, are not what this is about.
fn interfaces(lab: &mut Lab) -> Outcome {
    const NUMBER: usize = 5;
    let number = need_several(lab, NUMBER)?;
    let container = lab.container("c1")?;
    let mut attachments = Vec::new();
    for index in 0..number {
        let container = container.interface(&format!("eth{index}"));
        lab.beneath(&container)?;
        attachments.push(container);
    }
    if let Some(Value::Object(ipam)) = lab.profile.config.get_mut("ipam") {
        ipam.remove("routes");
    }
    let before = lab.snapshot()?;
    let attachments = add_all(lab, attachments)?;
    distinct(lab, &attachments);
    all_true(lab, &attachments, &format!("{number} ADDs for one container side by side"))?;
    together(lab, "DEL", &attachments)?;
    lab.unchanged(&before, "ADDs and DELs for one container side by side left something")?;
    Ok(())
}

/// Again and again the first ones, at once, on a host that has nothing (or nothing any more).
fn first_use(lab: &mut Lab) -> Outcome {
    const ROUNDS: usize = 3;
    let number = need_several(lab, 4)?;
    let containers = crowd(lab, "c", number)?;
    let before = lab.snapshot()?;
    for _ in 0..ROUNDS {
        let attachments = add_all(lab, containers.clone())?;
        together(lab, "DEL", &attachments)?;
    }
    lab.unchanged(&before, "attachments that came and went side by side left something")?;
    Ok(())
}

/// The only attachment goes while another comes, which needs what the first would take away.
fn last_leaves(lab: &mut Lab) -> Outcome {
    const ROUNDS: usize = 5;
    need_several(lab, 2)?;
    let containers = crowd(lab, "c", 2)?;
    let before = lab.snapshot()?;
    let first = lab.call("ADD", &containers[0]);
    let mut result = lab.must_add(&first)?;
    for round in 0..ROUNDS {
        let (going, coming) = (&containers[round % 2], &containers[(round + 1) % 2]);
        let calls = [attach_call(lab, "DEL", going, &result), lab.call("ADD", coming)];
        let replies = lab.race(&calls)?;
        let [gone, came] = &replies[..] else {
            return Err(Stop::Broken("two calls, other replies".to_owned()));
        };
        lab.accepted(gone, "the DEL of the last attachment, beside the ADD of the next");
        if !lab.accepted(came, "the ADD of an attachment beside the DEL of the last one") {
            return Ok(());
        }
        result = came.document().unwrap_or(Value::Null);
        if attach::since(&lab.version, "0.4.0") {
            let reply = lab.run(&attach_call(lab, "CHECK", coming, &result))?;
            if !lab.accepted(&reply, "the CHECK of an attachment that came while the last one left") {
                return Ok(());
            }
        }
    }
    let last = attach_call(lab, "DEL", &containers[ROUNDS % 2], &result);
    let reply = lab.run(&last)?;
    lab.accepted(&reply, "the last DEL");
    lab.unchanged(&before, "attachments that took turns left something")?;
    Ok(())
}

/// The time that an ADD takes here, and the DEL after it: the shorter of two tries.
fn durations(lab: &mut Lab, container: &Container) -> Outcome<(Duration, Duration)> {
    let mut shortest = (Duration::MAX, Duration::MAX);
    for _ in 0..2 {
        let add = lab.run(&lab.call("ADD", container))?;
        if !add.ok() {
            return Err(Stop::Skip(format!("needs an ADD that works (see ADD-02): {}", add.summary())));
        }
        let result = add.document().unwrap_or(Value::Null);
        let del = lab.run(&attach_call(lab, "DEL", container, &result))?;
        shortest = (shortest.0.min(add.duration), shortest.1.min(del.duration));
    }
    Ok(shortest)
}

/// Moments spread over a duration.
fn moments(duration: Duration, number: u32) -> impl Iterator<Item = Duration> {
    (0..number).map(move |index| duration * (2 * index + 1) / (2 * number))
}

/// ADD is killed at some moment, and at once another container comes: it must not wait for the dead.
fn after_a_kill(lab: &mut Lab) -> Outcome {
    const MOMENTS: u32 = 4;
    let containers = crowd(lab, "c", 2)?;
    let (add, _) = durations(lab, &containers[0])?;
    for moment in moments(add, MOMENTS) {
        let mut call = lab.call("ADD", &containers[0]);
        call.kill_after = Some(moment);
        lab.run(&call)?;
        if at_once(&lab.profile, 2) > 1 {
            let call = lab.call("ADD", &containers[1]).timeout(Duration::from_secs(10));
            let reply = lab.run(&call)?;
            let why = format!(
                "ADD for another container after one was killed {} µs after its start",
                moment.as_micros()
            );
            lab.accepted(&reply, &why);
            lab.run(&lab.call("DEL", &containers[1]))?;
        }
        let reply = lab.run(&lab.call("DEL", &containers[0]).timeout(Duration::from_secs(10)))?;
        lab.accepted(&reply, &format!("DEL after ADD was killed {} µs after its start", moment.as_micros()));
    }
    Ok(())
}

/// Somebody holds every lock file there is, and keeps it. Waiting has an end, and the error says that it may work later.
fn lock_held(lab: &mut Lab) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(45);
    need_several(lab, 2)?;
    let containers = crowd(lab, "c", 2)?;
    let untouched: BTreeSet<PathBuf> = files().into_iter().collect();
    let result = lab.must_add(&lab.call("ADD", &containers[0]))?;
    let mut locks = Vec::new();
    for path in files() {
        if untouched.contains(&path) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            locks.push((path, lock));
        }
    }
    if locks.is_empty() {
        return Err(Stop::Skip("the plugin leaves no file that could be locked".to_owned()));
    }
    let names: Vec<String> = locks.iter().map(|(path, _)| path.display().to_string()).collect();
    for name in &names {
        lab.note(&format!("flock {name} sleep {} &", PATIENCE.as_secs()));
    }
    let reply = lab.run(&lab.call("ADD", &containers[1]).timeout(PATIENCE))?;
    let why = format!("ADD while somebody holds a lock on {}", names.join(", "));
    if reply.timed_out {
        lab.violated(format!("{why}: it did not end within {} s", PATIENCE.as_secs()), Some(&reply));
    } else if !reply.ok() {
        lab.refused(&reply, Some(11), &why);
    }
    drop(locks);
    let reply = lab.run(&lab.call("DEL", &containers[1]))?;
    lab.accepted(&reply, "DEL after the locks were given back");
    let reply = lab.run(&attach_call(lab, "DEL", &containers[0], &result))?;
    lab.accepted(&reply, "DEL of the container that was there before the locks were taken");
    Ok(())
}

/// Every regular file where plugins keep state.
fn files() -> Vec<PathBuf> {
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => below(&entry.path(), found),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    // Of the overlaid trees only what has changed; the path to it is that of the whole tree.
    for (place, name) in world::watched() {
        let mut here = Vec::new();
        below(&place, &mut here);
        found.extend(
            here.iter().filter_map(|path| Some(Path::new(name).join(path.strip_prefix(&place).ok()?))),
        );
    }
    found.retain(|path| !path.starts_with("/run/netns"));
    found
}

/// `verb` is killed at moments spread over its duration; each time DEL must make the host as it was.
fn killed(lab: &mut Lab, verb: &str) -> Outcome {
    const MOMENTS: u32 = 12;
    let containers = crowd(lab, "c", 1)?;
    let container = &containers[0];
    let (add, del) = durations(lab, container)?;
    let before = lab.snapshot()?;
    for moment in moments(if verb == "ADD" { add } else { del }, MOMENTS) {
        let mut call = if verb == "ADD" {
            lab.call("ADD", container)
        } else {
            let result = lab.must_add(&lab.call("ADD", container))?;
            attach_call(lab, "DEL", container, &result)
        };
        call.kill_after = Some(moment);
        lab.run(&call)?;
        let when = format!("DEL after {verb} was killed {} µs after its start", moment.as_micros());
        let reply = lab.run(&lab.call("DEL", container))?;
        lab.accepted(&reply, &when);
        if !clean(lab, &before, &reply, &format!("{when} left something"))? {
            return Ok(());
        }
    }
    Ok(())
}

/// ADD is killed, the container goes, no DEL ever comes: GC must find what there is on the host.
fn killed_then_gc(lab: &mut Lab) -> Outcome {
    const MOMENTS: u32 = 8;
    lab.need_verb("GC")?;
    let first = crowd(lab, "c", 1)?;
    let (add, _) = durations(lab, &first[0])?;
    let nobody = Value::Array(Vec::new());
    for (index, moment) in moments(add, MOMENTS).enumerate() {
        let before = lab.snapshot()?;
        let container = lab.container(&format!("g{index}"))?;
        lab.beneath(&container)?;
        let mut call = lab.call("ADD", &container);
        call.kill_after = Some(moment);
        lab.run(&call)?;
        lab.destroy(&container)?;
        let reply = lab.run(&lab.call_network("GC").edit(|config| {
            config["cni.dev/valid-attachments"] = nobody.clone();
            config["cni.dev/attachments"] = nobody.clone();
        }))?;
        let when = format!("GC after ADD was killed {} µs after its start", moment.as_micros());
        lab.accepted(&reply, &when);
        if !clean(lab, &before, &reply, &format!("{when} left something"))? {
            return Ok(());
        }
    }
    Ok(())
}

/// As [`Lab::unchanged`], with the execution that should have cleaned.
fn clean(lab: &mut Lab, before: &Snapshot, reply: &Reply, why: &str) -> Outcome<bool> {
    let difference = lab.changes(before)?;
    Ok(lab.check(difference.is_empty(), Some(reply), || format!("{why}: {difference}")))
}
