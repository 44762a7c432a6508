//! Capabilities: what a runtime asks for in `runtimeConfig`, as the specification, the conventions and containerd write it.

mod addresses;
mod ports;

use serde_json::{Value, json};

use self::ports::publishes;
use super::arg::{gives_addresses, mac_after, sets_mac};
use super::protocol::{leftovers, ready, refused_with, taken};
use super::{ALL, Case};
use crate::lab::{Call, Container, Lab};
use crate::profile::{Profile, merge};
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("CAP-01", "mac", ALL, mac).when(sets_mac),
    Case::new("CAP-01", "ips", ALL, addresses::ips).when(gives_addresses),
    Case::new("CAP-01", "ip-ranges", ALL, addresses::ip_ranges).when(addresses::takes_ranges),
    Case::new("CAP-01", "port-mappings", ALL, ports::published).when(publishes),
    Case::new("CAP-02", "unusable", ALL, unusable).when(|profile| !profile.invalid_runtime.is_empty()),
    Case::new("CAP-03", "asks-for-nothing", ALL, asks_for_nothing),
    Case::new("CAP-04", "ip-ranges", ALL, addresses::keys_of_ranges).when(addresses::takes_ranges),
    Case::new("CAP-04", "port-protocols", ALL, ports::protocols).when(publishes),
    Case::new("CAP-04", "port-host-ip", ALL, ports::host_ip).when(publishes),
    Case::new("CAP-04", "dns", ALL, dns).when(|profile| profile.capabilities.contains_key("dns")),
    Case::new("CAP-05", "prefix", ALL, addresses::prefix).when(gives_addresses),
    Case::new("CAP-06", "port-mappings", ALL, ports::capital_keys).when(publishes),
    Case::new("CAP-06", "ip-ranges", ALL, addresses::flat_ranges).when(addresses::takes_ranges),
    Case::new("CAP-06", "mac", ALL, mac_in_capitals).when(sets_mac),
    Case::new("CAP-07", "keys-of-others", ALL, keys_of_others),
    Case::new("CAP-07", "port-mappings", ALL, ports::odd_values).when(publishes),
];

/// An ADD whose `runtimeConfig` is only this, with the capabilities declared; and without what the configuration says of the same.
fn asking(lab: &Lab, container: &Container, runtime: &Value) -> Call {
    lab.call("ADD", container).edit(|config| {
        for key in runtime.as_object().into_iter().flat_map(serde_json::Map::keys) {
            config["capabilities"][key] = json!(true);
            if let Some(object) = config.as_object_mut() {
                object.remove(key);
            }
        }
        config["runtimeConfig"] = runtime.clone();
    })
}

const MAC: &str = "02:00:00:00:66:0a";

fn mac(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = asking(lab, &container, &json!({ "mac": MAC }));
    if let Some(got) = mac_after(lab, &container, &call, &format!("ADD with runtimeConfig.mac {MAC}"))? {
        lab.check(got == MAC, None, || format!("runtimeConfig.mac asks for {MAC}, the interface has {got}"));
    }
    Ok(())
}

/// Go's decoder takes a key in any case.
fn mac_in_capitals(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = asking(lab, &container, &json!({ "Mac": MAC }))
        .edit(|config| merge(config, &json!({ "mac": "<remove>" })));
    if let Some(got) = mac_after(lab, &container, &call, &format!("ADD with runtimeConfig.Mac {MAC}"))? {
        lab.check(got == MAC, None, || format!("runtimeConfig.Mac asks for {MAC}, the interface has {got}"));
    }
    Ok(())
}

fn dns(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let asked = json!({ "servers": ["192.0.2.53"], "searches": ["a.example.org"], "options": ["ndots:2"] });
    let reply = taken(
        lab,
        &container,
        &asking(lab, &container, &json!({ "dns": asked })),
        "ADD with runtimeConfig.dns",
    )?;
    let got = reply.document().unwrap_or_default()["dns"].clone();
    for (theirs, ours) in [("servers", "nameservers"), ("searches", "search"), ("options", "options")] {
        lab.check(got[ours] == asked[theirs], Some(&reply), || {
            format!("runtimeConfig.dns.{theirs} is {}, the result's dns.{ours} {}", asked[theirs], got[ours])
        });
    }
    Ok(())
}

fn unusable(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for variant in lab.profile.invalid_runtime.clone() {
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container).edit(|config| merge(config, &variant.patch));
        let reply = lab.run(&call)?;
        let why = format!("ADD with a runtimeConfig with {}", variant.why);
        refused_with(lab, &reply, 7, &why);
        if reply.failed() {
            leftovers(lab, &before, &format!("{why} was refused"))?;
        }
        lab.run(&call.verb("DEL"))?;
    }
    Ok(())
}

fn asks_for_nothing(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let empty = |value: &Value| match value {
        Value::Array(_) => json!([]),
        Value::String(_) => json!(""),
        _ => json!({}),
    };
    let mut rows = vec![
        ("missing".to_owned(), None),
        ("null".to_owned(), Some(Value::Null)),
        ("empty".to_owned(), Some(json!({}))),
    ];
    for (key, example) in lab.profile.capabilities.clone() {
        rows.push((format!("{{\"{key}\": null}}"), Some(json!({ key.as_str(): null }))));
        rows.push((
            format!("{{\"{key}\": {}}}", empty(&example)),
            Some(json!({ key.as_str(): empty(&example) })),
        ));
    }
    for (what, runtime) in rows {
        let call = lab.call("ADD", &container).edit(|config| {
            for key in lab.profile.capabilities.keys() {
                config["capabilities"][key] = json!(true);
            }
            match &runtime {
                Some(value) => config["runtimeConfig"] = value.clone(),
                None => merge(config, &json!({ "runtimeConfig": "<remove>" })),
            }
        });
        taken(lab, &container, &call, &format!("ADD where runtimeConfig is {what}"))?;
    }
    Ok(())
}

/// What a runtime that knows many capabilities may pass, to whom it may concern.
fn keys_of_others(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let own = |profile: &Profile, key: &str| profile.capabilities.contains_key(key);
    let others = [
        ("io.kubernetes.cri.pod-annotations", json!({ "kubernetes.io/config.source": "api", "a": "" })),
        ("cgroupPath", json!("/kubepods/burstable/pod1/c1")),
        ("aliases", json!({ "cnfnet": ["web"] })),
        ("infinibandGUID", json!("")),
        ("deviceID", json!("")),
        ("dns", json!({ "Servers": null, "Searches": null, "Options": null })),
        ("bandwidth", json!({ "IngressRate": 0, "IngressBurst": 0, "EgressRate": 0, "EgressBurst": 0 })),
        ("portMappings", json!([])),
        ("ipRanges", json!([])),
    ];
    for (key, value) in others {
        if own(&lab.profile, key) {
            continue;
        }
        let call = lab.call("ADD", &container).edit(|config| {
            config["capabilities"][key] = json!(true);
            config["runtimeConfig"][key] = value.clone();
        });
        taken(lab, &container, &call, &format!("ADD with {key} in runtimeConfig, which is not for it"))?;
    }
    Ok(())
}
