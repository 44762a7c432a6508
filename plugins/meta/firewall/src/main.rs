//! The `firewall` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_firewall::FirewallPlugin)
}
