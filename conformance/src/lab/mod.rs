//! The laboratory of one case: a fake host with containers, the plugin under test, stub delegates, and a journal of all that was done.
//!
//! Everything that a case does goes through here, so that the journal can be pasted into a shell to see the same again. Changing the world is
//! done with `ip`, `nft` and `sh`, which a reader knows; looking at it is done by [`crate::kernel`].

mod attach;
mod background;
mod chain;
mod direct;
pub mod exec;
mod rtnetlink;
pub mod runtime;
pub mod stub;
mod talk;
pub mod world;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use attach::OTHER_NETWORK;
pub use background::STARTED;
pub use exec::{Call, Reply, Stdin, quote};
pub use stub::{Act, Script, Seen};

use crate::catalogue::Level;
use crate::kernel::{Difference, Snapshot, View, inside};
use crate::profile::{Kind, Profile};
use crate::verdict::{Finding, Outcome, Stop, Verdict};

/// Executions in flight.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The name of the network in every case that does not choose another.
pub const NETWORK: &str = "cnfnet";

/// One thing that was done, so that it can be done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The line to type.
    pub shell: String,
    /// What came of it, in a few words; of an execution, how it ended.
    pub outcome: String,
    /// Standard output, shortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Standard error, shortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// It ran side by side with its neighbours that say so, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
}

/// A container: an identity and a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The name for `ip netns exec`, and the label in snapshots.
    pub name: String,
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Container {
    /// The same container with another interface name: a second attachment.
    #[must_use]
    pub fn interface(&self, ifname: &str) -> Self {
        Self { ifname: ifname.to_owned(), ..self.clone() }
    }

    /// The path of its namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.netns)
    }
}

/// The laboratory.
#[derive(Debug)]
pub struct Lab {
    /// The plugin under test.
    pub profile: Profile,
    /// The specification versions it says it supports, oldest first.
    pub versions: Vec<String>,
    /// The version of configurations in this case: the newest it supports, unless a case changes it.
    pub version: String,
    /// How strongly the item binds, which decides what breaking it is.
    pub level: Level,
    containers: Vec<Container>,
    /// The names of all containers there ever were, in order: the number of an attachment comes from it.
    ordinals: Vec<String>,
    journal: Vec<Step>,
    findings: Vec<Finding>,
    /// What [`Lab::beneath`] made for an interface of a container: the result an earlier plugin of the chain would have given.
    bases: BTreeMap<String, Value>,
    /// How often [`Lab::earlier`] made something.
    made: u8,
    /// What [`Lab::start`] started.
    background: Vec<background::Background>,
}

impl Lab {
    /// A laboratory in the namespaces the process is in, which must be private ([`world::enter`]). Prepares the fake host as the profile says.
    ///
    /// # Errors
    /// A preparation that does not work.
    pub fn new(profile: Profile, versions: Vec<String>, level: Level) -> Outcome<Self> {
        let version = versions.last().cloned().unwrap_or_else(|| "1.0.0".to_owned());
        let mut lab = Self {
            profile,
            versions,
            version,
            level,
            containers: Vec::new(),
            ordinals: Vec::new(),
            journal: Vec::new(),
            findings: Vec::new(),
            bases: BTreeMap::new(),
            made: 0,
            background: Vec::new(),
        };
        for command in lab.profile.prepare.clone() {
            lab.sh(&command)?;
        }
        Ok(lab)
    }

    /// What was found and done.
    pub fn into_parts(self) -> (Vec<Finding>, Vec<Step>) {
        (self.findings, self.journal)
    }

    // ---- the world ----

    /// Makes a container: a network namespace `/run/netns/NAME`, container id `cnf-NAME`, interface `eth0`.
    pub fn container(&mut self, name: &str) -> Outcome<Container> {
        let netns = format!("/run/netns/{name}");
        direct::add(Path::new(&netns))
            .map_err(|error| Stop::Broken(format!("cannot make the network namespace {netns}: {error}")))?;
        self.journal_line(format!("ip netns add {name}"), "made");
        let container = Container {
            name: name.to_owned(),
            id: format!("cnf-{name}"),
            netns,
            ifname: if self.profile.kind == Kind::Loopback { "lo" } else { "eth0" }.to_owned(),
        };
        self.containers.push(container.clone());
        self.ordinals.push(name.to_owned());
        Ok(container)
    }

