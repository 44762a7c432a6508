//! What a plugin is asked: the network configuration from standard input and what of the environment goes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::args::Args;
use crate::delegate::{Contained, Delegate};
use crate::environment::{Attachment, Environment};
use crate::failure::{Code, Failure};
use crate::json::{self, JsonError, shorten};
use crate::name::{ContainerId, LinkName, NetworkName};
use crate::netns::OpenNetns;
use crate::plugin::Plugin;
use crate::result::{AddResult, ResultError};
use crate::version::SpecVersion;

/// A network configuration with the keys every plugin has, and the rest as it came.
#[derive(Debug, Clone)]
pub struct Config {
    bytes: Vec<u8>,
    object: Map<String, Value>,
    version: SpecVersion,
    name: NetworkName,
    kind: String,
    /// `prevResult`, where it has been read to see whether it can be; for the first who asks.
    previous: Arc<Mutex<Option<AddResult>>>,
}

impl Config {
    /// Reads a configuration. Errors: 6 for what is not a JSON object (or a `cniVersion` that is not a version),
    /// 1 for a version not in `supported`, 7 for a missing or illegal `name`.
    pub fn read(bytes: Vec<u8>, supported: &[SpecVersion]) -> Result<Self, Failure> {
        let object = object(&bytes)?;
        Self::from_object(bytes, object, supported)
    }

    /// [`Config::read`] where the bytes have been parsed already.
    pub(crate) fn from_object(
        bytes: Vec<u8>,
        object: Map<String, Value>,
        supported: &[SpecVersion],
    ) -> Result<Self, Failure> {
        let version = version(&object, supported)?;
        let text = text(&object, "name")?.unwrap_or_default();
        if text.is_empty() {
            return Err(Failure::new(Code::InvalidConfig, "missing network name")
                .hint("set `name` in the network configuration"));
        }
        let name = NetworkName::new(text).map_err(|error| {
            let message = format!("name: invalid network name {:?}: {error}", shorten(text));
            Failure::new(Code::InvalidConfig, message)
                .hint("a network name is letters, digits, `_`, `.`, `-`, and starts with a letter or digit")
        })?;
        let kind = text_or_empty(&object, "type")?;
        Ok(Self { bytes, object, version, name, kind, previous: Arc::default() })
    }

    /// Error 1 unless a plugin that supports these versions can be asked with this configuration.
    pub(crate) fn require_version(&self, supported: &[SpecVersion]) -> Result<(), Failure> {
        version(&self.object, supported).map(drop)
    }

    /// The version of the request; results are written in it.
    pub fn version(&self) -> SpecVersion {
        self.version
    }

    /// The network's name.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The plugin's own `type`; empty if the configuration does not say.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole configuration.
    pub fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// The configuration exactly as it came on standard input.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes the whole configuration into a plugin's type; see [`crate::json`] for the rules. Error 7 with path and value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        json::decode_object(&self.object).map_err(|error| invalid(&error))
    }

    /// The `ipam.type`, if there is one. Error 7 if `ipam` is not an object or `type` not a string.
    pub fn ipam_type(&self) -> Result<Option<String>, Failure> {
        #[derive(serde::Deserialize, Default)]
        #[serde(default)]
        struct Ipam {
            r#type: String,
        }
        let Some(value) = json::get(&self.object, "ipam") else { return Ok(None) };
        let ipam: Ipam = json::decode(value).map_err(|error| invalid(&error.under("ipam")))?;
        Ok(Some(ipam.r#type).filter(|kind| !kind.is_empty()))
    }

    /// [`Config::prev_result`] where there has to be one: a chained plugin's ADD, and every CHECK that compares. Error 7 without.
    pub fn required_prev_result(&self) -> Result<AddResult, Failure> {
        self.prev_result()?.ok_or_else(|| {
            Failure::new(Code::InvalidConfig, "Required prevResult missing")
                .hint("this plugin works on the result of the plugins before it; list it after the one that makes the interface")
        })
    }

    /// The result of the plugins before this one (ADD) or of the whole list (DEL, CHECK). `null`, `{}` and absent are none.
    pub fn prev_result(&self) -> Result<Option<AddResult>, Failure> {
        match self.previous.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(previous) => Ok(Some(previous)),
            None => self.read_prev_result(),
        }
    }

    /// The error of [`Config::prev_result`], if it is one.
    pub(crate) fn check_prev_result(&self) -> Result<(), Failure> {
        let previous = self.read_prev_result()?;
        *self.previous.lock().unwrap_or_else(PoisonError::into_inner) = previous;
        Ok(())
    }

    fn read_prev_result(&self) -> Result<Option<AddResult>, Failure> {
        let Some(value) = json::get(&self.object, "prevResult") else { return Ok(None) };
        if value.as_object().is_some_and(Map::is_empty) {
            return Ok(None);
        }
        AddResult::read(value, self.version).map(Some).map_err(|error| match error {
            ResultError::Shape { version, source } => {
                invalid(&source.under("prevResult")).detail(format!("read as a result of CNI {version}"))
            }
            other => Failure::new(Code::InvalidConfig, format!("prevResult: {other}")),
        })
    }
}

