//! From configuration to resources: what a bridge attachment is made of. Nothing here touches the kernel.

use std::net::IpAddr;

use cni::{AddResult, Cidr, Code, Failure, Ip, LinkName, Route, address};
use ferrule_core::firewall::{Backend, Entry, Masquerade, SpoofGuard};
use ferrule_core::netlink::RouteEntry;
use ferrule_core::owner::hex_digest;
use ferrule_core::resource::{
    Bridge, BridgePort, Forwarding, Gateway, Interface, Rules, VethPair, VlanGateway,
};

use crate::config::Config;

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Bridge, VethPair, BridgePort, Lease, Forwarding, VlanGateway, Gateway, Interface, Rules }
}

/// Scopes of `rtnetlink(7)` that have no gateway.
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
/// The routing table of `ip route` without `table`.
const MAIN_TABLE: u32 = 254;

/// The bridge, the pair, and its port: what is needed before an IPAM plugin is asked.
pub fn link(config: &Config, host_end: &LinkName, ifname: &LinkName) -> Vec<Resource> {
    // A trunk without a native VLAN of its own leaves untagged frames in VLAN 1, the bridge's default.
    let native_vlan = config.vlan.or_else(|| config.trunk.as_ref().map(|_| 1));
    vec![
        Bridge {
            name: config.bridge.clone(),
            mtu: config.mtu,
            vlan_filtering: config.vlan_filtering(),
            promiscuous: config.promiscuous,
            router: config.gateway,
        }
        .into(),
        VethPair { host: host_end.clone(), container: ifname.clone(), mtu: config.mtu, mac: config.mac }
            .into(),
        BridgePort {
            link: host_end.clone(),
            bridge: config.bridge.clone(),
            hairpin: config.hairpin,
            isolated: config.isolation,
            native_vlan,
            trunk: config.trunk.clone().unwrap_or_default(),
            clear_vlans: config.vlan_filtering() && !config.preserve_default_vlan,
        }
        .into(),
    ]
}

/// What IPAM gave, completed: gateways, default routes, the name service.
pub fn complete(config: &Config, mut ipam: AddResult) -> Result<AddResult, Failure> {
    if config.ipam.is_some() && ipam.ips.is_empty() {
        return Err(Failure::new(Code::InvalidConfig, "IPAM plugin returned missing IP config")
            .hint("the IPAM plugin answered without an address; correct its configuration"));
    }
    for ip in &mut ipam.ips {
        ip.interface = Some(2);
        if config.gateway && ip.gateway.is_none() {
            ip.gateway = first_host(&ip.address);
            if ip.gateway == Some(ip.address.address()) {
                return Err(Failure::new(
                    Code::InvalidConfig,
                    format!("{} is the container's address and, with isGateway, the gateway's", ip.address),
                )
                .hint(
                    "give the container another address, or name the gateway in the configuration of IPAM",
                ));
            }
        }
    }
    if config.default_gateway {
        for ipv4 in [true, false] {
            add_default_route(&mut ipam, ipv4);
        }
    }
    if let Some(dns) = &config.dns {
        ipam.dns = dns.clone();
    }
    Ok(ipam)
}

/// The address after the network's own; of a network of one or two addresses, the other one or itself.
fn first_host(subnet: &Cidr) -> Option<IpAddr> {
    let network = subnet.network().address();
    if subnet.bits() - subnet.prefix() <= 1 {
        return [Some(network), address::next(network)]
            .into_iter()
            .flatten()
            .find(|host| *host != subnet.address() && subnet.contains(*host));
    }
    address::next(network)
}

/// One default route a family in the main table, through the gateway: IPAM's own where it has one, with the gateway filled in where it is
/// left open.
fn add_default_route(ipam: &mut AddResult, ipv4: bool) {
    let Some(gateway) = gateway_of(&ipam.ips, ipv4) else { return };
    let mut present = false;
    for route in &mut ipam.routes {
        let in_main_table = matches!(route.table, None | Some(0 | MAIN_TABLE));
        if route.dst.is_default() && route.dst.is_ipv4() == ipv4 && in_main_table {
            present = true;
            if !on_link(route) {
                route.gw.get_or_insert(gateway);
            }
        }
    }
    if !present {
        let everywhere = if ipv4 { "0.0.0.0/0" } else { "::/0" };
        ipam.routes.extend(everywhere.parse().ok().map(|dst: Cidr| Route::new(dst, Some(gateway))));
    }
}

/// Whether a route's scope says that it has no next hop.
fn on_link(route: &Route) -> bool {
    matches!(route.scope, Some(SCOPE_LINK | SCOPE_HOST))
}

fn gateway_of(ips: &[Ip], ipv4: bool) -> Option<IpAddr> {
    ips.iter().filter(|ip| ip.address.is_ipv4() == ipv4).find_map(|ip| ip.gateway)
}

