//! Running another plugin (specification section 4): an IPAM plugin, or any other.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::environment::Verb;
use crate::failure::{Code, Failure};
use crate::json::shorten;
use crate::plugin::delegated;
use crate::request::Request;
use crate::result::AddResult;

mod contained;
mod output;
mod running;

pub(crate) use contained::Contained;
pub use running::Running;

/// How long the delegates of one call may take, all together, unless `CNI_DELEGATE_TIMEOUT` (seconds) says otherwise. Kubelet gives up
/// on a sandbox after two minutes; with what cleaning up may take, the answer still reaches somebody.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a delegate may take when that is used up, as it is for the DEL after an ADD that hung.
const LEAST_TIMEOUT: Duration = Duration::from_secs(10);

/// A plugin found in `CNI_PATH`, to be run with the request's configuration and environment: executed, or called where it is part of this program.
#[derive(Debug)]
pub struct Delegate<'a> {
    request: &'a Request,
    kind: String,
    program: PathBuf,
}

impl<'a> Delegate<'a> {
    pub(crate) fn find(request: &'a Request, kind: &str) -> Result<Self, Failure> {
        // CVE-2021-20206: a type with a path in it would run any program on the host.
        if kind.is_empty() || kind == "." || kind == ".." || kind.contains(['/', '\\', '\0']) {
            return Err(Failure::new(
                Code::InvalidConfig,
                format!("invalid plugin type {:?}", shorten(kind)),
            )
            .hint("a type is the file name of a plugin in CNI_PATH, without any path"));
        }
        let program = match request.found(kind) {
            Some(program) => program.to_owned(),
            None => request.keep_found(kind, search(request, kind)?),
        };
        Ok(Self { request, kind: kind.to_owned(), program })
    }

    /// The plugin's type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// ADD. If it fails, the delegate's DEL is run before its error is returned.
    ///
    /// The specification wants that DEL, and it has an edge: an ADD that fails because the attachment exists already is followed by a
    /// DEL of what the first ADD made. So find out whether it exists, and refuse, before delegating.
    pub fn add(&self) -> Result<AddResult, Failure> {
        self.start(Verb::Add)?.add_result()
    }

    /// Any verb without a result.
    pub fn call(&self, verb: Verb) -> Result<(), Failure> {
        self.start(verb)?.wait()
    }

    /// Starts a verb, so that the caller can do other work until the delegate has answered. One that is called has answered at once.
    pub fn start(&self, verb: Verb) -> Result<Running<'_>, Failure> {
        /// The least a pipe holds whatever the user's limits; most configurations are smaller.
        const PIPE: usize = 4096;
        if let Some(plugin) = self.request.contained().find(&self.kind, &self.program) {
            return Ok(Running::answered(self, verb, delegated(plugin, verb, self.request)));
        }
        let deadline = self.deadline()?;
        let mut child = self.spawn(verb)?;
        if let Some(mut stdin) = child.stdin.take() {
            let bytes = self.request.config().bytes();
            // A larger one must not wait on a delegate that does not read. A delegate that answers without reading closes the
            // pipe: its answer counts, not our EPIPE.
            if bytes.len() <= PIPE {
                let _ = stdin.write_all(bytes);
            } else {
                let bytes = bytes.to_vec();
                let written = thread::Builder::new().spawn(move || stdin.write_all(&bytes));
                if let Err(error) = written {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(self
                        .failure(verb, "can't be given its configuration")
                        .detail(error.to_string())
                        .hint("no thread can be started: the limit of processes (pids.max, ulimit -u) is reached"));
                }
            }
        }
        Ok(Running::new(self, verb, child, deadline))
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

    fn deadline(&self) -> Result<Instant, Failure> {
        let (started, now) = (self.request.started(), Instant::now());
        let timeout = self.timeout()?;
        // A time beyond what the clock can express is no limit that anybody waits for.
        let whole = started.checked_add(timeout).unwrap_or(started + Duration::from_secs(1 << 30));
        Ok(whole.max(now + timeout.min(LEAST_TIMEOUT)))
    }

    fn timeout(&self) -> Result<Duration, Failure> {
        const VARIABLE: &str = "CNI_DELEGATE_TIMEOUT";
        let Some(text) = self.request.environment().text(VARIABLE)? else { return Ok(DEFAULT_TIMEOUT) };
        text.parse::<f64>()
            .ok()
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| {
                let reason = format!("{VARIABLE} is invalid: {:?} is not a number of seconds", shorten(text));
                Failure::new(Code::InvalidEnvironment, reason)
            })
    }

    fn failure(&self, verb: Verb, what: &str) -> Failure {
        Failure::new(Code::Delegate, format!("plugin {:?} {what} ({verb})", self.kind))
            .detail(format!("program: {}", self.program.display()))
    }
}

/// Where the program of a plugin is.
fn search(request: &Request, kind: &str) -> Result<PathBuf, Failure> {
    let directories = request.search_path();
    if directories.is_empty() {
        return Err(Failure::new(Code::InvalidEnvironment, "required env variables [CNI_PATH] missing")
            .hint(format!("plugin {kind:?} is to be run and is looked for in the directories of CNI_PATH")));
    }
    let program = directories.iter().map(|directory| directory.join(kind)).find(|program| is_file(program));
    program.ok_or_else(|| {
        let searched: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
        Failure::new(Code::Delegate, format!("plugin {kind:?} was not found in CNI_PATH"))
            .detail(format!("searched: {}", searched.join(", ")))
            .hint("install the plugin there, or correct `type`")
    })
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}