    /// Runs a line of shell on the fake host. It must succeed.
    pub fn sh(&mut self, script: &str) -> Outcome<String> {
        let (ok, stdout, stderr) = self.try_sh(script)?;
        if ok { Ok(stdout) } else { Err(Stop::Broken(format!("`{script}` failed: {}", stderr.trim()))) }
    }

    /// Runs a line of shell on the fake host: whether it succeeded, standard output, standard error.
    pub fn try_sh(&mut self, script: &str) -> Outcome<(bool, String, String)> {
        let output = direct::run(script)?;
        Ok(self.told(script.to_owned(), &output))
    }

    /// Runs a line of shell in a container's network namespace. It must succeed.
    pub fn sh_in(&mut self, container: &Container, script: &str) -> Outcome<String> {
        // The program inherits the namespace of the thread that starts it, which is what `ip netns exec` would do with two more.
        let output = inside(&container.path(), || direct::run(script))??;
        let shell = format!("ip netns exec {} sh -c {}", container.name, quote(script));
        let (ok, stdout, stderr) = self.told(shell, &output);
        if ok {
            Ok(stdout)
        } else {
            let name = &container.name;
            Err(Stop::Broken(format!("`{script}` in container {name} failed: {}", stderr.trim())))
        }
    }

    fn told(&mut self, shell: String, output: &Output) -> (bool, String, String) {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        self.journal.push(Step {
            shell,
            outcome: output.status.to_string(),
            stdout: shorten(&stdout),
            stderr: shorten(&stderr),
            together: false,
        });
        (output.status.success(), stdout, stderr)
    }

    /// Notes in the journal what a step cannot show, as a comment.
    pub fn note(&mut self, text: &str) {
        self.journal_line(format!("# {text}"), "");
    }

    fn journal_line(&mut self, shell: String, outcome: &str) {
        self.journal.push(Step {
            shell,
            outcome: outcome.to_owned(),
            stdout: String::new(),
            stderr: String::new(),
            together: false,
        });
    }

    /// What the fake host has, over netlink.
    pub fn host(&self) -> Outcome<View> {
        Ok(View::read()?)
    }

    /// What a container's namespace has, over netlink.
    pub fn view(&self, container: &Container) -> Outcome<View> {
        Ok(inside(&container.path(), View::read)??)
    }

