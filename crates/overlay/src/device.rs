//! The links of an overlay on this host: its VXLAN device, and in bridged mode the bridge.

use cni::{Cidr, LinkName};
use ferrule_core::netlink::{
    BridgeSettings, Link, LinkChange, Netlink, NetlinkError, PortSettings, VxlanSettings,
};
use ferrule_core::sysctl::Key;
use ferrule_core::udp;

use crate::actual::Links;
use crate::desired::Desired;
use crate::error::Error;
use crate::mac;
use crate::names::Mode;
use crate::view::{ALIAS, Settings, View};

/// Makes sure of the links of a view: what is there and of this network is put right. [`refuse`] has been asked before.
pub fn ensure(netlink: &mut Netlink, view: &View, desired: &Desired) -> Result<Links, Error> {
    let settings = view.settings();
    let underlay = index_of(netlink, &view.underlay().interface)?;
    let device = match netlink.link(settings.device.as_str())? {
        Some(link) if is_as_made(view, &link, underlay) => link,
        Some(link) => {
            // The VNI, the port or the group can't be changed; they differ because the configuration does.
            netlink.delete_link(link.index, &link.name)?;
            create(netlink, view, underlay)?
        }
        None => create(netlink, view, underlay)?,
    };
    let bridge = match settings.mode {
        Mode::Routed => None,
        Mode::Bridged => Some(ensure_bridge(netlink, view)?),
    };
    let bridge_index = bridge.as_ref().map(|bridge| bridge.index);
    adjust(netlink, view, &device, bridge_index)?;
    let present = add_addresses(netlink, &desired.addresses, &device)?;
    delete_others(netlink, &desired.addresses, &present, &device)?;
    if let Some(bridge) = &bridge {
        // Before the neighbours, and for as long as the bridge is there: a link that loses its last IPv4 address loses its IPv4 neighbours, permanent
        // ones too (`arp_ifdown`). Other addresses are the administrator's, or of gateways that an IPAM plugin names.
        add_addresses(netlink, &desired.gateways, bridge)?;
    }
    Ok(Links { device: device.index, bridge: bridge_index, underlay, mark: settings.mark() })
}

fn index_of(netlink: &mut Netlink, name: &LinkName) -> Result<u32, Error> {
    Ok(netlink.link(name.as_str())?.map(|link| link.index).unwrap_or_default())
}

/// Fails if something of somebody else's is in the way of a view's links, and names it. Changes nothing. Other devices are listed only where the
/// view's own is yet to be made.
pub fn refuse(netlink: &mut Netlink, view: &View) -> Result<(), Error> {
    let settings = view.settings();
    let device = netlink.link(settings.device.as_str())?;
    refuse_taken(view, device.as_ref(), "vxlan")?;
    if settings.mode == Mode::Bridged {
        refuse_taken(view, netlink.link(settings.bridge.as_str())?.as_ref(), "bridge")?;
    }
    let underlay = index_of(netlink, &view.underlay().interface)?;
    if device.is_some_and(|device| is_as_made(view, &device, underlay)) {
        return Ok(());
    }
    let devices = netlink.vxlans()?;
    refuse_collision(view, &devices)?;
    refuse_held(view, &devices)?;
    match udp::holder(settings.port.get(), view.family().is_ipv4()) {
        Some(program) => Err(port_held(view, program.to_string())),
        None => Ok(()),
    }
}

/// Finds the links of a network without changing anything; `None` if the device, or in bridged mode the bridge, is not there.
pub fn find(netlink: &mut Netlink, view: &View) -> Result<Option<Links>, Error> {
    let settings = view.settings();
    let Some(device) = netlink.link(settings.device.as_str())?.filter(|link| link.alias == settings.alias())
    else {
        return Ok(None);
    };
    let bridge = match settings.mode {
        Mode::Routed => None,
        Mode::Bridged => match netlink.link(settings.bridge.as_str())? {
            Some(link) => Some(link.index),
            None => return Ok(None),
        },
    };
    let underlay =
        netlink.link(view.underlay().interface.as_str())?.map(|link| link.index).unwrap_or_default();
    Ok(Some(Links { device: device.index, bridge, underlay, mark: settings.mark() }))
}

/// Two networks on one host whose marks are the same could not tell their routes apart. One in 49152 pairs of names.
fn refuse_collision(view: &View, links: &[Link]) -> Result<(), Error> {
    let settings = view.settings();
    for link in links {
        let Some(other) = link.alias.strip_prefix(ALIAS).and_then(|name| cni::NetworkName::new(name).ok())
        else {
            continue;
        };
        if other == settings.network {
            continue;
        }
        let theirs = crate::Settings::new(other.clone(), settings.vni).map(|settings| settings.mark());
        if theirs.is_ok_and(|mark| mark == settings.mark()) {
            return Err(Error::Collision {
                network: settings.network.to_string(),
                other: other.to_string(),
                mark: settings.mark(),
            });
        }
    }
    Ok(())
}

