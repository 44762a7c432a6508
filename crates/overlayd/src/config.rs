//! What the command line says, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni::{Cidr, LinkName, NetworkName};
use ferrule_overlay::identity::Hint;
use ferrule_overlay::{Mode, NodeId, Port, Settings, Vni};

use crate::cli::{ModeOption, RunOptions};
use crate::error::Error;

/// How the agent is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network and this node's part in it.
    pub settings: Settings,
    /// What is said about the way out of this host.
    pub hint: Hint,
    /// This node's name, where it is given or needed.
    pub node: Option<NodeId>,
    /// Where nodes are known from.
    pub origin: Origin,
    /// Where to answer Prometheus.
    pub metrics: Option<SocketAddr>,
    /// What has to survive a reboot.
    pub state_dir: PathBuf,
    /// Between full comparisons.
    pub check_interval: Duration,
}

/// Where nodes are known from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// etcd.
    Etcd(EtcdOptions),
}

/// How etcd is reached, and what this node wants of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Its members' URLs.
    pub endpoints: Vec<String>,
    /// What keys begin with; no slash at the end.
    pub prefix: String,
    /// Files for TLS.
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// The networks that blocks are taken from, and the length of a block's prefix.
    pub pools: Vec<Pool>,
    /// How long a silent node keeps its record, and a block that was given back stays unused.
    pub grace: Duration,
    /// After how long a node is silent.
    pub alive: Duration,
}

/// A network that blocks are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The network.
    pub network: Cidr,
    /// The length of a block's prefix.
    pub block: u8,
}

impl Pool {
    /// How many blocks there are, at most 2^32.
    pub fn size(&self) -> u64 {
        1 << u32::from(self.block - self.network.prefix()).min(32)
    }

    /// The block with a number below [`Pool::size`].
    pub fn block(&self, number: u64) -> Option<Cidr> {
        let base = match self.network.address() {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            std::net::IpAddr::V6(v6) => v6.to_bits(),
        };
        let bits = base.checked_add(u128::from(number).checked_shl(128 - u32::from(self.block))?)?;
        let address = if self.network.is_ipv4() {
            std::net::Ipv4Addr::from_bits(u32::try_from(bits >> 96).ok()?).into()
        } else {
            std::net::Ipv6Addr::from_bits(bits).into()
        };
        Cidr::new(address, self.block)
    }
}

/// A network's name from the command line.
pub fn network(name: &str) -> Result<NetworkName, Error> {
    NetworkName::new(name).map_err(|error| Error::option("--network", name, error.to_string()))
}

impl Config {
    /// Checks the options.
    pub fn new(options: &RunOptions) -> Result<Self, Error> {
        let vni = options.vni.ok_or_else(|| Error::option("--vni", "none", "it is required"))?;
        let vni = Vni::new(vni).map_err(|error| Error::option("--vni", vni, error.to_string()))?;
        let pools = pools(options)?;
        let settings = settings(options, vni, &pools)?;
        let origin = origin(options, pools)?;
        let node = match &options.node {
            Some(name) => Some(node(name)?),
            None if matches!(origin, Origin::Etcd(_)) => Some(host_name()?),
            None => None,
        };
        if !options.check_interval.is_finite() || !(0.1..=3600.0).contains(&options.check_interval) {
            return Err(Error::option(
                "--check-interval",
                options.check_interval,
                "it is 0.1 to 3600 seconds",
            ));
        }
        let interface = options.underlay_interface.as_deref();
        let interface = interface.map(|name| link("--underlay-interface", name)).transpose()?;
        let hint = Hint { interface, address: options.underlay_address };
        let (metrics, state_dir) = (options.metrics, options.state_dir.clone());
        let check_interval = Duration::from_secs_f64(options.check_interval);
        Ok(Self { settings, hint, node, origin, metrics, state_dir, check_interval })
    }
}

fn origin(options: &RunOptions, pools: Vec<Pool>) -> Result<Origin, Error> {
    if let Some(path) = &options.peers_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        return Ok(Origin::File(path));
    }
    if options.etcd.is_empty() {
        return Err(Error::option(
            "--peers-file",
            "none",
            "either it or --etcd says where nodes are known from",
        ));
    }
    if !cfg!(feature = "etcd") {
        return Err(Error::WithoutEtcd { option: "--etcd" });
    }
    let wrong = options.etcd.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://"));
    if let Some(url) = wrong {
        return Err(Error::option("--etcd", url, "a URL begins with http:// or https://"));
    }
    if let (Some(_), Some(url)) =
        (&options.etcd_ca, options.etcd.iter().find(|url| url.starts_with("http://")))
    {
        return Err(Error::option("--etcd-ca", url, "certificates are for URLs that begin with https://"));
    }
    if pools.is_empty() {
        return Err(Error::option(
            "--cluster-cidr",
            "none",
            "it is required with --etcd: nodes' blocks are taken from it",
        ));
    }
    Ok(Origin::Etcd(EtcdOptions {
        endpoints: options.etcd.clone(),
        prefix: options.etcd_prefix.trim_end_matches('/').to_owned(),
        ca: options.etcd_ca.clone(),
        identity: options.etcd_cert.clone().zip(options.etcd_key.clone()),
        user: options.etcd_user.clone().zip(options.etcd_password_file.clone()),
        pools,
        grace: Duration::from_secs(options.grace),
        alive: Duration::from_secs(options.alive),
    }))
}

