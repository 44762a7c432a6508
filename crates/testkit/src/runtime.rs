//! A container runtime's double: a plugin chain executed the way libcni v1.3 does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::netns::Netns;
use crate::plugin::{Output, Plugin, plugin_dir};

/// The PATH a runtime started by a service manager has, for plugins that run `iptables-restore`.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where plugins are looked for, and how they are executed.
#[derive(Debug, Clone)]
pub struct Runtime {
    directories: Vec<PathBuf>,
    environment: BTreeMap<OsString, OsString>,
    deadline: Duration,
    host: Netns,
}

impl Runtime {
    /// A runtime that finds plugins in [`plugin_dir`].
    #[expect(clippy::new_without_default, reason = "the plugin directory depends on where the test runs")]
    pub fn new() -> Self {
        Self::with_directories([plugin_dir()])
    }

    /// A runtime with this `CNI_PATH`.
    pub fn with_directories(directories: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            directories: directories.into_iter().map(Into::into).collect(),
            environment: BTreeMap::from([("PATH".into(), SERVICE_PATH.into())]),
            deadline: Duration::from_secs(20),
            host: Netns::host(),
        }
    }

    /// A runtime of another host: its plugins run in that namespace.
    #[must_use]
    pub fn on(mut self, host: &Netns) -> Self {
        self.host = host.clone();
        self
    }

    /// Adds a variable to every execution's environment (which holds `PATH` and the six `CNI_` ones otherwise).
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    /// Kills a plugin that takes longer than this (20 s unless set).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A network configuration list to run.
    ///
    /// # Panics
    /// If it lacks a name, a version or plugins.
    pub fn chain(&self, list: &Value) -> Chain {
        let plugins = list["plugins"].as_array().expect("a configuration list has `plugins`").clone();
        assert!(!plugins.is_empty(), "a configuration list has at least one plugin");
        Chain {
            runtime: self.clone(),
            name: list["name"].as_str().expect("a configuration list has a `name`").to_owned(),
            version: list["cniVersion"].as_str().expect("a configuration list has a `cniVersion`").to_owned(),
            plugins: plugins
                .into_iter()
                .map(|p| p.as_object().expect("a plugin is an object").clone())
                .collect(),
            attached: Mutex::default(),
        }
    }

    fn find(&self, kind: &str) -> Plugin {
        let found = self.directories.iter().map(|directory| directory.join(kind)).find(|path| path.is_file());
        let Some(path) = found else {
            panic!(
                "no plugin {kind} in {:?}: `make test` builds ours first (or set FERRULE_BIN)",
                self.directories
            )
        };
        Plugin::at(path)
    }
}

/// One container's connection to a network, as a runtime asks for it.
#[derive(Debug, Clone)]
pub struct Attachment {
    container_id: String,
    netns: OsString,
    ifname: String,
    arguments: String,
    capabilities: Map<String, Value>,
}

impl Attachment {
    /// The interface `ifname` in the container `container_id`, whose namespace is `netns`.
    pub fn new(container_id: &str, netns: &Netns, ifname: &str) -> Self {
        Self {
            container_id: container_id.into(),
            netns: netns.path().into(),
            ifname: ifname.into(),
            arguments: String::new(),
            capabilities: Map::new(),
        }
    }

    /// Another namespace path, or `""` as runtimes send when the container is gone.
    #[must_use]
    pub fn netns(mut self, path: &str) -> Self {
        self.netns = path.into();
        self
    }

    /// `CNI_ARGS`.
    #[must_use]
    pub fn args(mut self, arguments: &str) -> Self {
        self.arguments = arguments.into();
        self
    }

    /// A capability's argument; it reaches the plugins that declare the capability, as `runtimeConfig`.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.into(), value);
        self
    }

    fn key(&self) -> (String, String) {
        (self.container_id.clone(), self.ifname.clone())
    }
}

/// A plugin of a chain that ended with an error.
#[derive(Clone)]
pub struct PluginFailure {
    /// The plugin's type.
    pub plugin: String,
    /// The verb it was executed for.
    pub verb: &'static str,
    /// What it left.
    pub output: Box<Output>,
}

