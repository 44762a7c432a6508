//! The firewalld backend against a real firewalld, on a bus of its own.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use ferrule_core::firewall::detect::{Evidence, detect};
use ferrule_core::firewall::{
    Backend, Entry, Firewall, FirewallError, Firewalld, Forward, Iptables, Isolate, IsolationPolicy, Role,
};
use ferrule_core::owner::Owner;
use testkit::{
    Host, RunningFirewalld, SYSTEM_BUS, SystemBus, Uplink, eventually, have, ping, set_sysctl, tool,
};

const BUS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";
fn start(bus: &str) -> RunningFirewalld {
    RunningFirewalld::start(bus, "")
}

fn owner(tag: &str) -> Owner {
    Owner::from_tag(tag).unwrap()
}

fn forward(address: &str, zone: &str) -> [Entry; 1] {
    [Entry::Forward(Forward {
        address: address.parse().unwrap(),
        admin_chain: "CNI-ADMIN".to_owned(),
        zone: zone.to_owned(),
    })]
}

/// What firewalld itself says; empty for no zone.
fn zone_of(source: &str) -> String {
    let output = Command::new(have("firewall-cmd").unwrap())
        .arg(format!("--get-zone-of-source={source}"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn sources_come_and_go_with_their_users() {
    if !RunningFirewalld::is_installed() {
        testkit::skip!("firewalld or dbus-daemon is not installed");
    }
    let _host = Host::new();
    let _running = start(SYSTEM_BUS);
    let mut backend = Firewalld::new("test");
    let (old, new) = (owner("blue/c1/eth0"), owner("blue/c2/eth0"));
    for (address, source) in [("10.1.0.5", "10.1.0.5/32"), ("fd00::5", "fd00::5/128")] {
        let entries = forward(address, "trusted");
        let missing = backend.verify(&old, &entries).unwrap_err();
        assert!(matches!(missing, FirewallError::Missing { .. }), "{missing}");
        backend.ensure(&old, &entries).unwrap();
        backend.ensure(&old, &entries).unwrap();
        backend.verify(&old, &entries).unwrap();
        assert_eq!(zone_of(source), "trusted");
        // The address was given to another container before this one's DEL.
        backend.ensure(&new, &entries).unwrap();
        backend.remove(&old, &entries).unwrap();
        backend.verify(&new, &entries).unwrap();
        backend.remove(&new, &entries).unwrap();
        assert_eq!(zone_of(source), "");
        backend.remove(&new, &entries).unwrap();
    }
    assert!(!Path::new("/run/ferrule").exists());

    // Of another zone, which somebody else has put it into.
    tool("firewall-cmd", &["--zone=internal", "--add-source=10.1.0.9/32"]);
    let error = backend.ensure(&old, &forward("10.1.0.9", "trusted")).unwrap_err().to_string();
    assert!(error.contains("10.1.0.9/32") && error.contains("ZONE_CONFLICT"), "{error}");
    backend.remove(&old, &forward("10.1.0.9", "trusted")).unwrap();
    assert_eq!(zone_of("10.1.0.9/32"), "internal");
    let error = backend.ensure(&old, &forward("10.1.0.7", "nowhere")).unwrap_err().to_string();
    assert!(error.contains("INVALID_ZONE") && error.contains("nowhere"), "{error}");

    // What the Go suite added, and without a record.
    tool("firewall-cmd", &["--zone=trusted", "--add-source=10.1.0.8/32"]);
    backend.remove_owner(&old, Role::Forward, &["10.1.0.8".parse().unwrap()]).unwrap();
    assert_eq!(zone_of("10.1.0.8/32"), "");
}

#[test]
fn packets_of_a_trusted_source_are_forwarded() {
    if !RunningFirewalld::is_installed() {
        testkit::skip!("firewalld or dbus-daemon is not installed");
    }
    let host = Host::new();
    let uplink = host.uplink();
    let container = host.container("c1");
    set_sysctl("net/ipv4/ip_forward", "1");
    for arguments in [
        "link add veth1 type veth peer name eth0 netns c1",
        "addr add 10.1.0.1/24 dev veth1",
        "link set veth1 up",
    ] {
        tool("ip", &arguments.split(' ').collect::<Vec<_>>());
    }
    for arguments in ["addr add 10.1.0.5/24 dev eth0", "link set eth0 up", "route add default via 10.1.0.1"] {
        container.run("ip", &arguments.split(' ').collect::<Vec<_>>());
    }
    uplink.run("ip", &["route", "add", "10.1.0.0/24", "via", "192.0.2.1"]);
    assert!(ping(&container, Uplink::OUTSIDE_IPV4), "the way is not there");

    let _running = start(SYSTEM_BUS);
    let owner = owner("blue/c1/eth0");
    let entries = forward("10.1.0.5", "trusted");
    let found = detect().unwrap();
    assert_eq!((found.backend(), found.evidence), (Backend::Firewalld, vec![Evidence::Firewalld]));
    assert!(!ping(&container, Uplink::OUTSIDE_IPV4), "firewalld forwards everything");
    Firewalld::new("test").ensure(&owner, &entries).unwrap();
    assert!(ping(&container, Uplink::OUTSIDE_IPV4));

    // As Docker does, which then has to be told too.
    tool("iptables", &["-P", "FORWARD", "DROP"]);
    assert!(!ping(&container, Uplink::OUTSIDE_IPV4), "the policy drops nothing");
    assert_eq!(detect().unwrap().backends, [Backend::Firewalld, Backend::Iptables]);
    Iptables::new("test").ensure(&owner, &entries).unwrap();
    assert!(ping(&container, Uplink::OUTSIDE_IPV4));
    tool("iptables", &["-P", "FORWARD", "ACCEPT"]);
    Iptables::new("test").remove(&owner, &entries).unwrap();

    Firewalld::new("test").remove(&owner, &entries).unwrap();
    assert!(!ping(&container, Uplink::OUTSIDE_IPV4));
}

/// firewalld can be told to use iptables; its rules there are still its own.
#[test]
fn firewalld_with_rules_of_iptables_is_firewalld() {
    if !RunningFirewalld::is_installed() {
        testkit::skip!("firewalld or dbus-daemon is not installed");
    }
    let _host = Host::new();
    let _running = RunningFirewalld::start(SYSTEM_BUS, "FirewallBackend=iptables\n");
    eventually("the rules are there", || {
        tool("iptables", &["-S", "FORWARD"]).contains("REJECT").then_some(())
    });
    let found = detect().unwrap();
    assert_eq!((found.backends, found.evidence), (vec![Backend::Firewalld], vec![Evidence::Firewalld]));
}

#[test]
fn whether_it_runs_is_asked_of_the_bus_that_the_environment_names() {
    if !RunningFirewalld::is_installed() {
        testkit::skip!("firewalld or dbus-daemon is not installed");
    }
    if std::env::var_os(BUS_VARIABLE).is_some() {
        // The same test again, below.
        assert!(Firewalld::is_running().unwrap());
        return;
    }
    let _host = Host::new();
    assert!(!Firewalld::is_running().unwrap(), "there is no bus");
    let _bus = SystemBus::start(SYSTEM_BUS);
    assert!(!Firewalld::is_running().unwrap(), "there is nobody on the bus");
    let elsewhere = "/run/elsewhere";
    let _running = start(elsewhere);
    assert!(!Firewalld::is_running().unwrap(), "it is on another bus");
    let name = "whether_it_runs_is_asked_of_the_bus_that_the_environment_names";
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(BUS_VARIABLE, format!("unix:path=/nonexistent;unix:path={elsewhere}"))
        .status()
        .unwrap();
    assert!(again.success());
}

#[test]
fn without_firewalld_there_is_nothing_to_remove() {
    let _host = Host::new();
    let mut backend = Firewalld::new("test");
    let owner = owner("blue/c1/eth0");
    let entries = forward("10.1.0.5", "trusted");
    backend.remove(&owner, &entries).unwrap();
    backend.remove_owner(&owner, Role::Forward, &[Ipv4Addr::new(10, 1, 0, 5).into()]).unwrap();
    let error = backend.ensure(&owner, &entries).unwrap_err().to_string();
    assert!(error.contains("system bus"), "{error}");
}

/// A bus that takes connections and never says a word.
#[test]
fn a_silent_bus_is_given_up() {
    let _host = Host::new();
    std::fs::create_dir_all("/run/dbus").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(SYSTEM_BUS).unwrap();
    assert!(Firewalld::is_running().unwrap_err().is_timeout());
}

#[test]
fn what_zones_cannot_express_is_said() {
    let _host = Host::new();
    let entry = Entry::Isolate(Isolate {
        bridge: "cni0".parse().unwrap(),
        policy: IsolationPolicy::SameBridge,
        ports: Vec::new(),
    });
    let error = Firewalld::new("test").ensure(&owner("blue/c1/eth0"), &[entry]).unwrap_err();
    assert!(matches!(error, FirewallError::Unsupported { backend: "firewalld", .. }), "{error}");
}
