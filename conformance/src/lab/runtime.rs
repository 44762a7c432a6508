//! A double of what calls plugins: libcni's way of running a whole network configuration list, and the habits of the runtimes above it.
//!
//! Written from the specification and from what those programs were seen to do; none of their code is here. A [`Runtime`] keeps in memory
//! what libcni keeps in its cache: the result of each ADD, which CHECK and DEL get as `prevResult`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::{Map, Value, json};

use super::{Call, Container, Lab, RUNNING, Reply, cannot_start, exec, parse_version, world};
use crate::profile::Profile;
use crate::verdict::{Outcome, Stop};

/// What a runtime does in its own way.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Its name, for messages.
    pub name: &'static str,
    /// Keys of `runtimeConfig` are the names of Go fields (`HostPort`), and `ipRanges` is a flat list: go-cni's structures have no tags.
    pub go_names: bool,
    /// All networks of a container at the same time: go-cni, unless told otherwise.
    pub parallel: bool,
    /// CHECK right after each ADD, for lists that have it: CRI-O, when it asks for the address of a pod.
    pub check_after_add: bool,
    /// `CNI_ARGS`, in which `NAME` stands for the container.
    pub arguments: &'static str,
}

/// A plain libcni, as `cnitool` has it.
pub const LIBCNI: Habits =
    Habits { name: "libcni", go_names: false, parallel: false, check_after_add: false, arguments: "" };

/// The arguments of Kubernetes, as every runtime below kubelet passes them.
const KUBERNETES: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=NAME;K8S_POD_INFRA_CONTAINER_ID=NAME;K8S_POD_UID=";

/// containerd, with go-cni between it and libcni.
pub const CONTAINERD: Habits = Habits {
    name: "containerd",
    go_names: true,
    parallel: true,
    check_after_add: false,
    arguments: KUBERNETES,
};

/// CRI-O.
pub const CRIO: Habits =
    Habits { name: "CRI-O", go_names: false, parallel: false, check_after_add: true, arguments: KUBERNETES };

/// A network configuration list.
#[derive(Debug, Clone)]
pub struct List {
    /// The network.
    pub name: String,
    /// `cniVersion` of the list.
    pub version: String,
    /// The plugins' configurations, without `name`, `cniVersion` and what a runtime adds.
    pub plugins: Vec<Value>,
}

impl List {
    /// A list of these plugins, each with its profile's configuration. What a profile asks for by `runtimeConfig` is left out: that is the
    /// runtime's to give, to plugins that declare the capability; these declare all that their profile knows.
    pub fn of(name: &str, version: &str, profiles: &[&Profile]) -> Self {
        let plugins = profiles
            .iter()
            .map(|profile| {
                let mut config = profile.configuration(name, version);
                if let Some(object) = config.as_object_mut() {
                    for key in ["name", "cniVersion", "runtimeConfig"] {
                        object.remove(key);
                    }
                    let declared: Map<String, Value> =
                        profile.capabilities.keys().map(|key| (key.clone(), json!(true))).collect();
                    if !declared.is_empty() {
                        object.insert("capabilities".to_owned(), Value::Object(declared));
                    }
                }
                config
            })
            .collect();
        Self { name: name.to_owned(), version: version.to_owned(), plugins }
    }

    /// Whether the list's version has a verb, by the version that brought it.
    pub fn since(&self, version: &str) -> bool {
        parse_version(&self.version) >= parse_version(version)
    }
}

/// One container on one network.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The network.
    pub list: List,
    /// Container and interface.
    pub container: Container,
    /// What the runtime has to say, by capability, with the conventions' names.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// An attachment without anything special.
    pub fn new(list: &List, container: &Container) -> Self {
        Self { list: list.clone(), container: container.clone(), capabilities: Map::new() }
    }

    /// …for which the runtime has this to say.
    #[must_use]
    pub fn with(mut self, capability: &str, value: Value) -> Self {
        self.capabilities.insert(capability.to_owned(), value);
        self
    }

    /// The key of libcni's cache: network, container, interface.
    fn key(&self) -> [String; 3] {
        [self.list.name.clone(), self.container.id.clone(), self.container.ifname.clone()]
    }
}

/// How a chain ended.
#[derive(Debug)]
pub enum Chain {
    /// Every plugin succeeded. The final result, null for verbs without one.
    Done(Value),
    /// This plugin did not, and the chain ended there.
    Failed {
        /// Its `type`.
        plugin: String,
        /// What is wrong.
        why: String,
        /// The execution.
        reply: Box<Reply>,
    },
}

