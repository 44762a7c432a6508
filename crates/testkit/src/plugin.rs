//! Executing one plugin as a process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::netns::Netns;

/// Where the plugin binaries under test are: the directory named by `FERRULE_BIN`, else the build directory this test
/// executable is in (`target/<profile>`).
pub fn plugin_dir() -> PathBuf {
    if let Some(directory) = std::env::var_os("FERRULE_BIN") {
        return directory.into();
    }
    let test = std::env::current_exe().expect("the path of this test executable");
    let directory = test.parent().expect("a directory around this test executable");
    match directory.file_name() {
        Some(name) if name == "deps" || name == "examples" => {
            directory.parent().expect("target/<profile>").into()
        }
        _ => directory.into(),
    }
}

/// The root of the workspace, where `testdata/` is.
pub fn workspace_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the workspace is two levels up").into()
}

/// The example `testdata/examples/NAME.conflist`, which `docs/plugins/NAME.md` has to show as it is in the file.
///
/// # Panics
/// If either is not there, or the page shows something else.
pub fn documented_example(name: &str) -> Value {
    let read = |path: String| {
        std::fs::read_to_string(workspace_dir().join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let (page, example) =
        (read(format!("docs/plugins/{name}.md")), read(format!("testdata/examples/{name}.conflist")));
    assert!(
        page.contains(&format!("```json\n{example}```\n")),
        "docs/plugins/{name}.md does not show\n{example}"
    );
    serde_json::from_str(&example).unwrap_or_else(|e| panic!("testdata/examples/{name}.conflist: {e}"))
}

/// A plugin binary.
#[derive(Debug, Clone)]
pub struct Plugin {
    program: PathBuf,
}

impl Plugin {
    /// The plugin `name` of [`plugin_dir`].
    ///
    /// # Panics
    /// If it is not there.
    pub fn new(name: &str) -> Self {
        let program = plugin_dir().join(name);
        assert!(
            program.is_file(),
            "the plugin {name} is not in {}: `make test` builds them first (or set FERRULE_BIN)",
            plugin_dir().display()
        );
        Self { program }
    }

    /// A plugin by path.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// An execution for `verb`, with `CNI_COMMAND` set and nothing else in its environment.
    pub fn verb(&self, verb: &str) -> Invocation {
        Invocation {
            program: self.program.clone(),
            environment: BTreeMap::new(),
            stdin: Vec::new(),
            deadline: Duration::from_secs(20),
            netns: Netns::host(),
        }
        .env("CNI_COMMAND", verb)
    }
}

/// One execution of a plugin, prepared.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    stdin: Vec<u8>,
    deadline: Duration,
    netns: Netns,
}

impl Invocation {
    /// Sets one variable; the environment is otherwise empty.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(key.as_ref().into(), value.as_ref().into());
        self
    }

    /// Takes a variable away again.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.environment.remove(OsStr::new(key));
        self
    }

    /// Sets `CNI_CONTAINERID`, `CNI_NETNS` and `CNI_IFNAME`.
    #[must_use]
    pub fn attachment(self, container_id: &str, netns: impl AsRef<OsStr>, ifname: &str) -> Self {
        self.env("CNI_CONTAINERID", container_id).env("CNI_NETNS", netns).env("CNI_IFNAME", ifname)
    }

    /// Sets `CNI_PATH`.
    #[must_use]
    pub fn path<P: AsRef<OsStr>>(self, directories: &[P]) -> Self {
        let joined: Vec<&OsStr> = directories.iter().map(AsRef::as_ref).collect();
        self.env("CNI_PATH", joined.join(OsStr::new(":")))
    }

    /// Gives these bytes on standard input, then end of file.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Gives a network configuration on standard input.
    #[must_use]
    pub fn config(self, configuration: &Value) -> Self {
        self.stdin(configuration.to_string())
    }

    /// Kills the plugin and what it started after this long (20 s unless set).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the plugin in this namespace instead of the host's.
    #[must_use]
    pub fn from_netns(mut self, netns: &Netns) -> Self {
        self.netns = netns.clone();
        self
    }

    /// Runs it to its end, or to its deadline.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn run(&self) -> Output {
        let started = Instant::now();
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().expect("a pipe to standard input");
        let bytes = self.stdin.clone();
        // A plugin that ends without reading breaks the pipe; that is its right, and shows in its output.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let stdout = collect(child.stdout.take().expect("a pipe from standard output"));
        let stderr = collect(child.stderr.take().expect("a pipe from standard error"));
        // Both pipes close when the last process holding them ends: delegates included, unlike `wait`.
        let left = || self.deadline.saturating_sub(started.elapsed());
        let collected = stdout.recv_timeout(left()).ok().zip(stderr.recv_timeout(left()).ok());
        let timed_out = collected.is_none();
        if timed_out {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        }
        let status = child.wait().expect("waiting for a plugin");
        let (stdout, stderr) = collected.unwrap_or_default();
        Output {
            code: status.code(),
            signal: status.signal(),
            timed_out,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            elapsed: started.elapsed(),
            replay: self.replay(),
        }
    }

    /// Starts it with pipes on all three streams, as the leader of its own process group, for tests that signal or
    /// interrupt it. Standard input is left for the caller to write and close.
    pub fn spawn(&self) -> Child {
        self.netns.enter(|| {
            self.command(&self.program)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.program.display()))
        })
    }

    /// A program with this environment and no other.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.environment);
        command
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// The same execution as a line for a shell.
    pub fn replay(&self) -> String {
        let stdin = String::from_utf8_lossy(&self.stdin);
        let mut words = vec![format!("printf %s '{stdin}' | env -i")];
        words.extend(
            self.environment.iter().map(|(key, value)| format!("{}='{}'", key.display(), value.display())),
        );
        words.push(self.program.display().to_string());
        words.join(" ")
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// What a plugin left behind when it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it had to be killed at its deadline.
    pub timed_out: bool,
    /// Standard output, every byte.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// From start to the end of its output.
    pub elapsed: Duration,
    replay: String,
}

