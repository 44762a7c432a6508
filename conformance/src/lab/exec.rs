//! Executing a plugin: exactly this environment, exactly these bytes, and everything that comes back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::talk::Talk;

/// What is on a plugin's standard input.
#[derive(Debug, Clone)]
pub enum Stdin {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, and then the pipe stays open.
    Open(Vec<u8>),
    /// File descriptor 0 is closed.
    Closed,
    /// A directory, from which reading fails (EISDIR).
    Directory,
}

/// One execution of a plugin, to be changed as a case needs and given to [`Lab::run`](super::Lab::run).
#[derive(Debug, Clone)]
pub struct Call {
    /// The executable.
    pub program: PathBuf,
    /// Arguments; a runtime gives none.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: Stdin,
    /// After this it is killed, with what it started.
    pub timeout: Duration,
    /// Kill it (SIGKILL) after this, whatever it does.
    pub kill_after: Option<Duration>,
    /// Wrap it: this command line is put before the program (`setpriv …`, `prlimit …`).
    pub wrapper: Vec<String>,
    /// Close the reading end of its standard output at once.
    pub close_stdout: bool,
}

impl Call {
    /// An execution with an empty environment and empty standard input.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            stdin: Stdin::Bytes(Vec::new()),
            timeout: Duration::from_secs(20),
            kill_after: None,
            wrapper: Vec::new(),
            close_stdout: false,
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Sets `CNI_COMMAND`.
    #[must_use]
    pub fn verb(self, verb: &str) -> Self {
        self.env("CNI_COMMAND", verb)
    }

    /// Sets standard input to this configuration.
    #[must_use]
    pub fn config(self, config: &Value) -> Self {
        self.bytes(config.to_string())
    }

    /// Sets standard input to these bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// The configuration on standard input, if it is JSON.
    pub fn read_config(&self) -> Option<Value> {
        match &self.stdin {
            Stdin::Bytes(bytes) | Stdin::Open(bytes) => serde_json::from_slice(bytes).ok(),
            _ => None,
        }
    }

    /// Changes the configuration on standard input.
    #[must_use]
    pub fn edit(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut config = self.read_config().unwrap_or(Value::Null);
        change(&mut config);
        self.config(&config)
    }

    /// Sets or, with null, removes `prevResult`.
    #[must_use]
    pub fn previous(self, result: &Value) -> Self {
        self.edit(|config| {
            if result.is_null() {
                if let Some(object) = config.as_object_mut() {
                    object.remove("prevResult");
                }
            } else {
                config["prevResult"] = result.clone();
            }
        })
    }

    /// Sets the time after which it is killed and counts as hanging.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, as a person would type it.
    pub fn shell(&self) -> String {
        let mut words = vec!["env".to_owned(), "-i".to_owned()];
        words.extend(self.environment.iter().map(|(name, value)| quote(&format!("{name}={value}"))));
        words.extend(self.wrapper.iter().map(|word| quote(word)));
        words.push(quote(&self.program.display().to_string()));
        words.extend(self.arguments.iter().map(|word| quote(word)));
        let mut command = words.join(" ");
        if let Some(time) = self.kill_after {
            command = format!("timeout -s KILL {} {command}", time.as_secs_f64());
        }
        let pipeline = match &self.stdin {
            Stdin::Bytes(bytes) if bytes.is_empty() => format!("{command} </dev/null"),
            Stdin::Bytes(bytes) => format!("{} | {command}", print(bytes)),
            Stdin::Open(bytes) => format!("{{ {}; sleep 60; }} | {command}", print(bytes)),
            Stdin::Closed => format!("{command} <&-"),
            Stdin::Directory => format!("{command} </"),
        };
        if self.close_stdout { format!("{pipeline} | :") } else { pipeline }
    }
}

/// Commands that print these bytes. A long run of one byte is made, not written.
fn print(bytes: &[u8]) -> String {
    const RUN: usize = 256;
    let mut commands = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
        if run >= RUN {
            commands.extend(print_plain(&bytes[plain..at]));
            commands.push(format!("head -c {run} /dev/zero | tr '\\0' '\\{:03o}'", bytes[at]));
            plain = at + run;
        }
        at += run;
    }
    commands.extend(print_plain(&bytes[plain..]));
    match commands.as_slice() {
        [one] if !one.contains('|') => one.clone(),
        several => format!("{{ {}; }}", several.join("; ")),
    }
}

