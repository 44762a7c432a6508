use super::{ContainerId, LinkName, NameError, NetworkName};

#[test]
fn identifiers_follow_the_specification() {
    let long = "a".repeat(253);
    for good in ["a", "0", "A.b_c-d", "cnitool-0123456789abcdef0123", "a..b", long.as_str()] {
        assert!(ContainerId::new(good).is_ok(), "{good}");
        assert!(NetworkName::new(good).is_ok(), "{good}");
    }
    for bad in
        ["", "-a", ".a", "_a", "..", "../x", "a b", "a/b", "a\\b", "a\n", "a\0", "é", "aé", "a:b", " a", "a%"]
    {
        assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        assert!(NetworkName::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(ContainerId::new("a/b"), Err(NameError::Character { character: '/' }));
    assert_eq!(ContainerId::new("-a"), Err(NameError::Start { character: '-' }));
}

#[test]
fn link_names_follow_the_kernel() {
    for good in
        ["e", "eth0", "lo", "eth0.100", "-x", "veth_12345-6789", "fifteen_bytes_x", "é", "ALL", "default0"]
    {
        assert!(LinkName::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "a\t",
        "a\n",
        "a\u{a0}b",
        "a\u{2003}",
        "a\0b",
        "eth%d",
        "all",
        "default",
        "sixteen_bytes_xx",
        "ééééééééé",
    ] {
        assert!(LinkName::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(LinkName::new("sixteen_bytes_xx"), Err(NameError::TooLong { length: 16 }));
}

#[test]
fn a_name_in_a_configuration_is_checked_where_it_is_read() {
    #[derive(serde::Deserialize, Debug)]
    struct Config {
        bridge: LinkName,
    }
    let read = |value| crate::json::decode::<Config>(&serde_json::json!({ "bridge": value }));
    assert_eq!(read("cni0").unwrap().bridge.as_str(), "cni0");
    let error = read("a:b").unwrap_err();
    assert_eq!(error.to_string(), "bridge: it contains ':' (value: \"a:b\")");
}
