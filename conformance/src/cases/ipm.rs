//! Address management, asked directly; and what an interface plugin does without it.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::protocol::asks_nobody_unasked;
use super::{Case, INTERFACE, IPAM, dlg};
use crate::lab::{Call, Container, Lab, in_version, parse_version};
use crate::profile::{Profile, merge};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("IPM-01", "addresses", IPAM, addresses),
    Case::new("IPM-01", "routes", IPAM, routes).when(|profile| profile.config["ipam"]["routes"].is_array()),
    Case::new("IPM-02", "abbreviated", IPAM, abbreviated),
    Case::new("IPM-03", "sections", IPAM, sections),
    Case::new("IPM-04", "versions", IPAM, versions),
    Case::new("IPM-05", "without-namespace", IPAM, without_namespace),
    Case::new("IPM-05", "nothing-to-release", IPAM, nothing_to_release),
    Case::new("IPM-06", "race", IPAM, race).when(chooses),
    Case::new("IPM-06", "race-with-del", IPAM, race_with_del).when(chooses),
    Case::new("IPM-06", "last-addresses", IPAM, last_addresses).when(has_pool),
    Case::new("IPM-07", "second-add", IPAM, second_add).when(has_pool),
    Case::new("IPM-07", "second-add-race", IPAM, second_add_race).when(has_pool),
    Case::new("IPM-08", "no-ipam", INTERFACE, no_ipam).when(asks_nobody_unasked),
    Case::new("IPM-08", "no-address", INTERFACE, no_address).when(|profile| profile.delegates),
];

/// Plugins with a pool that can be used up: fact `pool`, a patch for a small one, and `pool_size`, how many attachments it serves.
fn has_pool(profile: &Profile) -> bool {
    profile.facts.contains_key("pool") && profile.facts.contains_key("pool_size")
}

/// Plugins that choose addresses; others give what their configuration has, to everybody: fact `fixed_addresses`.
fn chooses(profile: &Profile) -> bool {
    profile.facts.get("fixed_addresses") != Some(&Value::Bool(true))
}

/// The addresses of a result, whatever its version, with the number of the element for messages.
fn given(result: &Value) -> Vec<Value> {
    let old = ["ip4", "ip6"].into_iter().filter_map(|key| result.get(key)?.get("ip").cloned());
    let new = result["ips"].as_array().into_iter().flatten().map(|ip| ip["address"].clone());
    old.chain(new).collect()
}

/// The same, as text.
fn texts(result: &Value) -> Vec<String> {
    given(result).iter().filter_map(|address| address.as_str().map(str::to_owned)).collect()
}

/// A container of this name that shares the namespace of `container`: for calls that are many.
fn another(container: &Container, name: &str) -> Container {
    Container { id: format!("cnf-{name}"), ..container.clone() }
}

/// Addresses in CIDR form, each with a gateway of its family if it has one; inside the subnets that fact `subnets` tells, one for each.
fn addresses(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    if !lab.accepted(&reply, "ADD of address management") {
        return Ok(());
    }
    let result = reply.document().unwrap_or(Value::Null);
    let networks: Vec<IpNetwork> = texts(&result).iter().filter_map(|text| text.parse().ok()).collect();
    lab.check(!networks.is_empty() && networks.len() == given(&result).len(), Some(&reply), || {
        format!("the result has to give at least one address, in CIDR form; it gives {:?}", given(&result))
    });
    for ip in result["ips"].as_array().into_iter().flatten() {
        lab.check(ip["address"].as_str().is_some_and(|text| text.contains('/')), Some(&reply), || {
            format!("an address without the length of its prefix: {ip}")
        });
        if let Some(gateway) = ip.get("gateway").filter(|gateway| !gateway.is_null()) {
            let parsed: Option<std::net::IpAddr> = gateway.as_str().and_then(|text| text.parse().ok());
            let network: Option<IpNetwork> = ip["address"].as_str().and_then(|text| text.parse().ok());
            let same =
                parsed.zip(network).is_some_and(|(gateway, network)| gateway.is_ipv4() == network.is_ipv4());
            lab.check(same, Some(&reply), || format!("the gateway is no address of the same family: {ip}"));
        }
    }
    let subnets = lab.profile.facts.get("subnets").and_then(Value::as_array).cloned().unwrap_or_default();
    for subnet in subnets.iter().filter_map(Value::as_str).filter_map(|text| text.parse::<IpNetwork>().ok()) {
        let inside =
            |network: &&IpNetwork| subnet.contains(network.ip()) && network.prefix() == subnet.prefix();
        let number = networks.iter().filter(inside).count();
        lab.check(number == 1, Some(&reply), || {
            format!("one address of {subnet} was to be given, with its prefix length; the result gives {networks:?}")
        });
    }
    Ok(())
}

