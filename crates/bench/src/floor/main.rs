//! `bench-floor`: see `bench::floor`.
use std::process::ExitCode;

fn main() -> ExitCode {
    bench::floor::main()
}
