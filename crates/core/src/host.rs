//! The host a plugin works on, seen from one call: its sockets, the container's namespace, and who is asking.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cni::{Attachment, Failure, LinkName, Request};

use crate::error::Error;
use crate::firewall::{self, Backend, Firewall};
use crate::netlink::{Link, Netlink};
use crate::netns::{Netns, NetnsError, NetnsId};
use crate::owner::Owner;
use crate::resource::link_on_host;
use crate::shared::User;

/// The container's namespace, open, with its socket.
#[derive(Debug)]
pub struct Container {
    /// The namespace.
    pub netns: Netns,
    netlink: Option<Netlink>,
}

impl Container {
    /// The socket in the container's namespace, opened when first asked for.
    pub fn netlink(&mut self) -> Result<&mut Netlink, Error> {
        if self.netlink.is_none() {
            self.netlink = Some(Netlink::open_in(&self.netns)?);
        }
        self.netlink.as_mut().ok_or(Error::NoContainer { operation: "open a socket" })
    }

    /// Another descriptor of the namespace, to name it in a request of the host's socket.
    pub fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.netns
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::from(NetnsError::Open { path: self.netns.path().to_owned(), source }))
    }

    /// Namespace and socket together, for waiting on events.
    pub fn parts(&mut self) -> Result<(&Netns, &mut Netlink), Error> {
        self.netlink()?;
        match &mut self.netlink {
            Some(netlink) => Ok((&self.netns, netlink)),
            None => Err(Error::NoContainer { operation: "open a socket" }),
        }
    }
}

/// Everything a resource needs to make, verify or remove itself.
#[derive(Debug)]
pub struct Host<'a> {
    request: &'a Request,
    owner: Owner,
    user: OnceCell<User>,
    plugin: &'static str,
    netlink: Option<Netlink>,
    container: Option<Container>,
    firewalls: Vec<(Backend, Box<dyn Firewall>)>,
    /// Links to be deleted together, by index and name; `None` where each is deleted at once.
    leaving: Option<Vec<(u32, String)>>,
}

impl<'a> Host<'a> {
    /// The host, for a plugin's part of an attachment. `netns` is opened now, before anything is changed.
    pub fn new(
        request: &'a Request,
        attachment: &Attachment,
        plugin: &'static str,
        netns: Option<&Path>,
    ) -> Result<Self, Error> {
        let container = netns
            .map(|path| Netns::of(request, path).map(|netns| Container { netns, netlink: None }))
            .transpose()?;
        Ok(Self {
            request,
            owner: Owner::new(request.config().name(), attachment),
            user: OnceCell::new(),
            plugin,
            netlink: None,
            container,
            firewalls: Vec::new(),
            leaving: None,
        })
    }

    /// As [`Host::new`], for DEL: a namespace that can't be opened is none, and noted.
    pub fn for_removal(
        request: &'a Request,
        attachment: &Attachment,
        plugin: &'static str,
        netns: Option<&Path>,
    ) -> Self {
        let container = match netns.map(|path| Netns::of(request, path)) {
            Some(Ok(netns)) => Some(Container { netns, netlink: None }),
            Some(Err(error)) => {
                let failure = Failure::from(Error::from(error));
                request.note(format!("DEL: {}; releasing everything outside it", failure.message()));
                None
            }
            None => None,
        };
        Self {
            request,
            owner: Owner::new(request.config().name(), attachment),
            user: OnceCell::new(),
            plugin,
            netlink: None,
            container,
            firewalls: Vec::new(),
            leaving: None,
        }
    }

