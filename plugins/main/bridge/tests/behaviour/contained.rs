//! The IPAM plugin that is part of the program: called where `CNI_PATH` has the one that was built together with it, executed otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use testkit::{Chain, Host, Runtime, plugin_dir, workspace_dir};

use crate::support::*;

/// What stands in for host-local: whoever executes it is told.
const IMPOSTOR: &str =
    "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":199,\"msg\":\"I was executed\"}'\nexit 1\n";

fn mark(programs: &[&Path]) {
    let marked = Command::new(workspace_dir().join("tools/mark-built")).args(programs).status().unwrap();
    assert!(marked.success());
}

/// `bridge` and `host-local`, marked as the build marks them: together, or each for itself. Then host-local gives way to the impostor, which
/// keeps its mark.
fn built(together: bool) -> Chain {
    let directory = PathBuf::from("/run/built");
    fs::create_dir_all(&directory).unwrap();
    let [bridge, host_local] = ["bridge", "host-local"].map(|name| directory.join(name));
    for program in [&bridge, &host_local] {
        fs::copy(plugin_dir().join(program.file_name().unwrap()), program).unwrap();
    }
    if together {
        mark(&[&bridge, &host_local]);
    } else {
        mark(&[&bridge]);
        mark(&[&host_local]);
    }
    let content = fs::read(&host_local).unwrap();
    let lines = content.rsplitn(3, |byte| *byte == b'\n').collect::<Vec<_>>();
    // Behind `exit`, so that the shell does not come to it.
    let mark = format!("\n{}\n", String::from_utf8(lines[1].to_vec()).unwrap());
    fs::write(&host_local, format!("{IMPOSTOR}{mark}")).unwrap();
    let list = list_of("1.1.0", "net", json!({ "isGateway": true, "ipam": v4() }));
    Runtime::with_directories([directory]).chain(&list)
}

#[test]
fn ipam_of_the_same_build_is_called() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = built(true);
    let result = chain.add(&eth0(&container)).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.77.0.2/24");
    assert!(Path::new("/var/lib/cni/networks/net/10.77.0.2").exists(), "the lease");
    chain.check(&eth0(&container)).unwrap();
    // What it has to say comes through: code, message, and who said it.
    fs::remove_file("/var/lib/cni/networks/net/10.77.0.2").unwrap();
    let failure = chain.check(&eth0(&container)).unwrap_err();
    let said = "Failed to find address added by container c1";
    assert!(failure.text().contains(said) && failure.text().contains("reported by plugin"), "{failure}");
    assert_eq!(failure.code(), 102);
    chain.del(&eth0(&container)).unwrap();
    chain.status().unwrap();
    chain.gc(&[]).unwrap();
}

#[test]
fn an_add_that_fails_gives_the_address_back() {
    let host = Host::new();
    let container = host.container("c1");
    ip(host.netns(), "link add cni0 type veth peer name other");
    built(true).add(&eth0(&container)).unwrap_err();
    ip(host.netns(), "link del cni0");
    let leases = fs::read_dir("/var/lib/cni/networks/net").map_or(0, |entries| {
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("10."))
            .count()
    });
    assert_eq!(leases, 0);
}

#[test]
fn ipam_of_another_build_is_executed() {
    let host = Host::new();
    let container = host.container("c1");
    let failure = built(false).add(&eth0(&container)).unwrap_err();
    assert_eq!(failure.code(), 199, "{failure}");
    assert!(failure.text().contains("I was executed"), "{failure}");
}
