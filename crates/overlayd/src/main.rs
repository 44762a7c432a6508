//! `overlayd`: see the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    overlayd::main()
}
