//! What a plugin is, and how to configure it for the cases: `profiles/*.toml`, or a user's own file.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What sort of plugin it is, which decides the cases that apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Makes an interface (`bridge`, `macvlan`).
    Interface,
    /// Hands out addresses to another plugin (`host-local`).
    Ipam,
    /// Changes what an earlier plugin of the chain made (`portmap`).
    Meta,
    /// The loopback plugin: an interface that exists already.
    Loopback,
}

/// A configuration that a plugin must refuse, or a change to the minimal one for some purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What is wrong or special about it, in a few words.
    pub why: String,
    /// A JSON merge patch (RFC 7396) on the minimal configuration; `"<null>"` in TOML stands for null.
    pub patch: Value,
}

/// A plugin, for the harness.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name of the executable, which is the `type` in a configuration.
    pub plugin: String,
    /// What sort of plugin.
    pub kind: Kind,
    /// A sentence for the report.
    #[serde(default)]
    pub about: String,
    /// The smallest useful configuration, without `cniVersion`, `name` and `type`. Where attachments cannot all have the same (a port of the
    /// host), `"<8000+>"` stands for a number: 8000 and the number of the attachment, below 1000; `"dev<0+>"` for a text with it.
    pub config: Map<String, Value>,
    /// It executes the plugin that `ipam.type` names.
    #[serde(default)]
    pub delegates: bool,
    /// Traffic between host and container, or between two containers, works after ADD.
    #[serde(default)]
    pub carries_traffic: bool,
    /// The capabilities it understands (`portMappings`, `mac` …), each with an example of its `runtimeConfig` value.
    #[serde(default)]
    pub capabilities: Map<String, Value>,
    /// Keys of a snapshot that may stay after the last DEL (`host/link/cnf0*`); `*` stands for any text.
    #[serde(default)]
    pub remains: Vec<String>,
    /// Keys of a snapshot that may change while an attachment exists and that no result could list (`host/sysctl/net/ipv4/ip_forward`).
    #[serde(default)]
    pub shared: Vec<String>,
    /// Commands that prepare the fake host before each case (`ip link add …`): a parent interface, for instance.
    #[serde(default)]
    pub prepare: Vec<String>,
    /// Commands that must succeed in a throw-away namespace, or the plugin is skipped: what the kernel must have.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Configurations it must refuse with code 7 (CFG-08).
    #[serde(default)]
    pub invalid: Vec<Variant>,
    /// Values of `runtimeConfig` it must refuse (CAP-02), as patches on the configuration.
    #[serde(default)]
    pub invalid_runtime: Vec<Variant>,
    /// Other configurations that must work through a whole life cycle (dual stack, L2 only …).
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// Configurations whose form is good and with which ADD must fail all the same, late: the kernel or the host refuses (ADD-09).
    #[serde(default)]
    pub fails: Vec<Variant>,
    /// What may have been edited in the configuration between ADD and DEL, without harm (DEL-12): patches.
    #[serde(default)]
    pub changed: Vec<Variant>,
    /// A patch that makes the configuration of a second network, which shares with the first what two can share (a bridge, a directory).
    #[serde(default)]
    pub sibling: Value,
    /// Where it keeps state, below `/run`, `/var` or `/etc`; for the cases that damage or inspect it.
    #[serde(default)]
    pub state: Vec<String>,
    /// Commands that each break something of an attachment which CHECK should notice (CHK-03, CHK-04, CHK-06) and DEL should not mind.
    /// `$IFNAME`, `$NETNS` (the name for `ip netns exec`), `$CONTAINERID`, `$NETWORK`, `$ADDRESS` and `$ADDRESS6` (without prefix length) and
    /// `$HOSTIF` (the last interface of the result without a sandbox) stand for those of the attachment.
    #[serde(default)]
    pub breaks: Vec<Break>,
    /// A command, as in `breaks`, after which one thing of that attachment cannot be removed by anybody (GC-05).
    #[serde(default)]
    pub stuck: Option<String>,
    /// Situations in which ADD cannot be served and STATUS should say so (STA-02, STA-03, STA-08).
    #[serde(default)]
    pub unready: Vec<Unready>,
    /// Facts about this plugin that a case needs and cannot find out, by name.
    #[serde(default)]
    pub facts: Map<String, Value>,
}

/// A way to break an attachment by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// What is broken.
    pub why: String,
    /// The command, by `sh -c`, on the fake host.
    pub run: String,
    /// The item it belongs to: `CHK-03` or `CHK-04` or `CHK-06`.
    pub item: String,
}

