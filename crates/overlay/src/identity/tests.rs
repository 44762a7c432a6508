use cni::Cidr;

use super::*;
use crate::names::{Port, Vni};

fn own(interface: &str, address: &str, mtu: u32) -> OwnAddress {
    OwnAddress {
        address: address.parse().unwrap(),
        prefix: 24,
        interface: LinkName::new(interface).unwrap(),
        mtu,
    }
}

fn nodes() -> Vec<Listed> {
    let node = |(index, (name, underlay)): (usize, (&str, &str))| {
        let block: Cidr = format!("10.40.{index}.0/24").parse().unwrap();
        let name = NodeId::new(name).unwrap();
        let vni = Vni::new(1).unwrap();
        let record = NodeRecord::new(name, &[underlay.parse().unwrap()], Port::VXLAN, &[vni], &[block]);
        Listed { path: format!("peers[{index}]"), record }
    };
    [("a", "192.0.2.1"), ("b", "192.0.2.2")].into_iter().enumerate().map(node).collect()
}

fn find(hint: &Hint, own: &[OwnAddress]) -> Result<(NodeId, Underlay), String> {
    recognise(&nodes(), Family::Ipv4, hint, own).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_host_is_the_node_whose_address_it_has() {
    let (node, underlay) =
        find(&Hint::default(), &[own("lo", "127.0.0.1", 65536), own("eth1", "192.0.2.2", 9000)]).unwrap();
    assert_eq!(node.as_str(), "b");
    assert_eq!((underlay.interface.as_str(), underlay.mtu), ("eth1", 9000));
}

#[test]
fn a_host_that_is_none_of_them_is_told_its_own_addresses() {
    let message = find(&Hint::default(), &[own("lo", "127.0.0.1", 65536), own("eth0", "198.51.100.7", 1500)]);
    assert_eq!(
        message.unwrap_err(),
        "peers: this host is not among its peers: it has none of these addresses (its own: 198.51.100.7) \
         (value: 192.0.2.1, 192.0.2.2)"
    );
}

#[test]
fn a_host_that_is_two_of_them_needs_a_hint() {
    let both = [own("eth0", "192.0.2.1", 1500), own("eth1", "192.0.2.2", 1500)];
    assert_eq!(
        find(&Hint::default(), &both).unwrap_err(),
        "peers[1].node: this host has the addresses of a and of b; `underlay.address` says which it is (value: b)"
    );
    let by_link = Hint { interface: LinkName::new("eth1").ok(), address: None };
    assert_eq!(find(&by_link, &both).unwrap().0.as_str(), "b");
    let by_address = Hint { interface: None, address: "192.0.2.1".parse().ok() };
    assert_eq!(find(&by_address, &both).unwrap().0.as_str(), "a");
}

#[test]
fn a_hint_that_is_wrong_is_refused() {
    let mine = [own("eth0", "192.0.2.1", 1500), own("eth1", "198.51.100.1", 1500)];
    for (interface, address, message) in [
        (Some("eth7"), None, "underlay.interface: this host has no such link (value: eth7)"),
        (
            Some("eth1"),
            None,
            "underlay.interface: the link has no address that a peer record names (value: eth1)",
        ),
        (
            None,
            Some("192.0.2.2"),
            "underlay.address: this host does not have this address (value: 192.0.2.2)",
        ),
    ] {
        let hint = Hint {
            interface: interface.map(|name| LinkName::new(name).unwrap()),
            address: address.map(|text| text.parse().unwrap()),
        };
        assert_eq!(find(&hint, &mine).unwrap_err(), message);
    }
}
