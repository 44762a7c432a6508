//! How a failure is told: the status, the document, the code, the words.

mod failures;

use std::time::Duration;

use serde_json::{Value, json};

use self::failures::{Failed, all, plain};
use super::protocol::{call, ready, verbs};
use super::{ALL, Case};
use crate::lab::{Act, Call, Lab, Reply};
use crate::profile::Profile;
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ERR-01", "status-tells", ALL, status_tells),
    Case::new("ERR-02", "error-object", ALL, error_object),
    Case::new("ERR-03", "codes-of-the-table", ALL, codes_of_the_table),
    Case::new("ERR-03", "reserved-codes", ALL, reserved_codes),
    Case::new("ERR-04", "code-3-and-something-left", ALL, code_3),
    Case::new("ERR-05", "delegate-is-busy", ALL, delegate_is_busy).when(super::protocol::delegates),
    Case::new("ERR-05", "lock-is-held", ALL, lock_is_held).when(|profile| lock(profile).is_some()),
    Case::new("ERR-06", "one-document", ALL, one_document),
    Case::new("ERR-07", "no-trace", ALL, sentences),
    Case::new("ERR-07", "no-secrets", ALL, no_secrets),
    Case::new("ERR-07", "nobody-reads", ALL, nobody_reads),
    Case::new("ERR-08", "codes-of-its-own", ALL, codes_of_its_own),
];

fn status_tells(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let reply = lab.run(&call(lab, verb, &container, &result))?;
        let document = reply.document().unwrap_or_default();
        let is_error = document.get("code").is_some();
        lab.check(!(reply.ok() && is_error), Some(&reply), || {
            format!("{verb}: status 0 with an error on standard output: {}", reply.text())
        });
        lab.check(reply.ok() || is_error || document.is_null(), Some(&reply), || {
            format!("{verb}: {} with a result on standard output", reply.summary())
        });
        lab.check(reply.signal.is_none(), Some(&reply), || format!("{verb}: {}", reply.summary()));
        if verb == "ADD" && reply.ok() {
            result = document;
        }
    }
    for Failed { why, reply, code } in all(lab, &container)? {
        let document = reply.document();
        let is_error = document.as_ref().is_ok_and(|document| document.get("code").is_some());
        // What is wrong in the configuration may be fine with this plugin: then it must have done what was asked.
        let done = code.is_none() && reply.ok() && document.is_ok() && !is_error;
        lab.check(reply.failed() || done, Some(&reply), || {
            format!("{why}: expected a status that is not 0, got {}", reply.summary())
        });
    }
    Ok(())
}

/// One message for all that lack the same thing.
fn gather(lab: &mut Lab, found: &[(String, Reply)], what: &str, warn: bool) {
    let Some((first, reply)) = found.first() else { return };
    let more = if found.len() > 1 { format!(", and in {} more", found.len() - 1) } else { String::new() };
    let message = format!("{what}: {first}{more}: {}", reply.summary());
    if warn {
        lab.warn(message, Some(reply));
    } else {
        lab.violated(message, Some(reply));
    }
}

fn error_object(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let (mut no_version, mut malformed) = (Vec::new(), Vec::new());
    for Failed { why, reply, .. } in all(lab, &container)? {
        if reply.ok() {
            continue;
        }
        let Ok(document) = reply.document() else {
            let on_stderr = reply.stdout.is_empty() && reply.errors().contains("\"code\"");
            let place = if on_stderr { ", it is on standard error" } else { "" };
            lab.violated(
                format!("{why}: no error object on standard output{place}: {}", reply.summary()),
                Some(&reply),
            );
            continue;
        };
        let text = |key: &str| document[key].as_str().is_some_and(|text| !text.is_empty());
        let details = document.get("details").is_none_or(Value::is_string);
        if document["code"].as_u64().is_none_or(|code| code == 0) || !text("msg") || !details {
            malformed.push((why, reply));
        } else if !text("cniVersion") {
            no_version.push((why, reply));
        }
    }
    gather(
        lab,
        &malformed,
        "an error object without a code of 1 or more, without a msg, or with details that are no text",
        false,
    );
    // No library of the reference's writes it, which the specification asks for all the same.
    gather(lab, &no_version, "an error object without cniVersion", true);
    Ok(())
}

/// The rows whose code leaves no choice.
fn codes_of_the_table(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for Failed { why, reply, code } in plain(lab, &container)? {
        if let Some(code) = code {
            lab.refused(&reply, Some(code), &why);
        }
    }
    Ok(())
}

