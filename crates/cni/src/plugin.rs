//! The verbs of a plugin, and the way from a process to them.

use std::any::Any;
use std::io::{Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::environment::{self, Attachment, Environment, Parameters, Verb};
use crate::failure::{Code, Failure};
use crate::netns::{self, NetnsState};
use crate::request::{self, Config, Request, Target, ValidAttachments};
use crate::result::AddResult;
use crate::version::SpecVersion;

/// A CNI plugin: one method a verb. Everything the contract asks for around them is done by [`run`] and [`respond`].
pub trait Plugin {
    /// The plugin's name, as in `type`.
    fn name(&self) -> &'static str;

    /// The specification versions it supports, oldest first.
    fn versions(&self) -> &'static [SpecVersion] {
        SpecVersion::ALL
    }

    /// Connects the container. The namespace has been found to exist, to be a namespace, and not to be the plugin's own.
    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure>;

    /// Disconnects the container, as far as that is still to do. `netns` is `None` where the runtime gave none, where it is gone,
    /// where the path is no longer a namespace, and where it is the plugin's own (a recycled `/proc/PID/ns/net`).
    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure>;

    /// Verifies that the container is still connected as ADD left it.
    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure>;

    /// Removes what belongs to attachments of this network that are not in the list.
    fn gc(&self, request: &Request, valid: &ValidAttachments) -> Result<(), Failure>;

    /// Says whether an ADD with this configuration could be served.
    fn status(&self, request: &Request) -> Result<(), Failure>;
}

/// What a call answers: at most one document for standard output, notes for standard error, and whether it succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The document, if the verb has one.
    pub document: Option<Value>,
    /// Lines for standard error.
    pub notes: Vec<String>,
    /// Whether the exit status is zero.
    pub success: bool,
}

impl Response {
    fn ok(document: Option<Value>) -> Self {
        Self { document, notes: Vec::new(), success: true }
    }

    fn failed(failure: &Failure, version: SpecVersion) -> Self {
        Self { document: Some(failure.document(version)), notes: Vec::new(), success: false }
    }
}

/// The `main` of a plugin: reads environment and standard input, runs the verb, writes the answer.
///
/// A panic becomes an error document; standard output carries one document or nothing.
pub fn run(plugin: &(dyn Plugin + Sync)) -> ExitCode {
    install_panic_hook();
    let environment = Environment::of_process();
    let response = panic::catch_unwind(AssertUnwindSafe(|| respond(plugin, &environment, std::io::stdin())))
        .unwrap_or_else(|payload| Response::failed(&panicked(payload.as_ref()), SpecVersion::NEWEST));
    deliver(&response)
}

/// Answers a call, given its environment and standard input. Nothing is printed: this is [`run`] without the process around it.
pub fn respond(
    plugin: &dyn Plugin,
    environment: &Environment,
    stdin: impl Read + Send + 'static,
) -> Response {
    let Some(command) = environment.get("CNI_COMMAND") else { return about(plugin) };
    let command = command.to_string_lossy().into_owned();
    let verb = Verb::parse(&command);
    if verb == Some(Verb::Version) {
        return version(plugin, stdin);
    }
    let mut bytes = Vec::new();
    let mut stdin = stdin;
    if let Err(error) = stdin.read_to_end(&mut bytes) {
        let failure = Failure::new(Code::Io, "can't read the network configuration from standard input")
            .detail(error.to_string());
        return Response::failed(&failure, SpecVersion::NEWEST);
    }
    let failure_version = request::version_for_failure(&bytes);
    let Some(verb) = verb else {
        let failure = Failure::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {command}"))
            .hint("CNI_COMMAND is one of ADD, DEL, CHECK, GC, STATUS, VERSION");
        return Response::failed(&failure, failure_version);
    };
    let mut notes = Vec::new();
    match call(plugin, verb, environment, bytes, &mut notes) {
        Ok(document) => Response { notes, ..Response::ok(document) },
        Err(failure) => Response { notes, ..Response::failed(&failure, failure_version) },
    }
}

fn call(
    plugin: &dyn Plugin,
    verb: Verb,
    environment: &Environment,
    bytes: Vec<u8>,
    notes: &mut Vec<String>,
) -> Result<Option<Value>, Failure> {
    let parameters = environment::parameters(environment, verb)?;
    let config = Config::read(bytes, plugin.versions())?;
    allowed(verb, config.version())?;
    let version = config.version();
    let request = Request::new(config, environment.clone());
    match verb {
        Verb::Add => {
            // A prevResult that can't be read is refused before anything is changed.
            request.config().prev_result()?;
            let target = target(environment, parameters)?;
            let result = plugin.add(&request, &target)?;
            let document = result.write(version).map_err(|error| Failure::from_error(Code::InvalidConfig, &error))?;
            return Ok(Some(document));
        }
        Verb::Check => plugin.check(&request, &target(environment, parameters)?)?,
        Verb::Del => {
            let (attachment, netns) = owner(environment, parameters, notes)?;
            plugin.del(&request, &attachment, netns.as_deref())?;
        }
        Verb::Gc => match ValidAttachments::read(request.config())? {
            Some(valid) => plugin.gc(&request, &valid)?,
            None => notes.push(
                "GC: the configuration has no `cni.dev/valid-attachments`, so nothing is known to be stale and nothing was removed".to_owned(),
            ),
        },
        Verb::Status => plugin.status(&request)?,
        Verb::Version => {}
    }
    Ok(None)
}