/// A configuration that does not decode into a plugin's type.
pub fn invalid(error: &JsonError) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {error}"))
}

/// The configuration as an object; error 6.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    match json::parse(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        // Go decodes `null` into an empty configuration.
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Failure::new(Code::Decode, "the network configuration is not a JSON object")),
        Err(_) if bytes.iter().all(u8::is_ascii_whitespace) => {
            Err(Failure::new(Code::Decode, "the network configuration on standard input is empty"))
        }
        Err(error) => Err(Failure::new(Code::Decode, "the network configuration is not valid JSON")
            .detail(error.to_string())),
    }
}

/// A key that every configuration shares and that is text; error 6, as the Go library answers when these do not decode.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Failure> {
    match json::get(object, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let message = format!("{key}: expected a string (value: {})", json::brief(other));
            Err(Failure::new(Code::Decode, message))
        }
    }
}

fn text_or_empty(object: &Map<String, Value>, key: &str) -> Result<String, Failure> {
    text(object, key).map(|text| text.unwrap_or_default().to_owned())
}

fn version(object: &Map<String, Value>, supported: &[SpecVersion]) -> Result<SpecVersion, Failure> {
    let text = text(object, "cniVersion")?.filter(|text| !text.is_empty());
    let text = text.unwrap_or(SpecVersion::ASSUMED.as_str());
    let well_formed =
        text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
            && text.split('.').count() <= 3;
    if !well_formed {
        let message = format!("cniVersion: {:?} is not a version", shorten(text));
        return Err(Failure::new(Code::Decode, message).hint("write it as \"1.1.0\""));
    }
    SpecVersion::parse(text).filter(|version| supported.contains(version)).ok_or_else(|| {
        let supported: Vec<&str> = supported.iter().map(|version| version.as_str()).collect();
        Failure::new(Code::IncompatibleVersion, "incompatible CNI versions")
            .detail(format!("config is {:?}, plugin supports {supported:?}", shorten(text)))
            .hint("set `cniVersion` to a supported version")
    })
}

/// The version a configuration asks for, whether it is otherwise valid or not: failures are written in it. `None` if nobody knows it.
pub(crate) fn requested_version(object: &Map<String, Value>) -> Option<SpecVersion> {
    match json::get(object, "cniVersion") {
        None => Some(SpecVersion::ASSUMED),
        Some(value) => value.as_str().and_then(SpecVersion::parse),
    }
}