/// A runtime.
#[derive(Debug)]
pub struct Runtime {
    /// What is particular about it.
    pub habits: Habits,
    results: BTreeMap<[String; 3], Value>,
}

/// One execution of a chain, not yet in the journal.
type Executed = (String, Call, Reply);

impl Runtime {
    /// A runtime that has run nothing yet.
    pub fn new(habits: Habits) -> Self {
        Self { habits, results: BTreeMap::new() }
    }

    /// ADD: each plugin in order, with its predecessor's result. Stops at the first that fails, without any DEL: that is for the caller.
    pub fn add(&mut self, lab: &mut Lab, attachment: &Attachment) -> Outcome<Chain> {
        let (executed, outcome) = self.run_add(attachment)?;
        let chain = journal(lab, executed, outcome);
        self.remember(attachment, &chain);
        if self.habits.check_after_add
            && matches!(chain, Chain::Done(_))
            && attachment.list.since("0.4.0")
            && let failed @ Chain::Failed { .. } = self.check(lab, attachment)?
        {
            return Ok(failed);
        }
        Ok(chain)
    }

    /// ADD of several attachments, one after the other or side by side, as the runtime does it.
    pub fn attach(&mut self, lab: &mut Lab, attachments: &[Attachment]) -> Outcome<Vec<Chain>> {
        if !self.habits.parallel {
            return attachments.iter().map(|attachment| self.add(lab, attachment)).collect();
        }
        RUNNING.store(attachments.len().max(2), Ordering::SeqCst);
        let this = &*self;
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                attachments.iter().map(|attachment| scope.spawn(|| this.run_add(attachment))).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(Stop::Broken("a thread panicked".to_owned())))
                })
                .collect()
        });
        RUNNING.store(0, Ordering::SeqCst);
        lab.note(&format!("the next {} networks side by side:", attachments.len()));
        let mut chains = Vec::new();
        for (attachment, outcome) in attachments.iter().zip(outcomes) {
            let (executed, outcome) = outcome?;
            let chain = journal(lab, executed, outcome);
            self.remember(attachment, &chain);
            chains.push(chain);
        }
        Ok(chains)
    }

    /// CHECK: each plugin in order, all with the final result.
    pub fn check(&self, lab: &mut Lab, attachment: &Attachment) -> Outcome<Chain> {
        let result = self.result(attachment);
        self.each(lab, "CHECK", attachment.list.plugins.iter(), attachment, &result)
    }

    /// DEL: each plugin in reverse order, all with the final result if there is one. Stops at the first that fails, and keeps the result.
    pub fn del(&mut self, lab: &mut Lab, attachment: &Attachment) -> Outcome<Chain> {
        // libcni has nothing to give before 0.4.0.
        let result = if attachment.list.since("0.4.0") { self.result(attachment) } else { Value::Null };
        let chain = self.each(lab, "DEL", attachment.list.plugins.iter().rev(), attachment, &result)?;
        if matches!(chain, Chain::Done(_)) {
            self.results.remove(&attachment.key());
        }
        Ok(chain)
    }

    /// GC: first a DEL for each attachment it remembers that is not in `valid`, then, from 1.1.0 on, GC of each plugin in order, past errors.
    /// No attachment at all is `null`, as a Go program writes an empty list. The failures.
    pub fn gc(
        &mut self,
        lab: &mut Lab,
        list: &List,
        known: &[Attachment],
        valid: &[&Attachment],
    ) -> Outcome<Vec<Chain>> {
        let mut failures = Vec::new();
        for stale in known.iter().filter(|one| !valid.iter().any(|other| other.key() == one.key())) {
            if self.results.contains_key(&stale.key()) {
                failures.push(self.del(lab, stale)?);
            }
        }
        if list.since("1.1.0") {
            let entry = |one: &&Attachment| json!({ "containerID": one.container.id, "ifname": one.container.ifname });
            let entries = match valid {
                [] => Value::Null,
                some => some.iter().map(entry).collect(),
            };
            for plugin in &list.plugins {
                let call = nobody("GC", list, plugin).edit(|config| {
                    config["cni.dev/valid-attachments"] = entries.clone();
                    config["cni.dev/attachments"] = entries.clone();
                });
                let reply = lab.run(&call)?;
                failures.push(ended(plugin, reply));
            }
        }
        failures.retain(|chain| matches!(chain, Chain::Failed { .. }));
        Ok(failures)
    }

    /// STATUS of each plugin in order, up to the first that fails. Before 1.1.0 a network is ready.
    pub fn status(&self, lab: &mut Lab, list: &List) -> Outcome<Chain> {
        if list.since("1.1.0") {
            for plugin in &list.plugins {
                let call = nobody("STATUS", list, plugin);
                let reply = lab.run(&call)?;
                if let failed @ Chain::Failed { .. } = ended(plugin, reply) {
                    return Ok(failed);
                }
            }
        }
        Ok(Chain::Done(Value::Null))
    }

    /// The newest version that every plugin of the list says it supports, asked as libcni asks; `None` if there is none in common.
    pub fn common_version(&self, lab: &mut Lab, types: &[&str]) -> Outcome<Option<String>> {
        let mut common: Option<Vec<String>> = None;
        for kind in types {
            let call = Call::new(world::plugins().join(kind))
                .verb("VERSION")
                .env("CNI_CONTAINERID", "")
                .env("CNI_NETNS", "dummy")
                .env("CNI_IFNAME", "dummy")
                .env("CNI_PATH", "dummy")
                .env("CNI_ARGS", "")
                .config(&json!({ "cniVersion": "1.1.0" }));
            let reply = lab.run(&call)?;
            let supported: Vec<String> = reply
                .document()
                .ok()
                .and_then(|document| serde_json::from_value(document["supportedVersions"].clone()).ok())
                .unwrap_or_default();
            common = Some(match common {
                None => supported,
                Some(common) => common.into_iter().filter(|version| supported.contains(version)).collect(),
            });
        }
        Ok(common.unwrap_or_default().into_iter().max_by_key(|version| parse_version(version)))
    }

    fn result(&self, attachment: &Attachment) -> Value {
        self.results.get(&attachment.key()).cloned().unwrap_or(Value::Null)
    }

    fn remember(&mut self, attachment: &Attachment, chain: &Chain) {
        if let Chain::Done(result) = chain {
            self.results.insert(attachment.key(), result.clone());
        }
    }

    fn each<'a>(
        &self,
        lab: &mut Lab,
        verb: &str,
        plugins: impl Iterator<Item = &'a Value>,
        attachment: &Attachment,
        result: &Value,
    ) -> Outcome<Chain> {
        for plugin in plugins {
            let call = self.call(verb, attachment, plugin, result);
            let reply = lab.run(&call)?;
            if let failed @ Chain::Failed { .. } = ended(plugin, reply) {
                return Ok(failed);
            }
        }
        Ok(Chain::Done(Value::Null))
    }

    /// The executions of an ADD, for a journal: how each went, and what came out.
    fn run_add(&self, attachment: &Attachment) -> Outcome<(Vec<Executed>, Result<Value, String>)> {
        let mut executed = Vec::new();
        let mut result = Value::Null;
        for plugin in &attachment.list.plugins {
            let call = self.call("ADD", attachment, plugin, &result);
            let reply = exec::execute(&call).map_err(|error| cannot_start(&call, &error))?;
            let outcome = result_of(&reply, &attachment.list.version);
            executed.push((kind(plugin), call, reply));
            match outcome {
                Ok(next) => result = next,
                Err(why) => return Ok((executed, Err(why))),
            }
        }
        Ok((executed, Ok(result)))
    }

    /// An execution that is about an attachment. `capabilities` stay in the configuration, as libcni leaves them.
    fn call(&self, verb: &str, attachment: &Attachment, plugin: &Value, result: &Value) -> Call {
        let Attachment { list, container, .. } = attachment;
        let mut config = plugin.clone();
        config["name"] = json!(list.name);
        config["cniVersion"] = json!(list.version);
        let given = self.runtime_config(plugin, &attachment.capabilities);
        if !given.is_empty() {
            config["runtimeConfig"] = Value::Object(given);
        }
        if !result.is_null() {
            config["prevResult"] = result.clone();
        }
        execution(verb, plugin)
            .config(&config)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", &container.netns)
            .env("CNI_IFNAME", &container.ifname)
            .env("CNI_ARGS", self.habits.arguments.replace("NAME", &container.id))
    }

    /// What the runtime has to say to a plugin: only what the plugin declares.
    fn runtime_config(&self, plugin: &Value, capabilities: &Map<String, Value>) -> Map<String, Value> {
        let mut given = Map::new();
        for (key, value) in capabilities {
            if plugin["capabilities"][key] == true {
                let value = if self.habits.go_names { go_names(key, value) } else { value.clone() };
                given.insert(key.clone(), value);
            }
        }
        given
    }
}

