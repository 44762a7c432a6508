//! `CNI_ARGS` and `args`: what a user or a runtime adds to a single call.

use serde_json::{Value, json};

use super::protocol::{addresses, delegates, reads_args, ready, taken, untouched};
use super::{ALL, Case};
use crate::lab::{Call, Container, Lab};
use crate::profile::{Kind, Profile};
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ARG-01", "keys-of-others", ALL, keys_of_others),
    Case::new("ARG-02", "form", ALL, form).when(reads_args),
    Case::new("ARG-02", "ignore-unknown", ALL, ignore_unknown).when(reads_args),
    Case::new("ARG-03", "kubernetes", ALL, kubernetes),
    Case::new("ARG-04", "ip", ALL, ip).when(gives_addresses),
    Case::new("ARG-04", "mac", ALL, mac).when(sets_mac),
    Case::new("ARG-05", "ip", ALL, ip_of_args_wins).when(gives_addresses),
    Case::new("ARG-05", "mac", ALL, mac_of_args_wins).when(sets_mac),
    Case::new("ARG-06", "odd-shapes", ALL, odd_shapes),
];

/// It can be asked for an address: itself or through its delegate.
pub(super) fn gives_addresses(profile: &Profile) -> bool {
    profile.capabilities.contains_key("ips") && (profile.kind == Kind::Ipam || delegates(profile))
}

/// It can be asked for a hardware address.
pub(super) fn sets_mac(profile: &Profile) -> bool {
    profile.capabilities.contains_key("mac")
}

fn keys_of_others(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut rows = vec!["IgnoreUnknown=1;FOO=BAR;X_y=1"];
    // A plugin that reads the variable may insist on knowing all of it (ARG-02).
    if !reads_args(&lab.profile) {
        rows.extend(["FOO=BAR", "FOO=BAR;X=Y", "IgnoreUnknown=0;FOO=BAR"]);
    }
    for args in rows {
        let call = lab.call("ADD", &container).env("CNI_ARGS", args);
        let reply = taken(lab, &container, &call, &format!("ADD with CNI_ARGS={args:?}"))?;
        if !reply.ok() && !reads_args(&lab.profile) {
            lab.note("a plugin that reads CNI_ARGS has the fact `reads_args = true` in its profile");
        }
    }
    Ok(())
}

fn form(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let before = lab.snapshot()?;
    for (args, what) in [
        ("FOO", "a key without a value"),
        ("IgnoreUnknown=1;FOO", "a second key without a value"),
        ("IgnoreUnknown=1;A=B=C", "two equals signs"),
        ("IgnoreUnknown=1;", "a semicolon at the end"),
        ("IgnoreUnknown=1;;A=B", "two semicolons"),
        (";", "nothing but a semicolon"),
        ("IgnoreUnknown=maybe;FOO=BAR", "an IgnoreUnknown that is neither true nor false"),
    ] {
        let call = lab.call("ADD", &container).env("CNI_ARGS", args);
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("ADD with {what}, CNI_ARGS={args:?}"));
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
        }
    }
    lab.unchanged(&before, "CNI_ARGS could not be read, and something is left")?;
    Ok(())
}

fn ignore_unknown(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for args in [
        "IgnoreUnknown=1;FOO=BAR",
        "FOO=BAR;IgnoreUnknown=true",
        "IgnoreUnknown=TRUE;FOO=",
        "IgnoreUnknown=0;FOO=1;IgnoreUnknown=1",
    ] {
        let call = lab.call("ADD", &container).env("CNI_ARGS", args);
        taken(lab, &container, &call, &format!("ADD with CNI_ARGS={args:?}"))?;
    }
    for args in [
        "FOO=BAR",
        "IgnoreUnknown=0;FOO=BAR",
        "ignoreunknown=1;FOO=BAR",
        "IgnoreUnknown=1;FOO=1;IgnoreUnknown=false",
    ] {
        let call = lab.call("ADD", &container).env("CNI_ARGS", args);
        let reply = lab.run(&call)?;
        lab.refused(
            &reply,
            None,
            &format!("ADD with an unknown key that is not to be ignored, CNI_ARGS={args:?}"),
        );
        if reply.ok() {
            lab.run(&call.verb("DEL"))?;
        }
    }
    Ok(())
}

