//! Is it so? A result, compared with what the kernel has.
//!
//! [`schema`] asks only for the form; this module asks whether what is said is there, and whether what is there is said.

mod schema;

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

pub(in crate::cases) use schema::{Flaw, Part, cidr, flaws};

use crate::kernel::{Link, Route, View};
use crate::lab::{Container, Lab};
use crate::verdict::Outcome;

/// What a falsehood concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cases) enum About {
    /// An interface that is not there.
    Interface,
    /// A `sandbox` that is neither the container nor the host.
    Sandbox,
    /// A hardware address that the kernel has otherwise, or that is not told.
    Mac,
    /// An MTU that the kernel has otherwise.
    Mtu,
    /// An MTU that is not told, in a version that could.
    MtuMissing,
    /// An address that is not there.
    Address,
    /// A route that is not there.
    Route,
    /// A route that is there, with another mtu, advmss, priority, table or scope.
    RouteAttribute,
    /// A route that leads out of another interface.
    RouteLink,
}

/// Something in a result that is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cases) struct Falsehood {
    /// What it concerns.
    pub(in crate::cases) about: About,
    /// In words: what the result says, and what there is.
    pub(in crate::cases) text: String,
}

impl fmt::Display for Falsehood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What there is, on the fake host and in one container.
#[derive(Debug)]
pub(in crate::cases) struct World {
    /// The fake host.
    pub(in crate::cases) host: View,
    /// The container's namespace.
    pub(in crate::cases) inside: View,
    netns: String,
    ifname: String,
}

impl World {
    /// Reads both.
    pub(in crate::cases) fn read(lab: &Lab, container: &Container) -> Outcome<Self> {
        Ok(Self {
            host: lab.host()?,
            inside: lab.view(container)?,
            netns: container.netns.clone(),
            ifname: container.ifname.clone(),
        })
    }

    /// The namespace that an entry of `interfaces` says it is in; none, if it is neither of the two.
    pub(in crate::cases) fn place(&self, interface: &Value) -> Option<&View> {
        match interface["sandbox"].as_str() {
            None | Some("") => Some(&self.host),
            Some(sandbox) if sandbox == self.netns => Some(&self.inside),
            Some(_) => None,
        }
    }

    /// The interface that an entry of `interfaces` speaks of.
    pub(in crate::cases) fn link(&self, interface: &Value) -> Option<&Link> {
        self.place(interface)?.link(interface["name"].as_str()?)
    }

    /// Everything in `result` that is not so. What has not the form of a result is left to [`flaws`].
    pub(in crate::cases) fn falsehoods(&self, result: &Value) -> Vec<Falsehood> {
        let mut reader = Reader { world: self, found: Vec::new() };
        if result["ip4"].is_object() || result["ip6"].is_object() {
            reader.read(&upgraded(result));
        } else {
            reader.read(result);
        }
        reader.found
    }

    /// The interfaces that are here, were not in `before`, and that `result` does not list.
    pub(in crate::cases) fn unlisted(&self, before: &Self, result: &Value) -> Vec<String> {
        let listed: BTreeSet<(bool, &str)> = list(result, "interfaces")
            .filter_map(|entry| {
                Some((std::ptr::eq(self.place(entry)?, &raw const self.inside), entry["name"].as_str()?))
            })
            .collect();
        let appeared = |now: &View, then: &View, inside: bool| -> Vec<String> {
            let place = if inside { "in the container" } else { "on the host" };
            now.links
                .iter()
                .filter(|link| then.link(&link.name).is_none())
                .filter(|link| !listed.contains(&(inside, link.name.as_str())))
                .map(|link| format!("{} ({}) {place}", link.name, link.kind))
                .collect()
        };
        let mut names = appeared(&self.inside, &before.inside, true);
        names.extend(appeared(&self.host, &before.host, false));
        names
    }
}

/// The entries of a list of a result.
pub(in crate::cases) fn list<'a>(result: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    result[key].as_array().into_iter().flatten()
}

/// Everything in `result` that is not so, right now.
pub(in crate::cases) fn falsehoods(
    lab: &Lab,
    container: &Container,
    result: &Value,
) -> Outcome<Vec<Falsehood>> {
    Ok(World::read(lab, container)?.falsehoods(result))
}