impl Output {
    /// Standard output read strictly: nothing (white space at most), or exactly one JSON document.
    ///
    /// # Panics
    /// On anything else.
    pub fn document(&self) -> Option<Value> {
        if self.stdout.trim_ascii().is_empty() {
            return None;
        }
        match serde_json::from_slice(&self.stdout) {
            Ok(document) => Some(document),
            Err(e) => panic!("standard output is not one JSON document: {e}\n{}", self.describe()),
        }
    }

    /// Whether it ended with exit code 0.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The document of a successful execution (`null` if it printed none).
    ///
    /// # Panics
    /// If it failed.
    pub fn success(&self) -> Value {
        assert!(self.succeeded(), "the plugin failed\n{}", self.describe());
        self.document().unwrap_or(Value::Null)
    }

    /// The error document of a failed execution: an object with a non-zero integer `code` and a `msg`.
    ///
    /// # Panics
    /// If it succeeded, was killed, or printed something else.
    pub fn error(&self) -> Value {
        let failed = self.code.is_some_and(|code| code != 0);
        assert!(failed, "the plugin did not fail properly\n{}", self.describe());
        let error = self.document().unwrap_or(Value::Null);
        let good = error["code"].as_u64().is_some_and(|code| code != 0) && error["msg"].is_string();
        assert!(good, "standard output is not an error document\n{}", self.describe());
        error
    }

    /// Everything about this execution, for a failure message; ends with a line that repeats it.
    pub fn describe(&self) -> String {
        let ending = match (self.timed_out, self.code, self.signal) {
            (true, ..) => "killed at its deadline".to_owned(),
            (_, Some(code), _) => format!("exit code {code}"),
            (_, None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        format!(
            "  ended:  {ending} after {:?}\n  stdout: {}\n  stderr: {}\n  replay: {}",
            self.elapsed,
            String::from_utf8_lossy(&self.stdout).trim_end(),
            self.stderr.trim_end(),
            self.replay
        )
    }
}
