//! Telling systemd that the service is up (`sd_notify(3)`), where it started it.

use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::debug;

/// Sends a state, such as `READY=1`. Without systemd, does nothing.
pub(crate) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let sent = UnixDatagram::unbound().and_then(|socket| match bytes.split_first() {
        Some((b'@', name)) => {
            let address = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)
        }
        _ => socket.send_to(state.as_bytes(), &path),
    });
    if let Err(error) = sent {
        debug!(%error, "can't tell systemd");
    }
}
