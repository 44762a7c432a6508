//! A host, a network, and containers on it: what a sweep tries a plugin in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Container, Host, Netns, RunningFirewalld, SYSTEM_BUS, Uplink};

use crate::call::{Ended, Execution};
use crate::job::{Failure, Verb};
use crate::look::Look;
use crate::networks::{self, Network};

/// The PATH of a runtime that a service manager started, for plugins that run `iptables-restore`.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A host with a network.
#[derive(Debug)]
pub(crate) struct World {
    pub host: Host,
    chain: Chain,
    _uplink: Option<Uplink>,
    _firewalld: Option<RunningFirewalld>,
}

/// A network, and the plugins that make it.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub network: Network,
    bin: PathBuf,
}

impl std::ops::Deref for World {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

/// A container's namespace: the container itself, or only the way to it.
#[derive(Debug)]
pub(crate) enum Space {
    Owned(Container),
    Borrowed(Netns),
}

impl std::ops::Deref for Space {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        match self {
            Self::Owned(container) => container,
            Self::Borrowed(netns) => netns,
        }
    }
}

/// A container, and what its ADDs returned.
#[derive(Debug)]
pub(crate) struct Guest {
    pub container: Space,
    pub id: String,
    number: usize,
    results: Vec<Value>,
}

/// The tables and base chains that the `iptables` programs make on first use, and leave.
fn used_iptables() {
    let table = |name: &str, chains: &[&str]| {
        let chains: String =
            chains.iter().map(|chain| format!(":{chain} ACCEPT\n")).collect::<Vec<_>>().concat();
        format!("*{name}\n{chains}COMMIT\n")
    };
    let input = [
        table("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
        table("filter", &["INPUT", "FORWARD", "OUTPUT"]),
        table("raw", &["PREROUTING", "OUTPUT"]),
    ];
    for program in ["iptables-restore", "ip6tables-restore"] {
        let program = testkit::have(program).unwrap_or_else(|| panic!("{program} is not installed"));
        let environment = BTreeMap::from([("PATH".to_owned(), SERVICE_PATH.to_owned())]);
        let ended = Execution { program, environment, stdin: input.concat().into_bytes() }.run();
        assert!(ended.succeeded(), "iptables-restore: {}", ended.describe());
    }
}

impl World {
    /// Turns this process's namespaces into a host.
    pub(crate) fn new(bin: &Path, network: &str) -> Self {
        let host = Host::new();
        let network = networks::named(network);
        let uplink = network.uplink.then(|| host.uplink());
        if uplink.is_some() {
            // The host's own local routes come a moment after its addresses.
            testkit::eventually("the host's IPv6 address", || {
                testkit::ping(host.netns(), Uplink::HOST_IPV6).then_some(())
            });
        }
        let firewalld = network.firewalld.then(|| RunningFirewalld::start(SYSTEM_BUS, ""));
        let chain = Chain { network, bin: bin.to_owned() };
        let world = Self { host, chain, _uplink: uplink, _firewalld: firewalld };
        world.settle();
        world
    }

    /// What a host has once its programs have been used, and what comes back by itself where somebody has emptied the firewall.
    pub(crate) fn settle(&self) {
        if self.network.list["plugins"][0]["ipMasqBackend"] == "iptables" {
            used_iptables();
        }
        if self.network.firewalld {
            // It makes the chains of a zone when that is first used, and leaves them.
            for change in ["--add-source=203.0.113.1", "--remove-source=203.0.113.1"] {
                testkit::tool("firewall-cmd", &["--zone=trusted", change]);
            }
        }
    }

    /// A container without a network.
    pub(crate) fn guest(&self, number: usize) -> Guest {
        let id = format!("c{number}");
        let container = self.host.container(&id);
        if self.network.ifname == "lo" {
            // The kernel gives `lo` its address when it first comes up, and leaves it there when it goes down.
            for state in ["up", "down"] {
                container.run("ip", &["link", "set", "lo", state]);
            }
        }
        Guest { container: Space::Owned(container), id, number, results: Vec::new() }
    }

    /// The state of the host and of containers.
    pub(crate) fn look(guests: &[&Guest]) -> Look {
        let containers: Vec<&Netns> = guests.iter().map(|guest| &*guest.container).collect();
        Look::take(&containers)
    }
}

impl Chain {
    /// Another network by the same plugins.
    pub(crate) fn with(&self, network: Network) -> Self {
        Self { network, bin: self.bin.clone() }
    }

    /// All plugins.
    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.plugins().len()
    }

    /// The plugins of the network.
    pub(crate) fn plugins(&self) -> &[Value] {
        self.network.list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The place of a plugin in the network.
    pub(crate) fn index(&self, kind: &str) -> usize {
        let found = self.plugins().iter().position(|plugin| plugin["type"] == kind);
        found.unwrap_or_else(|| panic!("no plugin {kind} in this network"))
    }

    /// An execution of a plugin for a container.
    pub(crate) fn execution(&self, plugin: usize, verb: Verb, guest: &Guest) -> Execution {
        let mut config = self.config(plugin);
        if let Some(previous) = guest.results.last() {
            config["prevResult"] = previous.clone();
        }
        if config["capabilities"]["portMappings"] == true {
            config["runtimeConfig"] = json!({ "portMappings": networks::ports(guest.number) });
        }
        let mut execution = self.prepared(plugin, verb, &config);
        let netns = guest.container.path().display().to_string();
        for (key, value) in
            [("CONTAINERID", guest.id.as_str()), ("NETNS", &netns), ("IFNAME", self.network.ifname)]
        {
            execution.environment.insert(format!("CNI_{key}"), value.to_owned());
        }
        execution
    }

    /// GC of a plugin: these containers are all there are.
    pub(crate) fn collection(&self, plugin: usize, valid: &[&Guest]) -> Execution {
        let mut config = self.config(plugin);
        let list: Value = valid
            .iter()
            .map(|guest| json!({ "containerID": guest.id, "ifname": self.network.ifname }))
            .collect();
        config["cni.dev/valid-attachments"] = list.clone();
        config["cni.dev/attachments"] = list;
        self.prepared(plugin, Verb::Gc, &config)
    }

    fn config(&self, plugin: usize) -> Value {
        let mut config = self.plugins()[plugin].clone();
        config["name"] = self.network.list["name"].clone();
        config["cniVersion"] = self.network.list["cniVersion"].clone();
        config
    }

    fn prepared(&self, plugin: usize, verb: Verb, config: &Value) -> Execution {
        let kind = self.plugins()[plugin]["type"].as_str().unwrap_or_default();
        let environment = BTreeMap::from([
            ("CNI_COMMAND".to_owned(), verb.as_str().to_owned()),
            ("CNI_PATH".to_owned(), self.bin.display().to_string()),
            ("PATH".to_owned(), SERVICE_PATH.to_owned()),
        ]);
        Execution { program: self.bin.join(kind), environment, stdin: config.to_string().into_bytes() }
    }

    /// ADD of one plugin; its result counts for the next.
    pub(crate) fn add_one(&self, plugin: usize, guest: &mut Guest) -> Result<(), Failure> {
        guest.results.truncate(plugin);
        let ended = self.execution(plugin, Verb::Add, guest).run();
        self.keep(plugin, guest, &ended)
    }

    /// Keeps the result of an ADD.
    pub(crate) fn keep(&self, plugin: usize, guest: &mut Guest, ended: &Ended) -> Result<(), Failure> {
        match ended.document().filter(|_| ended.succeeded()) {
            Some(result) => {
                guest.results.truncate(plugin);
                guest.results.push(result);
                Ok(())
            }
            None => Err(self.unexpected(plugin, Verb::Add, ended)),
        }
    }

    /// ADD of the plugins from the one on, in order.
    pub(crate) fn add(&self, guest: &mut Guest, plugins: std::ops::Range<usize>) -> Result<(), Failure> {
        plugins.into_iter().try_for_each(|plugin| self.add_one(plugin, guest))
    }

    /// CHECK of one plugin.
    pub(crate) fn check_one(&self, plugin: usize, guest: &Guest) -> Result<(), Failure> {
        self.expect(plugin, Verb::Check, &self.execution(plugin, Verb::Check, guest))
    }

    /// CHECK of all plugins.
    pub(crate) fn check(&self, guest: &Guest) -> Result<(), Failure> {
        (0..self.plugins().len()).try_for_each(|plugin| self.check_one(plugin, guest))
    }

    /// DEL of one plugin. What it returned is forgotten.
    pub(crate) fn del_one(&self, plugin: usize, guest: &mut Guest) -> Result<(), Failure> {
        let outcome = self.expect(plugin, Verb::Del, &self.execution(plugin, Verb::Del, guest));
        guest.results.truncate(plugin);
        outcome
    }

    /// DEL of plugins, in reverse, each with the last result that is known.
    pub(crate) fn del(&self, guest: &mut Guest, plugins: std::ops::Range<usize>) -> Result<(), Failure> {
        let executions: Vec<_> =
            plugins.clone().rev().map(|plugin| (plugin, self.execution(plugin, Verb::Del, guest))).collect();
        guest.results.truncate(plugins.start);
        executions.iter().try_for_each(|(plugin, execution)| self.expect(*plugin, Verb::Del, execution))
    }

    /// GC of all plugins.
    pub(crate) fn gc(&self, valid: &[&Guest]) -> Result<(), Failure> {
        self.all().try_for_each(|plugin| self.gc_one(plugin, valid))
    }

    /// GC of one plugin.
    pub(crate) fn gc_one(&self, plugin: usize, valid: &[&Guest]) -> Result<(), Failure> {
        self.expect(plugin, Verb::Gc, &self.collection(plugin, valid))
    }

    fn expect(&self, plugin: usize, verb: Verb, execution: &Execution) -> Result<(), Failure> {
        let ended = execution.run();
        if ended.succeeded() { Ok(()) } else { Err(self.unexpected(plugin, verb, &ended)) }
    }

    fn unexpected(&self, plugin: usize, verb: Verb, ended: &Ended) -> Failure {
        let kind = self.plugins()[plugin]["type"].as_str().unwrap_or_default();
        Failure::new(format!("{kind} {verb}: {}", ended.describe()))
    }
}

impl Guest {
    /// The addresses of its last result.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let ips = self.results.last().and_then(|result| result["ips"].as_array());
        ips.into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str())
            .map(|address| address.split('/').next().unwrap_or(address).to_owned())
            .collect()
    }

    /// What its ADDs returned.
    pub(crate) fn results(&self) -> Vec<Value> {
        self.results.clone()
    }

    /// Gives back what [`Guest::results`] returned.
    pub(crate) fn remember(&mut self, results: Vec<Value>) {
        self.results = results;
    }

    /// The same container for a second caller: the namespace stays when this is dropped.
    pub(crate) fn name_only(&self) -> Self {
        Self {
            container: Space::Borrowed((*self.container).clone()),
            id: self.id.clone(),
            number: self.number,
            results: Vec::new(),
        }
    }

    /// Forgets what ADD returned, as a runtime does that lost its disk.
    pub(crate) fn forget(&mut self) {
        self.results.clear();
    }
}
