//! Properties of the container that are changed, and restored on DEL.

use cni::LinkName;
use serde::{Deserialize, Serialize};

use super::{Lifecycle, same};
use crate::attachment;
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{Link, LinkChange, MacAddress};
use crate::sysctl::{self, Key, SysctlError};

/// A property of a link with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkProperty {
    /// Administratively up.
    Up(bool),
    /// Hardware address.
    Mac(MacAddress),
    /// MTU in bytes.
    Mtu(u32),
    /// Promiscuous mode.
    Promiscuous(bool),
    /// Reception of all multicast.
    AllMulticast(bool),
    /// Transmit queue length in packets.
    TxQueueLength(u32),
}

impl LinkProperty {
    /// The same property's value on a link.
    #[must_use]
    pub fn of(self, link: &Link) -> Self {
        match self {
            Self::Up(_) => Self::Up(link.up),
            Self::Mac(_) => Self::Mac(link.mac.parse().unwrap_or_default()),
            Self::Mtu(_) => Self::Mtu(link.mtu),
            Self::Promiscuous(_) => Self::Promiscuous(link.promiscuous),
            Self::AllMulticast(_) => Self::AllMulticast(link.all_multicast),
            Self::TxQueueLength(_) => Self::TxQueueLength(link.tx_queue_len),
        }
    }

    fn change(self) -> LinkChange {
        let mut change = LinkChange::default();
        match self {
            Self::Up(up) => change.up = Some(up),
            Self::Mac(mac) => change.mac = Some(mac),
            Self::Mtu(mtu) => change.mtu = Some(mtu),
            Self::Promiscuous(on) => change.promiscuous = Some(on),
            Self::AllMulticast(on) => change.all_multicast = Some(on),
            Self::TxQueueLength(length) => change.tx_queue_len = Some(length),
        }
        change
    }
}

/// A property of the container's interface, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The interface in the container.
    pub link: LinkName,
    /// The value asked for.
    pub wanted: LinkProperty,
    /// The value before; `None` until it has been looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<LinkProperty>,
}

impl Setting {
    fn apply(&self, host: &mut Host<'_>, property: LinkProperty) -> Result<(), Error> {
        let link = host.need_container_link(&self.link)?;
        if property.of(&link) == property {
            return Ok(());
        }
        let netlink = host.need_container("change its interface")?.netlink()?;
        Ok(netlink.change_link(link.index, &link.name, &property.change())?)
    }
}

impl Lifecycle for Setting {
    fn observe(&mut self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_container_link(&self.link)?;
        self.before = Some(self.wanted.of(&link));
        Ok(())
    }

    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        self.apply(host, self.wanted)
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_container_link(&self.link)?;
        let text = |property: LinkProperty| format!("{}", property.change());
        same(
            || format!("interface {} in the container", self.link),
            &text(self.wanted),
            &text(self.wanted.of(&link)),
        )
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let (Some(before), Some(_)) = (self.before, host.container()) else { return Ok(()) };
        match self.apply(host, before) {
            // Gone with its interface.
            Err(Error::LinkMissing { .. }) => Ok(()),
            other => other,
        }
    }
}

/// A sysctl of the container's namespace, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlSetting {
    /// The key separated by slashes, below `net/`.
    pub key: String,
    /// The value asked for.
    pub value: String,
    /// The value before; `None` until it has been looked at, and where there is none to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

crate::resources! {
    /// What of another attachment's record matters here.
    enum Sibling { SysctlSetting }
}

impl SysctlSetting {
    fn inside<T: Send>(
        host: &mut Host<'_>,
        work: impl FnOnce() -> Result<T, SysctlError> + Send,
    ) -> Result<T, Error> {
        Ok(host.need_container("reach its sysctls")?.netns.run(work)??)
    }

    /// The same key in other attachments of the container: a namespace has it once, however many of its interfaces ask for it.
    fn siblings(&self, host: &Host<'_>) -> Vec<Self> {
        let settings = attachment::siblings(host).into_iter().map(|Sibling::SysctlSetting(setting)| setting);
        settings.filter(|setting| setting.key == self.key).collect()
    }
}

impl Lifecycle for SysctlSetting {
    fn observe(&mut self, host: &mut Host<'_>) -> Result<(), Error> {
        let key = Key::new(&self.key)?;
        self.before = match Self::inside(host, || key.read()) {
            Ok(value) => Some(value),
            Err(Error::Sysctl(error)) if error.has_no_value() => None,
            Err(error) => return Err(error),
        };
        // Set by another attachment already: what was there before that one is what the last of them restores.
        let found = self.before.as_deref().unwrap_or_default();
        if let Some(first) = self.siblings(host).into_iter().find(|other| sysctl::same(found, &other.value)) {
            self.before = first.before;
        }
        Ok(())
    }

    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let key = Key::new(&self.key)?;
        Self::inside(host, || key.write(&self.value))
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let key = Key::new(&self.key)?;
        let found = match Self::inside(host, || key.read()) {
            Err(Error::Sysctl(error)) if error.has_no_value() => return Ok(()),
            other => other?,
        };
        if sysctl::same(&found, &self.value) {
            return Ok(());
        }
        same(|| format!("sysctl {} in the container", self.key), &self.value, &found)
    }

    fn remove(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let (Some(before), Some(_)) = (&self.before, host.container()) else { return Ok(()) };
        let key = Key::new(&self.key)?;
        let others = self.siblings(host);
        let Some(other) = others.last() else {
            return Self::inside(host, || key.write_if_present(before));
        };
        let found = Self::inside(host, || Ok(key.read().unwrap_or_default()))?;
        if others.iter().any(|other| sysctl::same(&found, &other.value)) {
            return Ok(());
        }
        Self::inside(host, || key.write_if_present(&other.value))
    }
}