/// Names who has the device's name, or the bridge's.
fn refuse_taken(view: &View, link: Option<&Link>, kind: &str) -> Result<(), Error> {
    let Some(link) = link else { return Ok(()) };
    let settings = view.settings();
    // Without an alias it was made, and the plugin killed before it could write one.
    let unfinished = link.alias.is_empty() && link.mac == own_mac(view, kind).to_string();
    if link.kind == kind && (link.alias == settings.alias() || unfinished) {
        return Ok(());
    }
    let found = match link.kind.as_str() {
        "" => "a plain device".to_owned(),
        other => format!("a {other} link of somebody else's"),
    };
    let wanted = if kind == "bridge" { "the bridge" } else { "the VXLAN device" };
    Err(Error::Taken { link: link.name.clone(), wanted, network: settings.network.to_string(), found })
}

/// Names who has the VNI and port.
fn refuse_held(view: &View, links: &[Link]) -> Result<(), Error> {
    let settings = view.settings();
    let ipv4 = view.underlay().address.is_ipv4();
    let holds = |link: &&Link| {
        let same = |vxlan: &VxlanSettings| {
            // A device for many networks (`external`) has them all; one that takes other packets has the port for itself, in its family.
            let alone = vxlan.exclusive && vxlan.local.is_none_or(|local| local.is_ipv4() == ipv4);
            vxlan.port == settings.port.get() && (vxlan.vni == settings.vni.get() || vxlan.vni == 0 || alone)
        };
        link.name != settings.device.as_str() && link.vxlan.as_ref().is_some_and(same)
    };
    match links.iter().find(holds) {
        Some(link) => Err(held(view, format!("the link {}", link.name))),
        None => Ok(()),
    }
}

fn port_held(view: &View, holder: String) -> Error {
    let settings = view.settings();
    Error::PortHeld { port: settings.port.get(), network: settings.network.to_string(), holder }
}

fn held(view: &View, holder: String) -> Error {
    let settings = view.settings();
    Error::Held {
        vni: settings.vni.get(),
        port: settings.port.get(),
        holder,
        network: settings.network.to_string(),
    }
}

fn own_mac(view: &View, kind: &str) -> ferrule_core::netlink::MacAddress {
    if kind == "bridge" { mac::gateway(&view.settings().network) } else { view.mac() }
}

/// What makes the device.
pub(crate) fn wanted(view: &View, underlay: u32) -> VxlanSettings {
    let settings = view.settings();
    let group = settings.multicast_group;
    VxlanSettings {
        vni: settings.vni.get(),
        port: settings.port.get(),
        local: Some(view.underlay().address),
        group,
        // The group is joined on a link; else the device is bound to none, so that it outlives one.
        link: group.map(|_| underlay),
        learning: group.is_some(),
        exclusive: false,
    }
}

/// Whether a device need not be made again: the source address can be changed.
fn is_as_made(view: &View, link: &Link, underlay: u32) -> bool {
    let wanted = wanted(view, underlay);
    link.vxlan.as_ref().is_some_and(|vxlan| {
        let same_family =
            vxlan.local.is_some_and(|local| local.is_ipv4() == view.underlay().address.is_ipv4());
        same_family && VxlanSettings { local: wanted.local, ..vxlan.clone() } == wanted
    })
}

fn create(netlink: &mut Netlink, view: &View, underlay: u32) -> Result<Link, Error> {
    let name = &view.settings().device;
    match netlink.create_vxlan(name, &wanted(view, underlay), view.mac(), view.mtu()) {
        // Nobody here has it, so it is a device that was moved away: its socket stays in the namespace it was made in.
        Err(error) if error.is_exists() && netlink.link(name.as_str())?.is_none() => {
            return Err(held(view, "a link in another network namespace".to_owned()));
        }
        other => other?,
    }
    let link = netlink.link(name.as_str())?.ok_or_else(|| missing(name))?;
    mark(netlink, view, &link)?;
    quieten(name, "0")?;
    Ok(link)
}

fn missing(name: &LinkName) -> Error {
    ferrule_core::Error::LinkMissing { name: name.to_string(), place: "on the host" }.into()
}

fn mark(netlink: &mut Netlink, view: &View, link: &Link) -> Result<(), Error> {
    let change = LinkChange { alias: Some(view.settings().alias()), ..LinkChange::default() };
    Ok(netlink.change_link(link.index, &link.name, &change)?)
}

/// No address of its own making, and nobody's advertisements taken, before the link is up.
fn quieten(name: &LinkName, accept_dad: &str) -> Result<(), Error> {
    for (parameter, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_dad", accept_dad)] {
        let written = Key::of_interface("ipv6", name, parameter).write_if_present(value);
        written.map_err(ferrule_core::Error::from)?;
    }
    Ok(())
}