impl PluginFailure {
    /// The CNI error code.
    pub fn code(&self) -> u64 {
        self.output.error()["code"].as_u64().unwrap_or(0)
    }

    /// The error's message and details in one string.
    pub fn text(&self) -> String {
        let error = self.output.error();
        let part = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", part("msg"), part("details"))
    }
}

impl fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed at {}\n{}", self.plugin, self.verb, self.output.describe())
    }
}

/// What `unwrap` of a failure prints: for a person, like `Display`.
impl fmt::Debug for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PluginFailure {}

type Attached = BTreeMap<(String, String), (Attachment, Value)>;

/// A network configuration list, and the attachments made with it (what libcni keeps under `/var/lib/cni/results`).
#[derive(Debug)]
pub struct Chain {
    runtime: Runtime,
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    attached: Mutex<Attached>,
}

impl Chain {
    /// ADD: each plugin in order, with its predecessor's result. Returns the last result, and remembers it.
    ///
    /// # Errors
    /// The first plugin's failure; as in libcni, nothing is undone: a runtime follows with [`Chain::del`].
    ///
    /// # Panics
    /// If a result's `cniVersion` is not the configuration's.
    pub fn add(&self, attachment: &Attachment) -> Result<Value, PluginFailure> {
        let mut result = None;
        for plugin in &self.plugins {
            let config = self.config(plugin, Some(attachment), result.as_ref());
            let output = self.run(plugin, "ADD", Some(attachment), &config)?;
            let document = output.success();
            assert_eq!(
                document["cniVersion"],
                *self.version,
                "the version of a result\n{}",
                output.describe()
            );
            result = Some(document);
        }
        let result = result.expect("a chain has a plugin");
        self.attached().insert(attachment.key(), (attachment.clone(), result.clone()));
        Ok(result)
    }

    /// CHECK: each plugin in order, with the final result of ADD.
    ///
    /// # Errors
    /// The first plugin's failure.
    ///
    /// # Panics
    /// For a version before 0.4.0, which has no CHECK.
    pub fn check(&self, attachment: &Attachment) -> Result<(), PluginFailure> {
        assert!(self.at_least((0, 4)), "version {} has no CHECK", self.version);
        let previous = self.result(attachment);
        for plugin in &self.plugins {
            let config = self.config(plugin, Some(attachment), previous.as_ref());
            silent(&self.run(plugin, "CHECK", Some(attachment), &config)?);
        }
        Ok(())
    }

    /// DEL: each plugin in reverse order, with the final result of ADD where one is known and the version has it.
    ///
    /// # Errors
    /// The first plugin's failure, which ends the deletion, as in libcni.
    pub fn del(&self, attachment: &Attachment) -> Result<(), PluginFailure> {
        let previous = self.result(attachment).filter(|_| self.at_least((0, 4)));
        for plugin in self.plugins.iter().rev() {
            let config = self.config(plugin, Some(attachment), previous.as_ref());
            silent(&self.run(plugin, "DEL", Some(attachment), &config)?);
        }
        self.attached().remove(&attachment.key());
        Ok(())
    }

