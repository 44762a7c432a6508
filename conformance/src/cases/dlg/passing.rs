//! What a delegate is given, and what becomes of its answer.

use std::path::Path;

use serde_json::{Value, json};

use super::{DELEGATE, answer, call, delegated, good, grants, life};
use crate::lab::{Act, Lab, Stdin, in_version, stub};
use crate::verdict::{Outcome, Stop};

/// Two directories that both have the delegate, one only, one that does not exist.
pub(super) fn search_path(lab: &mut Lab) -> Outcome {
    let [first, second] = ["/tmp/first", "/tmp/second"].map(Path::new);
    let script = good(lab);
    let rest = "/tmp/absent";
    lab.stub_in(second, DELEGATE, &script)?;
    in_the_directory(
        lab,
        "c1",
        &format!("{rest}:/tmp/first:/tmp/second"),
        second,
        "only the third directory has it",
    )?;
    lab.stub_in(first, DELEGATE, &script)?;
    in_the_directory(lab, "c2", "/tmp/first:/tmp/second", first, "both directories have it")?;
    in_the_directory(
        lab,
        "c3",
        "/tmp/second:/tmp/first",
        second,
        "both directories have it, the other way round",
    )
}

/// A directory of the delegate's name comes first: it is no plugin.
pub(super) fn what_is_no_file(lab: &mut Lab) -> Outcome {
    let script = good(lab);
    lab.stub_in(Path::new("/tmp/second"), DELEGATE, &script)?;
    lab.sh(&format!("mkdir -p /tmp/first/{DELEGATE}"))?;
    let why = "the first directory has a directory of that name";
    in_the_directory(lab, "c1", "/tmp/first:/tmp/second", Path::new("/tmp/second"), why)
}

/// ADD with this path executes the delegate of `wanted`, once, and no other.
fn in_the_directory(lab: &mut Lab, name: &str, path: &str, wanted: &Path, why: &str) -> Outcome {
    let directories = ["/tmp/first", "/tmp/second"].map(Path::new);
    for directory in directories {
        stub::forget(&directory.join(DELEGATE));
    }
    let container = lab.container(name)?;
    let call = call(lab, "ADD", &container).env("CNI_PATH", path);
    let reply = lab.run(&call)?;
    if lab.accepted(&reply, &format!("ADD with CNI_PATH={path}, where {why}")) {
        for directory in directories {
            let number = stub::seen(&directory.join(DELEGATE)).len();
            lab.check((number == 1) == (directory == wanted), Some(&reply), || {
                format!(
                    "CNI_PATH={path}, where {why}: the delegate of {} was executed {number} times",
                    directory.display()
                )
            });
        }
    }
    Ok(())
}

/// Every CNI_ variable in every verb, also one that nobody knows; the rest of the environment as the reference implementation does it.
pub(super) fn environment(lab: &mut Lab) -> Outcome {
    let stages = life(lab, |call| {
        call.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a b")
            .env("CNI_NETNS_OVERRIDE", "0")
            .env("CNI_CNF_FUTURE", "kept")
            .env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    })?;
    for stage in stages {
        for seen in &stage.seen {
            lab.check(seen.verb == stage.verb, Some(&stage.reply), || {
                format!("{}: the delegate was called with CNI_COMMAND={:?}", stage.verb, seen.verb)
            });
            for (name, value) in &stage.call.environment {
                let got = seen.environment.get(name);
                if name == "CNI_COMMAND" || got == Some(value) {
                    continue;
                }
                let message = format!(
                    "{}: {name} is {value:?} for the plugin and {got:?} for its delegate",
                    stage.verb
                );
                if name.starts_with("CNI_") {
                    lab.violated(message, Some(&stage.reply));
                } else {
                    lab.inform(message, Some(&stage.reply));
                }
            }
        }
    }
    Ok(())
}

/// The whole document, also what neither of the two knows.
pub(super) fn configuration(lab: &mut Lab) -> Outcome {
    let stages = life(lab, |call| {
        call.edit(|config| {
            config["cnf-unknown"] =
                json!({ "number": 9_007_199_254_740_993_u64, "text": "\u{e9}\u{2028}", "list": [1, null] });
            config["ipam"]["cnf-own"] = json!({ "key": [{}] });
        })
    })?;
    for stage in stages {
        let given = stage.call.read_config().unwrap_or(Value::Null);
        for seen in &stage.seen {
            let got = seen.config();
            let same = lab.check(got == given, Some(&stage.reply), || {
                format!(
                    "{}: the delegate was given another configuration: {}",
                    stage.verb,
                    differing(&given, &got)
                )
            });
            if same && !matches!(&stage.call.stdin, Stdin::Bytes(bytes) if bytes == seen.stdin.as_bytes()) {
                lab.inform(
                    format!("{}: the delegate's configuration is the same, but not byte by byte", stage.verb),
                    Some(&stage.reply),
                );
            }
        }
    }
    Ok(())
}

