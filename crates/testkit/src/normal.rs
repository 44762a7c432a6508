//! Taking out of listings what differs between two looks at the same state.

use serde_json::{Map, Value};

/// Keys of `ip`, `bridge`, `tc` and `nft` listings that number, count or time things.
const VOLATILE_KEYS: &[&str] = &[
    "bytes",
    "carrier_changes",
    "carrier_down_count",
    "carrier_up_count",
    "dadfailed",
    "expires",
    "forward_delay_timer",
    "gc_timer",
    "handle",
    "hello_timer",
    "hold_timer",
    "ifindex",
    "iif_index",
    "link_index",
    "link_netnsid",
    "message_age_timer",
    "operstate",
    "packets",
    "preferred_life_time",
    "state",
    "stats",
    "stats64",
    "tcn_timer",
    "tentative",
    "topology_change",
    "topology_change_detected",
    "topology_change_timer",
    "tso_max_size",
    "used",
    "valid_life_time",
    "refcnt",
];

/// Flags of links and routes that follow the carrier.
const VOLATILE_FLAGS: [&str; 4] = ["NO-CARRIER", "LOWER_UP", "linkdown", "dead"];

/// One object of a listing as a line.
pub(crate) fn line(value: &Value) -> String {
    stable(value).to_string()
}

fn stable(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, _)| !VOLATILE_KEYS.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), stable(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .filter(|item| !item.as_str().is_some_and(|text| VOLATILE_FLAGS.contains(&text)))
                .map(stable)
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Whether an address is one the kernel makes by itself for every IPv6 link.
pub(crate) fn is_link_local(address: &str) -> bool {
    address.starts_with("fe80:")
}

/// Leaves out the routes that come and go with link-local addresses and with the carrier, and those that the kernel makes for each IPv6 address,
/// without duplicate address detection too, in a work queue at some later time; the addresses are looked at themselves.
pub(crate) fn keep_route(route: &Value) -> bool {
    let destination = route["dst"].as_str().unwrap_or_default();
    let of_address = route["table"] == "local"
        && route["protocol"] == "kernel"
        && destination.contains(':')
        && (route["type"] == "local" || route["type"] == "anycast");
    !is_link_local(destination) && !destination.starts_with("ff00:") && !of_address
}

/// Whether somebody has made a forwarding entry: it was not learnt, is not for a group that a link has joined, and is not a link's own address.
pub(crate) fn keep_forwarding(entry: &Value) -> bool {
    let first = entry["mac"].as_str().and_then(|mac| u8::from_str_radix(mac.get(..2)?, 16).ok());
    let of_device = entry["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "self"));
    // To a bridge, permanent is what is its own; to a device, what it does not forget.
    let made = entry["state"] == "static" || (of_device && entry["state"] == "permanent");
    made && first.is_some_and(|byte| byte & 1 == 0)
}

/// A ruleset without the base chains and tables that the nft variant of `iptables` makes on any use, where nothing is
/// in them.
pub(crate) fn ruleset(objects: Vec<Value>) -> Vec<Value> {
    let mut empty = Vec::new();
    for table in objects.iter().filter_map(|object| object.get("table")) {
        let of_iptables = matches!(table["family"].as_str(), Some("ip" | "ip6"))
            && matches!(table["name"].as_str(), Some("filter" | "nat" | "mangle" | "raw" | "security"));
        let idle = objects.iter().all(|object| !within(object, table) || idle_base_chain(object));
        if of_iptables && idle {
            empty.push(table.clone());
        }
    }
    let same = |a: &Value, b: &Value| a["family"] == b["family"] && a["name"] == b["name"];
    objects
        .into_iter()
        .filter(|object| !empty.iter().any(|table| within(object, table)))
        .filter(|object| !object.get("table").is_some_and(|t| empty.iter().any(|table| same(t, table))))
        .collect()
}

fn within(object: &Value, table: &Value) -> bool {
    let content = object.as_object().and_then(|map| map.values().next()).unwrap_or(object);
    content["table"] == table["name"] && content["family"] == table["family"]
}

fn idle_base_chain(object: &Value) -> bool {
    object.get("chain").is_some_and(|chain| chain.get("hook").is_some() && chain["policy"] == "accept")
}

/// The chains and rules of an `iptables-save` listing, each with its table, without counters; built-in chains with an
/// ACCEPT policy are left out, as they appear with the first use of a table.
pub(crate) fn iptables(listing: &str) -> Vec<String> {
    let mut table = "";
    let mut all = Vec::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.split(" [").next().unwrap_or(chain);
            if !chain.ends_with(" ACCEPT") {
                all.push(format!("{table} :{chain}"));
            }
        } else if line.starts_with("-A") {
            all.push(format!("{table} {line}"));
        }
    }
    all
}

/// A line without MAC addresses and without the random part of veth names.
pub(crate) fn anonymous(line: &str) -> String {
    let mut words = String::with_capacity(line.len());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut rest = line;
    while let Some(start) = rest.find(is_word) {
        words.push_str(&rest[..start]);
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        words.push_str(anonymous_word(&word[..end]));
        rest = &word[end..];
    }
    words + rest
}

fn anonymous_word(word: &str) -> &str {
    let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_mac = word.len() == 17
        && word.split(':').count() == 6
        && word.split(':').all(|part| part.len() == 2 && hexadecimal(part));
    if is_mac && word != "ff:ff:ff:ff:ff:ff" && word != "00:00:00:00:00:00" {
        return "MAC";
    }
    match word.strip_prefix("veth") {
        Some(rest) if rest.len() >= 8 && hexadecimal(rest) => "veth*",
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_timers_do_not_count() {
        let link = json!({"ifindex": 7, "ifname": "cni0", "flags": ["UP", "LOWER_UP"], "linkinfo": {"gc_timer": 1.5}});
        assert_eq!(line(&link), r#"{"ifname":"cni0","flags":["UP"],"linkinfo":{}}"#);
    }

    #[test]
    fn tables_that_iptables_leaves_empty_do_not_count() {
        let chain = |policy: &str| json!({"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "hook": "postrouting", "policy": policy}});
        let table = json!({"table": {"family": "ip", "name": "nat"}});
        let rule = json!({"rule": {"family": "ip", "table": "nat", "chain": "POSTROUTING", "expr": []}});
        assert_eq!(ruleset(vec![table.clone(), chain("accept")]), Vec::<Value>::new());
        assert_eq!(ruleset(vec![table.clone(), chain("drop")]).len(), 2);
        assert_eq!(ruleset(vec![table, chain("accept"), rule]).len(), 3);
        let own = json!({"table": {"family": "inet", "name": "ferrule"}});
        assert_eq!(ruleset(vec![own]).len(), 1);
    }

    #[test]
    fn chains_and_rules_are_listed_with_their_table() {
        let listing =
            "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:CNI-1 - [3:180]\n-A PREROUTING -j CNI-1\nCOMMIT\n";
        assert_eq!(iptables(listing), ["nat :CNI-1 -", "nat -A PREROUTING -j CNI-1"]);
    }

    #[test]
    fn random_names_and_macs_are_hidden() {
        let line = r#"{"ifname":"veth1a2b3c4d","address":"aa:bb:cc:00:11:22","broadcast":"ff:ff:ff:ff:ff:ff","x":"vethernet"}"#;
        let expected =
            r#"{"ifname":"veth*","address":"MAC","broadcast":"ff:ff:ff:ff:ff:ff","x":"vethernet"}"#;
        assert_eq!(anonymous(line), expected);
    }
}
