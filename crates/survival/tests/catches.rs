//! The harness has to notice a plugin that leaks, and to leave one alone that does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use testkit::{may_trace, skip};

/// A plugin double: a bridge for each container, and a note of it.
const HEAD: &str = "#!/bin/sh
state=/run/ferrule
id=$CNI_CONTAINERID
answer='{\"cniVersion\": \"1.1.0\", \"ips\": []}'
refuse() { echo '{\"code\": 100, \"msg\": \"cannot make the bridge of /run/ferrule/double\"}'; exit 1; }
note() { mkdir -p $state && : > $state/double-$id; }
undo() {
    ip link del double-$1 2>/dev/null || ! ip link show double-$1 >/dev/null 2>&1 || return 1
    rm -f $state/double-$1 || return 1
    [ ! -d $state ] || rmdir --ignore-fail-on-non-empty $state
}
collect() {
    config=$(cat) || return 1
    for each in $state/double-*; do
        [ -e $each ] || continue
        case $config in
        *\\\"${each##*-}\\\"*) ;;
        *) undo ${each##*-} || refuse ;;
        esac
    done
    [ ! -d $state ] || rmdir --ignore-fail-on-non-empty $state
}
";

/// Makes what it has written down, and removes whatever there is.
const TIDY: &str = "
case $CNI_COMMAND in
ADD)
    note && ip link add double-$id type bridge && echo \"$answer\" && exit 0
    undo $id
    refuse ;;
CHECK) ip link show double-$id >/dev/null || refuse ;;
GC) collect || refuse ;;
*) undo $id || refuse ;;
esac
";

/// Writes down what it has made, and removes only what is written down.
const LEAKY: &str = "
case $CNI_COMMAND in
ADD)
    ip link add double-$id type bridge || refuse
    note && echo \"$answer\" || refuse ;;
CHECK) ip link show double-$id >/dev/null || refuse ;;
GC) collect || refuse ;;
*) [ ! -e $state/double-$id ] || undo $id || refuse ;;
esac
";

struct Double {
    root: PathBuf,
}

impl Double {
    fn new(name: &str, body: &str) -> Self {
        let root = std::env::temp_dir().join(format!("survival-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let plugin = root.join("double");
        fs::write(&plugin, format!("{HEAD}{body}")).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let list = r#"{ "cniVersion": "1.1.0", "name": "net", "plugins": [{ "type": "double" }] }"#;
        fs::write(root.join("net.conflist"), list).unwrap();
        Self { root }
    }

    fn survival(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_survival"))
            .arg("--bin")
            .arg(&self.root)
            .args(["--worlds", "1"])
            .args(arguments)
            .output()
            .unwrap()
    }

    fn sweep(&self, part: &str) -> Output {
        let list = self.root.join("net.conflist");
        self.survival(&["--short", "--offset", "3", "--network", list.to_str().unwrap(), "--only", part])
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_plugin_that_writes_down_too_late_is_caught_and_the_point_replayed() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let double = Double::new("leaky", LEAKY);
    let output = double.sweep("kill double ADD");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // Where its own programs are hit, the ADD fails by itself; else DEL shows it.
    assert!(said.contains("the host is not as before"), "{said}");
    assert!(said.contains("double-c2"), "the difference names the link: {said}");
    let point = said.lines().find_map(|line| line.trim().strip_prefix("point:")).expect("a point").trim();
    let again = double.survival(&["--replay", point]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains(point), "{}", text(&again));
}

#[test]
fn a_plugin_that_fails_and_leaves_a_link_is_caught() {
    if !may_trace() || cfg!(not(target_arch = "x86_64")) {
        skip!("errors can't be injected here");
    }
    let double = Double::new("careless", LEAKY);
    // The directory of its note can't be made: the first call is for /run, which is there.
    let point =
        format!("ENOSPC:mkdir/mkdir.2:double:ADD:DEL:alone:{}", double.root.join("net.conflist").display());
    let calls = double.survival(&["--replay", &point]);
    let said = text(&calls);
    assert_eq!(calls.status.code(), Some(1), "{said}");
    assert!(said.contains("after the ADD that failed by itself, the host is not as before"), "{said}");
}

#[test]
fn a_plugin_that_writes_down_first_survives() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let double = Double::new("tidy", TIDY);
    let output = double.sweep("kill double DEL");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("kill double DEL"), "{said}");
}

#[test]
fn what_is_no_point_is_refused() {
    let double = Double::new("none", TIDY);
    let output = double.survival(&["--replay", "bridge"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}