/// A call: configuration, environment, and where plugins are found.
#[derive(Debug, Clone)]
pub struct Request {
    config: Arc<Config>,
    environment: Environment,
    notes: Notes,
    /// When the first of its delegates was executed: they share the time that a call may take.
    started: Arc<OnceLock<Instant>>,
    /// The plugins that need not be executed.
    contained: Contained,
    /// The namespace, once it has been checked.
    opened: Arc<OnceLock<OpenNetns>>,
    /// The first plugin that was looked for in `CNI_PATH` and found, by type: most calls have no other, and ask for it more than once.
    found: Arc<OnceLock<(String, PathBuf)>>,
}

/// Lines for standard error, shared by all clones of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Request {
    /// A request; the environment is that of the call.
    pub fn new(config: Config, environment: Environment) -> Self {
        Self::with_notes(config, environment, Notes::default())
    }

    /// A request whose notes are collected by the caller.
    pub(crate) fn with_notes(config: Config, environment: Environment, notes: Notes) -> Self {
        Self {
            config: Arc::new(config),
            environment,
            notes,
            started: Arc::default(),
            contained: Contained::default(),
            opened: Arc::default(),
            found: Arc::default(),
        }
    }

    /// The same request in a program that has more plugins in it.
    pub(crate) fn with_plugins_of(self, plugin: &dyn Plugin) -> Self {
        Self { contained: Contained::of(plugin), ..self }
    }

    pub(crate) fn contained(&self) -> Contained {
        self.contained
    }

    /// Says something to the person who reads the runtime's log: one line on standard error once the call is answered. For what is
    /// worth knowing but no failure.
    pub fn note(&self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    pub(crate) fn started(&self) -> Instant {
        *self.started.get_or_init(Instant::now)
    }

    /// The notes so far; they are not given twice.
    pub(crate) fn taken_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// The namespace of this call that is at a path, open, where it has been checked. Use it rather than the path: it is what was checked.
    pub fn open_netns(&self, path: &Path) -> Option<&OpenNetns> {
        self.opened.get().filter(|opened| opened.path == path)
    }

    /// Keeps the namespace open as long as the call takes.
    pub(crate) fn keep_open(&self, netns: OpenNetns) {
        // One is kept already where a call is checked again; it is as good.
        let _ = self.opened.set(netns);
    }

    /// The same call for delegates that must not see the namespace.
    pub(crate) fn without_netns(&self) -> Self {
        let environment = self.environment.with([("CNI_NETNS", "")]);
        Self { environment, ..self.clone() }
    }

    /// The same call as if it were a DEL of this attachment, without a namespace: what GC runs delegates with.
    #[must_use]
    pub fn for_attachment(&self, attachment: &Attachment) -> Self {
        let same =
            self.environment.get("CNI_CONTAINERID").is_some_and(|id| id == attachment.container_id.as_str())
                && self.environment.get("CNI_IFNAME").is_some_and(|name| name == attachment.ifname.as_str());
        if same {
            return self.clone();
        }
        let environment = self.environment.with([
            ("CNI_CONTAINERID", attachment.container_id.as_str()),
            ("CNI_IFNAME", attachment.ifname.as_str()),
            ("CNI_NETNS", ""),
        ]);
        Self { environment, ..self.clone() }
    }

    /// The same call with another value for a key of its configuration: what a plugin gives to its delegates where the operator has left
    /// it to the plugin.
    #[must_use]
    pub fn with_key(&self, key: &str, value: Value) -> Self {
        let mut config = Config::clone(&self.config);
        config.previous = Arc::default();
        // Keys that differ in case only are the same to delegates, and the last of them counts.
        config.object.retain(|name, _| !name.eq_ignore_ascii_case(key));
        config.object.insert(key.to_owned(), value);
        config.bytes = serde_json::to_vec(&config.object).unwrap_or_default();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The network configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The environment of the call.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// `CNI_ARGS`, parsed. Error 4.
    pub fn args(&self) -> Result<Args, Failure> {
        Args::parse(self.environment.text("CNI_ARGS")?.unwrap_or_default())
    }

    /// The directories of `CNI_PATH`, in order. An empty one, which would be the working directory, is left out.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let Some(path) = self.environment.get("CNI_PATH") else { return Vec::new() };
        std::env::split_paths(path).filter(|directory| !directory.as_os_str().is_empty()).collect()
    }

    /// The program of a type that has been found before.
    pub(crate) fn found(&self, kind: &str) -> Option<&Path> {
        self.found.get().filter(|(known, _)| known == kind).map(|(_, program)| program.as_path())
    }

    /// Keeps what has been found.
    pub(crate) fn keep_found(&self, kind: &str, program: PathBuf) -> PathBuf {
        // A second one is looked for each time.
        let _ = self.found.set((kind.to_owned(), program.clone()));
        program
    }

    /// The plugin of a type, found in `CNI_PATH`, ready to be run with this call's configuration and environment.
    /// Errors: 7 for a type that is not a plain file name, 4 where `CNI_PATH` is not set, 105 where no directory has it.
    pub fn delegate(&self, kind: &str) -> Result<Delegate<'_>, Failure> {
        Delegate::find(self, kind)
    }
}

