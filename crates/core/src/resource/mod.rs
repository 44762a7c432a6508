//! The kinds of things an attachment is made of.
//!
//! Each is small data that can be written down, and knows how to make sure of itself, verify itself and remove itself. Making sure of what
//! is there already changes nothing; removing what is not there succeeds; nothing that belongs to another owner is ever removed.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;
use crate::netlink::{Link, LinkChange};
use crate::shared::Shared;

mod backup;
mod bridge;
mod flows;
mod gateway;
mod interface;
mod lease;
mod overlay_port;
mod rules;
mod setting;
mod switch;
mod tunnel;
mod veth;
mod vlan_gateway;

pub use backup::Backup;
pub use bridge::{Bridge, BridgePort, VlanId, VlanTrunk, sweep_bridge};
pub use flows::forget_container;
pub use gateway::Gateway;
pub use interface::Interface;
pub use lease::Lease;
pub use overlay_port::OverlayPort;
pub use rules::Rules;
pub use setting::{LinkProperty, Setting, SysctlSetting};
pub use switch::{Forwarding, LocalRouting};
pub use tunnel::{Tunnel, TunnelLink};
pub use veth::{VethPair, collect_pairs, free_host_end, remove_unrecorded_veth};
pub use vlan_gateway::VlanGateway;

/// How a kind of resource comes, stays and goes.
pub trait Lifecycle {
    /// Looks at what is there before, where removal restores it. Changes nothing; an ADD does this before it writes the resource down.
    fn observe(&mut self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Makes sure that it is there and as described.
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error>;

    /// Succeeds if it is there and as described. Changes nothing.
    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error>;

    /// Removes it if it is there and ours.
    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error>;
}

macro_rules! resources {
    ($($(#[$doc:meta])* $kind:ident),* $(,)?) => {
        /// One thing of an attachment.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "resource", rename_all = "kebab-case")]
        pub enum Resource {
            $($(#[$doc])* $kind($kind),)*
        }

        impl Resource {
            fn kind(&self) -> &dyn Lifecycle {
                match self {
                    $(Self::$kind(resource) => resource,)*
                }
            }

            fn kind_mut(&mut self) -> &mut dyn Lifecycle {
                match self {
                    $(Self::$kind(resource) => resource,)*
                }
            }
        }

        $(impl From<$kind> for Resource {
            fn from(resource: $kind) -> Self {
                Self::$kind(resource)
            }
        })*
    };
}

resources! {
    /// This host's part of an overlay network, shared.
    Tunnel,
    /// A bridge, shared.
    Bridge,
    /// A veth pair between host and container.
    VethPair,
    /// The host's end of a pair as a port of a bridge.
    BridgePort,
    /// The host's end of a pair as a port that one hardware address is behind.
    OverlayPort,
    /// An interface in a VLAN of a bridge, for the gateway, shared.
    VlanGateway,
    /// A gateway address on the host, shared.
    Gateway,
    /// The container's interface: sysctls, addresses, routes.
    Interface,
    /// Forwarding of a family, shared.
    Forwarding,
    /// Routing of 127.0.0.0/8 through an interface, shared.
    LocalRouting,
    /// An address that an IPAM plugin has given.
    Lease,
    /// Firewall entries.
    Rules,
    /// A file that says what properties of the container's interface were before.
    Backup,
    /// A property of the container's interface that had another value before.
    Setting,
    /// A sysctl of the container that had another value before.
    SysctlSetting,
}

impl Lifecycle for Resource {
    fn observe(&mut self, host: &mut Host<'_>) -> Result<(), Error> {
        self.kind_mut().observe(host)
    }

    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.kind().ensure(host)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.kind().verify(host)
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.kind().remove(host)
    }
}

/// The first of several plans that is as its resources say, else the first of all: for a CHECK that can't know which was carried out.
pub fn first_verified(host: &mut Host<'_>, plans: Vec<Vec<Resource>>) -> Vec<Resource> {
    let good = plans.iter().position(|plan| plan.iter().all(|resource| resource.verify(host).is_ok()));
    plans.into_iter().nth(good.unwrap_or(0)).unwrap_or_default()
}

/// Fails unless a property is as ADD left it.
fn same<T: PartialEq + std::fmt::Display>(
    what: impl Fn() -> String,
    expected: &T,
    found: &T,
) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Different { what: what(), expected: expected.to_string(), found: found.to_string() })
}

/// A link on the host that must be there.
fn host_link(host: &mut Host<'_>, name: &str) -> Result<Link, Error> {
    host.netlink()?
        .link(name)?
        .ok_or_else(|| Error::LinkMissing { name: name.to_owned(), place: "on the host" })
}

/// A link in the container that must be there.
fn container_link(host: &mut Host<'_>, name: &str, operation: &'static str) -> Result<Link, Error> {
    let found = host.need_container(operation)?.netlink()?.link(name)?;
    found.ok_or_else(|| Error::LinkMissing { name: name.to_owned(), place: "in the container" })
}

/// The alias of a link that attachments share.
const SHARED_ALIAS: &str = "ferrule (shared)";

/// Whether a link bears the mark of those that were made here and are shared.
fn is_shared(link: &Link) -> bool {
    link.alias == SHARED_ALIAS
}

/// Marks a link, so that it is known as made here even if the state directory is lost.
fn mark_shared(host: &mut Host<'_>, link: &Link) -> Result<(), Error> {
    let change = LinkChange { alias: Some(SHARED_ALIAS.to_owned()), ..LinkChange::default() };
    Ok(host.netlink()?.change_link(link.index, &link.name, &change)?)
}

/// The registers of shared resources, in the order of removal: a bridge is deleted once nothing is on it.
const REGISTERS: [&str; 6] = [
    LocalRouting::REGISTER,
    Forwarding::REGISTER,
    Gateway::REGISTER,
    VlanGateway::REGISTER,
    Bridge::REGISTER,
    Tunnel::REGISTER,
];

/// The shared resource that a register is about, as far as its name tells: enough to remove it.
fn of_register(kind: &str, name: &str) -> Option<Resource> {
    Some(match kind {
        LocalRouting::REGISTER => LocalRouting { link: LinkName::new(name).ok()? }.into(),
        Forwarding::REGISTER => Forwarding::of_register(name).into(),
        Gateway::REGISTER => Gateway::of_register(name)?.into(),
        VlanGateway::REGISTER => VlanGateway::of_register(name)?.into(),
        Tunnel::REGISTER => Tunnel::of_register(name)?.into(),
        Bridge::REGISTER => Bridge::new(LinkName::new(name).ok()?).into(),
        _ => return None,
    })
}

/// Removes what a user is entered for in registers, where there is no record that lists it.
pub fn remove_registered(host: &mut Host<'_>) -> Vec<Error> {
    let mut failures = Vec::new();
    for kind in REGISTERS {
        let entered = Shared::entered(kind, &host.user()).unwrap_or_else(|error| {
            failures.push(error.into());
            Vec::new()
        });
        let resources = entered.iter().filter_map(|name| of_register(kind, name));
        failures.extend(resources.filter_map(|resource| resource.remove(host).err()));
    }
    failures
}
