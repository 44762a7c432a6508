//! The `loopback` plugin: brings `lo` up in the container.
//!
//! There is nothing to configure, and `CNI_IFNAME` is ignored. `docs/plugins/loopback.md` has the rest.
#![forbid(unsafe_code)]

use std::path::Path;

use cni::{
    AddResult, Attachment, Cidr, Code, Failure, Interface, Ip, LinkName, Plugin, Request, Target,
    ValidAttachments,
};
use ferrule_core::attachment::{self, Collection};
use ferrule_core::resource::{Lifecycle, LinkProperty, Setting};
use ferrule_core::{Error, Host, privilege};

const NAME: &str = "loopback";

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Setting }
}

/// The plugin.
#[derive(Debug)]
pub struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        let previous = request.config().prev_result()?;
        let lo = lo()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        attachment::add(&mut host, |building| {
            building.ensure(plan(&lo))?;
            let found = look(building.host(), &lo, target)?;
            Ok(previous.unwrap_or(found))
        })
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let lo = lo()?;
        let mut host = Host::for_removal(request, attachment, NAME, netns);
        attachment::del::<Resource>(&mut host, |host| {
            // What it was before is not known; a namespace is made with it down.
            let down = Setting { before: Some(LinkProperty::Up(false)), ..up(&lo) };
            down.remove(host).err().map(Failure::from).into_iter().collect()
        })
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        let lo = lo()?;
        let mut host = Host::new(request, &target.attachment, NAME, Some(target.netns()))?;
        let previous = request.config().prev_result()?.unwrap_or_default();
        attachment::check_listed(&mut host, &previous, |_| Ok(plan(&lo)))?;
        look(&mut host, &lo, target)?;
        let present = addresses(&mut host, &lo)?;
        let listed = previous.ips_of(lo.as_str()).map(|ip| ip.address);
        match listed.into_iter().find(|cidr| cidr.address().is_loopback() && !present.contains(cidr)) {
            None => Ok(()),
            Some(missing) => Err(Error::Different {
                what: format!("address {missing} on lo"),
                expected: "present".to_owned(),
                found: "missing".to_owned(),
            }
            .into()),
        }
    }

    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure> {
        Failure::join(attachment::gc::<Resource>(
            request,
            &Collection::new(request.config().name(), NAME, valid),
        ))
    }

    fn status(&self, _: &Request) -> Result<(), Failure> {
        privilege::require()
    }
}

fn lo() -> Result<LinkName, Failure> {
    LinkName::new("lo").map_err(|error| Failure::from_error(Code::Internal, &error))
}

fn up(lo: &LinkName) -> Setting {
    Setting { link: lo.clone(), wanted: LinkProperty::Up(true), before: None }
}

/// What an attachment is made of: the kernel gives `lo` its addresses when it comes up.
pub fn plan(lo: &LinkName) -> Vec<Resource> {
    vec![up(lo).into()]
}

fn addresses(host: &mut Host<'_>, lo: &LinkName) -> Result<Vec<Cidr>, Failure> {
    let link = host.need_container_link(lo)?;
    let container = host.need_container("list the addresses of lo")?;
    let addresses = container.netlink()?.addresses(link.index).map_err(Error::from)?;
    Ok(addresses.into_iter().map(|address| address.cidr).collect())
}

/// The interface as it is in the container: its first address of each family. All of them have to be loopback addresses.
fn look(host: &mut Host<'_>, lo: &LinkName, target: &Target) -> Result<AddResult, Failure> {
    let link = host.need_container_link(lo)?;
    let addresses = addresses(host, lo)?;
    if let Some(foreign) = addresses.iter().find(|address| !address.address().is_loopback()) {
        let message = format!("loopback interface found with non-loopback address \"{foreign}\"");
        return Err(Failure::new(Code::Conflict, message)
            .hint("remove the address from lo in the container's network namespace"));
    }
    let first = |ipv4: bool| addresses.iter().find(|address| address.is_ipv4() == ipv4);
    let ips = [first(true), first(false)].into_iter().flatten();
    Ok(AddResult {
        interfaces: vec![Interface {
            name: link.name,
            mac: link.mac,
            mtu: link.mtu,
            sandbox: target.netns().display().to_string(),
            ..Interface::default()
        }],
        ips: ips.map(|address| Ip { interface: Some(0), ..Ip::new(*address) }).collect(),
        ..AddResult::default()
    })
}