/// Every route of the configuration comes back as it stands there.
fn routes(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    if !lab.accepted(&reply, "ADD of address management") {
        return Ok(());
    }
    let result = reply.document().unwrap_or(Value::Null);
    let there: Vec<Value> = result["routes"].as_array().cloned().unwrap_or_default();
    for route in lab.config()["ipam"]["routes"].as_array().into_iter().flatten() {
        let same = |other: &&Value| other["dst"] == route["dst"] && other.get("gw") == route.get("gw");
        lab.check(there.iter().any(|other| same(&other)), Some(&reply), || {
            format!("the configuration has route {route}, and the result has {there:?}")
        });
    }
    Ok(())
}

/// In every version that has interfaces at all.
fn abbreviated(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for version in lab.versions.clone() {
        version.clone_into(&mut lab.version);
        let container = another(&container, &version);
        let reply = lab.run(&lab.call("ADD", &container))?;
        let Ok(result) = reply.document() else { continue };
        let interfaces = result.get("interfaces").filter(|value| **value != json!([]) && !value.is_null());
        lab.check(interfaces.is_none(), Some(&reply), || {
            format!(
                "version {version}: address management has no interfaces to speak of; it says {}",
                result["interfaces"]
            )
        });
        for ip in result["ips"].as_array().into_iter().flatten() {
            lab.check(ip.get("interface").is_none_or(Value::is_null), Some(&reply), || {
                format!("version {version}: an address of address management refers to no interface: {ip}")
            });
        }
    }
    Ok(())
}

/// Anything else than addresses, routes and name service is beside the point, and so are empty sections.
fn sections(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    let Ok(result) = reply.document() else {
        return Err(Stop::Skip("needs an ADD that works (see IPM-01)".to_owned()));
    };
    let expected = ["cniVersion", "ips", "routes", "dns", "ip4", "ip6"];
    for (key, value) in result.as_object().into_iter().flatten() {
        let empty = *value == json!([]) || *value == json!({}) || value.is_null();
        lab.check(expected.contains(&key.as_str()) && !empty, Some(&reply), || {
            format!("the result has `{key}`: {value}, which says nothing to the caller")
        });
    }
    Ok(())
}

/// Each version it supports, and one it does not.
fn versions(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    for version in lab.versions.clone() {
        version.clone_into(&mut lab.version);
        let container = another(&container, &version);
        let reply = lab.run(&lab.call("ADD", &container))?;
        if lab.accepted(&reply, &format!("ADD in version {version}, which VERSION lists")) {
            let result = reply.document().unwrap_or(Value::Null);
            lab.check(result["cniVersion"] == *version, Some(&reply), || {
                format!(
                    "the configuration is in version {version} and the result in {}",
                    result["cniVersion"]
                )
            });
            let key = if parse_version(&version) < parse_version("0.3.0") { "ip4" } else { "ips" };
            lab.check(result.get(key).is_some() || result.get("ip6").is_some(), Some(&reply), || {
                format!("a result in version {version} has its addresses in `{key}`; this one is {result}")
            });
        }
    }
    let before = lab.snapshot()?;
    "9.9.9".clone_into(&mut lab.version);
    let reply = lab.run(&lab.call("ADD", &another(&container, "future")))?;
    lab.refused(&reply, Some(1), "ADD in version 9.9.9");
    let changes = lab.all_changes(&before)?;
    lab.check(changes.is_empty(), Some(&reply), || {
        format!("ADD in version 9.9.9 changed something: {changes}")
    });
    Ok(())
}

/// The namespace is gone, or the runtime does not know it: the address is free all the same. Where it can be seen, it is looked at.
fn without_namespace(lab: &mut Lab) -> Outcome {
    let size = shrink(lab);
    let container = lab.container("c1")?;
    let names = ["unset", "empty", "destroyed"];
    let first = another(&container, names[0]);
    let mut results = Vec::new();
    for name in names.into_iter().take(size.unwrap_or(names.len())) {
        results
            .push((another(&container, name), lab.must_add(&lab.call("ADD", &another(&container, name)))?));
    }
    lab.destroy(&container)?;
    for (index, (attachment, result)) in results.iter().enumerate() {
        let call = lab.call("DEL", attachment).previous(result);
        let call = match index {
            0 => call.without("CNI_NETNS"),
            1 => call.env("CNI_NETNS", ""),
            _ => call,
        };
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("DEL with CNI_NETNS {}", names[index]));
    }
    let Some(size) = size else { return Ok(()) };
    let container = lab.container("c2")?;
    for number in 0..size {
        let reply = lab.run(&lab.call("ADD", &another(&container, &format!("later{number}"))))?;
        lab.accepted(
            &reply,
            &format!(
                "the pool has {size} addresses, all of which had been given back; ADD number {}",
                number + 1
            ),
        );
    }
    lab.note(&format!("{} had been given back first", first.id));
    Ok(())
}

