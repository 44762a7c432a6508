//! What the agent asks of the kernel. Every call is synchronous and takes milliseconds: a loop that waits for them keeps everything in
//! order, and needs no lock.

use ferrule_core::marks::PROTOCOL;
use ferrule_core::netlink::Netlink;
use ferrule_overlay::identity::{self, OwnAddress};
use ferrule_overlay::{Error, Family, Listed, Live, Mode, Purge, Report, Settings, State, Underlay, View};

use crate::notify::Scope;

/// Something that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// What was noticed first, for people.
    pub(crate) what: String,
    /// How many objects it was.
    pub(crate) objects: u64,
}

/// The addresses of this host's links, without those of the network's own, which are inside: a list of nodes that names one by mistake must not
/// make a tunnel in the tunnel.
pub(crate) fn own_addresses(settings: &Settings) -> Result<Vec<OwnAddress>, Error> {
    let mut own = identity::own_addresses(&mut Netlink::open()?, &Family::ALL)?;
    own.retain(|own| own.interface != settings.device && own.interface != settings.bridge);
    Ok(own)
}

/// The way out of this host, with what packets may have on the ways to these nodes.
pub(crate) fn along_paths(underlay: Underlay, nodes: &[Listed]) -> Result<Underlay, Error> {
    let mtu = identity::path_mtu(&mut Netlink::open()?, &underlay, nodes)?;
    Ok(Underlay { mtu, ..underlay })
}

/// Whether the ways to a peer carry what those to all others do, so that its coming, or its leaving, changes nothing for them.
pub(crate) fn carries_the_same(underlay: &Underlay, after: Option<&Listed>) -> Result<bool, Error> {
    let mut netlink = Netlink::open()?;
    if let Some(listed) = after {
        let mtu = identity::path_mtu(&mut netlink, underlay, std::slice::from_ref(listed))?;
        if mtu != underlay.mtu {
            return Ok(false);
        }
    }
    // Where a way carries less than the link, it may have been the one that ends.
    let link = netlink.link(underlay.interface.as_str())?;
    Ok(link.is_some_and(|link| link.mtu == underlay.mtu))
}

/// Whether the network's device is there, from an agent before.
pub(crate) fn is_running(settings: &Settings) -> bool {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(settings.device.as_str()));
    link.is_ok_and(|link| link.is_some_and(|link| link.up && link.alias == settings.alias()))
}

/// What tells this network's objects from others in notifications.
pub(crate) fn scope(view: &View) -> Scope {
    let settings = view.settings();
    let names = [&settings.device, &settings.bridge, &view.underlay().interface];
    let mut netlink = Netlink::open().ok();
    let links = names.map(|name| {
        let link = netlink.as_mut().and_then(|netlink| netlink.link(name.as_str()).ok().flatten());
        link.map_or(0, |link| link.index)
    });
    let ports_of = match settings.mode {
        Mode::Bridged if settings.multicast_group.is_none() => links[1],
        _ => 0,
    };
    Scope { links, protocol: PROTOCOL, ports_of }
}

/// Why everything is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// There is something to change: that it is not there yet is no drift.
    News,
    /// The kernel has noticed something. What is there and should not be does no harm to anybody else's packets, and can wait.
    Notice,
    /// It is time.
    Clock,
}

/// Looks whether everything is as it should be, and makes it so if not. Says what was found. Most of the time that is nothing, and then all has been
/// listed once.
pub(crate) fn check(
    live: &mut Live,
    purge: Purge,
    occasion: Occasion,
) -> Result<(Option<Report>, Option<Found>), Error> {
    let mut noticed = None;
    if occasion != Occasion::News {
        noticed = match live.survey() {
            Ok(0) => return Ok((Some(Report::default()), None)),
            Ok(_) if occasion == Occasion::Notice => return Ok((None, None)),
            Ok(_) => None,
            Err(Error::Drift { what, found, .. }) => Some(format!("{what} was {found}")),
            // A firewall that lacks its rule says so in its own words.
            Err(error) => Some(crate::error::chain(&error)),
        };
    }
    // A plugin that finds the device missing makes it, too.
    let network = live.view().settings().network.clone();
    let report = State::locked(&network, || live.program(purge))?;
    let entries = report.set + report.removed;
    if occasion == Occasion::News || (noticed.is_none() && entries == 0) {
        return Ok((Some(report), None));
    }
    let what = noticed.unwrap_or_else(|| format!("{} entries were there that should not be", report.removed));
    let objects = u64::try_from(entries.max(1)).unwrap_or(u64::MAX);
    Ok((Some(report), Some(Found { what, objects })))
}
