//! The network of an attachment: from whoever knows it to what this host's part is.

use std::net::{IpAddr, Ipv4Addr};

use cni::{Cidr, Code, Failure, LinkName, NetworkName, Request};
use ferrule_core::Host;
use ferrule_core::netlink::Netlink;
use ferrule_core::resource::Tunnel;
use ferrule_overlay::{
    Error, Family, Flannel, Listed, Mode, Purge, Settings, State, View, device, gateway, gateways, identity,
    occupied, program, source, tunnel, used,
};
use serde_json::{Value, json};

use crate::config::{Config, Source, invalid};

/// What an ADD needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Routed or bridged.
    pub mode: Mode,
    /// The bridge that containers are attached to.
    pub bridge: LinkName,
    /// MTU inside in bytes.
    pub mtu: u32,
    /// This node's blocks.
    pub blocks: Vec<Cidr>,
    /// The stretched subnets.
    pub subnets: Vec<Cidr>,
    /// What is not masqueraded.
    pub cluster: Vec<Cidr>,
    /// Whether the kernel learns who is where (bridged mode, by a multicast group).
    pub learns: bool,
    /// Whether anybody may send into it, as on a host without nftables.
    pub any_sender: bool,
    /// Who looks after the device.
    pub keeper: Keeper,
}

/// Who looks after the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// This plugin, by this view of the network; it goes with its last user.
    Plugin(Box<View>),
    /// The agent; it stays.
    Agent(Box<State>),
    /// Flannel's daemon.
    Flannel,
}

impl Network {
    /// Finds out, and changes nothing.
    pub fn find(request: &Request, config: &Config) -> Result<Self, Failure> {
        let name = request.config().name();
        match (&config.source, &config.settings) {
            (Source::Agent, _) => Self::of_agent(name, config),
            (Source::Flannel(path), _) => Self::of_flannel(name, config, path),
            (Source::Inline(peers), Some(settings)) => {
                let nodes =
                    source::peers(peers, "peers", settings.vni, settings.port).map_err(Error::from)?;
                Self::of_nodes(config, settings, nodes)
            }
            (Source::File(path), Some(settings)) => {
                Self::of_nodes(config, settings, source::peers_file(path, settings.vni, settings.port)?)
            }
            (_, None) => Err(invalid("vni: it is missing")),
        }
    }

    fn of_nodes(config: &Config, settings: &Settings, nodes: Vec<Listed>) -> Result<Self, Failure> {
        let mut netlink = Netlink::open()?;
        let transport = View::transport(settings, &nodes);
        let mut recognise = |families: &[Family]| -> Result<_, Error> {
            let mut own = identity::own_addresses(&mut netlink, families)?;
            // The device's addresses are inside; a list of peers that names one by mistake must not make a tunnel in the tunnel.
            own.retain(|own| own.interface != settings.device && own.interface != settings.bridge);
            let (node, underlay) = identity::recognise(&nodes, transport, &config.hint, &own)?;
            Ok((node, underlay, own))
        };
        // Who is told that none of its addresses is listed is told all of them.
        let found = recognise(&identity::families(&nodes)).or_else(|_| recognise(&Family::ALL));
        let (node, mut underlay, own) = found?;
        if let Some((_, invalid)) = occupied(settings, &nodes, &node, &own)?.into_iter().next() {
            return Err(Error::from(invalid).into());
        }
        underlay.mtu = identity::path_mtu(&mut netlink, &underlay, &nodes)?;
        let view = View::new(settings.clone(), underlay, &node, nodes).map_err(Error::from)?;
        Ok(Self {
            mode: settings.mode,
            bridge: settings.bridge.clone(),
            mtu: view.mtu(),
            blocks: view.node().blocks.clone(),
            subnets: settings.subnets.clone(),
            cluster: view.cluster(),
            learns: settings.multicast_group.is_some(),
            any_sender: settings.any_sender,
            keeper: Keeper::Plugin(Box::new(view)),
        })
    }