/// 1 to 99 are the specification's, and it has given out these.
fn is_given(code: i64) -> bool {
    matches!(code, 1..=7 | 11 | 50 | 51 | 100..)
}

fn reserved_codes(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut failed = all(lab, &container)?;
    failed.push(failures::own_namespace(lab, &container)?);
    for Failed { why, reply, .. } in failed {
        match reply.code() {
            // The libraries of the reference use 8 for the namespace, and 0 where a delegate gave no code.
            Some(code @ (0 | 8)) => lab
                .warn(format!("{why}: code {code}, which is reserved: {:?}", reply.message()), Some(&reply)),
            Some(code) if !is_given(code) => {
                lab.violated(
                    format!("{why}: code {code}, which is reserved: {:?}", reply.message()),
                    Some(&reply),
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Code 3 tells the runtime that it need not call DEL.
fn code_3(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let empty = lab.snapshot()?;
    let absolves = |lab: &mut Lab, why: &str, reply: &Reply| -> Outcome {
        if reply.code() == Some(3) {
            lab.unchanged(
                &empty,
                &format!("{why} is answered with code 3, and there is something to clean up"),
            )?;
        }
        Ok(())
    };
    for Failed { why, reply, .. } in all(lab, &container)? {
        absolves(lab, &why, &reply)?;
    }
    let result = lab.add(&container)?;
    let mut calls: Vec<(&str, Call)> = vec![
        ("a second ADD", lab.call("ADD", &container)),
        (
            "DEL in a version that is not supported",
            call(lab, "DEL", &container, &result).edit(|config| config["cniVersion"] = json!("9.9.9")),
        ),
        ("DEL with a prevResult that is none", call(lab, "DEL", &container, &json!("none"))),
    ];
    if verbs(lab).contains(&"CHECK") {
        calls.push((
            "CHECK without prevResult",
            call(lab, "CHECK", &container, &result).previous(&Value::Null),
        ));
        calls.push(("CHECK with a prevResult that is none", call(lab, "CHECK", &container, &json!("none"))));
    }
    for (why, call) in calls {
        let reply = lab.run(&call)?;
        absolves(lab, why, &reply)?;
    }
    Ok(())
}

/// What a delegate says of a passing condition is true of the whole plugin.
fn delegate_is_busy(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let script = [("ADD".to_owned(), Act::error(11, "the server is starting"))].into();
    lab.stub("cnf-busy", &script)?;
    let call = lab.call("ADD", &container).edit(|config| config["ipam"] = json!({ "type": "cnf-busy" }));
    let reply = lab.run(&call)?;
    lab.refused(&reply, Some(11), "ADD where the delegate says that it should be tried again later");
    Ok(())
}

/// The fact `lock`: a file that the plugin takes with flock(2) while it works on its state.
fn lock(profile: &Profile) -> Option<&str> {
    profile.facts.get("lock").and_then(Value::as_str)
}

/// Somebody else has the lock and does not let go: the answer comes at some time, and says that it is worth another try.
/// The fact `impatient` has variables that make the plugin less patient.
fn lock_is_held(lab: &mut Lab) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(35);
    let container = ready(lab, "c1")?;
    let file = lock(&lab.profile).unwrap_or_default().to_owned();
    lab.sh(&format!("mkdir -p \"$(dirname {file})\" && : >>{file}"))?;
    lab.start(&format!("exec flock --no-fork {file} sleep 60"))?;
    lab.sh(&format!("for i in $(seq 200); do flock -n {file} true || exit 0; sleep 0.01; done; exit 1"))?;
    let mut call = lab.call("ADD", &container).timeout(PATIENCE);
    let variables = lab.profile.facts.get("impatient").and_then(Value::as_object).cloned();
    for (name, value) in variables.unwrap_or_default() {
        call = call.env(&name, value.as_str().unwrap_or_default());
    }
    let reply = lab.run(&call)?;
    if reply.timed_out {
        lab.violated(
            format!("ADD while somebody else has {file} locked: no answer within {} s", PATIENCE.as_secs()),
            Some(&reply),
        );
    } else {
        lab.refused(&reply, Some(11), &format!("ADD while somebody else has {file} locked"));
    }
    Ok(())
}

fn one_document(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut replies: Vec<(String, Reply)> = Vec::new();
    for Failed { why, reply, .. } in all(lab, &container)? {
        replies.push((why, reply));
    }
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let reply = lab.run(&call(lab, verb, &container, &result))?;
        if verb == "ADD" && reply.ok() {
            result = reply.document().unwrap_or_default();
        }
        replies.push((verb.to_owned(), reply));
    }
    let Failed { why, reply, .. } = failures::own_namespace(lab, &container)?;
    replies.push((why, reply));
    for (why, reply) in replies {
        if reply.stdout.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if let Err(problem) = reply.document() {
            lab.violated(format!("{why}: {problem}"), Some(&reply));
        }
    }
    Ok(())
}

/// What the run-time systems of languages print when a program breaks.
pub(super) fn no_trace(lab: &mut Lab, reply: &Reply, why: &str) {
    let said = format!("{}{}", reply.text(), reply.errors());
    for trace in [
        "panicked at",
        "goroutine ",
        "stack backtrace",
        "Traceback (most recent call last)",
        "at java.",
        "core dumped",
    ] {
        lab.check(!said.contains(trace), Some(reply), || {
            format!("{why}: it broke down: {:?}", excerpt(&said, trace))
        });
    }
    lab.check(reply.signal.is_none() || reply.timed_out, Some(reply), || {
        format!("{why}: {}", reply.summary())
    });
}

fn excerpt(text: &str, around: &str) -> String {
    let at = text.find(around).unwrap_or_default();
    text[at..].chars().take(200).collect()
}

fn sentences(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for Failed { why, reply, .. } in all(lab, &container)? {
        no_trace(lab, &reply, &why);
        let message = reply.document().unwrap_or_default()["msg"].as_str().unwrap_or_default().to_owned();
        lab.check(!message.trim_end().contains('\n'), Some(&reply), || {
            format!("{why}: msg has several lines: {message:?}")
        });
    }
    Ok(())
}

/// A configuration and the environment may have what is nobody else's business; an error about something else must not repeat it.
fn no_secrets(lab: &mut Lab) -> Outcome {
    const SECRET: &str = "hunter2-cnf";
    let container = ready(lab, "c1")?;
    let secret = |call: Call| {
        call.env("CNI_ARGS", format!("IgnoreUnknown=1;TOKEN={SECRET}")).env("API_TOKEN", SECRET).edit(
            |config| {
                config["args"] = json!({ "org.example.token": SECRET });
                config["org.example.password"] = json!(SECRET);
            },
        )
    };
    let good = secret(lab.call("ADD", &container));
    let calls = [
        ("an unknown verb", good.clone().verb("NOPE")),
        ("no container", good.clone().without("CNI_CONTAINERID")),
        ("no network name", good.clone().edit(|config| config["name"] = json!(""))),
        (
            "a version that is not supported",
            good.clone().edit(|config| config["cniVersion"] = json!("9.9.9")),
        ),
        ("a namespace that does not exist", good.clone().env("CNI_NETNS", "/run/netns/absent")),
    ];
    for (what, call) in calls {
        let reply = lab.run(&call)?;
        let said = format!("{}{}", reply.text(), reply.errors());
        lab.check(!said.contains(SECRET), Some(&reply), || {
            format!("ADD with {what}: the error repeats what is none of its business")
        });
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
        }
    }
    Ok(())
}

/// A runtime that was killed has left a pipe that nobody reads.
fn nobody_reads(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for (what, call) in
        [("an error", lab.call("ADD", &container).verb("NOPE")), ("a result", lab.call("ADD", &container))]
    {
        let mut call = call;
        call.close_stdout = true;
        let reply = lab.run(&call)?;
        no_trace(lab, &reply, &format!("{what} that nobody reads"));
        lab.check(reply.status != Some(0), Some(&reply), || {
            format!("{what} could not be written, and the status is 0")
        });
    }
    let reply = lab.run(&lab.call("DEL", &container))?;
    lab.accepted(&reply, "DEL after an ADD whose result nobody read");
    Ok(())
}

fn codes_of_its_own(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for Failed { why, reply, .. } in failures::of_the_system(lab, &container)? {
        let code = reply.code();
        // 50 and 51 are what STATUS says of the plugin, not what an operation says of itself.
        let fits = code.is_some_and(|code| is_given(code) && !matches!(code, 50 | 51));
        lab.check(fits, Some(&reply), || {
            format!("{why}: a failure of the system has code {code:?}, which is neither the table's nor the plugin's own")
        });
    }
    Ok(())
}
