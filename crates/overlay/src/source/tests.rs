use serde_json::json;

use super::*;

fn read(value: &Value) -> Result<Vec<Listed>, String> {
    peers(value, "peers", Vni::new(100).unwrap(), Port::VXLAN).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_peer_is_written_in_a_line() {
    let listed = read(&json!([
        { "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24"] },
        { "node": "b", "underlay": ["192.0.2.2", "2001:db8::2"], "blocks": ["10.40.2.0/24", "fd00:40:2::/64"] },
        { "v": 1, "node": "c", "epoch": 4, "underlay4": "192.0.2.3", "port": 4789, "vnis": [100], "blocks": [] }
    ]))
    .unwrap();
    assert_eq!(listed[0].path, "peers[0]");
    assert_eq!(listed[0].record.underlay4, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(listed[1].record.underlay6, Some("2001:db8::2".parse().unwrap()));
    assert_eq!(listed[2].record.epoch, 4);
}

#[test]
fn a_mistake_is_named_with_path_and_value() {
    let peer = |keys: Value| {
        let mut peer = json!({ "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/24"] });
        peer.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        json!([peer])
    };
    for (value, message) in [
        (json!({}), "peers: expected a list of peers (value: {})"),
        (peer(json!({ "node": null })), "peers[0].node: it is missing (value: null)"),
        (peer(json!({ "node": "" })), "peers[0].node: it is empty"),
        (peer(json!({ "underlay": null })), "peers[0].underlay: it is missing (value: null)"),
        (
            peer(json!({ "underlay": "host" })),
            "peers[0].underlay: expected an IP address, or a list of two (value: \"host\")",
        ),
        (
            peer(json!({ "underlay": ["192.0.2.1", "192.0.2.9"] })),
            "peers[0].underlay: expected one address a family (value: [\"192.0.2.1\",\"192.0.2.9\"])",
        ),
        (
            peer(json!({ "blocks": ["10.40.1.1/24"] })),
            "peers[0].blocks[0]: it has host bits; the network is 10.40.1.0/24",
        ),
        (peer(json!({ "blocks": "10.40.1.0/24" })), "peers[0].blocks: "),
    ] {
        let given = read(&value).unwrap_err();
        assert!(given.starts_with(message), "{given}\nwas expected to start with\n{message}");
    }
}

#[test]
fn flannels_file_is_understood() {
    let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
                FLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    let flannel = Flannel::parse(text, "subnet.env").unwrap();
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
    assert_eq!(flannel.blocks, parse(&["10.244.3.0/24", "fd00:10:244:3::/64"]));
    assert_eq!(flannel.cluster, parse(&["10.244.0.0/16", "fd00:10:244::/48"]));
    assert_eq!((flannel.mtu, flannel.masquerades), (1450, true));
    let none = Flannel::parse("FLANNEL_MTU=1450\n", "subnet.env").unwrap_err();
    assert_eq!(none.to_string(), "subnet.env: FLANNEL_SUBNET: it is missing (value: null)");
    let wrong = Flannel::parse("FLANNEL_SUBNET=10.244.3.1\n", "subnet.env").unwrap_err();
    assert!(
        wrong.to_string().starts_with("subnet.env: FLANNEL_SUBNET: `10.244.3.1` is not in CIDR notation")
    );
}
