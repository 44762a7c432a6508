//! The result of ADD: one internal form, read from and written to every version (specification section 5, "Success").

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::address::{self, Cidr};
use crate::json::{self, JsonError};
use crate::version::{ResultFamily, SpecVersion};

/// Why a result can't be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResultError {
    /// A field is missing or of the wrong kind.
    #[error("the result does not fit CNI {version}")]
    Shape {
        /// The version it was read as.
        version: SpecVersion,
        /// Where and what.
        source: JsonError,
    },
    /// A version that is not known.
    #[error("unsupported CNI result version {version:?}")]
    Version {
        /// What it said.
        version: String,
    },
    /// 0.1.0 and 0.2.0 can't say that there is no address. The text is the Go suite's, whose tests match on it.
    #[error("cannot convert: no valid IP addresses")]
    NoAddress,
}

/// An interface that an ADD made or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address, lower-case colon form; empty if it has none.
    pub mac: String,
    /// Maximum transmission unit in bytes (1.1.0); 0 if not known.
    pub mtu: u32,
    /// Network namespace path; empty on the host.
    pub sandbox: String,
    /// Path of a socket bound to this interface (1.1.0); empty if none.
    pub socket_path: String,
    /// PCI identifier (1.1.0); empty if none.
    #[serde(rename = "pciID")]
    pub pci_id: String,
    /// Unknown keys, kept as they came.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

/// An address that an ADD configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Address with the prefix length of its subnet.
    pub address: Cidr,
    /// Default gateway of the subnet.
    pub gateway: Option<IpAddr>,
    /// Index into `interfaces`.
    pub interface: Option<usize>,
    /// Unknown keys.
    pub extra: Map<String, Value>,
}

impl Ip {
    /// An address without gateway and interface.
    pub fn new(address: Cidr) -> Self {
        Self { address, gateway: None, interface: None, extra: Map::new() }
    }
}

/// A route that an ADD installed or that a later plugin should install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: Cidr,
    /// Next hop; `None` takes the gateway of the address, if there is one.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes (1.1.0); 0 if not given.
    pub mtu: u32,
    /// TCP maximum segment size in bytes (1.1.0); 0 if not given.
    pub advmss: u32,
    /// Metric (1.1.0); 0 if not given.
    pub priority: u32,
    /// Routing table (1.1.0); `Some(0)` differs from `None`.
    pub table: Option<u32>,
    /// Scope (1.1.0), as `rtnetlink(7)` numbers them: 0 universe, 253 link, 254 host.
    pub scope: Option<u8>,
    /// Unknown keys.
    pub extra: Map<String, Value>,
}

impl Route {
    /// A route without attributes.
    pub fn new(dst: Cidr, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: 0, advmss: 0, priority: 0, table: None, scope: None, extra: Map::new() }
    }

    /// The list of routes under a key of an object, in a result's form: an IPAM configuration has one, which its result repeats.
    pub fn read_list(object: &Map<String, Value>, key: &str) -> Result<Vec<Self>, JsonError> {
        read::list(object, key, read::route)
    }
}

/// Name service settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Unknown keys, kept as they came.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The result of an ADD, in the newest version's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Interfaces, in the plugin's order.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
    /// Unknown top-level keys, kept so that a chained plugin does not lose what an earlier one said.
    pub extra: Map<String, Value>,
}

/// The keys of all versions: what one calls `ips` must not come back from another as an unknown key.
const RESULT_KEYS: &[&str] = &["cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6"];
const INTERFACE_KEYS: &[&str] = &["name", "mac", "mtu", "sandbox", "socketPath", "pciID"];
const IP_KEYS: &[&str] = &["version", "address", "gateway", "interface"];
const ROUTE_KEYS: &[&str] = &["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
const DNS_KEYS: &[&str] = &["nameservers", "domain", "search", "options"];

mod read;
mod write;

pub(crate) use write::Written;

impl AddResult {
    /// Reads a result. Its own `cniVersion` decides the shape; without one, `assumed` does (libcni since 1.1.1).
    pub fn read(value: &Value, assumed: SpecVersion) -> Result<Self, ResultError> {
        read::read(value, assumed)
    }

    /// Writes the result in a version. What that version can't express is left out; 0.1.0 and 0.2.0 need an address.
    pub fn write(&self, version: SpecVersion) -> Result<Value, ResultError> {
        let written = Written::new(self, version)?;
        // It is made of texts, numbers and values, of which there is always a tree.
        Ok(serde_json::to_value(written).unwrap_or_default())
    }

    /// This result behind that of the plugins before it in the chain, for a plugin that adds an interface: what was there stays in its
    /// place, so that indexes into it remain right, and `dns` is the earlier one's only where this has none.
    /// Source: section 2 of the specification, on `prevResult` at ADD.
    #[must_use]
    pub fn behind(mut self, mut previous: Self) -> Self {
        let earlier = previous.interfaces.len();
        previous.interfaces.append(&mut self.interfaces);
        previous.ips.extend(
            self.ips.into_iter().map(|ip| Ip { interface: ip.interface.map(|index| index + earlier), ..ip }),
        );
        previous.routes.append(&mut self.routes);
        if !self.dns.is_empty() {
            previous.dns = self.dns;
        }
        previous.extra.append(&mut self.extra);
        previous
    }

    /// The addresses that belong to an interface of the container: those whose index points at an interface with that name
    /// in a sandbox, and those with no index (tolerated as the Go suite does).
    pub fn ips_of<'a>(&'a self, ifname: &'a str) -> impl Iterator<Item = &'a Ip> {
        self.ips.iter().filter(move |ip| match ip.interface {
            None => true,
            Some(index) => self
                .interfaces
                .get(index)
                .is_some_and(|interface| interface.name == ifname && !interface.sandbox.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests;
