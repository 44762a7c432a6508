//! The configuration on standard input: what is refused, what is let pass, what its well-known keys do.

mod extremes;
mod meaning;

pub(super) use meaning::{contrast, effect};

use serde_json::{Value, json};

use super::protocol::{call, leftovers, ready, refused_with, taken, untouched, verbs};
use super::{ALL, Case, INTERFACE};
use crate::lab::{Container, Lab, Stdin};
use crate::profile::merge;
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("CFG-01", "not-an-object", ALL, not_an_object),
    Case::new("CFG-01", "wrong-types", ALL, wrong_types),
    Case::new("CFG-02", "unreadable", ALL, unreadable),
    Case::new("CFG-03", "bad-names", ALL, bad_names),
    Case::new("CFG-03", "good-names", ALL, good_names),
    Case::new("CFG-04", "unknown-keys", ALL, unknown_keys),
    Case::new("CFG-05", "keys-of-runtimes", ALL, keys_of_runtimes),
    Case::new("CFG-06", "ip-masq", INTERFACE, meaning::masquerade).when(meaning::masquerades),
    Case::new("CFG-06", "dns", INTERFACE, meaning::dns),
    Case::new("CFG-06", "ipam-type", ALL, meaning::ipam_type).when(super::protocol::delegates),
    Case::new("CFG-07", "path-in-a-type", ALL, path_in_a_type).when(super::protocol::delegates),
    Case::new("CFG-08", "invalid", ALL, invalid).when(|profile| !profile.invalid.is_empty()),
    Case::new("CFG-09", "keys-in-upper-case", ALL, meaning::keys_in_upper_case),
    Case::new("CFG-10", "twice", ALL, twice),
    Case::new("CFG-10", "after-the-document", ALL, after_the_document),
    Case::new("CFG-11", "extremes", ALL, extremes::extremes),
    Case::new("CFG-12", "long-input", ALL, extremes::long_input),
    Case::new("CFG-12", "long-input-refused", ALL, extremes::long_input_refused),
];

fn not_an_object(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let whole = lab.config().to_string();
    let before = lab.snapshot()?;
    let inputs = [
        ("nothing", String::new()),
        ("white space", " \n\t ".to_owned()),
        ("a word", "xx".to_owned()),
        ("a list", "[]".to_owned()),
        ("a list with the configuration in it", format!("[{whole}]")),
        ("a string", "\"text\"".to_owned()),
        ("a number", "7".to_owned()),
        ("half a document", whole[..whole.len() / 2].to_owned()),
        ("single quotes", whole.replace('"', "'")),
        ("two documents", format!("{whole} {whole}")),
        ("a comment before the document", format!("// comment\n{whole}")),
        ("a comma at the end", format!("{},}}", &whole[..whole.len() - 1])),
    ];
    for verb in verbs(lab) {
        for (what, text) in &inputs {
            let call = call(lab, verb, &container, &Value::Null).bytes(text.as_str());
            let reply = lab.run(&call)?;
            lab.refused(&reply, Some(6), &format!("{verb} with {what} on standard input"));
        }
    }
    untouched(lab, &before, "the configuration could not be decoded")?;
    Ok(())
}

fn wrong_types(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    let mut all_refused = true;
    for (key, value) in [
        ("name", json!(1)),
        ("name", json!(["a"])),
        ("name", json!({})),
        ("name", json!(true)),
        ("ipam", json!("host-local")),
        ("ipam", json!([])),
        ("dns", json!("192.0.2.1")),
    ] {
        let call = lab.call("ADD", &container).edit(|config| config[key] = value.clone());
        let reply = lab.run(&call)?;
        let why = format!("ADD with {key:?}: {value}");
        if reply.ok() && key != "name" {
            // What a plugin has no use for it need not decode.
            lab.run(&call.verb("DEL"))?;
            all_refused = false;
        } else if key == "name" {
            lab.refused(&reply, Some(6), &why);
        } else {
            // Whether the value cannot be decoded or cannot be meant is a matter of where one looks.
            let code = if reply.code() == Some(7) { 7 } else { 6 };
            refused_with(lab, &reply, code, &why);
        }
    }
    if all_refused {
        leftovers(lab, &before, "a key of the configuration was of the wrong type")?;
    }
    Ok(())
}

fn unreadable(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in verbs(lab) {
        let mut from_directory = call(lab, verb, &container, &Value::Null);
        from_directory.stdin = Stdin::Directory;
        let reply = lab.run(&from_directory)?;
        lab.refused(&reply, Some(5), &format!("{verb} with a directory as standard input"));
        let mut closed = from_directory;
        closed.stdin = Stdin::Closed;
        let reply = lab.run(&closed)?;
        // The start-up code of several languages opens /dev/null in place of a closed descriptor: then the input is empty, code 6.
        let code = if reply.code() == Some(6) { 6 } else { 5 };
        lab.refused(&reply, Some(code), &format!("{verb} with standard input closed"));
    }
    untouched(lab, &before, "standard input could not be read")?;
    Ok(())
}

