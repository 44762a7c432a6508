//! Interfaces and addresses of results.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;

use serde_json::{Value, json};

use crate::cases::attach::{addresses, attached, delegated, in_each_version, since, with_routes};
use crate::cases::truth::{About, Falsehood, Flaw, Part, cidr, flaws, joined, list, upgraded};
use crate::lab::{Call, Container, Lab, in_version};
use crate::profile::{self, Kind};
use crate::verdict::{Outcome, Stop};

fn tell_falsehoods(lab: &mut Lab, abouts: &[About], least: &str) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, least),
        |lab, attachment| {
            let mut found: Vec<Falsehood> = attachment.world.falsehoods(&attachment.result);
            found.retain(|falsehood| abouts.contains(&falsehood.about));
            let version = &attachment.version;
            lab.check(found.is_empty(), Some(&attachment.reply), || {
                format!("version {version}: {}", joined(&found))
            });
            Ok(())
        },
    )
}

fn tell_flaws(lab: &mut Lab, part: Part) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            let mut found: Vec<Flaw> = flaws(&attachment.result, &attachment.version);
            found.retain(|flaw| flaw.part == part);
            let version = &attachment.version;
            lab.check(found.is_empty(), Some(&attachment.reply), || {
                format!("version {version}: {}", joined(&found))
            });
            Ok(())
        },
    )
}

pub(super) fn names(lab: &mut Lab) -> Outcome {
    tell_flaws(lab, Part::Interface)?;
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    let attachment = attached(lab, &container, &call)?;
    let mut seen = BTreeSet::new();
    for interface in list(&attachment.result, "interfaces") {
        let text = |key: &str| interface[key].as_str().unwrap_or_default();
        lab.check(seen.insert((text("name"), text("sandbox"))), Some(&attachment.reply), || {
            format!("the result lists {:?} twice in the same place", text("name"))
        });
    }
    Ok(())
}

pub(super) fn hardware_addresses(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, "0.3.0"),
        |lab, attachment| {
            let flaws = flaws(&attachment.result, &attachment.version).into_iter();
            let mut found: Vec<String> =
                flaws.filter(|flaw| flaw.part == Part::Mac).map(|flaw| flaw.text).collect();
            let wrong = attachment.world.falsehoods(&attachment.result).into_iter();
            found.extend(wrong.filter(|f| f.about == About::Mac).map(|f| f.text));
            let version = &attachment.version;
            lab.check(found.is_empty(), Some(&attachment.reply), || {
                format!("version {version}: {}", joined(&found))
            });
            Ok(())
        },
    )
}

pub(super) fn sandboxes(lab: &mut Lab) -> Outcome {
    tell_falsehoods(lab, &[About::Sandbox, About::Interface], "0.3.0")
}

/// `CNI_NETNS` in another spelling: the result repeats what was given, and does not tidy it up.
pub(super) fn sandbox_verbatim(lab: &mut Lab) -> Outcome {
    if !since(&lab.version, "0.3.0") {
        return Err(Stop::Skip("interfaces are listed since 0.3.0".to_owned()));
    }
    let mut container = lab.container("c1")?;
    "/run/netns/../netns//c1".clone_into(&mut container.netns);
    lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    let attachment = attached(lab, &container, &call)?;
    let listed = list(&attachment.result, "interfaces")
        .any(|interface| interface["name"] == *container.ifname && interface["sandbox"] == *container.netns);
    lab.check(listed, Some(&attachment.reply), || {
        format!(
            "no interface {} with the sandbox {:?}: {}",
            container.ifname, container.netns, attachment.result["interfaces"]
        )
    });
    Ok(())
}

pub(super) fn mtus(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, "0.3.0"),
        |lab, attachment| {
            let found = attachment.world.falsehoods(&attachment.result);
            let wrong: Vec<&Falsehood> = found.iter().filter(|f| f.about == About::Mtu).collect();
            lab.check(wrong.is_empty(), Some(&attachment.reply), || joined(&wrong));
            let missing: Vec<&Falsehood> = found.iter().filter(|f| f.about == About::MtuMissing).collect();
            // A chained plugin passes on what it got, and the earlier one of these cases tells no MTU.
            if !missing.is_empty() && lab.profile.kind != Kind::Meta {
                // Required "if applicable", which an interface of the kernel always is; but no consumer fails without it.
                lab.warn(joined(&missing), Some(&attachment.reply));
            }
            Ok(())
        },
    )
}

pub(super) fn configured_mtu(lab: &mut Lab) -> Outcome {
    const MTU: u32 = 1280; // the least that IPv6 takes
    let key = lab.profile.facts.get("mtu").and_then(Value::as_str).unwrap_or("mtu").to_owned();
    let container = lab.container("c1")?;
    let call = lab.call("ADD", &container).edit(|config| profile::merge(config, &json!({ key: MTU })));
    let attachment = attached(lab, &container, &call)?;
    let mtu = attachment.world.inside.link(&container.ifname).map(|link| link.mtu);
    lab.check(mtu == Some(MTU), Some(&attachment.reply), || {
        format!("the configuration has the MTU {MTU}, the kernel {mtu:?}")
    });
    let mut found = attachment.world.falsehoods(&attachment.result);
    found.retain(|falsehood| falsehood.about == About::Mtu);
    lab.check(found.is_empty(), Some(&attachment.reply), || joined(&found));
    Ok(())
}

