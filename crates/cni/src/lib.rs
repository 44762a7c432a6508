//! The CNI contract, from the plugin's side.
//!
//! A plugin implements [`Plugin`] and hands itself to [`run`]; everything between the process and the five verbs is here: environment and
//! configuration with the specification's error codes, versions 0.1.0 to 1.1.0 and conversion of results between them, delegation to other
//! plugins. The crate knows no kernel beyond what the standard library tells about a file: bring your own networking.
//!
//! ```no_run
//! use std::{path::Path, process::ExitCode};
//! use cni::{AddResult, Attachment, Code, Failure, Interface, Plugin, Request, Target, ValidAttachments};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "camelCase")]
//! struct Config {
//!     greeting: String,
//! }
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     fn name(&self) -> &'static str { "hello" }
//!
//!     fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
//!         let config: Config = request.config().decode()?;
//!         if config.greeting.is_empty() {
//!             return Err(Failure::new(Code::InvalidConfig, "greeting: is empty").hint("say hello"));
//!         }
//!         // ... make an interface in target.netns() ...
//!         let interface = Interface {
//!             name: target.ifname().to_string(),
//!             sandbox: target.netns().display().to_string(),
//!             ..Interface::default()
//!         };
//!         Ok(AddResult { interfaces: vec![interface], ..AddResult::default() })
//!     }
//!
//!     fn del(&self, _: &Request, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> { Ok(()) }
//!     fn check(&self, _: &Request, _: &Target) -> Result<(), Failure> { Ok(()) }
//!     fn gc(&self, _: &Request, _: &ValidAttachments) -> Result<(), Failure> { Ok(()) }
//!     fn status(&self, _: &Request) -> Result<(), Failure> { Ok(()) }
//! }
//!
//! fn main() -> ExitCode {
//!     cni::run(&Hello)
//! }
//! ```
#![forbid(unsafe_code)]

pub mod address;
mod args;
mod delegate;
mod environment;
mod failure;
pub mod json;
mod name;
mod netns;
mod plugin;
mod process;
mod request;
mod result;
mod version;

pub use address::{AddressError, Cidr};
pub use args::Args;
pub use delegate::{Delegate, Running};
pub use environment::{Attachment, Environment, Verb};
pub use failure::{Code, Failure};
pub use name::{ContainerId, LinkName, NameError, NetworkName};
pub use plugin::{Plugin, Response, respond};
pub use process::run;
pub use request::{Config, Request, Target, ValidAttachments, invalid};
pub use result::{AddResult, Dns, Interface, Ip, ResultError, Route};
pub use version::SpecVersion;
