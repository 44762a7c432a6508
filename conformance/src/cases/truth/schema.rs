//! The form of results, version by version: section 5 of the specification, and of its earlier versions the result sections.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::lab::parse_version;

/// What part of a result's form a flaw concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cases) enum Part {
    /// The document itself: not an object, a wrong `cniVersion`, a top-level key of another version or type.
    Document,
    /// An entry of `interfaces`: keys and types.
    Interface,
    /// `interfaces[].mac` is no hardware address in lower case with colons.
    Mac,
    /// `ips[].version`: missing, wrong, or there although the version of the result has none.
    IpVersion,
    /// `ips[].address` or `ip4.ip`.
    Address,
    /// `ips[].gateway` or `ip4.gateway`.
    Gateway,
    /// `ips[].interface`.
    Index,
    /// An entry of `routes`.
    Route,
    /// `dns`.
    Dns,
    /// A key that came with a later version than the result's.
    Newer,
    /// A null.
    Null,
}

/// One thing in which a document does not have the form of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cases) struct Flaw {
    /// What it concerns.
    pub(in crate::cases) part: Part,
    /// In words, with the place and the value.
    pub(in crate::cases) text: String,
}

/// The families of versions, whose results have one form each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    Old,
    /// 0.3.0 to 0.4.0: lists, `ips` with a `version`.
    Versioned,
    /// 1.0.0.
    Plain,
    /// 1.1.0: more about interfaces and routes.
    Rich,
}

fn form(version: &str) -> Form {
    let numbers = parse_version(version);
    let since = |least: &str| numbers >= parse_version(least);
    if since("1.1.0") {
        Form::Rich
    } else if since("1.0.0") {
        Form::Plain
    } else if since("0.3.0") {
        Form::Versioned
    } else {
        Form::Old
    }
}

/// In what `document` differs from the form of a result in `version`. Keys that no version knows are no flaw.
pub(in crate::cases) fn flaws(document: &Value, version: &str) -> Vec<Flaw> {
    let mut reader = Reader { flaws: Vec::new(), form: form(version) };
    reader.nulls("", document);
    if document.is_object() {
        reader.document(document, version);
    } else {
        reader.flaw(Part::Document, "the result is not an object");
    }
    reader.flaws
}

/// An address with a prefix length, both spelled out.
pub(in crate::cases) fn cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    IpNetwork::new(address.parse().ok()?, prefix.parse().ok()?).ok()
}

/// Whether `text` is a hardware address as results have it: bytes of two lower-case digits, joined by colons.
fn is_mac(text: &str) -> bool {
    let byte =
        |part: &str| part.len() == 2 && part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    // Ethernet has six bytes, InfiniBand twenty, EUI-64 eight.
    [6, 8, 20].contains(&text.split(':').count()) && text.split(':').all(byte)
}

struct Reader {
    flaws: Vec<Flaw>,
    form: Form,
}

impl Reader {
    fn flaw(&mut self, part: Part, text: impl Into<String>) {
        self.flaws.push(Flaw { part, text: text.into() });
    }

    fn nulls(&mut self, place: &str, value: &Value) {
        match value {
            Value::Null => self.flaw(Part::Null, format!("{place} is null")),
            Value::Object(object) => {
                object.iter().for_each(|(key, inner)| self.nulls(&format!("{place}/{key}"), inner));
            }
            Value::Array(list) => {
                list.iter()
                    .enumerate()
                    .for_each(|(index, inner)| self.nulls(&format!("{place}/{index}"), inner));
            }
            _ => {}
        }
    }

    fn document(&mut self, document: &Value, version: &str) {
        match document.get("cniVersion") {
            Some(Value::String(found)) if found == version => {}
            found => {
                let found = found.unwrap_or(&Value::Null);
                self.flaw(Part::Document, format!("cniVersion is {found} instead of {version:?}"));
            }
        }
        let (own, foreign): (&[&str], &[&str]) = match self.form {
            Form::Old => (&["ip4", "ip6"], &["interfaces", "ips", "routes"]),
            _ => (&["interfaces", "ips", "routes"], &["ip4", "ip6"]),
        };
        for key in foreign {
            if document.get(key).is_some() {
                self.flaw(Part::Document, format!("{key} is no key of a result in {version}"));
            }
        }
        for key in own {
            let Some(value) = present(document, key) else { continue };
            match (self.form, value) {
                (Form::Old, Value::Object(_)) => self.old_address(key, value),
                (Form::Old, _) => self.flaw(Part::Document, format!("{key} is not an object: {value}")),
                (_, Value::Array(list)) => self.list(key, list, document),
                _ => self.flaw(Part::Document, format!("{key} is not a list: {value}")),
            }
        }
        if let Some(dns) = present(document, "dns") {
            self.dns(dns);
        }
    }

