//! Situations in which plugins in the field were seen to break an item that its other cases find held.

use serde_json::{Value, json};

use super::{ALL, CALLED, Case, INTERFACE, META};
use crate::lab::{Call, Container, Lab};
use crate::profile::{Variant, merge};
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ADD-10", "and-then-one-that-works", INTERFACE, add_after_a_failed_one)
        .when(|profile| profile.delegates),
    Case::new("CHK-07", "variants", ALL, check_variants).when(|profile| !profile.variants.is_empty()),
    Case::new("DEL-01", "variants", ALL, del_variants).when(|profile| !profile.variants.is_empty()),
    Case::new("CHK-05", "listening", INTERFACE, check_while_somebody_listens),
    Case::new("CHK-05", "interface-of-a-later-plugin", CALLED, check_with_a_later_interface),
    Case::new("DEL-10", "address-has-a-new-owner", META, late_del),
];

/// The same call with another of the profile's configurations.
fn with(variant: &Variant, call: Call) -> Call {
    call.edit(|config| merge(config, &variant.patch))
}

fn ready(lab: &mut Lab, number: usize) -> Outcome<Container> {
    let container = lab.container(&format!("c{number}"))?;
    lab.beneath(&container)?;
    Ok(container)
}

/// The very first ADD on this host fails, for want of address management, and is cleaned up. Then all is in order, and ADD must work.
fn add_after_a_failed_one(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let failing = |call: Call| call.edit(|config| config["ipam"] = json!({ "type": "cnf-not-there" }));
    lab.run(&failing(lab.call("ADD", &container)))?;
    lab.run(&failing(lab.call("DEL", &container)))?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    lab.accepted(&reply, "ADD after one that had failed (its delegate was missing) and after its DEL");
    Ok(())
}

/// CHECK right after ADD with each of them.
fn check_variants(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    for (number, variant) in lab.profile.variants.clone().iter().enumerate() {
        let container = ready(lab, number)?;
        let reply = lab.run(&with(variant, lab.call("ADD", &container)))?;
        let Some(result) = reply.document().ok().filter(|_| reply.ok()) else {
            lab.note("that is the finding of ADD-02/each-variant");
            continue;
        };
        let reply = lab.run(&with(variant, lab.call("CHECK", &container).previous(&result)))?;
        lab.accepted(&reply, &format!("CHECK right after ADD, {}", variant.why));
        lab.run(&with(variant, lab.call("DEL", &container).previous(&result)))?;
    }
    Ok(())
}

/// DEL after ADD, and after an ADD that failed, with each of them.
fn del_variants(lab: &mut Lab) -> Outcome {
    for (number, variant) in lab.profile.variants.clone().iter().enumerate() {
        let container = ready(lab, number)?;
        let before = lab.snapshot()?;
        let reply = lab.run(&with(variant, lab.call("ADD", &container)))?;
        let previous = reply.document().ok().filter(|_| reply.ok()).unwrap_or(Value::Null);
        let reply = lab.run(&with(variant, lab.call("DEL", &container).previous(&previous)))?;
        lab.accepted(&reply, &format!("DEL, {}", variant.why));
        lab.unchanged(&before, &format!("ADD and DEL, {}, left something", variant.why))?;
    }
    Ok(())
}

/// Somebody runs tcpdump on the host's side, which makes an interface promiscuous: nothing is wrong with the attachment.
fn check_while_somebody_listens(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let container = lab.container("c1")?;
    let result = lab.add(&container)?;
    for interface in result["interfaces"].as_array().into_iter().flatten() {
        let name = interface["name"].as_str().unwrap_or_default().to_owned();
        if interface["sandbox"].as_str().unwrap_or_default().is_empty() {
            lab.sh(&format!("ip link set dev {name} promisc on"))?;
        }
    }
    let reply = lab.run(&lab.call("CHECK", &container).previous(&result))?;
    if !reply.ok() {
        let message = format!(
            "CHECK while somebody listens on the host's interfaces (tcpdump makes them promiscuous): {}",
            reply.summary()
        );
        lab.warn(message, Some(&reply));
    }
    Ok(())
}

/// A later plugin of the chain has added an interface of its own, in the container, to the result.
fn check_with_a_later_interface(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let container = lab.container("c1")?;
    let mut result = lab.add(&container)?;
    lab.sh_in(&container, "ip link add extra0 type bridge && ip link set extra0 up")?;
    let mac = lab.view(&container)?.link("extra0").map(|link| link.mac.clone()).unwrap_or_default();
    let extra = json!({ "name": "extra0", "mac": mac, "sandbox": container.netns });
    if let Some(interfaces) = result["interfaces"].as_array_mut() {
        interfaces.push(extra);
    } else {
        result["interfaces"] = json!([extra]);
    }
    let reply = lab.run(&lab.call("CHECK", &container).previous(&result))?;
    lab.accepted(&reply, "CHECK with an interface in prevResult that a later plugin made in the container");
    Ok(())
}

/// The runtime is late: the container is long gone, its address belongs to another when its DEL comes.
fn late_del(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let old = lab.container("c1")?;
    let old_base = lab.beneath(&old)?;
    let old_result = lab.must_add(&lab.call("ADD", &old))?;
    let new = lab.container("c2")?;
    let new_base = lab.beneath(&new)?;
    let mut base = new_base.clone();
    base["ips"] = old_base["ips"].clone();
    for ip in old_base["ips"].as_array().into_iter().flatten() {
        let address = ip["address"].as_str().unwrap_or_default();
        lab.sh_in(&old, &format!("ip addr del {address} dev {}", old.ifname))?;
        let nodad = if address.contains(':') { " nodad" } else { "" };
        lab.sh_in(&new, &format!("ip addr add {address} dev {}{nodad}", new.ifname))?;
    }
    let result = lab.must_add(&lab.call("ADD", &new).previous(&base))?;
    let reply = lab.run(&lab.call("CHECK", &new).previous(&result))?;
    lab.accepted(&reply, "CHECK of a container whose address another had before");
    let reply = lab.run(&lab.call("DEL", &old).previous(&old_result))?;
    lab.accepted(&reply, "DEL of a container whose address is another's now");
    let reply = lab.run(&lab.call("CHECK", &new).previous(&result))?;
    lab.accepted(&reply, "CHECK of the new owner of the address, after the late DEL of the old one");
    Ok(())
}
