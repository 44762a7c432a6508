//! Switches of the host that containers need on, turned back when nobody needs them any more.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, same};
use crate::error::Error;
use crate::host::Host;
use crate::shared::{Note, Shared};
use crate::sysctl::Key;

/// The note of a switch: what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    value: String,
}

fn turn_on(shared: &Shared, key: &Key, host: &Host<'_>) -> Result<(), Error> {
    shared.acquire(&host.user(), |note: &mut Note<'_, Before>| {
        let value = key.read()?;
        if value == "1" {
            return Ok::<_, Error>(());
        }
        // Somebody has turned it off meanwhile; what it was before the first user is still what it goes back to.
        if note.is_first() || note.get().is_none() {
            note.set(Before { value })?;
        }
        Ok(key.write("1")?)
    })
}

fn verify_on(key: &Key) -> Result<(), Error> {
    same(|| format!("sysctl {}", key.as_str()), &"1".to_owned(), &key.read()?)
}

fn turn_back(shared: &Shared, key: &Key, host: &Host<'_>) -> Result<(), Error> {
    shared.release(&host.user(), |note: Option<Before>| match note {
        Some(before) => Ok(key.write_if_present(&before.value)?),
        None => Ok(()),
    })
}

/// Forwarding of one address family by this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// IPv4; else IPv6.
    pub ipv4: bool,
}

impl Forwarding {
    fn key(&self) -> Result<Key, Error> {
        Ok(Key::new(if self.ipv4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" })?)
    }

    const REGISTER: &str = "forwarding";

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, if self.ipv4 { "ipv4" } else { "ipv6" })
    }
}

impl Lifecycle for Forwarding {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        turn_on(&self.shared(), &self.key()?, host)
    }

    fn verify(&self, _: &mut Host<'_>) -> Result<(), Error> {
        verify_on(&self.key()?)
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        turn_back(&self.shared(), &self.key()?, host)
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        Some(Self { ipv4: name == "ipv4" })
    }
}

/// Routing of 127.0.0.0/8 through an interface, so that a port published on 127.0.0.1 leads to a container (`route_localnet`). A firewall
/// entry ([`crate::firewall::LocalGuard`]) guards the interface against the packets that this would let in (CVE-2020-8558).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRouting {
    /// The host's interface towards the container.
    pub link: LinkName,
}

impl LocalRouting {
    fn key(&self) -> Key {
        Key::of_interface("ipv4", &self.link, "route_localnet")
    }

    const REGISTER: &str = "route-localnet";

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, self.link.as_str())
    }
}

impl Lifecycle for LocalRouting {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        turn_on(&self.shared(), &self.key(), host)
    }

    fn verify(&self, _: &mut Host<'_>) -> Result<(), Error> {
        verify_on(&self.key())
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        turn_back(&self.shared(), &self.key(), host)
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        Some(Self { link: LinkName::new(name).ok()? })
    }
}