/// Which keys two documents disagree in.
fn differing(given: &Value, got: &Value) -> String {
    let (Some(given), Some(got)) = (given.as_object(), got.as_object()) else {
        return format!("it is {got}");
    };
    let mut keys: Vec<String> = Vec::new();
    for (key, value) in given {
        match got.get(key) {
            None => keys.push(format!("`{key}` is missing")),
            Some(other) if other != value => keys.push(format!("`{key}` is {other} instead of {value}")),
            Some(_) => {}
        }
    }
    keys.extend(got.keys().filter(|key| !given.contains_key(*key)).map(|key| format!("`{key}` is new")));
    keys.join(", ")
}

/// Of a delegate that succeeds; of one that fails it is worth telling.
pub(super) fn standard_error(lab: &mut Lab) -> Outcome {
    const MARKER: &str = "cnf: a line of the delegate";
    let mut script = good(lab);
    if let Some(act) = script.get_mut("ADD") {
        act.stderr = format!("{MARKER}\n");
    }
    lab.stub(DELEGATE, &script)?;
    let container = lab.container("c1")?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    if !reply.ok() {
        return Err(Stop::Skip(format!("needs an ADD that works (see ADD-02): {}", reply.summary())));
    }
    lab.check(reply.errors().contains(MARKER), Some(&reply), || {
        format!(
            "the delegate wrote {MARKER:?} on standard error and succeeded; the plugin's says {:?}",
            reply.errors()
        )
    });
    let mut act = Act::error(123, "no address today");
    act.stderr = format!("{MARKER}\n");
    lab.stub(DELEGATE, &[("ADD".to_owned(), act)].into())?;
    let other = lab.container("c2")?;
    let reply = lab.run(&call(lab, "ADD", &other))?;
    if !reply.errors().contains(MARKER) && !reply.text().contains(MARKER) {
        lab.inform("what a delegate that failed wrote on standard error is lost", Some(&reply));
    }
    Ok(())
}

/// A verb reaches the delegate: exactly once, as this verb.
pub(super) fn forwarded(lab: &mut Lab, verb: &'static str) -> Outcome {
    lab.need_verb(verb)?;
    for stage in life(lab, |call| call)? {
        if stage.verb != verb {
            continue;
        }
        lab.accepted(&stage.reply, &format!("{verb} with a delegate that has nothing against it"));
        let verbs: Vec<&str> = stage.seen.iter().map(|seen| seen.verb.as_str()).collect();
        lab.check(verbs == [verb], Some(&stage.reply), || {
            format!("{verb} was to be executed on the delegate once; it saw {verbs:?}")
        });
    }
    Ok(())
}

/// A delegate that answers in each version there is, and one that does not say in which.
pub(super) fn result_versions(lab: &mut Lab) -> Outcome {
    let known = ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    let newest = lab.version.clone();
    for (index, version) in known.into_iter().chain([""]).enumerate() {
        if super::parse_version(version) > super::parse_version(&newest) {
            continue;
        }
        let mut result = in_version(&answer(), if version.is_empty() { &newest } else { version });
        if version.is_empty() {
            result.as_object_mut().map(|object| object.remove("cniVersion"));
        }
        lab.stub(DELEGATE, &grants(&result))?;
        let container = lab.container(&format!("c{index}"))?;
        let reply = lab.run(&call(lab, "ADD", &container))?;
        let what = if version.is_empty() {
            "without cniVersion".to_owned()
        } else {
            format!("in version {version}")
        };
        if !lab.accepted(&reply, &format!("ADD in version {newest} with a delegate's result {what}")) {
            continue;
        }
        let there = lab.view(&container)?.addresses_of(&container.ifname);
        lab.check(there.iter().any(|address| address.to_string() == "10.66.0.5/24"), Some(&reply), || {
            format!("a delegate's result {what} gave 10.66.0.5/24, and the interface has {there:?}")
        });
        let printed = reply.document().unwrap_or(Value::Null);
        let printed = if newest.starts_with("0.1") || newest.starts_with("0.2") {
            printed["ip4"]["ip"].clone()
        } else {
            printed["ips"][0]["address"].clone()
        };
        lab.check(printed == "10.66.0.5/24", Some(&reply), || {
            format!("a delegate's result {what} gave 10.66.0.5/24, and the plugin's result has {printed}")
        });
        let result = reply.document().unwrap_or(Value::Null);
        lab.run(&call(lab, "DEL", &container).previous(&result))?;
    }
    let mut result = answer();
    result["cniVersion"] = json!("9.9.9");
    lab.stub(DELEGATE, &grants(&result))?;
    let container = lab.container("unknown")?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &container).config(&delegated(lab));
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "ADD with a delegate's result in version 9.9.9");
    lab.unchanged(&before, "after a delegate's result in version 9.9.9")?;
    Ok(())
}
