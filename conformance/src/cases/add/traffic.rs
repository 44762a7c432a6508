//! Packets, sent by `ping` from the namespaces themselves.

use serde_json::Value;

use crate::cases::attach::{attached, in_each_version};
use crate::cases::truth::{cidr, list, upgraded};
use crate::lab::{Container, Lab};
use crate::verdict::Outcome;

/// Bytes of IPv4 and ICMP headers around the payload of `ping -s`.
const HEADERS: u32 = 28;

pub(super) fn up(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            let name = &attachment.container.ifname;
            let up = attachment.world.inside.link(name).is_some_and(|link| link.up);
            lab.check(up, Some(&attachment.reply), || format!("after ADD {name} is not up"));
            Ok(())
        },
    )
}

/// The addresses that a result gives the container.
fn own(result: &Value) -> Vec<String> {
    let result = if result["ips"].is_array() { result.clone() } else { upgraded(result) };
    let inside = |ip: &&Value| {
        let interface = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
        let interface = interface.and_then(|index| result["interfaces"].get(index));
        interface.is_none_or(|interface| interface["sandbox"].as_str().is_some_and(|s| !s.is_empty()))
    };
    list(&result, "ips")
        .filter(inside)
        .filter_map(|ip| Some(cidr(ip["address"].as_str()?)?.ip().to_string()))
        .collect()
}

/// One packet, from the host or a container, which must come back.
fn passes(lab: &mut Lab, from: Option<&Container>, to: &str, options: &str) -> Outcome {
    let ping = format!("ping -n -q -c 1 -W 2 {options} {to}");
    let (line, place) = match from {
        Some(container) => (format!("ip netns exec {} {ping}", container.name), container.name.as_str()),
        None => (ping.clone(), "the host"),
    };
    let (came, stdout, stderr) = lab.try_sh(&line)?;
    lab.check(came, None, || {
        let said: Vec<&str> = stdout.lines().chain(stderr.lines()).filter(|line| !line.is_empty()).collect();
        format!("no answer to `{ping}` from {place}: {}", said.last().unwrap_or(&""))
    });
    Ok(())
}

/// Both ways, right after ADD: no address may still be waiting for duplicate address detection.
pub(super) fn host_and_container(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let result = lab.add(&container)?;
    for address in own(&result) {
        passes(lab, None, &address, "")?;
    }
    // The gateways that are the host's own: those the plugin gave it.
    let host = lab.host()?;
    for ip in list(&result, "ips") {
        let Some(gateway) = ip["gateway"].as_str() else { continue };
        if host.addresses.iter().any(|address| address.network.ip().to_string() == gateway) {
            passes(lab, Some(&container), gateway, "")?;
        }
    }
    Ok(())
}

/// Two containers of one network, in each family, and with packets as large as their MTU.
pub(super) fn container_and_container(lab: &mut Lab) -> Outcome {
    let first = lab.container("c1")?;
    let second = lab.container("c2")?;
    let to_first = own(&lab.add(&first)?);
    let to_second = own(&lab.add(&second)?);
    for address in &to_second {
        passes(lab, Some(&first), address, "")?;
    }
    for address in &to_first {
        passes(lab, Some(&second), address, "")?;
    }
    let mtu = lab.view(&first)?.link(&first.ifname).map_or(0, |link| link.mtu);
    if let Some(address) = to_second.iter().find(|address| !address.contains(':')) {
        let size = mtu.saturating_sub(HEADERS);
        passes(lab, Some(&first), address, &format!("-M do -s {size}"))?;
    }
    Ok(())
}

pub(super) fn loopback(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.add(&container)?;
    passes(lab, Some(&container), "127.0.0.1", "")?;
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        passes(lab, Some(&container), "::1", "")?;
    }
    Ok(())
}

/// A chained plugin must not cut what passed before it.
pub(super) fn still_passes(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let base = lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    attached(lab, &container, &call)?;
    for address in own(&base) {
        passes(lab, None, &address, "")?;
    }
    for ip in list(&base, "ips") {
        if let Some(gateway) = ip["gateway"].as_str() {
            passes(lab, Some(&container), gateway, "")?;
        }
    }
    Ok(())
}
