//! The `vxlan` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_vxlan::VxlanPlugin)
}
