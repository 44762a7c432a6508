//! Telling the neighbours who has an address now, so that one that was given to another container before is reachable at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::LinkName;
use nix::errno::Errno;

use crate::error::Error;
use crate::host::Host;
use crate::netlink::MacAddress;
use crate::sys::send_frame;

const BROADCAST: [u8; 6] = [0xff; 6];
/// `ff02::1`, all nodes on the link, and its hardware address (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Sends a gratuitous ARP request (RFC 5227, section 3) for each IPv4 address of the container's interface, and an unsolicited neighbour
/// advertisement with the override flag (RFC 4861, section 7.2.6) for each IPv6 address. That one is lost is no failure: neighbours then
/// find out by themselves, only later; what the kernel refuses is ignored for the same reason.
pub fn announce(host: &mut Host<'_>, ifname: &LinkName, addresses: &[IpAddr]) -> Result<(), Error> {
    let container = host.need_container("announce its addresses")?;
    let Some(link) = container.netlink()?.link(ifname.as_str())? else { return Ok(()) };
    let Ok(mac) = link.mac.parse::<MacAddress>() else { return Ok(()) };
    let frames: Vec<([u8; 6], u16, Vec<u8>)> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => (BROADCAST, 0x0806, gratuitous_arp(mac, *v4)),
            IpAddr::V6(v6) => (ALL_NODES_MAC, 0x86dd, neighbour_advertisement(mac, *v6)),
        })
        .collect();
    container.netns.run(|| {
        for (destination, ethertype, payload) in &frames {
            let sent: Result<(), Errno> = send_frame(link.index, *destination, *ethertype, payload);
            if sent.is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// An ARP request (RFC 826) whose sender and target are the same address.
fn gratuitous_arp(mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
    packet.extend(mac.0);
    packet.extend(address.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// An `ICMPv6` neighbour advertisement (RFC 4861, section 4.4) in an IPv6 packet to all nodes.
fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac.0);
    let length = u16::try_from(message.len()).unwrap_or_default();
    let mut pseudo_header: Vec<u8> = address.octets().to_vec();
    pseudo_header.extend(ALL_NODES.octets());
    pseudo_header.extend(u32::from(length).to_be_bytes());
    pseudo_header.extend([0, 0, 0, ICMPV6]);
    pseudo_header.extend(&message);
    let checksum = internet_checksum(&pseudo_header).to_be_bytes();
    message.splice(2..4, checksum);
    // Version 6, hop limit 255: a receiver ignores an advertisement with less, because it came through a router.
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, 255]);
    packet.extend(address.octets());
    packet.extend(ALL_NODES.octets());
    packet.extend(message);
    packet
}

/// The one's complement sum of RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(pair.first().copied().unwrap_or_default()) << 8
                | u32::from(pair.get(1).copied().unwrap_or_default())
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_checksummed_message_is_zero() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let packet = neighbour_advertisement(MacAddress([2, 0, 0, 0, 0, 1]), address);
        assert_eq!(packet.len(), 40 + 32);
        let mut pseudo_header = packet[8..40].to_vec();
        pseudo_header.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        pseudo_header.extend(&packet[40..]);
        assert_eq!(internet_checksum(&pseudo_header), 0);
    }

    #[test]
    fn an_arp_announcement_names_its_address_twice() {
        let packet = gratuitous_arp(MacAddress([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(packet.len(), 28);
        assert_eq!(&packet[14..18], &packet[24..28]);
    }
}