/// A container that never was, and one that has been released already.
fn nothing_to_release(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let reply = lab.run(&lab.call("DEL", &container))?;
    lab.accepted(&reply, "DEL of a container that never had an address");
    let result = lab.must_add(&lab.call("ADD", &container))?;
    for time in ["first", "second", "third"] {
        let reply = lab.del(&container, &result)?;
        lab.accepted(&reply, &format!("the {time} DEL of a container"));
    }
    Ok(())
}

/// How many at once.
const CROWD: usize = 30;

fn crowd(lab: &Lab, container: &Container, verb: &str, names: impl Iterator<Item = String>) -> Vec<Call> {
    names.map(|name| lab.call(verb, &another(container, &name))).collect()
}

/// All succeed, and no address comes twice.
fn race(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let calls = crowd(lab, &container, "ADD", (0..CROWD).map(|number| format!("race{number}")));
    let replies = lab.race(&calls)?;
    let mut taken = BTreeSet::new();
    for reply in &replies {
        lab.accepted(reply, &format!("one of {CROWD} ADDs side by side"));
        for address in texts(&reply.document().unwrap_or(Value::Null)) {
            lab.check(taken.insert(address.clone()), Some(reply), || {
                format!("{address} was given twice, by {CROWD} ADDs side by side")
            });
        }
    }
    Ok(())
}

/// While some are released others are given.
fn race_with_del(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let half = CROWD / 2;
    let calls = crowd(lab, &container, "ADD", (0..CROWD).map(|number| format!("first{number}")));
    let first = lab.race(&calls)?;
    let mut calls = crowd(lab, &container, "DEL", (0..half).map(|number| format!("first{number}")));
    calls.extend(crowd(lab, &container, "ADD", (0..half).map(|number| format!("second{number}"))));
    let second = lab.race(&calls)?;
    let mut taken = BTreeSet::new();
    // Who was not released still has its address; the latecomers must have others.
    for reply in first.iter().skip(half).chain(second.iter().skip(half)) {
        lab.accepted(reply, &format!("one of {half} ADDs beside {half} DELs"));
        for address in texts(&reply.document().unwrap_or(Value::Null)) {
            lab.check(taken.insert(address.clone()), Some(reply), || {
                format!("{address} was given while somebody else had it, with {half} ADDs beside {half} DELs")
            });
        }
    }
    for reply in second.iter().take(half) {
        lab.accepted(reply, &format!("one of {half} DELs beside {half} ADDs"));
    }
    Ok(())
}

/// Makes the pool as small as the profile knows how to, and says how many it serves then.
fn shrink(lab: &mut Lab) -> Option<usize> {
    let patch = lab.profile.facts.get("pool").cloned()?;
    let size = lab.profile.facts.get("pool_size").and_then(Value::as_u64)?;
    let mut config = Value::Object(lab.profile.config.clone());
    merge(&mut config, &patch);
    if let Value::Object(config) = config {
        lab.profile.config = config;
    }
    usize::try_from(size).ok()
}

/// More want an address than there are: exactly as many get one, and the others an error.
fn last_addresses(lab: &mut Lab) -> Outcome {
    let size = shrink(lab).unwrap_or_default();
    let container = lab.container("c1")?;
    let number = size * 2;
    let calls = crowd(lab, &container, "ADD", (0..number).map(|number| format!("last{number}")));
    let replies = lab.race(&calls)?;
    let mut taken = BTreeSet::new();
    let mut served = 0;
    for reply in &replies {
        if reply.ok() {
            served += 1;
            for address in texts(&reply.document().unwrap_or(Value::Null)) {
                lab.check(taken.insert(address.clone()), Some(reply), || {
                    format!("{address} was given twice, by {number} ADDs for {size} addresses")
                });
            }
        } else {
            lab.refused(reply, None, &format!("one of {number} ADDs for {size} addresses"));
        }
    }
    lab.check(served == size, None, || {
        format!("{number} ADDs for {size} addresses, side by side: {served} succeeded")
    });
    Ok(())
}

/// The same attachment again, then DEL: all addresses of the pool must be free.
fn second_add(lab: &mut Lab) -> Outcome {
    let size = shrink(lab).unwrap_or_default();
    let container = lab.container("c1")?;
    let first = lab.must_add(&lab.call("ADD", &container))?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    if reply.ok() {
        let again = reply.document().unwrap_or(Value::Null);
        lab.check(texts(&again) == texts(&first), Some(&reply), || {
            format!("a second ADD of the same attachment gave {:?} beside {:?}", texts(&again), texts(&first))
        });
    }
    let reply = lab.del(&container, &first)?;
    lab.accepted(&reply, "DEL of an attachment that was added twice");
    all_free(lab, &container, size)
}

