//! The documentation's example does what the page says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;
use testkit::{Attachment, Runtime, Snapshot, Uplink, documented_example, tcp_echo_server, tcp_roundtrip};

use crate::lab::{Lab, port};

#[test]
fn the_example_publishes_a_port_everywhere() {
    let lab = Lab::new();
    let before = Snapshot::take();
    let chain = Runtime::new().chain(&documented_example("portmap"));
    chain.status().unwrap();
    let container = lab.container("c1");
    let attachment =
        Attachment::new("c1", &container, "eth0").capability("portMappings", json!([port("tcp", 8080, 80)]));
    chain.add(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    chain.check(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    let servers = (
        tcp_echo_server(&container, Ipv4Addr::UNSPECIFIED, 80),
        tcp_echo_server(&container, Ipv6Addr::UNSPECIFIED, 80),
    );
    let (v4, v6) = (IpAddr::from(Uplink::HOST_IPV4), IpAddr::from(Uplink::HOST_IPV6));
    for (netns, target) in [
        (&*lab.outside, v4),
        (&*lab.outside, v6),
        (lab.host.netns(), v4),
        (lab.host.netns(), v6),
        (lab.host.netns(), Ipv4Addr::LOCALHOST.into()),
        (&*container, v4),
        (&*container, v6),
    ] {
        let reply = tcp_roundtrip(netns, target, 8080);
        assert_eq!(reply.map(|reply| reply.server).ok().as_deref(), Some("c1"), "{} {target}", netns.name());
    }
    drop(servers);
    chain.del(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    drop(container);
    let leases = ["/var/lib/cni"];
    before.without(&leases).assert_same(&Snapshot::take().without(&leases));
}
