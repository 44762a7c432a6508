//! `ips` and `ipRanges`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::asking;
use crate::cases::arg::wanted;
use crate::cases::protocol::{addresses, delegates, ready, taken};
use crate::lab::{Call, Container, Lab, parse_version};
use crate::profile::{Kind, Profile};
use crate::verdict::Outcome;

/// It takes ranges of addresses at run time: itself or through its delegate.
pub(super) fn takes_ranges(profile: &Profile) -> bool {
    profile.capabilities.contains_key("ipRanges") && (profile.kind == Kind::Ipam || delegates(profile))
}

/// The networks in the result of an ADD, which is taken back; empty if it failed, which then is told.
fn given(lab: &mut Lab, container: &Container, call: &Call, why: &str) -> Outcome<Vec<IpNetwork>> {
    let reply = taken(lab, container, call, why)?;
    let result = reply.document().unwrap_or_default();
    let parsed = |address: String| address.parse().ok();
    Ok(if reply.ok() { addresses(&result).into_iter().filter_map(parsed).collect() } else { Vec::new() })
}

fn list(networks: &[IpNetwork]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn ips(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let asked = lab.profile.capabilities["ips"].clone();
    let call = asking(lab, &container, &json!({ "ips": asked }));
    let got = given(lab, &container, &call, &format!("ADD with runtimeConfig.ips {asked}"))?;
    for text in asked.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let address = text.split('/').next().unwrap_or_default();
        let found = got.iter().any(|network| network.ip().to_string() == address);
        lab.check(found || got.is_empty(), None, || {
            format!("runtimeConfig.ips asks for {asked}, given: {}", list(&got))
        });
    }
    Ok(())
}

pub(super) fn ip_ranges(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let asked = lab.profile.capabilities["ipRanges"].clone();
    let call = asking(lab, &container, &json!({ "ipRanges": asked }));
    let got = given(lab, &container, &call, &format!("ADD with runtimeConfig.ipRanges {asked}"))?;
    for set in asked.as_array().into_iter().flatten() {
        let subnets: Vec<IpNetwork> = set
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|range| range["subnet"].as_str()?.parse().ok())
            .collect();
        let found = got.iter().any(|network| subnets.iter().any(|subnet| subnet.contains(network.ip())));
        lab.check(found || got.is_empty(), None, || {
            format!("runtimeConfig.ipRanges asks for an address of {}, given: {}", list(&subnets), list(&got))
        });
    }
    Ok(())
}

/// One address of each family, so that there is no choice, with a gateway that is not the first address.
const EXACT: [(&str, &str, &str); 2] =
    [("10.77.0.0/24", "10.77.0.50", "10.77.0.254"), ("fd00:77::/64", "fd00:77::50", "fd00:77::ff")];

pub(super) fn keys_of_ranges(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let ranges: Vec<Value> = EXACT
        .iter()
        .map(|(subnet, only, gateway)| json!([{ "subnet": subnet, "rangeStart": only, "rangeEnd": only, "gateway": gateway }]))
        .collect();
    exact(lab, &container, &json!({ "ipRanges": ranges }), "lists of ranges")
}

/// containerd's structures have no tags, so its keys begin with capitals; and its ranges are not lists of lists.
pub(super) fn flat_ranges(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let ranges: Vec<Value> = EXACT
        .iter()
        .map(|(subnet, only, gateway)| json!({ "Subnet": subnet, "RangeStart": only, "RangeEnd": only, "Gateway": gateway }))
        .collect();
    exact(
        lab,
        &container,
        &json!({ "ipRanges": ranges }),
        "a flat list of ranges with capital keys, as containerd's,",
    )
}

/// Asks for [`EXACT`] and looks for it in the result. The legacy formats have room for one address of each family.
fn exact(lab: &mut Lab, container: &Container, runtime: &Value, what: &str) -> Outcome {
    let why = format!("ADD with {what} in runtimeConfig.ipRanges");
    let reply = taken(lab, container, &asking(lab, container, runtime), &why)?;
    if !reply.ok() || parse_version(&lab.version) < parse_version("0.3.0") {
        return Ok(());
    }
    let result = reply.document().unwrap_or_default();
    for (_, only, gateway) in EXACT {
        let wanted: Option<IpAddr> = only.parse().ok();
        let entry = result["ips"].as_array().into_iter().flatten().find(|ip| {
            let network = ip["address"].as_str().and_then(|text| text.parse::<IpNetwork>().ok());
            network.map(|network| network.ip()) == wanted
        });
        lab.check(entry.is_some_and(|entry| entry["gateway"] == gateway), Some(&reply), || {
            format!("{why}: {only} with gateway {gateway} is asked for, given: {}", result["ips"])
        });
    }
    Ok(())
}

/// With a prefix length or without: either way that address, or an error.
pub(super) fn prefix(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let (network, address, _) = wanted(lab)?;
    for asked in [
        address.clone(),
        network.to_string(),
        format!("{address}/{}", if network.is_ipv4() { 32 } else { 128 }),
    ] {
        let before = lab.snapshot()?;
        let call = asking(lab, &container, &json!({ "ips": [asked] }));
        let reply = lab.run(&call)?;
        let why = format!("ADD with runtimeConfig.ips [\"{asked}\"]");
        if reply.failed() {
            lab.refused(&reply, None, &why);
            lab.unchanged(&before, &format!("{why} was refused, and something is left"))?;
            continue;
        }
        let got = addresses(&reply.document().unwrap_or_default());
        lab.check(
            got.iter().any(|got| got.split('/').next() == Some(address.as_str())),
            Some(&reply),
            || format!("{why}, given: {}", got.join(", ")),
        );
        lab.run(&call.verb("DEL"))?;
    }
    Ok(())
}