    fn list(&mut self, key: &str, list: &[Value], document: &Value) {
        let interfaces = document["interfaces"].as_array().map_or(0, Vec::len);
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            match key {
                "interfaces" => self.interface(&place, entry),
                "ips" => self.address(&place, entry, interfaces),
                _ => self.route(&place, entry),
            }
        }
    }

    fn interface(&mut self, place: &str, entry: &Value) {
        match entry["name"].as_str() {
            Some(name) if !name.is_empty() => {}
            _ => self.flaw(Part::Interface, format!("{place} has no name: {entry}")),
        }
        for key in ["mac", "sandbox", "socketPath", "pciID"] {
            self.typed(Part::Interface, place, entry, key, Value::is_string, "a string");
        }
        self.typed(Part::Interface, place, entry, "mtu", Value::is_u64, "a number without sign");
        if let Some(mac) = entry["mac"].as_str().filter(|mac| !mac.is_empty() && !is_mac(mac)) {
            self.flaw(Part::Mac, format!("{place}.mac is no lower-case address with colons: {mac:?}"));
        }
        self.newer(place, entry, &["mtu", "socketPath", "pciID"]);
    }

    fn address(&mut self, place: &str, entry: &Value, interfaces: usize) {
        let network = self.network(Part::Address, place, entry, "address");
        let gateway = self.gateway(Part::Gateway, place, entry, "gateway", network);
        match (self.form, entry.get("version")) {
            (Form::Versioned, Some(Value::String(version))) => {
                let family = |v6: bool| if v6 { "6" } else { "4" };
                let families = [network.map(|n| n.is_ipv6()), gateway.map(|g| g.is_ipv6())];
                if !["4", "6"].contains(&version.as_str())
                    || families.into_iter().flatten().any(|v6| family(v6) != version)
                {
                    self.flaw(Part::IpVersion, format!("{place}.version is not the address's: {entry}"));
                }
            }
            (Form::Versioned, _) => {
                self.flaw(Part::IpVersion, format!("{place} has no version \"4\" or \"6\": {entry}"));
            }
            (_, Some(_)) => {
                self.flaw(Part::IpVersion, format!("{place} has a version, which ended with 0.4.0: {entry}"));
            }
            (_, None) => {}
        }
        match present(entry, "interface").map(Value::as_u64) {
            None => {}
            Some(Some(index)) if usize::try_from(index).is_ok_and(|index| index < interfaces) => {}
            Some(_) => {
                let index = &entry["interface"];
                self.flaw(
                    Part::Index,
                    format!("{place}.interface is {index}, and the result lists {interfaces} interfaces"),
                );
            }
        }
    }

    fn old_address(&mut self, key: &str, entry: &Value) {
        let network = self.network(Part::Address, key, entry, "ip");
        if network.is_some_and(|network| network.is_ipv6() != (key == "ip6")) {
            self.flaw(Part::Address, format!("{key} has an address of the other family: {entry}"));
        }
        self.gateway(Part::Gateway, key, entry, "gateway", network);
        match present(entry, "routes") {
            None => {}
            Some(Value::Array(routes)) => {
                for (index, route) in routes.iter().enumerate() {
                    self.route(&format!("{key}.routes[{index}]"), route);
                }
            }
            Some(other) => self.flaw(Part::Route, format!("{key}.routes is not a list: {other}")),
        }
    }

    fn route(&mut self, place: &str, entry: &Value) {
        let network = self.network(Part::Route, place, entry, "dst");
        if let Some(network) = network.filter(|network| network.network() != network.ip()) {
            self.flaw(Part::Route, format!("{place}.dst has bits beyond its prefix: {network}"));
        }
        self.gateway(Part::Route, place, entry, "gw", network);
        let attributes = ["mtu", "advmss", "priority", "table", "scope"];
        for key in attributes {
            self.typed(Part::Route, place, entry, key, Value::is_u64, "a number without sign");
        }
        self.newer(place, entry, &attributes);
    }

    fn dns(&mut self, dns: &Value) {
        if !dns.is_object() {
            return self.flaw(Part::Dns, format!("dns is not an object: {dns}"));
        }
        self.typed(Part::Dns, "dns", dns, "domain", Value::is_string, "a string");
        let strings = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        for key in ["nameservers", "search", "options"] {
            self.typed(Part::Dns, "dns", dns, key, strings, "a list of strings");
        }
        for server in dns["nameservers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // A link-local server has a zone behind its address.
            let address = server.split('%').next().unwrap_or(server);
            if address.parse::<IpAddr>().is_err() {
                self.flaw(Part::Dns, format!("dns.nameservers has what is no address: {server:?}"));
            }
        }
    }

    fn network(&mut self, part: Part, place: &str, entry: &Value, key: &str) -> Option<IpNetwork> {
        let network = entry[key].as_str().and_then(cidr);
        if network.is_none() {
            self.flaw(part, format!("{place}.{key} is no address with prefix length: {entry}"));
        }
        network
    }

    fn gateway(
        &mut self,
        part: Part,
        place: &str,
        entry: &Value,
        key: &str,
        network: Option<IpNetwork>,
    ) -> Option<IpAddr> {
        let value = present(entry, key)?;
        let gateway: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
        match (gateway, network) {
            (None, _) => self.flaw(part, format!("{place}.{key} is no address: {entry}")),
            (Some(gateway), Some(network)) if gateway.is_ipv6() != network.is_ipv6() => {
                self.flaw(part, format!("{place}.{key} is of another family: {entry}"));
            }
            _ => {}
        }
        gateway
    }

    fn typed(
        &mut self,
        part: Part,
        place: &str,
        entry: &Value,
        key: &str,
        fits: fn(&Value) -> bool,
        what: &str,
    ) {
        if let Some(value) = present(entry, key).filter(|value| !fits(value)) {
            self.flaw(part, format!("{place}.{key} is not {what}: {value}"));
        }
    }

    fn newer(&mut self, place: &str, entry: &Value, keys: &[&str]) {
        if self.form == Form::Rich {
            return;
        }
        for key in keys {
            if entry.get(key).is_some() {
                self.flaw(Part::Newer, format!("{place}.{key} came with 1.1.0: {entry}"));
            }
        }
    }
}