    fn of_agent(name: &NetworkName, config: &Config) -> Result<Self, Failure> {
        let state = State::read(name)?;
        let mtu = mtu_within(config, state.mtu)?;
        let bridge = config.bridge.clone().filter(|_| state.settings.mode == Mode::Routed);
        Ok(Self {
            mode: state.settings.mode,
            bridge: bridge.unwrap_or_else(|| state.settings.bridge.clone()),
            mtu,
            blocks: state.blocks.clone(),
            subnets: state.settings.subnets.clone(),
            cluster: state.cluster.clone(),
            learns: state.settings.multicast_group.is_some(),
            any_sender: state.settings.any_sender,
            keeper: Keeper::Agent(Box::new(state)),
        })
    }

    fn of_flannel(name: &NetworkName, config: &Config, path: &std::path::Path) -> Result<Self, Failure> {
        let flannel = Flannel::read(name, path)
            .map_err(|error| Failure::from(error).hint("flannel's daemon writes it; is it running?"))?;
        if config.masquerade.is_some() && flannel.masquerades {
            let failure = invalid("ipMasq: flannel's daemon masquerades already");
            return Err(failure.hint("remove ipMasq, or run the daemon without --ip-masq"));
        }
        // The bridge that flannel's own plugin makes, so that containers of both are on one.
        let bridge = LinkName::new("cni0").map_err(|error| Failure::from_error(Code::Internal, &error))?;
        Ok(Self {
            mode: Mode::Routed,
            bridge: config.bridge.clone().unwrap_or(bridge),
            mtu: mtu_within(config, flannel.mtu)?,
            blocks: flannel.blocks,
            subnets: Vec::new(),
            cluster: flannel.cluster,
            learns: false,
            any_sender: false,
            keeper: Keeper::Flannel,
        })
    }

    /// The overlay as a resource of the attachment, where it goes with its last user.
    pub fn tunnel(&self) -> Option<Tunnel> {
        match &self.keeper {
            Keeper::Plugin(view) => Some(tunnel(view.settings(), Some(&view.node().node))),
            Keeper::Agent(_) | Keeper::Flannel => None,
        }
    }

    /// What this host's part is made of, apart from the attachment's own pair: the device, where it goes with its last user, and the bridge.
    pub fn made(&self) -> Vec<&LinkName> {
        let device = match &self.keeper {
            Keeper::Plugin(view) => Some(&view.settings().device),
            Keeper::Agent(_) | Keeper::Flannel => None,
        };
        device.into_iter().chain([&self.bridge]).collect()
    }

    /// The view to program; for the agent's networks only where the device has to be made again.
    pub fn view(&self) -> Result<Option<View>, Failure> {
        match &self.keeper {
            Keeper::Plugin(view) => Ok(Some((**view).clone())),
            Keeper::Agent(state) => {
                let nodes = state.read_nodes()?;
                // What one bad record would keep away from the agent does not keep containers away from the network.
                let view = View::screened(state.settings.clone(), state.underlay.clone(), &state.node, nodes);
                Ok(Some(view.map_err(Error::from)?.0))
            }
            Keeper::Flannel => Ok(None),
        }
    }

    /// Makes sure of the device and of everything that refers to it.
    pub fn program(&self, host: &Host<'_>) -> Result<(), Failure> {
        match &self.keeper {
            Keeper::Plugin(view) => {
                let work = || program(view, Purge::Confirmed).map(drop);
                Ok(tunnel(view.settings(), None).work(host, work)?)
            }
            // The agent does, every few seconds and at every change; this is for the time in between.
            Keeper::Agent(state) if !device_is_up(&state.settings)? => {
                let Some(view) = self.view()? else { return Ok(()) };
                Ok(State::locked(&state.settings.network, || program(&view, Purge::Guarded).map(drop))?)
            }
            Keeper::Agent(_) | Keeper::Flannel => Ok(()),
        }
    }

    /// Whether this host answers its containers' ARP requests for addresses of other nodes, which they take to be on their link.
    pub fn answers_arp(&self) -> bool {
        self.mode == Mode::Routed && self.subnets.iter().any(Cidr::is_ipv4)
    }

