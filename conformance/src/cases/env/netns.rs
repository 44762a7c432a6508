//! `CNI_NETNS`: what is a namespace, what is none, and what is the plugin's own.

use serde_json::Value;

use crate::cases::protocol::{Delegate, call, ready, untouched, verbs};
use crate::lab::{Lab, Reply};
use crate::profile::Kind;
use crate::verdict::Outcome;

/// Plugins that cannot do their work without entering the container's namespace.
pub(super) const ENTERING: &[Kind] = &[Kind::Interface, Kind::Loopback];

/// Where the fake host's own namespace is bound, beside `/proc/self/ns/net`.
const OWN: &str = "/run/netns/own";

pub(super) fn not_a_namespace(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let delegate = Delegate::spy(lab)?;
    lab.sh("echo text >/tmp/file && : >/tmp/empty && mkdir /tmp/directory && ln -s /nowhere /tmp/dangling")?;
    let paths = [
        ("/run/netns/absent", "does not exist"),
        ("/tmp/file", "is a file"),
        ("/tmp/empty", "is an empty file, as an unmounted namespace leaves it"),
        ("/tmp/directory", "is a directory"),
        ("/tmp/dangling", "is a link to nothing"),
        ("/proc/self/fd/250", "is a descriptor that is not open"),
        ("/proc/self/ns/mnt", "is a mount namespace"),
        ("/proc/4194304/ns/net", "belongs to no process"),
    ];
    let before = lab.snapshot()?;
    let mut indifferent = Vec::new();
    for verb in verbs(lab).into_iter().filter(|verb| matches!(*verb, "ADD" | "CHECK")) {
        for (path, what) in paths {
            let reply = lab.run(&call(lab, verb, &container, &Value::Null).env("CNI_NETNS", path))?;
            let why = format!("{verb} where CNI_NETNS {what} ({path})");
            if lab.profile.kind == Kind::Meta && reply.ok() {
                // Nothing in the specification makes a plugin enter a namespace that it has no work in.
                if verb == "ADD" {
                    indifferent.push((what, reply));
                }
                lab.run(&lab.call("DEL", &container).env("CNI_NETNS", path))?;
            } else {
                lab.refused(&reply, None, &why);
            }
        }
    }
    if let Some((what, reply)) = indifferent.first() {
        let number = indifferent.len();
        lab.inform(
            format!(
                "ADD succeeds where CNI_NETNS {what}, and in {} more of {} cases",
                number - 1,
                paths.len()
            ),
            Some(reply),
        );
    }
    if lab.profile.kind != Kind::Meta {
        lab.unchanged(&before, "CNI_NETNS was no network namespace, and something changed")?;
    }
    if let Some(delegate) = delegate {
        let held = delegate.holds(lab);
        lab.check(!held, None, || {
            format!(
                "CNI_NETNS was no network namespace, and {} gave an address that nobody gave back",
                delegate.0
            )
        });
    }
    Ok(())
}

/// Names the plugin's own namespace in three ways.
fn own_paths(lab: &mut Lab) -> Outcome<Vec<String>> {
    lab.sh(&format!(": >{OWN} && mount --bind /proc/self/ns/net {OWN} && ln -s {OWN} /tmp/own"))?;
    Ok(["/proc/self/ns/net", OWN, "/tmp/own"].map(str::to_owned).to_vec())
}

