//! Firewall entries of an attachment.

use serde::{Deserialize, Serialize};

use super::{Lifecycle, flows};
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
}
