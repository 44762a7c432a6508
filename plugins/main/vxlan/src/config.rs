//! The configuration of `vxlan`, decoded and validated before anything is looked at.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::{Cidr, Code, Dns, Failure, LinkName, Request};
use ferrule_core::firewall::Backend;
use ferrule_overlay::identity::Hint;
use ferrule_overlay::{Flannel, Mode, Mtu, Port, Settings, Vni};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// The keys as they are written.
#[expect(clippy::struct_excessive_bools, reason = "the configuration has these switches")]
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    vni: Option<Vni>,
    mode: String,
    source: String,
    peers: Value,
    peers_file: String,
    port: Option<Port>,
    #[serde(deserialize_with = "mtu")]
    mtu: Option<Mtu>,
    underlay: Way,
    device: String,
    bridge: String,
    subnet: Value,
    cluster: Value,
    bum: bool,
    multicast_group: String,
    any_sender: bool,
    direct_routing: bool,
    hairpin_mode: bool,
    ip_masq: bool,
    ip_masq_backend: String,
    ip_masq_exclude: Vec<Cidr>,
    spoofchk: Option<bool>,
    subnet_file: String,
    dns: Option<Dns>,
}

/// 0 is for what the underlay leaves, as if the key were not there.
fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mtu>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value == 0 {
        return Ok(None);
    }
    Mtu::deserialize(value).map(Some).map_err(de::Error::custom)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Way {
    interface: String,
    address: String,
}

/// Who knows the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration.
    Inline(Value),
    /// A file of the operator's.
    File(PathBuf),
    /// The node agent, which has the device too.
    Agent,
    /// Flannel's daemon, which has the device too.
    Flannel(PathBuf),
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who knows the nodes.
    pub source: Source,
    /// What the nodes have agreed on; `None` where somebody else knows (agent, flannel).
    pub settings: Option<Settings>,
    /// Which way out.
    pub hint: Hint,
    /// The bridge, where the configuration names one.
    pub bridge: Option<LinkName>,
    /// MTU in bytes, where the configuration names one.
    pub mtu: Option<u32>,
    /// A container reaches itself through what leads back to it (a service, a port of the host).
    pub hairpin: bool,
    /// Masquerade, and where; `None` in it for the preferred backend.
    pub masquerade: Option<Option<Backend>>,
    /// Destinations that are not masqueraded, beside the network's own.
    pub masquerade_exclude: Vec<Cidr>,
    /// A container speaks for its own addresses only (bridged mode).
    pub spoof_check: bool,
    /// The IPAM plugin that the configuration names; `None` for the node's blocks.
    pub ipam: Option<String>,
    /// The name service, which IPAM's gives way to; `None` where none is configured.
    pub dns: Option<Dns>,
}

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {}", message.into()))
}

impl Config {
    /// Decodes and validates. Error 7 with key and value.
    pub fn load(request: &Request) -> Result<Self, Failure> {
        let wire: Wire = request.config().decode()?;
        let source = source(&wire)?;
        let settings = match source {
            Source::Inline(_) | Source::File(_) => Some(settings(request, &wire)?),
            Source::Agent | Source::Flannel(_) => {
                not_with(&source, &wire)?;
                None
            }
        };
        Ok(Self {
            hint: Hint {
                interface: named("underlay.interface", &wire.underlay.interface)?,
                address: address("underlay.address", &wire.underlay.address)?,
            },
            bridge: named("bridge", &wire.bridge)?,
            mtu: wire.mtu.map(Mtu::get),
            hairpin: wire.hairpin_mode,
            masquerade: wire.ip_masq.then(|| backend(&wire.ip_masq_backend)).transpose()?,
            masquerade_exclude: wire.ip_masq_exclude,
            spoof_check: wire.spoofchk.unwrap_or(true),
            ipam: request.config().ipam_type()?,
            dns: wire.dns.filter(|dns| *dns != Dns::default()),
            settings,
            source,
        })
    }
}

fn source(wire: &Wire) -> Result<Source, Failure> {
    let inline = !wire.peers.is_null();
    let file = !wire.peers_file.is_empty();
    match (wire.source.as_str(), inline, file) {
        ("", true, false) => Ok(Source::Inline(wire.peers.clone())),
        ("", false, true) => {
            let path = PathBuf::from(&wire.peers_file);
            if !path.is_absolute() {
                return Err(invalid(format!("peersFile: {:?} is not an absolute path", wire.peers_file)));
            }
            Ok(Source::File(path))
        }
        ("agent", false, false) => Ok(Source::Agent),
        ("flannel", false, false) => {
            let path = if wire.subnet_file.is_empty() { Flannel::PATH } else { &wire.subnet_file };
            Ok(Source::Flannel(path.into()))
        }
        ("", false, false) => Err(invalid("nothing says who the nodes are")
            .hint("set `peers` to a list of them, `peersFile` to a file with the list, or `source` to \"agent\" or \"flannel\"")),
        ("agent" | "flannel" | "", ..) => {
            Err(invalid("`peers`, `peersFile` and `source` each say who the nodes are; set one of them"))
        }
        (other, ..) => {
            Err(invalid(format!("source: {other:?} is not known")).hint("it is \"agent\" or \"flannel\""))
        }
    }
}

