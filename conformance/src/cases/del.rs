//! DEL: everything goes, whatever is missing.

mod adverse;
mod delegate;

use serde_json::{Value, json};

use super::life::{attach, attached, fresh, outside, second, still_whole};
use super::{ALL, CALLED, Case};
use crate::kernel::Difference;
use crate::lab::{Lab, Reply};
use crate::profile::{Kind, merge};
use crate::verdict::Outcome;

/// Everything that has an interface which somebody can remove.
const REMOVABLE: &[Kind] = &[Kind::Interface, Kind::Meta];

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("DEL-01", "everything-undone", ALL, everything_undone),
    Case::new("DEL-01", "every-variant", ALL, every_variant).when(|profile| !profile.variants.is_empty()),
    Case::new("DEL-02", "repeated", ALL, repeated),
    Case::new("DEL-02", "interface-gone", REMOVABLE, interface_gone),
    Case::new("DEL-02", "firewall-flushed", CALLED, firewall_flushed),
    Case::new("DEL-02", "broken-by-hand", ALL, broken_by_hand).when(|profile| !profile.breaks.is_empty()),
    Case::new("DEL-03", "no-previous-result", ALL, no_previous_result),
    Case::new("DEL-04", "no-netns", ALL, no_netns),
    Case::new("DEL-05", "netns-destroyed", ALL, netns_destroyed),
    Case::new("DEL-05", "netns-path-is-a-file", ALL, netns_path_is_a_file),
    Case::new("DEL-06", "on-a-fresh-host", ALL, on_a_fresh_host),
    Case::new("DEL-06", "beside-another", ALL, beside_another),
    Case::new("DEL-07", "own-part-gone", ALL, delegate::own_part_gone).when(|profile| profile.delegates),
    Case::new("DEL-08", "delegate-fails", ALL, delegate::delegate_fails).when(|profile| profile.delegates),
    Case::new("DEL-09", "nothing-can-be-sent", ALL, nothing_can_be_sent),
    Case::new("DEL-10", "first-of-three", ALL, first_of_three),
    Case::new("DEL-10", "last-of-three", ALL, last_of_three),
    Case::new("DEL-11", "silent", ALL, silent),
    Case::new("DEL-12", "configuration-edited", ALL, adverse::configuration_edited)
        .when(|profile| !profile.changed.is_empty()),
    Case::new("DEL-12", "state-lost", ALL, adverse::state_lost).when(|profile| !profile.state.is_empty()),
    Case::new("DEL-12", "state-damaged", ALL, adverse::state_damaged)
        .when(|profile| !profile.state.is_empty()),
    Case::new("DEL-12", "rebooted", ALL, adverse::rebooted),
    Case::new("DEL-13", "namespace-of-another", ALL, adverse::namespace_of_another),
    Case::new("DEL-13", "namespace-of-the-host", ALL, adverse::namespace_of_the_host),
    Case::new("DEL-14", "all-broken-at-once", ALL, adverse::all_broken_at_once)
        .when(|profile| !profile.breaks.is_empty()),
    Case::new("DEL-14", "stale-previous-result", ALL, adverse::stale_previous_result),
    Case::new("DEL-14", "delegate-uninstalled", ALL, delegate::delegate_uninstalled)
        .when(|profile| profile.delegates),
];

/// After ADD and DEL the host and the container are as they were.
fn everything_undone(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after ADD");
    let difference = lab.changes(&before)?;
    lab.check(difference.is_empty(), Some(&reply), || format!("ADD and DEL left a difference: {difference}"));
    Ok(())
}

/// The same, for each other configuration of the profile.
fn every_variant(lab: &mut Lab) -> Outcome {
    for (index, variant) in lab.profile.variants.clone().iter().enumerate() {
        let (container, before) = fresh(lab, &format!("v{index}"))?;
        let add = lab.call("ADD", &container).edit(|config| merge(config, &variant.patch));
        let added = lab.run(&add)?;
        let Ok(result) = added.document() else { continue };
        if !added.ok() {
            // That is the finding of another item.
            continue;
        }
        let call = lab.call("DEL", &container).edit(|config| merge(config, &variant.patch)).previous(&result);
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("DEL after ADD ({})", variant.why));
        let difference = lab.changes(&before)?;
        lab.check(difference.is_empty(), Some(&reply), || {
            format!("ADD and DEL ({}) left a difference: {difference}", variant.why)
        });
    }
    Ok(())
}

