//! Beside the Go suite: its plugins make what ours makes, and each removes what the other made.
//!
//! The Go plugins are those of Debian's `containernetworking-plugins`, or of the directory that `FERRULE_REFERENCE_BIN` names.

use std::path::PathBuf;

use cni::{ContainerId, LinkName, ValidAttachments};
use ferrule_core::firewall::{Entry, Firewall, IsolationPolicy, Role};
use serde_json::{Value, json};
use testkit::{Container, Netns, Output, Plugin, reference_dir};

use crate::in_both_variants;
use crate::support::{Tables, Variant, assert_same, collect, forward, isolate, masquerade, owner, publish};

/// The Go suite's plugins, called as a runtime would.
struct GoSuite<'a> {
    tables: &'a Tables,
    directory: PathBuf,
    container: Container,
}

impl<'a> GoSuite<'a> {
    /// `None` where it is not installed.
    fn find(tables: &'a Tables) -> Option<Self> {
        let directory = reference_dir(&["bridge", "static", "portmap", "firewall"])?;
        Some(Self { tables, directory, container: tables.host.container("c1") })
    }

    /// Runs a plugin in a namespace, for container `c1` on network `blue`.
    fn call(&self, netns: &Netns, verb: &str, config: Value) {
        self.try_call(netns, verb, config).success();
    }

    fn try_call(&self, netns: &Netns, verb: &str, mut config: Value) -> Output {
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "blue".into();
        let path = format!("{}:/usr/sbin:/usr/bin", self.tables.directory.display());
        Plugin::at(self.directory.join(config["type"].as_str().unwrap()))
            .verb(verb)
            .attachment("c1", self.container.path(), "eth0")
            .path(&[&self.directory])
            .env("PATH", path)
            .config(&config)
            .from_netns(netns)
            .run()
    }

    fn interfaces(&self) -> Value {
        json!([{"name": "cni7"}, {"name": "eth0", "sandbox": self.container.path().to_str().unwrap()}])
    }

    fn portmap(&self, netns: &Netns, verb: &str, extra: &Value) {
        self.try_portmap(netns, verb, extra).success();
    }

    fn try_portmap(&self, netns: &Netns, verb: &str, extra: &Value) -> Output {
        let mut config = json!({
            "type": "portmap",
            "backend": "iptables",
            "capabilities": {"portMappings": true},
            "runtimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
                {"hostPort": 99, "containerPort": 9, "protocol": "sctp"},
            ]},
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": self.interfaces(),
                "ips": [{"address": "10.1.0.5/16", "interface": 1}, {"address": "fd00::5/64", "interface": 1}],
            },
        });
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        self.try_call(netns, verb, config)
    }

    fn firewall(&self, netns: &Netns, verb: &str, policy: &str, addresses: &[&str]) {
        self.try_firewall(netns, verb, policy, addresses).success();
    }

    fn try_firewall(&self, netns: &Netns, verb: &str, policy: &str, addresses: &[&str]) -> Output {
        let ips: Vec<Value> = addresses.iter().map(|cidr| json!({"address": cidr, "interface": 1})).collect();
        self.try_call(
            netns,
            verb,
            json!({
                "type": "firewall",
                "backend": "iptables",
                "ingressPolicy": policy,
                "prevResult": {"cniVersion": "1.0.0", "interfaces": self.interfaces(), "ips": ips},
            }),
        )
    }

    fn bridge(&self, netns: &Netns, verb: &str, addresses: &[&str]) {
        let addresses: Vec<Value> = addresses.iter().map(|cidr| json!({"address": cidr})).collect();
        let mut config = json!({
            "type": "bridge",
            "bridge": "cni7",
            "ipMasq": true,
            "ipMasqBackend": "iptables",
            "ipam": {"type": "static", "addresses": addresses},
        });
        if verb == "DEL" {
            config["prevResult"] = json!({
                "cniVersion": "1.0.0",
                "interfaces": self.interfaces(),
                "ips": addresses.iter().map(|a| json!({"address": a["address"], "interface": 1})).collect::<Vec<_>>(),
            });
        }
        self.call(netns, verb, config);
    }
}

