//! Writing results in every version.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{
    AddResult, DNS_KEYS, Dns, INTERFACE_KEYS, IP_KEYS, Interface, Ip, Map, RESULT_KEYS, ROUTE_KEYS,
    ResultError, ResultFamily, Route, SpecVersion, Value,
};

/// What a version can carry beyond its family's shape.
#[derive(Clone, Copy)]
struct Abilities {
    /// `ips[].version` (0.3.0 to 0.4.0).
    ip_version: bool,
    /// Interface mtu, socketPath, pciID (1.1.0).
    interface_attributes: bool,
    /// Route mtu, advmss, priority, table, scope (1.1.0).
    route_attributes: bool,
    /// How many interfaces there are for an address to point at.
    interfaces: usize,
}

/// A result in the terms of a version, which can express it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    result: &'a AddResult,
    version: SpecVersion,
}

impl<'a> Written<'a> {
    pub(crate) fn new(result: &'a AddResult, version: SpecVersion) -> Result<Self, ResultError> {
        // One address per family is all that the old versions are about.
        if version.result_family() == ResultFamily::Legacy && result.ips.is_empty() {
            return Err(ResultError::NoAddress);
        }
        Ok(Self { result, version })
    }
}

/// Straight into the text that is printed: a tree of it would be built for that alone.
impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { result, version } = *self;
        let abilities = Abilities {
            ip_version: version.result_family() == ResultFamily::Versioned,
            interface_attributes: version >= SpecVersion::V1_1_0,
            // An IPAM plugin's result has no interfaces: it is no report but an order to the plugin that called it. The Go suite's
            // host-local and bridge hand route attributes over in every version that way, and configurations rely on it.
            route_attributes: version >= SpecVersion::V1_1_0 || result.interfaces.is_empty(),
            interfaces: result.interfaces.len(),
        };
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("cniVersion", version.as_str())?;
        if version.result_family() == ResultFamily::Legacy {
            for (key, ipv4) in [("ip4", true), ("ip6", false)] {
                if let Some(ip) = result.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) {
                    object.serialize_entry(key, &Legacy { ip, routes: &result.routes })?;
                }
            }
        } else {
            put_list(&mut object, "interfaces", &result.interfaces, abilities)?;
            put_list(&mut object, "ips", &result.ips, abilities)?;
            put_list(&mut object, "routes", &result.routes, abilities)?;
        }
        // Before 1.0.0 `dns` was always there.
        if !result.dns.is_empty() || version < SpecVersion::V1_0_0 {
            object.serialize_entry("dns", &As(&result.dns, abilities))?;
        }
        put_extra(&mut object, &result.extra, RESULT_KEYS)?;
        object.end()
    }
}

/// A part of a result.
trait Part {
    fn write<S: Serializer>(&self, abilities: Abilities, serializer: S) -> Result<S::Ok, S::Error>;
}

/// A part as a version can carry it.
struct As<'a, T>(&'a T, Abilities);

impl<T: Part> Serialize for As<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(self.1, serializer)
    }
}

struct List<'a, T>(&'a [T], Abilities);

impl<T: Part> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| As(item, self.1)))
    }
}

fn put_list<M: SerializeMap, T: Part>(
    object: &mut M,
    key: &'static str,
    items: &[T],
    abilities: Abilities,
) -> Result<(), M::Error> {
    if items.is_empty() { Ok(()) } else { object.serialize_entry(key, &List(items, abilities)) }
}

fn put_text<M: SerializeMap>(object: &mut M, key: &'static str, text: &str) -> Result<(), M::Error> {
    if text.is_empty() { Ok(()) } else { object.serialize_entry(key, text) }
}

fn put_number<M: SerializeMap>(object: &mut M, key: &'static str, number: u32) -> Result<(), M::Error> {
    if number == 0 { Ok(()) } else { object.serialize_entry(key, &number) }
}

