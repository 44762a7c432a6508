//! The server inside the containers of the end-to-end tests: `answer NAME PORT...`
//!
//! It listens on every PORT, TCP and UDP, IPv4 and IPv6, and answers each connection or datagram with one line,
//! `NAME saw PEER`. The name tells which container was reached; the peer tells whether the packet was masqueraded
//! on its way. It is one static file without dependencies, because a container here has no other files, and because
//! a pause image is made of it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::thread;

/// A dual-stack socket sees IPv4 peers as `::ffff:a.b.c.d`; a test wants to read `a.b.c.d`.
fn line(name: &str, peer: SocketAddr) -> String {
    format!("{name} saw {}\n", peer.ip().to_canonical())
}

fn serve_tcp(name: &str, address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (mut stream, peer) = listener.accept()?;
        // A client that went away is that client's business.
        let _ = stream.write_all(line(name, peer).as_bytes());
    }
}

fn serve_udp(name: &str, address: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut datagram = [0; 2048];
    loop {
        // An ICMP error for an earlier answer surfaces here; the next datagram is unaffected by it.
        if let Ok((_, peer)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(line(name, peer).as_bytes(), peer);
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), ports) = (arguments.next(), arguments.map(|port| port.parse())) else {
        eprintln!("usage: answer NAME PORT...");
        return ExitCode::FAILURE;
    };
    let ports: Vec<u16> = match ports.collect() {
        Ok(ports) => ports,
        Err(error) => {
            eprintln!("answer: a port is not a number: {error}");
            return ExitCode::FAILURE;
        }
    };
    for port in ports {
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        for serve in [serve_tcp, serve_udp] {
            let name = name.clone();
            thread::spawn(move || {
                if let Err(error) = serve(&name, address) {
                    eprintln!("answer: {address}: {error}");
                    std::process::exit(1);
                }
            });
        }
    }
    // With no port it is a pause program: it holds the namespaces of a pod until it is killed.
    loop {
        thread::park();
    }
}
