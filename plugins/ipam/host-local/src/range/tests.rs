use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn optional(text: &str) -> Option<IpAddr> {
    (!text.is_empty()).then(|| ip(text))
}

fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range, (&'static str, RangeProblem)> {
    Range::new(subnet.parse().unwrap(), optional(start), optional(end), optional(gateway))
}

/// A set whose gateways are reserved, as the configuration makes it.
fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
    let ranges: Vec<Range> =
        ranges.iter().map(|(subnet, start, end)| range(subnet, start, end, "").unwrap()).collect();
    let gateways: Vec<Span> = ranges.iter().filter_map(|range| range.gateway).map(Span::single).collect();
    RangeSet::new(ranges, &gateways).unwrap()
}

/// Every address of a round, one by one.
fn round(set: &RangeSet, last: &str) -> Vec<String> {
    let spans: Vec<Span> = set.round(optional(last)).collect();
    spans.iter().flat_map(|span| span.first..=span.last).map(|n| address(n).to_string()).collect()
}

#[test]
fn defaults_by_prefix_length() {
    let table = [
        ("192.0.2.0/24", "192.0.2.1", "192.0.2.254", "192.0.2.1"),
        ("192.0.2.0/25", "192.0.2.1", "192.0.2.126", "192.0.2.1"),
        ("192.0.2.128/30", "192.0.2.129", "192.0.2.130", "192.0.2.129"),
        ("0.0.0.0/0", "0.0.0.1", "255.255.255.254", "0.0.0.1"),
        ("255.255.255.0/24", "255.255.255.1", "255.255.255.254", "255.255.255.1"),
        ("2001:db8:1::/64", "2001:db8:1::1", "2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
        ("2001:db8::/126", "2001:db8::1", "2001:db8::3", "2001:db8::1"),
        // What the Go plugin refuses: subnets without a network address.
        ("192.0.2.4/31", "192.0.2.4", "192.0.2.5", "192.0.2.5"),
        ("2001:db8::4/127", "2001:db8::4", "2001:db8::5", "2001:db8::5"),
        ("192.0.2.7/32", "192.0.2.7", "192.0.2.7", ""),
        ("2001:db8::7/128", "2001:db8::7", "2001:db8::7", ""),
    ];
    for (subnet, start, end, gateway) in table {
        let range = range(subnet, "", "", "").unwrap();
        let found = (range.start, range.end, range.gateway);
        assert_eq!(found, (ip(start), ip(end), optional(gateway)), "{subnet}");
    }
}

#[test]
fn given_values_are_kept() {
    let range = range("192.0.2.0/24", "192.0.2.40", "192.0.2.50", "192.0.2.254").unwrap();
    assert_eq!((range.start, range.end), (ip("192.0.2.40"), ip("192.0.2.50")));
    assert_eq!(range.gateway, Some(ip("192.0.2.254")));
    assert_eq!(range.to_string(), "192.0.2.40-192.0.2.50");
}

#[test]
fn network_and_broadcast_address_may_be_asked_for() {
    let range = range("192.0.2.0/24", "192.0.2.0", "192.0.2.255", "").unwrap();
    assert_eq!((range.start, range.end), (ip("192.0.2.0"), ip("192.0.2.255")));
}

#[test]
fn refusals_name_the_key_and_say_what_the_go_plugin_says() {
    let table = [
        (
            ("192.0.2.12/24", "", "", ""),
            "subnet",
            "Network has host bits set. For a subnet mask of length 24 the network address is 192.0.2.0",
        ),
        (
            ("192.168.127.0/23", "", "", ""),
            "subnet",
            "Network has host bits set. For a subnet mask of length 23 the network address is 192.168.126.0",
        ),
        (
            ("2001:db8:1::24:19ff:fee1:c44a/64", "", "", ""),
            "subnet",
            "Network has host bits set. For a subnet mask of length 64 the network address is 2001:db8:1::",
        ),
        (
            ("2001:db8:0:1::/63", "", "", ""),
            "subnet",
            "Network has host bits set. For a subnet mask of length 63 the network address is 2001:db8::",
        ),
        (
            ("192.0.2.0/24", "192.0.3.0", "", ""),
            "rangeStart",
            "RangeStart 192.0.3.0 not in network 192.0.2.0/24",
        ),
        (("192.0.2.0/24", "", "192.0.4.0", ""), "rangeEnd", "RangeEnd 192.0.4.0 not in network 192.0.2.0/24"),
        (("192.0.2.0/24", "", "192.0.2.0", ""), "rangeEnd", "RangeEnd 192.0.2.0 not in network 192.0.2.0/24"),
        (
            ("192.0.2.0/24", "192.0.2.50", "192.0.2.40", ""),
            "rangeStart",
            "RangeStart 192.0.2.50 not in network 192.0.2.0/24",
        ),
        (
            ("192.0.2.0/24", "192.0.2.255", "", ""),
            "rangeStart",
            "RangeStart 192.0.2.255 not in network 192.0.2.0/24",
        ),
        (("192.0.2.0/24", "fd00::1", "", ""), "rangeStart", "RangeStart fd00::1 not in network 192.0.2.0/24"),
        (
            ("192.0.2.0/24", "", "", "192.0.3.1"),
            "gateway",
            "gateway 192.0.3.1 is outside its subnet 192.0.2.0/24",
        ),
        (
            ("192.0.2.0/24", "", "", "fe80::1"),
            "gateway",
            "gateway fe80::1 is outside its subnet 192.0.2.0/24",
        ),
    ];
    for ((subnet, start, end, gateway), key, text) in table {
        let (found, problem) = range(subnet, start, end, gateway).unwrap_err();
        assert_eq!((found, problem.to_string().as_str()), (key, text));
        assert!(problem.hint().is_some(), "{text}");
    }
}

#[test]
fn gateways_outside_that_are_meant() {
    for (subnet, gateway) in [
        ("192.0.2.7/32", "10.0.0.1"),
        ("2001:db8::7/128", "2001:db8::1"),
        ("2001:db8::/64", "fe80::1"),
        ("10.0.0.0/24", "169.254.1.1"),
    ] {
        assert_eq!(range(subnet, "", "", gateway).unwrap().gateway, Some(ip(gateway)));
    }
}

#[test]
fn membership_has_both_bounds() {
    let v4 = range("192.0.2.0/24", "192.0.2.40", "192.0.2.50", "").unwrap();
    let inside = |range: &Range, address: &str| range.contains(ip(address));
    for (address, expected) in [
        ("192.0.3.0", false),
        ("192.0.2.39", false),
        ("192.0.2.40", true),
        ("192.0.2.50", true),
        ("192.0.2.51", false),
        ("::ffff:c000:0228", false),
    ] {
        assert_eq!(inside(&v4, address), expected, "{address}");
    }
    let v6 = range("2001:db8:1::/64", "2001:db8:1::40", "2001:db8:1::50", "").unwrap();
    for (address, expected) in [
        ("2001:db8:2::", false),
        ("2001:db8:1::39", false),
        ("2001:db8:1::40", true),
        ("2001:db8:1::50", true),
        ("2001:db8:1::51", false),
        ("192.0.2.40", false),
    ] {
        assert_eq!(inside(&v6, address), expected, "{address}");
    }
}

#[test]
fn overlap_of_ranges() {
    let table = [
        (("10.0.0.0/20", "", ""), ("10.0.0.0/20", "", ""), true),
        (("10.0.0.0/20", "", ""), ("192.0.2.0/24", "", ""), false),
        (("10.0.0.0/20", "", ""), ("2001:db8::/64", "", ""), false),
        (("10.0.0.0/20", "", ""), ("10.0.4.0/24", "", ""), true),
        (("10.0.0.0/20", "", "10.0.3.255"), ("10.0.0.0/20", "10.0.4.0", ""), false),
        (("10.0.0.0/20", "", "10.0.5.0"), ("10.0.0.0/20", "10.0.4.0", ""), true),
        (("10.0.0.0/20", "", "10.0.4.0"), ("10.0.0.0/20", "10.0.4.0", ""), true),
    ];
    for ((net_a, start_a, end_a), (net_b, start_b, end_b), expected) in table {
        let a = range(net_a, start_a, end_a, "").unwrap();
        let b = range(net_b, start_b, end_b, "").unwrap();
        assert_eq!((a.overlaps(&b), b.overlaps(&a)), (expected, expected), "{a} and {b}");
    }
}

#[test]
fn sets_refuse_what_can_be_no_pool() {
    let ranges = |list: &[(&str, &str, &str)]| -> Vec<Range> {
        list.iter().map(|(subnet, start, end)| range(subnet, start, end, "").unwrap()).collect()
    };
    let refusal = |list: &[(&str, &str, &str)]| RangeSet::new(ranges(list), &[]).unwrap_err().to_string();
    assert_eq!(refusal(&[]), "empty range set");
    assert_eq!(refusal(&[("10.0.0.0/20", "", ""), ("2001:db8::/64", "", "")]), "mixed address families");
    assert_eq!(
        refusal(&[("10.0.0.0/20", "", ""), ("10.0.2.0/24", "", "")]),
        "subnets 10.0.0.1-10.0.15.254 and 10.0.2.1-10.0.2.254 overlap"
    );
    let nothing =
        RangeSet::new(ranges(&[("10.0.0.0/31", "", "")]), &[Span::of("10.0.0.0/31".parse().unwrap())]);
    assert_eq!(nothing.unwrap_err().to_string(), "no address of 10.0.0.0-10.0.0.1 is left to allocate");
}

#[test]
fn a_round_starts_at_the_beginning_and_leaves_the_gateway_out() {
    let set = set(&[("192.0.2.0/29", "", "")]);
    let expected = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"];
    assert_eq!(round(&set, ""), expected);
    assert_eq!(round(&set, "10.9.9.9"), expected, "a cursor of another subnet");
    assert_eq!(round(&set, "192.0.2.7"), expected, "a cursor outside the range");
}

#[test]
fn a_round_from_the_end_or_the_middle_wraps_and_ends_with_the_last() {
    let set = set(&[("192.0.2.0/29", "", "")]);
    assert_eq!(round(&set, "192.0.2.6"), ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"]);
    assert_eq!(round(&set, "192.0.2.3"), ["192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_round_goes_through_the_ranges_in_their_order() {
    let set = set(&[
        ("192.0.3.0/24", "192.0.3.10", "192.0.3.11"),
        ("192.0.2.0/24", "192.0.2.4", "192.0.2.5"),
        ("192.0.3.0/24", "192.0.3.20", "192.0.3.21"),
    ]);
    let all = ["192.0.3.10", "192.0.3.11", "192.0.2.4", "192.0.2.5", "192.0.3.20", "192.0.3.21"];
    assert_eq!(round(&set, ""), all);
    for (index, last) in all.iter().enumerate() {
        let mut rotated = all.to_vec();
        rotated.rotate_left((index + 1) % all.len());
        assert_eq!(round(&set, last), rotated, "after {last}");
    }
}

#[test]
fn the_last_addresses_of_a_family_do_not_overflow() {
    let v4 = set(&[("255.255.255.0/24", "255.255.255.254", "255.255.255.255")]);
    assert_eq!(round(&v4, "255.255.255.255"), ["255.255.255.254", "255.255.255.255"]);
    let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let v6 = set(&[(
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
        "",
    )]);
    assert_eq!(round(&v6, top), ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", top]);
    assert_eq!(
        round(&v6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
        [top, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"]
    );
}

#[test]
fn exclusions_and_foreign_gateways_are_never_handed_out() {
    let mut a = range("10.0.0.0/24", "10.0.0.1", "10.0.0.9", "").unwrap();
    a.exclude = vec![Span::of("10.0.0.4/31".parse().unwrap()), Span::single(ip("10.0.0.9"))];
    let b = range("10.0.0.0/24", "10.0.0.20", "10.0.0.23", "10.0.0.21").unwrap();
    // Out of order, overlapping, and reaching over an end.
    let reserved = [
        Span::single(ip("10.0.0.21")),
        Span::of("10.0.0.5/32".parse().unwrap()),
        Span::single(ip("10.0.0.1")),
        Span::of("10.0.0.22/31".parse().unwrap()),
    ];
    let set = RangeSet::new(vec![a, b], &reserved).unwrap();
    assert_eq!(round(&set, ""), ["10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.20"]);
    assert_eq!(
        round(&set, "10.0.0.4"),
        ["10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.20", "10.0.0.2", "10.0.0.3"]
    );
    assert!(set.allows(ip("10.0.0.8")) && !set.allows(ip("10.0.0.9")) && !set.allows(ip("10.0.0.21")));
    assert!(set.range_of(ip("10.0.0.9")).is_some(), "excluded addresses are still of the range");
}

#[test]
fn numbers_keep_the_families_apart() {
    for text in ["0.0.0.0", "255.255.255.255", "::", "::1", "ffff::", "::10.0.0.1", "fe80::1"] {
        assert_eq!(address(number(ip(text))), ip(text));
    }
    assert_ne!(number(ip("0.0.0.1")), number(ip("::1")));
}
