//! The configuration of `portmap`, decoded and validated before anything is changed.

use std::fmt::Display;
use std::net::IpAddr;

use cni::{Code, Failure, address};
use ferrule_core::firewall::{self, Backend, Protocol};
use serde::Deserialize;

/// The bit of the packet mark that the Go suite and kubelet leave to port mappings.
const DEFAULT_MARK_BIT: u8 = 13;

/// The keys as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    backend: Option<String>,
    snat: Option<bool>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    conditions_v4: Vec<String>,
    conditions_v6: Vec<String>,
    runtime_config: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// The addresses of the host at which a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostAddress {
    /// All of them.
    Any,
    /// All of one family: `0.0.0.0` or `::`.
    AnyOf {
        /// IPv4; else IPv6.
        ipv4: bool,
    },
    /// This one.
    One(IpAddr),
}

impl HostAddress {
    /// Whether the port is published in a family.
    pub fn has_family(self, ipv4: bool) -> bool {
        match self {
            Self::Any => true,
            Self::AnyOf { ipv4: family } => family == ipv4,
            Self::One(address) => address.is_ipv4() == ipv4,
        }
    }

    /// Whether both publish at the same address without one of them being the more specific, which would have precedence.
    fn collides(self, other: Self) -> bool {
        let wide = |host| !matches!(host, Self::One(_));
        let shares = |ipv4| self.has_family(ipv4) && other.has_family(ipv4);
        self == other || (wide(self) && wide(other) && (shares(true) || shares(false)))
    }

    /// Whether a connection to 127.0.0.0/8 may be meant.
    pub fn includes_localhost(self) -> bool {
        match self {
            Self::Any | Self::AnyOf { ipv4: true } => true,
            Self::AnyOf { ipv4: false } => false,
            Self::One(address) => address.is_ipv4() && address.is_loopback(),
        }
    }
}

/// A port to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where on the host.
    pub host: HostAddress,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The firewall to use, where the configuration says so or uses its words; `None` for the preferred one.
    pub backend: Option<Backend>,
    /// Masquerade connections whose answers would not come back through the host.
    pub snat: bool,
    /// Masquerade all connections.
    pub masq_all: bool,
    /// Bit of the packet mark that stands for "masquerade" (iptables).
    pub mark_bit: u8,
    /// Somebody else's chain that sets the mark (iptables).
    pub external_mark_chain: Option<String>,
    /// Further conditions for IPv4, in the backend's words.
    pub conditions_v4: Vec<String>,
    /// Further conditions for IPv6.
    pub conditions_v6: Vec<String>,
    /// The ports, each once.
    pub mappings: Vec<PortMapping>,
}

/// An invalid value, with its path.
fn refused(path: impl Display, reason: impl Display) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {path}: {reason}"))
}

impl Config {
    /// Decodes and validates. Error 7 with key and value.
    pub fn load(config: &cni::Config) -> Result<Self, Failure> {
        let wire: Wire = config.decode()?;
        let external_mark_chain = wire.external_set_mark_chain.filter(|name| !name.is_empty());
        if external_mark_chain.is_some() && wire.mark_masq_bit.is_some() {
            return Err(refused(
                "externalSetMarkChain",
                "Cannot specify externalSetMarkChain and markMasqBit",
            )
            .hint("the external chain sets its own mark; remove markMasqBit"));
        }
        if let Some(name) = external_mark_chain.as_ref().filter(|name| !firewall::is_chain_name(name)) {
            let reason = format!("{name:?} is not the name of an iptables chain");
            return Err(refused("externalSetMarkChain", reason).hint(format!(
                "a chain's name has at most {} characters, no blanks, and no `-` in front",
                firewall::CHAIN_NAME_LIMIT
            )));
        }
        let backend = Dialects {
            external_mark_chain: external_mark_chain.is_some(),
            conditions: [("conditionsV4", &wire.conditions_v4), ("conditionsV6", &wire.conditions_v6)],
        }
        .backend(wire.backend.as_deref().filter(|name| !name.is_empty()))?;
        Ok(Self {
            backend,
            snat: wire.snat.unwrap_or(true),
            masq_all: wire.masq_all,
            mark_bit: mark_bit(wire.mark_masq_bit)?,
            external_mark_chain,
            conditions_v4: wire.conditions_v4,
            conditions_v6: wire.conditions_v6,
            mappings: mappings(&wire.runtime_config.port_mappings)?,
        })
    }

    /// The further conditions of a family.
    pub fn conditions(&self, ipv4: bool) -> &[String] {
        if ipv4 { &self.conditions_v4 } else { &self.conditions_v6 }
    }
}