/// Several findings, one sentence.
pub(in crate::cases) fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A result in the form of 0.1.0 and 0.2.0, in that of 1.0.0: without interfaces, which it cannot tell.
pub(in crate::cases) fn upgraded(old: &Value) -> Value {
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for key in ["ip4", "ip6"] {
        let part = &old[key];
        if !part.is_object() {
            continue;
        }
        let mut ip = Map::new();
        ip.insert("address".to_owned(), part["ip"].clone());
        if part["gateway"].is_string() {
            ip.insert("gateway".to_owned(), part["gateway"].clone());
        }
        ips.push(Value::Object(ip));
        routes.extend(list(part, "routes").cloned());
    }
    json!({ "cniVersion": old["cniVersion"], "ips": ips, "routes": routes })
}

struct Reader<'a> {
    world: &'a World,
    found: Vec<Falsehood>,
}

impl Reader<'_> {
    fn say(&mut self, about: About, text: String) {
        self.found.push(Falsehood { about, text });
    }

    fn read(&mut self, result: &Value) {
        let rich = crate::lab::parse_version(result["cniVersion"].as_str().unwrap_or_default())
            >= crate::lab::parse_version("1.1.0");
        for entry in list(result, "interfaces") {
            self.interface(entry, rich);
        }
        for entry in list(result, "ips") {
            self.address(entry, result);
        }
        for entry in list(result, "routes") {
            self.route(entry, result);
        }
    }

    fn interface(&mut self, entry: &Value, rich: bool) {
        let name = entry["name"].as_str().unwrap_or_default();
        if self.world.place(entry).is_none() {
            return self.say(
                About::Sandbox,
                format!(
                    "{name}: its sandbox {} is neither CNI_NETNS ({:?}) nor empty",
                    entry["sandbox"], self.world.netns
                ),
            );
        }
        let Some(link) = self.world.link(entry) else {
            let place = if entry["sandbox"].as_str().unwrap_or_default().is_empty() {
                "on the host"
            } else {
                "in the container"
            };
            return self.say(
                About::Interface,
                format!("the result lists the interface {name:?}, and there is none {place}"),
            );
        };
        let mac = entry["mac"].as_str().unwrap_or_default();
        // Loopback and links without layer 2 have no address, or one of zeros: nothing to tell.
        let silent = link.mac.chars().all(|digit| digit == '0' || digit == ':');
        if !(mac.eq_ignore_ascii_case(&link.mac) || (mac.is_empty() && silent)) {
            let text =
                format!("{name}: the result has the hardware address {mac:?}, the kernel {:?}", link.mac);
            self.say(About::Mac, text);
        }
        match entry["mtu"].as_u64() {
            Some(mtu) if mtu != u64::from(link.mtu) => {
                let text = format!("{name}: the result has the MTU {mtu}, the kernel {}", link.mtu);
                self.say(About::Mtu, text);
            }
            None if rich => {
                let text = format!("{name}: the result has no MTU, the kernel {}", link.mtu);
                self.say(About::MtuMissing, text);
            }
            _ => {}
        }
    }

    fn address(&mut self, entry: &Value, result: &Value) {
        let Some(network) = entry["address"].as_str().and_then(cidr) else { return };
        let has = |view: &View, name: Option<&str>| {
            view.addresses.iter().any(|address| {
                address.network == network && name.is_none_or(|name| view.link_name(address.link) == name)
            })
        };
        let pointed = entry["interface"]
            .as_u64()
            .and_then(|index| result["interfaces"].get(usize::try_from(index).unwrap_or(usize::MAX)));
        match pointed {
            Some(interface) => {
                let Some(view) = self.world.place(interface) else { return };
                let name = interface["name"].as_str().unwrap_or_default();
                if !has(view, Some(name)) {
                    let there = addresses_text(view, name);
                    let text = format!(
                        "the result has {network} on {name}, which the kernel does not ({name} has {there})"
                    );
                    self.say(About::Address, text);
                }
            }
            // Without an index it is the container's, or one outside of it (external to the container).
            None if !has(&self.world.inside, None) && !has(&self.world.host, None) => {
                self.say(About::Address, format!("the result has {network}, which no interface has"));
            }
            None => {}
        }
    }

    fn route(&mut self, entry: &Value, result: &Value) {
        let Some(destination) = entry["dst"].as_str().and_then(cidr) else { return };
        let routes: Vec<&Route> = self
            .world
            .inside
            .routes
            .iter()
            .filter(|route| {
                route.destination.prefix() == destination.prefix()
                    && route.destination.network() == destination.network()
            })
            .collect();
        if routes.is_empty() {
            let text = format!("the result has a route to {destination}, and the kernel has none");
            return self.say(About::Route, text);
        }
        let gateways = allowed_gateways(entry, result, destination.is_ipv6());
        let through: Vec<&&Route> = routes.iter().filter(|route| gateways.contains(&route.gateway)).collect();
        let text = |routes: &[&Route]| {
            routes.iter().map(|route| route_text(route, &self.world.inside)).collect::<Vec<_>>().join(" and ")
        };
        if through.is_empty() {
            let text = format!("the result has the route {entry}, the kernel {}", text(&routes));
            return self.say(About::Route, text);
        }
        let there = text(&routes);
        let exact: Vec<&&&Route> = through.iter().filter(|route| attributes_match(entry, route)).collect();
        if exact.is_empty() {
            let text = format!("the result has the route {entry}, the kernel {there}");
            return self.say(About::RouteAttribute, text);
        }
        let ours = |route: &Route| {
            route.link.is_none_or(|index| self.world.inside.link_name(index) == self.world.ifname)
        };
        if !exact.iter().any(|route| ours(route)) {
            let text =
                format!("the route {entry} does not concern {}: the kernel has {there}", self.world.ifname);
            self.say(About::RouteLink, text);
        }
    }
}

