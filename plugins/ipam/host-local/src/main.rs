//! The `host-local` plugin.

use std::process::ExitCode;

use ferrule_host_local::HostLocal;

fn main() -> ExitCode {
    cni::run(&HostLocal)
}
