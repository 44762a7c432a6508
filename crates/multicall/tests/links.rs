//! The program by each of its names, as links to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Attachment, Host, Plugin, Runtime, Snapshot, workspace_dir};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferrule");

/// Every plugin of the workspace, by its directory's name.
fn names() -> Vec<String> {
    let script = Command::new(workspace_dir().join("tools/list-plugins")).output().unwrap();
    String::from_utf8(script.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A directory of links, as `make install MULTICALL=1` makes it, in `/run`, which is the test's own.
fn installed() -> PathBuf {
    let source = Path::new("/run/built");
    fs::create_dir_all(source).unwrap();
    fs::copy(PROGRAM, source.join("ferrule")).unwrap();
    let installed = Command::new(workspace_dir().join("tools/install-plugins"))
        .args(["--multicall", "/run/built", "/run/cni-bin"])
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    "/run/cni-bin".into()
}

#[test]
fn it_is_each_of_the_plugins_by_name() {
    let _host = Host::new();
    let directory = installed();
    assert!(names().len() >= 7, "{:?}", names());
    for name in names() {
        let about = Command::new(directory.join(&name)).env_clear().output().unwrap();
        let about = String::from_utf8(about.stderr).unwrap();
        assert!(about.starts_with(&format!("CNI {name} plugin")), "{name}: {about}");
        let version =
            Plugin::at(directory.join(&name)).verb("VERSION").stdin("{\"cniVersion\":\"1.1.0\"}").run();
        let supported = &version.success()["supportedVersions"];
        assert!(supported.as_array().unwrap().contains(&json!("1.1.0")), "{name}: {supported}");
    }
}

#[test]
fn all_names_are_one_file_and_symbolic_links_do_as_well() {
    let _host = Host::new();
    let directory = installed();
    let inode = |name: &str| fs::metadata(directory.join(name)).unwrap().ino();
    for name in names() {
        assert_eq!(inode(&name), inode("bridge"), "{name}");
    }
    std::os::unix::fs::symlink(PROGRAM, "/run/loopback").unwrap();
    let version = Plugin::at("/run/loopback").verb("VERSION").stdin("{}").run();
    assert!(version.success()["supportedVersions"].is_array());
}

#[test]
fn by_another_name_it_says_which_there_are() {
    let ran = Command::new(PROGRAM).env("CNI_COMMAND", "ADD").output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "");
    let said = String::from_utf8(ran.stderr).unwrap();
    for name in names() {
        assert!(said.contains(&name), "{name} is not in: {said}");
    }
}

/// The delegate is found by its type, which is a link as well.
#[test]
fn a_container_lives_through_links() {
    let host = Host::new();
    let directory = installed();
    let before = Snapshot::take();
    let list = json!({
        "cniVersion": "1.1.0",
        "name": "net",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni-links", "isGateway": true, "ipMasq": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "firewall"},
            {"type": "tuning", "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"}}
        ]
    });
    let chain = Runtime::with_directories([directory]).chain(&list);
    let container = host.container("c1");
    let attachment = Attachment::new("c1", &container, "eth0")
        .capability("portMappings", json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]));
    let result: Value = chain.add(&attachment).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.77.0.2/24");
    chain.check(&attachment).unwrap();
    chain.del(&attachment).unwrap();
    drop(container);
    before.without_lease_bookkeeping().assert_same(&Snapshot::take().without_lease_bookkeeping());
}
