//! From configuration to resources, and from prevResult to the result. Nothing here touches the kernel.

use cni::{AddResult, LinkName};
use ferrule_core::resource::{Backup, LinkProperty, Setting, SysctlSetting};

use crate::config::Config;

ferrule_core::resources! {
    /// What an attachment is made of.
    pub enum Resource { Backup, SysctlSetting, Setting }
}

/// The resources, all of them in the container. What was before is looked up when they are made.
pub fn plan(config: &Config, ifname: &LinkName) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    if !config.properties.is_empty() {
        // First, because what is removed is removed last: as long as something is to be restored, the file says what.
        let backup = Backup {
            directory: config.data_directory.clone(),
            link: ifname.clone(),
            properties: config.properties.clone(),
        };
        resources.push(backup.into());
    }
    resources.extend(config.sysctls.iter().map(|sysctl| {
        SysctlSetting { key: sysctl.key.to_string(), value: sysctl.value.clone(), before: None }.into()
    }));
    resources.extend(
        config
            .properties
            .iter()
            .map(|property| Setting { link: ifname.clone(), wanted: *property, before: None }.into()),
    );
    resources
}

/// The result: prevResult with what has changed about the interface.
pub fn result(config: &Config, ifname: &LinkName, previous: AddResult) -> AddResult {
    let mut result = previous;
    let named = |name: &str| name == ifname.as_str();
    // The host's end of a pair may have the same name; it is the one that has no sandbox.
    let in_sandbox = result.interfaces.iter().any(|one| named(&one.name) && !one.sandbox.is_empty());
    let own = result
        .interfaces
        .iter_mut()
        .filter(|interface| named(&interface.name) && (!in_sandbox || !interface.sandbox.is_empty()));
    for interface in own {
        for property in &config.properties {
            match property {
                LinkProperty::Mac(mac) => interface.mac = mac.to_string(),
                LinkProperty::Mtu(mtu) => interface.mtu = *mtu,
                _ => {}
            }
        }
    }
    result
}

#[cfg(test)]
mod tests;
