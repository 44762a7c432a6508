//! One execution of a plugin: what it gets, and how it ended.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::Pid;
use serde_json::Value;

use crate::watchdog::Watchdog;

/// An execution, prepared.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub program: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
}

impl Execution {
    /// A program with this environment and no other.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.environment);
        command
    }

    /// Starts it, with its configuration on standard input.
    pub(crate) fn start(&self) -> Child {
        let mut child = self
            .command(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} can't be started: {error}", self.program.display()));
        let mut stdin = child.stdin.take().expect("a pipe");
        // Small enough for the pipe. A plugin that ends without reading breaks it, and says why.
        let _ = stdin.write_all(&self.stdin);
        child
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ended {
        let child = self.start();
        let watchdog = Watchdog::start(Pid::from_raw(child.id().cast_signed()));
        let output = child.wait_with_output().expect("waiting for a plugin");
        Ended {
            code: output.status.code(),
            hung: watchdog.stop(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// It took so long that it had to be killed.
    pub hung: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// What it printed, if that is one JSON document.
    pub(crate) fn document(&self) -> Option<Value> {
        serde_json::from_slice(&self.stdout).ok()
    }

    /// Message and details of the error document.
    pub(crate) fn message(&self) -> Option<String> {
        let document = self.document()?;
        let part = |key: &str| document[key].as_str().unwrap_or_default();
        let good = document["code"].as_u64().is_some_and(|code| code != 0) && !part("msg").is_empty();
        good.then(|| format!("{} {}", part("msg"), part("details")).trim_end().to_owned())
    }

    /// In a line.
    pub(crate) fn describe(&self) -> String {
        let ending = match (self.hung, self.code) {
            (true, _) => "hung, and was killed".to_owned(),
            (_, Some(code)) => format!("exit code {code}"),
            (_, None) => "killed".to_owned(),
        };
        let said = self.message().unwrap_or_else(|| String::from_utf8_lossy(&self.stdout).trim().to_owned());
        [ending.as_str(), said.as_str(), self.stderr.trim()].join(": ").trim_end_matches(": ").to_owned()
    }
}
