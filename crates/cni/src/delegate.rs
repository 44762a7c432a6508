//! Running another plugin (specification section 4): an IPAM plugin, or any other.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::environment::Verb;
use crate::failure::{Code, Failure};
use crate::json;
use crate::request::Request;
use crate::result::AddResult;

/// How long a delegate may take unless `CNI_DELEGATE_TIMEOUT` (seconds) says otherwise: just below the two minutes after which kubelet
/// gives up on the sandbox, so that the answer still reaches somebody.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(110);

/// More output than this is not a CNI document.
const OUTPUT_LIMIT: u64 = 4 << 20;

/// A plugin found in `CNI_PATH`, to be run with the request's configuration and environment.
#[derive(Debug)]
pub struct Delegate<'a> {
    request: &'a Request,
    kind: String,
    program: PathBuf,
}

/// A delegate that is running.
#[derive(Debug)]
pub struct Running<'a> {
    delegate: &'a Delegate<'a>,
    verb: Verb,
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    deadline: Instant,
}

impl<'a> Delegate<'a> {
    pub(crate) fn find(request: &'a Request, kind: &str) -> Result<Self, Failure> {
        // CVE-2021-20206: a type with a path in it would run any program on the host.
        if kind.is_empty() || kind == "." || kind == ".." || kind.contains(['/', '\\', '\0']) {
            return Err(Failure::new(Code::InvalidConfig, format!("invalid plugin type {kind:?}"))
                .hint("a type is the file name of a plugin in CNI_PATH, without any path"));
        }
        let directories = request.search_path();
        if directories.is_empty() {
            return Err(Failure::new(Code::InvalidEnvironment, "required env variables [CNI_PATH] missing")
                .hint(format!(
                    "plugin {kind:?} is to be run and is looked for in the directories of CNI_PATH"
                )));
        }
        let program =
            directories.iter().map(|directory| directory.join(kind)).find(|program| is_file(program));
        let Some(program) = program else {
            let searched: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
            return Err(Failure::new(Code::Delegate, format!("plugin {kind:?} was not found in CNI_PATH"))
                .detail(format!("searched: {}", searched.join(", ")))
                .hint("install the plugin there, or correct `type`"));
        };
        Ok(Self { request, kind: kind.to_owned(), program })
    }

    /// The plugin's type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// ADD. If it fails, the delegate's DEL is run before its error is returned.
    pub fn add(&self) -> Result<AddResult, Failure> {
        self.start(Verb::Add)?.add_result()
    }

    /// Any verb without a result.
    pub fn call(&self, verb: Verb) -> Result<(), Failure> {
        self.start(verb)?.wait().map(|_| ())
    }

    /// Starts a verb, so that the caller can do other work until the delegate has answered.
    pub fn start(&self, verb: Verb) -> Result<Running<'_>, Failure> {
        let deadline = Instant::now() + self.timeout()?;
        let mut child = self.spawn(verb)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        if let Some(mut stdin) = child.stdin.take() {
            let bytes = self.request.config().bytes();
            // A pipe holds 64 KiB; a larger configuration must not wait on a delegate that does not read. A delegate that
            // answers without reading closes the pipe: its answer counts, not our EPIPE.
            if bytes.len() <= 32 << 10 {
                let _ = stdin.write_all(bytes);
            } else {
                let bytes = bytes.to_vec();
                thread::spawn(move || stdin.write_all(&bytes));
            }
        }
        Ok(Running { delegate: self, verb, child, stdout, stderr, deadline })
    }

    fn spawn(&self, verb: Verb) -> Result<Child, Failure> {
        let mut attempts = 0;
        loop {
            let spawned = Command::new(&self.program)
                .env_clear()
                .envs(self.request.environment().iter())
                .env("CNI_COMMAND", verb.as_str())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            match spawned {
                Ok(child) => return Ok(child),
                // Being installed at this moment; libcni retries this one too.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempts < 10 => {
                    attempts += 1;
                    thread::sleep(Duration::from_millis(20 * attempts));
                }
                Err(error) => {
                    return Err(self
                        .failure(verb, "can't be run")
                        .detail(error.to_string())
                        .hint("it must be an executable file of this machine's architecture"));
                }
            }
        }
    }

    fn timeout(&self) -> Result<Duration, Failure> {
        const VARIABLE: &str = "CNI_DELEGATE_TIMEOUT";
        match self.request.environment().text(VARIABLE)? {
            None => Ok(DEFAULT_TIMEOUT),
            Some(text) => text
                .parse::<f64>()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .ok_or_else(|| {
                    Failure::new(
                        Code::InvalidEnvironment,
                        format!("{VARIABLE} is invalid: {text:?} is not a number of seconds"),
                    )
                }),
        }
    }

    fn failure(&self, verb: Verb, what: &str) -> Failure {
        Failure::new(Code::Delegate, format!("plugin {:?} {what} ({verb})", self.kind))
            .detail(format!("program: {}", self.program.display()))
    }
}

