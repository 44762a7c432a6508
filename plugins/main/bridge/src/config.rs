//! The configuration of `bridge`, decoded and validated before anything is changed.

use std::fmt::Display;

use cni::{Cidr, Code, Dns, Failure, LinkName, Request};
use ferrule_core::firewall::Backend;
use ferrule_core::netlink::MacAddress;
use ferrule_core::resource::VlanTrunk;
use serde::Deserialize;

/// The keys as they are written.
#[expect(clippy::struct_excessive_bools, reason = "the configuration has these switches")]
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    ip_masq_exclude: Vec<Cidr>,
    mtu: i64,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<Trunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    #[serde(rename = "acceptRA")]
    accept_ra: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    dns: Option<Names>,
    args: Args,
    runtime_config: Mac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: Mac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mac {
    mac: String,
}

/// Lists that are there differ from lists that are not, even if they are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Names {
    nameservers: Option<Vec<String>>,
    domain: String,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Trunk {
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
    id: Option<i64>,
}

/// A valid configuration.
#[expect(clippy::struct_excessive_bools, reason = "the configuration has these switches")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bridge.
    pub bridge: LinkName,
    /// Put the gateway address on the host.
    pub gateway: bool,
    /// Make it the container's default gateway.
    pub default_gateway: bool,
    /// Replace another address of the bridge.
    pub force_address: bool,
    /// Masquerade, and where; `None` for the preferred backend.
    pub masquerade: Option<Option<Backend>>,
    /// Destinations that are not masqueraded.
    pub masquerade_exclude: Vec<Cidr>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Hairpin mode of the port.
    pub hairpin: bool,
    /// Promiscuous mode of the bridge.
    pub promiscuous: bool,
    /// The VLAN of untagged frames.
    pub vlan: Option<u16>,
    /// Tagged VLANs; `Some` also if there are none.
    pub trunk: Option<VlanTrunk>,
    /// Keep the VLANs a new port has.
    pub preserve_default_vlan: bool,
    /// Drop frames from other hardware addresses.
    pub spoof_check: bool,
    /// Duplicate address detection.
    pub dad: bool,
    /// Accept router advertisements in the container.
    pub accept_ra: bool,
    /// Leave the container's end down.
    pub disable_container_interface: bool,
    /// No frames between isolated ports.
    pub isolation: bool,
    /// The configured name service, which goes before that of IPAM; `Some` also if all there is of it is an empty list.
    pub dns: Option<Dns>,
    /// Hardware address of the container's end.
    pub mac: Option<MacAddress>,
    /// The IPAM plugin; `None` for a network without addresses.
    pub ipam: Option<String>,
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, message)
}

impl Config {
    /// Decodes and validates. Errors: 7 with the key, 4 for `CNI_ARGS`.
    pub fn load(request: &Request) -> Result<Self, Failure> {
        let wire: Wire = request.config().decode()?;
        if wire.hairpin_mode && wire.promisc_mode {
            return Err(invalid("cannot set hairpin mode and promiscuous mode at the same time")
                .hint("set one of hairpinMode and promiscMode"));
        }
        let ipam = request.config().ipam_type()?;
        if wire.disable_container_interface && ipam.is_some() {
            return Err(invalid("cannot use IPAM when DisableContainerInterface flag is set")
                .hint("remove ipam, or disableContainerInterface"));
        }
        let bridge = if wire.bridge.is_empty() { "cni0" } else { wire.bridge.as_str() };
        let bridge = LinkName::new(bridge)
            .map_err(|error| invalid(format!("bridge: {bridge:?} is not an interface name: {error}")))?;
        let vlan = vlan(wire.vlan)?;
        let config = Self {
            gateway: wire.is_gateway || wire.is_default_gateway,
            default_gateway: wire.is_default_gateway,
            force_address: wire.force_address,
            masquerade: wire.ip_masq.then(|| backend(wire.ip_masq_backend.as_deref())).transpose()?,
            masquerade_exclude: wire.ip_masq_exclude,
            mtu: mtu(wire.mtu)?,
            hairpin: wire.hairpin_mode,
            promiscuous: wire.promisc_mode,
            vlan,
            trunk: wire.vlan_trunk.as_deref().map(trunk).transpose()?,
            preserve_default_vlan: wire.preserve_default_vlan,
            spoof_check: wire.macspoofchk,
            dad: wire.enabledad,
            accept_ra: wire.accept_ra,
            disable_container_interface: wire.disable_container_interface,
            isolation: wire.port_isolation,
            dns: wire.dns.and_then(dns),
            mac: mac(request, &wire.args.cni.mac, &wire.runtime_config.mac)?,
            ipam,
            bridge,
        };
        config.vlan_gateway()?;
        Ok(config)
    }

