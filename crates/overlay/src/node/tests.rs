use super::*;

const RECORD: &str = r#"{"v":1,"node":"a","epoch":3,"underlay4":"192.0.2.1","port":4789,"vnis":[100],"blocks":["10.40.1.0/24"]}"#;

fn refusal(text: &str) -> String {
    NodeRecord::from_json(text.as_bytes(), "nodes/a").unwrap_err().to_string()
}

#[test]
fn a_record_has_one_form() {
    let record = NodeRecord::from_json(RECORD.as_bytes(), "x").unwrap();
    assert_eq!(String::from_utf8(record.to_json()).unwrap(), RECORD);
    let shuffled = RECORD.replace("[100]", "[200,100,100]");
    let record = NodeRecord::from_json(shuffled.as_bytes(), "x").unwrap();
    assert_eq!(record.vnis.iter().map(|vni| vni.get()).collect::<Vec<_>>(), [100, 200]);
}

#[test]
fn a_key_of_a_later_release_is_passed_over_but_a_later_format_is_not() {
    let known = NodeRecord::from_json(RECORD.as_bytes(), "x").unwrap();
    let with_more = RECORD.replace("\"epoch\":3", "\"epoch\":3,\"zone\":\"west\"");
    assert_eq!(NodeRecord::from_json(with_more.as_bytes(), "x").unwrap(), known);
    let later = RECORD.replace("\"v\":1", "\"v\":2");
    assert_eq!(refusal(&later), "nodes/a.v: the format is not known here, 1 is (value: 2)");
}

#[test]
fn what_does_not_parse_is_named_with_path_and_value() {
    for (from, to, message) in [
        ("\"a\"", "\"a/b\"", "nodes/a.node: it contains '/' (value: \"a/b\")"),
        ("192.0.2.1", "192.0.2", "nodes/a.underlay4: "),
        ("4789", "0", "nodes/a.port: 0 is not a UDP port; it is 1 to 65535 (value: 0)"),
        (
            "[100]",
            "[16777216]",
            "nodes/a.vnis[0]: 16777216 is not a VXLAN network identifier; it is 1 to 16777215",
        ),
        ("10.40.1.0/24", "10.40.1.0", "nodes/a.blocks[0]: `10.40.1.0` is not in CIDR notation"),
        (
            "10.40.1.0/24",
            "10.40.1.7/24",
            "nodes/a.blocks[0]: it has host bits; the network is 10.40.1.0/24 (value: 10.40.1.7/24)",
        ),
        ("\"underlay4\":\"192.0.2.1\",", "", "nodes/a.underlay4: it is missing (value: null)"),
        ("\"node\":\"a\",", "", "nodes/a.node: it is missing (value: null)"),
    ] {
        let given = refusal(&RECORD.replace(from, to));
        assert!(given.starts_with(message), "{given}\nwas expected to start with\n{message}");
    }
    assert!(refusal("{\"v\":1,").starts_with("nodes/a: not JSON: "));
}

#[test]
fn a_node_is_routed_to_by_the_first_address_of_its_first_block() {
    let blocks = ["10.40.9.0/24", "10.40.1.0/24", "fd00:40:1::/64"].map(|block| block.parse().unwrap());
    let underlay = ["192.0.2.1".parse().unwrap()];
    let record = NodeRecord::new(NodeId::new("a").unwrap(), &underlay, Port::VXLAN, &[], &blocks);
    assert_eq!(record.tunnel_address(Family::Ipv4), Some("10.40.1.0".parse().unwrap()));
    assert_eq!(record.tunnel_address(Family::Ipv6), Some("fd00:40:1::".parse().unwrap()));
}
