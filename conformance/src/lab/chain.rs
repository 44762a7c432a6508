//! What lies beneath a plugin that is not the first of its chain.

use serde_json::{Value, json};

use super::{Container, Lab, in_version};
use crate::kernel::View;
use crate::profile::Kind;
use crate::verdict::Outcome;

impl Lab {
    /// For a meta plugin: makes what an earlier plugin of the chain would have made (a veth pair with addresses of both families, the
    /// host's end as gateway) and keeps a true result of it, for [`Lab::call`]. Other kinds need nothing beneath. Returns that result, or null.
    pub fn beneath(&mut self, container: &Container) -> Outcome<Value> {
        if self.profile.kind != Kind::Meta {
            return Ok(Value::Null);
        }
        let result = self.earlier(container)?;
        self.bases.insert(key_of(container), result.clone());
        Ok(result)
    }

    /// Makes what [`Lab::beneath`] makes, for a plugin of any kind, and keeps nothing: what an earlier plugin of the chain would have made
    /// for this container and interface, and its result.
    pub fn earlier(&mut self, container: &Container) -> Outcome<Value> {
        self.made += 1;
        let number = self.made;
        let (host, name, ifname) =
            (format!("cnfv{number}"), container.name.clone(), container.ifname.clone());
        let (v4, v6) = (format!("10.55.{number}"), format!("fd00:55:{number}:"));
        // A second interface of a container has its default routes behind those of the first.
        let second = self.bases.keys().any(|key| key.starts_with(&format!("{name}/")));
        let metric = if second { number } else { 0 };
        self.sh(&format!(
            "ip link add {host} type veth peer name {ifname} netns {name} && ip link set {host} up && ip addr add {v4}.1/24 dev {host} && ip addr add {v6}:1/64 dev {host} nodad"
        ))?;
        self.sh_in(
            container,
            &format!(
                "ip link set lo up && ip link set {ifname} up && ip addr add {v4}.2/24 dev {ifname} && ip addr add {v6}:2/64 dev {ifname} nodad \
                 && ip route add default via {v4}.1 metric {metric} && ip route add ::/0 via {v6}:1 metric {}",
                1024 + metric
            ),
        )?;
        let mac = |view: &View, name: &str| view.link(name).map(|link| link.mac.clone()).unwrap_or_default();
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": host, "mac": mac(&self.host()?, &host) },
                { "name": ifname, "mac": mac(&self.view(container)?, &ifname), "sandbox": container.netns },
            ],
            "ips": [
                { "address": format!("{v4}.2/24"), "gateway": format!("{v4}.1"), "interface": 1 },
                { "address": format!("{v6}:2/64"), "gateway": format!("{v6}:1"), "interface": 1 },
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": format!("{v4}.1") }, { "dst": "::/0", "gw": format!("{v6}:1") }],
            "dns": {},
        });
        Ok(in_version(&result, &self.version))
    }
}

/// An attachment, as a key.
pub(super) fn key_of(container: &Container) -> String {
    format!("{}/{}", container.name, container.ifname)
}
