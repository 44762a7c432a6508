//! Telling the neighbours who has an address now, so that one that was given to another container before is reachable at once.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
    sockopt,
};

use crate::error::Error;
use crate::host::Host;
use crate::netlink::{Link, MacAddress};

/// `ff02::1`, all nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Sends a gratuitous ARP request (RFC 5227, section 3) for each IPv4 address of the container's interface, and an unsolicited neighbour
/// advertisement with the override flag (RFC 4861, section 7.2.6) for each IPv6 address. That one is lost is no failure: neighbours then
/// find out by themselves, only later; what the kernel refuses is ignored for the same reason.
///
/// Neither takes a packet socket: to close one waits for a grace period of the kernel, 5 to 19 ms where it was measured.
pub fn announce(host: &mut Host<'_>, link: &Link, addresses: &[IpAddr]) -> Result<(), Error> {
    let container = host.need_container("announce its addresses")?;
    for address in addresses.iter().filter(|address| address.is_ipv4()) {
        // To resolve its own address, the kernel asks for it in the name of the same address: a gratuitous ARP request.
        drop(container.netlink()?.solicit(link.index, *address));
    }
    let v6 =
        || addresses.iter().filter_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None });
    let Ok(mac) = link.mac.parse::<MacAddress>() else { return Ok(()) };
    if v6().next().is_some() {
        container.netns.run(|| v6().for_each(|address| _ = advertise(link.index, mac, address)))?;
    }
    Ok(())
}

/// Sends the advertisement through the link with this index, in the calling thread's network namespace. Needs `CAP_NET_RAW`.
fn advertise(link: u32, mac: MacAddress, address: Ipv6Addr) -> Result<(), Errno> {
    let on_link = |address| SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, link));
    let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    // A receiver ignores an advertisement with less, because it came through a router.
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255)?;
    bind(socket.as_raw_fd(), &on_link(address))?;
    let message = neighbour_advertisement(mac, address);
    sendto(socket.as_raw_fd(), &message, &on_link(ALL_NODES), MsgFlags::empty()).map(drop)
}

/// A neighbour advertisement (RFC 4861, section 4.4). The kernel fills in its checksum (RFC 3542, section 3.1).
fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac.0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_the_address_and_who_has_it() {
        let packet = neighbour_advertisement(MacAddress([2, 0, 0, 0, 0, 1]), "fd00::2".parse().unwrap());
        assert_eq!(packet.len(), 32);
        assert_eq!(&packet[26..], [2, 0, 0, 0, 0, 1]);
    }
}
