//! Who has a UDP port of this host.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};

/// A program with a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name, as the kernel has it: 15 bytes at most.
    pub name: String,
    /// Its process.
    pub process: u32,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program {} (process {})", self.name, self.process)
    }
}

/// The program that keeps the kernel from receiving on a UDP port of the calling thread's namespace, by one family's addresses. `None` if there is none, and
/// if it is in another PID namespace, whose processes are not seen from here.
///
/// Sockets of the kernel's own (a tunnel device's, also of one that was moved away) are nobody's, and devices share them. A port is tried only where a
/// program has it: whoever tries a free one keeps it from others for that moment, and thousands of calls may do so at once.
pub fn holder(port: u16, ipv4: bool) -> Option<Program> {
    let program = program(&sockets(port, ipv4))?;
    let taken = try_bind(port, ipv4).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    taken.then_some(program)
}

/// The inodes of the sockets that are bound to a port, and may be in the way of one that receives by a family.
fn sockets(port: u16, ipv4: bool) -> Vec<u64> {
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let (four, six) = (if ipv4 { read("udp") } else { String::new() }, read("udp6"));
    let of_four = four.lines().filter_map(|line| socket_of(line, port));
    let of_six = six.lines().filter_map(|line| socket_of(line, port));
    // One of IPv6 may take packets of IPv4 as well, if it is bound to no address or to one of IPv4.
    let takes_four = |address: &str| {
        address.bytes().all(|digit| digit == b'0')
            || address.get(16..24).is_some_and(|part| part == "FFFF0000")
    };
    let of_six = of_six.filter(|(address, _)| !ipv4 || takes_four(address));
    of_four.chain(of_six).map(|(_, inode)| inode).collect()
}

/// The address and the inode of a socket with this port. `proc(5)`: a number, the local address and port in hexadecimal, and the inode as the tenth word.
fn socket_of(line: &str, port: u16) -> Option<(&str, u64)> {
    let mut words = line.split_whitespace();
    let (address, local) = words.nth(1)?.rsplit_once(':')?;
    if u16::from_str_radix(local, 16) != Ok(port) {
        return None;
    }
    words.nth(7)?.parse().ok().filter(|inode| *inode != 0).map(|inode| (address, inode))
}

fn program(sockets: &[u64]) -> Option<Program> {
    if sockets.is_empty() {
        return None;
    }
    let names: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|process: u32| {
        let has_it = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten().any(|fd| {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            target.to_str().is_some_and(|target| names.iter().any(|name| name == target))
        });
        let name = || fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        has_it.then(|| Program { name: name().trim_end().to_owned(), process })
    })
}

/// Takes a port as the kernel would for a tunnel device, and gives it back.
fn try_bind(port: u16, ipv4: bool) -> io::Result<()> {
    let family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if ipv4 {
        return Ok(bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?);
    }
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let address = std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
    Ok(bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_program_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let holder = holder(port, true).unwrap();
        assert_eq!(holder.process, std::process::id());
        assert_eq!(super::holder(port, false), None, "IPv6 is free");
        drop(socket);
        assert_eq!(super::holder(port, true), None);
    }

    #[test]
    fn one_socket_of_ipv6_may_have_the_port_of_both() {
        let both = UdpSocket::bind("[::]:0").unwrap();
        let port = both.local_addr().unwrap().port();
        assert!(holder(port, true).is_some() && holder(port, false).is_some());
        drop(both);
        let alone = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::empty(), None).unwrap();
        setsockopt(&alone, sockopt::Ipv6V6Only, &true).unwrap();
        let address = std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
        bind(alone.as_raw_fd(), &SockaddrIn6::from(address)).unwrap();
        assert!(holder(port, true).is_none() && holder(port, false).is_some());
    }

    #[test]
    fn a_line_of_another_port_is_no_socket() {
        let line = "10326: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 61702124 2 000000007e5a3c70 0";
        assert_eq!((socket_of(line, 4789), socket_of(line, 4790)), (Some(("00000000", 61_702_124)), None));
        assert_eq!(socket_of("  sl  local_address rem_address   st tx_queue", 4789), None);
    }
}