/// An execution with the environment of a daemon, and all six variables.
fn execution(verb: &str, plugin: &Value) -> Call {
    let stub = world::stubs().join(kind(plugin));
    Call::new(if stub.exists() { stub } else { world::plugins().join(kind(plugin)) })
        .verb(verb)
        .env("CNI_PATH", Lab::cni_path())
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
}

/// An execution that is about no attachment: libcni sets the variables all the same, to nothing.
fn nobody(verb: &str, list: &List, plugin: &Value) -> Call {
    let mut config = plugin.clone();
    config["name"] = json!(list.name);
    config["cniVersion"] = json!(list.version);
    let call = execution(verb, plugin).config(&config);
    ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
        .into_iter()
        .fold(call, |call, name| call.env(name, ""))
}

fn kind(plugin: &Value) -> String {
    plugin["type"].as_str().unwrap_or_default().to_owned()
}

/// How a verb without a result ended: what it printed does not matter.
fn ended(plugin: &Value, reply: Reply) -> Chain {
    if reply.ok() {
        Chain::Done(Value::Null)
    } else {
        Chain::Failed { plugin: kind(plugin), why: reply.summary(), reply: Box::new(reply) }
    }
}

/// What libcni makes of an ADD: one document in a version that it knows; one without a version is in the list's.
fn result_of(reply: &Reply, version: &str) -> Result<Value, String> {
    const KNOWN: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    if !reply.ok() {
        return Err(reply.summary());
    }
    let mut result = reply.document()?;
    match result["cniVersion"].as_str() {
        None | Some("") => result["cniVersion"] = json!(version),
        Some(known) if KNOWN.contains(&known) => {}
        Some(other) => return Err(format!("the result is in version {other:?}, which nobody knows")),
    }
    Ok(result)
}

