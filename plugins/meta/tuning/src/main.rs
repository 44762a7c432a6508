//! The `tuning` plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ferrule_tuning::Tuning)
}
