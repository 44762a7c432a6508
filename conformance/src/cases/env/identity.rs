//! `CNI_CONTAINERID` and `CNI_IFNAME`: what may be in them, and what an error says.

use serde_json::Value;

use crate::cases::protocol::{call, ready, taken, untouched, verbs};
use crate::lab::Lab;
use crate::verdict::Outcome;

const BAD_IDS: &[(&str, &str)] = &[
    ("-a", "beginning with a hyphen"),
    (".a", "beginning with a dot"),
    ("_a", "beginning with an underscore"),
    ("a b", "with a space"),
    ("a/b", "with a slash"),
    ("../x", "leading to another directory"),
    ("a;b", "with a semicolon"),
    ("a\n", "ending in a line feed"),
    ("é", "of a letter that is not ASCII"),
    ("aé", "with a letter that is not ASCII"),
];

/// No interface can have these names: the kernel refuses them.
const IMPOSSIBLE: &[(&str, &str)] = &[
    ("sixteen-bytes-xx", "of 16 bytes"),
    (".", "`.`"),
    ("..", "`..`"),
    ("a/b", "with a slash"),
    ("a:b", "with a colon"),
    ("a b", "with a space"),
    ("a\tb", "with a tab"),
    ("a\u{a0}b", "with a no-break space"),
];

pub(super) fn bad_container_ids(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in verbs(lab).into_iter().filter(|verb| matches!(*verb, "ADD" | "DEL" | "CHECK")) {
        for (id, what) in BAD_IDS {
            let reply = lab.run(&call(lab, verb, &container, &Value::Null).env("CNI_CONTAINERID", *id))?;
            lab.refused(&reply, Some(4), &format!("{verb} with a container id {what}, {id:?}"));
        }
    }
    untouched(lab, &before, "a container id was invalid")?;
    Ok(())
}

pub(super) fn good_container_ids(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    // 64 hexadecimal digits are what runtimes use; 253 characters leave room for no name that is built from it in a file system.
    for id in ["0", "Z", "a.b_c-d", "a..b", "cafe".repeat(16).as_str()] {
        let call = lab.call("ADD", &container).env("CNI_CONTAINERID", id);
        taken(lab, &container, &call, &format!("ADD with container id {id:?}"))?;
    }
    Ok(())
}

pub(super) fn impossible_names(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for verb in verbs(lab).into_iter().filter(|verb| matches!(*verb, "ADD" | "CHECK")) {
        for (name, what) in IMPOSSIBLE {
            let reply = lab.run(&call(lab, verb, &container, &Value::Null).env("CNI_IFNAME", *name))?;
            lab.refused(&reply, Some(4), &format!("{verb} with an interface name {what}, {name:?}"));
        }
    }
    untouched(lab, &before, "an interface name was impossible")?;
    Ok(())
}

/// `%d` in a name makes the kernel choose a number, and `lo` is there already: neither may become an interface of another name.
pub(super) fn templates(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for name in ["eth%d", "%d", "lo"] {
        let before = lab.view(&container)?;
        let call = lab.call("ADD", &container).env("CNI_IFNAME", name);
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("ADD with the interface name {name:?}"));
        let known: Vec<String> = before.links.iter().map(|link| link.name.clone()).collect();
        let new: Vec<String> = lab
            .view(&container)?
            .links
            .into_iter()
            .map(|link| link.name)
            .filter(|link| !known.contains(link))
            .collect();
        lab.check(new.is_empty(), Some(&reply), || {
            format!("ADD with the interface name {name:?} made {}", new.join(", "))
        });
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
        }
    }
    Ok(())
}

pub(super) fn missing_is_named(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let reply = lab.run(&lab.call("ADD", &container).without(variable))?;
        lab.check(reply.message().contains(variable), Some(&reply), || {
            format!("{variable} is missing, and the message does not say so: {}", reply.summary())
        });
    }
    Ok(())
}

/// The reference names the variable only where it is missing, not where it is invalid.
pub(super) fn invalid_is_named(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for (variable, value) in
        [("CNI_CONTAINERID", "a b"), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "sixteen-bytes-xx")]
    {
        let reply = lab.run(&lab.call("ADD", &container).env(variable, value))?;
        if lab.refused(&reply, None, &format!("ADD with {variable}={value:?}"))
            && !reply.message().contains(variable)
        {
            lab.warn(
                format!(
                    "{variable}={value:?} is invalid, and the message does not name it: {:?}",
                    reply.message()
                ),
                Some(&reply),
            );
        }
    }
    Ok(())
}
