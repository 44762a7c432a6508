//! The kernel changes of an attachment.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockProtocol;

use super::message::{
    Batch, Body, IFF_UP, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, NLM_F_CREATE, NLM_F_EXCL, RTM_DELLINK,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_SETLINK,
};
use super::{Family, Request};

const IFNAME: &str = "eth0";
const IFLA_MASTER: u16 = 10;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFPROTO_INET: u8 = 1;

/// Makes the attachment: on the host one message for the links and one transaction for the firewall, in the container one system call for the
/// interface, all addresses and routes.
///
/// # Errors
/// What the kernel said.
pub fn add(request: &Request) -> io::Result<()> {
    let netns = File::open(&request.netns)?;
    let bridge = match if_nametoindex(Request::BRIDGE) {
        Ok(index) => index,
        Err(_) => add_bridge(request)?,
    };
    for (address, ..) in request.addresses() {
        File::create_new(Path::new(Request::LEASES).join(address.to_string()))?;
    }
    add_veth(request, bridge, &netns)?;
    if request.firewall {
        elements(request, NFT_MSG_NEWSETELEM)?;
    }
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let index = if_nametoindex(IFNAME)?;
    // Before it is up: these decide what happens then.
    for parameter in ["accept_ra", "accept_dad"] {
        set(6, IFNAME, parameter, "0")?;
    }
    if request.families.contains(&Family::V6) {
        set(6, IFNAME, "keep_addr_on_down", "1")?;
    }
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, 0, |message| {
        message.link(index, IFF_UP);
        message.nested(IFLA_AF_SPEC, |families| {
            families.nested(AF_INET, |inet| {
                inet.nested(IFLA_INET_CONF, |conf| {
                    conf.attribute(IPV4_DEVCONF_ARP_NOTIFY, &1_u32.to_ne_bytes());
                });
            });
        });
    });
    for (address, prefix, _) in request.addresses() {
        add_address(&mut batch, index, address, prefix);
    }
    for (.., gateway) in request.addresses() {
        batch.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, |message| {
            message.bytes(&[
                family(gateway),
                0,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_STATIC,
                0,
                RTN_UNICAST,
                0,
                0,
                0,
                0,
            ]);
            message.attribute(RTA_GATEWAY, &octets(gateway));
        });
    }
    batch.transact(SockProtocol::NetlinkRoute)
}

/// Takes it away: the firewall's part and the link side by side, because the kernel makes either wait.
///
/// # Errors
/// What the kernel said.
pub fn del(request: &Request) -> io::Result<()> {
    let firewall = || if request.firewall { elements(request, NFT_MSG_DELSETELEM) } else { Ok(()) };
    let link = || {
        let mut batch = Batch::default();
        batch.message(RTM_DELLINK, 0, |message| {
            message.link(0, 0);
            message.text(IFLA_IFNAME, &request.link());
        });
        batch.transact(SockProtocol::NetlinkRoute)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(firewall);
        let here = link();
        other.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)).and(here)
    })?;
    for (address, ..) in request.addresses() {
        fs::remove_file(Path::new(Request::LEASES).join(address.to_string()))?;
    }
    Ok(())
}

/// Makes the bridge, with the gateways' addresses.
fn add_bridge(request: &Request) -> io::Result<u32> {
    fs::create_dir_all(Request::LEASES)?;
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |message| {
        message.link(0, IFF_UP);
        message.text(IFLA_IFNAME, Request::BRIDGE);
        message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    });
    batch.transact(SockProtocol::NetlinkRoute)?;
    let index = if_nametoindex(Request::BRIDGE)?;
    let mut batch = Batch::default();
    for (_, prefix, gateway) in request.addresses() {
        add_address(&mut batch, index, gateway, prefix);
    }
    batch.transact(SockProtocol::NetlinkRoute)?;
    Ok(index)
}

