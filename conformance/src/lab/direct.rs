//! What `ip netns add`, `ip link set lo up` and `sh -c` do, without a program for each of the thousands of times.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Makes a network namespace that `path` keeps alive, as `ip netns add` does.
pub(super) fn add(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    // A thread goes into the new namespace and ends there: the others stay where they are.
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    made.map_err(io::Error::from)
}

/// Brings up `lo` in the calling thread's network namespace.
pub(super) fn raise_loopback() -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = LinkMessage::default();
    request.header.index = 1; // the first interface of every namespace
    request.header.flags = LinkFlags::Up;
    request.header.change_mask = LinkFlags::Up;
    let request = NetlinkPayload::from(RouteNetlinkMessage::SetLink(request));
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// Starts this line of shell: without the shell, where it is but one plain call of `ip`.
pub(super) fn command(script: &str) -> Command {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@+, ".contains(c);
    let mut words = script.split_whitespace();
    if script.chars().all(plain) && words.next() == Some("ip") {
        let mut command = Command::new("ip");
        command.args(words);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn only_what_a_shell_would_not_change_goes_without_one() {
        for (script, program) in [
            ("ip link add br0 type bridge", "ip"),
            ("ip link del $IFNAME", "sh"),
            ("ip link del a; ip link del b", "sh"),
            ("ip link show 2>/dev/null", "sh"),
            ("echo plain", "sh"),
        ] {
            assert_eq!(command(script).get_program(), program, "{script}");
        }
    }
}