fn print_plain(bytes: &[u8]) -> Option<String> {
    const LIMIT: usize = 65_536;
    if bytes.is_empty() {
        return None;
    }
    if bytes.len() > LIMIT {
        return Some(format!("cat input   # {} bytes that a program made", bytes.len()));
    }
    let typed = |text: &&str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if let Some(text) = std::str::from_utf8(bytes).ok().filter(typed) {
        return Some(format!("printf %s {}", quote(text)));
    }
    let octal: Vec<String> = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    Some(format!("printf '{}'", octal.concat()))
}

/// Quotes a word for sh(1), where it needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Wall-clock time from start to end.
    pub duration: Duration,
    /// It was killed because it did not end within the call's timeout.
    pub timed_out: bool,
    /// It ended before it had read all of its standard input.
    pub broken_pipe: bool,
    /// Processes it had started and left running, and that had to be killed.
    pub left_running: usize,
    /// Index of the step in the journal.
    pub step: usize,
}

impl Reply {
    /// It ended by itself with status 0.
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// It ended by itself, by a status, other than 0.
    pub fn failed(&self) -> bool {
        self.status.is_some_and(|status| status != 0)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as exactly one JSON document, or why it is not.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn document(&self) -> Result<Value, String> {
        if self.stdout.iter().all(u8::is_ascii_whitespace) {
            return Err("standard output is empty".to_owned());
        }
        let mut documents = serde_json::Deserializer::from_slice(&self.stdout).into_iter::<Value>();
        let first = match documents.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                return Err(format!("standard output is not JSON ({error}): {}", self.excerpt()));
            }
            None => return Err("standard output is empty".to_owned()),
        };
        match documents.next() {
            None => Ok(first),
            Some(Ok(_)) => {
                Err(format!("standard output has more than one JSON document: {}", self.excerpt()))
            }
            Some(Err(_)) => {
                Err(format!("standard output has something after its document: {}", self.excerpt()))
            }
        }
    }

    /// The `code` of an error document.
    pub fn code(&self) -> Option<i64> {
        self.document().ok()?.get("code")?.as_i64()
    }

    /// `msg` and `details` of an error document, together.
    pub fn message(&self) -> String {
        let Ok(document) = self.document() else { return String::new() };
        let part = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}", part("msg"), part("details")).trim().to_owned()
    }

    /// In a few words, for findings.
    pub fn summary(&self) -> String {
        if self.timed_out {
            return format!("did not end within {} s and was killed", self.duration.as_secs());
        }
        if let Some(signal) = self.signal {
            return format!("was ended by signal {signal}");
        }
        let status = self.status.unwrap_or(-1);
        match self.code() {
            Some(code) => format!("status {status}, code {code}, {:?}", self.message()),
            None if self.stdout.is_empty() && self.stderr.is_empty() => format!("status {status}, no output"),
            None => format!("status {status}, {}", self.excerpt()),
        }
    }

    fn excerpt(&self) -> String {
        const SHOWN: usize = 300;
        let text = if self.stdout.is_empty() { self.errors() } else { self.text() };
        let short: String = text.chars().take(SHOWN).collect();
        format!("{short:?}{}", if short.len() < text.len() { " …" } else { "" })
    }
}

/// Executes `call`. The reply's `step` is 0.
///
/// # Errors
/// What the system said to starting it.
pub fn execute(call: &Call) -> io::Result<Reply> {
    let mut command = match call.wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(&call.program);
            command
        }
        None => Command::new(&call.program),
    };
    command.args(&call.arguments).env_clear().envs(&call.environment).current_dir("/");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    match &call.stdin {
        Stdin::Bytes(_) | Stdin::Open(_) => command.stdin(Stdio::piped()),
        Stdin::Directory => command.stdin(fs::File::open("/")?),
        Stdin::Closed => {
            // The standard library cannot start a program with descriptor 0 closed; a shell can.
            let mut closed = Command::new("sh");
            closed.args(["-c", "exec \"$@\" <&-", "sh"]).arg(command.get_program()).args(command.get_args());
            closed.env_clear().envs(&call.environment).current_dir("/");
            closed.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
            command = closed;
            &mut command
        }
    };
    let started = Instant::now();
    let mut child = command.spawn()?;
    converse(call, &mut child, started)
}

