//! `overlayd`, the node agent of overlay networks.
//!
//! One agent a network and node. It follows a [`source`] of nodes, works out what this host's kernel should have (`ferrule_overlay`), and
//! sees to it that the kernel has it: when the source tells of a change, when the kernel tells of one, and every few seconds. It writes
//! down what the `vxlan` plugin needs, so that containers come and go while the agent, or the source, is away.
//!
//! What is known stays in force until something better is known: no failure of a source takes anything away.
#![forbid(unsafe_code)]

mod agent;
mod cleanup;
mod cli;
pub mod config;
pub mod control;
mod descriptor;
mod error;
mod kernel;
pub mod membership;
pub mod notify;
mod report;
pub mod snapshot;
pub mod source;
pub mod status;
mod systemd;
pub mod underlay;

pub use cli::{Arguments, LogFormat, ModeOption, RunOptions, main};
pub use error::Error;
