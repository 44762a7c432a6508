//! A host made of namespaces: containers to connect, and a neighbour outside to see it from.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::Path;

use crate::netlink;
use crate::netns::Netns;
use crate::oracle::set_sysctl;
use crate::private;

/// The test's own host.
///
/// On construction it proves that the process is in network and mount namespaces of its own, gives it empty `/run`,
/// `/var/lib/cni` and `/etc/cni`, brings `lo` up, and sets the forwarding sysctls to the kernel's defaults (a new
/// namespace inherits them from the machine).
#[derive(Debug)]
pub struct Host {
    netns: Netns,
}

impl Host {
    /// Turns the process's namespaces into a host.
    ///
    /// # Panics
    /// If the namespaces are the machine's, or cannot be prepared.
    #[expect(clippy::new_without_default, reason = "making a host has effects a default must not have")]
    pub fn new() -> Self {
        private::require_private_namespaces();
        private::mount_tmpfs(Path::new("/run"));
        private::empty_directory(Path::new("/var/lib/cni"));
        private::empty_directory(Path::new("/etc/cni"));
        private::own_sysfs();
        prepare();
        Self { netns: Netns::host() }
    }

    /// The host's own network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A container without a network: a namespace at `/run/netns/NAME`, gone when dropped.
    pub fn container(&self, name: &str) -> Container {
        Container(Netns::create(name))
    }

    /// Joins the host to a neighbour: a namespace called `outside`, connected by a veth pair (`uplink0` on the host),
    /// with the host's default routes leading to it. The neighbour knows no way to any container network: it sees what
    /// a server on the internet would see.
    pub fn uplink(&self) -> Uplink {
        let outside = Container(Netns::create("outside"));
        let file = File::open(outside.path()).expect("opening the namespace outside");
        netlink::add_veth("uplink0", "eth0", &file).expect("making the uplink");
        join("uplink0", Uplink::HOST_IPV4, Uplink::HOST_IPV6);
        outside.enter(|| {
            netlink::set_up("lo").expect("bringing lo up outside");
            join("eth0", Uplink::OUTSIDE_IPV4, Uplink::OUTSIDE_IPV6);
        });
        for gateway in [IpAddr::V4(Uplink::OUTSIDE_IPV4), IpAddr::V6(Uplink::OUTSIDE_IPV6)] {
            netlink::add_default_route(gateway).expect("adding the host's default route");
        }
        Uplink(outside)
    }
}

/// Brings `lo` of the calling thread's namespace up, and sets the switches of forwarding to the kernel's defaults.
pub(crate) fn prepare() {
    netlink::set_up("lo").expect("bringing lo up");
    set_sysctl("net/ipv4/ip_forward", "0");
    for key in ["route_localnet", "rp_filter", "arp_ignore", "arp_announce", "arp_notify"] {
        for scope in ["all", "default"] {
            set_sysctl(&format!("net/ipv4/conf/{scope}/{key}"), "0");
        }
    }
}

pub(crate) fn join(link: &str, v4: Ipv4Addr, v6: Ipv6Addr) {
    // To ask for a neighbour of a packet it forwards, the kernel needs the link-local address, which would be unusable
    // for up to two seconds of duplicate address detection.
    set_sysctl(&format!("net/ipv6/conf/{link}/accept_dad"), "0");
    netlink::set_up(link).expect("bringing a side of the uplink up");
    netlink::add_address(link, v4.into(), 24).expect("adding an IPv4 address to the uplink");
    netlink::add_address(link, v6.into(), 64).expect("adding an IPv6 address to the uplink");
}

/// A container's network namespace; its name and kernel objects go when this is dropped.
#[derive(Debug)]
pub struct Container(pub(crate) Netns);

impl Container {
    /// Deletes the namespace now, under the feet of whoever connected it.
    pub fn destroy(self) {
        drop(self);
    }
}

impl Deref for Container {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.delete();
    }
}

/// The neighbour `outside` and the way to it. Dereferences to the neighbour's namespace.
#[derive(Debug)]
pub struct Uplink(Container);

impl Uplink {
    /// The host's address on the uplink.
    pub const HOST_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// The neighbour's address.
    pub const OUTSIDE_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    /// The host's IPv6 address on the uplink.
    pub const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    /// The neighbour's IPv6 address.
    pub const OUTSIDE_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
}

impl Deref for Uplink {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0
    }
}