/// Every string under this key in the interfaces of a result in the newest version.
fn strings(lab: &mut Lab, key: &str) -> Outcome<Vec<String>> {
    if !since(&lab.version, "1.1.0") {
        return Err(Stop::Skip(format!(
            "{key} came with 1.1.0, and the plugin supports {}",
            lab.versions.join(", ")
        )));
    }
    let container = lab.container("c1")?;
    let result = lab.add(&container)?;
    Ok(list(&result, "interfaces")
        .filter_map(|interface| interface[key].as_str().map(str::to_owned))
        .collect())
}

pub(super) fn sockets(lab: &mut Lab) -> Outcome {
    for path in strings(lab, "socketPath")? {
        let socket = path.starts_with('/')
            && std::fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_socket());
        lab.check(socket, None, || format!("socketPath {path:?} is not the absolute path of a socket"));
    }
    Ok(())
}

pub(super) fn devices(lab: &mut Lab) -> Outcome {
    for device in strings(lab, "pciID")? {
        let there = std::path::Path::new("/sys/bus/pci/devices").join(&device).exists();
        lab.check(there && !device.is_empty(), None, || {
            format!("pciID {device:?} is no device of this machine")
        });
    }
    Ok(())
}

pub(super) fn own_addresses(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            let mut found: Vec<String> = flaws(&attachment.result, &attachment.version)
                .into_iter()
                .filter(|flaw| flaw.part == Part::Address)
                .map(|flaw| flaw.text)
                .collect();
            let old = !attachment.result["ips"].is_array();
            let result = if old { upgraded(&attachment.result) } else { attachment.result.clone() };
            for ip in list(&result, "ips") {
                let Some(network) = ip["address"].as_str().and_then(cidr) else { continue };
                let bits = if network.is_ipv6() { 128 } else { 32 };
                // A link of two has no address of its own (RFC 3021, RFC 6164).
                if network.prefix() + 1 < bits && network.ip() == network.network() {
                    found.push(format!("{network} is the address of the subnet, not of a container"));
                }
            }
            let version = &attachment.version;
            lab.check(found.is_empty(), Some(&attachment.reply), || {
                format!("version {version}: {}", joined(&found))
            });
            Ok(())
        },
    )
}

pub(super) fn gateways(lab: &mut Lab) -> Outcome {
    tell_flaws(lab, Part::Gateway)
}

/// What address management says of gateways is what the result says.
pub(super) fn gateways_of_delegate(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let call = delegated(lab, &container, &addresses(1))?;
    let attachment = attached(lab, &container, &call)?;
    let result = if attachment.result["ips"].is_array() {
        attachment.result.clone()
    } else {
        upgraded(&attachment.result)
    };
    for gateway in ["10.88.1.1", "fd00:88:1::1"] {
        let told = list(&result, "ips").any(|ip| ip["gateway"] == gateway);
        lab.check(told, Some(&attachment.reply), || {
            format!("address management gave the gateway {gateway}, and no address of the result has it")
        });
    }
    Ok(())
}

pub(super) fn indexes(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, "0.3.0"),
        |lab, attachment| {
            let mut found: Vec<String> = flaws(&attachment.result, &attachment.version)
                .into_iter()
                .filter(|flaw| flaw.part == Part::Index)
                .map(|flaw| flaw.text)
                .collect();
            let wrong = attachment.world.falsehoods(&attachment.result).into_iter();
            found.extend(wrong.filter(|f| f.about == About::Address).map(|f| f.text));
            let version = &attachment.version;
            lab.check(found.is_empty(), Some(&attachment.reply), || {
                format!("version {version}: {}", joined(&found))
            });
            // Without an index containerd books an address on eth0, whatever it belongs to.
            let bare = list(&attachment.result, "ips").filter(|ip| ip["interface"].is_null()).count();
            let listed = list(&attachment.result, "interfaces").count();
            lab.check(bare == 0 || listed == 0, Some(&attachment.reply), || {
                format!("version {version}: {bare} addresses point at no interface")
            });
            Ok(())
        },
    )
}

pub(super) fn no_indexes(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, "0.3.0"),
        |lab, attachment| {
            let indexed = list(&attachment.result, "ips").any(|ip| ip.get("interface").is_some());
            let interfaces = list(&attachment.result, "interfaces").count();
            lab.check(!indexed && interfaces == 0, Some(&attachment.reply), || {
                format!("address management knows no interfaces, and lists some: {}", attachment.result)
            });
            Ok(())
        },
    )
}

/// An address of the host, and one of no interface at all, in what the earlier plugins say.
pub(super) fn foreign_addresses(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let call = with_foreign(lab, &container)?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD after a result with an address of the host and one of no interface");
    if let (true, Ok(result)) = (reply.ok(), reply.document()) {
        for address in ["198.51.100.77/32", "10.55.1.1/24"] {
            let kept = list(&result, "ips").any(|ip| ip["address"] == address);
            lab.check(kept, Some(&reply), || {
                format!("the result has lost {address}, which is outside the container")
            });
        }
    }
    Ok(())
}

fn with_foreign(lab: &mut Lab, container: &Container) -> Outcome<Call> {
    let mut base = lab.beneath(container)?;
    let extra = json!({ "cniVersion": "1.0.0", "ips": [
        { "address": "10.55.1.1/24", "interface": 0 },
        { "address": "198.51.100.77/32" },
    ] });
    let extra = in_version(&with_routes(extra, json!([])), &lab.version);
    if let Some(ips) = base["ips"].as_array_mut() {
        ips.extend(list(&extra, "ips").cloned());
    }
    Ok(lab.call("ADD", container).previous(&base))
}
