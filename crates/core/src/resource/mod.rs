//! The kinds of things an attachment is made of.
//!
//! Each is small data that can be written down, and knows how to make sure of itself, verify itself and remove itself. Making sure of what
//! is there already changes nothing; removing what is not there succeeds; nothing that belongs to another owner is ever removed.

use std::fmt::Debug;

use cni::{AddResult, LinkName};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;
use crate::netlink::{Link, LinkChange, Netlink};
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
pub use switch::{Forwarding, LocalRouting, ProxyArp};
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

    /// What the order of an operation depends on.
    fn role(&self) -> Role<'_> {
        Role::Plain
    }

    /// Whether it is a link that this attachment is the last to use, so that its port and it can go in one request.
    fn goes_with_its_port(&self, _: &Host<'_>) -> bool {
        false
    }

    /// Heeds the prevResult of a CHECK: leaves out what later plugins took away. An error for what has to be listed there and is not.
    fn heed(&mut self, _: &AddResult) -> Result<(), Error> {
        Ok(())
    }

    /// The register that knows the users of resources of this kind, if they are shared.
    fn register() -> Option<&'static str>
    where
        Self: Sized,
    {
        None
    }

    /// The shared resource that a register is named after.
    fn of_register(_: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// What the order of an operation depends on.
#[derive(Debug, Clone, Copy)]
pub enum Role<'a> {
    /// Of no other.
    Plain,
    /// An IPAM plugin holds it: verified beside everything else, removed last.
    Lease(&'a Lease),
    /// Plugged in a link that attachments share.
    Port,
    /// Such a link.
    Shared,
    /// In the firewall: removed after the rest.
    Entries,
}

/// The name of a register, and what makes a resource of the name of an object in it: as far as that tells, enough to remove it.
pub type Register<R> = (&'static str, fn(&str) -> Option<R>);

/// The kinds of resources that one plugin makes, as an enumeration: [`resources!`](crate::resources) defines it.
///
/// A plugin has its own, because what can be read from a record can also be verified and removed, and the code for that is in the program: of
/// kinds that the plugin never makes it would be there for nothing. That a plugin's ADD makes nothing its DEL can't read is a matter of types.
pub trait Resources: Serialize + Debug + Sized {
    /// Reads the text of a resource of this kind, as a record names it; `None` if the plugin makes none such, or the text is damaged.
    fn of_kind(kind: &str, text: &[u8]) -> Option<Self>;

    /// The resource, of whatever kind.
    fn kind(&self) -> &dyn Lifecycle;

    /// The same, to be changed.
    fn kind_mut(&mut self) -> &mut dyn Lifecycle;

    /// The registers of the kinds that attachments share, in the order of removal.
    fn registers() -> Vec<Register<Self>>;
}

/// Defines a plugin's [`Resources`] from the names of kinds, in the order in which they are made: what is shared is removed in reverse, a bridge
/// once nothing is on it.
#[macro_export]
macro_rules! resources {
    ($(#[$doc:meta])* $visibility:vis enum $name:ident { $($kind:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, $crate::serde::Serialize)]
        #[serde(crate = "ferrule_core::serde", tag = "resource", rename_all = "kebab-case")]
        #[allow(missing_docs, reason = "the kinds have their own")]
        $visibility enum $name {
            $($kind($crate::resource::$kind),)*
        }

        impl $crate::resource::Resources for $name {
            fn of_kind(kind: &str, text: &[u8]) -> Option<Self> {
                $(
                    if $crate::resource::is_kind(kind, stringify!($kind)) {
                        return $crate::resource::decode(text).map(Self::$kind);
                    }
                )*
                None
            }

            fn kind(&self) -> &dyn $crate::resource::Lifecycle {
                match self {
                    $(Self::$kind(resource) => resource,)*
                }
            }

            fn kind_mut(&mut self) -> &mut dyn $crate::resource::Lifecycle {
                match self {
                    $(Self::$kind(resource) => resource,)*
                }
            }

            fn registers() -> Vec<$crate::resource::Register<Self>> {
                use $crate::resource::Lifecycle;
                let mut registers: Vec<$crate::resource::Register<Self>> = Vec::new();
                $(
                    let of_name: fn(&str) -> Option<Self> =
                        |name| <$crate::resource::$kind as Lifecycle>::of_register(name).map(Self::$kind);
                    let register = <$crate::resource::$kind as Lifecycle>::register();
                    registers.extend(register.map(|register| (register, of_name)));
                )*
                registers.reverse();
                registers
            }
        }

        $(impl From<$crate::resource::$kind> for $name {
            fn from(resource: $crate::resource::$kind) -> Self {
                Self::$kind(resource)
            }
        })*
    };
}

/// Reads a resource from a line of a record.
///
/// By hand and not by a derived decoder of the enumeration: that one keeps the whole line as a tree until it has seen the name of the kind.
pub(crate) fn read<R: Resources>(line: &[u8]) -> Option<R> {
    #[derive(Deserialize)]
    struct Tag {
        resource: String,
    }
    let Tag { resource } = decode(line)?;
    R::of_kind(&resource, line)
}

#[doc(hidden)]
pub fn decode<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

/// Whether a name is that of a type, as records write it: `veth-pair` for `VethPair`.
#[doc(hidden)]
pub fn is_kind(name: &str, of_type: &str) -> bool {
    let mut written = String::new();
    for letter in of_type.chars() {
        if letter.is_ascii_uppercase() && !written.is_empty() {
            written.push('-');
        }
        written.push(letter.to_ascii_lowercase());
    }
    written == name
}

/// The first of several plans that is as its resources say, else the first of all: for a CHECK that can't know which was carried out.
pub fn first_verified<R: Resources>(host: &mut Host<'_>, plans: Vec<Vec<R>>) -> Vec<R> {
    let good = plans.iter().position(|plan| plan.iter().all(|resource| resource.kind().verify(host).is_ok()));
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

/// A link of the host that must be there, for who has its socket and no call.
pub(crate) fn link_on_host(netlink: &mut Netlink, name: &LinkName) -> Result<Link, Error> {
    netlink.link(name.as_str())?.ok_or_else(|| Error::missing_link(name, "on the host"))
}

/// The alias of a link that attachments share.
const SHARED_ALIAS: &str = "ferrule (shared)";

/// Whether a link bears the mark of those that were made here and are shared.
pub fn is_shared(link: &Link) -> bool {
    link.alias == SHARED_ALIAS
}

/// Marks a link, so that it is known as made here even if the state directory is lost.
fn mark_shared(host: &mut Host<'_>, link: &Link) -> Result<(), Error> {
    let change = LinkChange { alias: Some(SHARED_ALIAS.to_owned()), ..LinkChange::default() };
    Ok(host.netlink()?.change_link(link.index, &link.name, &change)?)
}

/// Removes what a user is entered for in registers, where there is no record that lists it.
pub fn remove_registered<R: Resources>(host: &mut Host<'_>) -> Vec<Error> {
    let mut failures = Vec::new();
    for (register, of_name) in R::registers() {
        let entered = Shared::entered(register, &host.user()).unwrap_or_else(|error| {
            failures.push(error.into());
            Vec::new()
        });
        let resources = entered.iter().filter_map(|name| of_name(name));
        failures.extend(resources.filter_map(|resource| resource.kind().remove(host).err()));
    }
    failures
}
