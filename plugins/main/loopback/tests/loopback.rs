//! The `loopback` plugin as a runtime runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use serde_json::{Value, json};
use testkit::{
    Attachment, Container, Host, Output, Plugin, Runtime, Snapshot, documented_example, eventually, failing,
    ip_json, may_trace, ping, plugin_dir, reference_dir, skip, tool, workspace_dir,
};

fn call(verb: &str, netns: &str, config: &Value) -> Output {
    Plugin::new("loopback")
        .verb(verb)
        .attachment("c1", netns, "lo")
        .path(&[plugin_dir()])
        // Nobody parses it here.
        .env("CNI_ARGS", "none")
        .config(config)
        .run()
}

fn config(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "lo", "type": "loopback" })
}

fn path(container: &Container) -> &str {
    container.path().to_str().unwrap()
}

fn is_up(container: &Container) -> bool {
    let links = container.enter(|| ip_json("link show lo"));
    links[0]["flags"].as_array().unwrap().contains(&"UP".into())
}

#[test]
fn lo_is_up_after_add_and_down_after_del() {
    let host = Host::new();
    let container = host.container("c1");
    let before = Snapshot::take();
    let result = call("ADD", path(&container), &config("1.1.0")).success();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "mtu": 65536, "sandbox": path(&container) }],
            "ips": [{ "address": "127.0.0.1/8", "interface": 0 }, { "address": "::1/128", "interface": 0 }]
        })
    );
    assert!(is_up(&container));
    assert!(ping(&container, [127, 0, 0, 1]));
    call("CHECK", path(&container), &config("1.1.0")).success();
    assert!(call("DEL", path(&container), &config("1.1.0")).document().is_none());
    assert!(!is_up(&container));
    call("DEL", path(&container), &config("1.1.0")).success();
    before.assert_same(&Snapshot::take());
}

#[test]
fn a_record_that_cannot_be_locked_is_not_left() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let container = host.container("c1");
    let before = Snapshot::take();
    let error = failing("loopback", &["-e", "inject=flock:error=ENOLCK"])
        .verb("ADD")
        .attachment("c1", path(&container), "lo")
        .path(&[plugin_dir()])
        .config(&config("1.1.0"))
        .run()
        .error();
    assert!(error["msg"].as_str().unwrap().contains("/run/ferrule/attachments/lo/loopback/c1/lo"), "{error}");
    before.assert_same(&Snapshot::take());
    call("ADD", path(&container), &config("1.1.0")).success();
    call("DEL", path(&container), &config("1.1.0")).success();
    before.assert_same(&Snapshot::take());
}

#[test]
fn a_file_system_without_unnamed_files_will_do() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let container = host.container("c1");
    let before = Snapshot::take();
    // The first time, the directory is not there yet.
    let directory = "/run/ferrule/attachments/lo/loopback/c1";
    failing("loopback", &["-P", directory, "-e", "inject=openat:error=EOPNOTSUPP:when=2+"])
        .verb("ADD")
        .attachment("c1", path(&container), "lo")
        .path(&[plugin_dir()])
        .config(&config("1.1.0"))
        .run()
        .success();
    assert!(std::fs::metadata(format!("{directory}/lo")).unwrap().len() > 0, "no record");
    call("DEL", path(&container), &config("1.1.0")).success();
    before.assert_same(&Snapshot::take());
}

/// As in a container of containers: the user namespace has the container's network namespace, but not the one that the plugin is in.
#[test]
fn a_user_namespace_need_not_have_the_hosts_network() {
    let _host = Host::new();
    let sandbox = Sandbox(Command::new("unshare").args(["-Urn", "sleep", "60"]).spawn().unwrap());
    let id = sandbox.0.id();
    let netns = format!("/proc/{id}/ns/net");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    eventually("a user namespace", || {
        let other = std::fs::read_link(&netns).ok().filter(|other| *other != own);
        let mapped = std::fs::read_to_string(format!("/proc/{id}/uid_map")).ok();
        other.zip(mapped.filter(|map| !map.is_empty()))
    });
    let nsenter = format!(
        "#!/bin/sh\nexec nsenter -t {} -U --preserve-credentials {}/loopback\n",
        id,
        plugin_dir().display()
    );
    std::fs::write("/run/loopback", nsenter).unwrap();
    std::fs::set_permissions("/run/loopback", Permissions::from_mode(0o755)).unwrap();
    let call = |verb: &str| {
        let call =
            Plugin::at("/run/loopback").verb(verb).attachment("c1", &netns, "lo").path(&[plugin_dir()]);
        call.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").config(&config("1.1.0")).run()
    };
    let flags = || {
        tool(
            "nsenter",
            &["-t", &id.to_string(), "-U", "-n", "--preserve-credentials", "ip", "link", "show", "lo"],
        )
    };
    call("ADD").success();
    assert!(flags().contains("UP"), "{}", flags());
    call("CHECK").success();
    call("DEL").success();
    assert!(!flags().contains("UP"), "{}", flags());
}