    /// GC: first DEL for every remembered attachment that is not in `valid` (container ID, interface name); then, from
    /// version 1.1.0 on, GC of each plugin with both of the keys in use. To see GC alone at work, [`Chain::forget`]
    /// the attachments first.
    ///
    /// # Errors
    /// All failures; none keeps the rest from running.
    pub fn gc(&self, valid: &[(&str, &str)]) -> Result<(), Vec<PluginFailure>> {
        let known: Vec<Attachment> =
            self.attached().values().map(|(attachment, _)| attachment.clone()).collect();
        let is_valid = |a: &Attachment| valid.contains(&(a.container_id.as_str(), a.ifname.as_str()));
        let mut failures: Vec<_> =
            known.iter().filter(|a| !is_valid(a)).filter_map(|a| self.del(a).err()).collect();
        let list: Value =
            valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        for plugin in self.plugins.iter().filter(|_| self.at_least((1, 1))) {
            let mut config = self.config(plugin, None, None);
            config["cni.dev/valid-attachments"] = list.clone();
            config["cni.dev/attachments"] = list.clone();
            match self.run(plugin, "GC", None, &config) {
                Ok(output) => silent(&output),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// STATUS of each plugin in order; ready without asking before version 1.1.0, as libcni has it.
    ///
    /// # Errors
    /// The first plugin's failure.
    pub fn status(&self) -> Result<(), PluginFailure> {
        for plugin in self.plugins.iter().filter(|_| self.at_least((1, 1))) {
            silent(&self.run(plugin, "STATUS", None, &self.config(plugin, None, None))?);
        }
        Ok(())
    }

    /// The remembered result of an attachment.
    pub fn result(&self, attachment: &Attachment) -> Option<Value> {
        self.attached().get(&attachment.key()).map(|(_, result)| result.clone())
    }

    /// Loses what is remembered, as a runtime does whose disk was wiped: DEL then has no prevResult, GC no DELs to do.
    pub fn forget(&self) {
        self.attached().clear();
    }

    /// The configuration plugin number `index` gets on standard input, for tests that execute it by themselves.
    pub fn stdin(&self, index: usize, attachment: &Attachment, previous: Option<&Value>) -> Value {
        self.config(&self.plugins[index], Some(attachment), previous)
    }

    fn config(
        &self,
        plugin: &Map<String, Value>,
        attachment: Option<&Attachment>,
        previous: Option<&Value>,
    ) -> Value {
        let mut config = plugin.clone();
        config.insert("name".into(), self.name.as_str().into());
        config.insert("cniVersion".into(), self.version.as_str().into());
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        // libcni leaves `capabilities` in the configuration, against the letter of the specification.
        let declared = |name: &str| plugin.get("capabilities").is_some_and(|c| c[name] == true);
        let runtime_config: Map<String, Value> = attachment
            .iter()
            .flat_map(|a| &a.capabilities)
            .filter(|(name, _)| declared(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !runtime_config.is_empty() {
            config.insert("runtimeConfig".into(), runtime_config.into());
        }
        Value::Object(config)
    }

    fn run(
        &self,
        plugin: &Map<String, Value>,
        verb: &'static str,
        attachment: Option<&Attachment>,
        config: &Value,
    ) -> Result<Output, PluginFailure> {
        let kind = plugin["type"].as_str().expect("a plugin has a type");
        let mut invocation = self
            .runtime
            .find(kind)
            .verb(verb)
            .attachment("", "", "")
            .env("CNI_ARGS", "")
            .path(&self.runtime.directories)
            .from_netns(&self.runtime.host)
            .config(config)
            .deadline(self.runtime.deadline);
        if let Some(a) = attachment {
            invocation =
                invocation.attachment(&a.container_id, &a.netns, &a.ifname).env("CNI_ARGS", &a.arguments);
        }
        for (key, value) in &self.runtime.environment {
            invocation = invocation.env(key, value);
        }
        let output = invocation.run();
        // Strict on purpose for success and failure alike: a second document or a stray word is an error here.
        output.document();
        if output.succeeded() {
            Ok(output)
        } else {
            Err(PluginFailure { plugin: kind.to_owned(), verb, output: Box::new(output) })
        }
    }

    fn attached(&self) -> MutexGuard<'_, Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_least(&self, wanted: (u32, u32)) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse().expect("a version like 1.1.0"));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= wanted
    }
}

fn silent(output: &Output) {
    assert!(output.document().is_none(), "a verb without a result printed one\n{}", output.describe());
}

/// The directory of another suite's plugins to compare with: `FERRULE_REFERENCE_BIN`, or Debian's
/// `containernetworking-plugins`, if it has all of `kinds`.
pub fn reference_dir(kinds: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os("FERRULE_REFERENCE_BIN").map(PathBuf::from);
    let directory = named.unwrap_or_else(|| PathBuf::from("/usr/lib/cni"));
    kinds.iter().all(|kind| directory.join(kind).is_file()).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let chain = |version: &str| {
            Runtime::with_directories(["/nowhere"])
                .chain(&json!({"cniVersion": version, "name": "n", "plugins": [{"type": "x"}]}))
        };
        assert!(chain("0.4.0").at_least((0, 4)));
        assert!(!chain("0.3.1").at_least((0, 4)));
        assert!(chain("1.1.0").at_least((1, 1)));
        assert!(!chain("1.0.0").at_least((1, 1)));
    }
}
