//! SCTP, by packets made by hand: the kernel under test need not speak it to translate it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvfrom, sendto, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use serde_json::json;
use testkit::{DEADLINE, Netns, Uplink};

use crate::lab::{Lab, network, port};

fn raw_socket(netns: &Netns) -> OwnedFd {
    netns.enter(|| {
        let socket =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp).unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, 100_000)).unwrap();
        socket
    })
}

/// The CRC-32C checksum that SCTP has (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// An INIT chunk, with which an association begins (RFC 9260, section 3.3.2).
fn init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 20]); // INIT, no flags, length
    packet.extend(0x1234_5678_u32.to_be_bytes());
    packet.extend(65536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// The next SCTP packet from a source port, without its IP header.
fn receive(socket: &OwnedFd, source: u16) -> Option<Vec<u8>> {
    let deadline = Instant::now() + DEADLINE / 5;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let Ok((length, _)) = recvfrom::<SockaddrIn>(socket.as_raw_fd(), &mut buffer) else { continue };
        let header = usize::from(buffer[0] & 15) * 4;
        let packet = &buffer[header..length];
        if packet[..2] == source.to_be_bytes() {
            return Some(packet.to_vec());
        }
    }
    None
}

fn sctp_is_translated(backend: &str) {
    let lab = Lab::new();
    let net = network(1, &json!({ "backend": backend }));
    let gateway = net.start(&lab, "gateway", &json!([port("SCTP", 38412, 9999)]));
    let inside = raw_socket(&gateway.container);
    let outside = raw_socket(&lab.outside);
    let send = |from: u16, to: u16| {
        let target = SockaddrIn::from(std::net::SocketAddrV4::new(Uplink::HOST_IPV4, 0));
        sendto(outside.as_raw_fd(), &init(from, to), &target, MsgFlags::empty()).unwrap();
    };
    send(4001, 38412);
    let packet = receive(&inside, 4001).expect("an INIT to the published port arrives in the container");
    assert_eq!(packet[2..4], 9999_u16.to_be_bytes(), "at the container's port");
    let mut zeroed = packet.clone();
    zeroed[8..12].fill(0);
    assert_eq!(packet[8..12], crc32c(&zeroed).to_le_bytes(), "with a checksum that is right");
    send(4002, 38413);
    assert_eq!(receive(&inside, 4002), None, "another port is not published");
}

#[test]
fn sctp_is_translated_with_nftables() {
    sctp_is_translated("nftables");
}

#[test]
fn sctp_is_translated_with_iptables() {
    sctp_is_translated("iptables");
}
