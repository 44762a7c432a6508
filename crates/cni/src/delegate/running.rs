//! A delegate that has been started: its output, its end, and what it said.

use std::io::{self, Write};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::output::{self, Excess, Output};

use super::{Delegate, LEAST_TIMEOUT};
use crate::environment::Verb;
use crate::failure::{Code, Failure};
use crate::json;
use crate::result::AddResult;

/// More output than this is not a CNI document.
const OUTPUT_LIMIT: usize = 4 << 20;

/// What of standard error is kept.
const STDERR_LIMIT: usize = 64 << 10;

/// How often a running delegate is looked at. Its end is an event, the end of its output; this is for those that close their output
/// without ending, and for those that end while a child of theirs still holds the output open.
const LOOK: Duration = Duration::from_millis(20);

/// A delegate that is running.
///
/// Dropped without having been waited for, it is not left behind: an ADD is waited for and taken back with DEL, so that a caller may
/// return early with `?`; any other verb is ended.
#[derive(Debug)]
pub struct Running<'a> {
    delegate: &'a Delegate<'a>,
    verb: Verb,
    work: Work,
    ended: bool,
}

/// A delegate at work.
#[derive(Debug)]
enum Work {
    Process(Process),
    /// It was called, and has answered.
    Done(Result<Option<AddResult>, Failure>),
}

/// A delegate's process.
#[derive(Debug)]
struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
    deadline: Instant,
}

/// What a delegate that succeeded has said.
enum Said {
    /// Its standard output.
    Text(Vec<u8>),
    /// It was called.
    Result(Box<AddResult>),
}

/// How a delegate ended.
enum End {
    Exited(ExitStatus),
    TimedOut,
}

impl<'a> Running<'a> {
    pub(super) fn new(delegate: &'a Delegate<'a>, verb: Verb, mut child: Child, deadline: Instant) -> Self {
        let stdout = Output::of(child.stdout.take(), OUTPUT_LIMIT, Excess::Close);
        let stderr = Output::of(child.stderr.take(), STDERR_LIMIT, Excess::Discard);
        let work = Work::Process(Process { child, stdout, stderr, deadline });
        Self { delegate, verb, work, ended: false }
    }

    /// One that was called.
    pub(super) fn answered(
        delegate: &'a Delegate<'a>,
        verb: Verb,
        answer: Result<Option<AddResult>, Failure>,
    ) -> Self {
        Self { delegate, verb, work: Work::Done(answer), ended: false }
    }

    /// Waits for the result of an ADD. If it fails, the delegate's DEL is run before its error is returned (specification section 4).
    pub fn add_result(self) -> Result<AddResult, Failure> {
        let delegate = self.delegate;
        let version = delegate.request.config().version();
        let answer = self.answer().and_then(|answer| {
            let stdout = match answer {
                Said::Result(result) => return Ok(*result),
                Said::Text(stdout) => stdout,
            };
            let value = json::parse(&stdout).map_err(|error| {
                delegate
                    .failure(Verb::Add, "did not answer with a JSON document")
                    .detail(error.to_string())
                    .detail(excerpt(&stdout))
            })?;
            AddResult::read(&value, version).map_err(|error| {
                let mut failure = delegate
                    .failure(Verb::Add, "answered with a result that can't be read")
                    .detail(error.to_string());
                if let Some(cause) = std::error::Error::source(&error) {
                    failure = failure.detail(cause.to_string());
                }
                failure.detail(excerpt(&stdout))
            })
        });
        answer.map_err(|failure| match delegate.clean_up() {
            Ok(()) => failure,
            Err(cleanup) => failure.detail(format!("and its DEL failed: {}", cleanup.message())),
        })
    }

    /// Waits for the delegate to end, in success or not.
    pub fn wait(self) -> Result<(), Failure> {
        self.answer().map(drop)
    }

    fn answer(mut self) -> Result<Said, Failure> {
        self.ended = true;
        let (delegate, verb) = (self.delegate, self.verb);
        match &mut self.work {
            Work::Process(process) => process.wait(delegate, verb).map(Said::Text),
            Work::Done(Ok(result)) => Ok(Said::Result(Box::new(result.take().unwrap_or_default()))),
            Work::Done(Err(failure)) => {
                let document = failure.document(delegate.request.config().version());
                Err(delegate.failure_in(verb, document.as_object().unwrap_or(&Map::new())))
            }
        }
    }
}

