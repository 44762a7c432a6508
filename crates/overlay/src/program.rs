//! Making it so: the links of a view, then the entries, then who may send to it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::Cidr;
use ferrule_core::firewall::VtepGuard;
use ferrule_core::netlink::{Change, Link, Netlink, Tables};
use ferrule_core::resource::{Tunnel, TunnelLink};

use crate::actual::{Actual, Links};
use crate::desired::Desired;
use crate::device;
use crate::diff::{Changes, diff};
use crate::error::Error;
use crate::mac;
use crate::names::{Mode, NodeId};
use crate::nexthops::Nexthops;
use crate::ports;
use crate::view::{Settings, View};

/// Whether entries are taken away that a drastic change would take away ([`Changes::is_drastic`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// No: what is missing is made, and nothing goes. For what is remembered from before, when the present is not known yet.
    Never,
    /// Not without confirmation: what is missing is made, nothing goes. For lists that came from a server.
    Guarded,
    /// Yes: an operator has written the list, or a second look has confirmed it.
    Confirmed,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// How many entries were made or put right.
    pub set: usize,
    /// How many were taken away.
    pub removed: usize,
    /// How many were not taken away, because that would have been drastic.
    pub withheld: usize,
}

/// Makes a view so on this host: idempotent. The VXLAN device is up when this returns. Whoever calls it holds a lock of the network's: the plugin its
/// register of users, whoever works for the agent [`State::locked`](crate::State::locked).
///
/// # Errors
/// A device that is in the way is named, and nothing has been changed. Where the kernel refuses single entries, the others have been made.
pub fn program(view: &View, purge: Purge) -> Result<Report, Error> {
    Ok(bring_about(view, &Desired::of(view), &senders(view), purge)?.0)
}

/// As [`program`], where it is known what should be. Gives what a change of one node has to know.
pub(crate) fn bring_about(
    view: &View,
    desired: &Desired,
    senders: &BTreeSet<IpAddr>,
    purge: Purge,
) -> Result<(Report, Seen), Error> {
    let mut netlink = Netlink::open()?;
    let mut tables = Tables::open()?;
    device::refuse(&mut netlink, view)?;
    // Who may send is settled before anybody can; and nobody is kept out whose entries stay.
    let guard = guard_of(view);
    if let Some(guard) = &guard {
        guard.admit(senders).map_err(ferrule_core::Error::from)?;
    }
    let links = device::ensure(&mut netlink, view, desired)?;
    if let Some(bridge) = links.bridge {
        ports::plug_in(&mut netlink, view, bridge)?;
    }
    ports::answer(&mut netlink, view)?;
    let actual = Actual::read(&mut tables, &links)?;
    let changes = diff(desired, &actual, &links);
    let report = apply(&mut tables, &changes, purge)?;
    if let (Some(guard), true) = (&guard, report.withheld == 0 && purge != Purge::Never) {
        guard.ensure(senders).map_err(ferrule_core::Error::from)?;
    }
    let mut nexthops = actual.nexthops();
    nexthops.learn(&changes.set);
    if report.withheld == 0 {
        nexthops.learn(&changes.remove);
    }
    Ok((report, Seen { links, nexthops }))
}

/// The numbers of this host that the objects of a network refer to, as they were last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) links: Links,
    pub(crate) nexthops: Nexthops,
}

/// Brings the entries of a network to what they should be: the whole of a periodic check, where the links are there.
pub fn reconcile(
    tables: &mut Tables,
    desired: &Desired,
    links: &Links,
    purge: Purge,
) -> Result<Report, Error> {
    let actual = Actual::read(tables, links)?;
    apply(tables, &diff(desired, &actual, links), purge)
}

/// Applies changes: first what is missing, then what is too much.
pub fn apply(tables: &mut Tables, changes: &Changes, purge: Purge) -> Result<Report, Error> {
    let mut report = Report { set: changes.set.len(), ..Report::default() };
    commit(tables, &changes.set)?;
    let kept = match purge {
        Purge::Never => true,
        Purge::Guarded => changes.is_drastic(),
        Purge::Confirmed => false,
    };
    if kept {
        report.withheld = changes.remove.len();
    } else {
        commit(tables, &changes.remove)?;
        report.removed = changes.remove.len();
    }
    Ok(report)
}