/// What ADD and CHECK are about: an attachment and the network namespace it lives in.
#[derive(Debug, Clone)]
pub struct Target {
    /// The attachment.
    pub attachment: Attachment,
    /// Path of the network namespace, as the runtime gave it.
    pub netns: PathBuf,
}

impl Target {
    /// The container's id.
    pub fn container_id(&self) -> &ContainerId {
        &self.attachment.container_id
    }

    /// The interface's name.
    pub fn ifname(&self) -> &LinkName {
        &self.attachment.ifname
    }

    /// The namespace path.
    pub fn netns(&self) -> &Path {
        &self.netns
    }
}

/// The attachments a GC must leave alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidAttachments(BTreeMap<String, BTreeSet<String>>);

impl ValidAttachments {
    /// Reads `cni.dev/valid-attachments`, else `cni.dev/attachments` (the key of tag spec-v1.1.0). `None` where neither is there:
    /// then nothing may be concluded. `null` is an empty list: libcni writes a nil slice so.
    /// Error 7 for anything else than a list of objects with both `containerID` and `ifname`: half an entry protects nothing.
    pub fn read(config: &Config) -> Result<Option<Self>, Failure> {
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(rename = "containerID")]
            container_id: String,
            ifname: String,
        }
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let object = config.object().iter().rev();
            // Not `json::get`: here `null` means something.
            let Some((_, value)) = object.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) else {
                continue;
            };
            let entries: Option<Vec<Entry>> =
                json::decode(value).map_err(|error| invalid(&error.under(key)))?;
            let mut valid = Self::default();
            for (index, entry) in entries.unwrap_or_default().into_iter().enumerate() {
                if entry.container_id.is_empty() || entry.ifname.is_empty() {
                    let message =
                        format!("invalid configuration: {key}[{index}]: containerID or ifname is empty");
                    return Err(Failure::new(Code::InvalidConfig, message));
                }
                valid.0.entry(entry.container_id).or_default().insert(entry.ifname);
            }
            return Ok(Some(valid));
        }
        Ok(None)
    }

    /// A list, for callers that are not fed from a configuration.
    pub fn from_attachments(attachments: impl IntoIterator<Item = Attachment>) -> Self {
        let mut valid = Self::default();
        for Attachment { container_id, ifname } in attachments {
            valid.0.entry(container_id.to_string()).or_default().insert(ifname.to_string());
        }
        valid
    }

    /// Every attachment in use: container id and interface name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .flat_map(|(container, names)| names.iter().map(move |name| (container.as_str(), name.as_str())))
    }

    /// Whether the attachment is in use.
    pub fn contains(&self, container_id: &str, ifname: &str) -> bool {
        self.0.get(container_id).is_some_and(|names| names.contains(ifname))
    }

    /// Whether any interface of the container is in use: for state whose format does not tell the interface.
    pub fn contains_container(&self, container_id: &str) -> bool {
        self.0.contains_key(container_id)
    }
}

#[cfg(test)]
mod tests;
