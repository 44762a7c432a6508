//! Calls that must fail, of every sort: what they print is compared by several items.

use serde_json::{Value, json};

use crate::cases::protocol::{call, verbs};
use crate::lab::{Act, Call, Container, Lab, Reply, Stdin};
use crate::profile::{Kind, merge};
use crate::verdict::Outcome;

/// A call that must have failed, and what came.
#[derive(Debug)]
pub(super) struct Failed {
    /// What was wrong with it.
    pub(super) why: String,
    /// What it answered.
    pub(super) reply: Reply,
    /// The code that the specification's table has for it, where there is one and no other.
    pub(super) code: Option<i64>,
}

/// Executes calls that must fail. After an ADD comes a DEL, as a runtime does it, so that what one leaves is not in the way of the next.
fn run(lab: &mut Lab, rows: Vec<(String, Call, Option<i64>)>) -> Outcome<Vec<Failed>> {
    let mut failed = Vec::new();
    for (why, call, code) in rows {
        let reply = lab.run(&call)?;
        let add = call.environment.get("CNI_COMMAND").is_some_and(|verb| verb == "ADD");
        if add && (code.is_none() || reply.ok()) {
            lab.run(&call.verb("DEL"))?;
        }
        failed.push(Failed { why, reply, code });
    }
    Ok(failed)
}

/// Calls whose environment or input is wrong for any plugin.
pub(super) fn plain(lab: &mut Lab, container: &Container) -> Outcome<Vec<Failed>> {
    let mut rows = Vec::new();
    for verb in verbs(lab) {
        let good = call(lab, verb, container, &Value::Null);
        let mut row =
            |what: &str, call: Call, code: i64| rows.push((format!("{verb} with {what}"), call, Some(code)));
        if matches!(verb, "ADD" | "CHECK" | "DEL") {
            row("no container", good.clone().without("CNI_CONTAINERID"), 4);
            row("an invalid container id", good.clone().env("CNI_CONTAINERID", "a b"), 4);
            row("an impossible interface name", good.clone().env("CNI_IFNAME", "a/b"), 4);
        }
        let mut directory = good.clone();
        directory.stdin = Stdin::Directory;
        row("input that cannot be read", directory, 5);
        row("garbage for a configuration", good.clone().bytes("xx"), 6);
        row("no network name", good.clone().edit(|config| merge(config, &json!({ "name": "<remove>" }))), 7);
        row("an invalid network name", good.clone().edit(|config| config["name"] = json!("a/b")), 7);
        row("a version that is not supported", good.edit(|config| config["cniVersion"] = json!("9.9.9")), 1);
    }
    let call = lab.call("ADD", container);
    rows.push(("an unknown verb".to_owned(), call.verb("NOPE"), Some(4)));
    run(lab, rows)
}

/// Calls that the kernel or another program makes fail.
pub(super) fn of_the_system(lab: &mut Lab, container: &Container) -> Outcome<Vec<Failed>> {
    let mut rows = Vec::new();
    if matches!(lab.profile.kind, Kind::Interface | Kind::Loopback) {
        let call = lab.call("ADD", container).env("CNI_NETNS", "/run/netns/absent");
        rows.push(("ADD with a namespace that does not exist".to_owned(), call, None));
        let call = lab.call("ADD", container).env("CNI_NETNS", "/proc/self/ns/mnt");
        rows.push(("ADD with a namespace of another sort".to_owned(), call, None));
    }
    if lab.profile.kind == Kind::Interface {
        let busy = lab.container("busy")?;
        lab.sh_in(&busy, &format!("ip link add {} type bridge", busy.ifname))?;
        rows.push(("ADD where the interface exists".to_owned(), lab.call("ADD", &busy), None));
    }
    if lab.profile.delegates {
        let mut delegate = |lab: &mut Lab, what: &str, name: &str, act: Option<Act>| -> Outcome {
            if let Some(act) = act {
                lab.stub(name, &[("ADD".to_owned(), act)].into())?;
            }
            let call = lab.call("ADD", container).edit(|config| config["ipam"] = json!({ "type": name }));
            rows.push((format!("ADD with a delegate that {what}"), call, None));
            Ok(())
        };
        let text = |stdout: &str, status| Act { stdout: stdout.to_owned(), status, ..Act::default() };
        delegate(lab, "does not exist", "cnf-absent", None)?;
        delegate(lab, "fails", "cnf-fails", Some(Act::error(123, "out of everything")))?;
        delegate(lab, "fails without a word", "cnf-silent", Some(text("", 1)))?;
        delegate(lab, "prints garbage and fails", "cnf-garbage", Some(text("garbage", 1)))?;
        delegate(lab, "prints garbage", "cnf-nonsense", Some(text("garbage", 0)))?;
        delegate(lab, "crashes", "cnf-crashes", Some(Act { crash: true, ..Act::default() }))?;
    }
    run(lab, rows)
}

/// Configurations that the profile says must be refused.
fn of_the_profile(lab: &mut Lab, container: &Container) -> Outcome<Vec<Failed>> {
    let rows = lab
        .profile
        .invalid
        .iter()
        .map(|variant| {
            let call = lab.call("ADD", container).edit(|config| merge(config, &variant.patch));
            (format!("ADD with {}", variant.why), call, None)
        })
        .collect();
    run(lab, rows)
}

/// All of them.
pub(super) fn all(lab: &mut Lab, container: &Container) -> Outcome<Vec<Failed>> {
    let mut failed = plain(lab, container)?;
    failed.extend(of_the_system(lab, container)?);
    failed.extend(of_the_profile(lab, container)?);
    Ok(failed)
}

/// ADD into the plugin's own namespace. It should be the last call of a case, for what it may do.
pub(super) fn own_namespace(lab: &mut Lab, container: &Container) -> Outcome<Failed> {
    let call = lab.call("ADD", container).env("CNI_NETNS", "/proc/self/ns/net");
    let reply = lab.run(&call)?;
    Ok(Failed { why: "ADD with the plugin's own namespace".to_owned(), reply, code: None })
}