/// The pair: one end up and on the bridge, the other in the container, at once.
fn add_veth(request: &Request, bridge: u32, netns: &File) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |message| {
        message.link(0, IFF_UP);
        message.text(IFLA_IFNAME, &request.link());
        message.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        message.veth(IFNAME, netns);
    });
    batch.message(RTM_SETLINK, 0, |message| {
        message.bytes(&[0; 16]);
        message.text(IFLA_IFNAME, &request.link());
        message.text(IFLA_IFALIAS, &format!("the floor's attachment {:04x}", request.number));
        message.nested(IFLA_AF_SPEC, |families| {
            families.nested(AF_INET6, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    });
    batch.transact(SockProtocol::NetlinkRoute)?;
    set(6, &request.link(), "accept_ra", "0")
}

/// A sysctl of an interface.
fn set(ip: u8, interface: &str, parameter: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv{ip}/conf/{interface}/{parameter}");
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn add_address(batch: &mut Batch, index: u32, address: IpAddr, prefix: u8) {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    batch.message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, |message| {
        message.bytes(&[family(address), prefix, flags, 0]);
        message.bytes(&index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &octets(address));
        message.attribute(IFA_ADDRESS, &octets(address));
    });
}

/// Puts the attachment's elements in or takes them out, in one transaction.
fn elements(request: &Request, verb: u16) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(NFNL_MSG_BATCH_BEGIN, 0, |message| message.bytes(&generic(0, NFNL_SUBSYS_NFTABLES)));
    for (address, ..) in request.addresses() {
        let digit = if address.is_ipv4() { '4' } else { '6' };
        for set in ["masquerade", "forward"] {
            change(&mut batch, verb, &format!("{set}{digit}"), &[(octets(address), None)]);
        }
        let ports: Vec<_> = request
            .ports
            .iter()
            .map(|port| {
                // Parts of a concatenation fill whole words.
                let key = [&[port.protocol, 0, 0, 0][..], &port.host.to_be_bytes(), &[0; 2]].concat();
                let target = [&octets(address)[..], &port.container.to_be_bytes(), &[0; 2]].concat();
                (key, (verb == NFT_MSG_NEWSETELEM).then_some(target))
            })
            .collect();
        if !ports.is_empty() {
            change(&mut batch, verb, &format!("ports{digit}"), &ports);
        }
    }
    // What is acknowledged is the last change, not the end of the batch.
    let last = batch.acknowledge();
    batch.message(NFNL_MSG_BATCH_END, 0, |message| message.bytes(&generic(0, NFNL_SUBSYS_NFTABLES)));
    batch.exchange(SockProtocol::NetlinkNetFilter, last)
}

fn change(batch: &mut Batch, verb: u16, set: &str, elements: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let flags = if verb == NFT_MSG_NEWSETELEM { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    let value = |body: &mut Body<'_>, kind: u16, bytes: &[u8]| {
        body.nested(nested(kind), |data| data.attribute(NFTA_DATA_VALUE, bytes));
    };
    batch.message(NFNL_SUBSYS_NFTABLES << 8 | verb, flags, |message| {
        message.bytes(&generic(NFPROTO_INET, 0));
        message.text(NFTA_SET_ELEM_LIST_TABLE, "floor");
        message.text(NFTA_SET_ELEM_LIST_SET, set);
        message.nested(nested(NFTA_SET_ELEM_LIST_ELEMENTS), |list| {
            for (key, data) in elements {
                list.nested(nested(NFTA_LIST_ELEM), |element| {
                    value(element, NFTA_SET_ELEM_KEY, key);
                    if let Some(data) = data {
                        value(element, NFTA_SET_ELEM_DATA, data);
                    }
                });
            }
        });
    });
}

/// `nf_tables` insists on the flag.
fn nested(kind: u16) -> u16 {
    const NLA_F_NESTED: u16 = 1 << 15;
    kind | NLA_F_NESTED
}

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family.to_le_bytes()[0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
