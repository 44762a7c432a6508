//! More than one attachment of a container.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cases::attach::{Attachment, addresses, attached, delegated};
use crate::cases::truth::{About, falsehoods, joined, list};
use crate::lab::{Call, Container, Lab};
use crate::profile::{self, Kind};
use crate::verdict::Outcome;

/// The network beside [`crate::lab::NETWORK`].
const OTHER: &str = "cnfother";

/// What is no longer so of an attachment that nobody has touched.
fn still_true(lab: &mut Lab, attachment: &Attachment, why: &str) -> Outcome {
    let mut found = falsehoods(lab, &attachment.container, &attachment.result)?;
    found.retain(|falsehood| falsehood.about != About::MtuMissing);
    if lab.profile.kind == Kind::Ipam {
        found.clear(); // its addresses are on no interface
    }
    lab.check(found.is_empty(), Some(&attachment.reply), || format!("{why}: {}", joined(&found)));
    Ok(())
}

/// Two interfaces of one container in the same network.
pub(super) fn same_network(lab: &mut Lab) -> Outcome {
    let first = lab.container("c1")?;
    let second = first.interface("eth1");
    let before = lab.snapshot()?;
    lab.beneath(&first)?;
    lab.beneath(&second)?;
    let based = lab.snapshot()?;
    let call = lab.call("ADD", &first);
    let one = attached(lab, &first, &call)?;
    let call = apart(lab.call("ADD", &second));
    let reply = lab.run(&call)?;
    if !lab.accepted(&reply, "ADD of a second interface, eth1, to the same network") {
        return Ok(());
    }
    let result = reply.document().unwrap_or_default();
    let mut addresses = BTreeSet::new();
    for ip in list(&one.result, "ips").chain(list(&result, "ips")) {
        let address = ip["address"].as_str().unwrap_or_default().to_owned();
        lab.check(addresses.insert(address.clone()), Some(&reply), || {
            format!("both interfaces of the container have {address}")
        });
    }
    still_true(lab, &one, "after ADD of eth1 the result of eth0 is no longer true")?;
    if lab.profile.kind != Kind::Ipam {
        let mut found = falsehoods(lab, &second, &result)?;
        // Both interfaces are in one subnet: the routes of one may well lead out of the other.
        let lost = [About::Route, About::RouteLink, About::RouteAttribute, About::MtuMissing];
        found.retain(|falsehood| !lost.contains(&falsehood.about));
        lab.check(found.is_empty(), Some(&reply), || format!("eth1: {}", joined(&found)));
    }
    let reply = lab.run(&call.verb("DEL").previous(&result))?;
    lab.accepted(&reply, "DEL of the second interface");
    let reply = lab.run(&one.call("DEL"))?;
    lab.accepted(&reply, "DEL of the first interface after that of the second");
    let left = if lab.profile.kind == Kind::Meta { &based } else { &before };
    lab.unchanged(left, "after DEL of both interfaces something is left")?;
    Ok(())
}

/// Where two attachments of one container cannot have the same (a host port), the second has another.
fn apart(call: Call) -> Call {
    call.edit(|config| {
        for mapping in config["runtimeConfig"]["portMappings"].as_array_mut().into_iter().flatten() {
            if let Some(port) = mapping["hostPort"].as_u64() {
                mapping["hostPort"] = json!(port + 1000);
            }
        }
    })
}

/// An ADD of network `number` (1 or 2) with addresses of its own.
fn of_network(lab: &mut Lab, container: &Container, number: u8) -> Outcome<Call> {
    lab.beneath(container)?;
    let call = if lab.profile.delegates {
        delegated(lab, container, &addresses(number))?
    } else {
        lab.call("ADD", container)
    };
    let call = if number == 1 { call } else { apart(call) };
    let own = lab.profile.facts.get("other_network").cloned();
    Ok(call.edit(|config| {
        if number != 1 {
            config["name"] = json!(OTHER);
            profile::merge(config, &own.unwrap_or_else(|| json!({})));
        }
    }))
}

/// Two interfaces of one container, in two networks.
pub(super) fn other_network(lab: &mut Lab) -> Outcome {
    let first = lab.container("c1")?;
    let second = first.interface("eth1");
    let call = of_network(lab, &first, 1)?;
    let one = attached(lab, &first, &call)?;
    let call = of_network(lab, &second, 2)?;
    let reply = lab.run(&call)?;
    if lab.accepted(&reply, "ADD of a second interface, to another network") {
        let result = reply.document().unwrap_or_default();
        let mut found = falsehoods(lab, &second, &result)?;
        found.retain(|falsehood| falsehood.about != About::MtuMissing);
        lab.check(found.is_empty(), Some(&reply), || format!("eth1: {}", joined(&found)));
    }
    still_true(lab, &one, "after ADD to another network the first result is no longer true")
}

/// Two networks, one container: the second attachment comes and goes, and the first is as it was.
pub(super) fn one_goes(lab: &mut Lab) -> Outcome {
    let (one, call) = two(lab)?;
    let before = lab.snapshot()?;
    let reply = lab.run(&call)?;
    if !lab.accepted(&reply, "ADD to a second network") {
        return Ok(());
    }
    let reply = lab.run(&call.verb("DEL").previous(&reply.document().unwrap_or(Value::Null)))?;
    lab.accepted(&reply, "DEL from the second network");
    lab.unchanged(&before, "a second network's attachment came and went, and of the first has changed")?;
    still_true(lab, &one, "a second network's attachment came and went")
}

/// Two networks, one container: the first attachment goes, and the second stays whole until it goes too.
pub(super) fn either_way(lab: &mut Lab) -> Outcome {
    let (one, call) = two(lab)?;
    let second =
        if lab.profile.kind == Kind::Ipam { one.container.clone() } else { one.container.interface("eth1") };
    let two = attached(lab, &second, &call)?;
    let reply = lab.run(&one.call("DEL"))?;
    lab.accepted(&reply, "DEL from the first network");
    still_true(lab, &two, "DEL from one network harmed the other")?;
    if lab.need_verb("CHECK").is_ok() {
        let reply = lab.run(&two.call("CHECK"))?;
        lab.accepted(&reply, "CHECK of the second network after DEL from the first");
    }
    let reply = lab.run(&two.call("DEL"))?;
    lab.accepted(&reply, "DEL from the second network after DEL from the first");
    Ok(())
}

/// An attachment to the first network, and the ADD to a second: the same interface name for address management, which makes none.
fn two(lab: &mut Lab) -> Outcome<(Attachment, Call)> {
    let first = lab.container("c1")?;
    let second = if lab.profile.kind == Kind::Ipam { first.clone() } else { first.interface("eth1") };
    let call = of_network(lab, &first, 1)?;
    let one = attached(lab, &first, &call)?;
    let call = of_network(lab, &second, 2)?;
    Ok((one, call))
}