/// The bridge of a stretched subnet. It is every node's gateway, so it has the same hardware address on each.
fn ensure_bridge(netlink: &mut Netlink, view: &View) -> Result<Link, Error> {
    let name = &view.settings().bridge;
    let mac = mac::gateway(&view.settings().network);
    let link = if let Some(link) = netlink.link(name.as_str())? {
        link
    } else {
        let settings = BridgeSettings { mtu: Some(view.mtu()), mac: Some(mac), vlan_filtering: None };
        netlink.create_bridge(name, &settings)?;
        let link = netlink.link(name.as_str())?.ok_or_else(|| missing(name))?;
        for (parameter, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
            let written = Key::of_interface("ipv6", name, parameter).write_if_present(value);
            written.map_err(ferrule_core::Error::from)?;
        }
        link
    };
    let change = LinkChange {
        up: (!link.up).then_some(true),
        mac: (link.mac != mac.to_string()).then_some(mac),
        alias: (link.alias != view.settings().alias()).then(|| view.settings().alias()),
        ..LinkChange::default()
    };
    if change != LinkChange::default() {
        netlink.change_link(link.index, &link.name, &change)?;
    }
    Ok(link)
}

/// How the device is a port of the bridge.
pub(crate) fn port_settings(settings: &Settings) -> PortSettings {
    let learns = settings.multicast_group.is_some();
    PortSettings {
        learning: Some(learns),
        flood: Some(learns || settings.bum),
        suppress_neighbours: Some(!learns),
        ..PortSettings::default()
    }
}

/// Puts right what can be changed of a device.
fn adjust(netlink: &mut Netlink, view: &View, link: &Link, bridge: Option<u32>) -> Result<(), Error> {
    let settings = view.settings();
    let address = view.underlay().address;
    if link.vxlan.as_ref().is_some_and(|vxlan| vxlan.local != Some(address)) {
        netlink.set_vxlan_local(link.index, &settings.device, address)?;
    }
    let mac = view.mac();
    let change = LinkChange {
        // Someone (systemd-udevd before 242's fix, an administrator) may have changed it; peers send to the computed one.
        mac: (link.mac != mac.to_string()).then_some(mac),
        mtu: (link.mtu != view.mtu()).then(|| view.mtu()),
        alias: (link.alias != settings.alias()).then(|| settings.alias()),
        master: (link.master != bridge).then(|| bridge.unwrap_or_default()),
        ..LinkChange::default()
    };
    if change != LinkChange::default() {
        netlink.change_link(link.index, &link.name, &change)?;
    }
    if bridge.is_some() {
        netlink.set_port(link.index, &settings.device, port_settings(settings))?;
    }
    if !link.up {
        let change = LinkChange { up: Some(true), ..LinkChange::default() };
        match netlink.change_link(link.index, &link.name, &change) {
            // No device that is listed here has it, or `refuse` would have named it; and a program only if it has come since.
            Err(error) if error.is_in_use() => {
                let program = udp::holder(settings.port.get(), view.family().is_ipv4());
                let unseen = || "a program, or a VXLAN device, of another namespace".to_owned();
                return Err(port_held(view, program.map_or_else(unseen, |program| program.to_string())));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Makes sure of addresses of a link. Gives those that were there before.
fn add_addresses(netlink: &mut Netlink, wanted: &[Cidr], link: &Link) -> Result<Vec<Cidr>, Error> {
    let present: Vec<Cidr> = netlink.addresses(link.index)?.into_iter().map(|address| address.cidr).collect();
    for address in wanted.iter().filter(|address| !present.contains(address)) {
        if !address.is_ipv4()
            && let Ok(name) = LinkName::new(link.name.as_str())
        {
            // A host that has IPv6 disabled by default can still have it on this link, where it is asked for.
            let written = Key::of_interface("ipv6", &name, "disable_ipv6").write_if_present("0");
            written.map_err(ferrule_core::Error::from)?;
        }
        tolerate(netlink.add_address(link.index, &link.name, address, false), NetlinkError::is_exists)?;
    }
    Ok(present)
}

/// The device has the addresses that other nodes route to, and no others.
fn delete_others(netlink: &mut Netlink, wanted: &[Cidr], present: &[Cidr], link: &Link) -> Result<(), Error> {
    for address in present.iter().filter(|address| !wanted.contains(address) && !is_link_local(address)) {
        tolerate(netlink.delete_address(link.index, &link.name, address), NetlinkError::is_missing)?;
    }
    Ok(())
}

fn is_link_local(cidr: &Cidr) -> bool {
    matches!(cidr.address(), std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn tolerate(
    result: Result<(), NetlinkError>,
    fine: impl Fn(&NetlinkError) -> bool,
) -> Result<(), NetlinkError> {
    match result {
        Err(error) if fine(&error) => Ok(()),
        other => other,
    }
}
