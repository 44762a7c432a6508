//! The `tuning` plugin: sysctls of the container's network, and properties of its interface.
//!
//! [`config`] says what was asked, [`plan`] what that is made of; here the verbs carry it out. `docs/plugins/tuning.md` has the keys.
#![forbid(unsafe_code)]

use std::path::Path;

use cni::{AddResult, Attachment, Code, Failure, LinkName, Plugin, Request, Target, ValidAttachments};
use ferrule_core::attachment::{self, Collection};
use ferrule_core::resource::{Backup, Resources};
use ferrule_core::{Host, privilege};

pub mod allowlist;
pub mod config;
pub mod key;
pub mod plan;
mod repeated;

use allowlist::Allowlist;
use config::Config;
use plan::Resource;

const NAME: &str = "tuning";

/// The plugin.
#[derive(Debug)]
pub struct Tuning;

impl Plugin for Tuning {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let config = load(request, target.ifname())?;
        let previous = request.config().required_prev_result()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::add(&mut host, |building| building.ensure(plan::plan(&config, target.ifname())))?;
        Ok(plan::result(&config, target.ifname(), previous))
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let mut host = Host::for_removal(request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| {
            let found: Vec<Resource> = Backup::find(&config::data_directory(request.config()), host);
            let removed = found.iter().rev().filter_map(|resource| resource.kind().remove(host).err());
            removed.map(Failure::from).collect()
        })
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let config = Config::load(request, target.ifname())?;
        let previous = request.config().required_prev_result()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::check_listed(&mut host, &previous, |_| Ok(plan::plan(&config, target.ifname())))
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        Failure::join(attachment::gc::<Resource>(
            request,
            &Collection::new(request.config().name(), NAME, valid),
        ))
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        // Any name does: which interface it will be is not known yet.
        let ifname = LinkName::new("eth0").map_err(|error| Failure::from_error(Code::Internal, &error))?;
        load(request, &ifname)?;
        privilege::require()
    }
}

/// The configuration, as far as the administrator allows it.
fn load(request: &Request, ifname: &LinkName) -> Result<Config, Failure> {
    let config = Config::load(request, ifname)?;
    if let Some(allowlist) = Allowlist::read(Path::new(allowlist::PATH))? {
        config.check(&allowlist)?;
    }
    Ok(config)
}