/// ADD into the host itself: the container's addresses and default route would be the host's.
pub(super) fn add_to_own(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let delegate = Delegate::spy(lab)?;
    let paths = own_paths(lab)?;
    let before = lab.snapshot()?;
    for path in &paths {
        for allowed in [None, Some("yes"), Some("0")] {
            let call = lab.call("ADD", &container).env("CNI_NETNS", path);
            let call = match allowed {
                Some(value) => call.env("CNI_NETNS_OVERRIDE", value),
                None => call,
            };
            let reply = lab.run(&call)?;
            let said = allowed.map(|value| format!(" and CNI_NETNS_OVERRIDE={value}")).unwrap_or_default();
            let why = format!("ADD with the plugin's own namespace, {path}{said}");
            let refused = lab.refused(&reply, None, &why);
            let changed = lab.all_changes(&before)?;
            if !lab.check(changed.is_empty(), Some(&reply), || format!("{why}, changed the host: {changed}"))
            {
                let held = delegate.is_some_and(|delegate| delegate.holds(lab));
                lab.check(!held, Some(&reply), || {
                    "…and took an address that it did not give back".to_owned()
                });
                return Ok(());
            }
            if !refused {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// CHECK of the host is refused; DEL is refused or does nothing to it (a recycled process id leads there).
pub(super) fn del_in_own(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let result = lab.add(&container)?;
    let paths = own_paths(lab)?;
    // What the container has could be the host's as well: the same name, up.
    lab.sh(&format!(
        "ip link show {0} >/dev/null 2>&1 || ip link add {0} type bridge; ip link set {0} up",
        container.ifname
    ))?;
    let before = lab.host()?;
    let of_host = |lab: &Lab| -> Outcome<Option<(bool, u32)>> {
        Ok(lab.host()?.link(&container.ifname).map(|link| (link.up, link.mtu)))
    };
    let was = before.link(&container.ifname).map(|link| (link.up, link.mtu));
    for path in &paths {
        if verbs(lab).contains(&"CHECK") {
            let snapshot = lab.snapshot()?;
            let reply = lab.run(&call(lab, "CHECK", &container, &result).env("CNI_NETNS", path))?;
            lab.refused(&reply, None, &format!("CHECK with the plugin's own namespace, {path}"));
            untouched(lab, &snapshot, "CHECK was called with the plugin's own namespace")?;
        }
        let reply = lab.run(&call(lab, "DEL", &container, &result).env("CNI_NETNS", path))?;
        one_answer(lab, &reply, &format!("DEL with the plugin's own namespace, {path}"));
        let now = of_host(lab)?;
        lab.check(now == was, Some(&reply), || {
            format!("DEL with the plugin's own namespace, {path}, changed the host's {}: {was:?} (up, mtu) became {now:?}", container.ifname)
        });
    }
    Ok(())
}

fn one_answer(lab: &mut Lab, reply: &Reply, why: &str) {
    if reply.ok() {
        lab.check(reply.stdout.is_empty(), Some(reply), || {
            format!("{why}: it succeeded and printed {}", reply.text())
        });
    } else {
        lab.refused(reply, None, why);
    }
}

/// Tests of the reference, and runtimes that want it so, put the container into the plugin's own namespace. Whether everything else then works
/// (a gateway cannot be reached through the host that is the gateway) is another matter: it must not be refused for the namespace.
pub(super) fn allowed_by_override(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = lab.call("ADD", &container).env("CNI_NETNS", "/proc/self/ns/net");
    for value in ["1", "true", "TRUE"] {
        let allowed = call.clone().env("CNI_NETNS_OVERRIDE", value);
        let reply = lab.run(&allowed)?;
        let without = lab.run(&call)?;
        lab.check(reply.ok() || reply.message() != without.message(), Some(&reply), || {
            format!("ADD with the plugin's own namespace and CNI_NETNS_OVERRIDE={value} is refused as without it: {}", reply.summary())
        });
        let reply = lab.run(&allowed.verb("DEL"))?;
        lab.accepted(&reply, &format!("DEL with the plugin's own namespace and CNI_NETNS_OVERRIDE={value}"));
    }
    Ok(())
}

/// The ways in which runtimes name a namespace.
pub(super) fn forms_of_a_path(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let pid = lab.start_in(&container, "sleep 60")?;
    lab.sh("mkdir -p /tmp/elsewhere && : >/tmp/elsewhere/ns && mount --bind /run/netns/c1 /tmp/elsewhere/ns && ln -s /run/netns/c1 /tmp/link")?;
    for path in [
        container.netns.clone(),
        format!("/proc/{pid}/ns/net"),
        format!("/proc/{pid}/task/{pid}/ns/net"),
        "/tmp/elsewhere/ns".to_owned(),
        "/tmp/link".to_owned(),
        "/run/netns/../netns//c1".to_owned(),
    ] {
        let mut given = container.clone();
        given.netns.clone_from(&path);
        let reply = lab.run(&lab.call("ADD", &given))?;
        if !lab.accepted(&reply, &format!("ADD with CNI_NETNS={path}")) {
            continue;
        }
        let result = reply.document().unwrap_or_default();
        let sandbox = result["interfaces"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|interface| interface["sandbox"].as_str())
            .find(|sandbox| !sandbox.is_empty());
        // A plugin in a chain passes on what the one before it said.
        if lab.profile.kind != Kind::Meta
            && let Some(sandbox) = sandbox
        {
            lab.check(sandbox == path, Some(&reply), || {
                format!("CNI_NETNS={path}, and the result's sandbox is {sandbox:?}")
            });
        }
        let reply = lab.run(&lab.call("DEL", &given).previous(&result))?;
        lab.accepted(&reply, &format!("DEL with CNI_NETNS={path}"));
    }
    Ok(())
}
