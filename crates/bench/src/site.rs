//! A contender doing a job on a host of its own, called as libcni calls plugins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::error::{BenchError, Doing as _, Result};
use crate::exec::{self, Cost};
use crate::floor;
use crate::host::{Host, netns_path};
use crate::job::{Job, container};
use crate::suite::{Contender, Suite};

/// What a runtime asks of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Connect a container.
    Add,
    /// See whether it still is.
    Check,
    /// Disconnect it.
    Del,
}

impl Verb {
    /// All, in the order of a container's life.
    pub const ALL: [Self; 3] = [Self::Add, Self::Check, Self::Del];

    /// As in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }
}

/// One execution of a program, prepared.
#[derive(Debug)]
pub struct Step {
    /// The plugin's type, or `floor`.
    pub plugin: String,
    /// The plugin, and what it is to do, for an error.
    pub what: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    /// Its configuration.
    pub stdin: Vec<u8>,
}

impl Step {
    /// The command, with the environment a runtime gives it.
    pub fn command(&self) -> Command {
        self.command_under::<&str>(&[])
    }

    /// The same under another program, whose words come first.
    pub fn command_under<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        let mut command = match words.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        // What it starts (iptables) has to be found.
        command.args(&self.arguments).env_clear().env("PATH", PATH).envs(self.environment.iter().cloned());
        command
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where netavark keeps what its firewall needs after a reload.
const NETAVARK_STATE: &str = "/run/netavark";
const IFNAME: &str = "eth0";

/// A contender on its host, and the attachments it has made.
#[derive(Debug)]
pub struct Site {
    contender: Contender,
    host: Host,
    job: Job,
    results: Mutex<BTreeMap<u16, Value>>,
}

impl Site {
    /// A new host, on which nothing has been made yet.
    ///
    /// # Errors
    /// If the host can't be made.
    pub fn new(base: &testkit::Host, contender: &Contender, job: &Job) -> Result<Self> {
        let host = Host::new(base)?;
        match contender {
            Contender::Floor { .. } => prepare_floor(&host, job)?,
            Contender::Netavark { .. } => {
                host.enter(|| std::fs::create_dir_all(NETAVARK_STATE).doing("make", NETAVARK_STATE))?;
            }
            Contender::Suite(_) => {}
        }
        Ok(Self { contender: contender.clone(), host, job: job.clone(), results: Mutex::default() })
    }

    /// Who is at work here.
    pub fn contender(&self) -> &Contender {
        &self.contender
    }

    /// Where.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Makes the namespaces of containers with these numbers.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn create_containers(&self, numbers: impl Iterator<Item = u16>) -> Result<()> {
        self.host.create_containers(&numbers.map(container).collect::<Vec<_>>())
    }