fn bad_names(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in verbs(lab) {
        for name in ["", "a b", "../x", "a/b", "-x", ".x", "_x", "é", "a\n", "a;b", "a\\b"] {
            let call = call(lab, verb, &container, &Value::Null).edit(|config| config["name"] = json!(name));
            let reply = lab.run(&call)?;
            lab.refused(&reply, Some(7), &format!("{verb} with the network name {name:?}"));
        }
        for what in ["missing", "null"] {
            let call = call(lab, verb, &container, &Value::Null).edit(|config| {
                merge(config, &json!({ "name": if what == "null" { "<null>" } else { "<remove>" } }));
            });
            let reply = lab.run(&call)?;
            lab.refused(&reply, Some(7), &format!("{verb} with the network name {what}"));
        }
    }
    for document in ["null", "{}"] {
        let reply = lab.run(&lab.call("ADD", &container).bytes(document))?;
        // Null is an object without keys to some decoders, and no object to others.
        let code = if document == "null" && reply.code() == Some(6) { 6 } else { 7 };
        lab.refused(&reply, Some(code), &format!("ADD with {document} as configuration"));
    }
    untouched(lab, &before, "the network's name was missing or invalid")?;
    Ok(())
}

fn good_names(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for name in ["a", "0", "Net.work_1-x", "a..b", "n".repeat(64).as_str()] {
        let call = lab.call("ADD", &container).edit(|config| config["name"] = json!(name));
        taken(lab, &container, &call, &format!("ADD with the network name {name:?}"))?;
    }
    Ok(())
}

fn unknown_keys(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = lab.call("ADD", &container).edit(|config| {
        config["x-test"] = json!({ "k": 7 });
    });
    let reply = lab.run(&call)?;
    if reply.ok() {
        return Ok(());
    }
    if lab.refused(&reply, Some(2), "ADD with a key that nobody knows, neither let pass") {
        let message = reply.message();
        lab.check(message.contains("x-test") && message.contains('7'), Some(&reply), || {
            format!("an unknown key was refused without telling key and value: {message:?}")
        });
    }
    Ok(())
}

/// What a runtime adds to a configuration, or passes through from the list.
fn keys_of_runtimes(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut rows = vec![
        ("args", json!({ "args": { "org.example.team": { "labels": [{ "key": "app", "value": "web" }] } } })),
        ("runtimeConfig of others", json!({ "runtimeConfig": { "org.example.thing": { "a": [1] } } })),
        (
            "cni.dev/valid-attachments",
            json!({ "cni.dev/valid-attachments": [{ "containerID": "x", "ifname": "eth0" }] }),
        ),
        ("cni.dev/attachments", json!({ "cni.dev/attachments": [] })),
        ("a cni.dev key of the future", json!({ "cni.dev/of-the-future": { "a": 1 } })),
        (
            "capabilities",
            json!({ "capabilities": { "portMappings": true, "org.example.thing": true, "io.example": false } }),
        ),
        ("cniVersions", json!({ "cniVersions": ["0.3.1", "0.4.0", "1.0.0"] })),
        ("disableCheck", json!({ "disableCheck": true })),
        ("disableCheck as text", json!({ "disableCheck": "true" })),
        ("disableGC", json!({ "disableGC": true })),
        ("loadOnlyInlinedPlugins", json!({ "loadOnlyInlinedPlugins": false })),
    ];
    let earlier = json!({ "cniVersion": lab.version, "interfaces": [{ "name": "other0", "mac": "02:00:00:00:00:09", "sandbox": container.netns }] });
    // In a chain the call has a result of an earlier plugin already; versions before 0.3.0 have none.
    if lab.profile.kind != crate::profile::Kind::Meta {
        rows.push(("prevResult", json!({ "prevResult": crate::lab::in_version(&earlier, &lab.version) })));
        rows.push(("an empty prevResult", json!({ "prevResult": "<null>" })));
    }
    for (key, patch) in rows {
        let call = lab.call("ADD", &container).edit(|config| merge(config, &patch));
        taken(lab, &container, &call, &format!("ADD with {key}"))?;
    }
    Ok(())
}

