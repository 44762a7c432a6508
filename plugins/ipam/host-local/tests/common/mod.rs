//! What the tests of this plugin share: a store in a scratch directory, and the plugin run as a process.
#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test file uses its part; a test fails by panicking, in its own functions too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// The plugin under test.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_host-local");

/// Where the Go plugin is, if it is installed (Debian: containernetworking-plugins). `FERRULE_REFERENCE_BIN` names another directory.
pub(crate) fn reference() -> Option<String> {
    let directory = std::env::var("FERRULE_REFERENCE_BIN").unwrap_or_else(|_| "/usr/lib/cni".to_owned());
    let program = format!("{directory}/host-local");
    Path::new(&program).is_file().then_some(program)
}

/// Whether a program can be found.
pub(crate) fn have(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join(program).is_file())
}

/// What a call answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) document: Value,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let document = if stdout.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}"))
        };
        Self {
            success: output.status.success(),
            document,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The document of a call that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Value {
        assert!(self.success, "{} {}", self.document, self.stderr);
        &self.document
    }

    /// The addresses of an ADD's result, without their prefix lengths; of any version.
    #[track_caller]
    pub(crate) fn addresses(&self) -> Vec<String> {
        let document = self.ok();
        let mut texts: Vec<&str> = Vec::new();
        texts
            .extend(document["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str()));
        texts.extend(["ip4", "ip6"].iter().filter_map(|family| document[family]["ip"].as_str()));
        texts.iter().map(|text| text.split('/').next().unwrap().to_owned()).collect()
    }

    /// The message of a call that must have failed with a code.
    #[track_caller]
    pub(crate) fn failed(&self, code: u64) -> String {
        assert!(!self.success, "it succeeded: {}", self.document);
        assert_eq!(self.document["code"], code, "{}", self.document);
        format!(
            "{} {}",
            self.document["msg"].as_str().unwrap(),
            self.document["details"].as_str().unwrap_or_default()
        )
    }
}

/// A store of its own, removed at the end.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    /// Variables every call gets, beside those of the contract.
    pub(crate) environment: Vec<(String, String)>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("host-local-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Self { root, environment: Vec::new() }
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// `dataDir`.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// The store of network `net`.
    pub(crate) fn store(&self) -> PathBuf {
        self.data().join("net")
    }

    /// Where the index of network `net` is.
    pub(crate) fn index(&self) -> PathBuf {
        self.data().join(".ferrule/net")
    }

    /// A configuration of network `net` with these keys of `ipam`.
    pub(crate) fn config(&self, ipam: &Value) -> Value {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam });
        config["ipam"]["type"] = json!("host-local");
        config["ipam"]["dataDir"] = json!(self.data());
        config
    }

    /// One range set with one subnet for each argument.
    pub(crate) fn subnets(&self, subnets: &[&str]) -> Value {
        let sets: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        self.config(&json!({ "ranges": sets }))
    }

    /// A call, ready to be started.
    pub(crate) fn command(&self, program: &str, verb: &str, container: &str, ifname: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", ifname)
            // An IPAM plugin does not enter the namespace, so the test's own will do.
            .env("CNI_NETNS", "/proc/self/ns/net")
            .env("CNI_NETNS_OVERRIDE", "1")
            .env("CNI_PATH", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn call(&self, verb: &str, container: &str, config: &Value) -> Answer {
        self.call_with(OURS, verb, container, "eth0", config)
    }

    pub(crate) fn call_with(
        &self,
        program: &str,
        verb: &str,
        container: &str,
        ifname: &str,
        config: &Value,
    ) -> Answer {
        Answer::of(&run(self.command(program, verb, container, ifname), config))
    }

    #[track_caller]
    pub(crate) fn add(&self, container: &str, config: &Value) -> Vec<String> {
        self.call("ADD", container, config).addresses()
    }

    #[track_caller]
    pub(crate) fn del(&self, container: &str, config: &Value) {
        self.call("DEL", container, config).ok();
    }

    /// GC of the attachments that are still in use, each `container/ifname`.
    pub(crate) fn gc(&self, config: &Value, valid: &[&str]) -> Answer {
        let valid: Vec<Value> = valid
            .iter()
            .map(|pair| pair.split_once('/').unwrap())
            .map(|(container, ifname)| json!({ "containerID": container, "ifname": ifname }))
            .collect();
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] = json!(valid);
        self.call("GC", "", &config)
    }

    /// The leases of network `net`: content by address.
    pub(crate) fn leases(&self) -> BTreeMap<String, String> {
        let mut leases = BTreeMap::new();
        for entry in fs::read_dir(self.store()).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.parse::<IpAddr>().is_ok() {
                leases.insert(name, fs::read_to_string(entry.path()).unwrap());
            } else {
                assert!(name == "lock" || name.starts_with("last_reserved_ip."), "unexpected {name}");
            }
        }
        leases
    }

    pub(crate) fn lease(&self, address: &str) -> PathBuf {
        self.store().join(address)
    }

    pub(crate) fn write_lease(&self, address: &str, content: &str) {
        fs::create_dir_all(self.store()).unwrap();
        fs::write(self.lease(address), content).unwrap();
    }

    /// Nothing but what an idle store holds: no draft, no half-written index.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        for entry in fs::read_dir(self.index()).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            assert_eq!(name, "index", "left beside the index");
        }
    }

    /// Whether the index on disk counts: the store bears the stamp, which is in the past, not the time of a change.
    pub(crate) fn index_is_valid(&self) -> bool {
        let (Ok(index), Ok(store)) = (fs::metadata(self.index().join("index")), fs::metadata(self.store()))
        else {
            return false;
        };
        store.mtime() < store.ctime() && index.ctime() <= store.ctime()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Starts a call and gives it its configuration.
pub(crate) fn start(mut command: Command, config: &Value) -> Child {
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A process that was killed before it read is what some tests are about.
    let _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
    child
}

pub(crate) fn run(command: Command, config: &Value) -> Output {
    start(command, config).wait_with_output().unwrap()
}

/// The same under `strace` with options.
pub(crate) fn traced(command: &Command, options: &[String]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(options).arg("--").arg(command.get_program()).env_clear();
    for (key, value) in command.get_envs() {
        traced.env(key, value.unwrap_or_default());
    }
    traced.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    traced
}

/// A directory mounted as a file system of its own, in the test's mount namespace.
pub(crate) fn mount_tmpfs(path: &Path, options: &str) {
    fs::create_dir_all(path).unwrap();
    let status =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status().unwrap();
    assert!(status.success(), "mount -t tmpfs -o {options}");
}
