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
        if note.get().is_none() || note.is_first()? {
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

/// Answers of this host to ARP requests that come in through a link, for every address that it has a route to through another one (`proxy_arp`). They are given
/// at once: the random time of up to 0.8 s that the kernel waits otherwise (`proxy_delay`) is for hosts that answer beside others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyArp {
    /// The host's interface towards the containers.
    pub link: LinkName,
}

/// The note of a link that answers: the values that its parameters had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Silent {
    values: Vec<String>,
}

impl ProxyArp {
    fn keys(&self) -> [(Key, &'static str); 2] {
        [
            (Key::of_interface("ipv4", &self.link, "proxy_arp"), "1"),
            (Key::of_neighbours("ipv4", &self.link, "proxy_delay"), "0"),
        ]
    }

    const REGISTER: &str = "proxy-arp";

    fn shared(&self) -> Shared {
        Shared::new(Self::REGISTER, self.link.as_str())
    }

    /// Puts the parameters right, for those who need them already.
    pub fn put_right(&self) -> Result<(), Error> {
        for (key, value) in self.keys() {
            key.write(value)?;
        }
        Ok(())
    }

    /// Fails with the first parameter that is not right.
    pub fn look(&self) -> Result<(), Error> {
        for (key, value) in self.keys() {
            same(|| format!("sysctl {}", key.as_str()), &value.to_owned(), &key.read()?)?;
        }
        Ok(())
    }
}

impl Lifecycle for ProxyArp {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().acquire(&host.user(), |note: &mut Note<'_, Silent>| {
            // Somebody may have changed them meanwhile; what they were before the first user is still what they go back to.
            if note.get().is_none() || note.is_first()? {
                let values = self.keys().iter().map(|(key, _)| key.read()).collect::<Result<_, _>>()?;
                note.set(Silent { values })?;
            }
            self.put_right()
        })
    }

    fn verify(&self, _: &mut Host<'_>) -> Result<(), Error> {
        self.look()
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.shared().release(&host.user(), |note: Option<Silent>| {
            for ((key, _), value) in self.keys().iter().zip(note.map(|note| note.values).unwrap_or_default())
            {
                key.write_if_present(&value)?;
            }
            Ok(())
        })
    }

    fn register() -> Option<&'static str> {
        Some(Self::REGISTER)
    }

    fn of_register(name: &str) -> Option<Self> {
        Some(Self { link: LinkName::new(name).ok()? })
    }
}
