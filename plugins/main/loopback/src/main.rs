//! The `loopback` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_loopback::Loopback)
}
