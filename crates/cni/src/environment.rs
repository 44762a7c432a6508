//! The environment of a call: `CNI_*` variables, read once and validated (specification section 2, "Parameters").

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::failure::{Code, Failure};
use crate::json::shorten;
use crate::name::{ContainerId, LinkName};

/// Environment variables, as data: a test passes its own, `main` the process's. Clones share them.
///
/// They are few, and few of them are asked for: a list does. Of two with one name the later counts.
#[derive(Debug, Clone, Default)]
pub struct Environment(Arc<Vec<(OsString, OsString)>>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self(Arc::new(std::env::vars_os().collect()))
    }

    /// An environment made of pairs.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }

    /// A variable's value. Empty is unset: libcni always sets all six `CNI_` variables.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let variable = self.0.iter().rev().find(|(key, _)| key == name);
        variable.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// A variable that must be text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        self.get(name)
            .map(|value| {
                value.to_str().ok_or_else(|| invalid(name, &value.to_string_lossy(), "it is not UTF-8"))
            })
            .transpose()
    }

    /// The same environment with some variables set differently.
    #[must_use]
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut environment = self.clone();
        let variables = Arc::make_mut(&mut environment.0);
        variables.extend(changes.into_iter().map(|(key, value)| (key.into(), value.into())));
        environment
    }

    /// Every variable, for a delegate. A later one replaces an earlier one of the same name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str()))
    }
}

/// What the runtime asks for: `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Connect a container to a network.
    Add,
    /// Disconnect it.
    Del,
    /// Verify that it is connected as ADD left it.
    Check,
    /// Remove what belongs to no attachment in use.
    Gc,
    /// Say whether ADD can be served.
    Status,
    /// List supported versions.
    Version,
}

impl Verb {
    /// The text in `CNI_COMMAND`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The verb with exactly this text; case matters.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|v| v.as_str() == text)
    }

    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One end of a network: a container's interface. Together with the network's name the key of all state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: LinkName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// The validated parameters of a verb.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) attachment: Option<Attachment>,
    pub(crate) netns: Option<PathBuf>,
}

fn invalid(variable: &str, value: &str, reason: &str) -> Failure {
    Failure::new(Code::InvalidEnvironment, format!("{variable} is invalid: {reason}"))
        .detail(format!("{variable}={:?}", shorten(value)))
}

/// Checks what the verb needs, and nothing else (ENV-10): all missing variables are reported together.
pub(crate) fn parameters(environment: &Environment, verb: Verb) -> Result<Parameters, Failure> {
    let missing: Vec<&str> =
        verb.required().iter().copied().filter(|name| environment.get(name).is_none()).collect();
    if !missing.is_empty() {
        let message = format!("required env variables [{}] missing", missing.join(","));
        return Err(Failure::new(Code::InvalidEnvironment, message)
            .hint(format!("{verb} needs them set and not empty")));
    }
    if matches!(verb, Verb::Gc | Verb::Status | Verb::Version) {
        return Ok(Parameters { attachment: None, netns: None });
    }
    let text = |name: &str| environment.text(name).map(Option::unwrap_or_default);
    let container = text("CNI_CONTAINERID")?;
    let container_id = ContainerId::new(container)
        .map_err(|error| invalid("CNI_CONTAINERID", container, &error.to_string()))?;
    let interface = text("CNI_IFNAME")?;
    let ifname =
        LinkName::new(interface).map_err(|error| invalid("CNI_IFNAME", interface, &error.to_string()))?;
    let netns = environment.get("CNI_NETNS").map(PathBuf::from);
    Ok(Parameters { attachment: Some(Attachment { container_id, ifname }), netns })
}

#[cfg(test)]
mod tests;
