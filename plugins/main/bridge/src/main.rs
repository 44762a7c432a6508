//! The `bridge` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_bridge::BridgePlugin)
}