/// A process that ends with the test.
struct Sandbox(Child);

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The way back out of the container's namespace, the third call, fails.
#[test]
fn a_plugin_comes_back_from_the_container_or_ends() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let container = host.container("c1");
    let before = Snapshot::take();
    let add = |when: &str| {
        failing("loopback", &["-e", &format!("inject=setns:error=ENOMEM:when={when}")])
            .verb("ADD")
            .attachment("c1", path(&container), "lo")
            .path(&[plugin_dir()])
            .config(&config("1.1.0"))
            .run()
    };
    add("3").success();
    call("DEL", path(&container), &config("1.1.0")).success();
    before.assert_same(&Snapshot::take());

    let output = add("3+");
    assert!(!output.succeeded());
    let wanted = format!("can't come back from network namespace {}; run DEL to clean up", path(&container));
    assert!(output.stderr.contains(&wanted), "{}", output.stderr);
    call("DEL", path(&container), &config("1.1.0")).success();
    before.assert_same(&Snapshot::take());
}

#[test]
fn the_example_of_the_page_gives_the_result_of_the_page() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = Runtime::new().chain(&documented_example("loopback"));
    chain.status().unwrap();
    let attachment = Attachment::new("c1", &container, "lo");
    let result = chain.add(&attachment).unwrap();
    chain.check(&attachment).unwrap();
    chain.del(&attachment).unwrap();
    let page = std::fs::read_to_string(workspace_dir().join("docs/plugins/loopback.md")).unwrap();
    let shown =
        page.split("The result:\n\n```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(shown).unwrap(), result);
}

#[test]
fn every_version_has_its_own_result() {
    let host = Host::new();
    let container = host.container("c1");
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let result = call("ADD", path(&container), &config(version)).success();
        let wanted = match version {
            "0.1.0" | "0.2.0" => {
                json!({ "cniVersion": version, "ip4": { "ip": "127.0.0.1/8" }, "ip6": { "ip": "::1/128" }, "dns": {} })
            }
            "1.0.0" => json!({
                "cniVersion": version,
                "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": path(&container) }],
                "ips": [{ "address": "127.0.0.1/8", "interface": 0 }, { "address": "::1/128", "interface": 0 }]
            }),
            _ => json!({
                "cniVersion": version,
                "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": path(&container) }],
                "ips": [
                    { "version": "4", "address": "127.0.0.1/8", "interface": 0 },
                    { "version": "6", "address": "::1/128", "interface": 0 }
                ],
                "dns": {}
            }),
        };
        assert_eq!(result, wanted);
        call("DEL", path(&container), &config(version)).success();
    }
}

#[test]
fn the_result_is_that_of_the_go_suite() {
    let Some(reference) = reference_dir(&["loopback"]) else {
        testkit::skip!("the Go suite is not installed (package containernetworking-plugins)");
    };
    let host = Host::new();
    let container = host.container("c1");
    let theirs = Plugin::at(reference.join("loopback"));
    let go = |verb: &str| {
        theirs
            .verb(verb)
            .attachment("c1", container.path(), "lo")
            .path(&[plugin_dir()])
            .config(&config("1.0.0"))
            .run()
            .success()
    };
    let mut theirs = go("ADD");
    // Versions before 1.2 say so where there is none.
    assert!(theirs["dns"].as_object().is_none_or(serde_json::Map::is_empty));
    theirs.as_object_mut().unwrap().remove("dns");
    assert_eq!(call("ADD", path(&container), &config("1.0.0")).success(), theirs);
    go("CHECK");
    call("DEL", path(&container), &config("1.0.0")).success();
    // Ours found it up, and left it so; theirs takes it down.
    assert!(is_up(&container));
    go("DEL");
    assert!(!is_up(&container));
    go("ADD");
    call("CHECK", path(&container), &config("1.0.0")).success();
    call("DEL", path(&container), &config("1.0.0")).success();
    assert!(!is_up(&container), "what the Go suite has brought up is taken down without a record");
}

#[test]
fn prev_result_is_passed_on() {
    let host = Host::new();
    let container = host.container("c1");
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "eth0", "sandbox": path(&container), "org.example": 1 }],
        "ips": [{ "address": "10.1.0.2/24", "interface": 0 }],
        "dns": { "nameservers": ["10.1.0.1"] },
        "org.example/top": [1]
    });
    let mut config = config("1.1.0");
    config["prevResult"] = previous.clone();
    assert_eq!(call("ADD", path(&container), &config).success(), previous);
    assert!(is_up(&container));
}

