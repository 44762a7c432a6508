//! The `vxlan` plugin: one container network across many hosts.
//!
//! [`config`] says what was asked, [`network`] what this host's part of it is, [`plan`] what an attachment is made of; here the verbs carry it out.
//! What the kernel needs to reach other hosts is `ferrule_overlay`'s, which the node agent uses too. `docs/plugins/vxlan.md` has the keys.
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
    Lease, Lifecycle, collect_pairs, free_host_end, remove_registered, remove_unrecorded_veth, sweep_bridge,
};
use ferrule_core::{Error, Host, Owner, privilege};
use ferrule_host_local::HostLocal;
use serde_json::json;

pub mod config;
pub mod network;
pub mod plan;

use config::Config;
use network::{HOST_LOCAL, Keeper, Network};
use plan::Resource;

const NAME: &str = ferrule_overlay::PLUGIN;

/// How long the host's port may take until frames pass.
const PORT_LIMIT: Duration = Duration::from_secs(5);

/// The plugin.
#[derive(Debug)]
pub struct VxlanPlugin;

impl Plugin for VxlanPlugin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn contained(&self) -> &'static [&'static (dyn Plugin + Sync)] {
        &[&HostLocal]
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::load(request)?;
        let previous = request.config().prev_result()?;
        let network = Network::find(request, &config)?;
        let request = with_ipam(request, &config, Some(&network));
        // Found missing now rather than after the first change.
        request.delegate(ipam_type(&config))?;
        if let Keeper::Plugin(view) = &network.keeper {
            network::probe(view)?;
        }
        let mut host = Host::new(&request, &target.attachment, NAME, Some(target.netns()))?;
        refuse_existing(&mut host, target)?;
        let host_end = free_host_end(&mut host)?;
        let own =
            attachment::add(&mut host, |building| build(building, &config, &network, target, &host_end))?;
        Ok(match previous {
            Some(previous) => own.behind(previous),
            None => own,
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let request = removal(request);
        let mut host = Host::for_removal(&request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| remove_unrecorded(host, &attachment.ifname))
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::load(request)?;
        let previous = request.config().required_prev_result()?;
        let network = Network::find(request, &config)?;
        let request = with_ipam(request, &config, Some(&network));
        let mut host = Host::new(&request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::check_listed::<Resource>(&mut host, &previous, |_| {
            let owner = &target.attachment;
            Err(Failure::new(Code::CheckFailed, format!("there is no record of attachment {owner}"))
                .hint("run DEL, then ADD"))
        })?;
        compare(&mut host, &previous, target)?;
        match network.view()? {
            Some(view) => Ok(ferrule_overlay::verify(&view)?),
            None => Ok(()),
        }
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let collection = Collection::new(request.config().name(), NAME, valid);
        let request = &removal(request);
        let mut failures: Vec<Failure> =
            collect_pairs(&collection).err().map(Failure::from).into_iter().collect();
        failures.extend(attachment::gc::<Resource>(request, &collection));
        failures.extend(firewall::collect(&collection, Role::Interface));
        failures.extend(sweep(request).err());
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
        let unavailable = |failure: Failure| failure.with_code(Code::NotAvailable);
        let network = Network::find(request, &config).map_err(unavailable)?;
        connected(&network)?;
        if plan::checks_spoofing(&config, &network) {
            firewall::probe(Backend::Nftables).map_err(|error| unavailable(error.into()))?;
        }
        if let Some(backend) = config.masquerade {
            let backend = backend.unwrap_or_else(firewall::preferred);
            firewall::probe(backend).map_err(|error| unavailable(error.into()))?;
        }
        with_ipam(request, &config, Some(&network)).delegate(ipam_type(&config))?.call(Verb::Status)
    }
}

/// STATUS of the way to other hosts: 50 where ADD would fail, 51 where containers that are there have lost it.
fn connected(network: &Network) -> Result<(), Failure> {
    let Some(view) = network.view()? else { return Ok(()) };
    network::probe(&view).map_err(|failure| failure.with_code(Code::NotAvailable))?;
    let verify = || ferrule_overlay::verify(&view);
    let verified = match network.tunnel() {
        Some(tunnel) if !tunnel.is_used() => Ok(()),
        // An ADD or DEL beside this may have it half made: missing is only what is missing while none is at work on it.
        Some(tunnel) => verify().or_else(|_| tunnel.look(verify)),
        None => verify(),
    };
    verified.map_err(|error| {
        let failure = Failure::from(error).with_code(Code::LimitedConnectivity);
        failure.hint("the next ADD puts it right, and so does the node agent where there is one")
    })
}

/// The IPAM plugin in effect.
fn ipam_type(config: &Config) -> &str {
    config.ipam.as_deref().unwrap_or(HOST_LOCAL)
}

/// The call as its IPAM plugin is to see it: with the node's blocks, where the operator has left addresses to the plugin.
fn with_ipam(request: &Request, config: &Config, network: Option<&Network>) -> Request {
    match (&config.ipam, network) {
        (Some(_), _) => request.clone(),
        (None, Some(network)) => request.with_key("ipam", network.ipam()),
        (None, None) => request.with_key("ipam", json!({ "type": HOST_LOCAL })),
    }
}

/// The call as DEL and GC give it to the IPAM plugin: leases are found by their owner, so no blocks need be known.
fn removal(request: &Request) -> Request {
    match request.config().ipam_type() {
        Ok(None) => request.with_key("ipam", json!({ "type": HOST_LOCAL })),
        _ => request.clone(),
    }
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
    network: &Network,
    target: &Target,
    host_end: &LinkName,
) -> Result<AddResult, Failure> {
    match network.tunnel() {
        // Entered and programmed in one go: who looks meanwhile waits, and does not find a network with a user and nothing else.
        Some(tunnel) => building.ensure_by(tunnel.into(), |host| network.program(host))?,
        None => network.program(building.host())?,
    }
    let ipam = building.lease(ipam_type(config))?;
    let result = plan::complete(config, network, ipam)?;
    let name = building.host().owner().network.clone();
    let mac = plan::mac(network, &name, &result.ips);
    building.ensure(plan::link(config, network, mac, host_end, target.ifname()))?;
    building.ensure(plan::addresses(
        config,
        network,
        &result,
        &(host_end.clone(), mac),
        target.ifname(),
        firewall::preferred,
    ))?;
    let host = building.host();
    let outside = host.wait_until_running(host_end, PORT_LIMIT)?;
    let inside = host.need_container_link(target.ifname())?;
    let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.address()).collect();
    announce(host, &inside, &addresses)?;
    // Device, bridge, host's end, container's end.
    let mut interfaces: Vec<Interface> = Vec::new();
    for name in network.made() {
        interfaces.push(host.need_link(name)?.into());
    }
    let sandbox = target.netns().display().to_string();
    interfaces.extend([outside.into(), Interface { sandbox, ..inside.into() }]);
    Ok(AddResult { interfaces, ..result })
}

/// Removes what is ours and what nobody remembers: bridge and device, where the state directory was lost. A configuration that is not valid
/// names none.
fn sweep(request: &Request) -> Result<(), Failure> {
    let Ok(config) = Config::load(request) else { return Ok(()) };
    let Some(settings) = &config.settings else { return Ok(()) };
    let name = request.config().name();
    let tunnel = ferrule_overlay::tunnel(settings, None);
    if tunnel.is_used() {
        return Ok(());
    }
    let mut netlink = Netlink::open()?;
    sweep_bridge(&mut netlink, settings.bridge.clone())?;
    let used = netlink
        .links()?
        .iter()
        .any(|link| Owner::tag_in_alias(&link.alias).is_some_and(|tag| Owner::tag_is_of_network(tag, name)));
    if used {
        return Ok(());
    }
    Ok(tunnel.sweep(name, &mut netlink)?)
}

/// What can be found of an attachment that has no record: by IPAM's own state, in the container, by derived name, by owner.
fn remove_unrecorded(host: &mut Host<'_>, ifname: &LinkName) -> Vec<Failure> {
    let mut failures = Vec::new();
    let previous = host.request().config().prev_result().ok().flatten();
    let addresses: Vec<IpAddr> = previous
        .map(|previous| previous.ips_of(ifname.as_str()).map(|ip| ip.address.address()).collect())
        .unwrap_or_default();
    failures.extend(firewall::remove_owner(NAME, host.owner(), Role::Interface, &addresses));
    failures.extend(remove_unrecorded_veth(host, ifname).err().map(Failure::from));
    failures.extend(remove_registered::<Resource>(host).into_iter().map(Failure::from));
    failures.extend(sweep(host.request()).err());
    // Last: from then on the address may be somebody else's.
    match host.request().config().ipam_type() {
        Ok(Some(kind)) => failures.extend(Lease { kind }.remove(host).err().map(Failure::from)),
        Ok(None) => {}
        Err(failure) => failures.push(failure),
    }
    failures
}

/// Compares the container's interface with prevResult, which is the result of the whole list: a later plugin may have changed it.
fn compare(host: &mut Host<'_>, previous: &AddResult, target: &Target) -> Result<(), Failure> {
    let ifname = target.ifname();
    let different = |what: String, expected: String, found: String| {
        Failure::from(Error::Different { what, expected, found })
    };
    let link = host.need_container_link(ifname)?;
    let inside = |interface: &&Interface| {
        interface.name == ifname.as_str() && !interface.sandbox.is_empty() && !interface.mac.is_empty()
    };
    if let Some(listed) = previous.interfaces.iter().find(inside)
        && !listed.mac.eq_ignore_ascii_case(&link.mac)
    {
        return Err(different(format!("hardware address of {ifname}"), listed.mac.clone(), link.mac));
    }
    let container = host.need_container("verify its addresses")?;
    let present = container.netlink()?.addresses(link.index).map_err(Error::from)?;
    for ip in previous.ips_of(ifname.as_str()).filter(|ip| ip.interface.is_some()) {
        if !present.iter().any(|address| address.cidr == ip.address) {
            let what = format!("address {} on {ifname}", ip.address);
            return Err(different(what, "present".to_owned(), "missing".to_owned()));
        }
    }
    Ok(())
}