fn mark_bit(bit: Option<i64>) -> Result<u8, Failure> {
    let Some(bit) = bit else { return Ok(DEFAULT_MARK_BIT) };
    u8::try_from(bit)
        .ok()
        .filter(|bit| *bit < 32)
        .ok_or_else(|| refused("markMasqBit", format!("MasqMarkBit must be between 0 and 31 (value: {bit})")))
}

/// What of a configuration only one of the backends understands.
struct Dialects<'a> {
    external_mark_chain: bool,
    conditions: [(&'static str, &'a Vec<String>); 2],
}

impl Dialects<'_> {
    /// The keys that are in the words of a backend. Every match of iptables starts with `-` or `!`, and none of nft's does.
    fn keys(&self, backend: Backend) -> Vec<&'static str> {
        let iptables = backend == Backend::Iptables;
        let mut keys = Vec::new();
        if iptables && self.external_mark_chain {
            keys.push("externalSetMarkChain");
        }
        for (key, conditions) in self.conditions {
            let Some(first) = conditions.first() else { continue };
            if first.starts_with(['-', '!']) == iptables {
                keys.push(key);
            }
        }
        keys
    }

    /// The backend that is asked for by name, or else by words.
    fn backend(&self, named: Option<&str>) -> Result<Option<Backend>, Failure> {
        let (iptables, nftables) = (self.keys(Backend::Iptables), self.keys(Backend::Nftables));
        let asked = match named {
            Some("iptables") => Some(Backend::Iptables),
            Some("nftables") => Some(Backend::Nftables),
            Some(other) => {
                return Err(refused("backend", format!("unrecognized backend {other:?}"))
                    .hint("backend is nftables or iptables; without it the better one of the host is used"));
            }
            None if !iptables.is_empty() => Some(Backend::Iptables),
            None if !nftables.is_empty() => Some(Backend::Nftables),
            None => None,
        };
        let (others, keys) = match asked {
            Some(Backend::Iptables) => ("nftables", nftables),
            Some(_) => ("iptables", iptables),
            None => return Ok(None),
        };
        if keys.is_empty() {
            return Ok(asked);
        }
        let wanted = asked.map_or("", Backend::as_str);
        let message = format!(
            "{wanted} backend was requested but configuration contains {others}-specific options [{}]",
            keys.join(" ")
        );
        Err(refused(keys.join(", "), message)
            .hint(format!("set backend to {others}, or write these in the words of {wanted}")))
    }
}

fn mappings(entries: &[Entry]) -> Result<Vec<PortMapping>, Failure> {
    let mut mappings: Vec<PortMapping> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("runtimeConfig.portMappings[{index}]");
        let mapping = mapping(entry, &path)?;
        let earlier = mappings.iter().find(|earlier| {
            earlier.protocol == mapping.protocol
                && earlier.host_port == mapping.host_port
                && earlier.host.collides(mapping.host)
        });
        match earlier {
            Some(earlier) if earlier.container_port != mapping.container_port => {
                let reason = format!(
                    "host port {}/{} is mapped to container port {} and to {}",
                    mapping.host_port,
                    mapping.protocol.as_str(),
                    earlier.container_port,
                    mapping.container_port
                );
                return Err(refused(path, reason).hint("a host port leads to one port of the container"));
            }
            Some(earlier) if *earlier == mapping => {}
            Some(_) | None => mappings.push(mapping),
        }
    }
    Ok(mappings)
}

fn mapping(entry: &Entry, path: &str) -> Result<PortMapping, Failure> {
    let port = |key: &str, what: &str, number: i64| {
        u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| {
            refused(format!("{path}.{key}"), format!("Invalid {what} port number: {number}"))
                .hint("ports are 1 to 65535")
        })
    };
    let container_port = port("containerPort", "container", entry.container_port)?;
    let host_port = port("hostPort", "host", entry.host_port)?;
    // Kubernetes' default, for runtimes that leave it out.
    let protocol = if entry.protocol.is_empty() { "tcp" } else { entry.protocol.as_str() };
    let protocol = Protocol::parse(protocol).ok_or_else(|| {
        refused(format!("{path}.protocol"), format!("{protocol:?} is not one of tcp, udp, sctp"))
    })?;
    Ok(PortMapping { protocol, host: host_address(&entry.host_ip, path)?, host_port, container_port })
}

fn host_address(text: &str, path: &str) -> Result<HostAddress, Failure> {
    if text.is_empty() {
        return Ok(HostAddress::Any);
    }
    let address =
        address::parse_ip(text).map_err(|error| refused(format!("{path}.hostIP"), error.to_string()))?;
    if address.is_unspecified() {
        return Ok(HostAddress::AnyOf { ipv4: address.is_ipv4() });
    }
    if address.is_multicast() {
        return Err(refused(format!("{path}.hostIP"), format!("{address} is a multicast address")));
    }
    Ok(HostAddress::One(address))
}

#[cfg(test)]
mod tests;
