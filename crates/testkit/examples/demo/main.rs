//! The demonstration behind `make demo`: a container runtime in small, on a host made of namespaces.
//!
//! Usage: `demo PLUGIN_DIRECTORY CONFIGURATION_DIRECTORY`, inside private user, network and mount namespaces
//! (`demo/run` sees to that). It needs nothing but the kernel and the plugins.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling a story on the terminal is its purpose"
)]

mod drawing;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(plugins), Some(configurations), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: demo PLUGIN_DIRECTORY CONFIGURATION_DIRECTORY (use `make demo`)");
        return ExitCode::from(2);
    };
    match story::tell(&plugins, &configurations) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nThe demonstration failed: {why}");
            ExitCode::FAILURE
        }
    }
}
