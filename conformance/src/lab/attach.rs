//! Several attachments side by side: what differs from one to the next, what each left, and how to break one by hand.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Call, Container, Lab, NETWORK, direct, quote};
use crate::kernel::{self, Difference, Snapshot, View, inside};
use crate::profile::merge;
use crate::verdict::{Outcome, Stop};

/// The name of a second network, for the cases with two.
pub const OTHER_NETWORK: &str = "cnfother";

/// Takes away all rules, chains and tables of every firewall there is, as an administrator does in despair.
const FLUSH: &str = "nft flush ruleset; for family in ip ip6; do \
    for table in $(cat /proc/net/${family}_tables_names 2>/dev/null); do \
    ${family}tables-legacy -t $table -F; ${family}tables-legacy -t $table -X; done; done; true";

impl Lab {
    /// The number of an attachment, which its configuration may hold as `<N+>`: another one for each interface of each container.
    pub(super) fn number(&self, container: &Container) -> u64 {
        const INTERFACES: u64 = 10;
        let position = self.ordinals.iter().position(|name| *name == container.name).unwrap_or(0);
        let interface =
            container.ifname.chars().last().and_then(|last| last.to_digit(10)).map_or(0, u64::from);
        u64::try_from(position).unwrap_or(0) * INTERFACES + interface
    }

    /// The minimal configuration of network [`NETWORK`] for this attachment.
    pub fn config_for(&self, container: &Container) -> Value {
        self.profile.configuration_of(NETWORK, &self.version, self.number(container))
    }

    /// The same call on the other network ([`OTHER_NETWORK`]), which shares with the first whatever two networks can share.
    pub fn on_the_other_network(&self, call: Call) -> Call {
        let patch = self.profile.sibling.clone();
        call.edit(|config| {
            if !patch.is_null() {
                merge(config, &patch);
            }
            config["name"] = OTHER_NETWORK.into();
        })
    }

    /// Removes a container's namespace. Snapshots do not cover it any more.
    ///
    /// The kernel takes the interfaces in it, and their ends elsewhere, away some time after the last reference is gone. This waits for that,
    /// so that what a plugin finds does not depend on luck.
    pub fn destroy(&mut self, container: &Container) -> Outcome {
        const PATIENCE: Duration = Duration::from_secs(2);
        let ends: Vec<u32> = self.view(container)?.links.iter().filter_map(|link| link.peer).collect();
        let doomed = |view: &View| -> Vec<String> {
            let of_it = view.links.iter().filter(|link| link.peer_elsewhere && ends.contains(&link.index));
            of_it.map(|link| link.name.clone()).collect()
        };
        let names = doomed(&self.host()?);
        let path = container.path();
        direct::remove(&path).map_err(|error| {
            Stop::Broken(format!("cannot remove the network namespace {}: {error}", path.display()))
        })?;
        self.journal_line(format!("ip netns del {}", container.name), "removed");
        self.containers.retain(|other| other.name != container.name);
        if names.is_empty() {
            return Ok(());
        }
        let wait = names.iter().map(|name| format!("while ip link show {name}; do sleep 0.1; done"));
        self.journal_line(wait.collect::<Vec<_>>().join("; "), "the kernel took it away");
        let started = Instant::now();
        while self.host()?.links.iter().any(|link| names.contains(&link.name)) && started.elapsed() < PATIENCE
        {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes every rule of every firewall of the fake host.
    pub fn flush_firewall(&mut self) -> Outcome {
        self.sh(FLUSH)?;
        Ok(())
    }

    /// Runs a line of shell on the fake host that is about one attachment. In it stand `$IFNAME`, `$NETNS` (for `ip netns exec`),
    /// `$CONTAINERID`, `$NETWORK`, and of the attachment's result `$ADDRESS`, `$ADDRESS6` (without prefix length), `$HOSTIF` (the last
    /// interface without a sandbox).
    pub fn sh_about(&mut self, container: &Container, result: &Value, script: &str) -> Outcome<String> {
        let words: Vec<String> = variables(container, result)
            .iter()
            .filter(|(name, _)| script.contains(&format!("${name}")))
            .map(|(name, value)| format!("{name}={}; ", quote(value)))
            .collect();
        self.sh(&format!("{}{script}", words.concat()))
    }

    /// What is there now and was not there before, but for what the profile says may remain or is shared.
    pub fn left(&self, before: &Snapshot) -> Outcome<Difference> {
        Ok(self.changes(before)?.added())
    }

    /// Looks whether anything of the world changed in a way that the snapshots of this case could not see.
    ///
    /// # Errors
    /// A change of a setting without a write to it: then none of them is to be trusted.
    pub fn nothing_untold(&self) -> Outcome {
        let mut untold = kernel::untold();
        for container in &self.containers {
            // A case may have taken the namespace away.
            untold.extend(inside(&container.path(), kernel::untold).unwrap_or_default());
        }
        if untold.is_empty() {
            return Ok(());
        }
        let untold = untold.join(", ");
        Err(Stop::Broken(format!("settings changed and nobody wrote them, so snapshots missed it: {untold}")))
    }

    /// [`Lab::changes`], for a world in which a network namespace was just destroyed: the kernel takes its interfaces away a moment later, so
    /// a difference counts only if it lasts. `of` chooses from it what the case is about: what is chosen must go, not what else has changed for good,
    /// as the namespace itself.
    pub fn lasting_changes(
        &self,
        before: &Snapshot,
        of: impl Fn(Difference) -> Difference,
    ) -> Outcome<Difference> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let started = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let difference = of(self.changes(before)?);
            if difference.is_empty() || started.elapsed() > PATIENCE {
                return Ok(difference);
            }
            // A look at everything costs: what is not gone soon is gone late.
            thread::sleep(pause);
            pause *= 2;
        }
    }
}

fn variables(container: &Container, result: &Value) -> Vec<(&'static str, String)> {
    let list = |key: &str| result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let address = |six: bool| {
        let addresses = list("ips").into_iter().map(|ip| text(&ip, "address"));
        let found = addresses.into_iter().find(|address| address.contains(':') == six).unwrap_or_default();
        found.split('/').next().unwrap_or_default().to_owned()
    };
    let host = list("interfaces").into_iter().rfind(|interface| text(interface, "sandbox").is_empty());
    vec![
        // The longer name first: `$ADDRESS6` is not `$ADDRESS` and a 6.
        ("ADDRESS6", address(true)),
        ("ADDRESS", address(false)),
        ("IFNAME", container.ifname.clone()),
        ("NETNS", container.name.clone()),
        ("CONTAINERID", container.id.clone()),
        ("NETWORK", NETWORK.to_owned()),
        ("HOSTIF", host.map(|interface| text(&interface, "name")).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_gives_the_words_of_a_break() {
        let container = Container {
            name: "c1".to_owned(),
            id: "cnf-c1".to_owned(),
            netns: "/run/netns/c1".to_owned(),
            ifname: "eth0".to_owned(),
        };
        let result = json!({
            "interfaces": [{ "name": "br0" }, { "name": "veth1" }, { "name": "eth0", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "fd00::2/64" }, { "address": "10.1.0.2/24" }],
        });
        let words: std::collections::BTreeMap<_, _> = variables(&container, &result).into_iter().collect();
        assert_eq!(
            (words["HOSTIF"].as_str(), words["ADDRESS"].as_str(), words["ADDRESS6"].as_str()),
            ("veth1", "10.1.0.2", "fd00::2")
        );
    }
}
