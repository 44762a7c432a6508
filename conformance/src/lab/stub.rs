//! Stub delegates: executables under any plugin name that write down how they were called and answer as they were told.
//!
//! A stub is this program itself under another name. Beside it lie `NAME.script`, what to answer, and `NAME.log`, a line of JSON for each
//! call.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a stub does when it is called with some verb.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Act {
    /// Sleep so long first, in milliseconds.
    pub sleep: u64,
    /// Then run this line of shell, which may write to standard output and leave something running.
    pub run: String,
    /// Execute the real plugin at this path, with the same environment and input, and pass on what it says.
    pub real: Option<PathBuf>,
    /// Print this.
    pub stdout: String,
    /// Print `stdout` so many times more: for floods.
    pub again: usize,
    /// Print this on standard error.
    pub stderr: String,
    /// Exit so.
    pub status: i32,
    /// End by SIGKILL instead of exiting.
    pub crash: bool,
}

impl Act {
    /// Prints a document and succeeds.
    pub fn reply(document: &Value) -> Self {
        Self { stdout: document.to_string(), ..Self::default() }
    }

    /// Prints an error document and fails.
    pub fn error(code: i64, message: &str) -> Self {
        let document = serde_json::json!({ "cniVersion": "1.1.0", "code": code, "msg": message });
        Self { stdout: document.to_string(), status: 1, ..Self::default() }
    }
}

/// What a stub does, by verb; verbs that are not there succeed silently.
pub type Script = BTreeMap<String, Act>;

/// One call of a stub, as it saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// `CNI_COMMAND`.
    pub verb: String,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
    /// Standard input.
    pub stdin: String,
    /// Its path, as it was executed.
    pub program: PathBuf,
    /// What its file descriptors beyond 0, 1 and 2 were open on: what the plugin handed down without need.
    #[serde(default)]
    pub descriptors: Vec<String>,
}

impl Seen {
    /// Standard input as JSON; null if it is none.
    pub fn config(&self) -> Value {
        serde_json::from_str(&self.stdin).unwrap_or(Value::Null)
    }
}

/// Puts a stub `name` into `directory`.
///
/// # Errors
/// What the file system said.
pub fn install(directory: &Path, name: &str, harness: &Path, script: &Script) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let place = directory.join(name);
    let _ = fs::remove_file(&place);
    std::os::unix::fs::symlink(harness, &place)?;
    fs::write(beside(&place, "script"), serde_json::to_vec(script)?)
}

/// What the stub at `place` saw so far.
pub fn seen(place: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(beside(place, "log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Forgets what the stub at `place` saw.
pub fn forget(place: &Path) {
    let _ = fs::remove_file(beside(place, "log"));
}

fn beside(place: &Path, extension: &str) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    place.with_file_name(name)
}

/// Whether the program was started as a stub: under another name, with a script beside it.
pub fn is_stub(program: &Path) -> bool {
    beside(program, "script").exists()
}

/// What the descriptors beyond the three standard ones are open on. The one that reads the list is none of them.
fn inherited() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut open: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            (number > 2 && !(target.starts_with("/proc/") && target.ends_with("/fd")))
                .then_some((number, target))
        })
        .collect();
    open.sort();
    open.into_iter().map(|(_, target)| target).collect()
}

/// Plays the stub that was started as `program`. Returns the exit status.
///
/// # Errors
/// What reading the script or writing the log said.
pub fn play(program: &Path, arguments: Vec<String>) -> io::Result<i32> {
    let descriptors = inherited();
    let mut stdin = String::new();
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    stdin.push_str(&String::from_utf8_lossy(&bytes));
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let verb = environment.get("CNI_COMMAND").cloned().unwrap_or_default();
    let program_path = program.to_owned();
    let call = Seen { verb: verb.clone(), environment, arguments, stdin, program: program_path, descriptors };
    let mut line = serde_json::to_vec(&call)?;
    line.push(b'\n');
    // One write to a file opened for appending: calls in parallel do not mix their lines.
    OpenOptions::new().create(true).append(true).open(beside(program, "log"))?.write_all(&line)?;
    let script: Script = serde_json::from_slice(&fs::read(beside(program, "script"))?)?;
    let act = script.get(&verb).cloned().unwrap_or_default();
    thread::sleep(Duration::from_millis(act.sleep));
    if !act.run.is_empty() {
        let _ = Command::new("sh").args(["-c", &act.run]).stdin(Stdio::null()).status();
    }
    let mut status = act.status;
    if let Some(real) = &act.real {
        let mut child = Command::new(real).stdin(Stdio::piped()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            let _ = pipe.write_all(&bytes);
        }
        status = child.wait()?.code().unwrap_or(1);
    }
    let mut out = io::stdout().lock();
    for _ in 0..=act.again {
        if out.write_all(act.stdout.as_bytes()).is_err() {
            break;
        }
    }
    let _ = out.flush();
    let _ = io::stderr().write_all(act.stderr.as_bytes());
    if act.crash {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
    Ok(status)
}