impl Running<'_> {
    /// Waits for the result of an ADD. If it fails, the delegate's DEL is run before its error is returned (DLG-07).
    pub fn add_result(self) -> Result<AddResult, Failure> {
        let delegate = self.delegate;
        let version = delegate.request.config().version();
        let answer = self.wait().and_then(|stdout| {
            let value: Value = serde_json::from_slice(&stdout).map_err(|error| {
                delegate
                    .failure(Verb::Add, "did not answer with a JSON document")
                    .detail(error.to_string())
                    .detail(excerpt(&stdout))
            })?;
            if value.as_object().is_some_and(|object| {
                json::get(object, "code").is_some() && json::get(object, "msg").is_some()
            }) {
                return Err(delegate
                    .reported(Verb::Add, &value)
                    .unwrap_or_else(|| delegate.failure(Verb::Add, "reported an error")));
            }
            AddResult::read(&value, version).map_err(|error| {
                delegate
                    .failure(Verb::Add, "answered with a result that can't be read")
                    .detail(error.to_string())
                    .detail(excerpt(&stdout))
            })
        });
        answer.map_err(|failure| match delegate.call(Verb::Del) {
            Ok(()) => failure,
            Err(cleanup) => failure.detail(format!("and its DEL failed: {}", cleanup.message())),
        })
    }

    /// Waits for the delegate to end; its standard output if it succeeded.
    pub fn wait(mut self) -> Result<Vec<u8>, Failure> {
        let outputs = self.outputs();
        let Some((stdout, stderr)) = outputs else {
            // It has not closed its output in time: end it, and do not leave a zombie.
            let _ = self.child.kill();
            let _ = self.child.wait();
            return Err(self
                .delegate
                .failure(self.verb, "did not answer in time and was ended")
                .with_code(Code::TryAgainLater)
                .hint("CNI_DELEGATE_TIMEOUT sets how many seconds it may take"));
        };
        let status = self.child.wait().map_err(|error| {
            self.delegate.failure(self.verb, "can't be waited for").detail(error.to_string())
        })?;
        forward(&stderr);
        if status.success() {
            Ok(stdout)
        } else {
            Err(self.delegate.failed(self.verb, status, &stdout, &stderr))
        }
    }

    fn outputs(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let left = || self.deadline.saturating_duration_since(Instant::now());
        let stdout = self.stdout.recv_timeout(left()).ok()?;
        let stderr = self.stderr.recv_timeout(left()).ok()?;
        Some((stdout, stderr))
    }
}

impl Delegate<'_> {
    fn failed(&self, verb: Verb, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Failure {
        let reported =
            serde_json::from_slice::<Value>(stdout).ok().and_then(|value| self.reported(verb, &value));
        reported.unwrap_or_else(|| {
            self.failure(verb, &format!("failed without an error document, {status}"))
                .detail(excerpt(stdout))
                .detail(excerpt(stderr))
        })
    }

    /// The delegate's own error, passed through: code and message unchanged.
    fn reported(&self, verb: Verb, value: &Value) -> Option<Failure> {
        let object = value.as_object()?;
        let code = json::get(object, "code")?.as_u64().and_then(|code| u32::try_from(code).ok())?;
        let message = json::get(object, "msg").and_then(Value::as_str).unwrap_or("no message");
        let details = json::get(object, "details").and_then(Value::as_str).unwrap_or_default();
        Some(
            Failure::new(Code::Foreign(code), message)
                .detail(details)
                .detail(format!("reported by plugin {:?} ({verb})", self.kind)),
        )
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Reads a pipe to its end on a thread of its own.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error still counts as the answer.
            let _ = pipe.take(OUTPUT_LIMIT).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn forward(stderr: &[u8]) {
    if !stderr.is_empty() {
        let _ = std::io::stderr().lock().write_all(stderr);
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        String::new()
    } else {
        format!("it printed: {}", text.chars().take(400).collect::<String>())
    }
}
