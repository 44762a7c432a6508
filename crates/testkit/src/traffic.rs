//! Real packets: echo servers in a namespace, and conversations with them from another.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::netns::Netns;

/// How often a server that nobody talks to looks whether it is to stop.
const TICK: TimeVal = TimeVal::new(0, 20_000);
/// How long one attempt at a conversation may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server that answers every line with `<line> <address it saw the sender at> <name of its namespace>`, so that one
/// answer tells both who was reached and whether the sender was masqueraded. Stops when dropped.
///
/// Its socket keeps the namespace alive: drop it before expecting a destroyed container's links to vanish.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Where it listens; the port is the kernel's choice if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(address: SocketAddr, serve: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Self { address, stop, thread: Some(std::thread::spawn(move || serve(&seen))) }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What came back from an [`EchoServer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The name of the namespace that answered.
    pub server: String,
    /// The sender's address as the server saw it.
    pub seen_from: SocketAddr,
}

/// Starts a TCP echo server in `netns` on `address` (unspecified for every address of that family).
///
/// # Panics
/// If the address cannot be bound.
pub fn tcp_echo_server(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> EchoServer {
    let wanted = SocketAddr::new(address.into(), port);
    let listener = netns
        .enter(|| TcpListener::bind(wanted))
        .unwrap_or_else(|e| panic!("listening on tcp {wanted} in {}: {e}", netns.name()));
    let name = netns.name().to_owned();
    let address = listener.local_addr().expect("the address of a listener");
    setsockopt(&listener, sockopt::ReceiveTimeout, &TICK).expect("setting a timeout");
    EchoServer::start(address, move |stop| {
        while !stop.load(Ordering::Relaxed) {
            // One client's trouble (a reset, a stall) is that client's to notice, and no other's.
            if let Ok((stream, peer)) = listener.accept() {
                let peer = unmapped(peer);
                let name = name.clone();
                std::thread::spawn(move || drop(answer_lines(&stream, peer, &name)));
            }
        }
    })
}

/// An IPv4 sender as such, which a socket for both families sees as an IPv6 address.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn answer_lines(stream: &TcpStream, peer: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    for line in BufReader::new(stream).lines() {
        let answer = format!("{} {peer} {name}\n", line?);
        (&*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Starts a UDP echo server in `netns` on `address`.
///
/// # Panics
/// If the address cannot be bound.
pub fn udp_echo_server(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> EchoServer {
    let wanted = SocketAddr::new(address.into(), port);
    let socket = netns
        .enter(|| UdpSocket::bind(wanted))
        .unwrap_or_else(|e| panic!("listening on udp {wanted} in {}: {e}", netns.name()));
    let name = netns.name().to_owned();
    let address = socket.local_addr().expect("the address of a socket");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("setting a timeout");
    EchoServer::start(address, move |stop| {
        let mut datagram = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let Ok((length, sender)) = socket.recv_from(&mut datagram) else { continue };
            let peer = unmapped(sender);
            let line = String::from_utf8_lossy(&datagram[..length]);
            let _ = socket.send_to(format!("{} {peer} {name}\n", line.trim_end()).as_bytes(), sender);
        }
    })
}

/// Sends a line over a new TCP connection from `netns` and returns the echo server's answer.
///
/// # Errors
/// What the socket said: refused, timed out (after two seconds), unreachable; or `InvalidData` for another answer.
pub fn tcp_roundtrip(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> io::Result<Reply> {
    let target = SocketAddr::new(address.into(), port);
    let line = greeting();
    netns.enter(|| {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        parse(&line, &answer)
    })
}

/// Sends a datagram from `netns` and returns the echo server's answer, repeating it a few times as UDP clients do.
///
/// # Errors
/// As [`tcp_roundtrip`].
pub fn udp_roundtrip(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> io::Result<Reply> {
    let target = SocketAddr::new(address.into(), port);
    let here: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let line = greeting();
    netns.enter(|| {
        let socket = UdpSocket::bind((here, 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(PATIENCE / 4))?;
        let mut datagram = [0; 2048];
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..4 {
            match socket.send(line.as_bytes()).and_then(|_| socket.recv(&mut datagram)) {
                Ok(length) => return parse(&line, &String::from_utf8_lossy(&datagram[..length])),
                Err(e) => last = e,
            }
        }
        Err(last)
    })
}

/// A line no earlier conversation sent: an answer to it is an answer to this one.
fn greeting() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("hello-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn parse(line: &str, answer: &str) -> io::Result<Reply> {
    let mut words = answer.split_whitespace();
    match (words.next(), words.next().map(str::parse), words.next(), words.next()) {
        (Some(echo), Some(Ok(seen_from)), Some(server), None) if echo == line => {
            Ok(Reply { server: server.to_owned(), seen_from })
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not an echo of {line:?}: {answer:?}"))),
    }
}

/// Sends a router advertisement (RFC 4861, section 4.2) from a link of the calling thread's namespace: a default route through it for
/// half an hour, and a prefix to make addresses of.
///
/// # Panics
/// If it cannot be sent.
pub fn advertise_router(link: &str, prefix: std::net::Ipv6Addr) {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt,
    };
    let index = nix::net::if_::if_nametoindex(link).unwrap();
    let protocol = nix::sys::socket::SockProtocol::IcmpV6;
    let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    // With less, it would have come through a router, and nobody would believe it.
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &255).unwrap();
    let mut packet = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([3, 4, 64, 0xc0, 0, 0, 0x07, 0x08, 0, 0, 0x07, 0x08, 0, 0, 0, 0]);
    packet.extend(prefix.octets());
    let all_nodes = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    sendto(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &packet,
        &SockaddrIn6::from(all_nodes),
        nix::sys::socket::MsgFlags::empty(),
    )
    .unwrap();
}