fn commit(tables: &mut Tables, changes: &[Change]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let refusals = tables.apply(changes)?;
    let Some(first) = refusals.first() else { return Ok(()) };
    let what = changes.get(first.index).map(ToString::to_string).unwrap_or_default();
    let (failed, total) = (refusals.len(), changes.len());
    Err(Error::Refused { failed, total, first: what, source: first.error.clone() })
}

/// The addresses that packets of this network come from.
pub(crate) fn senders(view: &View) -> BTreeSet<IpAddr> {
    view.peers().iter().filter_map(|peer| peer.underlay(view.family())).collect()
}

/// What lets packets of the network in from its nodes only, where that is wanted.
pub(crate) fn guard_of(view: &View) -> Option<VtepGuard> {
    let settings = view.settings();
    settings.is_guarded().then(|| VtepGuard {
        network: settings.network.clone(),
        ipv4: view.family().is_ipv4(),
        port: settings.port.get(),
        vni: settings.vni.get(),
    })
}

/// Lets packets of the network in from its nodes only, where that is wanted.
pub fn guard(view: &View) -> Result<(), Error> {
    let Some(guard) = guard_of(view) else { return Ok(()) };
    Ok(guard.ensure(&senders(view)).map_err(ferrule_core::Error::from)?)
}

/// Succeeds if this host has everything of a view; the error names the first thing that is missing or different. Changes nothing.
pub fn verify(view: &View) -> Result<(), Error> {
    survey(view).map(|_| ())
}

/// As [`verify`]; says how many entries there are besides that should not be.
pub fn survey(view: &View) -> Result<usize, Error> {
    Ok(look(view, &Desired::of(view), &senders(view))?.0)
}

/// As [`survey`], where it is known what should be. Gives what a change of one node has to know.
pub(crate) fn look(
    view: &View,
    desired: &Desired,
    senders: &BTreeSet<IpAddr>,
) -> Result<(usize, Seen), Error> {
    let mut netlink = Netlink::open()?;
    let links = look_at_links(&mut netlink, view, desired)?;
    let actual = Actual::read(&mut Tables::open()?, &links)?;
    let changes = diff(desired, &actual, &links);
    let mut surplus = changes.remove.len();
    let mut wrong = changes.set.iter().filter_map(|change| match change {
        Change::Set(entry) => Some(entry),
        // What has to go before it can be made anew.
        Change::Remove(_) => None,
    });
    if let Some(entry) = wrong.next() {
        return Err(drift(view, entry.to_string(), "missing or different"));
    }
    if let Some(guard) = guard_of(view) {
        surplus += guard.verify(senders).map_err(ferrule_core::Error::from)?;
    }
    Ok((surplus, Seen { links, nexthops: actual.nexthops() }))
}

/// Fails for the first link of a container that is not in the bridge as it should be, and for a bridge that does not answer as it should. A CHECK looks at its own
/// container's alone.
pub(crate) fn look_at_ports(view: &View, links: &Links) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    ports::look_at_answers(&mut netlink, view)?;
    let Some(bridge) = links.bridge else { return Ok(()) };
    match ports::unplugged(&mut netlink, view, bridge)?.into_iter().next() {
        Some(port) => Err(drift(view, format!("the container's link {}", port.link), &port.found)),
        None => Ok(()),
    }
}

fn drift(view: &View, what: String, found: &str) -> Error {
    Error::Drift { what, network: view.settings().network.to_string(), found: found.to_owned() }
}

