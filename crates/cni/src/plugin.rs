//! The verbs of a plugin, and the way from a process to them.

use std::io::{BufReader, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::ser::{self, Serialize, Serializer};
use serde_json::{Value, json};

use crate::environment::{self, Attachment, Environment, Parameters, Verb};
use crate::failure::{Code, Failure};
use crate::json::{self, shorten};
use crate::netns::Owner;
use crate::request::{self, Config, Notes, Request, Target, ValidAttachments};
use crate::result::{AddResult, ResultError, Written};
use crate::version::SpecVersion;
use crate::{netns, process};

/// A CNI plugin: one method a verb. Everything the contract asks for around them is done by [`run`](crate::run) and [`respond`].
pub trait Plugin {
    /// The plugin's name, as in `type`.
    fn name(&self) -> &'static str;

    /// The specification versions it supports, oldest first.
    fn versions(&self) -> &'static [SpecVersion] {
        SpecVersion::ALL
    }

    /// IPAM plugins that are part of this program too. Asked for by their names, they need not be executed where the program that `CNI_PATH` leads
    /// to was built together with this one ([`Delegate`](crate::Delegate)).
    fn contained(&self) -> &'static [&'static (dyn Plugin + Sync)] {
        &[]
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

    pub(crate) fn failed(failure: &Failure, version: SpecVersion) -> Self {
        Self { document: Some(failure.document(version)), notes: Vec::new(), success: false }
    }
}

/// Answers a call, given its environment and standard input. Nothing is printed: this is [`run`](crate::run) without the process
/// around it, for a test or a program that calls a plugin in-process.
pub fn respond(
    plugin: &dyn Plugin,
    environment: &Environment,
    stdin: impl Read + Send + 'static,
) -> Response {
    let Answer { document, notes, success, .. } = answer(plugin, environment, stdin);
    Response { document: document.map(Document::into_value), notes, success }
}

/// A response, its document not made yet, and what to undo if it can't be delivered.
pub(crate) struct Answer {
    pub(crate) document: Option<Document>,
    pub(crate) notes: Vec<String>,
    pub(crate) success: bool,
    pub(crate) added: Option<Added>,
}

impl From<Response> for Answer {
    fn from(Response { document, notes, success }: Response) -> Self {
        Self { document: document.map(Document::Value), notes, success, added: None }
    }
}

/// What standard output is to carry.
pub(crate) enum Document {
    Value(Value),
    /// A result, in terms of a version that can express it.
    Result(Box<AddResult>, SpecVersion),
}

impl Document {
    fn of(result: AddResult, version: SpecVersion) -> Result<Self, ResultError> {
        Written::new(&result, version)?;
        Ok(Self::Result(Box::new(result), version))
    }

    fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Result(result, version) => result.write(version).unwrap_or_default(),
        }
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Result(result, version) => {
                Written::new(result, *version).map_err(ser::Error::custom)?.serialize(serializer)
            }
        }
    }
}

/// An ADD that succeeded.
pub(crate) struct Added {
    request: Request,
    target: Target,
}

impl Added {
    /// What has been noted since the response was made.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.request.taken_notes()
    }

    /// Disconnects the container again: for the runtime this ADD has failed, and a failed ADD leaves the host as it was.
    pub(crate) fn undo(&self, plugin: &dyn Plugin) -> Result<(), Failure> {
        disconnect(plugin, &self.request, &self.target)
    }
}

pub(crate) fn answer(
    plugin: &dyn Plugin,
    environment: &Environment,
    stdin: impl Read + Send + 'static,
) -> Answer {
    let Some(command) = environment.get("CNI_COMMAND") else { return about(plugin).into() };
    let command = command.to_string_lossy();
    let verb = Verb::parse(&command);
    if verb == Some(Verb::Version) {
        return version(plugin, stdin).into();
    }
    let bytes = match read_configuration(stdin) {
        Ok(bytes) => bytes,
        Err(failure) => return Response::failed(&failure, SpecVersion::NEWEST).into(),
    };
    let object = request::object(&bytes);
    let version = object.as_ref().ok().and_then(request::requested_version).unwrap_or(SpecVersion::NEWEST);
    let Some(verb) = verb else {
        let failure =
            Failure::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {}", shorten(&command)))
                .hint("CNI_COMMAND is one of ADD, DEL, CHECK, GC, STATUS, VERSION");
        return Response::failed(&failure, version).into();
    };
    let notes = Notes::default();
    let outcome = environment::parameters(environment, verb).and_then(|parameters| {
        let config = Config::from_object(bytes, object?, plugin.versions())?;
        allowed(verb, config.version())?;
        let request = Request::with_notes(config, environment.clone(), notes.clone()).with_plugins_of(plugin);
        if verb == Verb::Add {
            let (document, added) = add(plugin, request, parameters)?;
            return Ok((Some(document), Some(added)));
        }
        call(plugin, verb, &request, parameters).map(|()| (None, None))
    });
    let notes = notes.take();
    match outcome {
        Ok((document, added)) => Answer { document, notes, success: true, added },
        Err(failure) => Response { notes, ..Response::failed(&failure, version) }.into(),
    }
}

/// Standard input to its end, whatever is in it: a runtime that still writes must not get a broken pipe.
fn read_configuration(stdin: impl Read) -> Result<Vec<u8>, Failure> {
    /// Far beyond any configuration; an endless input must not fill the memory.
    const LIMIT: u64 = 64 << 20;
    let mut bytes = Vec::new();
    stdin.take(LIMIT).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Code::Io, "can't read the network configuration from standard input")
            .detail(error.to_string())
    })?;
    if bytes.len() as u64 == LIMIT {
        return Err(Failure::new(Code::Decode, "the network configuration is larger than 64 MiB"));
    }
    Ok(bytes)
}