fn ports(address: &str) -> Entry {
    Entry::Publish(publish(address, &["tcp 8080:80", "udp 5353:53", "sctp 99:9"]))
}

fn both_ports() -> Vec<Entry> {
    vec![ports("10.1.0.5/16"), ports("fd00::5/64")]
}

/// What entries look like on the host, made by us and removed again.
fn ours(tables: &Tables, entries: &[Entry]) -> String {
    let owner = owner("blue/c1/eth0");
    tables.backend().ensure(&owner, entries).unwrap();
    let dump = tables.dump();
    tables.backend().remove(&owner, entries).unwrap();
    assert_same("", &tables.dump());
    dump
}

/// What both suites write for a forwarded address: without the rule that lets published ports through, which is ours alone.
fn without_published(dump: &str) -> String {
    dump.lines().filter(|line| !line.contains("--ctstate DNAT")).flat_map(|line| [line, "\n"]).collect()
}

/// Before version 1.7 the Go suite named a policy in comments that name both now.
fn without_policies(dump: &str) -> String {
    ["same-bridge|isolated", "same-bridge", "isolated"]
        .iter()
        .fold(dump.to_owned(), |text, policy| text.replace(&format!("(ingressPolicy: {policy})"), ""))
}

fn listed(containers: &[&str]) -> ValidAttachments {
    ValidAttachments::from_attachments(containers.iter().map(|id| cni::Attachment {
        container_id: ContainerId::new(*id).unwrap(),
        ifname: LinkName::new("eth0").unwrap(),
    }))
}

