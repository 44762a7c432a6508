//! The documentation's example does what the page says.

use testkit::{Host, Runtime, documented_example, ip_json, ping};

use crate::support::*;

#[test]
fn the_example_connects_two_containers_with_each_other_and_the_host() {
    let host = Host::new();
    let before = state();
    let chain = Runtime::new().chain(&documented_example("bridge"));
    chain.status().unwrap();
    let (one, two) = (host.container("c1"), host.container("c2"));
    for container in [&one, &two] {
        chain.add(&eth0(container)).unwrap();
        chain.check(&eth0(container)).unwrap();
    }
    assert_eq!(link(host.netns(), "cni-home0")["linkinfo"]["info_kind"], "bridge");
    for address in ["10.96.0.1", "10.96.0.3", "fd00:96::1", "fd00:96::3"] {
        assert!(ping(&one, address.parse::<std::net::IpAddr>().unwrap()), "{address}");
    }
    let default =
        |family: &str| one.enter(|| ip_json(&format!("{family} route show default")))[0]["gateway"].clone();
    assert_eq!(default("-4"), "10.96.0.1");
    assert_eq!(default("-6"), "fd00:96::1");
    chain.del(&eth0(&one)).unwrap();
    chain.del(&eth0(&two)).unwrap();
    drop((one, two));
    before.assert_same(&state());
}
