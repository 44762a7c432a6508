//! DEL in a world that is no longer that of the ADD.

use serde_json::{Value, json};

use crate::cases::life::{attached, fresh, outside};
use crate::kernel::Snapshot;
use crate::lab::{Lab, Reply, quote};
use crate::profile::{Kind, merge};
use crate::verdict::Outcome;

/// Succeeds, and leaves nothing outside of containers that was not there `before`.
fn converged(lab: &mut Lab, reply: &Reply, before: &Snapshot, why: &str) -> Outcome {
    lab.accepted(reply, why);
    let left = lab.lasting_changes(before, |changes| outside(changes.added()))?;
    lab.check(left.is_empty(), Some(reply), || format!("{why} left something: {left}"));
    Ok(())
}

/// Somebody has edited the configuration since ADD.
pub(super) fn configuration_edited(lab: &mut Lab) -> Outcome {
    for (index, variant) in lab.profile.changed.clone().iter().enumerate() {
        let (container, before) = fresh(lab, &format!("c{index}"))?;
        let result = lab.add(&container)?;
        let call = lab.call("DEL", &container).edit(|config| merge(config, &variant.patch)).previous(&result);
        let reply = lab.run(&call)?;
        converged(lab, &reply, &before, &format!("DEL with an edited configuration ({})", variant.why))?;
    }
    Ok(())
}

/// What the plugin had written down is gone.
pub(super) fn state_lost(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    for place in lab.profile.state.clone() {
        lab.sh(&format!("rm -rf {place}"))?;
    }
    let reply = lab.del(&container, &result)?;
    converged(lab, &reply, &before, "DEL after the plugin's state was removed")
}

/// What the plugin had written down cannot be read any more.
pub(super) fn state_damaged(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    for place in lab.profile.state.clone() {
        let garbage = "for file; do printf \"\\000{what\" >\"$file\"; done";
        lab.sh(&format!(
            "if test -e {place}; then find {place} -type f -exec sh -c {} sh {{}} +; fi",
            quote(garbage)
        ))?;
    }
    let reply = lab.del(&container, &result)?;
    let ended = reply.status.is_some() && !reply.timed_out;
    lab.check(ended && (reply.ok() || reply.document().is_ok()), Some(&reply), || {
        format!("DEL after the plugin's state was damaged {}", reply.summary())
    });
    // Whose a damaged file is cannot be known; what is in the kernel can.
    let left = lab.left(&before)?.only("host/*");
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL after the plugin's state was damaged left something: {left}")
    });
    Ok(())
}

/// The host was rebooted: namespaces, links, rules and everything in `/run` and `/tmp` are gone, files on disks are not.
pub(super) fn rebooted(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let result = lab.add(&container)?;
    lab.destroy(&container)?;
    lab.flush_firewall()?;
    lab.sh(
        "ip route flush table main; ip -6 route flush table main; \
         for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do test $link = lo || ip link del $link 2>/dev/null; done; \
         find /run /tmp -mindepth 1 -maxdepth 1 ! -name netns -exec rm -rf {} +",
    )?;
    let reply = lab.del(&container, &result)?;
    converged(lab, &reply, &before, "DEL after a reboot")
}

/// The path leads to the namespace of another container by now, as `/proc/PID/ns/net` does when a process id is used again.
pub(super) fn namespace_of_another(lab: &mut Lab) -> Outcome {
    let gone = attached(lab, "c1")?;
    let other = attached(lab, "c2")?;
    lab.destroy(&gone.container)?;
    let before = lab.snapshot()?;
    let call = lab
        .call("DEL", &gone.container)
        .previous(&gone.result)
        .env("CNI_NETNS", other.container.netns.clone());
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "DEL with a CNI_NETNS that is another container's by now");
    let mut harm = lab.changes(&before)?;
    harm.lines.retain(|(key, _)| other.own.contains(key));
    lab.check(harm.is_empty(), Some(&reply), || {
        format!("DEL with a CNI_NETNS that is another container's by now changed what is that one's: {harm}")
    });
    Ok(())
}

/// The path leads to the host's namespace by now, which has an interface of that name.
pub(super) fn namespace_of_the_host(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let name = container.ifname.clone();
    if lab.profile.kind != Kind::Loopback {
        lab.sh(&format!(
            "ip link add {name} type veth peer name cnfpeer && ip addr add 192.0.2.1/24 dev {name} && ip link set {name} up"
        ))?;
    }
    let result = lab.add(&container)?;
    lab.destroy(&container)?;
    let before = lab.snapshot()?;
    let call = lab.call("DEL", &container).previous(&result).env("CNI_NETNS", "/proc/self/ns/net");
    let reply = lab.run(&call)?;
    let mut harm = lab.changes(&before)?;
    let of_it = [
        format!("host/link/{name}"),
        format!("host/address/{name}/*"),
        format!("host/route/*dev {name}"),
        format!("host/sysctl/*/{name}/*"),
    ];
    harm.lines.retain(|(key, _)| of_it.iter().any(|pattern| crate::glob(pattern, key)));
    lab.check(harm.is_empty(), Some(&reply), || {
        format!("DEL with a CNI_NETNS that is the host's by now changed the host's own {name}: {harm}")
    });
    Ok(())
}

/// Everything of the profile's list is broken at once, and the namespace gone: no reason to stop the DEL of a chain.
pub(super) fn all_broken_at_once(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let result = lab.add(&container)?;
    for way in lab.profile.breaks.clone() {
        // One may have taken away what the next would break.
        lab.sh_about(&container, &result, &format!("{{ {}; }} 2>/dev/null; true", way.run))?;
    }
    lab.destroy(&container)?;
    let reply = lab.del(&container, &result)?;
    converged(lab, &reply, &before, "DEL after all was broken by hand")
}

/// A result of long ago: its interfaces and addresses are not there, some of its keys nobody knows.
pub(super) fn stale_previous_result(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    lab.add(&container)?;
    let stale: Value = json!({
        "interfaces": [
            { "name": "cnfgone0", "mac": "02:00:00:00:00:01" },
            { "name": "cnfgone1", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/gone" },
        ],
        "ips": [{ "address": "203.0.113.9/24", "gateway": "203.0.113.1", "interface": 1 }],
        "routes": [{ "dst": "198.51.100.0/24", "gw": "203.0.113.1" }],
        "dns": {},
        "x-cnf": true,
    });
    let stale = crate::lab::in_version(&stale, &lab.version);
    let reply = lab.del(&container, &stale)?;
    converged(lab, &reply, &before, "DEL with a prevResult that names what does not exist")
}
