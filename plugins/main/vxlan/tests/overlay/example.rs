//! The example of the documentation: the same file on two hosts, which each finds itself in.

use serde_json::json;
use testkit::{Attachment, Fabric, documented_example, tcp_echo_server, tcp_roundtrip};

#[test]
fn two_hosts_one_file_and_a_published_port() {
    let list = documented_example("vxlan");
    let fabric = Fabric::switched(2);
    let containers = ["c1", "c2"].map(|name| fabric.container(name));
    let mut chains = Vec::new();
    for (host, container) in fabric.hosts().iter().zip(&containers) {
        let chain = host.runtime().chain(&list);
        let published = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
        let attachment =
            Attachment::new(container.name(), container, "eth0").capability("portMappings", published);
        chain.add(&attachment).unwrap();
        chains.push((chain, attachment));
    }
    let server = tcp_echo_server(&containers[1], [0; 4], 80);
    let inside = tcp_roundtrip(&containers[0], [10, 40, 2, 2], 80).unwrap();
    assert_eq!((inside.server.as_str(), inside.seen_from.ip().to_string().as_str()), ("c2", "10.40.1.2"));
    let published = tcp_roundtrip(&fabric.hosts()[0], fabric.hosts()[1].ipv4(), 8080).unwrap();
    assert_eq!(published.server, "c2");
    drop(server);
    for (chain, attachment) in chains {
        chain.check(&attachment).unwrap();
        chain.del(&attachment).unwrap();
    }
}