/// The gateways with which a route of a result may be in the kernel: its own; without one, none or those of the addresses.
fn allowed_gateways(entry: &Value, result: &Value, v6: bool) -> Vec<Option<IpAddr>> {
    if let Some(gateway) = entry["gw"].as_str().and_then(|text| text.parse().ok()) {
        return vec![Some(gateway)];
    }
    let of_addresses = list(result, "ips")
        .filter_map(|ip| ip["gateway"].as_str()?.parse::<IpAddr>().ok())
        .filter(|gateway| gateway.is_ipv6() == v6)
        .map(Some);
    std::iter::once(None).chain(of_addresses).collect()
}

fn attributes_match(entry: &Value, route: &Route) -> bool {
    const MAIN: u64 = 254;
    const V6_PRIORITY: u64 = 1024;
    let v6 = route.destination.is_ipv6();
    let wanted = |key: &str| entry[key].as_u64();
    let metric = |key: &str, value: Option<u32>| {
        wanted(key).is_none_or(|wanted| u64::from(value.unwrap_or(0)) == wanted)
    };
    // The kernel takes table 0 for main, and priority 0 of an IPv6 route for 1024. IPv6 routes have no scope but global.
    let table =
        wanted("table").is_none_or(|table| u64::from(route.table) == if table == 0 { MAIN } else { table });
    let priority = wanted("priority").is_none_or(|priority| {
        u64::from(route.priority.unwrap_or(0)) == if v6 && priority == 0 { V6_PRIORITY } else { priority }
    });
    let scope = v6 || wanted("scope").is_none_or(|scope| u64::from(route.scope) == scope);
    table && priority && scope && metric("mtu", route.mtu) && metric("advmss", route.advmss)
}

/// A route as a person would read it.
pub(in crate::cases) fn route_text(route: &Route, view: &View) -> String {
    let gateway = route.gateway.map(|ip| format!(" via {ip}")).unwrap_or_default();
    let link = route.link.map(|index| format!(" dev {}", view.link_name(index))).unwrap_or_default();
    let mut text =
        format!("{}{gateway}{link} table {} scope {}", route.destination, route.table, route.scope);
    for (name, value) in [("metric", route.priority), ("mtu", route.mtu), ("advmss", route.advmss)] {
        if let Some(value) = value {
            let _ = write!(text, " {name} {value}");
        }
    }
    text
}

fn addresses_text(view: &View, name: &str) -> String {
    let addresses = view.addresses_of(name);
    if addresses.is_empty() { "none".to_owned() } else { joined(&addresses) }
}
