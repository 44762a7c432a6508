//! From a network to resources: what an attachment is made of. Nothing here touches the kernel.

use std::net::IpAddr;

use cni::{AddResult, Cidr, Code, Failure, Ip, LinkName, NetworkName, Route};
use ferrule_core::firewall::{Backend, Entry, Masquerade, NeighbourGuard};
use ferrule_core::netlink::{MacAddress, RouteEntry};
use ferrule_core::resource::{
    Bridge, BridgePort, Forwarding, Gateway, Interface, OverlayPort, ProxyArp, Rules, VethPair,
};
use ferrule_overlay::{Endpoint, Mode, endpoints, mac};

use crate::config::Config;
use crate::network::Network;

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Tunnel, Bridge, ProxyArp, VethPair, OverlayPort, BridgePort, Lease, Forwarding, Gateway, Interface, Rules }
}

/// What IPAM gave, completed: gateways, the second address of bridged mode, default routes.
pub fn complete(config: &Config, network: &Network, mut ipam: AddResult) -> Result<AddResult, Failure> {
    if ipam.ips.is_empty() {
        return Err(Failure::new(Code::InvalidConfig, "the IPAM plugin answered without an address")
            .hint("correct the configuration of ipam, or leave it out to use the node's blocks"));
    }
    if let Some(ip) = ipam.ips.first().filter(|_| network.mode == Mode::Bridged && !network.learns)
        && !ferrule_overlay::is_endpoint(&network.blocks, ip.address.address())
    {
        let message =
            format!("the IPAM plugin gave {}, which no other host of the network looks for here", ip.address);
        return Err(Failure::new(Code::InvalidConfig, message).hint(
            "other hosts know the addresses of this node's blocks (of an IPv6 block the first 256): give it one of these",
        ));
    }
    if config.ipam.is_none() && network.mode == Mode::Bridged {
        let second = second_address(network, &ipam.ips);
        ipam.ips.extend(second);
    }
    for ip in &mut ipam.ips {
        ip.interface = Some(network.made().len() + 1);
        if ip.gateway.is_none() {
            ip.gateway = ferrule_overlay::gateway(&network.on_bridge(ip.address).network());
        }
        if ip.gateway == Some(ip.address.address()) {
            let message = format!("{} is the container's address and the gateway's", ip.address);
            return Err(Failure::new(Code::InvalidConfig, message).hint(
                "give the container another address, or name the gateway in the configuration of ipam",
            ));
        }
    }
    for ipv4 in [true, false] {
        let gateway = ipam.ips.iter().filter(|ip| ip.address.is_ipv4() == ipv4).find_map(|ip| ip.gateway);
        let everywhere = if ipv4 { "0.0.0.0/0" } else { "::/0" };
        let present = ipam.routes.iter().any(|route| route.dst.is_default() && route.dst.is_ipv4() == ipv4);
        if let (Some(gateway), false) = (gateway, present) {
            ipam.routes.extend(everywhere.parse().ok().map(|dst: Cidr| Route::new(dst, Some(gateway))));
        }
    }
    if let Some(dns) = &config.dns {
        ipam.dns = dns.clone();
    }
    Ok(ipam)
}

/// The IPv6 address that goes with an IPv4 one in bridged mode.
fn second_address(network: &Network, ips: &[Ip]) -> Option<Ip> {
    let first = ips.first()?.address.address();
    let Endpoint { second, .. } = endpoints(&network.blocks).find(|endpoint| endpoint.address == first)?;
    let second = second?;
    let subnet = network.subnets.iter().find(|subnet| subnet.contains(second))?;
    Some(Ip { gateway: ferrule_overlay::gateway(subnet), ..Ip::new(Cidr::new(second, subnet.prefix())?) })
}

/// The hardware address of the container: in bridged mode the one that peers compute.
pub fn mac(network: &Network, name: &NetworkName, ips: &[Ip]) -> Option<MacAddress> {
    let first = ips.first()?.address.address();
    (network.mode == Mode::Bridged && !network.learns).then(|| mac::container(name, first))
}

/// The bridge, the pair, and its port.
pub fn link(
    config: &Config,
    network: &Network,
    mac: Option<MacAddress>,
    host_end: &LinkName,
    ifname: &LinkName,
) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    if network.mode == Mode::Routed {
        resources.push(
            Bridge { mtu: Some(network.mtu), router: true, ..Bridge::new(network.bridge.clone()) }.into(),
        );
        if network.answers_arp() {
            resources.push(ProxyArp { link: network.bridge.clone() }.into());
        }
    }
    let mtu = Some(network.mtu);
    resources.push(VethPair { host: host_end.clone(), container: ifname.clone(), mtu, mac }.into());
    // Before it is up, so that no frame passes with other settings.
    resources.extend(mac.map(|mac| {
        Resource::from(OverlayPort { link: host_end.clone(), bridge: network.bridge.clone(), mac })
    }));
    resources.push(
        BridgePort {
            link: host_end.clone(),
            bridge: network.bridge.clone(),
            hairpin: config.hairpin,
            isolated: false,
            native_vlan: None,
            trunk: ferrule_core::resource::VlanTrunk::default(),
            clear_vlans: false,
        }
        .into(),
    );
    resources
}