fn add(plugin: &dyn Plugin, request: Request, parameters: Parameters) -> Result<(Document, Added), Failure> {
    // A prevResult that can't be read is refused before anything is changed.
    request.config().check_prev_result()?;
    let target = netns::target(&request, parameters)?;
    let added = Added { request, target };
    let document = connect(plugin, &added.request, &added.target, Document::of)?;
    Ok((document, added))
}

/// ADD, with its result as the request's version can express it.
fn connect<T>(
    plugin: &dyn Plugin,
    request: &Request,
    target: &Target,
    express: impl FnOnce(AddResult, SpecVersion) -> Result<T, ResultError>,
) -> Result<T, Failure> {
    let failure = match catch(|| plugin.add(request, target)) {
        // The plugin failed and took back what it had done.
        Ok(Err(failure)) => return Err(failure),
        Ok(Ok(result)) => match express(result, request.config().version()) {
            Ok(expressed) => return Ok(expressed),
            Err(error) => Failure::from_error(Code::InvalidConfig, &error)
                .hint("this version's result needs an address: add `ipam`, or raise `cniVersion`"),
        },
        Err(panic) => panic,
    };
    // Nobody else knows of what was made.
    Err(match disconnect(plugin, request, target) {
        Ok(()) => failure,
        Err(cleanup) => failure.detail(format!("and taking it back failed: {}", cleanup.message())),
    })
}

/// Takes an ADD back.
fn disconnect(plugin: &dyn Plugin, request: &Request, target: &Target) -> Result<(), Failure> {
    guarded(|| plugin.del(request, &target.attachment, Some(&target.netns)))
}

/// Answers for a plugin that is part of the program of one that delegates to it: as [`respond`] would, but without what has been done for the one
/// that delegates: its configuration has been read, and the namespace has been found to be one. The result is what it would be had it been printed and read.
pub(crate) fn delegated(
    plugin: &dyn Plugin,
    verb: Verb,
    request: &Request,
) -> Result<Option<AddResult>, Failure> {
    request.config().require_version(plugin.versions())?;
    allowed(verb, request.config().version())?;
    let parameters = environment::parameters(request.environment(), verb)?;
    match (verb, parameters) {
        (Verb::Add, Parameters { attachment: Some(attachment), netns: Some(netns) }) => {
            let express = |result: AddResult, version| match version {
                // It says all that there is.
                SpecVersion::NEWEST => Ok(result),
                older => result.write(older).and_then(|document| AddResult::read(&document, older)),
            };
            connect(plugin, request, &Target { attachment, netns }, express).map(Some)
        }
        (Verb::Check, Parameters { attachment: Some(attachment), netns: Some(netns) }) => {
            guarded(|| plugin.check(request, &Target { attachment, netns })).map(|()| None)
        }
        (verb, parameters) => call(plugin, verb, request, parameters).map(|()| None),
    }
}

fn call(plugin: &dyn Plugin, verb: Verb, request: &Request, parameters: Parameters) -> Result<(), Failure> {
    match verb {
        Verb::Check => {
            let target = netns::target(request, parameters)?;
            guarded(|| plugin.check(request, &target))
        }
        Verb::Del => {
            let Owner { attachment, netns, own } = netns::owner(request, parameters)?;
            // A delegate built on the Go library would release everything and then fail because the namespace is the host's.
            let spared = own.then(|| request.without_netns());
            let request = spared.as_ref().unwrap_or(request);
            guarded(|| plugin.del(request, &attachment, netns.as_deref()))
        }
        Verb::Gc => {
            let Some(valid) = ValidAttachments::read(request.config())? else {
                request.note(
                    "GC: the configuration has no `cni.dev/valid-attachments`, so nothing is known to be stale and nothing was removed",
                );
                return Ok(());
            };
            guarded(|| plugin.gc(request, &valid))
        }
        Verb::Status => guarded(|| plugin.status(request)),
        // Answered before a configuration is read.
        Verb::Add | Verb::Version => Ok(()),
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch(work).and_then(|result| result)
}

/// Runs a plugin's code; a panic in it becomes a failure.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    // What the plugin shares across the unwinding is only read afterwards, by its own `del`, which has to cope with any state.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| process::panicked(payload.as_ref()))
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

/// VERSION needs nothing but the verb. Standard input is looked at for the version to echo, but waited for only briefly: before 1.0.0
/// the verb had no input and runtimes left it open.
fn version(plugin: &dyn Plugin, stdin: impl Read + Send + 'static) -> Response {
    const PATIENCE: Duration = Duration::from_millis(100);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Stops after the document, so that a pipe left open behind it is not waited for.
        let mut documents = serde_json::Deserializer::from_reader(BufReader::new(stdin)).into_iter::<Value>();
        if let Some(Ok(Value::Object(object))) = documents.next() {
            // The receiver may have given up waiting; then nobody needs it.
            let _ = sender.send(object);
        }
    });
    let object = receiver.recv_timeout(PATIENCE).ok();
    let asked = object
        .filter(|object| json::get(object, "cniVersion").is_some())
        .and_then(|object| request::requested_version(&object));
    let versions = plugin.versions();
    let newest = versions.last().copied().unwrap_or(SpecVersion::NEWEST);
    let echoed = asked.filter(|asked| versions.contains(asked)).unwrap_or(newest);
    let supported: Vec<&str> = versions.iter().map(|version| version.as_str()).collect();
    Response::ok(Some(json!({ "cniVersion": echoed.as_str(), "supportedVersions": supported })))
}

#[cfg(test)]
mod tests;
