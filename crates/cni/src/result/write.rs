//! Writing results in every version.

use super::{AddResult, Dns, Interface, Ip, Map, ResultError, ResultFamily, Route, SpecVersion, Value};

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

pub(super) fn write(result: &AddResult, version: SpecVersion) -> Result<Value, ResultError> {
    let abilities = Abilities {
        ip_version: version.result_family() == ResultFamily::Versioned,
        interface_attributes: version >= SpecVersion::V1_1_0,
        // An IPAM plugin's result has no interfaces: it is no report but an order to the plugin that called it. The Go suite's
        // host-local and bridge hand route attributes over in every version that way, and configurations rely on it.
        route_attributes: version >= SpecVersion::V1_1_0 || result.interfaces.is_empty(),
        interfaces: result.interfaces.len(),
    };
    let mut object = Map::new();
    object.insert("cniVersion".to_owned(), version.as_str().into());
    if version.result_family() == ResultFamily::Legacy {
        legacy(result, &mut object)?;
    } else {
        put_list(&mut object, "interfaces", result.interfaces.iter().map(|i| interface(i, abilities)));
        put_list(&mut object, "ips", result.ips.iter().map(|i| ip(i, abilities)));
        put_list(&mut object, "routes", result.routes.iter().map(|r| route(r, abilities)));
    }
    // Before 1.0.0 `dns` was always there.
    if !result.dns.is_empty() || version < SpecVersion::V1_0_0 {
        object.insert("dns".to_owned(), dns(&result.dns));
    }
    object.extend(result.extra.clone());
    Ok(Value::Object(object))
}

fn put_list(object: &mut Map<String, Value>, key: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if !items.is_empty() {
        object.insert(key.to_owned(), Value::Array(items));
    }
}

fn put_text(object: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        object.insert(key.to_owned(), text.into());
    }
}

fn put_number(object: &mut Map<String, Value>, key: &str, number: u32) {
    if number != 0 {
        object.insert(key.to_owned(), number.into());
    }
}

fn dns(dns: &Dns) -> Value {
    let mut object = Map::new();
    let put_texts = |object: &mut Map<String, Value>, key, texts: &[String]| {
        put_list(object, key, texts.iter().map(|text| text.as_str().into()));
    };
    put_texts(&mut object, "nameservers", &dns.nameservers);
    put_text(&mut object, "domain", &dns.domain);
    put_texts(&mut object, "search", &dns.search);
    put_texts(&mut object, "options", &dns.options);
    object.extend(dns.extra.clone());
    Value::Object(object)
}

fn interface(interface: &Interface, abilities: Abilities) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), interface.name.as_str().into());
    put_text(&mut object, "mac", &interface.mac);
    if abilities.interface_attributes {
        put_number(&mut object, "mtu", interface.mtu);
    }
    put_text(&mut object, "sandbox", &interface.sandbox);
    if abilities.interface_attributes {
        put_text(&mut object, "socketPath", &interface.socket_path);
        put_text(&mut object, "pciID", &interface.pci_id);
    }
    object.extend(interface.extra.clone());
    Value::Object(object)
}

fn ip(ip: &Ip, abilities: Abilities) -> Value {
    let mut object = Map::new();
    if abilities.ip_version {
        object.insert("version".to_owned(), if ip.address.is_ipv4() { "4" } else { "6" }.into());
    }
    // An index beyond the list says nothing, and containerd's go-cni panics on it.
    if let Some(index) = ip.interface.filter(|index| *index < abilities.interfaces) {
        object.insert("interface".to_owned(), index.into());
    }
    object.insert("address".to_owned(), ip.address.to_string().into());
    if let Some(gateway) = ip.gateway {
        object.insert("gateway".to_owned(), gateway.to_string().into());
    }
    object.extend(ip.extra.clone());
    Value::Object(object)
}

fn route(route: &Route, abilities: Abilities) -> Value {
    let mut object = Map::new();
    object.insert("dst".to_owned(), route.dst.to_string().into());
    if let Some(gw) = route.gw {
        object.insert("gw".to_owned(), gw.to_string().into());
    }
    if abilities.route_attributes {
        put_number(&mut object, "mtu", route.mtu);
        put_number(&mut object, "advmss", route.advmss);
        put_number(&mut object, "priority", route.priority);
        if let Some(table) = route.table {
            object.insert("table".to_owned(), table.into());
        }
        if let Some(scope) = route.scope {
            object.insert("scope".to_owned(), scope.into());
        }
    }
    object.extend(route.extra.clone());
    Value::Object(object)
}

/// One address per family, routes below the address of their family.
fn legacy(result: &AddResult, object: &mut Map<String, Value>) -> Result<(), ResultError> {
    for (key, ipv4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = result.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) else { continue };
        let mut config = Map::new();
        config.insert("ip".to_owned(), ip.address.to_string().into());
        if let Some(gateway) = ip.gateway {
            config.insert("gateway".to_owned(), gateway.to_string().into());
        }
        let routes = result.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4).map(|route| {
            let mut object = Map::new();
            object.insert("dst".to_owned(), route.dst.to_string().into());
            if let Some(gw) = route.gw {
                object.insert("gw".to_owned(), gw.to_string().into());
            }
            Value::Object(object)
        });
        put_list(&mut config, "routes", routes);
        object.insert(key.to_owned(), Value::Object(config));
    }
    if object.contains_key("ip4") || object.contains_key("ip6") {
        Ok(())
    } else {
        Err(ResultError::NoAddress)
    }
}
