//! Many hosts, and the network between them.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::PathBuf;

use crate::host::{Container, Host, join, prepare};
use crate::netlink;
use crate::netns::Netns;
use crate::oracle::set_sysctl;
use crate::runtime::Runtime;
use crate::wait::eventually;

/// Hosts on one underlay: each a namespace called `h1`, `h2` … with an interface `eth0`, and with state directories of its own.
///
/// The test's process is a [`Host`] too, which none of them is; containers of all hosts have their names in one `/run/netns`.
#[derive(Debug)]
pub struct Fabric {
    hosts: Vec<FabricHost>,
    middle: Container,
    host: Host,
}

impl Fabric {
    /// Hosts on one switch: `192.0.2.1/24` and `2001:db8::1/64` on the first, and so on.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn switched(count: u8) -> Self {
        let host = Host::new();
        let middle = Container(Netns::create("switch"));
        middle.enter(|| {
            prepare();
            netlink::add_bridge("switch").expect("making a switch");
            netlink::set_up("switch").expect("bringing the switch up");
        });
        let hosts = (1..=count)
            .map(|number| {
                let last = u16::from(number);
                let addresses =
                    (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
                FabricHost::new(&middle, number, addresses, |port| {
                    netlink::set_master(port, "switch").expect("plugging a host into the switch");
                    netlink::set_up(port).expect("bringing a port of the switch up");
                })
            })
            .collect();
        Self { hosts, middle, host }
    }

    /// Hosts each on a link of its own, with a router between: `198.51.N.2/24` and `2001:db8:N::2/64` on host number N.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn routed(count: u8) -> Self {
        let host = Host::new();
        let middle = Container(Netns::create("router"));
        middle.enter(|| {
            prepare();
            set_sysctl("net/ipv4/ip_forward", "1");
            set_sysctl("net/ipv6/conf/all/forwarding", "1");
        });
        let hosts = (1..=count)
            .map(|number| {
                let of = |last: u8| {
                    let (link, node) = (u16::from(number), u16::from(last));
                    (
                        Ipv4Addr::new(198, 51, number, last),
                        Ipv6Addr::new(0x2001, 0xdb8, link, 0, 0, 0, 0, node),
                    )
                };
                let (gateway4, gateway6) = of(1);
                let host = FabricHost::new(&middle, number, of(2), |port| join(port, gateway4, gateway6));
                host.enter(|| {
                    for gateway in [IpAddr::V4(gateway4), IpAddr::V6(gateway6)] {
                        netlink::add_default_route(gateway).expect("adding a host's default route");
                    }
                });
                host
            })
            .collect();
        Self { hosts, middle, host }
    }

    /// The hosts, the first of them called `h1`.
    pub fn hosts(&self) -> &[FabricHost] {
        &self.hosts
    }

    /// The switch, or the router.
    pub fn middle(&self) -> &Netns {
        &self.middle
    }

    /// Sets the MTU of the whole underlay.
    ///
    /// # Panics
    /// If it is refused.
    pub fn set_mtu(&self, mtu: u32) {
        for host in &self.hosts {
            host.enter(|| netlink::set_mtu("eth0", mtu)).expect("setting the MTU of a host");
            self.middle
                .enter(|| netlink::set_mtu(host.name(), mtu))
                .expect("setting the MTU of the underlay");
        }
    }

    /// A container without a network, of whichever host; gone when dropped.
    pub fn container(&self, name: &str) -> Container {
        self.host.container(name)
    }
}

/// One host of a fabric. Dereferences to its namespace, in which `/run/ferrule` and `/var/lib/cni` are its own.
#[derive(Debug)]
pub struct FabricHost {
    netns: Netns,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl FabricHost {
    fn new(
        middle: &Netns,
        number: u8,
        (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
        plug: impl FnOnce(&str) + Send,
    ) -> Self {
        let name = format!("h{number}");
        let own = PathBuf::from("/run/fabric").join(&name);
        let mut netns = Netns::create(&name);
        for (at, inside) in [("/run/ferrule", "ferrule"), ("/var/lib/cni", "cni")] {
            fs::create_dir_all(own.join(inside)).expect("making a host's state directory");
            fs::create_dir_all(at).expect("making the place of a state directory");
            netns = netns.with_mount(at, own.join(inside));
        }
        let file = File::open(netns.path()).expect("opening a host's namespace");
        middle.enter(|| {
            netlink::add_veth(&name, "eth0", &file).expect("making a host's link");
            plug(&name);
        });
        netns.enter(|| {
            prepare();
            join("eth0", ipv4, ipv6);
            // The kernel makes the local route of an IPv6 address a moment later, which would look like a change of the host.
            let digits = format!("{:032x}", ipv6.to_bits());
            let local = |line: &str| line.starts_with(&digits) && line.contains(" 80200001 ");
            let routed = || {
                let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
                routes.lines().any(local).then_some(())
            };
            eventually("the local route of a host's address", routed);
        });
        Self { netns, ipv4, ipv6 }
    }

    /// Its address on the underlay.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    /// Its IPv6 address on the underlay.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// A runtime on this host.
    pub fn runtime(&self) -> Runtime {
        Runtime::new().on(&self.netns)
    }
}

impl Deref for FabricHost {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Drop for FabricHost {
    fn drop(&mut self) {
        self.netns.delete();
    }
}
