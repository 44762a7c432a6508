use super::*;

fn settings() -> Settings {
    Settings::new(NetworkName::new("blue").unwrap(), Vni::new(100).unwrap()).unwrap()
}

fn underlay(mtu: u32) -> Underlay {
    Underlay {
        address: "192.0.2.1".parse().unwrap(),
        prefix: 24,
        interface: LinkName::new("eth0").unwrap(),
        mtu,
    }
}

fn node(name: &str, underlay: &[&str], blocks: &[&str]) -> Listed {
    let underlay: Vec<IpAddr> = underlay.iter().map(|text| text.parse().unwrap()).collect();
    let blocks: Vec<Cidr> = blocks.iter().map(|text| text.parse().unwrap()).collect();
    let vni = Vni::new(100).unwrap();
    Listed {
        path: format!("peers[{name}]"),
        record: NodeRecord::new(NodeId::new(name).unwrap(), &underlay, Port::VXLAN, &[vni], &blocks),
    }
}

fn two() -> Vec<Listed> {
    vec![node("a", &["192.0.2.1"], &["10.40.1.0/24"]), node("b", &["192.0.2.2"], &["10.40.2.0/24"])]
}

fn view(settings: Settings, nodes: Vec<Listed>) -> Result<View, String> {
    let own = NodeId::new("a").unwrap();
    View::new(settings, underlay(1500), &own, nodes).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_view_is_a_node_and_its_peers() {
    let view = view(settings(), two()).unwrap();
    assert_eq!(view.node().node.as_str(), "a");
    assert_eq!(view.peers().len(), 1);
    assert_eq!(view.mtu(), 1450);
    assert_eq!(view.settings().device.as_str(), "vx-blue");
}

#[test]
fn what_two_nodes_claim_is_refused_with_both_places() {
    for (third, message) in [
        (
            node("c", &["192.0.2.3"], &["10.40.2.128/25"]),
            "peers[c].blocks[0]: it overlaps 10.40.2.0/24 of node b at peers[b] (value: 10.40.2.128/25)",
        ),
        (
            node("c", &["192.0.2.3"], &["10.40.0.0/16"]),
            "peers[c].blocks[0]: it overlaps 10.40.1.0/24 of node a at peers[a] (value: 10.40.0.0/16)",
        ),
        (
            node("c", &["192.0.2.2"], &["10.40.3.0/24"]),
            "peers[c].underlay: node b at peers[b] has the same address (value: 192.0.2.2)",
        ),
        (
            node("c", &["192.0.2.3"], &["192.0.2.0/24"]),
            "peers[c].blocks[0]: it contains 192.0.2.3, at which the tunnels of node c end (value: 192.0.2.0/24)",
        ),
        (
            node("c", &["198.51.100.3"], &["192.0.2.0/30"]),
            "peers[c].blocks[0]: it contains 192.0.2.1, at which the tunnels of node a end (value: 192.0.2.0/30)",
        ),
        (
            node("c", &["10.40.2.3"], &["10.40.3.0/24"]),
            "peers[c].underlay: it is within 10.40.2.0/24 of node b at peers[b], which is reached through the tunnels (value: 10.40.2.3)",
        ),
        (
            node("b", &["192.0.2.3"], &["10.40.3.0/24"]),
            "peers[b].node: it names the same node as peers[b] (value: b)",
        ),
        (
            node("c", &["192.0.2.3"], &["10.40.3.0/31"]),
            "peers[c].blocks[0]: it is too small: a block has room for a gateway and a container, so its prefix is at most /30 (value: 10.40.3.0/31)",
        ),
        (
            node("c", &["192.0.2.3"], &["10.40.3.0/24", "10.40.3.0/25"]),
            "peers[c].blocks[1]: it overlaps 10.40.3.0/24 of node c at peers[c] (value: 10.40.3.0/25)",
        ),
    ] {
        let mut nodes = two();
        nodes.push(third);
        assert_eq!(view(settings(), nodes).unwrap_err(), message);
    }
}

/// Two names whose computed addresses are alike were found by trying nineteen million: it is that rare, and would send frames astray.
#[test]
fn two_nodes_with_one_hardware_address_are_refused() {
    let mut nodes = two();
    nodes.push(node("n17600135", &["192.0.2.3"], &["10.40.3.0/24"]));
    nodes.push(node("n18880380", &["192.0.2.4"], &["10.40.4.0/24"]));
    assert_eq!(
        view(settings(), nodes).unwrap_err(),
        "peers[n18880380].node: its tunnel end would have the hardware address 0a:89:55:8c:7f:17, which is that of node n17600135 at peers[n17600135] (value: n18880380)"
    );
}

#[test]
fn an_overlap_is_found_whatever_the_order() {
    let blocks = ["10.40.1.0/24", "10.40.0.0/23", "10.40.2.0/24", "10.40.3.0/24"];
    for rotation in 0..4 {
        let mut nodes = vec![node("a", &["192.0.2.1"], &["10.50.0.0/24"])];
        for offset in 0..4 {
            let index = (rotation + offset) % 4;
            nodes.push(node(&format!("n{index}"), &[&format!("192.0.2.1{index}")], &[blocks[index]]));
        }
        let message = view(settings(), nodes).unwrap_err();
        assert!(message.contains("it overlaps 10.40."), "{message}");
    }
}

#[test]
fn a_machine_made_list_loses_its_bad_records_only() {
    let mut nodes = two();
    let mut later = node("c", &["192.0.2.3"], &["10.40.2.0/24"]);
    later.record.epoch = 7;
    nodes.push(later);
    nodes.push(node("d", &["2001:db8::4"], &["10.40.4.0/24"]));
    let settings = Settings { transport: Some(Family::Ipv4), ..settings() };
    let own = NodeId::new("a").unwrap();
    let (view, refused) = View::screened(settings, underlay(1500), &own, nodes).unwrap();
    let names: Vec<&str> = view.peers().iter().map(|peer| peer.node.as_str()).collect();
    assert_eq!(names, ["c"], "the record with the larger epoch has the block");
    let paths: Vec<&str> = refused.iter().map(|invalid| invalid.path.as_str()).collect();
    assert_eq!(paths, ["peers[b].blocks[0]", "peers[d].underlay"]);
}

#[test]
fn nobody_takes_the_block_of_this_node_from_it() {
    let mut nodes = two();
    let mut thief = node("c", &["192.0.2.3"], &["10.40.1.0/24"]);
    thief.record.epoch = 9;
    nodes.insert(0, thief);
    let own = NodeId::new("a").unwrap();
    let (view, refused) = View::screened(settings(), underlay(1500), &own, nodes).unwrap();
    assert_eq!(view.peers().len(), 1);
    assert_eq!(refused.len(), 1);
}

#[test]
fn tunnels_go_by_ipv4_only_where_every_node_has_it() {
    let mut nodes = vec![node("a", &["192.0.2.1", "2001:db8::1"], &["10.40.1.0/24"])];
    nodes.push(node("b", &["192.0.2.2", "2001:db8::2"], &["10.40.2.0/24"]));
    assert_eq!(View::transport(&settings(), &nodes), Family::Ipv4);
    nodes.push(node("c", &["2001:db8::3"], &["10.40.3.0/24"]));
    assert_eq!(View::transport(&settings(), &nodes), Family::Ipv6);
    nodes.push(node("d", &["192.0.2.4"], &["10.40.4.0/24"]));
    let message = view(settings(), nodes).unwrap_err();
    assert_eq!(
        message,
        "peers[d].underlay: it has no IPv6 address, which carries the tunnels of this network (value: 192.0.2.4)"
    );
}

#[test]
fn an_mtu_that_does_not_fit_is_refused() {
    let own = NodeId::new("a").unwrap();
    let attempt = |mtu, carries, nodes| {
        let settings = Settings { mtu, ..settings() };
        View::new(settings, underlay(carries), &own, nodes).map(|view| view.mtu()).map_err(|e| e.to_string())
    };
    let v6 = || vec![node("a", &["192.0.2.1"], &["fd00:1::/64"])];
    assert_eq!(attempt(None, 9000, two()), Ok(8950));
    assert_eq!(attempt(Some(1400), 1500, two()), Ok(1400));
    assert_eq!(
        attempt(Some(1500), 1500, two()),
        Err("mtu: eth0 carries 1500 bytes, of which 1450 are left for a packet inside the tunnel (value: 1500)".to_owned())
    );
    assert_eq!(
        attempt(None, 1320, v6()),
        Err("mtu: eth0 carries 1320 bytes, of which 1270 are left for a packet inside the tunnel, and IPv6 needs 1280 at least (value: 1270)".to_owned())
    );
    assert_eq!(
        attempt(Some(1279), 1500, v6()),
        Err("mtu: IPv6 needs an MTU of 1280 at least (RFC 8200, section 5) (value: 1279)".to_owned())
    );
    assert_eq!(
        attempt(None, 600, two()),
        Err("mtu: eth0 carries 600 bytes, of which 550 are left for a packet inside the tunnel, and IPv4 needs 576 at least (value: 550)".to_owned())
    );
    assert_eq!(attempt(None, 1320, two()), Ok(1270));
}

#[test]
fn a_bridged_network_has_its_blocks_within_its_subnet() {
    let bridged = |subnets: &[&str]| Settings {
        mode: Mode::Bridged,
        subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(),
        ..settings()
    };
    assert!(view(bridged(&["10.40.0.0/16"]), two()).is_ok());
    assert_eq!(
        view(bridged(&["10.40.1.0/24"]), two()).unwrap_err(),
        "peers[b].blocks[0]: it is not within the subnet of the network, 10.40.1.0/24 (value: 10.40.2.0/24)"
    );
    assert_eq!(
        view(bridged(&[]), two()).unwrap_err(),
        "peers[a].blocks[0]: a bridged network needs a subnet of IPv4, because node a has a block of it (value: 10.40.1.0/24)"
    );
    let wide = vec![node("a", &["192.0.2.1"], &["10.0.0.0/24"]), node("b", &["192.0.2.2"], &["10.4.0.0/14"])];
    let message = view(bridged(&["10.0.0.0/8"]), wide).unwrap_err();
    assert!(message.starts_with("mode: bridged mode would need entries for 262144 addresses"), "{message}");
    // Of an IPv6 block the first 256 addresses are used: as many as fit.
    let nodes = |count: u16| {
        let listed = |number: u16| {
            let underlay = format!("192.0.{}.{}", number / 250, number % 250 + 1);
            node(&format!("n{number}"), &[&underlay], &[&format!("fd00:0:0:{number:x}::/64")])
        };
        std::iter::once(node("a", &["198.51.100.1"], &["fd00:0:0:ffff::/64"]))
            .chain((0..count).map(listed))
            .collect()
    };
    assert!(view(bridged(&["fd00::/48"]), nodes(390)).is_ok());
    let message = view(bridged(&["fd00::/48"]), nodes(391)).unwrap_err();
    assert!(message.contains("entries for 100096 addresses"), "{message}");
}

#[test]
fn networks_that_touch_are_joined() {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
    for (given, joined) in [
        (&["10.40.0.0/24", "10.40.1.0/24", "10.40.2.0/24", "10.40.3.0/24"][..], &["10.40.0.0/22"][..]),
        (&["10.40.1.0/24", "10.40.2.0/24"], &["10.40.1.0/24", "10.40.2.0/24"]),
        (&["10.40.0.0/16", "10.40.3.0/24"], &["10.40.0.0/16"]),
        (&["fd00:1::/64", "fd00:1:0:1::/64", "10.0.0.0/24"], &["10.0.0.0/24", "fd00:1::/63"]),
    ] {
        assert_eq!(aggregate(parse(given)), parse(joined));
    }
}

#[test]
fn a_long_name_still_gives_a_link_a_name() {
    let name = NetworkName::new("a-network-with-a-long-name").unwrap();
    let settings = Settings::new(name, Vni::new(1).unwrap()).unwrap();
    assert_eq!(settings.device.as_str().len(), 15);
    assert!(settings.device.as_str().starts_with("vx-"));
    assert!((0x4000..=0xffff).contains(&settings.mark()));
}
