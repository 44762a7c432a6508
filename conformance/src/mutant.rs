//! Mutants: working plugins with a fault put in, as data. They show that a check can fail.
//!
//! A mutant is this program itself under a plugin's name. Beside it lie `PLUGIN.real`, the working plugin, and `PLUGIN.fault`, what to do
//! wrong. `mutants/README.md` tells the format to those who write one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lab::world;
use crate::profile::merge;

/// A deliberately faulty plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// A name, unique among all.
    pub id: String,
    /// The plugin that it wraps.
    pub plugin: String,
    /// What is wrong with it, in a few words.
    pub about: String,
    /// The items, or `ITEM/case`, that must not hold for it.
    pub trips: Vec<String>,
    /// What it does wrong. All that apply to a call are done, in this order.
    pub fault: Vec<Fault>,
}

/// When a fault shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Variables and patterns of their values; the pattern "" stands for unset or empty.
    pub env: BTreeMap<String, String>,
    /// JSON pointers into the configuration and patterns of what is there as text; the pattern "" stands for nothing there.
    pub config: BTreeMap<String, String>,
    /// Only when the real plugin failed (`true`) or succeeded (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Only the n-th call, from 1, that meets all other conditions; counted anew in each case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
}

/// One thing that a mutant does wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// A pattern of `CNI_COMMAND`.
    pub verb: String,
    /// Further conditions.
    #[serde(default)]
    pub when: When,
    /// The real plugin is not called. Status 0 and no output, unless given below.
    #[serde(default)]
    pub instead: bool,
    /// Variables changed for the real plugin; `<remove>` removes.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The configuration for the real plugin is changed so ([`patch`]).
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Shell before the real plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Shell after it. What the plugin printed is its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The document that the real plugin printed is changed so ([`patch`]).
    #[serde(default)]
    pub output: Map<String, Value>,
    /// Printed in place of what the real plugin printed, for which `{stdout}` stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Printed on standard error, too.
    #[serde(default)]
    pub stderr: String,
    /// The exit status, whatever the real plugin's was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Milliseconds to sleep before answering.
    #[serde(default)]
    pub sleep: u64,
    /// Ends by SIGKILL, without an answer, after the real plugin.
    #[serde(default)]
    pub crash: bool,
}

impl Fault {
    /// What is told to the real plugin or done before it, which cannot depend on how that ends.
    fn acts_before(&self) -> bool {
        self.instead || !self.env.is_empty() || !self.config.is_empty() || self.before.is_some()
    }

    fn reads_configuration(&self) -> bool {
        !self.when.config.is_empty() || !self.config.is_empty()
    }

    fn applies_to_environment(&self) -> bool {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let applies = |name: &str, pattern: &str| matches(pattern, &variable(name));
        crate::glob(&self.verb, &variable("CNI_COMMAND"))
            && self.when.env.iter().all(|(name, pattern)| applies(name, pattern))
    }

