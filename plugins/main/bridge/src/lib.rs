//! The `bridge` plugin: a veth pair a container, whose end on the host is a port of a Linux bridge.
//!
//! [`config`] says what was asked, [`plan`] what that is made of; here the verbs carry it out. `docs/plugins/bridge.md` has the keys.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni::{
    AddResult, Attachment, Code, Failure, Interface, LinkName, Plugin, Request, Target, ValidAttachments,
    Verb,
};
use ferrule_core::announce::announce;
use ferrule_core::attachment::{self, Building, Collection};
use ferrule_core::firewall::{self, Backend, Role};
use ferrule_core::netlink::Netlink;
use ferrule_core::resource::{
    Lease, Lifecycle, collect_pairs, free_host_end, is_shared, remove_registered, remove_unrecorded_veth,
    sweep_bridge,
};
use ferrule_core::{Error, Host, privilege};
use ferrule_host_local::HostLocal;

pub mod config;
pub mod plan;

use config::Config;
use plan::Resource;

const NAME: &str = "bridge";

/// How long the host's port may take until frames pass.
const PORT_LIMIT: Duration = Duration::from_secs(5);

/// The plugin.
#[derive(Debug)]
pub struct BridgePlugin;

impl Plugin for BridgePlugin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn contained(&self) -> &'static [&'static (dyn Plugin + Sync)] {
        &[&HostLocal]
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::load(request)?;
        let previous = request.config().prev_result()?;
        // Found missing now rather than after the first change.
        config.ipam.as_deref().map(|kind| request.delegate(kind)).transpose()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        refuse_existing(&mut host, target)?;
        let host_end = free_host_end(&mut host)?;
        let own = attachment::add(&mut host, |building| build(building, &config, target, &host_end))?;
        Ok(match previous {
            Some(previous) => own.behind(previous),
            None => own,
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let mut host = Host::for_removal(request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| remove_unrecorded(host, &attachment.ifname))
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::load(request)?;
        let previous = request.config().prev_result()?.ok_or_else(|| {
            Failure::new(Code::InvalidConfig, "Required prevResult missing")
                .hint("CHECK is given the result of ADD as prevResult")
        })?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::check_listed(&mut host, &previous, |host| expected(host, &config, &previous, target))?;
        compare(&mut host, &previous, target)
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let collection = Collection::new(request.config().name(), NAME, valid);
        let mut failures: Vec<Failure> =
            collect_pairs(&collection).err().map(Failure::from).into_iter().collect();
        failures.extend(attachment::gc::<Resource>(request, &collection));
        failures.extend(firewall::collect(&collection, Role::Interface));
        failures.extend(sweep(request).err().map(Failure::from));
        // Last: from then on an address may be somebody else's.
        let ipam = request.config().ipam_type().and_then(|kind| match kind {
            Some(kind) => request.delegate(&kind)?.call(Verb::Gc),
            None => Ok(()),
        });
        failures.extend(ipam.err());
        Failure::join(failures)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let config = Config::load(request)?;
        privilege::require()?;
        let link = Netlink::open()?.link_by_any_name(config.bridge.as_str())?;
        if let Some(link) = link.as_ref().filter(|link| link.name != config.bridge.as_str()) {
            let error = Error::AlternativeName { name: config.bridge.to_string(), link: link.name.clone() };
            return Err(Failure::from(error).with_code(Code::NotAvailable));
        }
        if link.is_some_and(|link| link.kind != "bridge") {
            let message = format!("link {} exists but is not a bridge", config.bridge);
            return Err(Failure::new(Code::NotAvailable, message).hint("choose another bridge name"));
        }
        for backend in backends(&config) {
            firewall::probe(backend).map_err(|error| Failure::from(error).with_code(Code::NotAvailable))?;
        }
        match &config.ipam {
            Some(kind) => request.delegate(kind)?.call(Verb::Status),
            None => Ok(()),
        }
    }
}

/// The firewall backends that ADD needs.
fn backends(config: &Config) -> Vec<Backend> {
    let masquerade = config
        .masquerade
        .filter(|_| config.ipam.is_some())
        .map(|named| named.unwrap_or_else(firewall::preferred));
    masquerade.into_iter().chain(config.spoof_check.then_some(Backend::Nftables)).collect()
}

/// An interface of that name is somebody's; ADD must not touch it, nor what an earlier ADD made for it.
fn refuse_existing(host: &mut Host<'_>, target: &Target) -> Result<(), Failure> {
    match host.container_link(target.ifname())? {
        None => Ok(()),
        Some(_) => Err(Error::Exists {
            what: format!("interface {} in the container", target.ifname()),
            hint: "use another CNI_IFNAME, or run DEL for the attachment that made it",
        }
        .into()),
    }
}

fn build(
    building: &mut Building<'_, '_, Resource>,
    config: &Config,
    target: &Target,
    host_end: &LinkName,
) -> Result<AddResult, Failure> {
    building.ensure(plan::link(config, host_end, target.ifname()))?;
    let ipam = match &config.ipam {
        Some(kind) => building.lease(kind)?,
        None => AddResult::default(),
    };
    let network = plan::complete(config, ipam)?;
    let inside = building.host().need_container_link(target.ifname())?;
    building.ensure(plan::network(
        config,
        &network,
        host_end,
        target.ifname(),
        &inside.mac,
        firewall::preferred,
    )?)?;
    let host = building.host();
    let outside = if config.disable_container_interface {
        host.need_link(host_end)?
    } else {
        let running = host.wait_until_running(host_end, PORT_LIMIT)?;
        let addresses: Vec<IpAddr> = network.ips.iter().map(|ip| ip.address.address()).collect();
        announce(host, &inside, &addresses)?;
        running
    };
    let sandbox = target.netns().display().to_string();
    // The port may have changed it: a bridge that was not made here may have taken its address, and any has the smallest MTU of its ports.
    let seen = host.netlink()?.seen_link(config.bridge.as_str());
    let bridge = match seen.filter(|link| is_shared(link) && link.mtu == outside.mtu) {
        Some(link) => link.clone(),
        None => host.need_link(&config.bridge)?,
    };
    let mut interfaces = vec![bridge.into(), outside.into(), Interface { sandbox, ..inside.into() }];
    let gateway = if config.ipam.is_some() { config.vlan_gateway()? } else { None };
    if let Some(name) = gateway {
        interfaces.push(host.need_link(&name)?.into());
    }
    Ok(AddResult { interfaces, ..network })
}

/// Deletes the bridge if it is ours and nobody remembers. A configuration that is not valid names none.
fn sweep(request: &Request) -> Result<(), Error> {
    match Config::load(request) {
        Ok(config) => sweep_bridge(&mut Netlink::open()?, config.bridge),
        Err(_) => Ok(()),
    }
}

/// What can be found of an attachment that has no record: by IPAM's own state, in the container, by derived name, by owner.
fn remove_unrecorded(host: &mut Host<'_>, ifname: &LinkName) -> Vec<Failure> {
    let mut failures = Vec::new();
    let addresses: Vec<IpAddr> = host
        .request()
        .config()
        .prev_result()
        .ok()
        .flatten()
        .map(|previous| previous.ips_of(ifname.as_str()).map(|ip| ip.address.address()).collect())
        .unwrap_or_default();
    failures.extend(firewall::remove_owner(NAME, host.owner(), Role::Interface, &addresses));
    failures.extend(remove_unrecorded_veth(host, ifname).err().map(Failure::from));
    failures.extend(remove_registered::<Resource>(host).into_iter().map(Failure::from));
    failures.extend(sweep(host.request()).err().map(Failure::from));
    // Last: from then on the address may be somebody else's.
    match host.request().config().ipam_type() {
        Ok(Some(kind)) => failures.extend(Lease { kind }.remove(host).err().map(Failure::from)),
        Ok(None) => {}
        Err(failure) => failures.push(failure),
    }
    failures
}

/// What ADD would have made, from configuration and prevResult, for an attachment without a record.
fn expected(
    host: &mut Host<'_>,
    config: &Config,
    previous: &AddResult,
    target: &Target,
) -> Result<Vec<Resource>, Failure> {
    let inside = host.need_container_link(target.ifname())?;
    let peer = inside.peer.map(|index| host.netlink().and_then(|netlink| Ok(netlink.link_by_index(index)?)));
    let outside = peer.transpose()?.flatten().ok_or_else(|| Error::LinkMissing {
        name: format!("the peer of {}", target.ifname()),
        place: "on the host",
    })?;
    let host_end =
        LinkName::new(outside.name).map_err(|error| Failure::from_error(Code::CheckFailed, &error))?;
    let mut resources = plan::link(config, &host_end, target.ifname());
    if let Some(kind) = &config.ipam {
        resources.push(Lease { kind: kind.clone() }.into());
    }
    let network = AddResult {
        // One that names no interface may be anybody's.
        ips: previous.ips_of(target.ifname().as_str()).filter(|ip| ip.interface.is_some()).cloned().collect(),
        routes: previous.routes.clone(),
        ..AddResult::default()
    };
    let rest = plan::network(config, &network, &host_end, target.ifname(), &inside.mac, firewall::preferred)?;
    // Where the other suite put its rules, and what it called them, is not known here.
    resources.extend(rest.into_iter().filter(|resource| !matches!(resource, Resource::Rules(_))));
    Ok(resources)
}

/// Compares the container's interface with prevResult, which is the result of the whole list: a later plugin may have changed it.
fn compare(host: &mut Host<'_>, previous: &AddResult, target: &Target) -> Result<(), Failure> {
    let ifname = target.ifname();
    let different = |what: String, expected: String, found: String| {
        Failure::from(Error::Different { what, expected, found })
    };
    let listed = previous
        .interfaces
        .iter()
        .find(|interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty());
    let Some(listed) = listed else {
        if previous.interfaces.is_empty() {
            return Ok(());
        }
        return Err(different(
            format!("interface {ifname} in prevResult"),
            "listed".to_owned(),
            "missing".to_owned(),
        ));
    };
    let link = host.need_container_link(ifname)?;
    if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&link.mac) {
        return Err(different(format!("hardware address of {ifname}"), listed.mac.clone(), link.mac));
    }
    let container = host.need_container("verify its addresses")?;
    let present = container.netlink()?.addresses(link.index).map_err(Error::from)?;
    for ip in previous.ips_of(ifname.as_str()).filter(|ip| ip.interface.is_some()) {
        if !present.iter().any(|address| address.cidr == ip.address) {
            return Err(different(
                format!("address {} on {ifname}", ip.address),
                "present".to_owned(),
                "missing".to_owned(),
            ));
        }
    }
    Ok(())
}
