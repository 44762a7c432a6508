//! The configuration of `tuning`, decoded and validated before anything is changed.

use std::fmt::Display;
use std::path::PathBuf;

use cni::json::shorten;
use cni::{Code, Failure, LinkName, Request, json};
use ferrule_core::netlink::MacAddress;
use ferrule_core::resource::LinkProperty;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::allowlist::Allowlist;
use crate::key::SysctlKey;
use crate::repeated::repeated;

/// Where the Go suite keeps what its DEL restores.
const DATA_DIRECTORY: &str = "/run/cni/tuning";

/// The path of what Kubernetes' and other tools pass for one container.
const ARGS: [&str; 2] = ["args", "cni"];

/// The keys as they are written, but for the sysctls, whose order counts, and those that `args.cni` has too.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    data_dir: String,
    runtime_config: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: String,
}

/// The keys at the top level and in `args.cni`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Link {
    mac: String,
    promisc: Option<bool>,
    mtu: Option<i64>,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    tx_queue_len: Option<i64>,
}

/// A sysctl to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name as it is written.
    pub name: String,
    /// What that names.
    pub key: SysctlKey,
    /// The value, as it is written to the kernel.
    pub value: String,
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Sysctls, in order.
    pub sysctls: Vec<Sysctl>,
    /// Properties of the container's interface, in the order in which they are set.
    pub properties: Vec<LinkProperty>,
    /// The directory of the Go suite's backup files.
    pub data_directory: PathBuf,
}

/// An invalid value, with its path.
fn refused(path: impl Display, reason: impl Display) -> Failure {
    Failure::new(Code::InvalidConfig, format!("invalid configuration: {path}: {reason}"))
}

impl Config {
    /// Decodes and validates, for an interface of this name. Errors: 7 with key and value, 4 for `CNI_ARGS`.
    pub fn load(request: &Request, ifname: &LinkName) -> Result<Self, Failure> {
        let config = request.config();
        let wire: Wire = config.decode()?;
        let own: Link = config.decode()?;
        let args = args(config.object());
        let theirs: Link = json::decode_object(&args)
            .map_err(|error| ARGS.iter().rev().fold(error, |error, key| error.under(*key)))
            .map_err(|error| cni::invalid(&error))?;
        let mut sysctls = sysctls(config.bytes(), config.object(), &["sysctl"], ifname)?;
        for theirs in self::sysctls(config.bytes(), &args, &["args", "cni", "sysctl"], ifname)? {
            match sysctls.iter_mut().find(|ours| ours.key == theirs.key) {
                Some(ours) => *ours = theirs,
                None => sysctls.push(theirs),
            }
        }
        let cni_args = request.args()?;
        cni_args.allow_only(&["MAC"])?;
        let macs = [
            ("args.cni.mac", theirs.mac.as_str()),
            ("runtimeConfig.mac", wire.runtime_config.mac.as_str()),
            ("CNI_ARGS MAC", cni_args.get("MAC").unwrap_or_default()),
            ("mac", own.mac.as_str()),
        ];
        Ok(Self {
            sysctls,
            properties: properties(&own, &theirs, macs)?,
            data_directory: directory(wire.data_dir),
        })
    }

    /// Refuses sysctls that the administrator's list does not have.
    pub fn check(&self, allowlist: &Allowlist) -> Result<(), Failure> {
        self.sysctls.iter().try_for_each(|sysctl| allowlist.check(&sysctl.name))
    }
}

/// The directory of backup files, from a configuration of which nothing else has to be valid.
pub fn data_directory(config: &cni::Config) -> PathBuf {
    let value = json::get(config.object(), "dataDir").and_then(Value::as_str);
    directory(value.unwrap_or_default().to_owned())
}

fn directory(text: String) -> PathBuf {
    if text.is_empty() { DATA_DIRECTORY.into() } else { text.into() }
}

