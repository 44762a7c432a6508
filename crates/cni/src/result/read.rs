//! Reading results of every version.

use super::{
    AddResult, Cidr, DNS_KEYS, Dns, INTERFACE_KEYS, IP_KEYS, Interface, Ip, IpAddr, JsonError, Map,
    RESULT_KEYS, ROUTE_KEYS, ResultError, ResultFamily, Route, SpecVersion, Value, address, json,
};
use serde::{Deserialize, de::Error as _};

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "cniVersion", default)]
    version: String,
}

pub(super) fn read(value: &Value, assumed: SpecVersion) -> Result<AddResult, ResultError> {
    // libcni takes `null` for an empty result.
    if value.is_null() {
        return Ok(AddResult::default());
    }
    let shape = |source| ResultError::Shape { version: assumed, source };
    let named: Versioned = json::decode(value).map_err(shape)?;
    let version = match named.version.as_str() {
        "" => assumed,
        text => {
            SpecVersion::parse(text).ok_or_else(|| ResultError::Version { version: json::shorten(text) })?
        }
    };
    let object = value.as_object().ok_or_else(|| shape(JsonError::custom("expected an object")))?;
    let parsed = match version.result_family() {
        ResultFamily::Legacy => legacy(object),
        ResultFamily::Versioned | ResultFamily::Current => current(object),
    };
    parsed.map_err(|source| ResultError::Shape { version, source })
}

fn current(object: &Map<String, Value>) -> Result<AddResult, JsonError> {
    Ok(AddResult {
        interfaces: list(object, "interfaces", interface)?,
        ips: list(object, "ips", ip)?,
        routes: list(object, "routes", route)?,
        dns: dns(object)?,
        extra: unknown(object, RESULT_KEYS),
    })
}

fn legacy(object: &Map<String, Value>) -> Result<AddResult, JsonError> {
    #[derive(Deserialize)]
    struct Config {
        ip: Cidr,
        gateway: Option<String>,
        #[serde(default)]
        routes: Vec<Value>,
    }
    let mut result =
        AddResult { dns: dns(object)?, extra: unknown(object, RESULT_KEYS), ..AddResult::default() };
    for key in ["ip4", "ip6"] {
        let Some(value) = json::get(object, key) else { continue };
        let config: Config = json::decode(value).map_err(|e| e.under(key))?;
        let gateway = optional_ip(config.gateway.as_deref(), "gateway").map_err(|e| e.under(key))?;
        result.ips.push(Ip { gateway, ..Ip::new(config.ip) });
        for (index, value) in config.routes.iter().enumerate() {
            result
                .routes
                .push(route(value).map_err(|e| e.under(format!("[{index}]")).under("routes").under(key))?);
        }
    }
    Ok(result)
}

pub(super) fn list<T>(
    object: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Result<T, JsonError>,
) -> Result<Vec<T>, JsonError> {
    let Some(value) = json::get(object, key) else { return Ok(Vec::new()) };
    let Value::Array(items) = value else {
        // It is none; this says so.
        return json::decode::<Vec<Value>>(value).map(|_| Vec::new()).map_err(|e| e.under(key));
    };
    items
        .iter()
        .enumerate()
        .filter(|(_, item)| !item.is_null())
        .map(|(index, item)| read(item).map_err(|e| e.under(format!("[{index}]")).under(key)))
        .collect()
}

fn dns(object: &Map<String, Value>) -> Result<Dns, JsonError> {
    let Some(value) = json::get(object, "dns") else { return Ok(Dns::default()) };
    let mut dns: Dns = json::decode(value).map_err(|e| e.under("dns"))?;
    dns.extra = extra(value, DNS_KEYS);
    Ok(dns)
}

fn interface(value: &Value) -> Result<Interface, JsonError> {
    let mut interface: Interface = json::decode(value)?;
    interface.extra = extra(value, INTERFACE_KEYS);
    Ok(interface)
}

fn ip(value: &Value) -> Result<Ip, JsonError> {
    #[derive(Deserialize)]
    struct Wire {
        address: Cidr,
        gateway: Option<String>,
        interface: Option<i64>,
    }
    let wire: Wire = json::decode(value)?;
    Ok(Ip {
        address: wire.address,
        gateway: optional_ip(wire.gateway.as_deref(), "gateway")?,
        // Runtimes of old send -1 for "no interface" (spec-upgrades.md).
        interface: wire.interface.and_then(|index| usize::try_from(index).ok()),
        extra: extra(value, IP_KEYS),
    })
}

pub(super) fn route(value: &Value) -> Result<Route, JsonError> {
    #[derive(Deserialize)]
    struct Wire {
        dst: Cidr,
        gw: Option<String>,
        #[serde(default)]
        mtu: u32,
        #[serde(default)]
        advmss: u32,
        #[serde(default)]
        priority: u32,
        table: Option<u32>,
        scope: Option<u8>,
    }
    let wire: Wire = json::decode(value)?;
    Ok(Route {
        dst: wire.dst,
        gw: optional_ip(wire.gw.as_deref(), "gw")?,
        mtu: wire.mtu,
        advmss: wire.advmss,
        priority: wire.priority,
        table: wire.table,
        scope: wire.scope,
        extra: extra(value, ROUTE_KEYS),
    })
}

/// Go's `net.IP` reads an empty text as none.
fn optional_ip(text: Option<&str>, key: &str) -> Result<Option<IpAddr>, JsonError> {
    text.filter(|text| !text.is_empty())
        .map(address::parse_ip)
        .transpose()
        .map_err(|error| JsonError::custom(error).under(key))
}

fn extra(value: &Value, known: &[&str]) -> Map<String, Value> {
    value.as_object().map_or_else(Map::new, |object| unknown(object, known))
}

fn unknown(object: &Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    object
        .iter()
        .filter(|(key, _)| !known.iter().any(|known| known.eq_ignore_ascii_case(key)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
