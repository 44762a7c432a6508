//! Hygiene: what a plugin leaves open, what it needs, what it stores, and what it has no business with.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::{ALL, CALLED, Case, attach, dlg};
use crate::kernel::Difference;
use crate::lab::{Call, Container, Lab, Reply, world};
use crate::profile::{Kind, merge};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("QUA-01", "processes-and-mounts", ALL, processes_and_mounts),
    Case::new("QUA-01", "few-descriptors", ALL, few_descriptors),
    Case::new("QUA-01", "descriptors-of-the-delegate", super::INTERFACE, descriptors_of_the_delegate)
        .when(|profile| profile.delegates),
    Case::new("QUA-02", "two-capabilities", ALL, two_capabilities),
    Case::new("QUA-02", "no-capabilities", CALLED, no_capabilities),
    Case::new("QUA-03", "file-modes", ALL, file_modes),
    Case::new("QUA-03", "names-that-look-alike", ALL, names_that_look_alike),
    Case::new("QUA-04", "a-host-in-use", ALL, a_host_in_use),
];

/// A container with what lies beneath the plugin.
fn container(lab: &mut Lab) -> Outcome<Container> {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    Ok(container)
}

/// Every verb of an attachment in order, each call changed by `edit`: verb and reply.
///
/// # Errors
/// Skips the case if ADD does not work and was not changed in a way that may be the reason.
fn life(
    lab: &mut Lab,
    container: &Container,
    edit: impl Fn(Call) -> Call,
) -> Outcome<Vec<(&'static str, Reply)>> {
    let mut replies = Vec::new();
    let mut result = Value::Null;
    for verb in ["ADD", "CHECK", "STATUS", "GC", "DEL"] {
        let least = match verb {
            "CHECK" => "0.4.0",
            "STATUS" | "GC" => "1.1.0",
            _ => "0.1.0",
        };
        if !attach::since(&lab.version, least) {
            continue;
        }
        let call = match verb {
            "STATUS" => lab.call_network(verb),
            "GC" => lab.call_network(verb).edit(|config| {
                let valid = serde_json::json!([{ "containerID": container.id, "ifname": container.ifname }]);
                config["cni.dev/valid-attachments"] = valid;
            }),
            _ if result.is_null() || !attach::since(&lab.version, "0.4.0") => lab.call(verb, container),
            _ => lab.call(verb, container).previous(&result),
        };
        let reply = lab.run(&edit(call))?;
        if verb == "ADD" {
            result = reply.document().unwrap_or(Value::Null);
        }
        replies.push((verb, reply));
    }
    Ok(replies)
}

/// The mounts of this mount namespace, in which the plugins run too.
fn mounts() -> Outcome<BTreeSet<String>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().map(str::to_owned).collect())
}

/// Nothing runs on and nothing is mounted after any verb.
fn processes_and_mounts(lab: &mut Lab) -> Outcome {
    let container = container(lab)?;
    let before = mounts()?;
    for (verb, reply) in life(lab, &container, |call| call)? {
        lab.check(reply.left_running == 0, Some(&reply), || {
            format!("{verb} ended and left {} processes running", reply.left_running)
        });
    }
    let later = mounts()?;
    let new: Vec<&String> = later.difference(&before).collect();
    lab.check(new.is_empty(), None, || format!("a whole life, from ADD to DEL, left mounts: {new:?}"));
    Ok(())
}

/// With 64 descriptors at most, every verb works.
fn few_descriptors(lab: &mut Lab) -> Outcome {
    let container = container(lab)?;
    let replies = life(lab, &container, |mut call| {
        call.wrapper = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
        call
    })?;
    for (verb, reply) in replies {
        lab.accepted(&reply, &format!("{verb} with at most 64 descriptors"));
    }
    Ok(())
}

/// A delegate gets three descriptors, and no lock or namespace of its caller.
fn descriptors_of_the_delegate(lab: &mut Lab) -> Outcome {
    // What the harness itself was started with, every program here has.
    let script = dlg::good(lab);
    lab.stub(dlg::DELEGATE, &script)?;
    lab.run(&Call::new(world::stubs().join(dlg::DELEGATE)).verb("VERSION"))?;
    let ours: Vec<String> = lab.seen(dlg::DELEGATE).into_iter().flat_map(|seen| seen.descriptors).collect();
    for stage in dlg::life(lab, |call| call)? {
        for seen in &stage.seen {
            let more: Vec<&str> =
                seen.descriptors.iter().filter(|open| !ours.contains(open)).map(String::as_str).collect();
            lab.check(more.is_empty(), Some(&stage.reply), || {
                format!("{}: the delegate was handed open descriptors: {}", stage.verb, more.join(", "))
            });
        }
    }
    Ok(())
}

/// A command line that takes all capabilities away but these.
fn only(capabilities: &[&str]) -> Vec<String> {
    let mut kept = "--bounding-set=-all".to_owned();
    for name in capabilities {
        kept.push_str(",+");
        kept.push_str(name);
    }
    vec!["setpriv".to_owned(), kept, "--inh-caps=-all".to_owned()]
}

