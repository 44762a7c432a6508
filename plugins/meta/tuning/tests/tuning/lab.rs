//! A container with an interface that somebody else has made.

use serde_json::{Value, json};
use testkit::{Container, Host, Output, Plugin, ip_json, plugin_dir, tool};

/// A host with one container, whose `eth0` is the end of a veth pair.
pub(crate) struct Lab {
    _host: Host,
    pub(crate) container: Container,
}

/// The hardware address that `eth0` has at first.
pub(crate) const MAC: &str = "02:00:00:00:00:aa";

impl Lab {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        let container = host.container("c1");
        tool("ip", &["link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", "c1"]);
        container.enter(|| {
            tool("ip", &["link", "set", "eth0", "address", MAC]);
            tool("ip", &["link", "set", "eth0", "up"]);
        });
        tool("ip", &["link", "set", "veth0", "up"]);
        Self { _host: host, container }
    }

    /// One call of the plugin for the container.
    pub(crate) fn call(&self, verb: &str, config: &Value) -> Output {
        self.call_with(verb, "", config)
    }

    /// The same with `CNI_ARGS`.
    pub(crate) fn call_with(&self, verb: &str, args: &str, config: &Value) -> Output {
        self.run(&Plugin::new("tuning"), verb, args, config)
    }

    /// The same with another suite's plugin.
    pub(crate) fn run(&self, plugin: &Plugin, verb: &str, args: &str, config: &Value) -> Output {
        plugin
            .verb(verb)
            .attachment("c1", self.container.path(), "eth0")
            .path(&[plugin_dir()])
            .env("CNI_ARGS", args)
            .config(config)
            .run()
    }

    /// The container's interface, as `ip` sees it.
    pub(crate) fn link(&self) -> Value {
        self.container.enter(|| ip_json("link show eth0"))[0].clone()
    }

    pub(crate) fn sysctl(&self, key: &str) -> String {
        self.container.enter(|| testkit::sysctl(key))
    }
}

/// A configuration with prevResult, as it comes after an interface plugin.
pub(crate) fn config(keys: &Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "tuning", "prevResult": previous()
    });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

pub(crate) fn previous() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "veth0", "mac": "02:00:00:00:00:01" },
            { "name": "eth0", "mac": MAC, "mtu": 1500, "sandbox": "/run/netns/c1", "org.example": 1 }
        ],
        "ips": [{ "address": "10.1.0.2/24", "interface": 1 }],
        "org.example/top": true
    })
}

/// What of a link the plugin can change.
pub(crate) fn properties(link: &Value) -> Value {
    let has = |flag: &str| link["flags"].as_array().unwrap().iter().any(|one| one == flag);
    json!({
        "mac": link["address"], "mtu": link["mtu"], "promisc": has("PROMISC"), "allmulti": has("ALLMULTI"),
        "txQLen": link["txqlen"]
    })
}