/// What follows from the addresses: forwarding, the gateway on the host, the container's configuration, firewall entries.
pub fn addresses(
    config: &Config,
    network: &Network,
    result: &AddResult,
    port: &(LinkName, Option<MacAddress>),
    ifname: &LinkName,
    preferred: impl FnOnce() -> Backend,
) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    for ipv4 in [true, false] {
        if result.ips.iter().any(|ip| ip.address.is_ipv4() == ipv4) {
            resources.push(Forwarding { ipv4 }.into());
        }
    }
    let gateway =
        |ip: &Ip| Cidr::new(ip.gateway?, ip.address.prefix()).map(|gateway| network.on_bridge(gateway));
    let mut gateways: Vec<Cidr> = result.ips.iter().filter_map(gateway).collect();
    gateways.sort_unstable();
    gateways.dedup();
    // What an IPAM plugin of one's own names beside them.
    let overlays = network.gateways();
    gateways.retain(|gateway| !overlays.contains(gateway));
    resources.extend(gateways.into_iter().map(|address| {
        Resource::from(Gateway { link: network.bridge.clone(), address, force: false, beside: true })
    }));
    let sysctls = [("ipv4/arp_notify", "1"), ("ipv6/accept_ra", "0"), ("ipv6/accept_dad", "0")];
    resources.push(
        Interface {
            name: ifname.clone(),
            sysctls: sysctls.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            addresses: result.ips.iter().map(|ip| ip.address).collect(),
            routes: routes(result),
            up: true,
            dad: false,
        }
        .into(),
    );
    resources.extend(rules(config, network, result, port, preferred));
    resources
}

/// The routes of a result as the kernel takes them: one without a next hop goes through the gateway of its family, unless its scope says
/// that it is on the link.
fn routes(result: &AddResult) -> Vec<RouteEntry> {
    let some = |value: u32| Some(value).filter(|value| *value != 0);
    let gateway = |ipv4: bool| -> Option<IpAddr> {
        result.ips.iter().filter(|ip| ip.address.is_ipv4() == ipv4).find_map(|ip| ip.gateway)
    };
    let route = |route: &Route| RouteEntry {
        mtu: some(route.mtu),
        advmss: some(route.advmss),
        priority: some(route.priority),
        table: route.table,
        scope: route.scope,
        ..RouteEntry::new(
            route.dst,
            route.gw.or_else(|| gateway(route.dst.is_ipv4()).filter(|_| !on_link(route))),
        )
    };
    result.routes.iter().map(route).collect()
}

/// Whether a route's scope (`rtnetlink(7)`: link, host) says that it has no next hop.
fn on_link(route: &Route) -> bool {
    matches!(route.scope, Some(253 | 254))
}

/// The firewall's part, one transaction a backend.
fn rules(
    config: &Config,
    network: &Network,
    result: &AddResult,
    port: &(LinkName, Option<MacAddress>),
    preferred: impl FnOnce() -> Backend,
) -> Vec<Resource> {
    let mut rules: Vec<Rules> = Vec::new();
    let guard = spoof_check(config, network, result, port);
    rules.extend(guard.map(|guard| Rules { backend: Backend::Nftables, entries: vec![guard] }));
    if let Some(backend) = config.masquerade.map(|backend| backend.unwrap_or_else(preferred)) {
        let mut entries = masquerade(config, network, result);
        match rules.iter_mut().find(|rules| rules.backend == backend) {
            Some(rules) => rules.entries.append(&mut entries),
            None => rules.push(Rules { backend, entries }),
        }
    }
    rules.into_iter().map(Resource::from).collect()
}

/// In bridged mode a container speaks for its own addresses only, where there is nftables to see to it, and its hardware address is known.
fn spoof_check(
    config: &Config,
    network: &Network,
    result: &AddResult,
    (port, mac): &(LinkName, Option<MacAddress>),
) -> Option<Entry> {
    let mac = mac.filter(|_| checks_spoofing(config, network))?;
    let own = result.ips.iter().map(|ip| ip.address.address());
    let addresses = own.chain([IpAddr::V6(mac.link_local())]).collect();
    Some(Entry::NeighbourGuard(NeighbourGuard { port: port.clone(), addresses }))
}

/// Whether what containers say of addresses is checked.
pub fn checks_spoofing(config: &Config, network: &Network) -> bool {
    config.spoof_check && network.mode == Mode::Bridged && !network.learns && !network.any_sender
}

/// What leaves the cluster leaves with the host's address; what stays inside keeps the container's.
fn masquerade(config: &Config, network: &Network, result: &AddResult) -> Vec<Entry> {
    let entries = result.ips.iter().map(|ip| {
        let of_family = |cidr: &&Cidr| cidr.is_ipv4() == ip.address.is_ipv4();
        let exclude = network.cluster.iter().chain(&config.masquerade_exclude).filter(of_family).copied();
        Entry::Masquerade(Masquerade { address: ip.address, exclude: exclude.collect() })
    });
    entries.collect()
}
