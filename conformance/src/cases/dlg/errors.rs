//! Delegates that fail, and plugins that fail after their delegate.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DELEGATE, answer, call, delegated, good, grants, since};
use crate::lab::{Act, Container, Lab, in_version, parse_version, world};
use crate::verdict::{Outcome, Stop};

/// A delegate's error, verb by verb.
pub(super) fn codes(lab: &mut Lab) -> Outcome {
    const MESSAGE: &str = "cnf has no address today";
    let container = lab.container("c1")?;
    let script = good(lab);
    lab.stub(DELEGATE, &script)?;
    let result = lab.must_add(&call(lab, "ADD", &container))?;
    for verb in ["CHECK", "STATUS", "GC", "DEL"] {
        if parse_version(&lab.version) >= parse_version(since(verb)) {
            lab.stub(DELEGATE, &[(verb.to_owned(), Act::error(123, MESSAGE))].into())?;
            passes_on(lab, verb, &container, &result, 123, MESSAGE)?;
        }
    }
    for code in [123, 11] {
        let container = lab.container(&format!("add{code}"))?;
        lab.stub(DELEGATE, &[("ADD".to_owned(), Act::error(code, MESSAGE))].into())?;
        passes_on(lab, "ADD", &container, &Value::Null, code, MESSAGE)?;
    }
    Ok(())
}

fn passes_on(
    lab: &mut Lab,
    verb: &str,
    container: &Container,
    result: &Value,
    code: i64,
    message: &str,
) -> Outcome {
    lab.forget(DELEGATE);
    let mut call = call(lab, verb, container);
    if verb == "GC" {
        let valid = json!([{ "containerID": container.id, "ifname": container.ifname }]);
        call = call.edit(|config| config["cni.dev/valid-attachments"] = valid);
    } else if verb != "STATUS" {
        call = call.previous(result);
    }
    let reply = lab.run(&call)?;
    if lab.seen(DELEGATE).is_empty() {
        lab.note(&format!("{verb} did not reach the delegate, which is DLG-05's concern"));
        return Ok(());
    }
    let why = format!("{verb} where the delegate failed with code {code} and {message:?}");
    if lab.refused(&reply, Some(code), &why) {
        let said = reply.message();
        lab.check(said.contains(message), Some(&reply), || format!("{why}: the message is {said:?}"));
    }
    Ok(())
}

/// ADD, then DEL; and the error is that of ADD even if DEL fails as well. The same for a delegate that does not live to say anything.
pub(super) fn taken_back(lab: &mut Lab) -> Outcome {
    let ends = [
        ("failed with code 123", Act::error(123, "cnf: the first error"), Some(123)),
        ("was killed", Act { crash: true, ..Act::default() }, None),
    ];
    for (index, (what, act, code)) in ends.into_iter().enumerate() {
        let container = lab.container(&format!("c{index}"))?;
        lab.forget(DELEGATE);
        let script = [("ADD".to_owned(), act), ("DEL".to_owned(), Act::error(124, "cnf: the second error"))];
        lab.stub(DELEGATE, &script.into())?;
        let reply = lab.run(&call(lab, "ADD", &container))?;
        lab.refused(&reply, code, &format!("ADD whose delegate {what}, and whose DEL failed with code 124"));
        // A DEL that failed may be tried again.
        let verbs = lab.verbs_seen(DELEGATE);
        let expected = verbs.len() > 1 && verbs[0] == "ADD" && verbs[1..].iter().all(|verb| verb == "DEL");
        lab.check(expected, Some(&reply), || {
            format!("a delegate whose ADD {what} was to see ADD and DEL; it saw {verbs:?}")
        });
    }
    Ok(())
}

/// The delegate gives a route through a gateway that nobody can reach, which the kernel refuses.
pub(super) fn route_refused(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let mut result = answer();
    result["routes"] = json!([{ "dst": "192.0.2.0/24", "gw": "203.0.113.9" }]);
    let result = in_version(&result, &lab.version);
    lab.stub(DELEGATE, &grants(&result))?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    if reply.ok() {
        return Err(Stop::Skip("a route that the kernel refuses does not make this plugin fail".to_owned()));
    }
    let verbs = lab.verbs_seen(DELEGATE);
    lab.check(verbs == ["ADD", "DEL"], Some(&reply), || {
        format!(
            "ADD failed ({}) after its delegate gave an address; the delegate was to see ADD and DEL and saw {verbs:?}",
            reply.summary()
        )
    });
    Ok(())
}