/// What the agent and flannel's daemon decide can't be decided here as well.
fn not_with(source: &Source, wire: &Wire) -> Result<(), Failure> {
    let who = if matches!(source, Source::Agent) { "the agent" } else { "flannel's daemon" };
    let set = [
        ("vni", wire.vni.is_some()),
        ("port", wire.port.is_some()),
        ("mode", !wire.mode.is_empty()),
        ("device", !wire.device.is_empty()),
        ("subnet", !wire.subnet.is_null()),
        ("cluster", !wire.cluster.is_null()),
        ("bum", wire.bum),
        ("multicastGroup", !wire.multicast_group.is_empty()),
        ("anySender", wire.any_sender),
        ("directRouting", wire.direct_routing),
    ];
    match set.into_iter().find(|(_, set)| *set) {
        Some((key, _)) => Err(invalid(format!("{key}: {who} decides this, so it can't be set here"))),
        None => Ok(()),
    }
}

fn settings(request: &Request, wire: &Wire) -> Result<Settings, Failure> {
    let vni = wire.vni.ok_or_else(|| {
        invalid("vni: it is missing")
            .hint("a number from 1 to 16777215, the same on all nodes of the network")
    })?;
    let settings = Settings::new(request.config().name().clone(), vni)
        .map_err(|error| invalid(format!("name: no link can be named after it: {error}")))?;
    let mode = match wire.mode.as_str() {
        "" | "routed" => Mode::Routed,
        "bridged" => Mode::Bridged,
        other => {
            let failure = invalid(format!("mode: {other:?} is not known"));
            return Err(failure.hint("it is \"routed\" or \"bridged\""));
        }
    };
    let subnets = networks("subnet", &wire.subnet)?;
    let multicast_group = address("multicastGroup", &wire.multicast_group)?;
    for (key, set) in [("bum", wire.bum), ("multicastGroup", multicast_group.is_some())] {
        if set && mode == Mode::Routed {
            return Err(invalid(format!("{key}: it belongs to mode \"bridged\"")));
        }
    }
    if mode == Mode::Bridged && wire.direct_routing {
        return Err(invalid("directRouting: it belongs to mode \"routed\""));
    }
    Ok(Settings {
        port: wire.port.unwrap_or_default(),
        mode,
        device: named("device", &wire.device)?.unwrap_or_else(|| settings.device.clone()),
        bridge: named("bridge", &wire.bridge)?.unwrap_or_else(|| settings.bridge.clone()),
        subnets,
        mtu: wire.mtu.map(Mtu::get),
        direct_routing: wire.direct_routing,
        bum: wire.bum,
        multicast_group,
        any_sender: wire.any_sender,
        cluster: networks("cluster", &wire.cluster)?,
        ..settings
    })
}

/// One network, or a list of them, one a family.
fn networks(key: &str, value: &Value) -> Result<Vec<Cidr>, Failure> {
    let texts: Vec<&Value> = match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    };
    let mut networks: Vec<Cidr> = Vec::new();
    for text in texts {
        let network: Cidr = text
            .as_str()
            .ok_or_else(|| invalid(format!("{key}: expected a network in CIDR notation (value: {text})")))?
            .parse()
            .map_err(|error| invalid(format!("{key}: {error}")))?;
        if network.network() != network {
            let right = network.network();
            return Err(invalid(format!("{key}: {network} has host bits; the network is {right}")));
        }
        if key == "subnet" && networks.iter().any(|other| other.is_ipv4() == network.is_ipv4()) {
            return Err(invalid(format!(
                "{key}: {network} is the second of its family; one can be stretched"
            )));
        }
        networks.push(network);
    }
    Ok(networks)
}

fn named(key: &str, text: &str) -> Result<Option<LinkName>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |error| invalid(format!("{key}: {text:?} is not an interface name: {error}"));
    LinkName::new(text).map(Some).map_err(refused)
}

fn address(key: &str, text: &str) -> Result<Option<IpAddr>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    cni::address::parse_ip(text).map(Some).map_err(|error| invalid(format!("{key}: {error}")))
}

fn backend(text: &str) -> Result<Option<Backend>, Failure> {
    match text {
        "" => Ok(None),
        "nftables" => Ok(Some(Backend::Nftables)),
        "iptables" => Ok(Some(Backend::Iptables)),
        other => Err(invalid(format!("ipMasqBackend: {other:?} is not known"))
            .hint("it is \"nftables\" or \"iptables\"")),
    }
}
