//! The process around a call: what it reads, what it prints, and what a panic in it becomes.

use std::any::Any;
use std::io::{self, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;

use serde::Serialize;

use crate::environment::Environment;
use crate::failure::{Code, Failure};
use crate::json::shorten;
use crate::plugin::{Document, Plugin, Response, answer};
use crate::version::SpecVersion;

/// The `main` of a plugin: reads environment and standard input, runs the verb, writes the answer.
///
/// Standard output carries one document or nothing, and a panic becomes an error document. If the result of an ADD can't be written
/// because the runtime has gone away, the container is disconnected again.
pub fn run(plugin: &(dyn Plugin + Sync)) -> ExitCode {
    install_panic_hook();
    let environment = Environment::of_process();
    let work = || answer(plugin, &environment, io::stdin());
    let answer = panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Response::failed(&panicked(payload.as_ref()), SpecVersion::NEWEST).into());
    note(&answer.notes);
    let Err(error) = print(answer.document.as_ref()) else {
        let exit = if answer.success { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        // The kernel takes their memory back at once, and sooner.
        mem::forget((answer, environment));
        return exit;
    };
    note(&[format!("can't write to standard output: {error}")]);
    if let Some(added) = answer.added {
        let undone = added.undo(plugin);
        note(&added.notes());
        if let Err(failure) = undone {
            note(&[format!("and taking the ADD back failed: {failure}")]);
        }
    }
    ExitCode::FAILURE
}

/// Lines for standard error.
pub(crate) fn note(lines: &[String]) {
    let mut stderr = io::stderr().lock();
    for line in lines {
        // Standard error is for people; that nobody reads it is no failure.
        let _ = writeln!(stderr, "{line}");
    }
}

fn print(document: Option<&Document>) -> io::Result<()> {
    let Some(document) = document else { return Ok(()) };
    let mut bytes = pretty(document)?;
    bytes.push(b'\n');
    let mut stdout = io::stdout().lock();
    // One write of the whole document, so that a reader never sees half of one followed by an error.
    stdout.write_all(&bytes)?;
    stdout.flush()
}

/// Four spaces, as the Go library prints.
fn pretty(document: &Document) -> serde_json::Result<Vec<u8>> {
    /// Most are smaller.
    const USUAL: usize = 1 << 10;
    let mut bytes = Vec::with_capacity(USUAL);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    document.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(bytes)
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

/// What a panic is to the runtime: a failure that says where.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let location = PANIC_LOCATION.lock().ok().and_then(|mut location| location.take());
    let location = location.map(|location| format!(" at {location}")).unwrap_or_default();
    Failure::new(Code::Internal, "the plugin failed unexpectedly; this is a defect of the plugin")
        .detail(format!("panic{location}: {}", shorten(&text)))
        .hint("run DEL to clean up, and report this")
}
