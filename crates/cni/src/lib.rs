//! The CNI contract, from the plugin's side.
//!
//! A plugin implements [`Plugin`] and hands itself to [`run`], or to [`main!`], which is a program's `main` with that call; everything between the process and the five verbs is here: environment and
//! configuration with the specification's error codes, versions 0.1.0 to 1.1.0 and conversion of results between them, delegation to other
//! plugins. The crate knows no kernel beyond what the standard library tells about a file: bring your own networking.
//!
//! ```no_run
//! use std::path::Path;
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
//! cni::main!(Hello);
//! ```
//!
//! A whole plugin, with state, IPAM and all verbs in earnest, is `examples/hello.rs`.
//!
//! # Who does what
//!
//! Before a verb's method is called, this has been settled; nothing has been changed by then, and every error names its cause:
//!
//! - `CNI_COMMAND` is a verb, and the variables that it needs are there and valid ([`Attachment`], [`Target`]). An empty variable is none.
//! - Standard input was one JSON object with a legal `name` and a supported `cniVersion`, and the verb exists in that version.
//! - For ADD, `prevResult` can be read, whatever its version.
//! - For ADD and CHECK, `CNI_NETNS` exists and is not the plugin's own (unless `CNI_NETNS_OVERRIDE` says so). For DEL, a
//!   namespace that can't be used is `None`, and there is nothing to do inside.
//! - For GC, there is a list of the attachments in use. Without one nothing is stale, and the method is not called.
//!
//! What remains for the plugin:
//!
//! | Verb | Promise |
//! |---|---|
//! | [`add`](Plugin::add) | All or nothing: on an error, take back what was done. Start from [`Config::prev_result`] if there is one, and add to it |
//! | [`del`](Plugin::del) | Succeeds in any state, any number of times: without a namespace, without `prevResult`, after a crash, for what was never added |
//! | [`check`](Plugin::check) | Reads, changes nothing. [`Config::required_prev_result`] is what the runtime was told |
//! | [`gc`](Plugin::gc) | Removes what belongs to this network (`name`) and is not in the list; goes on after errors ([`Failure::join`]) |
//! | [`status`](Plugin::status) | Reads, quickly. Fails with [`Code::NotAvailable`] or [`Code::LimitedConnectivity`] |
//!
//! Afterwards the result is written in the request's version, a failure or a panic as an error document: one document on
//! standard output, or none. If an ADD can't be reported (its version can't express the result, the runtime has gone), it is taken back
//! with the plugin's own `del`. The plugin itself prints nothing: what is worth a line in the runtime's log is for [`Request::note`].
//!
//! VERSION is answered from [`Plugin::versions`]. A call without `CNI_COMMAND` prints the plugin's name and its versions.
//!
//! # Errors
//!
//! A [`Failure`] is a [`Code`], one line that says what failed on which object, further lines of detail, and a hint: what to do about it.
//! Runtimes act on the code and show the line.
//!
//! | Number | [`Code`] | Raised by |
//! |---|---|---|
//! | 1 | [`IncompatibleVersion`](Code::IncompatibleVersion) | this crate: `cniVersion`, or a verb younger than it |
//! | 2 | [`UnsupportedField`](Code::UnsupportedField) | a plugin that can't ignore a key; the message has key and value |
//! | 3 | [`UnknownContainer`](Code::UnknownContainer) | a plugin that has nothing of this container: the runtime will not call DEL |
//! | 4 | [`InvalidEnvironment`](Code::InvalidEnvironment) | this crate: a variable, by its name |
//! | 5 | [`Io`](Code::Io) | standard input that can't be read; a plugin's files |
//! | 6 | [`Decode`](Code::Decode) | this crate: no JSON object, or `cniVersion`, `name`, `type` of a wrong kind |
//! | 7 | [`InvalidConfig`](Code::InvalidConfig) | [`Config::decode`] with path and value; a plugin's own checks |
//! | 11 | [`TryAgainLater`](Code::TryAgainLater) | a lock, a delegate that hangs: what passes by itself |
//! | 50, 51 | [`NotAvailable`](Code::NotAvailable), [`LimitedConnectivity`](Code::LimitedConnectivity) | a plugin's `status` |
//! | 100 | [`Kernel`](Code::Kernel) | a change that the kernel refused |
//! | 101 | [`Netns`](Code::Netns) | a namespace that can't be entered |
//! | 102 | [`CheckFailed`](Code::CheckFailed) | a plugin's `check` |
//! | 103 | [`Conflict`](Code::Conflict) | something that has another owner |
//! | 104 | [`Exhausted`](Code::Exhausted) | a range without a free address |
//! | 105 | [`Delegate`](Code::Delegate) | a delegate that is missing, crashes, or does not make sense |
//! | 106 | [`NotPermitted`](Code::NotPermitted) | a missing capability |
//! | 107 | [`Several`](Code::Several) | [`Failure::join`] of failures with different codes |
//! | 199 | [`Internal`](Code::Internal) | a panic |
//! | others | [`Foreign`](Code::Foreign) | a delegate, passed through |
//!
//! # JSON
//!
//! Configurations are decoded with serde, but by the rules of Go's `encoding/json`, since runtimes and administrators rely on what the Go
//! plugins accept. [`Config::decode`] and [`json::decode`] see to that for every structure below:
//!
//! - A key matches a field exactly or else without regard to ASCII case; the last of several counts.
//! - Unknown keys are ignored. Keep the derive's default: do not deny them.
//! - `null` is an absent key. As an element of a list or map it is the zero value: `""`, `0`, `false`, an empty list.
//! - Numbers, texts and booleans are not converted into each other; `1.0` and `1e2` are no integers.
//! - A field without `#[serde(default)]` and not an `Option` is required.
//! - Errors have the path (`ipam.ranges[0][1].subnet`) and the value. Under keys that look like a credential the value is withheld.
//!
//! `#[serde(flatten)]`, `untagged` and internally tagged enums make serde collect the keys before these rules can apply: matching is
//! exact then. To have the rest of an object, read [`Config::object`] beside the structure.
//!
//! Text forms are checked where they are read, by types: [`Cidr`] (host bits kept, as Go's `net.ParseCIDR` reads),
//! [`LinkName`], [`ContainerId`], [`NetworkName`]; [`address`] has the rest. `CNI_ARGS` is read by [`Request::args`].
//!
//! # Delegation
//!
//! [`Request::delegate`] finds a plugin in `CNI_PATH`; a type with a path in it is refused. The delegate gets this call's configuration,
//! byte for byte, and its environment, with only `CNI_COMMAND` changed.
//!
//! ```
//! # use cni::{AddResult, Failure, Request, Verb};
//! # fn example(request: &Request) -> Result<AddResult, Failure> {
//! let Some(kind) = request.config().ipam_type()? else { return Ok(AddResult::default()) };
//! let ipam = request.delegate(&kind)?;
//! let running = ipam.start(Verb::Add)?;
//! // ... make the interface meanwhile; should that fail and `?` return, the delegate's ADD is taken back ...
//! let addresses = running.add_result()?;
//! # Ok(addresses)
//! # }
//! ```
//!
//! - [`Delegate::add`] is the same in one step, [`Delegate::call`] runs a verb without a result.
//! - A failed ADD of the delegate is followed by its DEL, then its own error is returned with code and message.
//! - If the caller fails after the delegate has answered, the caller runs its DEL: only it knows.
//! - Whatever a delegate does (hang, crash, babble, print nothing, leave a daemon with the pipe), the call ends with a result or a clear
//!   error. `CNI_DELEGATE_TIMEOUT` sets how many seconds the delegates of a call may take together; 90 if it is not set.
//! - Refuse an attachment that exists before delegating: the DEL after a failed ADD would release what the first ADD took.
//! - Its standard error reaches ours, and on failure the details too.
//!
//! # Without a process
//!
//! [`respond`] is [`run`] as a function of environment and input: for a test, or for a program that has plugins linked in.
//!
//! ```
//! # use std::path::Path;
//! # use cni::*;
//! # struct Hello;
//! # impl Plugin for Hello {
//! #     fn name(&self) -> &'static str { "hello" }
//! #     fn add(&self, _: &Request, _: &Target) -> Result<AddResult, Failure> { Ok(AddResult::default()) }
//! #     fn del(&self, _: &Request, _: &Attachment, _: Option<&Path>) -> Result<(), Failure> { Ok(()) }
//! #     fn check(&self, _: &Request, _: &Target) -> Result<(), Failure> { Ok(()) }
//! #     fn gc(&self, _: &Request, _: &ValidAttachments) -> Result<(), Failure> { Ok(()) }
//! #     fn status(&self, _: &Request) -> Result<(), Failure> { Ok(()) }
//! # }
//! let environment = cni::Environment::from_pairs([("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")]);
//! let response = cni::respond(&Hello, &environment, std::io::empty());
//! let document = response.document.unwrap();
//! assert_eq!(document["code"], 4);
//! assert_eq!(document["msg"], "required env variables [CNI_CONTAINERID,CNI_NETNS] missing");
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
mod program;
mod request;
mod result;
mod version;

pub use address::{AddressError, Cidr};
pub use args::Args;
pub use delegate::{Delegate, Running};
pub use environment::{Attachment, Environment, Verb};
pub use failure::{Code, Failure};
pub use name::{ContainerId, LinkName, NameError, NetworkName};
pub use netns::OpenNetns;
pub use plugin::{Plugin, Response, respond};
pub use process::run;
pub use program::Allocator;
pub use request::{Config, Request, Target, ValidAttachments, invalid};
pub use result::{AddResult, Dns, Interface, Ip, ResultError, Route};
pub use version::SpecVersion;