fn kubernetes(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for args in [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0a1b2c;K8S_POD_UID=5d4f0a56-c0c8-4c2f-8d3b-0f8e7f1c2d3e",
        "K8S_POD_UID=;K8S_POD_INFRA_CONTAINER_ID=0a1b2c;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default;IgnoreUnknown=1",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=;K8S_POD_NAME=;K8S_POD_INFRA_CONTAINER_ID=",
    ] {
        let mut result = Value::Null;
        for verb in
            super::protocol::verbs(lab).into_iter().filter(|verb| matches!(*verb, "ADD" | "CHECK" | "DEL"))
        {
            let call = super::protocol::call(lab, verb, &container, &result).env("CNI_ARGS", args);
            let reply = lab.run(&call)?;
            lab.accepted(&reply, &format!("{verb} with the CNI_ARGS of a pod, {args:?}"));
            if verb == "ADD" {
                result = reply.document().unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// The address that the profile's example asks for, without its prefix length, and another of the same network.
pub(super) fn wanted(lab: &Lab) -> Outcome<(ipnetwork::IpNetwork, String, String)> {
    let example = lab.profile.capabilities["ips"][0].as_str().unwrap_or_default();
    let network: ipnetwork::IpNetwork = example.parse().map_err(|error| {
        crate::verdict::Stop::Broken(format!("profile: capabilities.ips[0] {example:?}: {error}"))
    })?;
    let one = network.ip();
    let other = match one {
        std::net::IpAddr::V4(ip) => std::net::IpAddr::V4(std::net::Ipv4Addr::from_bits(ip.to_bits() + 1)),
        std::net::IpAddr::V6(ip) => std::net::IpAddr::V6(std::net::Ipv6Addr::from_bits(ip.to_bits() + 1)),
    };
    Ok((network, one.to_string(), other.to_string()))
}

/// The bare addresses of an ADD's result, which is taken back.
fn given(lab: &mut Lab, container: &Container, call: &Call, why: &str) -> Outcome<Option<Vec<String>>> {
    let reply = taken(lab, container, call, why)?;
    let Ok(result) = reply.document() else { return Ok(None) };
    let bare = |address: String| address.split('/').next().unwrap_or_default().to_owned();
    Ok(reply.ok().then(|| addresses(&result).into_iter().map(bare).collect()))
}

fn ip(lab: &mut Lab) -> Outcome {
    let (network, address, _) = wanted(lab)?;
    let container = ready(lab, "c1")?;
    for args in [
        format!("IgnoreUnknown=1;IP={address}"),
        format!("IgnoreUnknown=1;IP={network}"),
        format!("IP={address}"),
    ] {
        let call = lab.call("ADD", &container).env("CNI_ARGS", &args);
        // Without IgnoreUnknown a plugin that delegates may refuse what only its delegate knows.
        if !args.starts_with("Ignore") && lab.profile.kind != Kind::Ipam {
            continue;
        }
        if let Some(got) = given(lab, &container, &call, &format!("ADD with CNI_ARGS={args:?}"))? {
            lab.check(got.contains(&address), None, || format!("CNI_ARGS={args:?} gives {}", got.join(", ")));
        }
    }
    let before = lab.snapshot()?;
    let reply = lab.run(&lab.call("ADD", &container).env("CNI_ARGS", "IgnoreUnknown=1;IP=not-an-address"))?;
    lab.refused(&reply, None, "ADD with an IP in CNI_ARGS that is none");
    lab.unchanged(&before, "an IP in CNI_ARGS was none, and something is left")?;
    Ok(())
}

fn ip_of_args_wins(lab: &mut Lab) -> Outcome {
    let (network, address, other) = wanted(lab)?;
    let container = ready(lab, "c1")?;
    for asked in [other.clone(), format!("{other}/{}", network.prefix())] {
        let call = lab
            .call("ADD", &container)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;IP={address}"))
            .edit(|config| config["args"] = json!({ "cni": { "ips": [asked] } }));
        if let Some(got) = given(
            lab,
            &container,
            &call,
            &format!("ADD with args.cni.ips {asked} and another IP in CNI_ARGS"),
        )? {
            lab.check(got.contains(&other) && !got.contains(&address), None, || {
                format!("args.cni.ips asks for {asked}, CNI_ARGS for {address}: given {}", got.join(", "))
            });
        }
    }
    Ok(())
}

/// The hardware address that the container's interface gets; the attachment is taken back.
pub(super) fn mac_after(
    lab: &mut Lab,
    container: &Container,
    call: &Call,
    why: &str,
) -> Outcome<Option<String>> {
    let reply = lab.run(call)?;
    if !lab.accepted(&reply, why) {
        return Ok(None);
    }
    let result = reply.document().unwrap_or_default();
    let is = lab.view(container)?.link(&container.ifname).map(|link| link.mac.clone());
    let said = result["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|interface| {
            interface["name"] == container.ifname.as_str() && interface["sandbox"] == container.netns.as_str()
        })
        .and_then(|interface| interface["mac"].as_str().map(str::to_owned));
    if said.is_some() {
        lab.check(said == is, Some(&reply), || {
            format!("{why}: the result says {said:?}, the interface has {is:?}")
        });
    }
    lab.run(&call.clone().verb("DEL").previous(&result))?;
    Ok(is)
}

const MAC: &str = "02:00:00:00:55:01";
const OTHER: &str = "02:00:00:00:55:02";

/// The configuration without a hardware address of its own.
fn without_mac(lab: &Lab, container: &Container) -> Call {
    lab.call("ADD", container).edit(|config| {
        if let Some(object) = config.as_object_mut() {
            object.remove("mac");
        }
    })
}

fn mac(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = without_mac(lab, &container).env("CNI_ARGS", format!("IgnoreUnknown=1;MAC={MAC}"));
    if let Some(got) = mac_after(lab, &container, &call, "ADD with MAC in CNI_ARGS")? {
        lab.check(got == MAC, None, || format!("CNI_ARGS asks for {MAC}, the interface has {got}"));
    }
    let before = lab.snapshot()?;
    let call = without_mac(lab, &container).env("CNI_ARGS", "IgnoreUnknown=1;MAC=not-an-address");
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "ADD with a MAC in CNI_ARGS that is none");
    if reply.ok() {
        lab.run(&call.verb("DEL"))?;
    }
    untouched_but_for_state(lab, &before)?;
    Ok(())
}

fn untouched_but_for_state(lab: &mut Lab, before: &crate::kernel::Snapshot) -> Outcome {
    if lab.profile.kind == Kind::Interface {
        lab.unchanged(before, "a MAC in CNI_ARGS was none, and something is left")?;
    } else {
        untouched(lab, before, "a MAC in CNI_ARGS was none")?;
    }
    Ok(())
}

fn mac_of_args_wins(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let call = without_mac(lab, &container)
        .env("CNI_ARGS", format!("IgnoreUnknown=1;MAC={MAC}"))
        .edit(|config| config["args"] = json!({ "cni": { "mac": OTHER } }));
    if let Some(got) = mac_after(lab, &container, &call, "ADD with args.cni.mac and another MAC in CNI_ARGS")?
    {
        lab.check(got == OTHER, None, || {
            format!("args.cni.mac asks for {OTHER}, CNI_ARGS for {MAC}: the interface has {got}")
        });
    }
    Ok(())
}

fn odd_shapes(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    for args in [
        json!({}),
        json!({ "cni": {} }),
        json!({ "cni": null }),
        json!({ "org.example": 1 }),
        json!({ "org.example": [[1], null] }),
        json!({ "cni": { "labels": [{ "key": "app", "value": "web" }] } }),
        json!({ "cni": { "org.example": { "a": { "b": [] } } } }),
        Value::Null,
    ] {
        let call = lab.call("ADD", &container).edit(|config| config["args"] = args.clone());
        taken(lab, &container, &call, &format!("ADD with args {args}"))?;
    }
    Ok(())
}