/// Writes the rest of a test that needs the Go suite; skips it aloud where that is not installed.
macro_rules! beside_the_go_suite {
    ($($(#[$attribute:meta])* fn $name:ident($tables:ident: &Tables, $go:ident: &GoSuite<'_>) $body:block)+) => {
        in_both_variants! {$(
            $(#[$attribute])*
            fn $name(tables: &Tables) {
                fn with_go($tables: &Tables, $go: &GoSuite<'_>) $body
                match GoSuite::find(tables) {
                    Some(go) => with_go(tables, &go),
                    None => testkit::skip!("the Go suite (containernetworking-plugins) is not installed"),
                }
            }
        )+}
    };
}

beside_the_go_suite! {
    fn published_ports_look_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let dump = ours(tables, &both_ports());
        let netns = tables.host.container("go");
        go.portmap(&netns, "ADD", &json!({}));
        assert_same(&tables.dump_in(&netns), &dump);
    }

    fn published_ports_with_options_look_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let mut v4 = publish("10.1.0.5/16", &["tcp 8080:80", "tcp 192.0.2.1 8443:443", "udp 0.0.0.0 53:53"]);
        v4.mark_bit = 31;
        v4.conditions = ["!", "-s", "198.51.100.1", "-m", "mark", "--mark", "7"].map(str::to_owned).to_vec();
        let dump = ours(tables, &[Entry::Publish(v4)]);
        let netns = tables.host.container("go");
        go.portmap(&netns, "ADD", &json!({
            "markMasqBit": 31,
            "conditionsV4": ["!", "-s", "198.51.100.1", "-m", "mark", "--mark", "7"],
            "runtimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "192.0.2.1"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"},
            ]},
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]},
        }));
        assert_same(&tables.dump_in(&netns), &dump);
    }

    fn many_published_ports_look_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let texts: Vec<String> = (1..=20).map(|n| format!("tcp {}:{n}", 8000 + n)).collect();
        let mut entry = publish("10.1.0.5/16", &texts.iter().map(String::as_str).collect::<Vec<_>>());
        entry.snat = false;
        let dump = ours(tables, &[Entry::Publish(entry)]);
        let netns = tables.host.container("go");
        let mappings: Vec<Value> = (1..=20)
            .map(|n| json!({"hostPort": 8000 + n, "containerPort": n, "protocol": "tcp"}))
            .collect();
        go.portmap(&netns, "ADD", &json!({
            "snat": false,
            "runtimeConfig": {"portMappings": mappings},
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]},
        }));
        assert_same(&tables.dump_in(&netns), &dump);
    }

    fn forwarding_looks_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let dump = ours(tables, &[forward("10.1.0.5"), forward("fd00::5")]);
        let netns = tables.host.container("go");
        go.firewall(&netns, "ADD", "open", &["10.1.0.5/16", "fd00::5/64"]);
        assert_same(&tables.dump_in(&netns), &without_published(&dump));
    }

    fn isolation_of_bridges_looks_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let entries = [forward("10.1.0.5"), forward("fd00::5"), isolate("cni7", IsolationPolicy::SameBridge)];
        let dump = ours(tables, &entries);
        let netns = tables.host.container("go");
        go.firewall(&netns, "ADD", "same-bridge", &["10.1.0.5/16", "fd00::5/64"]);
        assert_same(&without_policies(&tables.dump_in(&netns)), &without_policies(&without_published(&dump)));
    }

    fn isolation_of_ports_looks_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let entries = [forward("10.1.0.5"), forward("fd00::5"), isolate("cni7", IsolationPolicy::Isolated)];
        let dump = ours(tables, &entries);
        let netns = tables.host.container("go");
        let made = go.try_firewall(&netns, "ADD", "isolated", &["10.1.0.5/16", "fd00::5/64"]);
        if String::from_utf8_lossy(&made.stdout).contains("unknown ingress policy") {
            testkit::skip!("the Go suite here is older than 1.7 and knows no ingressPolicy `isolated`");
        }
        made.success();
        assert_same(&tables.dump_in(&netns), &without_published(&dump));
    }

    fn masquerade_looks_the_same(tables: &Tables, go: &GoSuite<'_>) {
        let dump = ours(tables, &[masquerade("10.1.0.5/16", &[]), masquerade("fd00::5/64", &[])]);
        let netns = tables.host.container("go");
        go.bridge(&netns, "ADD", &["10.1.0.5/16", "fd00::5/64"]);
        assert_same(&tables.dump_in(&netns), &dump);
    }

    fn the_go_suite_checks_and_removes_our_ports(tables: &Tables, go: &GoSuite<'_>) {
        tables.backend().ensure(&owner("blue/c1/eth0"), &both_ports()).unwrap();
        // Old versions look for the ports of one family in the other, and fail on their own work too.
        let netns = tables.host.container("go");
        go.portmap(&netns, "ADD", &json!({}));
        if go.try_portmap(&netns, "CHECK", &json!({})).succeeded() {
            go.portmap(tables.host.netns(), "CHECK", &json!({}));
        }
        go.portmap(tables.host.netns(), "DEL", &json!({}));
        let left = tables.dump();
        assert!(!left.contains("CNI-DN-") && !left.contains("dnat name"), "{left}");
    }

    fn the_go_suite_checks_and_removes_our_forwarding(tables: &Tables, go: &GoSuite<'_>) {
        tables.backend().ensure(&owner("blue/c1/eth0"), &[forward("10.1.0.5"), forward("fd00::5")]).unwrap();
        go.firewall(tables.host.netns(), "CHECK", "open", &["10.1.0.5/16", "fd00::5/64"]);
        go.firewall(tables.host.netns(), "DEL", "open", &["10.1.0.5/16", "fd00::5/64"]);
        let left = without_published(&tables.dump());
        assert!(!left.contains("10.1.0.5") && !left.contains("fd00::5"), "{left}");
    }

    fn the_go_suite_removes_our_masquerade(tables: &Tables, go: &GoSuite<'_>) {
        // The bridge first, since the Go plugin removes masquerade only of an interface it finds.
        go.bridge(tables.host.netns(), "ADD", &["10.1.0.5/16"]);
        let backend = &mut tables.backend();
        backend.remove_owner(&owner("blue/c1/eth0"), Role::Interface, &[]).unwrap();
        assert_same("", &tables.dump());
        backend.ensure(&owner("blue/c1/eth0"), &[masquerade("10.1.0.5/16", &["192.168.0.0/16"])]).unwrap();
        go.bridge(tables.host.netns(), "DEL", &["10.1.0.5/16"]);
        assert_same("", &tables.dump());
    }

    fn what_the_go_suite_made_is_taken_for_ours_and_removed(tables: &Tables, go: &GoSuite<'_>) {
        let owner = owner("blue/c1/eth0");
        let mut backend = tables.backend();
        go.portmap(tables.host.netns(), "ADD", &json!({}));
        go.firewall(tables.host.netns(), "ADD", "same-bridge", &["10.1.0.5/16", "fd00::5/64"]);
        go.bridge(tables.host.netns(), "ADD", &["10.1.0.5/16", "fd00::5/64"]);
        let before = tables.dump();
        let mut entries = both_ports();
        entries.extend([masquerade("10.1.0.5/16", &[]), masquerade("fd00::5/64", &[])]);
        entries.extend([forward("10.1.0.5"), forward("fd00::5")]);
        entries.push(isolate("cni7", IsolationPolicy::SameBridge));
        backend.verify(&owner, &entries).unwrap();
        backend.ensure(&owner, &entries).unwrap();
        assert_same(&before, &without_published(&tables.dump()));
        // The Go plugin's own port of the bridge is still there, so the isolation is not ours to remove.
        backend.remove(&owner, &entries).unwrap();
        let left = tables.dump();
        assert!(left.contains("CNI-ISOLATION-STAGE-1") && !left.contains("10.1.0.5") && !left.contains("nat"), "{left}");
        tables.host.netns().run("ip", &["link", "delete", "cni7"]);
        backend.remove(&owner, &entries).unwrap();
        assert_same("", &tables.dump());
    }

    fn what_the_go_suite_made_is_removed_without_a_record(tables: &Tables, go: &GoSuite<'_>) {
        let owner = owner("blue/c1/eth0");
        let mut backend = tables.backend();
        go.portmap(tables.host.netns(), "ADD", &json!({}));
        go.bridge(tables.host.netns(), "ADD", &["10.1.0.5/16", "fd00::5/64"]);
        go.firewall(tables.host.netns(), "ADD", "open", &["10.1.0.5/16", "fd00::5/64"]);
        backend.remove_owner(&owner, Role::Publish, &[]).unwrap();
        backend.remove_owner(&owner, Role::Interface, &[]).unwrap();
        let addresses = ["10.1.0.5", "fd00::5"].map(|ip| ip.parse().unwrap());
        backend.remove_owner(&owner, Role::Forward, &addresses).unwrap();
        assert_same("", &tables.dump());
    }

    fn what_the_go_suite_made_is_collected(tables: &Tables, go: &GoSuite<'_>) {
        let mut backend = tables.backend();
        go.portmap(tables.host.netns(), "ADD", &json!({}));
        go.bridge(tables.host.netns(), "ADD", &["10.1.0.5/16", "fd00::5/64"]);
        let before = tables.dump();
        for role in [Role::Publish, Role::Interface] {
            collect(&mut backend, "blue", role, &listed(&["c1"]));
            collect(&mut backend, "red", role, &listed(&[]));
        }
        assert_same(&before, &tables.dump());
        for role in [Role::Publish, Role::Interface] {
            collect(&mut backend, "blue", role, &listed(&["c2"]));
        }
        assert_same("", &tables.dump());
    }

    /// Both suites on one host, each with a container of its own.
    fn a_container_of_either_suite(tables: &Tables, go: &GoSuite<'_>) {
        go.portmap(tables.host.netns(), "ADD", &json!({}));
        let before = tables.dump();
        let owner = owner("blue/c2/eth0");
        let entries = [Entry::Publish(publish("10.1.0.6/16", &["tcp 8081:80"]))];
        tables.backend().ensure(&owner, &entries).unwrap();
        let taken = tables.backend().ensure(&owner, &[ports("10.1.0.6/16")]).unwrap_err().to_string();
        assert!(taken.contains("0.0.0.0:") && taken.contains("container c1 in network blue"), "{taken}");
        tables.backend().remove(&owner, &entries).unwrap();
        assert_same(&before, &tables.dump());
    }
}
