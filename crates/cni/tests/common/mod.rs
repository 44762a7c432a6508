//! What the integration tests share.
#![allow(dead_code, reason = "each of the test executables uses its part")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use testkit::{Host, Invocation, Output, Plugin, plugin_dir};

/// An example of this crate, as a plugin to execute.
pub(crate) fn example(name: &str) -> Plugin {
    Plugin::at(example_path(name))
}

/// Where the executable of an example is, built from the sources as they are.
pub(crate) fn example_path(name: &str) -> PathBuf {
    let program = plugin_dir().join("examples").join(name);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = newest(&here.join("src")).max(newest(&here.join("examples")));
    // `cargo test --test NAME` builds that test alone, and leaves examples as they were.
    if fs::metadata(&program).and_then(|built| built.modified()).ok() < source {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "ferrule-cni", "--examples"])
            .status();
        assert!(built.is_ok_and(|status| status.success()), "building the examples");
    }
    program
}

/// When something below a directory was last changed.
fn newest(directory: &Path) -> Option<SystemTime> {
    let changed = |entry: fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            newest(&entry.path())
        } else {
            entry.metadata().unwrap().modified().ok()
        }
    };
    fs::read_dir(directory).unwrap().filter_map(|entry| changed(entry.unwrap())).max()
}

/// A directory that goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ferrule-cni-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A plugin that is a shell script. `$DIR` is this directory; each call adds its verb to `$DIR/calls`.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.join(name);
        let directory = self.0.display();
        let text = format!("#!/bin/sh\nDIR='{directory}'\necho \"$CNI_COMMAND\" >>\"$DIR/calls\"\n{body}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// The verbs that scripts of this directory were called with.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(ToOwned::to_owned).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every version of the specification.
pub(crate) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The example plugin, its state directory, and a container to greet.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) container: testkit::Container,
    pub(crate) scratch: Scratch,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let host = Host::new();
        let container = host.container("blue");
        Self { host, container, scratch: Scratch::new() }
    }

    pub(crate) fn config(&self, version: &str) -> Value {
        let state = self.scratch.path().join("state");
        json!({ "cniVersion": version, "name": "demo", "type": "hello", "greeting": "hi", "stateDir": state })
    }

    pub(crate) fn call(&self, verb: &str, config: &Value) -> Invocation {
        example("hello")
            .verb(verb)
            .attachment("c1", self.container.path(), "eth0")
            .path(&[self.scratch.path()])
            .config(config)
    }

    pub(crate) fn greeted(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.scratch.path().join("state/demo")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Asserts an error document with this code that names `what`, and that nothing was changed.
    pub(crate) fn refused(&self, call: &Invocation, code: u32, what: &str) {
        let output = call.run();
        let error = output.error();
        assert_eq!(error["code"], code, "{}", output.describe());
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(said.contains(what), "{what} is not in {said}");
        assert!(!self.scratch.path().join("state").exists(), "something was changed\n{}", output.describe());
    }
}

pub(crate) fn silent(output: &Output) {
    assert!(output.succeeded() && output.stdout.is_empty(), "{}", output.describe());
}