/// Writes what was executed into the journal, and says how the chain ended.
fn journal(lab: &mut Lab, executed: Vec<Executed>, outcome: Result<Value, String>) -> Chain {
    let mut last = None;
    for (plugin, call, mut reply) in executed {
        reply.step = lab.record(&call, &reply);
        last = Some((plugin, reply));
    }
    match (outcome, last) {
        (Err(why), Some((plugin, reply))) => Chain::Failed { plugin, why, reply: Box::new(reply) },
        (Ok(result), _) => Chain::Done(result),
        (Err(_), None) => Chain::Done(Value::Null),
    }
}

/// A capability's value as go-cni writes it: the names of Go fields, and ranges in one flat list.
fn go_names(capability: &str, value: &Value) -> Value {
    let flat = match value {
        Value::Array(sets) if capability == "ipRanges" => {
            sets.iter().flat_map(|set| set.as_array().cloned().unwrap_or_default()).collect()
        }
        other => other.clone(),
    };
    match flat {
        Value::Array(list) => list.iter().map(renamed).collect(),
        other => renamed(&other),
    }
}

fn renamed(value: &Value) -> Value {
    let Some(object) = value.as_object() else { return value.clone() };
    let name = |key: &str| match key {
        "hostIP" => "HostIP".to_owned(),
        key => {
            let mut letters = key.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    };
    object.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_go_writes_them() {
        let ports = json!([{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "" }]);
        let expected = json!([{ "HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": "" }]);
        assert_eq!(go_names("portMappings", &ports), expected);
        let ranges = json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "fd00::/64" }]]);
        assert_eq!(
            go_names("ipRanges", &ranges),
            json!([{ "Subnet": "10.0.0.0/24" }, { "Subnet": "fd00::/64" }])
        );
        assert_eq!(go_names("mac", &json!("02:00:00:00:00:01")), json!("02:00:00:00:00:01"));
    }

    #[test]
    fn only_what_a_plugin_declares_is_given() {
        let plugin = json!({ "type": "x", "capabilities": { "mac": true, "ips": false } });
        let said = json!({ "mac": "02:00:00:00:00:01", "ips": ["10.0.0.9/24"], "portMappings": [] });
        let given = Runtime::new(LIBCNI).runtime_config(&plugin, said.as_object().unwrap());
        assert_eq!(Value::Object(given), json!({ "mac": "02:00:00:00:00:01" }));
    }
}
