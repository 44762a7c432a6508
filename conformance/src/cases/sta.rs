//! STATUS: ready or not, and nothing else happens.

use std::time::Duration;

use serde_json::json;

use super::life::{DELEGATE, add_delegating, delegate, delegating, fresh};
use super::{ALL, Case, INTERFACE};
use crate::lab::{Act, Call, Lab, Reply};
use crate::profile::{Profile, Unready, merge};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("STA-01", "ready", ALL, ready),
    Case::new("STA-01", "errors-have-a-document", ALL, errors_have_a_document).when(can_be_unready),
    Case::new("STA-02", "codes", ALL, codes).when(|profile| unready_for(profile, "STA-03")),
    Case::new("STA-03", "unready", ALL, |lab| unready(lab, "STA-03"))
        .when(|profile| unready_for(profile, "STA-03")),
    Case::new("STA-04", "delegate-called", INTERFACE, delegate_called).when(|profile| profile.delegates),
    Case::new("STA-04", "delegate-fails", INTERFACE, delegate_fails).when(|profile| profile.delegates),
    Case::new("STA-04", "delegate-missing", INTERFACE, delegate_missing).when(|profile| profile.delegates),
    Case::new("STA-05", "add-without-status", ALL, add_without_status),
    Case::new("STA-05", "add-after-failed-status", ALL, add_after_failed_status),
    Case::new("STA-05", "add-after-unready-delegate", INTERFACE, add_after_unready_delegate)
        .when(|profile| profile.delegates),
    Case::new("STA-06", "bare", ALL, bare),
    Case::new("STA-07", "nothing-changed", ALL, nothing_changed),
    Case::new("STA-07", "quick", ALL, quick),
    Case::new("STA-07", "beside-adds", ALL, beside_adds),
    Case::new("STA-08", "unready", ALL, |lab| unready(lab, "STA-08"))
        .when(|profile| unready_for(profile, "STA-08")),
];

fn can_be_unready(profile: &Profile) -> bool {
    !profile.unready.is_empty() || profile.delegates
}

fn unready_for(profile: &Profile, item: &str) -> bool {
    profile.unready.iter().any(|situation| situation.item == item)
}

/// STATUS as a runtime asks: neither prevResult nor runtimeConfig.
fn status(lab: &Lab) -> Call {
    lab.call_network("STATUS").edit(|config| {
        if let Some(object) = config.as_object_mut() {
            object.remove("runtimeConfig");
        }
    })
}

/// The minimal configuration works here, as the other cases show, so the plugin is ready.
fn ready(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let call = status(lab);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "STATUS of a plugin whose ADD works");
    // With attachments there, it is still so.
    let (container, _) = fresh(lab, "c1")?;
    lab.add(&container)?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "STATUS while a container is attached");
    Ok(())
}

/// Brings a situation of the profile about and asks. The situations of one case must not disturb each other, so each prepares only itself.
fn ask(lab: &mut Lab, situation: &Unready) -> Outcome<Reply> {
    for number in 0..situation.adds {
        let (container, _) = fresh(lab, &format!("u{number}"))?;
        let call = lab.call("ADD", &container).edit(|config| patch(config, situation));
        lab.must_add(&call)?;
    }
    if let Some(command) = &situation.run {
        lab.sh(command)?;
    }
    let call = status(lab).edit(|config| patch(config, situation));
    lab.run(&call)
}

fn patch(config: &mut serde_json::Value, situation: &Unready) {
    if !situation.patch.is_null() {
        merge(config, &situation.patch);
    }
}

fn situations(lab: &Lab, item: &str) -> Vec<Unready> {
    lab.profile.unready.iter().filter(|situation| situation.item == item).cloned().collect()
}

/// Whenever it says that it is not ready, it says so as the protocol asks.
fn errors_have_a_document(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let mut failed = 0;
    let mut look = |lab: &mut Lab, reply: &Reply, why: &str| {
        if !reply.ok() {
            failed += 1;
            lab.refused(reply, None, &format!("STATUS ({why})"));
        }
    };
    for situation in lab.profile.unready.clone() {
        let reply = ask(lab, &situation)?;
        look(lab, &reply, &situation.why);
    }
    if lab.profile.delegates {
        delegate(lab, "STATUS", Act::error(50, "no addresses left"))?;
        let call = delegating(status(lab));
        let reply = lab.run(&call)?;
        look(lab, &reply, "the delegate is not ready");
    }
    if failed == 0 {
        return Err(Stop::Skip(
            "STATUS never said that it is not ready (see STA-03, STA-04, STA-08)".to_owned(),
        ));
    }
    Ok(())
}

/// A plugin that knows that ADD would fail says so.
fn unready(lab: &mut Lab, item: &str) -> Outcome {
    lab.need_verb("STATUS")?;
    for situation in situations(lab, item) {
        let reply = ask(lab, &situation)?;
        lab.refused(&reply, None, &format!("STATUS ({})", situation.why));
    }
    Ok(())
}

/// 50 and 51 are there for what may be better later.
fn codes(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let mut failed = 0;
    for situation in situations(lab, "STA-03") {
        let reply = ask(lab, &situation)?;
        if let Some(code) = reply.code().filter(|_| reply.failed()) {
            failed += 1;
            lab.check(matches!(code, 50 | 51), Some(&reply), || {
                format!("STATUS ({}): code {code} instead of 50 or 51: {:?}", situation.why, reply.message())
            });
        }
    }
    if failed == 0 {
        return Err(Stop::Skip("STATUS never said that it is not ready (see STA-03)".to_owned()));
    }
    Ok(())
}