    fn applies_to_configuration(&self, configuration: &Value) -> bool {
        self.when.config.iter().all(|(pointer, pattern)| {
            let text = match configuration.pointer(pointer) {
                None => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            matches(pattern, &text)
        })
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    // "" stands for nothing there, and so `*` for something there.
    if pattern == "*" { !text.is_empty() } else { crate::glob(pattern, text) }
}

/// A file of mutants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// Every mutant of a directory's `.toml` files.
///
/// # Errors
/// The file that cannot be read or parsed, or the mutant that makes no sense.
pub fn load(directory: &Path) -> Result<Vec<Mutant>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut mutants: Vec<Mutant> = Vec::new();
    for file in files {
        let name = file.display();
        let text = fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
        let found: File = toml::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        for mutant in found.mutant {
            let id = &mutant.id;
            if mutants.iter().any(|other| other.id == *id) {
                return Err(format!("{name}: a second mutant with id {id:?}"));
            }
            if mutant.trips.is_empty() || mutant.fault.is_empty() {
                return Err(format!("{name}: mutant {id:?} needs something in `trips` and a `fault`"));
            }
            if mutant.fault.iter().any(|fault| fault.when.failed.is_some() && fault.acts_before()) {
                return Err(format!(
                    "{name}: mutant {id:?}: how the real plugin ends (`when.failed`) is not known before it is called"
                ));
            }
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

/// Changes a document: a JSON merge patch (RFC 7396) in which the strings `<remove>` and `<null>` remove and set null, as TOML cannot. A key
/// that begins with `/` is a JSON pointer, for what is within an array; `/ips/-` appends.
pub fn patch(document: &mut Value, change: &Map<String, Value>) {
    for (key, value) in change {
        if !key.starts_with('/') {
            let single: Map<String, Value> = [(key.clone(), value.clone())].into_iter().collect();
            merge(document, &Value::Object(single));
            continue;
        }
        let Some((parent, end)) = key.rsplit_once('/') else { continue };
        match document.pointer_mut(parent) {
            Some(Value::Array(list)) if end == "-" => {
                let mut item = Value::Null;
                merge(&mut item, value);
                list.push(item);
            }
            Some(Value::Array(list)) => {
                let Some(index) = end.parse().ok().filter(|index| *index < list.len()) else { continue };
                if value == "<remove>" {
                    list.remove(index);
                } else {
                    merge(&mut list[index], value);
                }
            }
            Some(object @ Value::Object(_)) => {
                let single: Map<String, Value> = [(end.to_owned(), value.clone())].into_iter().collect();
                merge(object, &Value::Object(single));
            }
            _ => {}
        }
    }
}

/// Makes the mutant `faults` of `plugin` in `directory`, from executables that are hard-linked: the harness binds the directory into each
/// case's world, where a symbolic link would lead nowhere.
///
/// # Errors
/// What the file system said.
pub fn install(
    directory: &Path,
    plugin: &str,
    real: &Path,
    program: &Path,
    faults: &[Fault],
) -> io::Result<()> {
    let place = directory.join(plugin);
    let _ = fs::remove_file(&place);
    fs::hard_link(program, &place)?;
    fs::hard_link(real, beside(&place, "real"))?;
    fs::write(beside(&place, "fault"), serde_json::to_vec(faults)?)
}

fn beside(place: &Path, extension: &str) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    place.with_file_name(name)
}

/// Whether the program was started as a mutant: under a plugin's name, with a fault beside it.
pub fn is_mutant(program: &Path) -> bool {
    beside(program, "fault").exists()
}

/// Plays the mutant that was started as `program`. Returns the exit status.
///
/// # Errors
/// A fault that cannot be read, a plugin or shell that cannot be started.
pub fn play(program: &Path, arguments: Vec<OsString>) -> io::Result<u8> {
    let faults: Vec<Fault> = serde_json::from_slice(&fs::read(beside(program, "fault"))?)?;
    let mut faults: Vec<(usize, Fault)> =
        faults.into_iter().enumerate().filter(|(_, fault)| fault.applies_to_environment()).collect();
    // Standard input is left to the real plugin unless a fault is about it: how it is read is among the things that are checked.
    let mut bytes = None;
    if faults.iter().any(|(_, fault)| fault.reads_configuration()) {
        let mut read = Vec::new();
        let _ = io::stdin().lock().read_to_end(&mut read);
        let configuration = serde_json::from_slice(&read).unwrap_or(Value::Null);
        faults.retain(|(_, fault)| fault.applies_to_configuration(&configuration));
        bytes = Some(read);
    }
    let mut kept = Vec::new();
    for (number, fault) in faults {
        // Where the end of the real plugin is a condition too, it is counted when that is known.
        if fault.when.failed.is_some() || counts(program, number, &fault)? {
            kept.push((number, fault));
        }
    }
    let mut real = Command::new(beside(program, "real"));
    real.arg0(program).args(arguments);
    if kept.is_empty() && bytes.is_none() {
        return Err(real.exec());
    }
    let (status, stdout) = call(&mut real, &kept, bytes)?;
    let mut ended = Vec::new();
    for (number, fault) in kept {
        let counted = match fault.when.failed {
            Some(failed) => failed == (status != 0) && counts(program, number, &fault)?,
            None => true,
        };
        if counted {
            ended.push(fault);
        }
    }
    answer(&ended, status, stdout)
}

/// Whether this is the call that a fault with `nth` waits for.
fn counts(program: &Path, number: usize, fault: &Fault) -> io::Result<bool> {
    let Some(nth) = fault.when.nth else { return Ok(true) };
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // In the case's own file system: the mutant's directory is shared by cases that run side by side.
    let place = Path::new(world::HOME).join(format!("{name}.fault-{number}.count"));
    let mut file = OpenOptions::new().create(true).append(true).open(place)?;
    file.write_all(b".")?;
    Ok(file.stream_position()? == nth)
}

/// The real plugin, as the faults let it be called: its status and what it printed.
fn call(
    real: &mut Command,
    faults: &[(usize, Fault)],
    mut bytes: Option<Vec<u8>>,
) -> io::Result<(u8, Vec<u8>)> {
    for (_, fault) in faults {
        if let Some(script) = &fault.before {
            shell(script, bytes.as_deref())?;
        }
        for (name, value) in &fault.env {
            if value == "<remove>" {
                real.env_remove(name);
            } else {
                real.env(name, value);
            }
        }
        if fault.config.is_empty() {
            continue;
        }
        if let Some(read) = &mut bytes
            && let Ok(mut document) = serde_json::from_slice::<Value>(read)
        {
            patch(&mut document, &fault.config);
            *read = document.to_string().into_bytes();
        }
    }
    if faults.iter().any(|(_, fault)| fault.instead) {
        return Ok((0, Vec::new()));
    }
    let (status, stdout) = converse(real.stdout(Stdio::piped()), bytes.as_deref())?;
    if let Some(signal) = status.signal() {
        let _ = Signal::try_from(signal).map(raise);
    }
    Ok((status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1), stdout))
}

/// What the mutant says in place of what the real plugin said.
fn answer(faults: &[Fault], mut status: u8, mut stdout: Vec<u8>) -> io::Result<u8> {
    for fault in faults {
        if let Some(script) = &fault.after {
            shell(script, Some(&stdout))?;
        }
        if !fault.output.is_empty()
            && let Ok(mut document) = serde_json::from_slice::<Value>(&stdout)
        {
            patch(&mut document, &fault.output);
            stdout = document.to_string().into_bytes();
        }
        if let Some(text) = &fault.stdout {
            stdout = text.replace("{stdout}", &String::from_utf8_lossy(&stdout)).into_bytes();
        }
        io::stderr().write_all(fault.stderr.as_bytes())?;
        status = fault.status.unwrap_or(status);
        thread::sleep(Duration::from_millis(fault.sleep));
        if fault.crash {
            let _ = raise(Signal::SIGKILL);
        }
    }
    let mut out = io::stdout().lock();
    // A reader that has gone away is not the mutant's concern.
    let _ = out.write_all(&stdout).and_then(|()| out.flush());
    Ok(status)
}

/// Runs a line of shell. What it prints goes to standard error: only `stdout` and `output` change the answer. That it fails changes nothing.
fn shell(script: &str, input: Option<&[u8]>) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{{ {script}\n}} >&2")]);
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    }
    converse(&mut command, input).map(|_| ())
}