fn converse(call: &Call, child: &mut Child, started: Instant) -> io::Result<Reply> {
    let talk = Talk::new(call, child, started)?;
    // Whoever waits for the end of a process cannot watch its pipes: one thread for all of them.
    let (end, running) = io::pipe()?;
    thread::scope(|scope| {
        let talk = scope.spawn(move || talk.hold(&end));
        let status = child.wait()?;
        let duration = started.elapsed();
        drop(running);
        // What it started has been adopted by this process (a subreaper) and may hold the pipes open.
        let left_running = reap_orphans();
        let said = talk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Reply {
            status: status.code(),
            signal: status.signal(),
            stdout: said.stdout,
            stderr: said.stderr,
            duration,
            timed_out: said.late && call.kill_after.is_none(),
            broken_pipe: said.broken_pipe,
            left_running,
            step: 0,
        })
    })
}

/// Kills a process and everything below it.
pub(crate) fn kill_tree(root: u32) {
    let mut doomed = vec![root];
    let mut next = 0;
    while next < doomed.len() {
        doomed.extend(children_of(doomed[next]));
        next += 1;
    }
    for pid in doomed {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return children };
    for task in tasks.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    children
}

/// Kills the grandchildren that were left running and came to this process. Those that have ended already are not counted.
fn reap_orphans() -> usize {
    use std::sync::atomic::Ordering;
    let expected = super::RUNNING.load(Ordering::SeqCst);
    if expected > 1 {
        return 0; // in a race the others' children are here too
    }
    let mut running = 0;
    for pid in children_of(std::process::id()) {
        if super::background::is_kept(pid) {
            continue;
        }
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let alive = !state.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z');
        if alive {
            running += 1;
            kill_tree(pid);
        }
        if let Ok(raw) = i32::try_from(pid) {
            let _ = nix::sys::wait::waitpid(Pid::from_raw(raw), None);
        }
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Call {
        let mut call = Call::new("/bin/sh").env("PATH", "/usr/bin:/bin");
        call.arguments = vec!["-c".to_owned(), script.to_owned()];
        call
    }

    #[test]
    fn everything_that_comes_back_is_told_apart() {
        let reply = execute(&sh("cat; echo oops >&2; exit 3").bytes("{\"a\": 1}")).unwrap();
        assert_eq!((reply.status, reply.errors().as_str()), (Some(3), "oops\n"));
        assert_eq!(reply.document().unwrap()["a"], 1);
        let reply = execute(&sh("echo '{}'; echo '{}'")).unwrap();
        assert!(reply.document().unwrap_err().contains("more than one"));
        let reply = execute(&sh("sleep 30").timeout(Duration::from_millis(200))).unwrap();
        assert!(reply.timed_out && reply.signal == Some(9));
    }

    #[test]
    fn pipes_do_not_wait_for_each_other() {
        // More than pipes hold, both ways at once.
        let input = vec![b'x'; 300_000];
        let reply = execute(&sh("tee /dev/stderr").bytes(input.clone())).unwrap();
        assert_eq!((reply.stdout, reply.stderr, reply.broken_pipe), (input.clone(), input.clone(), false));
        let reply = execute(&sh("exec <&-; echo done").bytes(input.clone())).unwrap();
        assert_eq!((reply.text().as_str(), reply.broken_pipe), ("done\n", true));
        let mut open = sh("read line; echo $line; sleep 30").timeout(Duration::from_millis(300));
        open.stdin = Stdin::Open(b"one\n".to_vec());
        let reply = execute(&open).unwrap();
        assert_eq!((reply.text().as_str(), reply.timed_out, reply.broken_pipe), ("one\n", true, false));
    }

    #[test]
    fn what_a_program_left_running_does_not_hold_the_reply() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        super::super::RUNNING.store(1, std::sync::atomic::Ordering::SeqCst);
        let reply = execute(&sh("sleep 30 & echo started")).unwrap();
        assert_eq!((reply.text().as_str(), reply.left_running), ("started\n", 1));
        assert!(reply.duration < Duration::from_secs(20));
    }

    #[test]
    fn a_call_can_be_typed() {
        let call = Call::new("/opt/cni/bin/x").env("CNI_ARGS", "a=b c").bytes("it's");
        assert_eq!(call.shell(), r"printf %s 'it'\''s' | env -i 'CNI_ARGS=a=b c' /opt/cni/bin/x");
    }

    #[test]
    fn what_is_typed_is_what_was_sent() {
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(100_000));
        for input in ["it's\n".as_bytes(), b"\xff\0%d\\", long.as_bytes(), "\u{1}ö".as_bytes()] {
            let typed = Call::new("cat").env("PATH", "/usr/bin:/bin").bytes(input).shell();
            assert!(typed.len() < 500, "{typed}");
            assert_eq!(execute(&sh(&typed)).unwrap().stdout, input, "{typed}");
        }
    }
}