fn need_setpriv(lab: &mut Lab) -> Outcome {
    let (ok, _, stderr) = lab.try_sh(&format!("{} true", only(&["net_admin"]).join(" ")))?;
    if ok {
        Ok(())
    } else {
        Err(Stop::Skip(format!("setpriv cannot take capabilities away here: {}", stderr.trim())))
    }
}

/// The two that network plugins are expected to have. If they are not enough, which one is missing is told.
fn two_capabilities(lab: &mut Lab) -> Outcome {
    const ENOUGH: &[&str] = &["net_admin", "sys_admin"];
    need_setpriv(lab)?;
    let container = container(lab)?;
    let with = |wrapper: Vec<String>| {
        move |mut call: Call| {
            call.wrapper.clone_from(&wrapper);
            call
        }
    };
    let mut missing = Vec::new();
    for (verb, reply) in life(lab, &container, with(only(ENOUGH)))? {
        if !reply.ok() {
            missing.push((verb, reply));
        }
    }
    let Some((verb, reply)) = missing.first() else { return Ok(()) };
    let mut helps = Vec::new();
    for more in ["net_raw", "sys_module", "sys_ptrace", "dac_override", "dac_read_search", "chown"] {
        let mut capabilities = ENOUGH.to_vec();
        capabilities.push(more);
        if life(lab, &container, with(only(&capabilities)))?.iter().all(|(_, reply)| reply.ok()) {
            helps.push(format!("CAP_{}", more.to_uppercase()));
        }
    }
    let helps = if helps.is_empty() {
        "no single other one helps".to_owned()
    } else {
        format!("{} helps", helps.join(" or "))
    };
    lab.violated(
        format!("{verb} with CAP_NET_ADMIN and CAP_SYS_ADMIN alone: {}; {helps}", reply.summary()),
        Some(reply),
    );
    Ok(())
}

/// Without any: an error document, and nothing changed.
fn no_capabilities(lab: &mut Lab) -> Outcome {
    need_setpriv(lab)?;
    let container = container(lab)?;
    let before = lab.snapshot()?;
    let mut call = lab.call("ADD", &container);
    call.wrapper = only(&[]);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "ADD without any capability");
    lab.unchanged(&before, "ADD without any capability changed something")?;
    Ok(())
}

/// Files and directories that ADD made are for their owner alone.
fn file_modes(lab: &mut Lab) -> Outcome {
    let container = container(lab)?;
    let before = lab.snapshot()?;
    lab.must_add(&lab.call("ADD", &container))?;
    let new: Difference = lab.all_changes(&before)?.only("file/*");
    let open: Vec<String> = new
        .lines
        .iter()
        .filter_map(|(key, line)| {
            let value = line.strip_prefix("+ ")?.strip_prefix(key)?.strip_prefix(": ")?;
            let mode = value.strip_prefix("directory ").unwrap_or(value).split(' ').next()?;
            let bits = u32::from_str_radix(mode, 8).ok()?;
            (bits & 0o077 != 0).then(|| format!("{} ({mode})", key.trim_start_matches("file")))
        })
        .collect();
    lab.check(open.is_empty(), None, || {
        format!("what ADD stored is open to others than its owner: {}", open.join(", "))
    });
    Ok(())
}

