//! What plugins cost, measured against another suite and against the kernel's own part, in turns in one run.
//!
//! `make bench` runs all of it; `bench --list` names the scenarios. Only ratios of one run are judged, because seconds are the machine's. Every
//! contender has a host of its own, made of namespaces ([`Host`]); the machine's own network is never touched.
//!
//! | module | what it knows |
//! |---|---|
//! | [`suite`] | who is measured: a directory of plugins, or the [`floor`] |
//! | [`job`] | what is to be done: the network list, for plugins and for the floor |
//! | [`site`] | a contender doing a job on a host of its own, as a runtime would have it do it |
//! | [`exec`], [`trace`], [`memory`] | what one execution cost |
//! | [`scenario`] | which jobs, how often, in which order |
//! | [`report`], [`verdict`] | everything that was measured, and the targets |
//! | [`instructions`] | what the pure parts cost, without a clock |
//! | [`table`], [`explain`], [`plots`], [`page`] | how it is shown |

pub mod cli;
pub mod error;
pub mod exec;
pub mod explain;
pub mod floor;
pub mod host;
pub mod instructions;
pub mod job;
pub mod machine;
pub mod memory;
pub mod page;
pub mod plots;
pub mod report;
pub mod scenario;
pub mod site;
pub mod stats;
pub mod suite;
pub mod svg;
pub mod table;
pub mod trace;
pub mod verdict;

pub use error::{BenchError, Result};
pub use host::Host;