/// A type is a file's name in `CNI_PATH`. The file is there, so a plugin that joins paths would find it.
fn path_in_a_type(lab: &mut Lab) -> Outcome {
    let reply = json!({ "cniVersion": lab.version, "ips": [{ "address": "10.66.0.50/24" }] });
    let script = [("ADD".to_owned(), crate::lab::Act::reply(&reply))].into();
    // The configuration's own address management, the long way round.
    let container = ready(lab, "way")?;
    let real = lab.config()["ipam"]["type"].as_str().unwrap_or_default().to_owned();
    let directory = crate::lab::world::plugins();
    for way in [format!("../bin/{real}"), directory.join(&real).display().to_string()] {
        let call = lab.call("ADD", &container).edit(|config| config["ipam"]["type"] = json!(way));
        let reply = lab.run(&call)?;
        refused_with(lab, &reply, 7, &format!("ADD with the address management {way:?}"));
        lab.run(&call.verb("DEL"))?;
    }
    // Beside the directory of stubs, below it, and with a separator of other systems in its name.
    let names = [("../cnf-outside", "/"), ("./cnf-inside", "/"), ("cnf\\backslash", "\\")];
    for (number, (name, kind)) in names.into_iter().enumerate() {
        let container = ready(lab, &format!("c{number}"))?;
        lab.stub(name, &script)?;
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container).edit(|config| config["ipam"] = json!({ "type": name }));
        let reply = lab.run(&call)?;
        if lab.seen(name).is_empty() {
            refused_with(lab, &reply, 7, &format!("ADD with the address management {name:?}"));
            leftovers(lab, &before, &format!("the type {name:?} was refused"))?;
        } else if kind == "/" {
            lab.violated(format!("ADD executed the address management {name:?}"), Some(&reply));
        } else {
            // The rule is about what the system disallows, and names the backslash as an example, which this system allows.
            lab.warn(format!("ADD executed the address management {name:?}"), Some(&reply));
            lab.run(&call.verb("DEL"))?;
        }
    }
    Ok(())
}

fn invalid(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for variant in lab.profile.invalid.clone() {
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container).edit(|config| merge(config, &variant.patch));
        let reply = lab.run(&call)?;
        if reply.failed() {
            refused_with(lab, &reply, 7, &format!("ADD with {}", variant.why));
            leftovers(lab, &before, &format!("ADD with {} was refused", variant.why))?;
        }
        // As a runtime does it, also after a failure, so that nothing is in the way of the next.
        lab.run(&call.verb("DEL"))?;
        if !reply.failed() && (reply.code().is_some() || knows(lab, &container, &variant.patch)?) {
            lab.refused(&reply, Some(7), &format!("ADD with {}", variant.why));
        }
    }
    Ok(())
}

/// Whether the plugin, which may be older than its profile, knows all keys of the patch: what it decodes cannot be of any type.
/// What is in `ipam` is an older matter than any plugin.
fn knows(lab: &mut Lab, container: &Container, patch: &Value) -> Outcome<bool> {
    for (key, value) in patch.as_object().into_iter().flatten().filter(|(key, _)| *key != "ipam") {
        let other = if value.is_object() { json!("cnf") } else { json!({ "cnf": 1 }) };
        let call = lab.call("ADD", container).edit(|config| config[key] = other);
        let reply = lab.run(&call)?;
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
            lab.note(&format!("it does not know the key {key:?}, so nothing can be wrong with its value"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn twice(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let whole = lab.call("ADD", &container).read_config().unwrap_or_default().to_string();
    let inner = &whole[1..whole.len() - 1];
    let first = format!("{{\"cniVersion\":\"9.9.9\",\"name\":\"-bad-\",{inner}}}");
    let call = lab.call("ADD", &container).bytes(first);
    taken(lab, &container, &call, "ADD with keys that come twice, the right ones last")?;
    let last = format!("{{{inner},\"name\":\"-bad-\"}}");
    let reply = lab.run(&lab.call("ADD", &container).bytes(last))?;
    lab.refused(&reply, None, "ADD with keys that come twice, the wrong one last");
    Ok(())
}

fn after_the_document(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let whole = lab.call("ADD", &container).read_config().unwrap_or_default().to_string();
    let call = lab.call("ADD", &container).bytes(format!("\r\n\t {whole} \r\n\t\n"));
    taken(lab, &container, &call, "ADD with white space around the document")?;
    for (what, rest) in
        [("a brace", "}"), ("a word", "x"), ("a comma", ","), ("an object", "{}"), ("a zero byte", "\0")]
    {
        let call = lab.call("ADD", &container).bytes(format!("{whole}{rest}"));
        let reply = lab.run(&call)?;
        lab.refused(&reply, Some(6), &format!("ADD with {what} after the document"));
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
        }
    }
    Ok(())
}