/// DEL three times.
fn repeated(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    lab.del(&container, &result)?;
    let after = lab.snapshot()?;
    for time in ["second", "third"] {
        let reply = lab.del(&container, &result)?;
        lab.accepted(&reply, &format!("a {time} DEL"));
    }
    lab.unchanged(&after, "a DEL of what was deleted already changed something")?;
    let left = lab.left(&before)?;
    if !left.is_empty() {
        lab.note(&format!("the first DEL left something (see DEL-01): {left}"));
    }
    Ok(())
}

/// That a DEL of what is half gone succeeds is a must; that it removes the other half, a should.
fn remainder(lab: &mut Lab, reply: &Reply, left: &Difference, why: &str) {
    if !left.is_empty() {
        lab.warn(format!("DEL left something after {why}: {left}"), Some(reply));
    }
}

/// Somebody has deleted the container's interface.
fn interface_gone(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    lab.sh_in(&container, &format!("ip link del {}", container.ifname))?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after the container's interface was deleted by hand");
    let left = lab.left(&before)?;
    remainder(lab, &reply, &left, "the interface was deleted by hand");
    Ok(())
}

/// Somebody has flushed the firewall.
fn firewall_flushed(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    lab.flush_firewall()?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after all firewall rules were flushed");
    let left = lab.left(&before)?;
    remainder(lab, &reply, &left, "all firewall rules were flushed");
    Ok(())
}

/// Each way of the profile to break an attachment: DEL does not mind.
fn broken_by_hand(lab: &mut Lab) -> Outcome {
    for (index, way) in lab.profile.breaks.clone().iter().enumerate() {
        let (container, before) = fresh(lab, &format!("b{index}"))?;
        let result = lab.add(&container)?;
        lab.sh_about(&container, &result, &way.run)?;
        let reply = lab.del(&container, &result)?;
        lab.accepted(&reply, &format!("DEL after this was done by hand: {}", way.why));
        let left = outside(lab.left(&before)?);
        remainder(lab, &reply, &left, &format!("this was done by hand: {}", way.why));
    }
    Ok(())
}

/// No result of the ADD: runtimes lose it, or come from before 0.4.0.
fn no_previous_result(lab: &mut Lab) -> Outcome {
    type Change = fn(&mut Value);
    let rows: [(&str, Change); 3] = [
        ("without prevResult", |config| {
            config.as_object_mut().map(|object| object.remove("prevResult"));
        }),
        ("with a null prevResult", |config| config["prevResult"] = Value::Null),
        ("with an empty prevResult", |config| config["prevResult"] = json!({})),
    ];
    // What even a DEL with its prevResult leaves is the finding of DEL-01.
    let (container, _) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    lab.del(&container, &result)?;
    let before = lab.snapshot()?;
    for (why, change) in rows {
        lab.add(&container)?;
        let call = lab.call("DEL", &container).edit(change);
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("DEL {why}"));
        let difference = lab.changes(&before)?;
        lab.check(difference.is_empty(), Some(&reply), || {
            format!("DEL {why} left a difference: {difference}")
        });
    }
    Ok(())
}

/// `CNI_NETNS` is not given, though the namespace may still be there.
fn no_netns(lab: &mut Lab) -> Outcome {
    for (name, why) in [("c1", "with an empty CNI_NETNS"), ("c2", "without CNI_NETNS")] {
        let (container, before) = fresh(lab, name)?;
        let result = lab.add(&container)?;
        let call = lab.call("DEL", &container).previous(&result);
        let call = if name == "c1" { call.env("CNI_NETNS", "") } else { call.without("CNI_NETNS") };
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("DEL {why}"));
        let left = outside(lab.left(&before)?);
        lab.check(left.is_empty(), Some(&reply), || format!("DEL {why} left something on the host: {left}"));
    }
    Ok(())
}

/// The namespace is gone, with its path.
fn netns_destroyed(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    // What lies beneath goes with the namespace, so the world without it is the measure.
    let before = lab.snapshot()?;
    let result = lab.add(&container)?;
    lab.destroy(&container)?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after the network namespace was destroyed");
    let left = lab.lasting_changes(&before, |changes| outside(changes.added()))?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL after the network namespace was destroyed left something: {left}")
    });
    Ok(())
}