    /// The host's interface in the VLAN, `BRIDGE.VLAN`, where the gateway address is in one.
    pub fn vlan_gateway(&self) -> Result<Option<LinkName>, Failure> {
        let Some(vlan) = self.vlan.filter(|_| self.gateway) else { return Ok(None) };
        let name = format!("{}.{vlan}", self.bridge);
        LinkName::new(name.as_str()).map(Some).map_err(|error| {
            invalid(format!("bridge: the gateway's interface would be {name:?}: {error}"))
                .hint("use a shorter bridge name with isGateway and vlan")
        })
    }

    /// Whether the bridge must filter VLANs.
    pub fn vlan_filtering(&self) -> bool {
        self.vlan.is_some() || self.trunk.is_some()
    }
}

fn mtu(value: i64) -> Result<Option<u32>, Failure> {
    match value {
        0 => Ok(None),
        // The limit of veth (ETH_MAX_MTU); 68 is the least that IPv4 works with (RFC 791).
        68..=65535 => Ok(u32::try_from(value).ok()),
        _ => Err(invalid(format!(
            "mtu: {value} is not possible; it is 68 to 65535, or 0 for the kernel's default"
        ))),
    }
}

/// The name service, where one is configured: an object with nothing in it is not, as in the Go suite.
fn dns(names: Names) -> Option<Dns> {
    let Names { nameservers, domain, search, options } = names;
    let configured = nameservers.is_some() || !domain.is_empty() || search.is_some() || options.is_some();
    configured.then(|| Dns {
        nameservers: nameservers.unwrap_or_default(),
        domain,
        search: search.unwrap_or_default(),
        options: options.unwrap_or_default(),
        ..Dns::default()
    })
}

/// The text is the Go suite's: its users match on it.
fn vlan(value: i64) -> Result<Option<u16>, Failure> {
    match value {
        0 => Ok(None),
        1..=4094 => Ok(u16::try_from(value).ok()),
        _ => Err(invalid(format!("invalid VLAN ID {value} (must be between 0 and 4094)"))),
    }
}

fn backend(text: Option<&str>) -> Result<Option<Backend>, Failure> {
    match text {
        None | Some("") => Ok(None),
        Some("nftables") => Ok(Some(Backend::Nftables)),
        Some("iptables") => Ok(Some(Backend::Iptables)),
        Some(other) => Err(invalid(format!("ipMasqBackend: unknown ipmasq backend {other:?}"))
            .hint("it is \"nftables\" or \"iptables\"")),
    }
}

/// The texts are the Go suite's, with the place in the list before and the value behind.
fn trunk(entries: &[Trunk]) -> Result<VlanTrunk, Failure> {
    let mut ranges = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let refused = |reason: String| {
            invalid(format!("vlanTrunk[{index}]: {reason}"))
                .hint("VLAN ids are 1 to 4094; a range is minID with maxID")
        };
        let id = |value: i64, what: &str| {
            let id = u16::try_from(value).ok().filter(|id| (1..=4094).contains(id));
            id.ok_or_else(|| refused(format!("incorrect trunk {what} parameter (value: {value})")))
        };
        let half = |missing| {
            refused(format!("minID and maxID should be configured simultaneously, {missing} is missing"))
        };
        match (entry.min, entry.max) {
            (Some(min), Some(max)) => {
                let (min, max) = (id(min, "minID")?, id(max, "maxID")?);
                if min > max {
                    let values = format!("({min} > {max})");
                    return Err(refused(format!("minID is greater than maxID in trunk parameter {values}")));
                }
                ranges.push((min, max));
            }
            (Some(_), None) => return Err(half("maxID")),
            (None, Some(_)) => return Err(half("minID")),
            (None, None) => {}
        }
        if let Some(value) = entry.id {
            let single = id(value, "id")?;
            ranges.push((single, single));
        }
    }
    Ok(VlanTrunk(union(ranges)))
}

/// Sorted, with what overlaps or touches joined.
fn union(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// `runtimeConfig` goes before `args.cni`, which goes before `CNI_ARGS`.
fn mac(request: &Request, args: &str, runtime: &str) -> Result<Option<MacAddress>, Failure> {
    let cni_args = request.args()?;
    cni_args.allow_only(&["MAC"])?;
    let sources = [
        (Code::InvalidConfig, "runtimeConfig.mac", runtime),
        (Code::InvalidConfig, "args.cni.mac", args),
        (Code::InvalidEnvironment, "CNI_ARGS: MAC", cni_args.get("MAC").unwrap_or_default()),
    ];
    let Some((code, source, text)) = sources.into_iter().find(|(_, _, text)| !text.is_empty()) else {
        return Ok(None);
    };
    let refused = |reason: &dyn Display| Failure::new(code, format!("{source}: {reason}"));
    let mac: MacAddress = text.parse().map_err(|error| refused(&error))?;
    if !mac.is_unicast() {
        return Err(refused(&format!("{text} is not the address of one interface"))
            .hint("the first byte is even, as in 02:42:ac:11:00:02, and not all bytes are zero"));
    }
    Ok(Some(mac))
}

#[cfg(test)]
mod tests;