/// The same attachment many times at once, then DEL.
fn second_add_race(lab: &mut Lab) -> Outcome {
    let size = shrink(lab).unwrap_or_default();
    let container = lab.container("c1")?;
    let calls: Vec<Call> = (0..size).map(|_| lab.call("ADD", &container)).collect();
    let replies = lab.race(&calls)?;
    let served: BTreeSet<Vec<String>> = replies
        .iter()
        .filter(|reply| reply.ok())
        .map(|reply| texts(&reply.document().unwrap_or(Value::Null)))
        .collect();
    lab.check(served.len() == 1, replies.first(), || {
        format!("{size} ADDs of one attachment, side by side, gave {served:?}")
    });
    let reply = lab.run(&lab.call("DEL", &container))?;
    lab.accepted(&reply, "DEL of an attachment that was added many times at once");
    all_free(lab, &container, size)
}

fn all_free(lab: &mut Lab, container: &Container, size: usize) -> Outcome {
    for number in 0..size {
        let reply = lab.run(&lab.call("ADD", &another(container, &format!("later{number}"))))?;
        lab.accepted(
            &reply,
            &format!("nothing is taken of the pool's {size} addresses; ADD number {}", number + 1),
        );
    }
    Ok(())
}

/// No `ipam`, an empty one: nobody is asked and nothing is given; a plugin that cannot be without says so before it changes anything.
fn no_ipam(lab: &mut Lab) -> Outcome {
    if parse_version(&lab.version) < parse_version("0.3.0") {
        return Err(Stop::Skip("results before 0.3.0 cannot be without an address".to_owned()));
    }
    let script = dlg::good(lab);
    // Whatever address management the profile has, it must not be executed.
    if let Some(kind) = lab.config()["ipam"]["type"].as_str() {
        lab.stub(kind, &script)?;
    }
    let asked = lab.config()["ipam"]["type"].as_str().unwrap_or_default().to_owned();
    for (name, ipam) in [("absent", Value::Null), ("empty", json!({}))] {
        let container = lab.container(name)?;
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container).edit(|config| {
            if let Some(config) = config.as_object_mut() {
                config.remove("ipam");
                if !ipam.is_null() {
                    config.insert("ipam".to_owned(), ipam);
                }
            }
        });
        let reply = lab.run(&call)?;
        if reply.ok() {
            let result = reply.document().unwrap_or(Value::Null);
            lab.check(texts(&result).is_empty(), Some(&reply), || {
                format!("`ipam` is {name}, and the result gives {:?}", texts(&result))
            });
            let there: Vec<IpNetwork> = lab
                .view(&container)?
                .addresses_of(&container.ifname)
                .into_iter()
                .filter(|ip| !link_local(ip))
                .collect();
            lab.check(there.is_empty(), Some(&reply), || {
                format!("`ipam` is {name}, and the interface has {there:?}")
            });
        } else {
            lab.refused(&reply, None, &format!("ADD where `ipam` is {name}"));
            lab.unchanged(&before, &format!("ADD refused because `ipam` is {name} left something"))?;
        }
        if !asked.is_empty() {
            let verbs = lab.verbs_seen(&asked);
            lab.check(verbs.is_empty(), Some(&reply), || {
                format!("`ipam` is {name}, and {asked} was executed: {verbs:?}")
            });
        }
    }
    Ok(())
}

fn link_local(network: &IpNetwork) -> bool {
    match network {
        IpNetwork::V4(network) => network.ip().is_link_local(),
        IpNetwork::V6(network) => network.ip().is_unicast_link_local(),
    }
}

/// The delegate succeeds and gives no address: an error, with the delegate's DEL, and nothing left.
fn no_address(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let result = in_version(&json!({ "cniVersion": "1.0.0", "ips": [], "dns": {} }), &lab.version);
    lab.stub(dlg::DELEGATE, &dlg::grants(&result))?;
    let before = lab.snapshot()?;
    let reply = lab.run(&dlg::call(lab, "ADD", &container))?;
    lab.refused(&reply, None, "ADD whose delegate gave no address");
    lab.unchanged(&before, "ADD whose delegate gave no address left something")?;
    let verbs = lab.verbs_seen(dlg::DELEGATE);
    lab.check(verbs == ["ADD", "DEL"], Some(&reply), || {
        format!("a delegate that gave no address was to see ADD and DEL; it saw {verbs:?}")
    });
    Ok(())
}