/// Two attachments whose names are the same when they are written one behind the other: what one leaves must not be the other's.
fn names_that_look_alike(lab: &mut Lab) -> Outcome {
    // Network, container, interface.
    type Names = [&'static str; 3];
    const PAIRS: &[(&str, Names, Names)] = &[
        ("network and container without a separator", ["cnfa", "bc", "eth0"], ["cnf", "abc", "eth0"]),
        ("network and container joined by a hyphen", ["cnf-a", "b", "eth0"], ["cnf", "a-b", "eth0"]),
        ("container and interface joined by an underscore", ["cnf", "a_b", "eth0"], ["cnf", "a", "b_eth0"]),
        ("container and interface joined by a hyphen", ["cnf", "c-d", "eth0"], ["cnf", "c", "d-eth0"]),
    ];
    if lab.profile.facts.get("at_once").and_then(Value::as_u64) == Some(1) {
        return Err(Stop::Skip("the plugin serves one attachment at a time".to_owned()));
    }
    for (index, (what, first, second)) in PAIRS.iter().enumerate() {
        if lab.profile.kind == Kind::Loopback && first[2] != second[2] {
            continue;
        }
        let first = alike(lab, &format!("a{index}"), *first)?;
        let mut second = alike(lab, &format!("b{index}"), *second)?;
        second.other = second.network != first.network;
        let empty = lab.snapshot()?;
        let reply = lab.run(&first.call("ADD", lab))?;
        if !reply.ok() {
            lab.note(&format!("{what}: ADD of the first did not work, which is for other items"));
            continue;
        }
        let result = reply.document().unwrap_or(Value::Null);
        let before = lab.snapshot()?;
        let reply = lab.run(&second.call("ADD", lab))?;
        if !lab.accepted(&reply, &format!("{what}: ADD of {} beside {}", second.name(), first.name())) {
            lab.run(&second.call("DEL", lab))?;
            lab.run(&first.call("DEL", lab))?;
            continue;
        }
        let reply = lab.run(&second.call("DEL", lab))?;
        lab.accepted(&reply, &format!("{what}: DEL of {}", second.name()));
        let difference = lab.changes(&before)?;
        lab.check(difference.is_empty(), Some(&reply), || {
            format!(
                "{what}: ADD and DEL of {} changed something of {}: {difference}",
                second.name(),
                first.name()
            )
        });
        if attach::since(&lab.version, "0.4.0") && lab.profile.kind != Kind::Loopback {
            let reply = lab.run(&first.call("CHECK", lab).previous(&result))?;
            lab.accepted(
                &reply,
                &format!("{what}: CHECK of {} when {} had gone", first.name(), second.name()),
            );
        }
        lab.run(&first.call("DEL", lab))?;
        let difference = lab.changes(&empty)?;
        lab.check(difference.is_empty(), None, || {
            format!("{what}: both are gone, and something is left: {difference}")
        });
        // The more containers, the longer every look at all of them takes.
        lab.destroy(&first.container)?;
        lab.destroy(&second.container)?;
    }
    Ok(())
}

/// An attachment with names of its own.
struct Alike {
    network: &'static str,
    container: Container,
    /// It is on the second network, which may need another configuration.
    other: bool,
}

fn alike(lab: &mut Lab, place: &str, [network, id, ifname]: [&'static str; 3]) -> Outcome<Alike> {
    let mut container = lab.container(place)?;
    id.clone_into(&mut container.id);
    if lab.profile.kind != Kind::Loopback {
        ifname.clone_into(&mut container.ifname);
    }
    lab.beneath(&container)?;
    Ok(Alike { network, container, other: false })
}

impl Alike {
    fn call(&self, verb: &str, lab: &Lab) -> Call {
        let call = lab.call(verb, &self.container);
        let patch = lab.profile.facts.get("other_network").filter(|_| self.other).cloned();
        call.edit(|config| {
            if let Some(patch) = patch {
                merge(config, &patch);
            }
            config["name"] = self.network.into();
        })
    }

    fn name(&self) -> String {
        format!("{:?} {:?} {:?}", self.network, self.container.id, self.container.ifname)
    }
}

/// Routes, bridges, tables, chains, rules, neighbours and settings of somebody else.
const INHABITANTS: &[&str] = &[
    "ip link add cnfx0 type bridge && ip link set cnfx0 up && ip addr add 192.0.2.1/24 dev cnfx0",
    "ip link add cnfx1 type veth peer name cnfx2 && ip link set cnfx1 master cnfx0 && ip link set cnfx1 up && ip link set cnfx2 up",
    "ip addr add 198.51.100.1/24 dev cnfx2 && ip route add default via 192.0.2.254 && ip route add 203.0.113.0/24 via 192.0.2.253 table 100",
    "ip rule add from 198.51.100.0/24 lookup 100 priority 1000",
    "ip neigh add 192.0.2.9 lladdr 02:00:00:00:09:09 dev cnfx0 nud permanent",
    "nft add table inet cnfx && nft add chain inet cnfx input '{ type filter hook input priority 0; policy accept; }' && nft add rule inet cnfx input tcp dport 9 drop",
    "nft add set inet cnfx hosts '{ type ipv4_addr; elements = { 192.0.2.7 }; }'",
    "iptables -N CNFX && iptables -A FORWARD -s 192.0.2.66 -j CNFX && iptables -t nat -A POSTROUTING -s 192.0.2.67 -j MASQUERADE",
    "sysctl -q -w net.ipv4.conf.cnfx2.rp_filter=2 net.ipv4.neigh.default.gc_thresh3=4096 net.ipv6.conf.cnfx2.accept_ra=0; true",
];

/// ADD, the other verbs and DEL on a host that others use as well: what is theirs stays as it is at any time.
fn a_host_in_use(lab: &mut Lab) -> Outcome {
    for command in INHABITANTS {
        let (ok, _, stderr) = lab.try_sh(command)?;
        if !ok {
            lab.note(&format!("this host cannot have that: {}", stderr.trim()));
        }
    }
    let container = container(lab)?;
    let before = lab.snapshot()?;
    let result = lab.must_add(&lab.call("ADD", &container))?;
    // What is new is the plugin's own; what was there must not be gone or different.
    let mut touched = lab.changes(&before)?.only("host/*");
    touched.lines.retain(|(_, line)| !line.starts_with('+'));
    lab.check(touched.is_empty(), None, || format!("ADD changed what was on the host before: {touched}"));
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL");
    lab.unchanged(&before, "after ADD and DEL the host is not what it was")?;
    Ok(())
}