fn converse(command: &mut Command, input: Option<&[u8]>) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let (pipe, mut output) = (child.stdin.take(), child.stdout.take());
    let stdout = thread::scope(|scope| {
        scope.spawn(move || {
            if let (Some(mut pipe), Some(input)) = (pipe, input) {
                let _ = pipe.write_all(input);
            }
        });
        let mut stdout = Vec::new();
        if let Some(output) = &mut output {
            output.read_to_end(&mut stdout)?;
        }
        io::Result::Ok(stdout)
    })?;
    Ok((child.wait()?, stdout))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mutant(text: &str) -> Result<Mutant, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_mutant_is_written_so_and_a_typing_error_is_told() {
        let text = "id = 'x'\nplugin = 'bridge'\nabout = 'y'\ntrips = ['ADD-02']\n[[fault]]\nverb = 'ADD'\nwhen.env = { CNI_ARGS = '' }\nwhen.nth = 2";
        let read = mutant(text).unwrap();
        assert_eq!(read.fault[0].when.env["CNI_ARGS"], "");
        assert_eq!(read.fault[0].when.nth, Some(2));
        assert!(mutant(&format!("{text}\nstaus = 1")).is_err());
        let stored: Vec<Fault> = serde_json::from_slice(&serde_json::to_vec(&read.fault).unwrap()).unwrap();
        assert_eq!(stored, read.fault);
    }

    #[test]
    fn a_document_is_changed_also_within_arrays() {
        let change = json!({ "a": "<remove>", "/ips/0/gateway": "<null>", "/ips/-": { "address": "x" }, "/ips/7": 1, "/none/x": 1, "b": { "c": 1 } });
        let mut document = json!({ "a": 1, "ips": [{ "gateway": "g" }] });
        patch(&mut document, change.as_object().unwrap());
        assert_eq!(document, json!({ "ips": [{ "gateway": null }, { "address": "x" }], "b": { "c": 1 } }));
    }

    #[test]
    fn what_must_be_absent_matches_nothing_else() {
        let fault: Fault =
            serde_json::from_value(json!({ "verb": "*", "when": { "config": { "/a/b": "", "/c": "*" } } }))
                .unwrap();
        assert!(fault.applies_to_configuration(&json!({ "c": [] })));
        assert!(!fault.applies_to_configuration(&json!({ "a": { "b": 0 }, "c": 1 })));
        assert!(!fault.applies_to_configuration(&json!({ "a": {} })));
    }
}