/// The delegate hears of STATUS, with the same configuration.
fn delegate_called(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    delegate(lab, "STATUS", Act::default())?;
    let call = delegating(status(lab));
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "STATUS whose delegate is ready");
    let seen = lab.seen(DELEGATE);
    let Some(seen) = seen.iter().find(|seen| seen.verb == "STATUS") else {
        lab.violated("STATUS did not execute its delegate", Some(&reply));
        return Ok(());
    };
    lab.check(Some(seen.config()) == call.read_config(), Some(&reply), || {
        format!("the delegate's STATUS did not get the configuration that was given: {}", seen.stdin)
    });
    Ok(())
}

/// The delegate is not ready.
fn delegate_fails(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    for code in [50, 51] {
        delegate(lab, "STATUS", Act::error(code, "no addresses left"))?;
        let call = delegating(status(lab));
        let reply = lab.run(&call)?;
        if !reply.failed() {
            // The execution is a must, the error a should.
            lab.warn(
                format!("STATUS whose delegate says {code}: expected an error, got {}", reply.summary()),
                Some(&reply),
            );
        } else if reply.code() != Some(code) {
            lab.inform(format!("STATUS whose delegate says {code}: {}", reply.summary()), Some(&reply));
        }
    }
    Ok(())
}

/// The delegate's program is not installed: no ADD can work.
fn delegate_missing(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let call = status(lab).edit(|config| config["ipam"] = json!({ "type": "cnf-not-installed" }));
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "STATUS whose delegate is not installed");
    Ok(())
}

/// Nobody ever asked for STATUS.
fn add_without_status(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let (container, _) = fresh(lab, "c1")?;
    let call = lab.call("ADD", &container);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD without STATUS before");
    let reply = lab.run(&call.verb("DEL"))?;
    lab.accepted(&reply, "DEL without STATUS before");
    Ok(())
}

/// STATUS failed, for a reason that no longer holds.
fn add_after_failed_status(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let call = status(lab);
    lab.run(&call.clone().edit(|config| config["cniVersion"] = json!("9.9.9")))?;
    lab.run(&call.bytes("not a configuration"))?;
    let (container, _) = fresh(lab, "c1")?;
    let call = lab.call("ADD", &container);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD after a STATUS that failed");
    let reply = lab.run(&call.verb("DEL"))?;
    lab.accepted(&reply, "DEL after a STATUS that failed");
    Ok(())
}

/// The delegate still says that it is not ready, and serves ADD all the same.
fn add_after_unready_delegate(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    delegate(lab, "STATUS", Act::error(50, "not ready"))?;
    let call = delegating(status(lab));
    lab.run(&call)?;
    let (container, _) = fresh(lab, "c1")?;
    let call = delegating(lab.call("ADD", &container));
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD after a STATUS whose delegate was not ready");
    add_delegating(lab, &container.interface("eth1"))?;
    let reply = lab.run(&call.verb("DEL"))?;
    lab.accepted(&reply, "DEL after a STATUS whose delegate was not ready");
    Ok(())
}

/// Only the verb, the path of plugins, and a configuration.
fn bare(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let call = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
        .into_iter()
        .fold(status(lab), Call::without);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "STATUS with only CNI_COMMAND and CNI_PATH");
    Ok(())
}

/// Asking is not touching, and there is nothing to print.
fn nothing_changed(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let call = status(lab);
    let ask = |lab: &mut Lab, why: &str| -> Outcome {
        let before = lab.snapshot()?;
        let reply = lab.run(&call)?;
        let difference = lab.all_changes(&before)?;
        lab.check(difference.is_empty(), Some(&reply), || {
            format!("STATUS {why} changed something: {difference}")
        });
        lab.check(!reply.ok() || reply.stdout.is_empty(), Some(&reply), || {
            format!("STATUS {why} succeeded and printed something: {:?}", reply.text())
        });
        Ok(())
    };
    ask(lab, "on a fresh host")?;
    let (container, _) = fresh(lab, "c1")?;
    lab.add(&container)?;
    ask(lab, "beside an attachment")
}

/// The best of several, so that a busy machine is not blamed on the plugin.
fn quick(lab: &mut Lab) -> Outcome {
    const TIMES: usize = 5;
    const LIMIT: Duration = Duration::from_millis(100);
    lab.need_verb("STATUS")?;
    let call = status(lab);
    let mut best: Option<Reply> = None;
    for _ in 0..TIMES {
        let reply = lab.run(&call)?;
        let quicker = best.as_ref().is_none_or(|best| reply.duration < best.duration);
        if quicker {
            best = Some(reply);
        }
        if best.as_ref().is_some_and(|best| best.duration < LIMIT) {
            return Ok(());
        }
    }
    if let Some(best) = best {
        lab.violated(
            format!("the quickest of {TIMES} calls of STATUS took {} ms", best.duration.as_millis()),
            Some(&best),
        );
    }
    Ok(())
}

/// STATUS and ADD side by side.
fn beside_adds(lab: &mut Lab) -> Outcome {
    lab.need_verb("STATUS")?;
    let mut calls = Vec::new();
    for name in ["c1", "c2"] {
        let (container, _) = fresh(lab, name)?;
        calls.extend([status(lab), lab.call("ADD", &container), status(lab)]);
    }
    for (call, reply) in calls.iter().zip(lab.race(&calls)?) {
        let verb = call.environment.get("CNI_COMMAND").cloned().unwrap_or_default();
        lab.accepted(&reply, &format!("{verb}, while STATUS and ADD run side by side"));
    }
    Ok(())
}
