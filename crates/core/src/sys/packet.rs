//! Sending one Ethernet payload through one interface, for gratuitous ARP and unsolicited neighbour advertisements.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

#[expect(clippy::cast_possible_truncation, reason = "the value is 17")]
const AF_PACKET: u16 = libc::AF_PACKET as u16;
#[expect(clippy::cast_possible_truncation, reason = "the structure has 20 bytes")]
const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// Sends `payload` through the interface with this index, to the hardware address `destination`, as protocol `ethertype` (`packet(7)`).
/// The socket belongs to the calling thread's network namespace.
pub(crate) fn send_frame(
    index: u32,
    destination: [u8; 6],
    ethertype: u16,
    payload: &[u8],
) -> Result<(), Errno> {
    // Protocol 0: the socket receives nothing.
    let socket: OwnedFd = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `sockaddr_ll` is plain data for which all zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = AF_PACKET;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_too_large| Errno::ENODEV)?;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&destination);
    // SAFETY: the buffer and the address outlive the call, and their lengths are those of the objects pointed to.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            payload.as_ptr().cast(),
            payload.len(),
            0,
            (&raw const address).cast(),
            ADDRESS_LENGTH,
        )
    };
    Errno::result(sent).map(|_| ())
}
