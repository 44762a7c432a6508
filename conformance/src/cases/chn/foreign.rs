//! DEL and CHECK get the result of the whole chain, with what later plugins have added.

use serde_json::{Value, json};

use crate::cases::attach::{Attachment, attached, since};
use crate::lab::Lab;
use crate::verdict::{Outcome, Stop};

/// An attachment, and a later plugin's work: an interface with an address and a route in the container, and their entries in the result.
fn with_later(lab: &mut Lab) -> Outcome<(Attachment, Value)> {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    let attachment = attached(lab, &container, &call)?;
    lab.sh_in(
        &container,
        "ip link add cnflater type bridge && ip addr add 198.51.100.2/24 dev cnflater && ip link set cnflater up \
         && ip route add 203.0.113.0/24 via 198.51.100.1",
    )?;
    let mut result = attachment.result.clone();
    let empty = || Value::Array(Vec::new());
    let push = |list: &mut Value, entry: Value| {
        if !list.is_array() {
            *list = empty();
        }
        if let Some(list) = list.as_array_mut() {
            list.push(entry);
        }
    };
    push(&mut result["interfaces"], json!({ "name": "cnflater", "sandbox": container.netns }));
    let index = result["interfaces"].as_array().map_or(0, Vec::len) - 1;
    let mut address = json!({ "address": "198.51.100.2/24", "gateway": "198.51.100.1", "interface": index });
    if !since(&lab.version, "1.0.0") {
        address["version"] = json!("4");
    }
    push(&mut result["ips"], address);
    push(&mut result["routes"], json!({ "dst": "203.0.113.0/24", "gw": "198.51.100.1" }));
    result["dns"] = json!({ "nameservers": ["198.51.100.1"] });
    Ok((attachment, result))
}

pub(super) fn check(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let (attachment, result) = with_later(lab)?;
    let reply = lab.run(&attachment.call("CHECK"))?;
    if !reply.ok() {
        return Err(Stop::Skip(format!("needs a CHECK that works (see CHK-01): {}", reply.summary())));
    }
    let reply = lab.run(&attachment.call("CHECK").previous(&result))?;
    lab.accepted(&reply, "CHECK with the result of a chain that a later plugin has added to");
    Ok(())
}

pub(super) fn del(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?; // DEL has prevResult since the same version
    let (attachment, result) = with_later(lab)?;
    let reply = lab.run(&attachment.call("DEL").previous(&result))?;
    lab.accepted(&reply, "DEL with the result of a chain that a later plugin has added to");
    let view = lab.view(&attachment.container)?;
    let kept = view.link("cnflater").is_some_and(|link| link.up)
        && view.addresses_of("cnflater").iter().any(|address| address.to_string() == "198.51.100.2/24")
        && view.routes.iter().any(|route| route.destination.to_string() == "203.0.113.0/24");
    lab.check(kept, Some(&reply), || "DEL took away what a later plugin had made".to_owned());
    let gone = attachment.before.inside.link(&attachment.container.ifname).is_some()
        || view.link(&attachment.container.ifname).is_none();
    lab.check(gone, Some(&reply), || {
        format!("after DEL the container still has {}", attachment.container.ifname)
    });
    Ok(())
}
