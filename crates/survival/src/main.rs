//! Survival: whatever happens to a plugin, nothing leaks, nothing is lost, nothing is given twice.
//!
//! Each point is a system call of ADD, DEL or GC of a plugin, at which the plugin is killed or told of an error; then a runtime's next call, and
//! the host has to be as it was before. Worlds are processes in user, network and mount namespaces of their own: nothing here needs root
//! or touches the machine.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a world that can't be made ends, and the coordinator reports what it said"
)]

mod call;
mod calls;
mod churn;
mod cli;
mod damage;
mod job;
mod look;
mod message;
mod netlink;
mod networks;
mod plan;
mod pool;
mod regs;
mod report;
mod storm;
mod sweep;
mod trace;
mod watchdog;
mod worker;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
