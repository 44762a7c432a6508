//! The `firewall` plugin: lets the traffic of containers through the host, and isolates bridges from each other.
//!
//! [`config`] says what was asked, [`plan`] what that is made of; here the verbs carry it out. `docs/plugins/firewall.md` has the keys.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;

use cni::{AddResult, Attachment, Code, Failure, LinkName, Plugin, Request, Target, ValidAttachments};
use ferrule_core::attachment::{self, Collection};
use ferrule_core::firewall::{self, Backend, IsolationPolicy, Role, detect};
use ferrule_core::netlink::Link;
use ferrule_core::resource::first_verified;
use ferrule_core::{Host, privilege};

pub mod config;
pub mod plan;

use config::Config;
use plan::{Backends, BridgeEnd, Resource};

const NAME: &str = "firewall";

/// The plugin.
#[derive(Debug)]
pub struct FirewallPlugin;

impl Plugin for FirewallPlugin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = Config::load(request.config())?;
        let previous = request.config().required_prev_result()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        let bridge = bridge(&mut host, &config, &previous)?;
        let backends = backends(&config, request)?;
        let resources = plan::plan(&config, &backends, &plan::addresses(&previous), bridge.as_ref());
        attachment::add(&mut host, |building| building.ensure(resources))?;
        Ok(previous)
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let mut host = Host::for_removal(request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| {
            let previous = request.config().prev_result().ok().flatten().unwrap_or_default();
            let addresses: Vec<IpAddr> = plan::addresses(&previous);
            firewall::remove_owner(NAME, host.owner(), Role::Forward, &addresses)
        })
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::load(request.config())?;
        let previous = request.config().required_prev_result()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::check_listed(&mut host, &previous, |host| expected(host, &config, &previous))
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        let collection = Collection::new(request.config().name(), NAME, valid);
        let mut failures = attachment::gc::<Resource>(request, &collection);
        failures.extend(firewall::collect(&collection, Role::Forward));
        Failure::join(failures)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let config = Config::load(request.config())?;
        privilege::require_on_host()?;
        let Backends { forward, isolate } = backends(&config, request)?;
        let mut needed = forward;
        needed.extend(config.isolation.map(|_| isolate));
        for backend in needed {
            firewall::probe(backend).map_err(|error| Failure::from(error).with_code(Code::NotAvailable))?;
        }
        Ok(())
    }
}

/// The configured backend, else those in which an accept lets packets pass on this host.
fn backends(config: &Config, request: &Request) -> Result<Backends, Failure> {
    if let Some(backend) = config.backend {
        return Ok(with_isolation(vec![backend]));
    }
    let detection = detect::detect()?;
    for obstacle in detection.obstacles() {
        request.note(format!(
            "firewall: {obstacle}; no rule made here overrules it: let the traffic of the containers pass there"
        ));
    }
    Ok(with_isolation(detection.backends))
}

/// firewalld has no word for isolation, so another backend does it.
fn with_isolation(forward: Vec<Backend>) -> Backends {
    let able = forward.iter().copied().find(|backend| *backend != Backend::Firewalld);
    Backends { isolate: able.unwrap_or_else(firewall::preferred), forward }
}

/// The bridge of the attachment, where it is to be isolated: the first link of the host in prevResult that is one.
fn bridge(host: &mut Host<'_>, config: &Config, previous: &AddResult) -> Result<Option<BridgeEnd>, Failure> {
    let Some(policy) = config.isolation else { return Ok(None) };
    let mut links = Vec::new();
    for name in plan::host_interfaces(previous) {
        links.extend(host.link(name)?);
    }
    let bridge = links.iter().find(|link| link.kind == "bridge").ok_or_else(|| no_bridge(policy))?;
    let ports = links.iter().filter(|link| link.master == Some(bridge.index));
    let name = |link: &Link| {
        LinkName::new(link.name.as_str()).map_err(|error| Failure::from_error(Code::Internal, &error))
    };
    Ok(Some(BridgeEnd { name: name(bridge)?, ports: ports.map(name).collect::<Result<_, _>>()? }))
}

fn no_bridge(policy: IsolationPolicy) -> Failure {
    let policy = policy.as_str();
    let message = format!(
        "interface needs to be set for ingress policy \"{policy}\", make sure to chain \"firewall\" plugin with \"bridge\""
    );
    Failure::new(Code::InvalidConfig, message)
        .hint("no interface of prevResult is a bridge of the host; list firewall after bridge, or set ingressPolicy to open")
}

/// What ADD has made of an attachment without a record: by the Go suite, which has no nftables backend, or by us, before the record was
/// lost.
fn expected(host: &mut Host<'_>, config: &Config, previous: &AddResult) -> Result<Vec<Resource>, Failure> {
    let bridge = bridge(host, config, previous)?;
    let candidates = match config.backend {
        Some(backend) => vec![backend],
        None => firewall::usable(),
    };
    let plan = |backend| {
        plan::plan(config, &with_isolation(vec![backend]), &plan::addresses(previous), bridge.as_ref())
    };
    let plans: Vec<Vec<Resource>> = candidates.into_iter().map(plan).collect();
    Ok(first_verified(host, plans))
}