/// While the delegate works, somebody else makes an interface of that name.
pub(super) fn interface_taken(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let mut script = good(lab);
    if let Some(act) = script.get_mut("ADD") {
        act.run = format!("ip -n {} link add {} type bridge 2>&-", container.name, container.ifname);
    }
    lab.stub(DELEGATE, &script)?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    let kind = lab.view(&container)?.link(&container.ifname).map(|link| link.kind.clone());
    if kind.as_deref() != Some("bridge") {
        return Err(Stop::Skip(
            "the plugin had made its interface before it asked for an address".to_owned(),
        ));
    }
    lab.refused(&reply, None, "ADD while somebody else made an interface called CNI_IFNAME");
    let verbs = lab.verbs_seen(DELEGATE);
    lab.check(verbs == ["ADD", "DEL"], Some(&reply), || {
        format!(
            "the delegate gave an address that cannot be used; it was to see ADD and DEL and saw {verbs:?}"
        )
    });
    Ok(())
}

/// No such plugin anywhere: nothing may be left, and the same ADD must work as soon as there is one.
pub(super) fn absent(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    lab.refused(&reply, None, "ADD whose ipam.type is nowhere in CNI_PATH");
    lab.unchanged(&before, "ADD whose ipam.type is nowhere in CNI_PATH left something")?;
    let script = good(lab);
    lab.stub(DELEGATE, &script)?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    lab.accepted(&reply, "the same ADD, without a DEL between, when the delegate had been installed");
    if lab.need_verb("STATUS").is_ok() {
        lab.sh(&format!("rm {}", world::stubs().join(DELEGATE).display()))?;
        let reply = lab.run(&call(lab, "STATUS", &container))?;
        lab.refused(&reply, None, "STATUS whose ipam.type is nowhere in CNI_PATH");
    }
    Ok(())
}

/// A file of the right name that is no program.
pub(super) fn not_executable(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.sh(&format!("echo nothing >{}", world::stubs().join(DELEGATE).display()))?;
    let before = lab.snapshot()?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    lab.refused(&reply, None, "ADD whose delegate is a file that cannot be executed");
    lab.unchanged(&before, "ADD whose delegate is a file that cannot be executed left something")?;
    Ok(())
}

/// Answers that are none.
pub(super) fn senseless(lab: &mut Lab) -> Outcome {
    let result = in_version(&answer(), &lab.version).to_string();
    let error = json!({ "cniVersion": lab.version, "code": 123, "msg": "cnf: no" }).to_string();
    let say = |stdout: &str, status| Act { stdout: stdout.to_owned(), status, ..Act::default() };
    let rows = [
        ("is killed", Act { crash: true, ..Act::default() }),
        (
            "is killed in the middle of its result",
            Act { stdout: result[..40].to_owned(), crash: true, ..Act::default() },
        ),
        ("prints nothing", say("", 0)),
        ("prints nothing and fails", say("", 1)),
        ("prints what is not JSON", say("cnf: all is well\n", 0)),
        ("prints what is not JSON and fails", say("cnf: nothing is well\n", 1)),
        ("prints a list", say("[]", 0)),
        ("prints an address that is none", say(&result.replace("10.66.0.5/24", "10.66.0.500"), 0)),
        ("prints an error and exits with 0", say(&error, 0)),
        ("prints a result and exits with 1", say(&result, 1)),
        ("prints a result and then an error", say(&format!("{result}{error}"), 1)),
    ];
    for (index, (what, act)) in rows.into_iter().enumerate() {
        lab.stub(DELEGATE, &[("ADD".to_owned(), act)].into())?;
        withstands(lab, &format!("c{index}"), what)?;
    }
    Ok(())
}