fn put_texts<M: SerializeMap>(object: &mut M, key: &'static str, texts: &[String]) -> Result<(), M::Error> {
    if texts.is_empty() { Ok(()) } else { object.serialize_entry(key, texts) }
}

/// The keys that nobody knows. One that is known is in its own place, or left out on purpose.
fn put_extra<M: SerializeMap>(
    object: &mut M,
    extra: &Map<String, Value>,
    known: &[&str],
) -> Result<(), M::Error> {
    for (key, value) in extra.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        object.serialize_entry(key, value)?;
    }
    Ok(())
}

impl Part for Dns {
    fn write<S: Serializer>(&self, _: Abilities, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        put_texts(&mut object, "nameservers", &self.nameservers)?;
        put_text(&mut object, "domain", &self.domain)?;
        put_texts(&mut object, "search", &self.search)?;
        put_texts(&mut object, "options", &self.options)?;
        put_extra(&mut object, &self.extra, DNS_KEYS)?;
        object.end()
    }
}

impl Part for Interface {
    fn write<S: Serializer>(&self, abilities: Abilities, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("name", &self.name)?;
        put_text(&mut object, "mac", &self.mac)?;
        if abilities.interface_attributes {
            put_number(&mut object, "mtu", self.mtu)?;
        }
        put_text(&mut object, "sandbox", &self.sandbox)?;
        if abilities.interface_attributes {
            put_text(&mut object, "socketPath", &self.socket_path)?;
            put_text(&mut object, "pciID", &self.pci_id)?;
        }
        put_extra(&mut object, &self.extra, INTERFACE_KEYS)?;
        object.end()
    }
}

impl Part for Ip {
    fn write<S: Serializer>(&self, abilities: Abilities, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        if abilities.ip_version {
            object.serialize_entry("version", if self.address.is_ipv4() { "4" } else { "6" })?;
        }
        // An index beyond the list says nothing, and containerd's go-cni panics on it.
        if let Some(index) = self.interface.filter(|index| *index < abilities.interfaces) {
            object.serialize_entry("interface", &index)?;
        }
        object.serialize_entry("address", &self.address)?;
        if let Some(gateway) = &self.gateway {
            object.serialize_entry("gateway", gateway)?;
        }
        put_extra(&mut object, &self.extra, IP_KEYS)?;
        object.end()
    }
}

impl Part for Route {
    fn write<S: Serializer>(&self, abilities: Abilities, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("dst", &self.dst)?;
        if let Some(gw) = &self.gw {
            object.serialize_entry("gw", gw)?;
        }
        if abilities.route_attributes {
            put_number(&mut object, "mtu", self.mtu)?;
            put_number(&mut object, "advmss", self.advmss)?;
            put_number(&mut object, "priority", self.priority)?;
            if let Some(table) = &self.table {
                object.serialize_entry("table", table)?;
            }
            if let Some(scope) = &self.scope {
                object.serialize_entry("scope", scope)?;
            }
        }
        put_extra(&mut object, &self.extra, ROUTE_KEYS)?;
        object.end()
    }
}

/// An address of 0.1.0 and 0.2.0, with the routes of its family below it.
struct Legacy<'a> {
    ip: &'a Ip,
    routes: &'a [Route],
}

impl Serialize for Legacy<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("ip", &self.ip.address)?;
        if let Some(gateway) = &self.ip.gateway {
            object.serialize_entry("gateway", gateway)?;
        }
        let ipv4 = self.ip.address.is_ipv4();
        let routes: Vec<LegacyRoute<'_>> =
            self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4).map(LegacyRoute).collect();
        if !routes.is_empty() {
            object.serialize_entry("routes", &routes)?;
        }
        object.end()
    }
}

struct LegacyRoute<'a>(&'a Route);

impl Serialize for LegacyRoute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("dst", &self.0.dst)?;
        if let Some(gw) = &self.0.gw {
            object.serialize_entry("gw", gw)?;
        }
        object.end()
    }
}
