//! What somebody may try who can choose a name, a file or an address: of this plugin and of those that are run with it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use testkit::{Host, Plugin, ping, plugin_dir, set_sysctl, tool};

use crate::support::*;

/// A call with names in it that somebody else has chosen.
struct Call {
    config: Value,
    container_id: String,
    ifname: String,
}

impl Call {
    fn new(kind: &str) -> Self {
        let previous = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "veth0" }, { "name": "eth0", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "10.77.0.5/24", "interface": 1 }]
        });
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": kind, "prevResult": previous, "isGateway": true, "ipam": v4(),
            "vni": 42, "peers": [{ "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24"] }],
            "sysctl": {}, "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] },
        });
        Self { config, container_id: "c1".to_owned(), ifname: "eth0".to_owned() }
    }

    fn run(&self, verb: &str) -> testkit::Output {
        let kind = self.config["type"].as_str().unwrap();
        Plugin::new(kind)
            .verb(verb)
            .attachment(&self.container_id, "/run/netns/c1", &self.ifname)
            .path(&[plugin_dir()])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .config(&self.config)
            .run()
    }
}

const ALL: [&str; 7] = ["bridge", "vxlan", "loopback", "host-local", "portmap", "firewall", "tuning"];

/// Where a name goes: what it is called, which plugins have it, and how it gets there.
type Place = (&'static str, &'static [&'static str], fn(&mut Call, &str));

const PLACES: [Place; 8] = [
    ("name", &ALL, |call, name| call.config["name"] = name.into()),
    ("CNI_CONTAINERID", &ALL, |call, name| name.clone_into(&mut call.container_id)),
    ("CNI_IFNAME", &ALL, |call, name| name.clone_into(&mut call.ifname)),
    ("ipam.type", &["bridge"], |call, name| call.config["ipam"]["type"] = name.into()),
    ("bridge", &["bridge"], |call, name| call.config["bridge"] = name.into()),
    ("device", &["vxlan"], |call, name| call.config["device"] = name.into()),
    ("peers[].node", &["vxlan"], |call, name| call.config["peers"][0]["node"] = name.into()),
    ("sysctl", &["tuning"], |call, name| {
        call.config["sysctl"] = json!({ format!("net/{name}"): "precious" });
    }),
];

const PATHS: [&str; 7] =
    ["..", "../victim", "../../../../run/victim", "/run/victim", "a/../../victim", "a/b", "./victim"];

/// A host on which a file is where paths that lead out of a state directory would lead.
fn host() -> (Host, testkit::Container) {
    let host = Host::new();
    let container = host.container("c1");
    fs::write("/run/victim", "precious").unwrap();
    (host, container)
}

fn assert_untouched(before: &testkit::Snapshot, doing: &str) {
    assert_eq!(fs::read_to_string("/run/victim").ok().as_deref(), Some("precious"), "{doing}");
    let difference = before.difference(&state());
    assert_eq!(difference, "", "{doing}");
}

#[test]
fn a_name_is_never_a_path() {
    let (_host, container) = host();
    let (before, inside) = (state(), links(&container));
    for (place, plugins, put) in PLACES {
        for kind in plugins {
            for name in PATHS {
                let mut call = Call::new(kind);
                put(&mut call, name);
                let added = call.run("ADD");
                let doing = format!("{kind}: {place} = {name:?}");
                let error = added.error();
                let code = error["code"].as_u64().unwrap();
                // A sysctl that is a path below `net`, but none of the kernel's, is for the kernel to refuse.
                let of_kernel = place == "sysctl" && code == 100;
                assert!([4, 7].contains(&code) || of_kernel, "{doing}: {error}");
                // Whether it fails or finds nothing to do, it finds nothing elsewhere.
                for verb in ["CHECK", "DEL"] {
                    call.run(verb);
                }
                assert_eq!(fs::read_to_string("/run/victim").unwrap(), "precious", "{doing}");
            }
            assert_untouched(&before, &format!("{kind}: {place}"));
            assert_eq!(links(&container), inside, "{kind}: {place}");
        }
    }
}

/// What a runtime's cache says of interfaces, and what a GC is told to keep, is nobody's path either.
#[test]
fn names_in_results_and_lists_lead_nowhere() {
    let (_host, _container) = host();
    let before = state();
    for kind in ["portmap", "firewall", "tuning", "bridge", "vxlan", "host-local"] {
        for name in PATHS {
            let mut call = Call::new(kind);
            for interface in [0, 1] {
                call.config["prevResult"]["interfaces"][interface]["name"] = name.into();
            }
            call.config["prevResult"]["interfaces"][1]["sandbox"] = name.into();
            for verb in ["CHECK", "DEL"] {
                call.run(verb);
            }
            call.config["cni.dev/valid-attachments"] = json!([{ "containerID": name, "ifname": name }]);
            call.run("GC");
        }
        assert_untouched(&before, kind);
    }
}

/// CVE-2021-20206: a type with a path in it ran any program of the host.
#[test]
fn a_delegate_is_found_in_cni_path_only() {
    let (_host, _container) = host();
    let program = "#!/bin/sh\ntouch /run/evil/ran\n";
    fs::create_dir_all("/run/evil/bin/below").unwrap();
    for path in ["/run/evil/program", "/run/evil/bin/below/program"] {
        fs::write(path, program).unwrap();
        tool("chmod", &["755", path]);
    }
    for kind in [
        "../program",
        "/run/evil/program",
        "below/program",
        "./below/program",
        "below/../../program",
        ".",
        "..",
    ] {
        let mut call = Call::new("bridge");
        call.config["ipam"] = json!({ "type": kind });
        for verb in ["ADD", "CHECK", "DEL"] {
            let run = Plugin::new("bridge")
                .verb(verb)
                .attachment("c1", "/run/netns/c1", "eth0")
                .path(&["/run/evil/bin"])
                .config(&call.config)
                .run();
            if verb == "ADD" {
                assert_eq!(run.error()["code"], 7, "{kind}");
            }
            assert!(!fs::exists("/run/evil/ran").unwrap(), "{verb} with ipam.type {kind:?} ran it");
        }
    }
}

/// As SECURITY.md advises where forged addresses matter.
#[test]
fn an_address_of_nobodys_is_dropped_where_the_host_filters() {
    let host = Host::new();
    let forger = host.container("forger");
    net(json!({ "isDefaultGateway": true, "macspoofchk": true, "ipam": v4() })).add(&eth0(&forger)).unwrap();
    ip(&forger, "addr add 198.51.100.7/32 dev lo");
    let rule = "chain input { type filter hook input priority 0; ip saddr 198.51.100.7 counter; }";
    tool("nft", &[format!("table ip watch {{ {rule}\n}}")]);
    let arrived = || {
        forger.run("ping", &["-c2", "-W1", "-i0.2", "-I", "198.51.100.7", "10.77.0.1"]);
        let packets = testkit::nft_json().iter().find_map(|object| {
            let counter = &object["rule"]["expr"][1]["counter"]["packets"];
            (object["rule"]["table"] == "watch").then(|| counter.as_u64().unwrap())
        });
        packets.unwrap()
    };
    let before = arrived();
    assert_ne!(before, 0, "the attack is a real one");
    set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    assert_eq!(arrived(), before);
    assert!(ping(&forger, [10, 77, 0, 1]), "its own address passes");
}

/// A directory for leases, or for what `tuning` keeps, in which anybody can put a link.
#[test]
fn links_of_others_are_not_followed() {
    let (_host, container) = host();
    let open = |name: &str| {
        let path = format!("/run/{name}");
        fs::create_dir_all(&path).unwrap();
        tool("chmod", &["1777", &path]);
        path
    };
    let precious = || assert_eq!(fs::read_to_string("/run/victim").unwrap(), "precious");

    // The store itself.
    let data = open("data");
    fs::create_dir("/run/victims").unwrap();
    symlink("/run/victims", format!("{data}/net")).unwrap();
    let mut call = Call::new("host-local");
    call.config["ipam"]["dataDir"] = data.into();
    let error = call.run("ADD").error();
    assert!(error["msg"].as_str().unwrap().contains("symbolic link"), "{error}");
    assert_eq!(fs::read_dir("/run/victims").unwrap().count(), 0);
    assert!(!call.run("DEL").succeeded(), "nor does anything leave through it");

    // Every file in it.
    for name in ["lock", "last_reserved_ip.0", "10.77.0.2", "../.ferrule/net/index", "../.ferrule/net/claim"]
    {
        let data = open(&format!("data-{}", name.replace('/', "-")));
        fs::create_dir_all(format!("{data}/.ferrule/net")).unwrap();
        fs::create_dir(format!("{data}/net")).unwrap();
        symlink("/run/victim", format!("{data}/net/{name}")).unwrap();
        let mut call = Call::new("host-local");
        call.config["ipam"]["dataDir"] = data.into();
        for verb in ["ADD", "CHECK", "DEL"] {
            call.run(verb);
            precious();
        }
    }

    // A file that waits for a reader for ever.
    let data = open("data-pipes");
    fs::create_dir(format!("{data}/net")).unwrap();
    tool("mkfifo", &[format!("{data}/net/10.77.0.2")]);
    let mut call = Call::new("host-local");
    call.config["ipam"]["dataDir"] = data.clone().into();
    assert_eq!(
        call.run("ADD").success()["ips"][0]["address"],
        "10.77.0.3/24",
        "an address that is in the way"
    );
    call.run("DEL").success();
    fs::remove_file(format!("{data}/net/last_reserved_ip.0")).unwrap();
    tool("mkfifo", &[format!("{data}/net/last_reserved_ip.0")]);
    assert_eq!(call.run("ADD").error()["code"], 5, "told, not waited for");

    tool("ip", &["link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", "c1"]);
    let mut call = Call::new("tuning");
    for (name, plant) in [
        ("kept", &(|path: &str| symlink("/run/victim", path).unwrap()) as &dyn Fn(&str)),
        ("pipes", &|path: &str| drop(tool("mkfifo", &[path]))),
    ] {
        let directory = open(name);
        plant(&format!("{directory}/c1_eth0.json"));
        call.config["dataDir"] = directory.into();
        call.config["mtu"] = 1400.into();
        let error = call.run("ADD").error();
        assert_eq!(error["code"], 5, "{name}: {error}");
        call.run("DEL");
        precious();
        assert_eq!(link(&container, "eth0")["mtu"], 1500, "{name}");
    }
}
