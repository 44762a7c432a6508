//! The container's interface: what is configured on it.

use std::net::IpAddr;
use std::time::Duration;

use cni::{AddResult, Cidr, LinkName};
use serde::{Deserialize, Serialize};

use super::{Lifecycle, same};
use crate::error::Error;
use crate::host::Host;
use crate::netlink::{AddressState, LinkChange, Netlink, NetlinkError, RouteEntry};
use crate::sysctl::{Key, SysctlError};

/// How long duplicate address detection may take: one probe a second (RFC 4862), three at most in practice.
const DAD_LIMIT: Duration = Duration::from_secs(5);

/// Sysctls, addresses and routes of the container's interface. It goes with its link and with the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name in the container.
    pub name: LinkName,
    /// Sysctls below `net/ipv4/conf/NAME/` and `net/ipv6/conf/NAME/`, as `ipv6/accept_ra`, set before it is up. Those that the kernel does
    /// not have are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// Addresses with the prefix lengths of their subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Cidr>,
    /// Routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteEntry>,
    /// Bring it up.
    pub up: bool,
    /// Detect duplicate IPv6 addresses, and wait for it.
    #[serde(default)]
    pub dad: bool,
}

/// The one sysctl that the kernel takes with the link's other properties, so that no file below `/proc/sys` has to be opened for it.
const ARP_NOTIFY: &str = "ipv4/arp_notify";

impl Interface {
    fn sysctl(&self, wanted: &str) -> Option<&str> {
        self.sysctls.iter().find(|(parameter, _)| parameter == wanted).map(|(_, value)| value.as_str())
    }

    /// All the namespace's other sysctls in one visit.
    fn write_sysctls(&self) -> Result<(), SysctlError> {
        if self.addresses.iter().any(|address| !address.is_ipv4()) {
            // Runtimes disable IPv6 in namespaces of hosts without it; an address was asked for, so it is wanted here.
            let lo = Key::new("net/ipv6/conf/lo/disable_ipv6")?;
            lo.put_if_present("0")?;
            Key::of_interface("ipv6", &self.name, "disable_ipv6").put_if_present("0")?;
            Key::of_interface("ipv6", &self.name, "keep_addr_on_down").put_if_present("1")?;
        }
        for (parameter, value) in &self.sysctls {
            if parameter != ARP_NOTIFY
                && let Some((family, parameter)) = parameter.split_once('/')
            {
                Key::of_interface(family, &self.name, parameter).put_if_present(value)?;
            }
        }
        Ok(())
    }

    fn add_route(&self, netlink: &mut Netlink, index: u32, route: &RouteEntry) -> Result<(), NetlinkError> {
        match netlink.add_route(index, self.name.as_str(), route) {
            // Exactly this route is there: that is what was wanted.
            Err(error) if error.is_exists() => Ok(()),
            other => other,
        }
    }

    fn wait_for_dad(&self, host: &mut Host<'_>, index: u32) -> Result<(), Error> {
        let (netns, netlink) = host.need_container("wait for its addresses")?.parts()?;
        let settled = netlink.wait_for(Some(netns), DAD_LIMIT, |netlink| {
            let addresses = netlink.addresses(index)?;
            let duplicate = addresses.iter().find(|address| address.state == AddressState::Duplicate);
            let tentative = addresses.iter().any(|address| address.state == AddressState::Tentative);
            Ok(match (duplicate, tentative) {
                (Some(duplicate), _) => Some(Some(duplicate.cidr)),
                (None, false) => Some(None),
                (None, true) => None,
            })
        })?;
        match settled {
            Some(None) => Ok(()),
            Some(Some(duplicate)) => Err(Error::Exists {
                what: format!(
                    "address {duplicate} on the link of {} (found by duplicate address detection)",
                    self.name
                ),
                hint: "another host uses this address; exclude it from the range",
            }),
            None => Err(Error::NotReady {
                what: format!("duplicate address detection on {} was not finished", self.name),
                seconds: DAD_LIMIT.as_secs(),
            }),
        }
    }
}

impl Lifecycle for Interface {
    fn ensure(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let container = host.need_container("configure its interface")?;
        container.netns.run(|| self.write_sysctls())??;
        let name = self.name.as_str();
        let index = host.need_container_link_index(&self.name)?;
        let netlink = host.need_container("configure its interface")?.netlink()?;
        let change = LinkChange {
            up: self.up.then_some(true),
            arp_notify: self.sysctl(ARP_NOTIFY).and_then(|value| value.parse().ok()),
            ..LinkChange::default()
        };
        netlink.change_link(index, name, &change)?;
        for address in &self.addresses {
            match netlink.add_address(index, name, address, self.dad) {
                Err(error) if error.is_exists() => {}
                other => other?,
            }
        }
        if self.dad && self.addresses.iter().any(|address| !address.is_ipv4()) {
            self.wait_for_dad(host, index)?;
        }
        let netlink = host.need_container("configure its interface")?.netlink()?;
        for route in &self.routes {
            self.add_route(netlink, index, route)?;
        }
        Ok(())
    }

    fn verify(&self, host: &mut Host<'_>) -> Result<(), Error> {
        let link = host.need_container_link(&self.name)?;
        if self.up {
            same(
                || format!("state of {} in the container", self.name),
                &"up",
                &if link.up { "up" } else { "down" },
            )?;
        }
        let netlink = host.need_container("verify its interface")?.netlink()?;
        let addresses = netlink.addresses(link.index)?;
        for wanted in &self.addresses {
            let found = addresses.iter().find(|address| address.cidr == *wanted);
            let state = found.map_or("missing", |address| match address.state {
                AddressState::Duplicate => "a duplicate",
                AddressState::Ready | AddressState::Tentative => "present",
            });
            same(|| format!("address {wanted} on {} in the container", self.name), &"present", &state)?;
        }
        for ipv4 in [true, false] {
            let wanted: Vec<&RouteEntry> =
                self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4).collect();
            if wanted.is_empty() {
                continue;
            }
            let present = netlink.routes(link.index, ipv4)?;
            for route in wanted {
                let found = present.iter().any(|other| serves(other, route));
                let state = if found { "present" } else { "missing" };
                same(|| format!("route {route} through {} in the container", self.name), &"present", &state)?;
            }
        }
        Ok(())
    }

    fn remove(&self, _: &mut Host<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Routes may have been taken away.
    fn heed(&mut self, previous: &AddResult) -> Result<(), Error> {
        let listed = |dst| previous.routes.iter().any(|route| route.dst.network() == dst);
        self.routes.retain(|route| listed(route.dst));
        Ok(())
    }
}

/// Whether a route of the kernel's is the one that was asked for. What was not asked for may be anything: the kernel fills in.
fn serves(present: &RouteEntry, wanted: &RouteEntry) -> bool {
    let given = |wanted: Option<u32>, present: Option<u32>| wanted.is_none() || wanted == present;
    // Routes with several next hops show none of them here; a later plugin may have joined ours with another.
    let gateway =
        |present: Option<IpAddr>| present.is_none() || wanted.gateway.is_none() || present == wanted.gateway;
    // A later plugin may have moved the routes to a table of the interface's own (source based routing).
    let table = wanted.table.is_none() || present.effective_table() == wanted.effective_table();
    present.dst == wanted.dst.network()
        && table
        && gateway(present.gateway)
        && given(wanted.priority, present.priority)
        && given(wanted.mtu, present.mtu)
        && given(wanted.advmss, present.advmss)
}
