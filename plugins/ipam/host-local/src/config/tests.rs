use cni::{AddResult, Environment};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn request_with(config: &Value, args: &str) -> Request {
    let bytes = serde_json::to_vec(config).unwrap();
    let config = cni::Config::read(bytes, SpecVersion::ALL).unwrap();
    Request::new(config, Environment::from_pairs([("CNI_ARGS", args)]))
}

fn read(config: &Value) -> std::result::Result<Config, Failure> {
    Config::read(&request_with(config, ""))
}

fn net(ipam: &Value) -> Value {
    json!({ "cniVersion": "1.1.0", "name": "mynet", "type": "ipvlan", "ipam": ipam })
}

fn sets(config: &Config) -> Vec<String> {
    config.sets.iter().map(ToString::to_string).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn one_range_beside_the_type() {
    let config = read(&net(&json!({
        "type": "host-local", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20", "gateway": "10.1.2.30"
    })))
    .unwrap();
    assert_eq!(sets(&config), ["10.1.2.9-10.1.2.20"]);
    let range = config.sets[0].range_of("10.1.2.9".parse().unwrap()).unwrap();
    assert_eq!(range.gateway, Some("10.1.2.30".parse().unwrap()));
}

#[test]
fn sets_of_ranges_in_their_order() {
    let config = read(&net(&json!({ "ranges": [
        [{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20" }, { "subnet": "10.1.4.0/24" }],
        [{ "subnet": "11.1.2.0/24" }]
    ] })))
    .unwrap();
    assert_eq!(sets(&config), ["10.1.2.9-10.1.2.20,10.1.4.1-10.1.4.254", "11.1.2.1-11.1.2.254"]);
}

#[test]
fn the_capability_comes_first_then_the_single_range_then_the_sets() {
    let mut config = net(&json!({ "subnet": "10.1.2.0/24", "ranges": [[{ "subnet": "11.1.2.0/24" }]] }));
    config["runtimeConfig"] =
        json!({ "ipRanges": [[{ "subnet": "12.1.3.0/24" }], [{ "subnet": "fd00::/120" }]] });
    let expected = ["12.1.3.1-12.1.3.254", "fd00::1-fd00::ff", "10.1.2.1-10.1.2.254", "11.1.2.1-11.1.2.254"];
    assert_eq!(sets(&read(&config).unwrap()), expected);
}

#[test]
fn the_flat_list_of_go_cni_is_one_pool_a_family() {
    let mut config = net(&json!({}));
    config["runtimeConfig"] = json!({ "ipRanges": [
        { "Subnet": "10.1.0.0/24", "RangeStart": "10.1.0.10", "RangeEnd": "10.1.0.20", "Gateway": "" },
        { "Subnet": "fd00::/120", "RangeStart": "", "RangeEnd": "", "Gateway": "fd00::5" },
        { "Subnet": "10.2.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": "" }
    ] });
    assert_eq!(
        sets(&read(&config).unwrap()),
        ["10.1.0.10-10.1.0.20,10.2.0.1-10.2.0.254", "fd00::1-fd00::ff"]
    );
}

#[test]
fn keys_match_as_in_go() {
    let config = read(&net(
        &json!({ "Ranges": [[{ "SUBNET": "10.1.2.0/24", "RangeSTART": "10.1.2.7" }]], "gateway": null }),
    ));
    assert_eq!(sets(&config.unwrap()), ["10.1.2.7-10.1.2.254"]);
}

#[test]
fn requested_addresses_accumulate_each_once() {
    let mut config = net(&json!({ "subnet": "10.1.2.0/24" }));
    config["runtimeConfig"] = json!({ "ips": ["10.1.2.13/24", "10.1.2.10", "2001:db8:1::11"] });
    for arg in ["IP=10.1.2.10", "IP=10.1.2.10/24", "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.2.10"] {
        let requested = Config::read(&request_with(&config, arg)).unwrap().requested;
        assert_eq!(requested, addresses(&["10.1.2.10", "10.1.2.13", "2001:db8:1::11"]), "{arg}");
    }
    config["args"] = json!({ "cni": { "ips": ["10.1.2.11", "10.1.2.12/24", "10.1.2.13"] } });
    let expected = ["10.1.2.11", "10.1.2.12", "10.1.2.13", "10.1.2.10", "2001:db8:1::11"];
    assert_eq!(read(&config).unwrap().requested, addresses(&expected));
}

#[test]
fn cni_args_do_not_count_where_args_ask_for_the_same() {
    let mut config = net(&json!({ "subnet": "10.1.2.0/24" }));
    for (ips, expected) in
        [(json!(["10.1.2.11"]), "10.1.2.11"), (json!([]), "10.1.2.10"), (json!(null), "10.1.2.10")]
    {
        config["args"] = json!({ "cni": { "ips": ips } });
        let requested = Config::read(&request_with(&config, "IP=10.1.2.10")).unwrap().requested;
        assert_eq!(requested, addresses(&[expected]), "{ips}");
    }
}

#[test]
fn other_arguments_need_ignore_unknown() {
    let config = net(&json!({ "subnet": "10.1.2.0/24" }));
    let failure = Config::read(&request_with(&config, "IP=10.1.2.10;FOO=bar")).unwrap_err();
    assert_eq!(failure.code().number(), 4);
    assert!(failure.message().contains("FOO"), "{failure}");
    assert!(Config::read(&request_with(&config, "FOO=bar;IgnoreUnknown=true")).is_ok());
}

#[test]
fn requests_of_other_shapes_are_no_requests() {
    let mut config = net(&json!({ "subnet": "10.1.2.0/24" }));
    for args in [
        json!(null),
        json!([1]),
        json!({ "cni": 7 }),
        json!({ "cni": { "ips": "x" } }),
        json!({ "cni": { "ips": null } }),
    ] {
        config["args"] = args;
        config["runtimeConfig"] = json!({ "ips": null, "ipRanges": null });
        assert_eq!(read(&config).unwrap().requested, [] as [IpAddr; 0]);
    }
}

#[test]
fn routes_keep_every_attribute() {
    let config = read(&net(&json!({ "subnet": "10.1.2.0/24", "routes": [
        { "dst": "0.0.0.0/0" },
        { "dst": "192.168.0.0/16", "gw": "10.1.2.7", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 0, "scope": 253, "x": "y" }
    ] })))
    .unwrap();
    let written =
        AddResult { routes: config.routes, ..AddResult::default() }.write(SpecVersion::V1_1_0).unwrap();
    assert_eq!(
        written["routes"],
        json!([
            { "dst": "0.0.0.0/0" },
            { "dst": "192.168.0.0/16", "gw": "10.1.2.7", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 0, "scope": 253, "x": "y" }
        ])
    );
}

#[test]
fn exclusions_of_the_plugin_and_of_a_range() {
    let config = read(&net(&json!({
        "exclude": ["10.1.2.0/28", "10.1.2.30"],
        "ranges": [[{ "subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.33", "exclude": ["10.1.2.16/29"] }]]
    })))
    .unwrap();
    let allowed: Vec<u8> =
        (0..=255).filter(|last| config.sets[0].allows(IpAddr::from([10, 1, 2, *last]))).collect();
    assert_eq!(allowed, [24, 25, 26, 27, 28, 29, 31, 32, 33]);
}

#[test]
fn one_address_a_family_before_0_3_0() {
    let mut config =
        net(&json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "11.1.2.0/24" }]] }));
    for version in ["0.1.0", "0.2.0"] {
        config["cniVersion"] = json!(version);
        let failure = read(&config).unwrap_err();
        assert_eq!(
            failure.message(),
            format!("CNI version {version} does not support more than 1 address per family")
        );
        assert_eq!(failure.code().number(), 7);
    }
    config["ipam"]["ranges"][1][0]["subnet"] = json!("2001:db8:1::/24");
    assert_eq!(read(&config).unwrap_err().code().number(), 7, "host bits");
    config["ipam"]["ranges"][1][0]["subnet"] = json!("2001:db8:1::/48");
    assert_eq!(read(&config).unwrap().sets.len(), 2);
}