    /// Everything: the fake host (`host/…`), each container (`c1/…`), the watched files (`file/…`).
    pub fn snapshot(&self) -> Outcome<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.add_namespace("host")?;
        for container in &self.containers {
            inside(&container.path(), || snapshot.add_namespace(&container.name))??;
        }
        for (root, named) in world::watched() {
            snapshot.add_files(&root, named);
        }
        // The harness's own, the lock that iptables itself leaves, and what mount(8) remembers.
        snapshot.forget(&["file/run/netns", "file/run/xtables.lock", "file/run/mount/"]);
        Ok(snapshot)
    }

    /// What has changed since `before`, but for what the profile says may remain or is shared.
    pub fn changes(&self, before: &Snapshot) -> Outcome<Difference> {
        let difference = before.difference(&self.snapshot()?);
        Ok(difference.without(&self.profile.remains).without(&self.profile.shared))
    }

    /// What has changed since `before`, without any exemption.
    pub fn all_changes(&self, before: &Snapshot) -> Outcome<Difference> {
        Ok(before.difference(&self.snapshot()?))
    }

    // ---- configurations and calls ----

    /// The profile's minimal configuration, of network [`NETWORK`], in the case's version.
    pub fn config(&self) -> Value {
        self.profile.configuration(NETWORK, &self.version)
    }

    /// A call of the plugin as a runtime makes it: all six variables, the minimal configuration, for a meta plugin the result of
    /// [`Lab::beneath`] as `prevResult`. A later result belongs into it with [`Call::previous`].
    pub fn call(&self, verb: &str, container: &Container) -> Call {
        let call = self.bare(verb).config(&self.config_for(container));
        let call = match self.bases.get(&chain::key_of(container)) {
            Some(base) => call.previous(base),
            None => call,
        };
        call.env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", &container.netns)
            .env("CNI_IFNAME", &container.ifname)
            .env("CNI_ARGS", "")
    }

    /// A call for verbs without a container (`GC`, `STATUS`, `VERSION`), with the minimal configuration and the empty variables that libcni sends.
    pub fn call_network(&self, verb: &str) -> Call {
        let call = self.bare(verb).config(&self.config());
        ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
            .into_iter()
            .fold(call, |call, name| call.env(name, ""))
    }

    fn bare(&self, verb: &str) -> Call {
        Call::new(world::plugins().join(&self.profile.plugin))
            .verb(verb)
            .env("CNI_PATH", Self::cni_path())
            .env(
                // The Go suite and others find iptables and the like through it; a runtime always has one.
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
    }

    /// Stubs first, then the plugins under test.
    pub fn cni_path() -> String {
        format!("{}:{}", world::stubs().display(), world::plugins().display())
    }

    // ---- running ----

    /// Executes a call and writes it into the journal.
    pub fn run(&mut self, call: &Call) -> Outcome<Reply> {
        RUNNING.store(1, Ordering::SeqCst);
        let result = exec::execute(call);
        RUNNING.store(0, Ordering::SeqCst);
        let mut reply = result.map_err(|error| cannot_start(call, &error))?;
        reply.step = self.record(call, &reply);
        Ok(reply)
    }

    /// Executes calls side by side, as many at a time as there are calls.
    pub fn race(&mut self, calls: &[Call]) -> Outcome<Vec<Reply>> {
        RUNNING.store(calls.len().max(2), Ordering::SeqCst);
        let results: Vec<io::Result<Reply>> = thread::scope(|scope| {
            let threads: Vec<_> = calls.iter().map(|call| scope.spawn(|| exec::execute(call))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
                .collect()
        });
        RUNNING.store(0, Ordering::SeqCst);
        self.note(&format!("the next {} side by side:", calls.len()));
        let mut replies = Vec::new();
        for (call, result) in calls.iter().zip(results) {
            let mut reply = result.map_err(|error| cannot_start(call, &error))?;
            reply.step = self.record(call, &reply);
            self.journal[reply.step].together = true;
            replies.push(reply);
        }
        Ok(replies)
    }

    fn record(&mut self, call: &Call, reply: &Reply) -> usize {
        self.journal.push(Step {
            shell: call.shell(),
            outcome: format!("{} ({:.1} ms)", reply.summary(), reply.duration.as_secs_f64() * 1000.0),
            stdout: shorten(&reply.text()),
            stderr: shorten(&reply.errors()),
            together: false,
        });
        self.journal.len() - 1
    }

    /// ADD for the container, after what a chain needs beneath it. The result.
    ///
    /// # Errors
    /// Skips the case if ADD fails: that is the finding of another item (ADD-02).
    pub fn add(&mut self, container: &Container) -> Outcome<Value> {
        if !self.bases.contains_key(&chain::key_of(container)) {
            self.beneath(container)?;
        }
        let call = self.call("ADD", container);
        self.must_add(&call)
    }

    /// Executes an ADD that this case only needs as a prerequisite.
    ///
    /// # Errors
    /// As [`Lab::add`].
    pub fn must_add(&mut self, call: &Call) -> Outcome<Value> {
        let reply = self.run(call)?;
        match reply.document() {
            Ok(result) if reply.ok() => Ok(result),
            _ => Err(Stop::Skip(format!(
                "needs an ADD that works (see ADD-02), and this one did not: {}",
                reply.summary()
            ))),
        }
    }

    /// DEL for the container with this result as `prevResult`.
    pub fn del(&mut self, container: &Container, result: &Value) -> Outcome<Reply> {
        let call = self.call("DEL", container).previous(result);
        self.run(&call)
    }

    // ---- stubs ----

    /// Puts a stub delegate into `CNI_PATH`, before the real plugins.
    pub fn stub(&mut self, name: &str, script: &Script) -> Outcome {
        self.stub_in(&world::stubs(), name, script)
    }

    /// Puts a stub delegate into any directory, which is made if need be.
    pub fn stub_in(&mut self, directory: &Path, name: &str, script: &Script) -> Outcome {
        let harness = Path::new(world::HOME).join("cni-conformance");
        stub::install(directory, name, &harness, script)?;
        let shell = format!(
            "mkdir -p {} && ln -sf {} {place} && printf %s {} >{place}.script",
            directory.display(),
            harness.display(),
            quote(&serde_json::to_string(script).unwrap_or_default()),
            place = directory.join(name).display(),
        );
        self.journal_line(shell, "a stub delegate");
        Ok(())
    }

    /// What a stub of this name saw, in order.
    pub fn seen(&self, name: &str) -> Vec<Seen> {
        stub::seen(&world::stubs().join(name))
    }

    /// The verbs that a stub of this name saw, in order.
    pub fn verbs_seen(&self, name: &str) -> Vec<String> {
        self.seen(name).into_iter().map(|call| call.verb).collect()
    }

    /// Forgets what a stub saw so far.
    pub fn forget(&self, name: &str) {
        stub::forget(&world::stubs().join(name));
    }

    // ---- needs ----

    /// Skips the case unless the plugin supports this specification version, and makes it the case's version.
    pub fn need_version(&mut self, version: &str) -> Outcome {
        if self.versions.iter().any(|supported| supported == version) {
            version.clone_into(&mut self.version);
            Ok(())
        } else {
            Err(Stop::Skip(format!(
                "the plugin does not support version {version} ({})",
                self.versions.join(", ")
            )))
        }
    }

    /// Skips the case unless the plugin supports a version that has this verb: CHECK since 0.4.0, GC and STATUS since 1.1.0.
    pub fn need_verb(&mut self, verb: &str) -> Outcome {
        let least = match verb {
            "CHECK" => "0.4.0",
            "GC" | "STATUS" => "1.1.0",
            _ => return Ok(()),
        };
        let newest = self.versions.last().cloned().unwrap_or_default();
        if parse_version(&newest) >= parse_version(least) {
            newest.clone_into(&mut self.version);
            Ok(())
        } else {
            Err(Stop::Skip(format!(
                "{verb} came with version {least}, and the plugin supports {}",
                self.versions.join(", ")
            )))
        }
    }

    // ---- findings ----

    /// The item is broken: as bad as its level says. `reply` is the execution that shows it.
    pub fn violated(&mut self, message: impl Into<String>, reply: Option<&Reply>) {
        self.finding(Verdict::of_breaking(self.level), message, reply);
    }

    /// The item is broken unless `holds`. The message is made only when it is needed.
    pub fn check(&mut self, holds: bool, reply: Option<&Reply>, message: impl FnOnce() -> String) -> bool {
        if !holds {
            self.violated(message(), reply);
        }
        holds
    }

    /// The worse side of a contradiction in the specification, or a SHOULD inside a MUST: a warning, whatever the item's level.
    pub fn warn(&mut self, message: impl Into<String>, reply: Option<&Reply>) {
        self.finding(Verdict::Warn, message, reply);
    }

    /// Worth telling, not wrong.
    pub fn inform(&mut self, message: impl Into<String>, reply: Option<&Reply>) {
        self.finding(Verdict::Info, message, reply);
    }

    /// Adds a finding as it is.
    pub fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn finding(&mut self, verdict: Verdict, message: impl Into<String>, reply: Option<&Reply>) {
        self.findings.push(Finding { verdict, message: message.into(), step: reply.map(|reply| reply.step) });
    }

    /// An execution that must fail as the protocol says: a status other than 0, one error document, this code (if given).
    /// Returns whether all of it holds.
    pub fn refused(&mut self, reply: &Reply, code: Option<i64>, why: &str) -> bool {
        let held = if reply.failed() {
            match reply.document() {
                Err(problem) => Some(format!("{why}: it failed, but without an error document: {problem}")),
                Ok(_) => match (code, reply.code()) {
                    (Some(wanted), Some(got)) if wanted != got => {
                        Some(format!("{why}: code {got} instead of {wanted}: {:?}", reply.message()))
                    }
                    (_, None) => Some(format!("{why}: the error document has no code: {}", reply.text())),
                    _ => None,
                },
            }
        } else {
            Some(format!("{why}: expected an error, got {}", reply.summary()))
        };
        match held {
            Some(message) => {
                self.violated(message, Some(reply));
                false
            }
            None => true,
        }
    }

    /// An execution that must succeed. Returns whether it did.
    pub fn accepted(&mut self, reply: &Reply, why: &str) -> bool {
        self.check(reply.ok(), Some(reply), || format!("{why}: expected success, got {}", reply.summary()))
    }

    /// Nothing may have changed since `before`, but for what the profile exempts. Returns whether that holds.
    pub fn unchanged(&mut self, before: &Snapshot, why: &str) -> Outcome<bool> {
        let difference = self.changes(before)?;
        Ok(self.check(difference.is_empty(), None, || format!("{why}: {difference}")))
    }
}

fn cannot_start(call: &Call, error: &io::Error) -> Stop {
    Stop::Broken(format!("cannot execute {}: {error}", call.program.display()))
}

fn shorten(text: &str) -> String {
    const LIMIT: usize = 4096;
    if text.len() <= LIMIT {
        return text.to_owned();
    }
    let short: String = text.chars().take(LIMIT).collect();
    format!("{short} … ({} bytes)", text.len())
}

/// `1.10.0` as numbers, for comparing.
pub fn parse_version(text: &str) -> Vec<u64> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// A result that is written in version 1.0.0, in another version (section "result versions" of the specification's history).
#[must_use]
pub fn in_version(result: &Value, version: &str) -> Value {
    let mut out = result.clone();
    out["cniVersion"] = json!(version);
    let numbers = parse_version(version);
    let family = |address: &Value| {
        if address.as_str().unwrap_or_default().contains(':') { "6" } else { "4" }
    };
    if numbers >= parse_version("1.0.0") {
        return out;
    }
    if numbers >= parse_version("0.3.0") {
        for ip in out["ips"].as_array_mut().into_iter().flatten() {
            ip["version"] = json!(family(&ip["address"]));
        }
        return out;
    }
    let mut old =
        json!({ "cniVersion": version, "dns": out.get("dns").cloned().unwrap_or_else(|| json!({})) });
    for ip in out["ips"].as_array().into_iter().flatten() {
        let number = family(&ip["address"]);
        let key = format!("ip{number}");
        if old.get(&key).is_some() {
            continue;
        }
        let routes: Vec<Value> = out["routes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|route| family(&route["dst"]) == number)
            .cloned()
            .collect();
        old[&key] = json!({ "ip": ip["address"], "gateway": ip["gateway"], "routes": routes });
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_every_version() {
        let result = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0" }],
            "ips": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0 }, { "address": "fd00::2/64", "interface": 0 }],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }], "dns": {} });
        assert_eq!(in_version(&result, "0.4.0")["ips"][1]["version"], "6");
        let old = in_version(&result, "0.2.0");
        assert_eq!(old["ip4"]["ip"], "10.1.0.2/24");
        assert_eq!(old["ip6"]["routes"], json!([{ "dst": "::/0" }]));
        assert!(old.get("interfaces").is_none());
    }
}
