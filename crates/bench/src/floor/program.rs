//! The process of the floor.

use std::io::Write as _;
use std::process::ExitCode;

use super::{Request, add, del};

/// `bench-floor add|del REQUEST…`.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next();
    let done = match (verb.as_deref(), Request::parse(arguments)) {
        (Some("add"), Some(request)) => add(&request),
        (Some("del"), Some(request)) => del(&request),
        _ => Err(std::io::Error::other(
            "usage: bench-floor add|del NETNS NUMBER FAMILIES firewall|plain [PORT…]",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench-floor: {error}");
            ExitCode::FAILURE
        }
    }
}
