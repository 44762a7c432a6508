//! An address lease, held by an IPAM plugin.

use cni::{Attachment, Verb};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, Role};
use crate::error::Error;
use crate::host::Host;

/// What an IPAM plugin has given to this attachment. Only the plugin knows what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The plugin's type.
    pub kind: String,
}

impl Lifecycle for Lease {
    /// Nothing: the lease is taken by [`crate::attachment::Building::lease`], because its result is what the rest is made of.
    fn ensure(&self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        Ok(host.request().delegate(&self.kind)?.call(Verb::Check)?)
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let owner = host.owner();
        let attachment =
            Attachment { container_id: owner.container_id.clone(), ifname: owner.ifname.clone() };
        // In a GC the call's environment names no attachment, so it is given here; in a DEL this changes nothing.
        let request = host.request().for_attachment(&attachment);
        Ok(request.delegate(&self.kind)?.call(Verb::Del)?)
    }

    fn role(&self) -> Role<'_> {
        Role::Lease(self)
    }
}