#[test]
fn what_is_wrong_is_named_with_path_and_value() {
    let table = [
        (json!(null), "IPAM config missing 'ipam' key"),
        (json!({}), "no IP ranges specified"),
        (json!({ "ranges": [] }), "no IP ranges specified"),
        (json!({ "ranges": [[]] }), "invalid range set 0: empty range set (ipam.ranges[0] = [])"),
        (json!({ "ranges": [null] }), "invalid range set 0: empty range set (ipam.ranges[0] = [])"),
        (
            json!({ "ranges": [[{}]] }),
            "invalid range set 0: subnet is required (ipam.ranges[0][0].subnet = \"\")",
        ),
        (
            json!({ "subnet": "10.1.2.0" }),
            "invalid range set 0: `10.1.2.0` is not in CIDR notation, such as 10.1.0.0/16 or fd00::/64 (ipam.subnet = \"10.1.2.0\")",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "gateway": "10.1.2" }),
            "invalid range set 0: `10.1.2` is not an IP address (ipam.gateway = \"10.1.2\")",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "gateway": "10.1.3.1" }),
            "invalid range set 0: gateway 10.1.3.1 is outside its subnet 10.1.2.0/24 (ipam.gateway = \"10.1.3.1\")",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "exclude": ["10.1.2.1-5"] }),
            "ipam.exclude[0]: `10.1.2.1-5` is not an IP address",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24", "exclude": ["10.1.2.0/33"] }]] }),
            "ipam.ranges[0][0].exclude[0]: `10.1.2.0/33` is not in CIDR notation, such as 10.1.0.0/16 or fd00::/64",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }, { "subnet": "10.1.2.0/25" }]] }),
            "invalid range set 0: subnets 10.1.2.1-10.1.2.254 and 10.1.2.1-10.1.2.126 overlap (ipam.ranges[0] = [10.1.2.1-10.1.2.254,10.1.2.1-10.1.2.126])",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.0.0/16" }]] }),
            "range set 0 overlaps with 1 (ipam.ranges[0] = 10.1.2.1-10.1.2.254, ipam.ranges[1] = 10.1.0.1-10.1.255.254)",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "11.1.2.0/24" }, { "subnet": "fd00::/64" }]] }),
            "invalid range set 1: mixed address families (ipam.ranges[1] = [11.1.2.1-11.1.2.254,fd00::1-fd00::ffff:ffff:ffff:ffff])",
        ),
        (
            json!({ "subnet": true }),
            "invalid configuration: ipam.subnet: expected a string, found a boolean (value: true)",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "routes": [{ "gw": "10.1.2.1" }] }),
            "invalid configuration: ipam.routes[0].dst: is required",
        ),
    ];
    for (ipam, text) in table {
        let failure = read(&net(&ipam)).unwrap_err();
        assert_eq!((failure.message(), failure.code().number()), (text, 7));
    }
}

