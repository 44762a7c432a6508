//! Where the description of a network comes from: the configuration, a file of peers, the state that the agent writes, flannel's file.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::{Cidr, NetworkName, json};
use ferrule_core::state::replace;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Invalid, Reason};
use crate::ledger;
use crate::names::{NodeId, Port, Vni};
use crate::node::{Listed, NodeRecord};
use crate::view::{Settings, Underlay};

/// A peer as an operator writes it: `{"node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24"]}`. A node with addresses of both
/// families has a list of two in `underlay`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peer {
    node: Option<NodeId>,
    underlay: Value,
    blocks: Vec<Cidr>,
}

/// Reads a list of peers that an operator has written, inline or in a file; what is already a record (it has `v`) is read as one. `path`
/// begins the paths of errors.
pub fn peers(value: &Value, path: &str, vni: Vni, port: Port) -> Result<Vec<Listed>, Invalid> {
    let entries = value.as_array().ok_or_else(|| {
        let reason = Reason::Shape { text: "expected a list of peers".to_owned() };
        Invalid::new(path, shown(value), reason)
    })?;
    let read = |(index, entry): (usize, &Value)| {
        let path = format!("{path}[{index}]");
        let record = peer(entry, &path, vni, port)?;
        Ok(Listed { path, record })
    };
    entries.iter().enumerate().map(read).collect()
}

fn peer(value: &Value, path: &str, vni: Vni, port: Port) -> Result<NodeRecord, Invalid> {
    if value.get("v").is_some() {
        return NodeRecord::from_value(value, path);
    }
    let peer: Peer = json::decode(value).map_err(|error| Invalid::from_json(error, path))?;
    let at = |key: &str| format!("{path}.{key}");
    let node = peer.node.ok_or_else(|| Invalid::new(&at("node"), "null", Reason::Missing))?;
    let texts = match &peer.underlay {
        Value::Null => return Err(Invalid::new(&at("underlay"), "null", Reason::Missing)),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    };
    let mut underlay: Vec<IpAddr> = Vec::new();
    for text in texts {
        let address = text.as_str().and_then(|text| cni::address::parse_ip(text).ok());
        let refused = |text: &str| {
            Invalid::new(&at("underlay"), shown(&peer.underlay), Reason::Shape { text: text.to_owned() })
        };
        let address = address.ok_or_else(|| refused("expected an IP address, or a list of two"))?;
        if underlay.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(refused("expected one address a family"));
        }
        underlay.push(address);
    }
    if underlay.is_empty() {
        return Err(Invalid::new(&at("underlay"), "[]", Reason::Missing));
    }
    for (index, block) in peer.blocks.iter().enumerate() {
        if block.network() != *block {
            let reason = Reason::HostBits { network: block.network() };
            return Err(Invalid::new(&at(&format!("blocks[{index}]")), block, reason));
        }
    }
    Ok(NodeRecord::new(node, &underlay, port, &[vni], &peer.blocks))
}

/// Reads a file of peers: the list itself, or an object with the list as `peers`.
pub fn peers_file(file: &Path, vni: Vni, port: Port) -> Result<Vec<Listed>, Error> {
    let bytes = fs::read(file).map_err(|source| Error::File {
        operation: "read the peers in",
        path: file.to_owned(),
        source,
    })?;
    let path = file.display().to_string();
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        // On one line, as the rest of what is told.
        let start = String::from_utf8_lossy(&bytes).chars().take(40).collect::<String>();
        let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
        Invalid::new(&path, start, Reason::Json { error })
    })?;
    let (list, path) = match &value {
        Value::Object(object) => match json::get(object, "peers") {
            Some(list) => (list, format!("{path}: peers")),
            None => return Err(Invalid::new(&format!("{path}: peers"), "null", Reason::Missing).into()),
        },
        other => (other, format!("{path}: ")),
    };
    Ok(peers(list, &path, vni, port)?)
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}

/// What the agent tells the plugin: everything an ADD needs, and nothing that another node could change. The peers are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The format of the file.
    pub format: u32,
    /// The settings.
    pub settings: Settings,
    /// The way out of this host.
    pub underlay: Underlay,
    /// This node's name.
    pub node: NodeId,
    /// This node's blocks.
    pub blocks: Vec<Cidr>,
    /// MTU inside the tunnels in bytes.
    pub mtu: u32,
    /// What is not masqueraded.
    pub cluster: Vec<Cidr>,
}

impl State {
    /// The format that is written here.
    pub const FORMAT: u32 = 1;

    /// What a view says to the plugin.
    pub fn of(view: &crate::view::View) -> Self {
        Self {
            format: Self::FORMAT,
            settings: view.settings().clone(),
            underlay: view.underlay().clone(),
            node: view.node().node.clone(),
            blocks: view.node().blocks.clone(),
            mtu: view.mtu(),
            cluster: view.cluster(),
        }
    }