    /// Takes them away.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn delete_containers(&self, numbers: impl Iterator<Item = u16>) -> Result<()> {
        self.host.delete_containers(&numbers.map(container).collect::<Vec<_>>())
    }

    /// Whether it knows this verb: only plugins have a CHECK.
    pub fn knows(&self, verb: Verb) -> bool {
        verb != Verb::Check || matches!(self.contender, Contender::Suite(_))
    }

    /// Has a verb done for a container, and returns what each program of it cost, in the order they ran in.
    ///
    /// # Errors
    /// The first program's failure.
    pub fn run(&self, verb: Verb, number: u16) -> Result<Vec<(String, Cost)>> {
        let mut costs = Vec::new();
        let mut measure = |step: &Step| {
            let (cost, stdout) = exec::run(&mut step.command(), &step.stdin, &step.what)?;
            costs.push((step.plugin.clone(), cost));
            Ok(stdout)
        };
        self.host.enter(|| self.steps(verb, number, &mut measure))?;
        Ok(costs)
    }

    /// The same by other means: `execute` starts each program on the host, and returns what it printed.
    ///
    /// # Errors
    /// Those of `execute`, and what it printed if that was no result.
    pub fn run_by(
        &self,
        verb: Verb,
        number: u16,
        execute: &mut (dyn FnMut(&Step) -> Result<Vec<u8>> + Send),
    ) -> Result<()> {
        self.host.enter(|| self.steps(verb, number, execute))
    }

    /// To be called on the host.
    pub(crate) fn steps(
        &self,
        verb: Verb,
        number: u16,
        execute: &mut (dyn FnMut(&Step) -> Result<Vec<u8>> + Send),
    ) -> Result<()> {
        match &self.contender {
            Contender::Floor { program } => execute(&floor_step(program, verb, &self.job, number)).map(drop),
            Contender::Netavark { program } => {
                execute(&netavark_step(program, verb, &self.job, number)).map(drop)
            }
            Contender::Suite(suite) => self.suite_steps(suite, verb, number, execute),
        }
    }

    fn suite_steps(
        &self,
        suite: &Suite,
        verb: Verb,
        number: u16,
        execute: &mut (dyn FnMut(&Step) -> Result<Vec<u8>> + Send),
    ) -> Result<()> {
        let mut previous = self.results().get(&number).cloned();
        let mut plugins = self.job.plugins();
        if verb == Verb::Del {
            plugins.reverse();
        }
        for plugin in plugins {
            let kind = plugin["type"].as_str().unwrap_or_default().to_owned();
            let mut config = plugin;
            config["cniVersion"] = "1.0.0".into();
            config["name"] = "bench".into();
            if let Some(previous) = &previous {
                config["prevResult"] = previous.clone();
            }
            if kind == "portmap" {
                config["runtimeConfig"] = json!({"portMappings": self.job.port_mappings(number)});
            }
            let step = suite_step(suite, &kind, verb, number, &config)?;
            let stdout = execute(&step)?;
            if verb == Verb::Add {
                let parsed = serde_json::from_slice(&stdout);
                previous = Some(parsed.map_err(|source| BenchError::NoDocument {
                    program: step.what,
                    said: String::from_utf8_lossy(&stdout).into_owned(),
                    source,
                })?);
            }
        }
        match (verb, previous) {
            (Verb::Add, Some(result)) => drop(self.results().insert(number, result)),
            (Verb::Del, _) => drop(self.results().remove(&number)),
            _ => {}
        }
        Ok(())
    }

    /// The result of an attachment's ADD.
    pub fn result(&self, number: u16) -> Option<Value> {
        self.results().get(&number).cloned()
    }

    fn results(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Value>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn suite_step(suite: &Suite, kind: &str, verb: Verb, number: u16, config: &Value) -> Result<Step> {
    let id = container(number);
    Ok(Step {
        plugin: kind.to_owned(),
        what: format!("{}: {kind} {} of {id}", suite.name, verb.name()),
        program: suite.require(kind)?,
        arguments: Vec::new(),
        environment: vec![
            ("CNI_COMMAND", verb.name().into()),
            ("CNI_NETNS", netns_path(&id).into()),
            ("CNI_CONTAINERID", id.into()),
            ("CNI_IFNAME", IFNAME.into()),
            ("CNI_ARGS", OsString::new()),
            ("CNI_PATH", suite.directory.clone().into()),
        ],
        stdin: config.to_string().into_bytes(),
    })
}

fn floor_step(program: &std::path::Path, verb: Verb, job: &Job, number: u16) -> Step {
    let verb = if verb == Verb::Del { "del" } else { "add" };
    let mut arguments = vec![verb.to_owned()];
    arguments.extend(job.request(number).arguments());
    Step {
        plugin: "floor".into(),
        what: format!("floor: {verb} of {}", container(number)),
        program: program.to_owned(),
        arguments,
        environment: Vec::new(),
        stdin: Vec::new(),
    }
}

fn netavark_step(program: &std::path::Path, verb: Verb, job: &Job, number: u16) -> Step {
    let verb = if verb == Verb::Del { "teardown" } else { "setup" };
    let id = container(number);
    Step {
        plugin: "netavark".into(),
        what: format!("netavark {verb} of {id}"),
        program: program.to_owned(),
        arguments: vec![
            "--config".into(),
            NETAVARK_STATE.into(),
            verb.into(),
            netns_path(&id).display().to_string(),
        ],
        environment: vec![("NETAVARK_FW", "nftables".into())],
        stdin: job.netavark(number).to_string().into_bytes(),
    }
}

/// What plugins make on a host once, with the first container.
fn prepare_floor(host: &Host, job: &Job) -> Result<()> {
    host.enter(|| {
        if job.has_firewall() {
            let nft = testkit::have("nft").ok_or(BenchError::NoTool { tool: "nft" })?;
            exec::run(Command::new(nft).args(["-f", "-"]), floor::RULESET.as_bytes(), "nft -f")?;
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                let path = format!("/proc/sys/net/{key}");
                std::fs::write(&path, "1").doing("write", &path)?;
            }
        }
        Ok(())
    })
}