    /// An address of a container, or of its gateway, with the prefix that counts on this host: of a subnet that is stretched by routes only this node's block is
    /// behind its bridge.
    pub fn on_bridge(&self, address: Cidr) -> Cidr {
        let stretched = self.mode == Mode::Routed && !self.subnets.is_empty();
        let block = self.blocks.iter().find(|block| stretched && block.contains(address.address()));
        block.and_then(|block| Cidr::new(address.address(), block.prefix())).unwrap_or(address)
    }

    /// The gateways that are the overlay's, on its bridge for as long as that is there.
    pub fn gateways(&self) -> Vec<Cidr> {
        match self.mode {
            Mode::Routed => Vec::new(),
            Mode::Bridged => gateways(&self.subnets),
        }
    }

    /// The `ipam` section where the operator has left it to the plugin: the node's blocks, through host-local.
    pub fn ipam(&self) -> Value {
        let mut sets = Vec::new();
        for ipv4 in [true, false] {
            // In bridged mode the IPv6 address follows from the IPv4 one.
            if self.mode == Mode::Bridged && !ipv4 && self.blocks.iter().any(Cidr::is_ipv4) {
                continue;
            }
            let blocks = self.blocks.iter().filter(|block| block.is_ipv4() == ipv4);
            let set: Vec<Value> = blocks.map(|block| self.range(block)).collect();
            if !set.is_empty() {
                sets.push(Value::Array(set));
            }
        }
        json!({ "type": HOST_LOCAL, "ranges": sets })
    }

    fn range(&self, block: &Cidr) -> Value {
        let block = &if self.mode == Mode::Bridged && !self.learns { used(block) } else { *block };
        let Some(subnet) = self.subnets.iter().find(|subnet| subnet.is_ipv4() == block.is_ipv4()) else {
            return json!({ "subnet": block });
        };
        if self.mode == Mode::Routed {
            return routed_range(block, subnet);
        }
        let mut range = json!({ "subnet": subnet, "gateway": gateway(subnet) });
        // The ends of the subnet are no addresses of containers; host-local leaves them out where it is not told otherwise.
        if block.address() != subnet.address() {
            range["rangeStart"] = json!(block.address());
        }
        if block.last() != subnet.last() {
            range["rangeEnd"] = json!(block.last());
        }
        range
    }
}

/// A node's block of a subnet that is stretched by routes. As in any block, the first address is the node's, the second the gateway's, and the last of IPv4 for
/// broadcasts on the bridge.
///
/// Of IPv6, containers are given the prefix of the block: what a router announces to be on the link need not be the whole subnet (RFC 5942), and nobody could
/// answer for the rest of it without an entry for each address.
fn routed_range(block: &Cidr, subnet: &Cidr) -> Value {
    let (IpAddr::V4(last), true) = (block.last(), block != subnet) else { return json!({ "subnet": block }) };
    let gateway = gateway(block);
    let last = Ipv4Addr::from_bits(last.to_bits().saturating_sub(1));
    json!({ "subnet": subnet, "gateway": gateway, "rangeStart": gateway, "rangeEnd": last })
}

/// The IPAM plugin that the node's blocks are handed out by.
pub const HOST_LOCAL: &str = "host-local";

/// The MTU inside that is wanted, of that which the tunnels carry.
fn mtu_within(config: &Config, most: u32) -> Result<u32, Failure> {
    match config.mtu {
        Some(mtu) if mtu > most => {
            Err(invalid(format!("mtu: {mtu} does not fit into the tunnels, which carry {most}")))
        }
        wanted => Ok(wanted.unwrap_or(most)),
    }
}

fn device_is_up(settings: &Settings) -> Result<bool, Failure> {
    let link = Netlink::open()?.link(settings.device.as_str())?;
    Ok(link.is_some_and(|link| link.up && link.alias == settings.alias()))
}

/// Whether what ADD would make is there, or could be made: nothing of somebody else's is in the way.
pub fn probe(view: &View) -> Result<(), Failure> {
    Ok(device::refuse(&mut Netlink::open()?, view)?)
}
