//! What is executed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use testkit::{Host, Runtime, have, may_trace, plugin_dir, skip};

use crate::support::*;

#[test]
fn nothing_is_executed_but_the_ipam_plugin() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let Some(strace) = have("strace") else { panic!("strace is not installed: run tools/install-deps") };
    // A plugin found before the real one, which it traces.
    fs::create_dir_all("/run/traced").unwrap();
    let script = format!(
        "#!/bin/sh\nexec {} -f -qq -e trace=execve,execveat -o /run/trace.$CNI_COMMAND {}\n",
        strace.display(),
        plugin_dir().join("bridge").display()
    );
    fs::write("/run/traced/bridge", script).unwrap();
    fs::set_permissions("/run/traced/bridge", fs::Permissions::from_mode(0o755)).unwrap();
    let keys = json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    });
    let chain =
        Runtime::with_directories(["/run/traced".into(), plugin_dir()]).chain(&list_of("1.1.0", "net", keys));
    let container = host.container("c1");
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
    chain.del(&eth0(&container)).unwrap();
    let expected: Vec<String> =
        ["bridge", "host-local"].iter().map(|name| plugin_dir().join(name).display().to_string()).collect();
    for verb in ["ADD", "CHECK", "DEL"] {
        let trace = fs::read_to_string(format!("/run/trace.{verb}")).unwrap();
        let programs: Vec<&str> = trace
            .lines()
            .filter(|line| line.contains("exec"))
            .map(|line| line.split('"').nth(1).unwrap_or(line))
            .collect();
        assert_eq!(programs, expected, "{verb}:\n{trace}");
    }
}