    /// The call.
    pub fn request(&self) -> &'a Request {
        self.request
    }

    /// Who owns what is made.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The plugin at work.
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// This plugin's part of the attachment, as a user of shared objects.
    pub fn user(&self) -> User {
        self.user.get_or_init(|| User::new(&self.owner, self.plugin)).clone()
    }

    /// The socket in the host's namespace, opened when first asked for.
    pub fn netlink(&mut self) -> Result<&mut Netlink, Error> {
        if self.netlink.is_none() {
            self.netlink = Some(Netlink::open()?);
        }
        self.netlink.as_mut().ok_or(Error::NoContainer { operation: "open a socket" })
    }

    /// The container, where there is one.
    pub fn container(&mut self) -> Option<&mut Container> {
        self.container.as_mut()
    }

    /// The container; an error where the runtime gave no usable namespace.
    pub fn need_container(&mut self, operation: &'static str) -> Result<&mut Container, Error> {
        self.container.as_mut().ok_or(Error::NoContainer { operation })
    }

    /// A link of the container, if it is there.
    pub fn container_link(&mut self, name: &LinkName) -> Result<Option<Link>, Error> {
        Ok(self.need_container("look at its interfaces")?.netlink()?.link(name.as_str())?)
    }

    /// A link of the host, if it is there.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.netlink()?.link(name)?)
    }

    /// A link of the host that must be there.
    pub fn need_link(&mut self, name: &LinkName) -> Result<Link, Error> {
        link_on_host(self.netlink()?, name)
    }

    /// A link of the container that must be there.
    pub fn need_container_link(&mut self, name: &LinkName) -> Result<Link, Error> {
        self.container_link(name)?.ok_or_else(|| Error::missing_link(name, "in the container"))
    }

    /// The index of a link of the host that must be there; not looked up again where this call has seen it ([`Netlink::link_index`]).
    pub fn need_link_index(&mut self, name: &LinkName) -> Result<u32, Error> {
        let index = self.netlink()?.link_index(name.as_str())?;
        index.ok_or_else(|| Error::missing_link(name, "on the host"))
    }

    /// The same of a link of the container.
    pub fn need_container_link_index(&mut self, name: &LinkName) -> Result<u32, Error> {
        let index = self.need_container("look at its interfaces")?.netlink()?.link_index(name.as_str())?;
        index.ok_or_else(|| Error::missing_link(name, "in the container"))
    }

    /// Deletes a link of the host, or keeps it for [`Host::together`].
    pub fn delete_link(&mut self, link: &Link) -> Result<(), Error> {
        match &mut self.leaving {
            Some(leaving) => leaving.push((link.index, link.name.clone())),
            None => self.netlink()?.delete_link(link.index, &link.name)?,
        }
        Ok(())
    }

    /// The links that are to go with the next that is deleted, to be deleted by the caller.
    pub(crate) fn take_leaving(&mut self) -> Vec<(u32, String)> {
        self.leaving.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Gives back what [`Host::take_leaving`] has taken, and the caller could not delete.
    pub(crate) fn leave_again(&mut self, links: Vec<(u32, String)>) {
        if let Some(leaving) = &mut self.leaving {
            leaving.extend(links);
        }
    }

    /// Does a work that deletes links, and has them go together. Those that nobody has taken by its end are deleted then.
    pub(crate) fn together<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, Result<(), Error>) {
        self.leaving = Some(Vec::new());
        let result = work(self);
        let links = self.leaving.take().unwrap_or_default();
        let links: Vec<(u32, &str)> = links.iter().map(|(index, name)| (*index, name.as_str())).collect();
        let deleted = match links.as_slice() {
            [] => Ok(()),
            links => self.netlink().and_then(|netlink| Ok(netlink.delete_links(links)?)),
        };
        (result, deleted)
    }

    /// Waits until a link of the host is operationally up.
    pub fn wait_until_running(&mut self, name: &LinkName, limit: Duration) -> Result<Link, Error> {
        let netlink = self.netlink()?;
        let running = netlink
            .wait_for(None, limit, |netlink| Ok(netlink.link(name.as_str())?.filter(|link| link.running)))?;
        running.ok_or_else(|| Error::NotReady {
            what: format!("{name} is not operationally up"),
            seconds: limit.as_secs(),
        })
    }

    /// The host's link that packets to an address leave through, if there is a route.
    pub fn link_towards(&mut self, address: IpAddr) -> Result<Option<LinkName>, Error> {
        let netlink = self.netlink()?;
        let Some(index) = netlink.route_to(address)? else { return Ok(None) };
        let link = netlink.link_by_index(index)?;
        Ok(link.and_then(|link| LinkName::new(link.name).ok()))
    }

    /// The identity of the container's namespace.
    pub fn netns_id(&self) -> Option<NetnsId> {
        self.container.as_ref().map(|container| container.netns.id())
    }

    /// Works without the container for a while: what is to be removed belonged to another namespace.
    pub(crate) fn without_container<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let container = self.container.take();
        let result = work(self);
        self.container = container;
        result
    }

    /// Works with a firewall backend, which stays open as long as the host does: closing a socket after a deletion waits for a grace period
    /// of the kernel (13 to 18 ms), which has passed by then if there is other work to do.
    pub fn with_firewall<T>(
        &mut self,
        backend: Backend,
        work: impl FnOnce(&mut dyn Firewall, &Owner) -> T,
    ) -> T {
        let position = self.firewalls.iter().position(|(open, _)| *open == backend);
        let mut firewall = match position {
            Some(position) => self.firewalls.swap_remove(position).1,
            None => firewall::open(backend, self.plugin),
        };
        let result = work(firewall.as_mut(), &self.owner);
        self.firewalls.push((backend, firewall));
        result
    }
}