#[test]
fn a_flat_list_of_ranges_is_told_what_is_missing() {
    let failure = read(&net(&json!({ "ranges": [{ "subnet": "10.1.2.0/24" }] }))).unwrap_err();
    assert!(failure.message().contains("ipam.ranges[0]: expected a list, found an object"), "{failure}");
    assert!(failure.details().contains("[[{\"subnet\""), "{}", failure.details());
}

#[test]
fn what_is_wrong_in_the_runtimes_part() {
    let mut config = net(&json!({ "subnet": "10.1.2.0/24" }));
    let table = [
        (
            json!({ "ipRanges": [true] }),
            "invalid configuration: runtimeConfig.ipRanges[0]: expected a list, found a boolean (value: true)",
        ),
        (
            json!({ "ipRanges": [[{ "subnet": "12.1.2.1/24" }]] }),
            "invalid range set 0: Network has host bits set. For a subnet mask of length 24 the network address is 12.1.2.0 (runtimeConfig.ipRanges[0][0].subnet = \"12.1.2.1/24\")",
        ),
        (
            json!({ "ipRanges": [{ "Subnet": "" }] }),
            "invalid range set 0: subnet is required (runtimeConfig.ipRanges[0].subnet = \"\")",
        ),
        (json!({ "ips": ["10.1.2.300"] }), "runtimeConfig.ips[0]: `10.1.2.300` is not an IP address"),
    ];
    for (runtime, text) in table {
        config["runtimeConfig"] = runtime;
        let failure = read(&config).unwrap_err();
        assert_eq!((failure.message(), failure.code().number()), (text, 7));
    }
}

#[test]
fn the_directory_is_found_in_a_configuration_that_is_otherwise_broken() {
    let directory = |ipam: &Value| data_dir(&request_with(&net(ipam), "no pairs at all"));
    assert_eq!(
        directory(&json!({ "DataDir": "/x", "ranges": 7, "subnet": "?" })).unwrap(),
        PathBuf::from("/x")
    );
    for ipam in [json!(null), json!({}), json!({ "dataDir": "" })] {
        assert_eq!(directory(&ipam).unwrap(), PathBuf::from("/var/lib/cni/networks"));
    }
    let error = directory(&json!({ "dataDir": ["/x"] })).unwrap_err();
    assert!(error.to_string().contains("ipam.dataDir: expected a string"), "{error}");
}

/// Any JSON whose keys and texts are often, but not always, those the plugin knows.
fn any_json() -> impl Strategy<Value = Value> {
    let text = proptest::sample::select(vec![
        "",
        "10.1.0.0/16",
        "10.1.0.0/31",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "fd00::/64",
        "::/0",
        "10.1.0.9",
        "10.1.255.255",
        "fd00::9",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "::ffff:10.1.0.3",
        "10.1.0.0/99",
        "x",
        "/etc/resolv.conf",
    ]);
    let leaf = prop_oneof![
        6 => text.prop_map(Value::from), 1 => Just(Value::Null), 1 => any::<i64>().prop_map(Value::from), 1 => any::<bool>().prop_map(Value::from)
    ];
    let key = proptest::sample::select(vec![
        "ranges",
        "subnet",
        "rangeStart",
        "RANGEEND",
        "gateway",
        "exclude",
        "routes",
        "dst",
        "gw",
        "mtu",
        "resolvConf",
        "dataDir",
        "cni",
        "ips",
        "ipRanges",
        "unknown",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_comes_is_understood_or_refused_with_a_reason(ipam in any_json(), runtime in any_json(), args in any_json()) {
        let config = json!({
            "cniVersion": "1.1.0", "name": "mynet", "type": "ipvlan", "ipam": ipam, "runtimeConfig": runtime, "args": args
        });
        match read(&config) {
            Ok(config) => {
                for set in &config.sets {
                    let first = set.round(None).next().unwrap();
                    prop_assert!(first.first <= first.last, "{}", set);
                    let last = crate::range::address(first.last);
                    prop_assert!(set.allows(last) && set.round(Some(last)).last().is_some(), "{}", set);
                }
            }
            Err(failure) => {
                prop_assert_eq!(failure.code().number(), 7);
                prop_assert!(!failure.message().is_empty());
            }
        }
    }
}
