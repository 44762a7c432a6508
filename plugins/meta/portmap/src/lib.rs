//! The `portmap` plugin: ports of the host that lead to a container.
//!
//! [`config`] says what was asked, [`plan`] what that is made of; here the verbs carry it out. `docs/plugins/portmap.md` has the keys.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;

use cni::{AddResult, Attachment, Cidr, Code, Failure, Plugin, Request, Target, ValidAttachments};
use ferrule_core::attachment::{self, Collection};
use ferrule_core::firewall::{self, Backend, Role};
use ferrule_core::resource::{first_verified, forget_container};
use ferrule_core::{Host, privilege};

pub mod config;
pub mod plan;

use config::{Config, HostAddress, PortMapping};
use plan::{Resource, Surroundings};

const NAME: &str = "portmap";

/// The plugin.
#[derive(Debug)]
pub struct Portmap;

impl Plugin for Portmap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::load(request.config())?;
        let previous = request.config().required_prev_result()?;
        let destinations = plan::destinations(&previous, target.ifname());
        for mapping in plan::unserved(&config, &destinations) {
            request.note(format!(
                "portmap: {} is not published: the container has no address of that family",
                describe(mapping)
            ));
        }
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        let backend = config.backend.unwrap_or_else(firewall::preferred);
        // Without ports too: the record tells DEL that there is nothing to look for.
        attachment::add(&mut host, |building| {
            let guard = backend == Backend::Nftables || firewall::probe(Backend::Nftables).is_ok();
            let resources = resources(building.host(), &config, backend, guard, &destinations)?;
            building.ensure(resources)
        })?;
        Ok(previous)
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let mut host = Host::for_removal(request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| {
            let addresses = addresses(request, attachment);
            let failures = firewall::remove_owner(NAME, host.owner(), Role::Publish, &addresses);
            forget_container(&addresses);
            failures
        })
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::load(request.config())?;
        let previous = request.config().required_prev_result()?;
        let destinations = plan::destinations(&previous, target.ifname());
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::check_listed(&mut host, &previous, |host| expected(host, &config, &destinations))
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let collection = Collection::new(request.config().name(), NAME, valid);
        let mut failures = attachment::gc::<Resource>(request, &collection);
        failures.extend(firewall::collect(&collection, Role::Publish));
        Failure::join(failures)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let config = Config::load(request.config())?;
        privilege::require_on_host()?;
        firewall::probe(config.backend.unwrap_or_else(firewall::preferred))
            .map_err(|error| Failure::from(error).with_code(Code::NotAvailable))
    }
}

fn resources(
    host: &mut Host<'_>,
    config: &Config,
    backend: Backend,
    nftables: bool,
    destinations: &[Cidr],
) -> Result<Vec<Resource>, Failure> {
    let local = destinations.iter().find(|destination| plan::needs_local_routing(config, destination));
    let towards = match local {
        Some(destination) => host.link_towards(destination.address())?,
        None => None,
    };
    Ok(plan::plan(config, &Surroundings { backend, nftables, towards }, destinations))
}

/// What ADD has made of an attachment without a record: by the Go suite, which prefers iptables, or by us, before the record was lost.
fn expected(host: &mut Host<'_>, config: &Config, destinations: &[Cidr]) -> Result<Vec<Resource>, Failure> {
    let candidates = match config.backend {
        Some(backend) => vec![backend],
        None => firewall::usable(),
    };
    let mut plans = Vec::new();
    for backend in candidates {
        // The Go suite guards nothing.
        plans.push(resources(host, config, backend, backend == Backend::Nftables, destinations)?);
    }
    Ok(first_verified(host, plans))
}

/// The container's addresses as far as a DEL is told them.
fn addresses(request: &Request, attachment: &Attachment) -> Vec<IpAddr> {
    let previous = request.config().prev_result().ok().flatten().unwrap_or_default();
    previous.ips_of(attachment.ifname.as_str()).map(|ip| ip.address.address()).collect()
}

/// A mapping as people write it: `tcp 192.0.2.1:8080`.
fn describe(mapping: &PortMapping) -> String {
    let address = match mapping.host {
        HostAddress::Any => String::new(),
        HostAddress::AnyOf { ipv4: true } => "0.0.0.0:".to_owned(),
        HostAddress::AnyOf { ipv4: false } => "[::]:".to_owned(),
        HostAddress::One(IpAddr::V4(v4)) => format!("{v4}:"),
        HostAddress::One(IpAddr::V6(v6)) => format!("[{v6}]:"),
    };
    format!("{} {address}{}", mapping.protocol.as_str(), mapping.host_port)
}