/// 10 MiB of output.
pub(super) fn flood(lab: &mut Lab) -> Outcome {
    let act = Act { stdout: "x".repeat(1024), again: 10 * 1024, ..Act::default() };
    lab.stub(DELEGATE, &[("ADD".to_owned(), act)].into())?;
    withstands(lab, "c1", "prints 10 MiB")
}

/// ADD with the delegate as it is scripted: one clear error, nothing left.
fn withstands(lab: &mut Lab, name: &str, what: &str) -> Outcome {
    let container = lab.container(name)?;
    let before = lab.snapshot()?;
    let add = call(lab, "ADD", &container);
    let reply = lab.run(&add)?;
    if lab.refused(&reply, None, &format!("ADD whose delegate {what}")) {
        lab.check(reply.code().is_some_and(|code| code > 0), Some(&reply), || {
            format!("ADD whose delegate {what}: {} is no error code", reply.code().unwrap_or_default())
        });
    }
    lab.unchanged(&before, &format!("after ADD whose delegate {what}"))?;
    let reply = lab.run(&call(lab, "DEL", &container))?;
    lab.accepted(&reply, &format!("DEL after ADD whose delegate {what}"));
    Ok(())
}

/// The delegate answers and leaves a child with its standard output, as one that starts a daemon may: the answer counts.
pub(super) fn child_left_running(lab: &mut Lab) -> Outcome {
    let mut script = good(lab);
    if let Some(act) = script.get_mut("ADD") {
        "sleep 600 &".clone_into(&mut act.run);
    }
    lab.stub(DELEGATE, &script)?;
    let container = lab.container("c1")?;
    let call = call(lab, "ADD", &container).timeout(Duration::from_secs(5));
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD whose delegate answered and left a child with its standard output");
    Ok(())
}

/// The delegate never answers. How a plugin is told to be impatient is its own affair: fact `impatient`, variables for it.
pub(super) fn hangs(lab: &mut Lab) -> Outcome {
    lab.stub(DELEGATE, &[("ADD".to_owned(), Act { sleep: 3_600_000, ..Act::default() })].into())?;
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let mut call = lab.call("ADD", &container).config(&delegated(lab)).timeout(Duration::from_secs(10));
    let variables =
        lab.profile.facts.get("impatient").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in &variables {
        call = call.env(name, value.as_str().unwrap_or_default());
    }
    let reply = lab.run(&call)?;
    if reply.timed_out {
        lab.violated(
            "a delegate that never answers keeps the plugin for ever, or longer than 10 s",
            Some(&reply),
        );
        return Ok(());
    }
    lab.refused(&reply, None, "ADD whose delegate never answers");
    lab.check(reply.left_running == 0, Some(&reply), || {
        format!("the plugin gave up and left {} processes running", reply.left_running)
    });
    lab.unchanged(&before, "after ADD whose delegate never answers")?;
    Ok(())
}

/// The runtime loses patience and kills the plugin: DEL must find everything.
pub(super) fn killed_while_it_hangs(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    lab.stub(DELEGATE, &[("ADD".to_owned(), Act { sleep: 3_600_000, ..Act::default() })].into())?;
    // On a busy host a plugin may not have come to its delegate by then; a DEL has nothing to tell a delegate that was not asked.
    for patience in [500, 2_000, 8_000] {
        let mut add = call(lab, "ADD", &container);
        add.kill_after = Some(Duration::from_millis(patience));
        lab.run(&add)?;
        if !lab.verbs_seen(DELEGATE).is_empty() {
            break;
        }
        lab.note("killed before it had come to its delegate; once more, with more time");
        lab.run(&call(lab, "DEL", &container))?;
    }
    lab.forget(DELEGATE);
    let reply = lab.run(&call(lab, "DEL", &container))?;
    lab.accepted(&reply, "DEL after ADD was killed while its delegate was at work");
    let verbs = lab.verbs_seen(DELEGATE);
    lab.check(verbs.iter().any(|verb| verb == "DEL"), Some(&reply), || {
        format!("DEL after ADD was killed while its delegate was at work was to reach the delegate; it saw {verbs:?}")
    });
    lab.unchanged(&before, "DEL after ADD was killed while its delegate was at work left something")?;
    Ok(())
}
