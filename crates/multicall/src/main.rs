//! All plugins in one program. It is the plugin whose name it is called by: installed as hard links `bridge`, `host-local` and so on
//! (`make install MULTICALL=1`), it takes the place of one program for each at a fraction of their size.
//!
//! Each call is one plugin in a process of its own, as the specification has it. A delegate is found in `CNI_PATH` by its type, which is one of the
//! links, and executed; but for IPAM plugins that are part of what delegates, which are called (`docs/adr/0012-fewer-waits-and-starts.md`).

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cni::Plugin;

#[global_allocator]
static ALLOCATOR: cni::Allocator = cni::Allocator::new();

/// Every plugin of the workspace, unless fewer were asked for; a test compares them with the directories.
static PLUGINS: &[&(dyn Plugin + Sync)] = &[
    #[cfg(feature = "bridge")]
    &ferrule_bridge::BridgePlugin,
    #[cfg(feature = "firewall")]
    &ferrule_firewall::FirewallPlugin,
    #[cfg(feature = "host-local")]
    &ferrule_host_local::HostLocal,
    #[cfg(feature = "loopback")]
    &ferrule_loopback::Loopback,
    #[cfg(feature = "portmap")]
    &ferrule_portmap::Portmap,
    #[cfg(feature = "tuning")]
    &ferrule_tuning::Tuning,
    #[cfg(feature = "vxlan")]
    &ferrule_vxlan::VxlanPlugin,
];

fn main() -> ExitCode {
    // The name as it was called, not `/proc/self/exe`, which is the same for all links.
    let called = env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    match plugin(name) {
        Some(plugin) => cni::run(plugin),
        None => refuse(name),
    }
}

fn plugin(name: &OsStr) -> Option<&'static (dyn Plugin + Sync)> {
    PLUGINS.iter().copied().find(|plugin| name == plugin.name())
}

/// On standard error, of which a runtime shows what it finds where there is no document.
fn refuse(name: &OsStr) -> ExitCode {
    let names: Vec<&str> = PLUGINS.iter().map(|plugin| plugin.name()).collect();
    let names = names.join(", ");
    let message = format!(
        "`{}` is no plugin: this program is the plugin it is called by the name of, one of {names}",
        name.display()
    );
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::FAILURE
}
