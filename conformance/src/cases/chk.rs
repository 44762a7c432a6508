//! CHECK: right after ADD, after something broke, and after others changed what they may.

use std::time::Duration;

use serde_json::{Value, json};

use super::life::{DELEGATE, add_delegating, attached, delegate, delegating, fresh, healthy, verify};
use super::{ALL, CALLED, Case, INTERFACE, IPAM};
use crate::lab::{Act, Container, Lab};
use crate::profile::{Kind, Profile, merge};
use crate::verdict::{Outcome, Stop};

/// Plugins whose CHECK has interfaces to look for.
const EXPECTING: &[Kind] = &[Kind::Interface, Kind::Meta];

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("CHK-01", "after-add", ALL, after_add),
    Case::new("CHK-01", "every-variant", ALL, every_variant).when(|profile| !profile.variants.is_empty()),
    Case::new("CHK-02", "no-previous-result", EXPECTING, no_previous_result),
    Case::new("CHK-02", "another-address", ALL, another_address).when(minds_addresses),
    Case::new("CHK-03", "listed-in-result", INTERFACE, listed_in_result),
    Case::new("CHK-03", "broken-by-hand", ALL, |lab| broken_by_hand(lab, "CHK-03"))
        .when(|profile| breaks(profile, "CHK-03")),
    Case::new("CHK-04", "broken-by-hand", ALL, |lab| broken_by_hand(lab, "CHK-04"))
        .when(|profile| breaks(profile, "CHK-04")),
    Case::new("CHK-05", "changed-by-later-plugins", EXPECTING, changed_by_later_plugins),
    Case::new("CHK-06", "broken-by-hand", ALL, |lab| broken_by_hand(lab, "CHK-06"))
        .when(|profile| breaks(profile, "CHK-06")),
    Case::new("CHK-07", "no-pause-after-add", ALL, no_pause_after_add),
    Case::new("CHK-08", "delegate-called", INTERFACE, delegate_called).when(|profile| profile.delegates),
    Case::new("CHK-08", "delegate-fails", INTERFACE, delegate_fails).when(|profile| profile.delegates),
    Case::new("CHK-09", "nothing-changed", ALL, nothing_changed),
    Case::new("CHK-10", "result-of-another", CALLED, result_of_another),
    Case::new("CHK-10", "lease-of-another", IPAM, result_of_another),
];

fn breaks(profile: &Profile, item: &str) -> bool {
    profile.breaks.iter().any(|way| way.item == item)
}

/// A plugin that neither gives nor uses addresses cannot notice a wrong one.
fn minds_addresses(profile: &Profile) -> bool {
    profile.kind != Kind::Loopback && profile.facts.get("ignores_addresses") != Some(&Value::Bool(true))
}

/// All is as ADD left it.
fn after_add(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let (container, _) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    let reply = verify(lab, &container, &result)?;
    if lab.accepted(&reply, "CHECK after ADD") {
        lab.check(reply.stdout.is_empty(), Some(&reply), || {
            format!("CHECK succeeded and printed something: {:?}", reply.text())
        });
    }
    Ok(())
}

/// The same, for each other configuration of the profile.
fn every_variant(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    for (index, variant) in lab.profile.variants.clone().iter().enumerate() {
        let (container, _) = fresh(lab, &format!("v{index}"))?;
        let add = lab.call("ADD", &container).edit(|config| merge(config, &variant.patch));
        let added = lab.run(&add)?;
        let Ok(result) = added.document() else { continue };
        if !added.ok() {
            // That is the finding of another item.
            continue;
        }
        let call = add.verb("CHECK").previous(&result);
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("CHECK after ADD ({})", variant.why));
    }
    Ok(())
}

/// Nothing to compare with.
fn no_previous_result(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let (container, _) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    healthy(lab, &container, &result)?;
    let call = lab.call("CHECK", &container);
    for (why, call) in [
        ("without prevResult", call.clone().previous(&Value::Null)),
        ("with a null prevResult", call.edit(|config| config["prevResult"] = Value::Null)),
    ] {
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("CHECK {why}"));
    }
    Ok(())
}

/// The result lists addresses that the container does not have.
fn another_address(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let (container, _) = fresh(lab, "c1")?;
    let mut result = lab.add(&container)?;
    healthy(lab, &container, &result)?;
    let mut replaced = 0;
    for ip in result["ips"].as_array_mut().into_iter().flatten() {
        // In the same subnet, so that nobody takes it for another plugin's.
        let address = ip["address"].as_str().unwrap_or_default().to_owned();
        let (host, prefix) = address.split_once('/').unwrap_or((&address, "32"));
        let other = match (host.rsplit_once('.'), host.rsplit_once(':')) {
            (Some((network, _)), _) => format!("{network}.250/{prefix}"),
            (None, Some((network, _))) => format!("{network}:fa/{prefix}"),
            _ => continue,
        };
        ip["address"] = json!(other);
        replaced += 1;
    }
    if replaced == 0 {
        return Err(Stop::Skip("the result of ADD lists no address".to_owned()));
    }
    let reply = verify(lab, &container, &result)?;
    lab.refused(&reply, None, "CHECK with a prevResult whose addresses the container does not have");
    Ok(())
}