pub(crate) fn settings(options: &RunOptions, vni: Vni, pools: &[Pool]) -> Result<Settings, Error> {
    let name = network(&options.network)?;
    let refused = |error: cni::NameError| Error::option("--network", &options.network, error.to_string());
    let mut settings = Settings::new(name, vni).map_err(refused)?;
    settings.port = Port::new(u64::from(options.port))
        .map_err(|error| Error::option("--port", options.port, error.to_string()))?;
    settings.mode = match options.mode {
        ModeOption::Routed => Mode::Routed,
        ModeOption::Bridged => Mode::Bridged,
    };
    if let Some(name) = &options.bridge {
        settings.bridge = link("--bridge", name)?;
    }
    settings.mtu = options.mtu;
    settings.bum = options.bum;
    settings.any_sender = options.any_sender;
    settings.direct_routing = options.direct_routing;
    settings.cluster = pools.iter().map(|pool| pool.network).collect();
    settings.subnets = options.subnet.iter().map(|text| cidr("--subnet", text)).collect::<Result<_, _>>()?;
    if settings.mode == Mode::Bridged && settings.subnets.is_empty() {
        settings.subnets.clone_from(&settings.cluster);
    }
    if settings.mode == Mode::Bridged && settings.subnets.is_empty() {
        return Err(Error::option("--subnet", "none", "a bridged network has a subnet"));
    }
    // All nodes have to choose alike, whatever the nodes they happen to know.
    settings.transport =
        options.underlay_address.map(|address| ferrule_overlay::Family::of(address.is_ipv4()));
    Ok(settings)
}

pub(crate) fn pools(options: &RunOptions) -> Result<Vec<Pool>, Error> {
    let networks: Vec<Cidr> =
        options.cluster_cidr.iter().map(|text| cidr("--cluster-cidr", text)).collect::<Result<_, _>>()?;
    if !options.block_size.is_empty() && options.block_size.len() != networks.len() {
        let given = options.block_size.len();
        let reason = format!("there are {} --cluster-cidr", networks.len());
        return Err(Error::option("--block-size", format!("{given} lengths"), reason));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for (index, network) in networks.into_iter().enumerate() {
        if pools.iter().any(|pool| pool.network.is_ipv4() == network.is_ipv4()) {
            return Err(Error::option("--cluster-cidr", network, "there is one of this family already"));
        }
        let usual = if network.is_ipv4() { 24 } else { 64 };
        let block = options.block_size.get(index).copied().unwrap_or(usual);
        let longest = network.bits() - 2;
        if block < network.prefix() || block > longest {
            let reason = format!("a block of {network} has a length of {} to {longest}", network.prefix());
            return Err(Error::option("--block-size", block, reason));
        }
        pools.push(Pool { network, block });
    }
    Ok(pools)
}

fn cidr(option: &'static str, text: &str) -> Result<Cidr, Error> {
    let cidr: Cidr =
        text.parse().map_err(|error: cni::AddressError| Error::option(option, text, error.to_string()))?;
    if cidr.network() != cidr {
        return Err(Error::option(
            option,
            text,
            format!("it has host bits; the network is {}", cidr.network()),
        ));
    }
    Ok(cidr)
}

fn link(option: &'static str, name: &str) -> Result<LinkName, Error> {
    LinkName::new(name).map_err(|error| Error::option(option, name, error.to_string()))
}

fn node(name: &str) -> Result<NodeId, Error> {
    NodeId::new(name).map_err(|error| Error::option("--node", name, error.to_string()))
}

/// The host's name, as the node's. Containers and namespaces share it: several agents on one machine are given names.
pub(crate) fn host_name() -> Result<NodeId, Error> {
    let name =
        nix::unistd::gethostname().map_err(|error| Error::system("read the host name")(error.into()))?;
    node(&name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(network: &str, block: u8) -> Pool {
        Pool { network: network.parse().unwrap(), block }
    }

    #[test]
    fn blocks_follow_each_other() {
        let four = pool("10.40.0.0/16", 24);
        assert_eq!(four.size(), 256);
        assert_eq!(four.block(0).unwrap().to_string(), "10.40.0.0/24");
        assert_eq!(four.block(255).unwrap().to_string(), "10.40.255.0/24");
        let six = pool("fd00:40::/48", 64);
        assert_eq!(six.size(), 65536);
        assert_eq!(six.block(65535).unwrap().to_string(), "fd00:40:0:ffff::/64");
        assert_eq!(pool("10.40.0.0/24", 24).block(0).unwrap().to_string(), "10.40.0.0/24");
        assert_eq!(pool("fd00::/16", 64).size(), 1 << 32);
    }
}
