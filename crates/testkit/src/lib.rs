//! What the tests stand on.
//!
//! Each test is a host of its own: the test runner (`tools/unshare-runner`) starts every test process in a new user,
//! network and mount namespace, and [`Host`] turns that into a machine with private state directories, containers to
//! connect and a neighbour outside. [`Runtime`] executes plugins the way libcni does, and the oracles ([`ip_json`],
//! [`nft_json`], [`ping`], [`tcp_roundtrip`] …) look at the outcome with other people's tools or real packets.
//!
//! Nothing here depends on the crates under test: a mistake shared by a plugin and its test would be invisible.
//!
//! ```no_run
//! use serde_json::json;
//! use testkit::{Attachment, Host, Runtime, Snapshot, ip_json};
//!
//! let host = Host::new();
//! let before = Snapshot::take();
//! let container = host.container("c1");
//! let chain = Runtime::new().chain(&json!({
//!     "cniVersion": "1.1.0", "name": "lo", "plugins": [{"type": "loopback"}]
//! }));
//! let attachment = Attachment::new("c1", &container, "lo");
//! chain.add(&attachment).unwrap();
//! let links = container.enter(|| ip_json("addr show lo"));
//! assert_eq!(links[0]["addr_info"][0]["local"], "127.0.0.1");
//! chain.del(&attachment).unwrap();
//! drop(container);
//! before.assert_same(&Snapshot::take());
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "this crate runs inside tests, where a clear panic is how a test says what went wrong"
)]

mod fabric;
mod failing;
mod firewalld;
mod host;
mod kernel;
mod netlink;
mod netns;
mod normal;
mod oracle;
mod plugin;
mod private;
mod runtime;
pub mod skip;
mod snapshot;
mod tracer;
mod traffic;
mod wait;

pub use fabric::{Fabric, FabricHost};
pub use failing::failing;
pub use firewalld::{RunningFirewalld, SYSTEM_BUS, SystemBus};
pub use host::{Container, Host, Uplink};
pub use netns::{Netns, Ran};
pub use oracle::{have, ip_json, nft_json, nft_text, ping, set_sysctl, sysctl, tool};
pub use plugin::{Invocation, Output, Plugin, documented_example, plugin_dir, workspace_dir};
pub use runtime::{Attachment, Chain, PluginFailure, Runtime, reference_dir};
pub use snapshot::Snapshot;
pub use tracer::{End, kill_every, kill_everywhere, may_trace};
pub use traffic::{
    EchoServer, Reply, advertise_router, tcp_echo_server, tcp_roundtrip, udp_echo_server, udp_roundtrip,
};
pub use wait::{DEADLINE, eventually};