/// What the result lists, taken away one by one.
fn listed_in_result(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let name = "ip -n $NETNS";
    let mut rows: Vec<(String, String)> = vec![
        ("the interface was set down".to_owned(), format!("{name} link set $IFNAME down")),
        (
            "the interface got another hardware address".to_owned(),
            format!("{name} link set $IFNAME address 02:00:00:00:66:99"),
        ),
        (
            "the interface was renamed".to_owned(),
            format!("{name} link set $IFNAME down; {name} link set $IFNAME name cnfelse up"),
        ),
        ("the interface was deleted".to_owned(), format!("{name} link del $IFNAME")),
    ];
    // Which addresses and routes there are, the first result tells.
    let (container, _) = fresh(lab, "c0")?;
    let result = lab.add(&container)?;
    for family in [false, true] {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let option = if family { "-6" } else { "-4" };
        let variable = if family { "$ADDRESS6" } else { "$ADDRESS" };
        let ips = result["ips"].as_array().cloned().unwrap_or_default();
        if let Some(ip) = ips.iter().find(|ip| text(&ip["address"]).contains(':') == family) {
            let prefix = text(&ip["address"]).split('/').next_back().unwrap_or_default().to_owned();
            rows.push((
                format!("an address was removed ({option})"),
                format!("{name} addr del {variable}/{prefix} dev $IFNAME"),
            ));
        }
        let routes = result["routes"].as_array().cloned().unwrap_or_default();
        if let Some(route) = routes.iter().find(|route| text(&route["dst"]).contains(':') == family) {
            let dst = text(&route["dst"]);
            rows.push((
                format!("the route to {dst} was removed"),
                format!("{name} {option} route del {dst}"),
            ));
        }
    }
    lab.del(&container, &result)?;
    for (index, (why, script)) in rows.iter().enumerate() {
        one_break(lab, &format!("c{}", index + 1), why, script)?;
    }
    Ok(())
}

/// Each way of the profile to break an attachment that belongs to this item.
fn broken_by_hand(lab: &mut Lab, item: &str) -> Outcome {
    lab.need_verb("CHECK")?;
    for (index, way) in lab.profile.breaks.clone().iter().enumerate() {
        if way.item == item {
            one_break(lab, &format!("b{index}"), &way.why, &way.run)?;
        }
    }
    Ok(())
}

/// ADD, break, CHECK, DEL.
fn one_break(lab: &mut Lab, name: &str, why: &str, script: &str) -> Outcome {
    let (container, _) = fresh(lab, name)?;
    let result = lab.add(&container)?;
    healthy(lab, &container, &result)?;
    let before = lab.snapshot()?;
    lab.sh_about(&container, &result, script)?;
    if lab.all_changes(&before)?.is_empty() {
        lab.note("that changed nothing here, so there is nothing to notice");
    } else {
        let reply = verify(lab, &container, &result)?;
        lab.refused(&reply, None, &format!("CHECK after this was done by hand: {why}"));
    }
    lab.del(&container, &result)?;
    lab.destroy(&container)
}

/// Later plugins of the chain did what later plugins do, and the final result says so.
fn changed_by_later_plugins(lab: &mut Lab) -> Outcome {
    type Change = fn(&mut Value);
    lab.need_verb("CHECK")?;
    let mut rows: Vec<(&str, &str, Change)> = vec![
        ("added a route", "ip -n $NETNS route add 198.51.100.0/24 dev $IFNAME", |result| {
            push(result, "routes", json!({ "dst": "198.51.100.0/24" }));
        }),
        (
            "added an interface with an address",
            "ip -n $NETNS link add cnflater type veth peer name cnfpeer && ip -n $NETNS addr add 192.0.2.7/24 dev cnflater",
            |result| {
                // A result of 0.2.0 has no interfaces; there is no CHECK in it either.
                let index = result["interfaces"].as_array().map_or(0, Vec::len);
                let sandbox = sandbox_of(result);
                push(result, "interfaces", json!({ "name": "cnflater", "sandbox": sandbox }));
                let mut ip = json!({ "address": "192.0.2.7/24", "interface": index });
                if result["ips"][0].get("version").is_some() {
                    ip["version"] = json!("4");
                }
                push(result, "ips", ip);
            },
        ),
    ];
    if lab.profile.kind == Kind::Interface {
        rows.push((
            "changed the hardware address",
            "ip -n $NETNS link set $IFNAME address 02:00:00:00:66:77",
            |result| set_of_container(result, "mac", &json!("02:00:00:00:66:77")),
        ));
        rows.push((
            "set the MTU and promiscuous mode",
            "ip -n $NETNS link set $IFNAME mtu 1300 promisc on",
            |result| {
                if result["interfaces"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|one| one.get("mtu").is_some()))
                {
                    set_of_container(result, "mtu", &json!(1300));
                }
            },
        ));
        rows.push((
            "took the default routes away",
            "ip -n $NETNS route flush default; ip -n $NETNS -6 route flush default",
            |result| {
                if let Some(routes) = result["routes"].as_array_mut() {
                    routes.retain(|route| !route["dst"].as_str().unwrap_or_default().ends_with("/0"));
                }
            },
        ));
    }
    for (index, (why, script, change)) in rows.into_iter().enumerate() {
        let (container, _) = fresh(lab, &format!("c{index}"))?;
        let mut result = lab.add(&container)?;
        healthy(lab, &container, &result)?;
        lab.sh_about(&container, &result, script)?;
        change(&mut result);
        let reply = verify(lab, &container, &result)?;
        lab.accepted(&reply, &format!("CHECK after a later plugin {why}, which prevResult shows"));
    }
    Ok(())
}

