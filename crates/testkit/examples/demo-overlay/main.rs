//! The demonstration behind `make demo-overlay`: three hosts made of namespaces, one container network over them.
//!
//! Usage: `demo-overlay DIRECTORY` with the plugins and `overlayd`, inside private user, network and mount namespaces
//! (`demo/run-overlay` sees to that). It needs `ip` and `ping` besides.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling a story on the terminal is its purpose"
)]

mod agents;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(binaries), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: demo-overlay DIRECTORY (use `make demo-overlay`)");
        return ExitCode::from(2);
    };
    match story::tell(&binaries) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nThe demonstration failed: {why}");
            ExitCode::FAILURE
        }
    }
}