#[test]
fn any_interface_name_means_lo() {
    let host = Host::new();
    let container = host.container("c1");
    let call = |verb: &str| {
        Plugin::new("loopback")
            .verb(verb)
            .attachment("c1", container.path(), "eth9")
            .path(&[plugin_dir()])
            .config(&config("1.1.0"))
            .run()
            .success()
    };
    assert_eq!(call("ADD")["interfaces"][0]["name"], "lo");
    assert!(is_up(&container));
    call("CHECK");
    call("DEL");
    assert!(!is_up(&container));
}

#[test]
fn check_sees_an_address_missing_and_another_containers_result() {
    let host = Host::new();
    let (container, other) = (host.container("c1"), host.container("c2"));
    let mut listed = config("1.1.0");
    listed["prevResult"] = call("ADD", path(&container), &config("1.1.0")).success();
    other.run("ip", &["link", "set", "lo", "up"]);
    call("CHECK", path(&container), &listed).success();
    let error = call("CHECK", path(&other), &listed).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("not the namespace of CNI_NETNS"), "{error}");
    // What a later plugin added is listed, and there.
    container.run("ip", &["addr", "add", "127.0.0.2/8", "dev", "lo"]);
    listed["prevResult"]["ips"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "address": "127.0.0.2/8", "interface": 0 }));
    call("CHECK", path(&container), &listed).success();
    container.run("ip", &["addr", "del", "::1/128", "dev", "lo"]);
    let error = call("CHECK", path(&container), &listed).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("address ::1/128 on lo"), "{error}");
}

#[test]
fn check_sees_lo_down_and_strange_addresses() {
    let host = Host::new();
    let container = host.container("c1");
    call("ADD", path(&container), &config("1.1.0")).success();
    container.run("ip", &["link", "set", "lo", "down"]);
    let error = call("CHECK", path(&container), &config("1.1.0")).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("expected up, found down"), "{error}");
    container.run("ip", &["link", "set", "lo", "up"]);
    container.run("ip", &["addr", "add", "10.9.9.9/32", "dev", "lo"]);
    let error = call("CHECK", path(&container), &config("1.1.0")).error();
    let message = error["msg"].as_str().unwrap();
    assert_eq!(message, "loopback interface found with non-loopback address \"10.9.9.9/32\"");
}

#[test]
fn a_strange_address_on_lo_fails_add_and_leaves_it_down() {
    let host = Host::new();
    let container = host.container("c1");
    container.run("ip", &["addr", "add", "10.9.9.9/32", "dev", "lo"]);
    let before = Snapshot::take();
    let error = call("ADD", path(&container), &config("1.1.0")).error();
    assert!(error["msg"].as_str().unwrap().contains("non-loopback address \"10.9.9.9/32\""), "{error}");
    assert!(!is_up(&container));
    before.assert_same(&Snapshot::take());
}

/// The Go suite takes the host's own `lo` down, and says afterwards that it should not have been asked to.
#[test]
fn the_hosts_own_lo_stays_up() {
    let host = Host::new();
    let own = host.netns().path().to_str().unwrap().to_owned();
    let up = || ip_json("link show lo")[0]["flags"].as_array().unwrap().contains(&"UP".into());
    for netns in [own.as_str(), "", "/run/netns/gone", "/proc/self/ns/net"] {
        call("DEL", netns, &config("1.1.0")).success();
        assert!(up(), "after DEL with CNI_NETNS={netns}");
    }
    assert_eq!(call("ADD", &own, &config("1.1.0")).error()["code"], 4);
    assert!(up());
    tool("ip", &["link", "show", "lo"]);
}

#[test]
fn gc_and_status() {
    let host = Host::new();
    let (one, two) = (host.container("c1"), host.container("c2"));
    call("ADD", path(&one), &config("1.1.0")).success();
    let second =
        Plugin::new("loopback").verb("ADD").attachment("c2", two.path(), "lo").config(&config("1.1.0"));
    second.run().success();
    let mut gc = config("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "lo" }]);
    let run = |verb: &str, config: &Value| {
        Plugin::new("loopback").verb(verb).path(&[plugin_dir()]).config(config).run()
    };
    run("GC", &gc).success();
    let records = Snapshot::take().section("files").join("\n");
    assert!(records.contains("/c1/lo") && !records.contains("/c2/lo"), "{records}");
    run("STATUS", &config("1.1.0")).success();
}
