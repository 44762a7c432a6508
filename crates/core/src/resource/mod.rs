//! The kinds of things an attachment is made of.
//!
//! Each is small data that can be written down, and knows how to make sure of itself, verify itself and remove itself. Making sure of what
//! is there already changes nothing; removing what is not there succeeds; nothing that belongs to another owner is ever removed.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;

mod backup;
mod bridge;
mod flows;
mod gateway;
mod interface;
mod lease;
mod rules;
mod setting;
mod switch;
mod veth;

pub use backup::Backup;
pub use bridge::{Bridge, BridgePort, VlanId, VlanTrunk};
pub use flows::forget_container;
pub use gateway::{Gateway, VlanGateway};
pub use interface::Interface;
pub use lease::Lease;
pub use rules::Rules;
pub use setting::{LinkProperty, Setting, SysctlSetting};
pub use switch::{Forwarding, LocalRouting};
pub use veth::{VethPair, collect_pairs, remove_container_link};

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
    /// A bridge, shared.
    Bridge,
    /// A veth pair between host and container.
    VethPair,
    /// The host's end of a pair as a port of a bridge.
    BridgePort,
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
fn host_link(host: &mut Host<'_>, name: &str) -> Result<crate::netlink::Link, Error> {
    host.netlink()?
        .link(name)?
        .ok_or_else(|| Error::LinkMissing { name: name.to_owned(), place: "on the host" })
}

/// A link in the container that must be there.
fn container_link(
    host: &mut Host<'_>,
    name: &str,
    operation: &'static str,
) -> Result<crate::netlink::Link, Error> {
    let found = host.need_container(operation)?.netlink()?.link(name)?;
    found.ok_or_else(|| Error::LinkMissing { name: name.to_owned(), place: "in the container" })
}