impl Process {
    fn wait(&mut self, delegate: &Delegate<'_>, verb: Verb) -> Result<Vec<u8>, Failure> {
        let end = self.finish();
        let (stdout, overflow) = self.stdout.taken();
        let (stderr, _) = self.stderr.taken();
        forward(&stderr);
        let status = match end {
            Ok(End::Exited(status)) => status,
            Ok(End::TimedOut) => {
                return Err(delegate
                    .failure(verb, "did not answer in time and was ended")
                    .with_code(Code::TryAgainLater)
                    .detail(excerpt(&stderr))
                    .hint("CNI_DELEGATE_TIMEOUT sets how many seconds it may take"));
            }
            Err(error) => {
                return Err(delegate.failure(verb, "can't be waited for").detail(error.to_string()));
            }
        };
        if overflow {
            return Err(delegate.failure(verb, "printed more than 4 MiB").detail(excerpt(&stdout)));
        }
        // A delegate that says it failed has failed, whatever its exit status.
        if let Some(failure) = delegate.reported(verb, &stdout) {
            return Err(failure);
        }
        if status.success() {
            return Ok(stdout);
        }
        Err(delegate
            .failure(verb, &format!("failed without an error document, {status}"))
            .detail(excerpt(&stdout))
            .detail(excerpt(&stderr)))
    }

    /// Until the delegate has ended or its time is over; then it is killed. Children of its own may outlive it, with the output open:
    /// nobody waits for those.
    fn finish(&mut self) -> io::Result<End> {
        while Instant::now() < self.deadline {
            self.stdout.read();
            self.stderr.read();
            if !self.stdout.is_open() && !self.stderr.is_open() {
                break;
            }
            if let Some(status) = ended(&mut self.child)? {
                // All that it has written is there by now. What its children write later is no answer of its own.
                self.stdout.read();
                self.stderr.read();
                return Ok(End::Exited(status));
            }
            output::wait(
                [&self.stdout, &self.stderr],
                LOOK.min(self.deadline.saturating_duration_since(Instant::now())),
            );
        }
        if let Some(status) = reap(&mut self.child, self.deadline)? {
            return Ok(End::Exited(status));
        }
        // It may end at this very moment; then there is nobody to kill.
        let _ = self.child.kill();
        // A process in an uninterruptible system call outlives even this; it is not worth a hanging plugin.
        reap(&mut self.child, Instant::now() + Duration::from_secs(1))?;
        Ok(End::TimedOut)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Work::Process(process) = &mut self.work {
            if self.verb != Verb::Add {
                process.deadline = Instant::now();
            }
            let _ = process.finish();
        }
        if self.verb == Verb::Add
            && let Err(failure) = self.delegate.clean_up()
        {
            self.delegate.request.note(format!("DEL after an ADD that was given up: {failure}"));
        }
    }
}

impl Delegate<'_> {
    /// DEL after an ADD that failed or is not wanted any more.
    fn clean_up(&self) -> Result<(), Failure> {
        let mut del = self.start(Verb::Del)?;
        // The runtime calls DEL itself; this one is a courtesy and must not cost the runtime its patience.
        if let Work::Process(process) = &mut del.work {
            process.deadline = process.deadline.min(Instant::now() + LEAST_TIMEOUT);
        }
        del.wait()
    }

    /// The delegate's own error, passed through: code and message unchanged. The Go library can print a result and then an error,
    /// so it is looked for among all the documents there are.
    fn reported(&self, verb: Verb, stdout: &[u8]) -> Option<Failure> {
        let documents = serde_json::Deserializer::from_slice(stdout).into_iter::<Value>();
        // No result has these keys.
        let is_error = |object: &Map<String, Value>| {
            json::get(object, "code").is_some() && json::get(object, "msg").is_some()
        };
        let object = documents.map_while(Result::ok).find_map(|document| match document {
            Value::Object(object) if is_error(&object) => Some(object),
            _ => None,
        })?;
        Some(self.failure_in(verb, &object))
    }

    /// The failure that an error document is.
    fn failure_in(&self, verb: Verb, object: &Map<String, Value>) -> Failure {
        let text = |key| json::get(object, key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let number = json::get(object, "code").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let mut failure = Failure::new(
            // The zero of a plugin that does not say becomes a code of ours.
            Code::received(number.unwrap_or(0)),
            text("msg").unwrap_or("failed without a message"),
        );
        if let Some(details) = text("details") {
            failure = failure.detail(details);
        }
        failure.detail(format!("reported by plugin {:?} ({verb})", self.kind))
    }
}

/// Waits for a process whose end is near. The standard library has no wait with a deadline, so this looks again and again, soon at first.
fn reap(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Some(status) = ended(child)? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK);
    }
}

/// [`Child::try_wait`], which unlike [`Child::wait`] does not try again when a signal interrupts it.
fn ended(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn forward(stderr: &[u8]) {
    if !stderr.is_empty() {
        let _ = io::stderr().lock().write_all(stderr);
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