/// `args.cni`; empty where there is something else, which is then meant for somebody else.
fn args(object: &Map<String, Value>) -> Map<String, Value> {
    let mut object = object;
    for key in ARGS {
        match json::get(object, key).and_then(Value::as_object) {
            Some(inner) => object = inner,
            None => return Map::new(),
        }
    }
    object.clone()
}

fn sysctls(
    document: &[u8],
    object: &Map<String, Value>,
    path: &[&str],
    ifname: &LinkName,
) -> Result<Vec<Sysctl>, Failure> {
    let place = path.join(".");
    let duplicated = |name: &str| {
        refused(format!("{place}.{name}"), "duplicated sysctl keys are not allowed")
            .hint("dots and slashes name the same sysctl; say it once")
    };
    let Some(value) = json::get(object, "sysctl") else { return Ok(Vec::new()) };
    let Value::Object(pairs) = value else {
        return Err(refused(place, "expected an object with a text for each sysctl"));
    };
    if let Some(name) = repeated(document, path) {
        return Err(duplicated(&name));
    }
    let mut sysctls: Vec<Sysctl> = Vec::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_null()) {
        let key = SysctlKey::read(name, ifname).ok_or_else(|| {
            refused(&place, format!("invalid net sysctl key: {name:?}"))
                .hint("only sysctls of the container's network can be set: net.…")
        })?;
        let Value::String(value) = value else {
            return Err(refused(format!("{place}.{name}"), "expected a string")
                .hint(format!("write the value in quotes: \"{value}\"")));
        };
        if sysctls.iter().any(|earlier| earlier.key == key) {
            return Err(duplicated(name));
        }
        sysctls.push(Sysctl { name: name.clone(), key, value: value.clone() });
    }
    Ok(sysctls)
}

/// The properties in the order of the Go suite. `macs` are the sources of a hardware address, the strongest first.
fn properties(own: &Link, theirs: &Link, macs: [(&str, &str); 4]) -> Result<Vec<LinkProperty>, Failure> {
    let mut properties = Vec::new();
    if let Some((source, text)) = macs.into_iter().find(|(_, text)| !text.is_empty()) {
        properties.push(LinkProperty::Mac(mac(source, text)?));
    }
    // `false` has always meant that nothing is asked for.
    if theirs.promisc.or(own.promisc) == Some(true) {
        properties.push(LinkProperty::Promiscuous(true));
    }
    let number = |key: &str, theirs: Option<i64>, own: Option<i64>| {
        let (path, number) = match (theirs, own) {
            (Some(number), _) => (format!("args.cni.{key}"), number),
            (None, Some(number)) => (key.to_owned(), number),
            (None, None) => return Ok(None),
        };
        let number = u32::try_from(number).ok().filter(|number| i32::try_from(*number).is_ok());
        number.map(Some).ok_or_else(|| refused(path, "expected a number from 0 to 2147483647"))
    };
    if let Some(mtu) = number("mtu", theirs.mtu, own.mtu)?.filter(|mtu| *mtu != 0) {
        properties.push(LinkProperty::Mtu(mtu));
    }
    if let Some(on) = theirs.allmulti.or(own.allmulti) {
        properties.push(LinkProperty::AllMulticast(on));
    }
    if let Some(length) = number("txQLen", theirs.tx_queue_len, own.tx_queue_len)? {
        properties.push(LinkProperty::TxQueueLength(length));
    }
    Ok(properties)
}

fn mac(source: &str, text: &str) -> Result<MacAddress, Failure> {
    let refused = |reason: &str| {
        Failure::new(
            Code::InvalidConfig,
            format!("{source}: invalid args {} for MAC addr: {reason}", shorten(text)),
        )
    };
    let mac: MacAddress =
        text.parse().map_err(|_error| refused("it is not a MAC address such as 02:42:ac:11:00:02"))?;
    if mac.0 == [0; 6] {
        return Err(refused("it is all zeros"));
    }
    if mac.0.first().is_some_and(|first| first & 1 == 1) {
        return Err(refused("it is a multicast address"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests;
