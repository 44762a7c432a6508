//! The host's own address in a container network.

use cni::{Cidr, LinkName};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::NetlinkError;
use crate::shared::{Note, Shared};
use crate::sysctl::Key;

/// A gateway address on a link of the host. IPv6 addresses are used at once, without duplicate address detection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// The link: a bridge, or its interface in a VLAN.
    pub link: LinkName,
    /// The address with the prefix length of the subnet.
    pub address: Cidr,
    /// Replace another address that is in the way.
    #[serde(default)]
    pub force: bool,
    /// Nothing is in the way: the link is the gateway of several networks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside: bool,
}

/// The note of a gateway address: it was added here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    index: u32,
    /// What it replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<Replaced>,
}

/// An address that another had to make way for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Replaced {
    address: Cidr,
    /// It was a gateway of ours; else an administrator's.
    gateway: bool,
}

impl Gateway {
    const REGISTER: &str = "gateway";

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, &format!("{} {}", self.link, self.address))
    }

    /// The rule of the Go suite: of IPv4 one address only, of IPv6 none whose subnet overlaps.
    fn in_the_way(&self, other: &Cidr) -> bool {
        !self.beside
            && other.is_ipv4() == self.address.is_ipv4()
            && *other != self.address
            && (self.address.is_ipv4() || (other.overlaps(&self.address) && !link_local(other)))
    }

    /// A gateway address of ours, or an administrator's.
    fn of(&self, address: Cidr) -> Replaced {
        let gateway = Self { link: self.link.clone(), address, force: false, beside: false };
        Replaced { address, gateway: gateway.shared().is_used() }
    }

    fn add(&self, host: &mut Host<'_>, link: u32, replaced: &[Replaced]) -> Result<(), Error> {
        let netlink = host.netlink()?;
        for other in replaced {
            tolerate_missing(netlink.delete_address(link, self.link.as_str(), &other.address))?;
        }
        if !self.address.is_ipv4() {
            // A host that has IPv6 disabled by default can still have it on this link, where it is asked for.
            Key::of_interface("ipv6", &self.link, "disable_ipv6").put_if_present("0")?;
        }
        Ok(netlink.add_address(link, self.link.as_str(), &self.address, false)?)
    }

    /// After the last user: what it replaced comes back, unless that was a gateway that nobody needs any more.
    fn dispose(&self, host: &mut Host<'_>, added: &Added) -> Result<(), Error> {
        let Some(link) = host.netlink()?.link(self.link.as_str())? else { return Ok(()) };
        if link.index != added.index {
            return Ok(());
        }
        let netlink = host.netlink()?;
        tolerate_missing(netlink.delete_address(link.index, &link.name, &self.address))?;
        for other in &added.replaced {
            if other.gateway && !self.of(other.address).gateway {
                continue;
            }
            match netlink.add_address(link.index, &link.name, &other.address, false) {
                Err(error) if error.is_exists() => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn link_local(cidr: &Cidr) -> bool {
    matches!(cidr.address(), std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn tolerate_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

impl Lifecycle for Gateway {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().acquire(&host.user(), |note: &mut Note<'_, Added>| {
            let link = host.need_link_index(&self.link)?;
            let present = host.netlink()?.addresses(link)?;
            if present.iter().any(|address| address.cidr == self.address) {
                return Ok::<_, Error>(());
            }
            let others: Vec<Cidr> =
                present.iter().map(|other| other.cidr).filter(|other| self.in_the_way(other)).collect();
            if let (Some(other), false) = (others.first(), self.force) {
                return Err(Error::OtherAddress {
                    link: self.link.to_string(),
                    wanted: self.address.to_string(),
                    found: other.to_string(),
                });
            }
            let replaced: Vec<Replaced> = others.into_iter().map(|other| self.of(other)).collect();
            note.set(Added { index: link, replaced: replaced.clone() })?;
            self.add(host, link, &replaced)
        })
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_link(&self.link)?;
        let present =
            host.netlink()?.addresses(link.index)?.iter().any(|address| address.cidr == self.address);
        same(
            || format!("gateway address {} on {}", self.address, self.link),
            &"present",
            &if present { "present" } else { "missing" },
        )
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Added>| match note {
            Some(added) => self.dispose(host, &added),
            None => Ok(()),
        })
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        let (link, address) = name.split_once(' ')?;
        Some(Self {
            link: LinkName::new(link).ok()?,
            address: address.parse().ok()?,
            force: false,
            beside: false,
        })
    }
}