/// A key that is there and not null; null, which consumers read as none, is a flaw of its own.
fn present<'a>(entry: &'a Value, key: &str) -> Option<&'a Value> {
    entry.get(key).filter(|value| !value.is_null())
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts(document: &Value, version: &str) -> Vec<Part> {
        flaws(document, version).into_iter().map(|flaw| flaw.part).collect()
    }

    #[test]
    fn a_good_result_of_each_form_has_no_flaw() {
        let ip = json!({ "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0 });
        let mut versioned = ip.clone();
        versioned["version"] = json!("4");
        let eth0 = json!({ "name": "eth0", "mac": "0a:58:0a:01:00:05", "sandbox": "/run/netns/a" });
        let mut rich = eth0.clone();
        rich["mtu"] = json!(1500);
        let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "fe80::1" }]);
        let documents = [
            json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{ "dst": "0.0.0.0/0" }] }, "dns": {} }),
            json!({ "cniVersion": "0.3.1", "interfaces": [eth0], "ips": [versioned], "routes": routes, "dns": {} }),
            json!({ "cniVersion": "1.0.0", "interfaces": [eth0], "ips": [ip], "routes": routes, "dns": { "nameservers": ["10.1.0.1", "fe80::1%eth0"], "search": ["x"] } }),
            json!({ "cniVersion": "1.1.0", "interfaces": [rich], "ips": [ip], "routes": [{ "dst": "10.9.0.0/16", "table": 0, "scope": 253 }] }),
        ];
        for document in documents {
            let version = document["cniVersion"].as_str().unwrap().to_owned();
            assert_eq!(flaws(&document, &version), []);
        }
    }

    #[test]
    fn each_flaw_is_told_by_its_part() {
        let table = [
            (json!([]), vec![Part::Document]),
            (json!({}), vec![Part::Document]),
            (json!({ "cniVersion": "1.0.0", "ip4": {} }), vec![Part::Document]),
            (json!({ "cniVersion": "1.0.0", "ips": {} }), vec![Part::Document]),
            (json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "" }] }), vec![Part::Interface]),
            (
                json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "a", "mac": "0A:58:0a:01:00:05" }] }),
                vec![Part::Mac],
            ),
            (
                json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "a", "mtu": 1500 }] }),
                vec![Part::Newer],
            ),
            (json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.1" }] }), vec![Part::Address]),
            (
                json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.1/24", "gateway": "fd00::1" }] }),
                vec![Part::Gateway],
            ),
            (
                json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.1/24", "version": "4" }] }),
                vec![Part::IpVersion],
            ),
            (
                json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.1/24", "interface": 0 }] }),
                vec![Part::Index],
            ),
            (
                json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "a" }], "ips": [{ "address": "10.0.0.1/24", "interface": -1 }] }),
                vec![Part::Index],
            ),
            (json!({ "cniVersion": "1.0.0", "routes": [{ "dst": "10.0.0.1/24" }] }), vec![Part::Route]),
            (
                json!({ "cniVersion": "1.0.0", "routes": [{ "dst": "10.0.0.0/24", "gw": "" }] }),
                vec![Part::Route],
            ),
            (json!({ "cniVersion": "1.0.0", "dns": { "nameservers": "10.0.0.1" } }), vec![Part::Dns]),
            (json!({ "cniVersion": "1.0.0", "ips": null }), vec![Part::Null]),
        ];
        for (document, expected) in table {
            assert_eq!(parts(&document, "1.0.0"), expected, "{document}");
        }
        let missing = json!({ "cniVersion": "0.4.0", "ips": [{ "address": "10.0.0.1/24" }] });
        assert_eq!(parts(&missing, "0.4.0"), [Part::IpVersion]);
        let new = json!({ "cniVersion": "0.2.0", "interfaces": [] });
        assert_eq!(parts(&new, "0.2.0"), [Part::Document]);
        let other = json!({ "cniVersion": "0.2.0", "ip4": { "ip": "fd00::1/64" } });
        assert_eq!(parts(&other, "0.2.0"), [Part::Address]);
    }
}