fn push(result: &mut Value, key: &str, value: Value) {
    if !result[key].is_array() {
        result[key] = json!([]);
    }
    if let Some(list) = result[key].as_array_mut() {
        list.push(value);
    }
}

fn sandbox_of(result: &Value) -> Value {
    let interfaces = result["interfaces"].as_array();
    let sandbox = interfaces.into_iter().flatten().find_map(|interface| interface.get("sandbox"));
    sandbox.cloned().unwrap_or_else(|| json!(""))
}

fn set_of_container(result: &mut Value, key: &str, value: &Value) {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        if interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty()) {
            interface[key] = value.clone();
        }
    }
}

/// CHECK follows ADD at once, several times: nothing that is still settling may be an error.
fn no_pause_after_add(lab: &mut Lab) -> Outcome {
    const TIMES: usize = 5;
    lab.need_verb("CHECK")?;
    let (container, _) = fresh(lab, "c1")?;
    for time in 1..=TIMES {
        let result = lab.add(&container)?;
        let call = lab.call("CHECK", &container).previous(&result).timeout(Duration::from_secs(10));
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("CHECK directly after ADD number {time}"));
        lab.del(&container, &result)?;
    }
    Ok(())
}

/// The delegate hears of CHECK, with the same environment and configuration.
fn delegate_called(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    delegate(lab, "CHECK", Act::default())?;
    let (container, _) = fresh(lab, "c1")?;
    let result = add_delegating(lab, &container)?;
    lab.forget(DELEGATE);
    let call = delegating(lab.call("CHECK", &container)).previous(&result);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "CHECK whose delegate succeeds");
    let calls: Vec<_> = lab.seen(DELEGATE).into_iter().filter(|call| call.verb == "CHECK").collect();
    let Some(seen) = calls.first() else {
        lab.violated(
            format!("CHECK did not execute its delegate ({:?} were seen)", lab.verbs_seen(DELEGATE)),
            Some(&reply),
        );
        return Ok(());
    };
    lab.check(seen.config().get("prevResult") == Some(&result), Some(&reply), || {
        format!("the delegate's CHECK did not get the prevResult that was given: {}", seen.stdin)
    });
    Ok(())
}

/// The delegate says that something is wrong.
fn delegate_fails(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    delegate(lab, "CHECK", Act::error(123, "the lease is not there"))?;
    let (container, _) = fresh(lab, "c1")?;
    let result = add_delegating(lab, &container)?;
    let call = delegating(lab.call("CHECK", &container)).previous(&result);
    let reply = lab.run(&call)?;
    if !reply.failed() {
        // Section 2 says that errors should be passed on; only the execution is a must.
        lab.warn(
            format!("CHECK whose delegate failed: expected an error, got {}", reply.summary()),
            Some(&reply),
        );
    }
    Ok(())
}

/// Looking is not touching.
fn nothing_changed(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let (container, _) = fresh(lab, "c1")?;
    let result = lab.add(&container)?;
    untouched(lab, &container, &result, "CHECK after ADD")?;
    if lab.profile.kind != Kind::Loopback {
        lab.sh_about(&container, &result, "ip -n $NETNS link del $IFNAME 2>/dev/null; true")?;
    }
    lab.flush_firewall()?;
    untouched(lab, &container, &result, "CHECK of what is broken")
}

fn untouched(lab: &mut Lab, container: &Container, result: &Value, why: &str) -> Outcome {
    let before = lab.snapshot()?;
    let reply = verify(lab, container, result)?;
    let difference = lab.all_changes(&before)?;
    lab.check(difference.is_empty(), Some(&reply), || format!("{why} changed something: {difference}"));
    Ok(())
}

/// The result of another container, all of whose resources exist.
fn result_of_another(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let one = attached(lab, "c1")?;
    let other = attached(lab, "c2")?;
    healthy(lab, &one.container, &one.result)?;
    if one.result == other.result {
        return Err(Stop::Skip("the results of two containers do not differ".to_owned()));
    }
    let reply = verify(lab, &one.container, &other.result)?;
    lab.refused(&reply, None, "CHECK with the result of another container");
    Ok(())
}
