//! The scripts under `tools/` that a person or CI relies on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::workspace_dir;

/// A directory of this test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ferrule-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn script(name: &str, arguments: &[&Path], ci: bool) -> Output {
    let mut command = Command::new(workspace_dir().join("tools").join(name));
    command.args(arguments).stdin(Stdio::null()).env_remove("CI");
    if ci {
        command.env("CI", "true");
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn plugin_names() -> Vec<String> {
    stdout(&script("list-plugins", &[], false)).lines().map(str::to_owned).collect()
}

#[test]
fn the_summary_adds_up_tests_and_doc_tests_and_counts_skips_apart() {
    let scratch = Scratch::new("summary");
    let nextest = scratch.file(
        "nextest.log",
        "        FAIL [   1.3s] ( 7/21) ferrule-core rules::order\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n     Summary [   5.1s] 21 tests run: 20 passed (1 slow), 1 failed, 0 skipped\n",
    );
    let doc = scratch.file(
        "doc.log",
        "test result: ok. 3 passed; 0 failed; 0 ignored\n\ntest result: ok. 4 passed; 0 failed; 0 ignored\n",
    );
    let none = scratch.file("none", "");
    let output = script("test-summary", &[&none, &nextest, &doc], true);
    let expected = "failed   ferrule-core rules::order\ntests: 27 passed, 1 failed, 0 skipped";
    assert_eq!(stdout(&output).trim(), expected);
    assert!(output.status.success(), "the summary reports, the tests decide");

    let skips = scratch.file("skips", "bridge::vlan: this kernel has no VLANs\n");
    let output = script("test-summary", &[&skips, &nextest], false);
    let text = stdout(&output);
    assert!(text.contains("skipped  bridge::vlan: this kernel has no VLANs"), "{text}");
    assert!(text.contains("tests: 19 passed, 1 failed, 1 skipped"), "{text}");
    assert!(output.status.success(), "a person may skip");
    assert!(
        !script("test-summary", &[&skips, &nextest], true).status.success(),
        "CI may not, unless told so"
    );
}

#[test]
fn installing_replaces_a_plugin_that_is_running_and_leaves_others_alone() {
    let scratch = Scratch::new("install");
    let names = plugin_names();
    assert!(names.contains(&"bridge".to_owned()), "{names:?}");
    for name in &names {
        scratch.file(&format!("from/{name}"), "#!/bin/sh\necho new\n");
    }
    scratch.file("to/calico", "not ours");
    let busy = scratch.0.join("to/bridge");
    fs::copy(testkit::have("sleep").unwrap(), &busy).unwrap();
    let mut running = Command::new(&busy).arg("1000").spawn().unwrap();

    let (from, to) = (scratch.0.join("from"), scratch.0.join("to"));
    let output = script("install-plugins", &[&from, &to], false);
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(&busy).unwrap(), "#!/bin/sh\necho new\n");
    assert_eq!(fs::metadata(&busy).unwrap().permissions().mode() & 0o777, 0o755);
    let mut there: Vec<String> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.retain(|name| !names.contains(name));
    assert_eq!(there, ["calico"], "no temporary file stays, and what is not ours does");

    assert!(script("install-plugins", &[Path::new("--remove"), &from, &to], false).status.success());
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
}

#[test]
fn a_failed_installation_leaves_no_half_file() {
    let scratch = Scratch::new("half");
    let to = scratch.0.join("to");
    let output = script("install-plugins", &[&scratch.0.join("empty"), &to], false);
    assert!(!output.status.success());
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

#[test]
fn a_test_executable_gets_namespaces_and_a_program_does_not() {
    let scratch = Scratch::new("runner");
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    let outside = outside.to_string_lossy();
    for (place, private) in [("deps/probe", true), ("probe", false)] {
        let program = scratch.file(place, "#!/bin/sh\nreadlink /proc/self/ns/net\n");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let output = script("unshare-runner", &[&program, Path::new("--exact")], false);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stdout(&output).trim() != outside, private, "{place}");
    }
}

/// `memcpy` and `memmove` that `tools/musl/link` gives to every plugin.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "other processors keep musl's own")]
fn copies_of_all_lengths_and_distances_are_right() {
    let scratch = Scratch::new("copies");
    let program = scratch.0.join("copies");
    let compiled = Command::new("cc")
        .args(["-O2", "-fno-tree-loop-distribute-patterns", "-fno-builtin", "-Wall", "-Wextra", "-Werror"])
        .args(["-Dmemcpy=ferrule_memcpy", "-Dmemmove=ferrule_memmove"])
        .arg(workspace_dir().join("tools/musl/memory.c"))
        .arg(workspace_dir().join("crates/testkit/tests/copies.c"))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{why}");
    let compared = Command::new(&program).output().unwrap();
    assert_eq!(stdout(&compared), "392202 copies compared\n");
    assert!(compared.status.success());
}
