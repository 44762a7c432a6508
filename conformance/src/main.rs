//! The `cni-conformance` program.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use conformance::{cli, lab, mutant, prove, run};

fn main() -> ExitCode {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    // Under the name of a plugin it is a stub delegate.
    if lab::stub::is_stub(&program) {
        let arguments = std::env::args().skip(1).collect();
        return match lab::stub::play(&program, arguments) {
            Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
            Err(error) => complain(&format!("stub {}: {error}", program.display())),
        };
    }
    // …or a plugin with a fault put in.
    if mutant::is_mutant(&program) {
        return match mutant::play(&program, std::env::args_os().skip(1).collect()) {
            Ok(status) => ExitCode::from(status),
            Err(error) => complain(&format!("mutant {}: {error}", program.display())),
        };
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == run::CASE_ARGUMENT) {
        return match run::child() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error),
        };
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == prove::ARGUMENT) {
        return match prove::main(&prove::Arguments::parse_from(std::env::args_os().skip(1))) {
            Ok(status) => ExitCode::from(status),
            Err(error) => complain(&error),
        };
    }
    match cli::main(&cli::Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => complain(&error),
    }
}

fn complain(error: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "cni-conformance: {error}");
    ExitCode::from(2)
}