/// The links of a view, if they are as they should be.
fn look_at_links(netlink: &mut Netlink, view: &View, desired: &Desired) -> Result<Links, Error> {
    let settings = view.settings();
    let device = format!("the VXLAN device {}", settings.device);
    let Some(links) = device::find(netlink, view)? else { return Err(drift(view, device, "missing")) };
    let link = netlink.link_by_index(links.device)?.unwrap_or_default();
    if !link.up {
        return Err(drift(view, device, "down"));
    }
    if link.mac != view.mac().to_string() {
        let what = format!("the hardware address of {}", settings.device);
        return Err(drift(view, what, &format!("{}, not {}", link.mac, view.mac())));
    }
    if link.mtu != view.mtu() {
        let what = format!("the MTU of {}", settings.device);
        return Err(drift(view, what, &format!("{}, not {}", link.mtu, view.mtu())));
    }
    let wanted = device::wanted(view, links.underlay);
    let vxlan = link.vxlan.clone().unwrap_or_default();
    if (vxlan.vni, vxlan.port, vxlan.local) != (wanted.vni, wanted.port, wanted.local) {
        let local = vxlan.local.map_or_else(|| "none".to_owned(), |address| address.to_string());
        let found = format!("VNI {}, port {}, source address {local}", vxlan.vni, vxlan.port);
        return Err(drift(view, device, &found));
    }
    if vxlan != wanted {
        let found = match (vxlan.learning, wanted.learning) {
            (true, false) => "one that learns",
            (false, true) => "one that does not learn",
            _ => "of another multicast group or link",
        };
        return Err(drift(view, device, found));
    }
    if let Some(bridge) = links.bridge {
        look_at_bridge(netlink, view, bridge, &link)?;
    }
    let on_device = (Some(links.device), &settings.device, &desired.addresses);
    let on_bridge = (links.bridge, &settings.bridge, &desired.gateways);
    for (link, name, wanted) in [on_device, on_bridge] {
        let Some(link) = link else { continue };
        let present = netlink.addresses(link)?;
        let is_missing = |address: &&Cidr| !present.iter().any(|other| other.cidr == **address);
        if let Some(address) = wanted.iter().find(is_missing) {
            return Err(drift(view, format!("address {address} of {name}"), "missing"));
        }
    }
    Ok(links)
}

/// The bridge of a stretched subnet, and the device as its port, if they are as they should be.
fn look_at_bridge(netlink: &mut Netlink, view: &View, index: u32, device: &Link) -> Result<(), Error> {
    let settings = view.settings();
    let bridge = netlink.link_by_index(index)?.unwrap_or_default();
    if !bridge.up {
        return Err(drift(view, format!("the bridge {}", settings.bridge), "down"));
    }
    let gateway = mac::gateway(&settings.network).to_string();
    if bridge.mac != gateway {
        let what = format!("the hardware address of {}", settings.bridge);
        return Err(drift(view, what, &format!("{}, not {gateway}", bridge.mac)));
    }
    if device.master != Some(index) {
        let what = format!("the VXLAN device {}", settings.device);
        return Err(drift(view, what, &format!("no port of {}", settings.bridge)));
    }
    let (found, wanted) =
        (netlink.port(&settings.device)?.unwrap_or_default(), device::port_settings(settings));
    for (what, found, wanted) in [
        ("learning", found.learning, wanted.learning),
        ("flooding", found.flood, wanted.flood),
        ("suppression of neighbour requests", found.suppress_neighbours, wanted.suppress_neighbours),
    ] {
        // A kernel that does not say does not know it.
        if let Some(on) = found.filter(|_| found != wanted) {
            let what = format!("{what} at port {}", settings.device);
            return Err(drift(view, what, if on { "on, not off" } else { "off, not on" }));
        }
    }
    Ok(())
}

/// This host's part of a network, as a resource of the attachments that share it. `node` is this host's name, where it is known.
pub fn tunnel(settings: &Settings, node: Option<&NodeId>) -> Tunnel {
    let network = &settings.network;
    let device = TunnelLink { name: settings.device.clone(), mac: node.map(|node| mac::vtep(network, node)) };
    let bridge = TunnelLink { name: settings.bridge.clone(), mac: Some(mac::gateway(network)) };
    let links = match settings.mode {
        Mode::Routed => vec![device],
        Mode::Bridged => vec![device, bridge],
    };
    Tunnel { links, mark: settings.mark(), alias: settings.alias() }
}

/// Removes a network from this host: device, entries, guard. What other networks and other programs have made stays.
pub fn remove(settings: &Settings) -> Result<(), Error> {
    Ok(tunnel(settings, None).dismantle(&settings.network, &mut Netlink::open()?)?)
}
