//! What a plugin is asked: the network configuration from standard input and what of the environment goes with it.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::args::Args;
use crate::delegate::Delegate;
use crate::environment::{Attachment, Environment};
use crate::failure::{Code, Failure};
use crate::json::{self, JsonError};
use crate::name::{ContainerId, LinkName, NetworkName};
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
}

impl Config {
    /// Reads a configuration. Errors: 6 for what is not a JSON object (or a `cniVersion` that is not a version),
    /// 1 for a version not in `supported`, 7 for a missing or illegal `name`.
    pub fn read(bytes: Vec<u8>, supported: &[SpecVersion]) -> Result<Self, Failure> {
        let object = object(&bytes)?;
        let version = version(&object, supported)?;
        let name = match json::get(&object, "name") {
            None => {
                return Err(Failure::new(Code::InvalidConfig, "missing network name")
                    .hint("set `name` in the network configuration"));
            }
            Some(Value::String(text)) if text.is_empty() => {
                return Err(Failure::new(Code::InvalidConfig, "missing network name")
                    .hint("set `name` in the network configuration"));
            }
            Some(Value::String(text)) => NetworkName::new(text.as_str()).map_err(|error| {
                Failure::new(Code::InvalidConfig, format!("name: invalid network name {text:?}: {error}"))
                    .hint(
                        "a network name is letters, digits, `_`, `.`, `-`, and starts with a letter or digit",
                    )
            })?,
            Some(other) => {
                return Err(Failure::new(Code::Decode, format!("name: expected a string (value: {other})")));
            }
        };
        let kind = match json::get(&object, "type") {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        Ok(Self { bytes, object, version, name, kind })
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
        json::decode(&Value::Object(self.object.clone())).map_err(|error| invalid(&error))
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

    /// The result of the plugins before this one (ADD) or of the whole list (DEL, CHECK). `null`, `{}` and absent are none.
    pub fn prev_result(&self) -> Result<Option<AddResult>, Failure> {
        let Some(value) = json::get(&self.object, "prevResult") else { return Ok(None) };
        if value.as_object().is_some_and(Map::is_empty) {
            return Ok(None);
        }
        AddResult::read(value, self.version).map(Some).map_err(|error| match error {
            ResultError::Shape { source, .. } => invalid(&source.under("prevResult")),
            other => Failure::new(Code::InvalidConfig, format!("prevResult: {other}")),
        })
    }
}

/// A configuration that does not decode into a plugin's type.
pub fn invalid(error: &JsonError) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {error}"))
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        // Go decodes `null` into an empty configuration.
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Failure::new(Code::Decode, "the network configuration is not a JSON object")),
        Err(error) if bytes.iter().all(u8::is_ascii_whitespace) => {
            Err(Failure::new(Code::Decode, "the network configuration on standard input is empty")
                .detail(error.to_string()))
        }
        Err(error) => Err(Failure::new(Code::Decode, "the network configuration is not valid JSON")
            .detail(error.to_string())),
    }
}

fn version(object: &Map<String, Value>, supported: &[SpecVersion]) -> Result<SpecVersion, Failure> {
    let text = match json::get(object, "cniVersion") {
        None => SpecVersion::ASSUMED.as_str(),
        Some(Value::String(text)) if text.is_empty() => SpecVersion::ASSUMED.as_str(),
        Some(Value::String(text)) => text.as_str(),
        Some(other) => {
            return Err(Failure::new(
                Code::Decode,
                format!("cniVersion: expected a string such as \"1.1.0\" (value: {other})"),
            ));
        }
    };
    let well_formed =
        text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
            && text.split('.').count() <= 3;
    if !well_formed {
        return Err(Failure::new(Code::Decode, format!("cniVersion: {text:?} is not a version")));
    }
    SpecVersion::parse(text).filter(|version| supported.contains(version)).ok_or_else(|| {
        let supported: Vec<&str> = supported.iter().map(|version| version.as_str()).collect();
        Failure::new(Code::IncompatibleVersion, "incompatible CNI versions")
            .detail(format!("config is {text:?}, plugin supports {supported:?}"))
            .hint("set `cniVersion` to a supported version")
    })
}

/// The version a failure document is written in when the configuration could not be read whole.
pub(crate) fn version_for_failure(bytes: &[u8]) -> SpecVersion {
    serde_json::from_slice::<Value>(bytes)
        .ok()
        .as_ref()
        .and_then(Value::as_object)
        .and_then(|object| json::get(object, "cniVersion"))
        .and_then(Value::as_str)
        .and_then(SpecVersion::parse)
        .unwrap_or(SpecVersion::NEWEST)
}

/// A call: configuration, environment, and where plugins are found.
#[derive(Debug, Clone)]
pub struct Request {
    config: Config,
    environment: Environment,
}

impl Request {
    /// A request; the environment is that of the call.
    pub fn new(config: Config, environment: Environment) -> Self {
        Self { config, environment }
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

    /// The directories of `CNI_PATH`, in order.
    pub fn search_path(&self) -> Vec<PathBuf> {
        self.environment.get("CNI_PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default()
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
#[derive(Debug, Clone, Default)]
pub struct ValidAttachments(Vec<(String, String)>);

impl ValidAttachments {
    /// Reads `cni.dev/valid-attachments`, else `cni.dev/attachments` (the key of tag spec-v1.1.0). `None` where neither is there:
    /// then nothing may be concluded. `null` is an empty list: libcni writes a nil slice so.
    pub fn read(config: &Config) -> Result<Option<Self>, Failure> {
        #[derive(serde::Deserialize)]
        struct Entry {
            #[serde(rename = "containerID", default)]
            container_id: String,
            #[serde(default)]
            ifname: String,
        }
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let Some((_, value)) = config.object().iter().find(|(name, _)| name.eq_ignore_ascii_case(key))
            else {
                continue;
            };
            let entries: Option<Vec<Entry>> =
                json::decode(value).map_err(|error| invalid(&error.under(key)))?;
            let pairs = entries
                .unwrap_or_default()
                .into_iter()
                .map(|entry| (entry.container_id, entry.ifname))
                .collect();
            return Ok(Some(Self(pairs)));
        }
        Ok(None)
    }

    /// A list, for callers that are not fed from a configuration.
    pub fn from_attachments(attachments: impl IntoIterator<Item = Attachment>) -> Self {
        Self(attachments.into_iter().map(|a| (a.container_id.to_string(), a.ifname.to_string())).collect())
    }

    /// Whether the attachment is in use.
    pub fn contains(&self, container_id: &str, ifname: &str) -> bool {
        self.0.iter().any(|(id, name)| id == container_id && name == ifname)
    }

    /// Whether any interface of the container is in use: for state whose format does not tell the interface.
    pub fn contains_container(&self, container_id: &str) -> bool {
        self.0.iter().any(|(id, _)| id == container_id)
    }
}