/// The namespace is gone, but its path is still there: an empty file, as an unmounted `/run/netns/x` is.
fn netns_path_is_a_file(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let result = lab.add(&container)?;
    lab.destroy(&container)?;
    lab.sh(&format!(": >{}", container.netns))?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL with a CNI_NETNS that is a plain file by now");
    let left = lab.lasting_changes(&before, |changes| outside(changes.added()))?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL with a CNI_NETNS that is a plain file by now left something: {left}")
    });
    Ok(())
}

/// The first that ever happens on this host is a DEL.
fn on_a_fresh_host(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let call = lab.call("DEL", &container);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "DEL of a container that was never added");
    lab.unchanged(&before, "DEL of a container that was never added changed something")?;
    Ok(())
}

/// DEL of a container that was never added, while another is attached to the same network.
fn beside_another(lab: &mut Lab) -> Outcome {
    let other = attached(lab, "c1")?;
    let (container, before) = fresh(lab, "c2")?;
    let call = lab.call("DEL", &container);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "DEL of a container that was never added");
    let difference = lab.changes(&before)?;
    lab.check(difference.is_empty(), Some(&reply), || {
        format!("DEL of a container that was never added changed something: {difference}")
    });
    // A runtime that mixes up its cache has itself to blame, and yet.
    let reply = lab.run(&call.previous(&other.result))?;
    let difference = lab.changes(&before)?;
    if !difference.is_empty() {
        lab.inform(
            format!("DEL of a container that was never added, with another's prevResult, removed what is that one's: {difference}"),
            Some(&reply),
        );
    }
    Ok(())
}

/// The interface is down and has no address: whoever wants to say goodbye to a server cannot.
fn nothing_can_be_sent(lab: &mut Lab) -> Outcome {
    let (container, before) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    lab.sh_about(
        &container,
        &result,
        "for link in $(ip netns exec $NETNS ls /proc/sys/net/ipv4/conf); do ip -n $NETNS addr flush dev $link; \
         ip -n $NETNS link set $link down; done 2>/dev/null; true",
    )?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after the container's interfaces were set down and lost their addresses");
    let left = lab.left(&before)?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL after the container's interfaces were set down left something: {left}")
    });
    Ok(())
}

/// The first of three attachments goes, under which the network was made; two of them have one container.
fn first_of_three(lab: &mut Lab) -> Outcome {
    let (container, _) = fresh(lab, "c1")?;
    let interface = second(lab, &container)?;
    let (neighbour, _) = fresh(lab, "c2")?;
    let first = attach(lab, &container)?;
    let others = [attach(lab, &interface)?, attach(lab, &neighbour)?];
    let before = lab.snapshot()?;
    let reply = lab.del(&first.container, &first.result)?;
    lab.accepted(&reply, "DEL of the first of three attachments");
    let foreign = first.foreign(lab.changes(&before)?);
    lab.check(foreign.is_empty(), Some(&reply), || {
        format!("DEL of the first of three attachments changed what is not its own: {foreign}")
    });
    for other in &others {
        still_whole(lab, other, "CHECK of an attachment after another's DEL")?;
    }
    Ok(())
}

/// The last of three attachments comes and goes: all is as before.
fn last_of_three(lab: &mut Lab) -> Outcome {
    let first = attached(lab, "c1")?;
    attached(lab, "c2")?;
    let last = second(lab, &first.container)?;
    let before = lab.snapshot()?;
    let result = lab.add(&last)?;
    let reply = lab.del(&last, &result)?;
    lab.accepted(&reply, "DEL of the last of three attachments");
    lab.unchanged(&before, "ADD and DEL of a third attachment left a difference")?;
    Ok(())
}

/// Status 0. A runtime ignores standard output.
fn silent(lab: &mut Lab) -> Outcome {
    let (container, _) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    let reply = lab.del(&container, &result)?;
    lab.accepted(&reply, "DEL after ADD");
    if reply.ok() && !reply.stdout.is_empty() {
        lab.inform(format!("DEL printed something: {:?}", reply.text()), Some(&reply));
    }
    Ok(())
}