    /// Where the state of a network is: `/run/ferrule/overlay/NETWORK.json`.
    pub fn path(network: &NetworkName) -> PathBuf {
        directory().join(format!("{network}.json"))
    }

    /// Where the nodes of a network are ([`ledger`]): `/run/ferrule/overlay/NETWORK.peers.jsonl`. The plugin reads it only where the device has
    /// to be made again.
    pub fn peers_path(network: &NetworkName) -> PathBuf {
        directory().join(format!("{network}.peers.jsonl"))
    }

    /// Reads the state of a network; [`Error::NoState`] where there is none.
    pub fn read(network: &NetworkName) -> Result<Self, Error> {
        let path = Self::path(network);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoState { network: network.to_string(), path });
            }
            Err(source) => return Err(Error::File { operation: "read", path, source }),
        };
        let place = path.display().to_string();
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Invalid::new(&place, format!("{} bytes", bytes.len()), Reason::Json { error })
        })?;
        if state.format != Self::FORMAT {
            let reason = Reason::Format { known: Self::FORMAT };
            return Err(Invalid::new(&format!("{place}: format"), state.format, reason).into());
        }
        Ok(state)
    }

    /// Writes it, in one step: whoever reads meanwhile sees the old content or the new one.
    pub fn write(&self) -> Result<(), Error> {
        let path = Self::path(&self.settings.network);
        Ok(replace(&path, &serde_json::to_vec(self).unwrap_or_default())?)
    }

    /// The nodes of a network, as the agent has written them last.
    pub fn read_nodes(&self) -> Result<Vec<Listed>, Error> {
        Ok(ledger::read(&Self::peers_path(&self.settings.network), false)?.1)
    }

    /// Does something to a network of the agent's while nobody else does.
    pub fn locked<T>(network: &NetworkName, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        ferrule_core::state::locked(&Self::lock_path(network), work)
    }

    fn lock_path(network: &NetworkName) -> PathBuf {
        directory().join(format!("{network}.lock"))
    }

    /// Removes the files of a network; that there are none is no error.
    pub fn remove(network: &NetworkName) -> Result<(), Error> {
        for path in [Self::path(network), Self::peers_path(network), Self::lock_path(network)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::File { operation: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn directory() -> PathBuf {
    Path::new(ferrule_core::state::ROOT).join("overlay")
}

/// What flannel's daemon tells CNI plugins in `/run/flannel/subnet.env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flannel {
    /// The blocks of this node, without host bits.
    pub blocks: Vec<Cidr>,
    /// The networks of the cluster.
    pub cluster: Vec<Cidr>,
    /// MTU inside in bytes.
    pub mtu: u32,
    /// The daemon masquerades, so the plugin must not.
    pub masquerades: bool,
}

impl Flannel {
    /// Where the daemon writes it unless told otherwise.
    pub const PATH: &str = "/run/flannel/subnet.env";

    /// Reads the file; [`Error::NoState`] where there is none yet.
    pub fn read(network: &NetworkName, file: &Path) -> Result<Self, Error> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Self::parse(&text, &file.display().to_string())?),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::NoState { network: network.to_string(), path: file.to_owned() })
            }
            Err(source) => Err(Error::File { operation: "read", path: file.to_owned(), source }),
        }
    }

    /// Reads its content: `KEY=VALUE` lines. A dual-stack node has several networks, separated by commas in newer releases.
    pub fn parse(text: &str, path: &str) -> Result<Self, Invalid> {
        let lookup = |key: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
                .filter(|value| !value.is_empty())
        };
        let networks = |key: &str| -> Result<Vec<Cidr>, Invalid> {
            let texts = lookup(key).unwrap_or_default().split(',').filter(|text| !text.is_empty());
            texts
                .map(|text| {
                    let refused = |error: cni::AddressError| {
                        let reason = Reason::Variable { text: error.to_string() };
                        Invalid::new(&format!("{path}: {key}"), text, reason)
                    };
                    text.trim().parse::<Cidr>().map(|cidr| cidr.network()).map_err(refused)
                })
                .collect()
        };
        let blocks = [networks("FLANNEL_SUBNET")?, networks("FLANNEL_IPV6_SUBNET")?].concat();
        if blocks.is_empty() {
            return Err(Invalid::new(&format!("{path}: FLANNEL_SUBNET"), "null", Reason::Missing));
        }
        let mtu = lookup("FLANNEL_MTU").unwrap_or("1450");
        let mtu = mtu.parse().map_err(|error: std::num::ParseIntError| {
            let reason = Reason::Variable { text: format!("it is not a number of bytes ({error})") };
            Invalid::new(&format!("{path}: FLANNEL_MTU"), mtu, reason)
        })?;
        Ok(Self {
            blocks,
            cluster: [networks("FLANNEL_NETWORK")?, networks("FLANNEL_IPV6_NETWORK")?].concat(),
            mtu,
            masquerades: lookup("FLANNEL_IPMASQ") == Some("true"),
        })
    }
}

#[cfg(test)]
mod tests;