/// CHECK came with 0.4.0, GC and STATUS with 1.1.0.
fn allowed(verb: Verb, version: SpecVersion) -> Result<(), Failure> {
    let since = match verb {
        Verb::Check => SpecVersion::V0_4_0,
        Verb::Gc | Verb::Status => SpecVersion::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    Err(Failure::new(Code::IncompatibleVersion, format!("config version does not allow {verb}"))
        .detail(format!("config is {version}, {verb} came with {since}")))
}

fn overridden(environment: &Environment) -> bool {
    environment
        .get("CNI_NETNS_OVERRIDE")
        .and_then(|value| value.to_str())
        .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

/// The target of ADD and CHECK, its namespace checked before anything is changed.
fn target(environment: &Environment, parameters: Parameters) -> Result<Target, Failure> {
    let Parameters { attachment: Some(attachment), netns: Some(netns) } = parameters else {
        return Err(Failure::new(Code::Internal, "parameters were not validated"));
    };
    let refused = |reason: String, hint: &str| {
        Err(Failure::new(Code::InvalidEnvironment, format!("CNI_NETNS {}: {reason}", netns.display()))
            .hint(hint))
    };
    match netns::state(&netns) {
        NetnsState::Foreign => Ok(Target { attachment, netns }),
        NetnsState::Own if overridden(environment) => Ok(Target { attachment, netns }),
        NetnsState::Own => refused(
            "plugin's netns and netns from CNI_NETNS should not be the same".to_owned(),
            "give the container's namespace; CNI_NETNS_OVERRIDE=1 allows the plugin's own",
        ),
        NetnsState::Missing => {
            refused("there is nothing at this path".to_owned(), "create the network namespace before ADD")
        }
        NetnsState::NotANamespace(what) => refused(
            format!("it is {what}, not a network namespace"),
            "a stale mount point looks so; create the namespace again",
        ),
        NetnsState::Unreadable(error) => {
            refused(format!("can't look at it: {error}"), "check the path and its permissions")
        }
    }
}

/// The owner of what a DEL removes. A namespace that can't be used is none: DEL releases everything else (DEL-04, DEL-05, DEL-13).
fn owner(
    environment: &Environment,
    parameters: Parameters,
    notes: &mut Vec<String>,
) -> Result<(Attachment, Option<PathBuf>), Failure> {
    let Parameters { attachment: Some(attachment), netns } = parameters else {
        return Err(Failure::new(Code::Internal, "parameters were not validated"));
    };
    let Some(path) = netns else { return Ok((attachment, None)) };
    let unusable = match netns::state(&path) {
        NetnsState::Foreign => None,
        NetnsState::Own if overridden(environment) => None,
        NetnsState::Own => Some("it is the plugin's own namespace".to_owned()),
        NetnsState::Missing => Some("it is gone".to_owned()),
        NetnsState::NotANamespace(what) => Some(format!("it is {what}, not a network namespace")),
        NetnsState::Unreadable(error) => Some(format!("can't look at it: {error}")),
    };
    match unusable {
        None => Ok((attachment, Some(path))),
        Some(reason) => {
            notes.push(format!(
                "DEL: CNI_NETNS {}: {reason}; releasing everything outside it",
                path.display()
            ));
            Ok((attachment, None))
        }
    }
}

fn about(plugin: &dyn Plugin) -> Response {
    let versions: Vec<&str> = plugin.versions().iter().map(|version| version.as_str()).collect();
    Response {
        document: None,
        notes: vec![
            format!("CNI {} plugin (Ferrule {})", plugin.name(), env!("CARGO_PKG_VERSION")),
            format!("CNI protocol versions supported: {}", versions.join(", ")),
        ],
        success: true,
    }
}

/// VERSION needs nothing but the verb. Standard input is looked at for the version to echo, but never waited for: before 1.0.0 runtimes left it open.
fn version(plugin: &dyn Plugin, mut stdin: impl Read + Send + 'static) -> Response {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if stdin.read_to_end(&mut bytes).is_ok() {
            // The receiver may have given up waiting; then nobody needs the bytes.
            let _ = sender.send(bytes);
        }
    });
    let bytes = receiver.recv_timeout(Duration::from_millis(30)).unwrap_or_default();
    let asked = request::version_for_failure(&bytes);
    let versions = plugin.versions();
    let echoed = if versions.contains(&asked) {
        asked
    } else {
        versions.last().copied().unwrap_or(SpecVersion::NEWEST)
    };
    let supported: Vec<&str> = versions.iter().map(|version| version.as_str()).collect();
    Response::ok(Some(json!({ "cniVersion": echoed.as_str(), "supportedVersions": supported })))
}

/// Where a panic happened; the hook puts it here because the payload has no location.
static PANIC_LOCATION: Mutex<Option<String>> = Mutex::new(None);

fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        if let Ok(mut location) = PANIC_LOCATION.lock() {
            *location = info.location().map(ToString::to_string);
        }
    }));
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let location = PANIC_LOCATION.lock().ok().and_then(|mut location| location.take()).unwrap_or_default();
    Failure::new(Code::Internal, "the plugin failed unexpectedly; this is a defect of the plugin")
        .detail(format!("panic at {location}: {text}"))
        .hint("run DEL to clean up, and report this")
}

fn deliver(response: &Response) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for note in &response.notes {
        // Standard error is for people; that nobody reads it is no failure.
        let _ = writeln!(stderr, "{note}");
    }
    let mut success = response.success;
    if let Some(document) = &response.document {
        let mut bytes = pretty(document);
        bytes.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        // One write of the whole document, so that a reader never sees half of one followed by an error.
        if stdout.write_all(&bytes).and_then(|()| stdout.flush()).is_err() {
            success = false;
        }
    }
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn pretty(document: &Value) -> Vec<u8> {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match document.serialize(&mut serializer) {
        Ok(()) => bytes,
        // A `Value` has string keys and finite numbers, so this cannot happen; its compact form is as good.
        Err(_) => document.to_string().into_bytes(),
    }
}
