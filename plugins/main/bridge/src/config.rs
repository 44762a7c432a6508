//! The configuration of `bridge`, decoded and validated before anything is changed.

use cni::{Cidr, Code, Dns, Failure, LinkName, Request};
use ferrule_core::firewall::Backend;
use ferrule_core::netlink::MacAddress;
use ferrule_core::resource::VlanTrunk;
use serde::Deserialize;

/// The keys as they are written.
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
    dns: Option<Dns>,
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

#[derive(Debug, Default, Deserialize)]
struct Trunk {
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
    id: Option<i64>,
}

/// A valid configuration.
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
    /// The configured name service; `Some` also if it is empty.
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
            dns: wire.dns,
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

fn trunk(entries: &[Trunk]) -> Result<VlanTrunk, Failure> {
    let id = |value: i64, what: &str| {
        u16::try_from(value).ok().filter(|id| (1..=4094).contains(id)).ok_or_else(|| {
            invalid(format!(
                "vlanTrunk: incorrect trunk {what} parameter (value: {value}, possible: 1 to 4094)"
            ))
        })
    };
    let mut ranges = Vec::new();
    for entry in entries {
        match (entry.min, entry.max) {
            (Some(min), Some(max)) => {
                let (min, max) = (id(min, "minID")?, id(max, "maxID")?);
                if min > max {
                    return Err(invalid("vlanTrunk: minID is greater than maxID in trunk parameter"));
                }
                ranges.push((min, max));
            }
            (Some(_), None) => {
                return Err(invalid(
                    "vlanTrunk: minID and maxID should be configured simultaneously, maxID is missing",
                ));
            }
            (None, Some(_)) => {
                return Err(invalid(
                    "vlanTrunk: minID and maxID should be configured simultaneously, minID is missing",
                ));
            }
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
        ("runtimeConfig.mac", Some(runtime)),
        ("args.cni.mac", Some(args)),
        ("CNI_ARGS: MAC", cni_args.get("MAC")),
    ];
    for (source, text) in sources {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            return text.parse().map(Some).map_err(|error| invalid(format!("{source}: {error}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
