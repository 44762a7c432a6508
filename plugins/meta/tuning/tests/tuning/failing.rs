//! The plugin, of which a system call fails.

use serde_json::json;
use testkit::{failing, may_trace, skip};

use crate::lab::{Lab, config};

const SYSCTL: &str = "/proc/sys/net/core/somaxconn";

#[test]
fn a_value_that_cannot_be_read_is_not_overwritten() {
    let lab = Lab::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let before = lab.sysctl("net/core/somaxconn");
    let config = config(&json!({ "sysctl": { "net.core.somaxconn": "500" } }));
    let plugin = failing("tuning", &["-P", SYSCTL, "-e", "inject=openat:error=EPERM:when=1"]);
    let error = lab.run(&plugin, "ADD", "", &config).error();
    assert!(error["msg"].as_str().unwrap().contains("net/core/somaxconn"), "{error}");
    assert_eq!(lab.sysctl("net/core/somaxconn"), before);
}

/// libcni stops at the first DEL that fails.
#[test]
fn a_del_that_cannot_open_the_namespace_says_so_and_succeeds() {
    let lab = Lab::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let config = config(&json!({ "sysctl": { "net.core.somaxconn": "500" } }));
    let netns = lab.container.path().to_str().unwrap().to_owned();
    // It is opened once, and the plugin's own to compare it with.
    for path in [netns.as_str(), "/proc/thread-self/ns/net"] {
        lab.call("ADD", &config).success();
        let plugin = failing("tuning", &["-P", path, "-e", "inject=openat:error=EMFILE:when=1"]);
        let output = lab.run(&plugin, "DEL", "", &config);
        assert!(output.succeeded(), "{}", output.describe());
        assert!(output.stderr.contains(&netns), "{}", output.describe());
        assert!(!std::path::Path::new("/run/ferrule").exists(), "the record stays");
    }
}
