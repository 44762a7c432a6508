//! Firewall entries of an attachment.

use std::net::IpAddr;

use cni::AddResult;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, Role, flows};
use crate::error::Error;
use crate::firewall::{Backend, Entry};
use crate::host::Host;

/// Entries in one backend. They are made, and removed, in one transaction; tracked connections that contradict them are forgotten then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Where.
    pub backend: Backend,
    /// What.
    pub entries: Vec<Entry>,
}

impl Lifecycle for Rules {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        host.with_firewall(self.backend, |firewall, owner| firewall.ensure(owner, &self.entries))?;
        flows::forget_stale(host, &self.entries)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        Ok(host.with_firewall(self.backend, |firewall, owner| firewall.verify(owner, &self.entries))?)
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        host.with_firewall(self.backend, |firewall, owner| firewall.remove(owner, &self.entries))?;
        flows::forget_translated(&self.entries);
        Ok(())
    }

    fn role(&self) -> Role<'_> {
        Role::Entries
    }

    /// An address that rules are for has to be listed.
    fn heed(&mut self, previous: &AddResult) -> Result<(), Error> {
        let addresses = self.entries.iter().filter_map(|entry| match entry {
            Entry::Publish(publish) => Some(publish.address.address()),
            Entry::Forward(forward) => Some(forward.address),
            _ => None,
        });
        let listed = |address: &IpAddr| previous.ips.iter().any(|ip| ip.address.address() == *address);
        match addresses.into_iter().find(|address| !listed(address)) {
            None => Ok(()),
            Some(address) => Err(Error::Different {
                what: format!("address {address} of the firewall rules"),
                expected: "listed in prevResult".to_owned(),
                found: "missing".to_owned(),
            }),
        }
    }
}