/// A situation in which a plugin cannot serve ADD.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unready {
    /// What is missing or wrong, in a few words.
    pub why: String,
    /// The item it belongs to: `STA-03` for daemons and what can be used up, `STA-08` for a configuration that never works.
    pub item: String,
    /// A patch on the minimal configuration.
    #[serde(default)]
    pub patch: Value,
    /// A command that makes it so, by `sh -c`, on the fake host.
    #[serde(default)]
    pub run: Option<String>,
    /// So many attachments are added first, which use something up.
    #[serde(default)]
    pub adds: usize,
}

impl Profile {
    /// The whole configuration of a network `name` in version `version`.
    pub fn configuration(&self, name: &str, version: &str) -> Value {
        self.configuration_of(name, version, 0)
    }

    /// The same, for the attachment with this number: what `<N+>` stands for differs.
    pub fn configuration_of(&self, name: &str, version: &str, number: u64) -> Value {
        let mut config = json!({ "cniVersion": version, "name": name, "type": self.plugin });
        for (key, value) in &self.config {
            config[key] = numbered(denulled(value.clone()), number);
        }
        config
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// The file, and what does not parse.
    pub fn parse(text: &str, origin: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("profile {origin}: {error}"))
    }
}

/// TOML has no null, which a configuration may need: the string `<null>` stands for it.
fn denulled(value: Value) -> Value {
    match value {
        Value::String(text) if text == "<null>" => Value::Null,
        Value::Array(list) => Value::Array(list.into_iter().map(denulled).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, denulled(value))).collect())
        }
        other => other,
    }
}

/// `<8000+>` becomes 8000 and `number`: a number, or within a text its digits.
fn numbered(value: Value, number: u64) -> Value {
    match value {
        Value::String(text) => {
            let Some((before, base, after)) = template(&text) else { return Value::String(text) };
            if before.is_empty() && after.is_empty() {
                json!(base + number)
            } else {
                json!(format!("{before}{}{after}", base + number))
            }
        }
        Value::Array(list) => list.into_iter().map(|value| numbered(value, number)).collect(),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, numbered(value, number))).collect())
        }
        other => other,
    }
}

/// The first `<N+>` of a text: what stands before it, N, and what stands behind.
fn template(text: &str) -> Option<(&str, u64, &str)> {
    let (before, rest) = text.split_once('<')?;
    let (base, after) = rest.split_once("+>")?;
    Some((before, base.parse().ok()?, after))
}

/// Applies a JSON merge patch (RFC 7396): null removes, objects merge, all else replaces.
/// The string `<null>` sets a null, which the RFC cannot.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = denulled(patch.clone());
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() || value == "<remove>" {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

const SHIPPED: &[(&str, &str)] = &include!("../profiles/list.rs");

/// The profiles that come with the harness.
///
/// # Errors
/// Which one does not parse; they are compiled in, and a test reads them all.
pub fn shipped() -> Result<Vec<Profile>, String> {
    SHIPPED.iter().map(|(name, text)| Profile::parse(text, name)).collect()
}

/// Profiles from a file, or from every `.toml` file of a directory.
///
/// # Errors
/// The file that cannot be read or parsed.
pub fn load(path: &Path) -> Result<Vec<Profile>, String> {
    let files: Vec<PathBuf> = if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files
    } else {
        vec![path.to_owned()]
    };
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Profile::parse(&text, &file.display().to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses() {
        assert!(!shipped().unwrap().is_empty());
    }

    #[test]
    fn a_number_of_its_own_for_each_attachment() {
        let text = "plugin = 'x'\nkind = 'meta'\n[config]\nports = [{ host = '<8000+>', name = '<b>', device = 'dev<0+>x' }]";
        let profile = Profile::parse(text, "here").unwrap();
        let ports = |number| profile.configuration_of("net", "1.0.0", number)["ports"].clone();
        assert_eq!(
            (ports(0), ports(21)),
            (
                json!([{"host": 8000, "name": "<b>", "device": "dev0x"}]),
                json!([{"host": 8021, "name": "<b>", "device": "dev21x"}])
            )
        );
    }

    #[test]
    fn a_patch_sets_replaces_and_removes() {
        let mut config = json!({ "a": 1, "b": { "c": 2, "d": 3 } });
        merge(&mut config, &json!({ "a": "<null>", "b": { "c": "<remove>", "e": [1] } }));
        assert_eq!(config, json!({ "a": null, "b": { "d": 3, "e": [1] } }));
    }
}
