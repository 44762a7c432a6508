//! The firewalld backend: a container's address is made a source of a zone, over D-Bus.
//!
//! firewalld knows forwarding only; published ports and masquerade stay with nftables or iptables, and so does isolation, which no zone
//! can express. What is made lives until firewalld is reloaded or restarted, as with the Go suite: `verify` notices.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni::Cidr;

use super::{Entry, Firewall, FirewallError, Forward, Role};
use crate::attachment::Collection;
use crate::dbus::{Bus, BusError, Method};
use crate::owner::Owner;
use crate::shared::{Shared, User};

const BACKEND: &str = "firewalld";
const SERVICE: &str = "org.fedoraproject.FirewallD1";

/// How long firewalld may take for everything one call asks: it writes whole rulesets.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the bus may take to say whether firewalld is there.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// firewalld, for one plugin.
#[derive(Debug)]
pub struct Firewalld {
    plugin: &'static str,
    bus: Option<Bus>,
}

const fn zone_method(name: &'static str) -> Method {
    Method {
        service: SERVICE,
        object: "/org/fedoraproject/FirewallD1",
        interface: "org.fedoraproject.FirewallD1.zone",
        name,
    }
}

fn source(address: IpAddr) -> String {
    Cidr::host(address).to_string()
}

/// Who uses an address as a source of a zone. An address that was given to another container is no more the first one's to cut off.
fn register(entry: &Forward) -> Shared {
    Shared::new("firewalld-source", &format!("{} {}", entry.zone, entry.address))
}

/// The forwarding entries, all that this backend can do.
fn forwards(entries: &[Entry]) -> Result<Vec<&Forward>, FirewallError> {
    let mut forwards = Vec::new();
    for entry in entries {
        let what = match entry {
            Entry::Forward(forward) => {
                forwards.push(forward);
                continue;
            }
            Entry::Masquerade(_) => "masquerade",
            Entry::SpoofGuard(_) => "macspoofchk",
            Entry::NeighbourGuard(_) => "spoofchk",
            Entry::Publish(_) => "published ports",
            Entry::LocalGuard(_) => "guarding of 127.0.0.0/8",
            Entry::Isolate(_) => "isolation of a bridge",
        };
        return Err(FirewallError::Unsupported { what: what.to_owned(), backend: BACKEND });
    }
    Ok(forwards)
}

impl Firewalld {
    /// The backend, for the users that a plugin's attachments are.
    pub fn new(plugin: &'static str) -> Self {
        Self { plugin, bus: None }
    }

    /// Whether firewalld is running: whether it has its name on the system bus. Starts nothing; a host without a bus has no firewalld.
    pub fn is_running() -> Result<bool, BusError> {
        match Bus::connect(Instant::now() + PROBE_DEADLINE) {
            Ok(mut bus) => bus.has_owner(SERVICE),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An error unless firewalld is running.
    pub fn probe() -> Result<(), FirewallError> {
        if Self::is_running()? { Ok(()) } else { Err(FirewallError::NotRunning) }
    }

    /// Calls a method of zones.
    fn call<T>(
        &mut self,
        name: &'static str,
        arguments: &[&str],
        read: impl FnOnce(&rustbus::message_builder::MarshalledMessage) -> Result<T, BusError>,
    ) -> Result<T, FirewallError> {
        let bus = match &mut self.bus {
            Some(bus) => bus,
            none => none.insert(Bus::connect(Instant::now() + DEADLINE)?),
        };
        Ok(bus.call(zone_method(name), arguments).and_then(|answer| read(&answer))?)
    }

    fn has(&mut self, zone: &str, source: &str) -> Result<bool, FirewallError> {
        self.call("querySource", &[zone, source], |answer| {
            answer.body.parser().get().map_err(|source| BusError::Decode {
                operation: "read what querySource answered".to_owned(),
                source,
            })
        })
    }

    fn zone_of(&mut self, source: &str) -> Result<String, FirewallError> {
        self.call("getZoneOfSource", &[source], |answer| {
            answer.body.parser().get().map_err(|source| BusError::Decode {
                operation: "read what getZoneOfSource answered".to_owned(),
                source,
            })
        })
    }

    fn add(&mut self, zone: &str, source: &str) -> Result<(), FirewallError> {
        match self.call("addSource", &[zone, source], |_| Ok(())) {
            Err(error) if error.firewalld_says("ZONE_ALREADY_SET") && self.has(zone, source)? => Ok(()),
            other => other,
        }
    }

    fn delete(&mut self, zone: &str, source: &str) -> Result<(), FirewallError> {
        match self.call("removeSource", &[zone, source], |_| Ok(())) {
            // Gone already, or somebody's who put it into another zone; or the zone itself is gone.
            Err(error)
                if ["UNKNOWN_SOURCE", "ZONE_CONFLICT", "NOT_ENABLED", "INVALID_ZONE"]
                    .iter()
                    .any(|code| error.firewalld_says(code)) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

impl FirewallError {
    /// Whether firewalld answered with this of its error codes.
    fn firewalld_says(&self, code: &str) -> bool {
        matches!(self, Self::Bus(error) if error.message().is_some_and(|message| message.starts_with(code)))
    }
}

impl Firewall for Firewalld {
    fn ensure(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let user = User::new(owner, self.plugin);
        for entry in forwards(entries)? {
            register(entry).enter(&user, || self.add(&entry.zone, &source(entry.address)))?;
        }
        Ok(())
    }

    fn verify(&mut self, _: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        for entry in forwards(entries)? {
            let source = source(entry.address);
            if !self.has(&entry.zone, &source)? {
                let what = format!("source {source} of zone {}", entry.zone);
                return Err(FirewallError::Missing { what, backend: BACKEND });
            }
        }
        Ok(())
    }

    fn remove(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), FirewallError> {
        let user = User::new(owner, self.plugin);
        let entries = forwards(entries)?;
        // Zones have no sources while there is no firewalld, and none of ours when it comes back.
        let running = Self::is_running()?;
        for entry in entries {
            let register = register(entry);
            let entered = register.has(&user);
            let mut delete =
                || if running { self.delete(&entry.zone, &source(entry.address)) } else { Ok(()) };
            register.leave(&user, &mut delete)?;
            if !entered && !register.is_used() {
                delete()?;
            }
        }
        Ok(())
    }

    fn remove_owner(&mut self, _: &Owner, role: Role, addresses: &[IpAddr]) -> Result<(), FirewallError> {
        if role != Role::Forward || addresses.is_empty() || !Self::is_running()? {
            return Ok(());
        }
        for address in addresses {
            let source = source(*address);
            let zone = self.zone_of(&source)?;
            if !zone.is_empty() {
                self.delete(&zone, &source)?;
            }
        }
        Ok(())
    }

    /// Sources have no owner: nothing tells whose they are.
    fn collect(&mut self, _: &Collection<'_>, _: Role) -> Result<(), FirewallError> {
        Ok(())
    }
}
