//! The containers' links as ports of the bridge of a stretched subnet, and the bridges that answer for one which is stretched by routes.
//!
//! An ADD plugs its container in. What plugs it in again, after somebody has deleted the bridge or pulled the link out, goes by the records of
//! the attachments: they say which link belongs in which bridge, and which hardware address is behind it.

use std::collections::{BTreeMap, BTreeSet};

use cni::LinkName;
use ferrule_core::attachment;
use ferrule_core::netlink::{LinkChange, Netlink};
use ferrule_core::owner::Owner;
use ferrule_core::resource::{OverlayPort, ProxyArp};

use crate::error::Error;
use crate::view::View;

/// The plugin that connects containers to overlays: whose records are read here.
pub const PLUGIN: &str = "vxlan";

ferrule_core::resources! {
    enum Kind { OverlayPort, BridgePort, ProxyArp }
}

/// A container's link that is not plugged in as it should be.
#[derive(Debug)]
pub(crate) struct Unplugged {
    /// The link.
    pub(crate) link: LinkName,
    /// What is missing or different.
    pub(crate) found: String,
    /// How it is to be plugged in; `None` where the kernel learns who is behind a port.
    port: Option<OverlayPort>,
}

/// The containers' links that are there, and not in the bridge with this index as they should be. Changes nothing.
pub(crate) fn unplugged(netlink: &mut Netlink, view: &View, bridge: u32) -> Result<Vec<Unplugged>, Error> {
    let settings = view.settings();
    let mut ports: BTreeMap<LinkName, Option<OverlayPort>> = BTreeMap::new();
    for resource in
        attachment::resources_of::<Kind>(&settings.network, PLUGIN).map_err(ferrule_core::Error::from)?
    {
        match resource {
            Kind::OverlayPort(port) if port.bridge == settings.bridge => {
                ports.insert(port.link.clone(), Some(port));
            }
            Kind::BridgePort(port) if port.bridge == settings.bridge => {
                ports.entry(port.link).or_default();
            }
            Kind::OverlayPort(_) | Kind::BridgePort(_) | Kind::ProxyArp(_) => {}
        }
    }
    let mut unplugged = Vec::new();
    for (name, port) in ports {
        let ours = |alias: &str| Owner::tag_in_alias(alias).is_some();
        // One without an alias is just being made.
        let Some(link) = netlink.link(name.as_str())?.filter(|link| ours(&link.alias)) else { continue };
        let found = if link.master == Some(bridge) {
            port.as_ref()
                .and_then(|port| port.verify_plugged_in(netlink).err())
                .map(|error| error.to_string())
        } else {
            Some(format!("no port of {}", settings.bridge))
        };
        unplugged.extend(found.map(|found| Unplugged { link: name, found, port }));
    }
    Ok(unplugged)
}

/// Plugs the containers' links in that are not. One that goes meanwhile, with its container, is no error.
pub(crate) fn plug_in(netlink: &mut Netlink, view: &View, bridge: u32) -> Result<(), Error> {
    for Unplugged { link: name, port, .. } in unplugged(netlink, view, bridge)? {
        let done = match (port, netlink.link(name.as_str())?) {
            (Some(port), _) => port.plug_in(netlink),
            (None, Some(link)) => {
                let change = LinkChange { master: Some(bridge), ..LinkChange::default() };
                netlink.change_link(link.index, &link.name, &change).map_err(ferrule_core::Error::from)
            }
            (None, None) => Ok(()),
        };
        if let (Err(error), Some(_)) = (done, netlink.link(name.as_str())?) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The bridges that answer containers' ARP requests for addresses of other nodes, by the records of those who need it.
fn answering(view: &View) -> Result<BTreeSet<ProxyArp>, Error> {
    if !view.settings().answers_arp() {
        return Ok(BTreeSet::new());
    }
    let resources = attachment::resources_of::<Kind>(&view.settings().network, PLUGIN);
    let all =
        resources.map_err(ferrule_core::Error::from)?.into_iter().filter_map(|resource| match resource {
            Kind::ProxyArp(answering) => Some(answering),
            _ => None,
        });
    Ok(all.collect())
}

/// Fails for the first bridge that should answer and does not. One that is gone is for the CHECK of its containers to tell.
pub(crate) fn look_at_answers(netlink: &mut Netlink, view: &View) -> Result<(), Error> {
    for bridge in answering(view)? {
        if netlink.link(bridge.link.as_str())?.is_some() {
            bridge.look().map_err(|error| Error::Drift {
                what: format!("the bridge {}", bridge.link),
                network: view.settings().network.to_string(),
                found: format!("one that does not answer for other nodes ({error})"),
            })?;
        }
    }
    Ok(())
}

/// Has the bridges answer that should.
pub(crate) fn answer(netlink: &mut Netlink, view: &View) -> Result<(), Error> {
    for bridge in answering(view)? {
        if netlink.link(bridge.link.as_str())?.is_some() {
            bridge.put_right()?;
        }
    }
    Ok(())
}