/// The routes of a result as the kernel takes them: one without a next hop goes through the gateway of its family, unless its scope says
/// that it is on the link.
fn routes(network: &AddResult) -> Vec<RouteEntry> {
    let some = |value: u32| Some(value).filter(|value| *value != 0);
    network
        .routes
        .iter()
        .map(|route| {
            let gateway = route
                .gw
                .or_else(|| gateway_of(&network.ips, route.dst.is_ipv4()).filter(|_| !on_link(route)));
            RouteEntry {
                mtu: some(route.mtu),
                advmss: some(route.advmss),
                priority: some(route.priority),
                table: route.table,
                scope: route.scope,
                ..RouteEntry::new(route.dst, gateway)
            }
        })
        .collect()
}

/// What follows from the addresses: the gateway on the host, the container's configuration, forwarding, firewall entries.
pub fn network(
    config: &Config,
    network: &AddResult,
    host_end: &LinkName,
    ifname: &LinkName,
    mac: &str,
    preferred: impl FnOnce() -> Backend,
) -> Result<Vec<Resource>, Failure> {
    let mut resources = Vec::new();
    if config.gateway {
        // Before there is an address, and off only after it has gone: a switch on either side of that leaves the kernel (6.18) with the
        // anycast address of a subnet that is not there any more.
        for ipv4 in [true, false] {
            if network.ips.iter().any(|ip| ip.address.is_ipv4() == ipv4) {
                resources.push(Forwarding { ipv4 }.into());
            }
        }
        resources.extend(gateways(config, network)?);
    }
    resources.push(interface(config, network, ifname).into());
    resources.extend(rules(config, network, host_end, mac, preferred));
    Ok(resources)
}

fn gateways(config: &Config, network: &AddResult) -> Result<Vec<Resource>, Failure> {
    let mut resources = Vec::new();
    let link = match (config.vlan_gateway()?, config.vlan) {
        (Some(name), Some(vlan)) if !network.ips.is_empty() => {
            let port = LinkName::new(format!("veth{}", hex_digest(name.as_str(), 8)))
                .map_err(|error| Failure::from_error(Code::Internal, &error))?;
            resources.push(
                VlanGateway {
                    bridge: config.bridge.clone(),
                    name: name.clone(),
                    port,
                    vlan,
                    mtu: config.mtu,
                    keep_default_vlan: config.preserve_default_vlan,
                }
                .into(),
            );
            name
        }
        _ => config.bridge.clone(),
    };
    let mut addresses = Vec::new();
    for ip in &network.ips {
        addresses.extend(ip.gateway.and_then(|gateway| Cidr::new(gateway, ip.address.prefix())));
    }
    addresses.sort();
    addresses.dedup();
    resources.extend(
        addresses
            .into_iter()
            .map(|address| Gateway {
                link: link.clone(),
                address,
                force: config.force_address,
                beside: false,
            })
            .map(Resource::from),
    );
    Ok(resources)
}

fn interface(config: &Config, network: &AddResult, ifname: &LinkName) -> Interface {
    let mut sysctls = Vec::new();
    let mut set = |parameter: &str, value: &str| sysctls.push((parameter.to_owned(), value.to_owned()));
    if config.ipam.is_some() {
        set("ipv4/arp_notify", "1");
        // Addresses come from IPAM; a neighbour must not give others, or another way out (CVE-2020-10749).
        set("ipv6/accept_ra", if config.accept_ra { "1" } else { "0" });
        if config.dad {
            set("ipv6/enhanced_dad", "1");
        }
        set("ipv6/accept_dad", if config.dad { "1" } else { "0" });
    }
    Interface {
        name: ifname.clone(),
        sysctls,
        addresses: network.ips.iter().map(|ip| ip.address).collect(),
        routes: routes(network),
        up: !config.disable_container_interface,
        dad: config.dad,
    }
}

fn rules(
    config: &Config,
    network: &AddResult,
    host_end: &LinkName,
    mac: &str,
    preferred: impl FnOnce() -> Backend,
) -> Vec<Resource> {
    let mut rules: Vec<Rules> = Vec::new();
    if let (Some(backend), false) = (config.masquerade, network.ips.is_empty()) {
        let entries = network.ips.iter().map(|ip| {
            let ipv4 = ip.address.is_ipv4();
            let exclude =
                config.masquerade_exclude.iter().filter(|cidr| cidr.is_ipv4() == ipv4).copied().collect();
            Entry::Masquerade(Masquerade { address: ip.address, exclude })
        });
        rules.push(Rules { backend: backend.unwrap_or_else(preferred), entries: entries.collect() });
    }
    if config.spoof_check {
        let guard = Entry::SpoofGuard(SpoofGuard { port: host_end.clone(), mac: mac.to_owned() });
        // iptables sees no frames, so this is nftables' whatever the masquerade is made with.
        match rules.first_mut().filter(|rules| rules.backend == Backend::Nftables) {
            Some(rules) => rules.entries.push(guard),
            None => rules.push(Rules { backend: Backend::Nftables, entries: vec![guard] }),
        }
    }
    rules.into_iter().map(Resource::from).collect()
}

#[cfg(test)]
mod tests;
