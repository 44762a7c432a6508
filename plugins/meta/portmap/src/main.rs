//! The `portmap` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_portmap::Portmap)
}
