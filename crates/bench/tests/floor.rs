//! The floor makes what a chain of plugins makes: its time is only worth something if its attachments work.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has to fail")]

use std::net::Ipv4Addr;
use std::process::Command;

use bench::floor::RULESET;
use bench::job::{DUAL, Job, container};
use testkit::{
    Host, Snapshot, Uplink, ip_json, set_sysctl, tcp_echo_server, tcp_roundtrip, udp_echo_server,
    udp_roundtrip,
};

fn floor(verb: &str, job: &Job, number: u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-floor"));
    let output = command.arg(verb).args(job.request(number).arguments()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn ruleset() {
    std::fs::write("/run/floor.nft", RULESET).unwrap();
    testkit::tool("nft", &["-f", "/run/floor.nft"]);
    std::fs::remove_file("/run/floor.nft").unwrap();
    set_sysctl("net/ipv4/ip_forward", "1");
    set_sysctl("net/ipv6/conf/all/forwarding", "1");
}

#[test]
fn its_ports_lead_into_the_container_and_out_of_it_one_is_masqueraded() {
    let host = Host::new();
    let outside = host.uplink();
    ruleset();
    let job = Job::chain(DUAL);
    let first = host.container(&container(0));
    let second = host.container(&container(1));
    floor("add", &job, 0);
    floor("add", &job, 1);
    for (number, namespace) in [(0, &first), (1, &second)] {
        let servers = (
            tcp_echo_server(namespace, Ipv4Addr::UNSPECIFIED, 80),
            udp_echo_server(namespace, Ipv4Addr::UNSPECIFIED, 81),
        );
        let port = job.ports(number)[0].host;
        assert_eq!(tcp_roundtrip(&outside, Uplink::HOST_IPV4, port).unwrap().server, container(number));
        assert_eq!(udp_roundtrip(&outside, Uplink::HOST_IPV4, port + 1).unwrap().server, container(number));
        drop(servers);
    }
    let _server = tcp_echo_server(&outside, Ipv4Addr::UNSPECIFIED, 7);
    let reply = tcp_roundtrip(&first, Uplink::OUTSIDE_IPV4, 7).unwrap();
    assert_eq!(reply.seen_from.ip(), Uplink::HOST_IPV4);
    let links = second.enter(|| ip_json("addr show eth0"));
    let addresses: Vec<_> = links[0]["addr_info"].as_array().unwrap().iter().map(|a| &a["local"]).collect();
    assert!(addresses.contains(&&"10.93.1.1".into()) && addresses.contains(&&"fd93::1:1".into()), "{links}");
}

#[test]
fn it_takes_away_what_it_made_for_a_container() {
    let host = Host::new();
    ruleset();
    let job = Job::chain(DUAL);
    let _containers = [0, 1].map(|number| host.container(&container(number)));
    floor("add", &job, 0);
    let before = Snapshot::take();
    floor("add", &job, 1);
    floor("del", &job, 1);
    before.assert_same(&Snapshot::take());
}
