use std::net::IpAddr;

use proptest::prelude::*;

use super::{AddressError, Cidr, canonical, next, parse_ip, parse_ip_maybe_prefix, previous};

/// What Go 1.26's `net.ParseCIDR` makes of a text, printed with the address in place of the network.
const GO: &[(&str, Option<&str>)] = &[
    ("10.0.0.1/24", Some("10.0.0.1/24")),
    ("10.0.0.5/0", Some("10.0.0.5/0")),
    ("0.0.0.0/0", Some("0.0.0.0/0")),
    ("::/0", Some("::/0")),
    ("::/128", Some("::/128")),
    ("255.255.255.255/32", Some("255.255.255.255/32")),
    ("10.0.0.0/024", Some("10.0.0.0/24")),
    ("10.0.0.0/0024", Some("10.0.0.0/24")),
    ("10.0.0.0/000000000000024", Some("10.0.0.0/24")),
    ("fd00::1/64", Some("fd00::1/64")),
    ("FD00::1/64", Some("fd00::1/64")),
    ("1:2:3:4:5:6:7::/64", Some("1:2:3:4:5:6:7:0/64")),
    ("1:2:3:4:5:6:7:8/64", Some("1:2:3:4:5:6:7:8/64")),
    ("::10.1.2.3/120", Some("::a01:203/120")),
    ("::ffff:10.1.2.3/120", Some("10.1.2.3/24")),
    ("::ffff:10.1.2.3/96", Some("10.1.2.3/0")),
    ("::ffff:a01:203/128", Some("10.1.2.3/32")),
    ("", None),
    ("/24", None),
    ("10.0.0.1", None),
    ("10.0.0.0/", None),
    ("10.0.0.0/33", None),
    ("10.0.0.0/-1", None),
    ("10.0.0.0/+24", None),
    ("10.0.0.0/1e1", None),
    ("10.0.0.0/255.255.255.0", None),
    ("10.0.0.0/99999999999999999999", None),
    ("10.0.0.0/٣", None),
    ("10.0.0.0/ 8", None),
    ("10.0.0.0/8 ", None),
    (" 10.0.0.0/8", None),
    ("10.0.0.0/8/8", None),
    ("10.0.0/24", None),
    ("10.1/16", None),
    ("10.0.0.256/8", None),
    ("010.0.0.1/8", None),
    ("10.0.0.01/8", None),
    ("0x0a.0.0.1/8", None),
    ("167772161/8", None),
    ("fd00::1/129", None),
    ("fd00::1%eth0/64", None),
    ("[fd00::1]/64", None),
    ("fd00:0db8:00000::1/64", None),
    ("fd00::10.1.2.300/64", None),
    ("::1:2:3:4:5:6:7:8/64", None),
    ("1:2:3:4:5:6:7:8:9/64", None),
];

#[test]
fn a_cidr_is_read_as_go_reads_it() {
    for (text, expected) in GO {
        let read = text.parse::<Cidr>().ok().map(|cidr| cidr.to_string());
        assert_eq!(read.as_deref(), *expected, "{text:?}");
    }
}

#[test]
fn a_prefix_outside_the_mapped_part_is_refused() {
    // Go reads these as 10.1.2.3/0: a default route out of a typing error.
    for text in ["::ffff:10.1.2.3/24", "::ffff:10.1.2.3/64", "::ffff:10.1.2.3/95"] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
}

#[test]
fn an_address_is_read_as_go_reads_it() {
    let go = [
        ("10.0.0.1", Some("10.0.0.1")),
        ("0.0.0.0", Some("0.0.0.0")),
        ("::", Some("::")),
        ("0::0", Some("::")),
        ("FD00::A", Some("fd00::a")),
        ("64:ff9b::1.2.3.4", Some("64:ff9b::102:304")),
        ("::1.2.3.4", Some("::102:304")),
        ("::ffff:1.2.3.4", Some("1.2.3.4")),
        ("::ffff:0:0", Some("0.0.0.0")),
        ("", None),
        ("010.0.0.1", None),
        ("1.2.3", None),
        ("1.2.3.4.5", None),
        ("1.2.3.4 ", None),
        ("fe80::1%eth0", None),
        ("1::2::3", None),
    ];
    for (text, expected) in go {
        assert_eq!(parse_ip(text).ok().map(|ip| ip.to_string()).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn a_refused_text_is_repeated_but_not_at_any_length() {
    let error = "10.1.0.0".parse::<Cidr>().unwrap_err();
    assert_eq!(error, AddressError::Cidr { text: "10.1.0.0".to_owned() });
    assert!(error.to_string().contains("`10.1.0.0` is not in CIDR notation"));
    assert!("9".repeat(1 << 20).parse::<Cidr>().unwrap_err().to_string().len() < 300);
}

#[test]
fn a_requested_address_may_have_a_prefix() {
    assert_eq!(parse_ip_maybe_prefix("10.1.2.3").unwrap(), ([10, 1, 2, 3].into(), None));
    assert_eq!(parse_ip_maybe_prefix("10.1.2.3/24").unwrap(), ([10, 1, 2, 3].into(), Some(24)));
    assert!(parse_ip_maybe_prefix("10.1.2.3/").is_err());
    assert!(parse_ip_maybe_prefix("").is_err());
}

#[test]
fn the_ends_of_a_family_have_no_neighbour() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(next(ip("10.0.0.255")), Some(ip("10.0.1.0")));
    assert_eq!(previous(ip("fd00::1:0")), Some(ip("fd00::ffff")));
    assert_eq!(next(ip("255.255.255.255")), None);
    assert_eq!(previous(ip("0.0.0.0")), None);
    assert_eq!(next(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), None);
    assert_eq!(previous(ip("::")), None);
}

#[test]
fn a_network_and_its_bounds() {
    let cidr: Cidr = "10.1.2.3/23".parse().unwrap();
    assert_eq!(cidr.network().to_string(), "10.1.2.0/23");
    assert_eq!(cidr.last().to_string(), "10.1.3.255");
    assert_eq!(cidr.bits(), 32);
    assert!(cidr.contains([10, 1, 3, 9].into()) && !cidr.contains([10, 1, 4, 0].into()));
    assert!(!cidr.contains("::ffff:10.1.2.3".parse().unwrap()), "families are not mixed");
    let v6: Cidr = "fd00::5/0".parse().unwrap();
    assert!(v6.is_default() && v6.network().to_string() == "::/0");
    assert_eq!(v6.last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(Cidr::new([10, 0, 0, 1].into(), 33), None);
}

#[test]
fn overlap_works_both_ways() {
    let overlap = |a: &str, b: &str| {
        let (a, b): (Cidr, Cidr) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(a.overlaps(&b), b.overlaps(&a));
        a.overlaps(&b)
    };
    assert!(overlap("10.1.0.0/16", "10.1.200.9/24"));
    assert!(overlap("10.1.1.1/32", "10.1.1.1/32"));
    assert!(overlap("0.0.0.0/0", "203.0.113.0/24"));
    assert!(!overlap("10.1.0.0/24", "10.1.1.0/24"));
    assert!(!overlap("::/0", "10.1.1.0/24"));
}

fn any_cidr() -> impl Strategy<Value = Cidr> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix)),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix)),
    ]
    .prop_filter_map("a mapped address is IPv4", |(ip, prefix)| {
        (canonical(ip) == ip).then(|| Cidr::new(ip, prefix)).flatten()
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(cidr in any_cidr()) {
        prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
    }

    #[test]
    fn a_network_holds_its_addresses(cidr in any_cidr()) {
        let network = cidr.network();
        prop_assert!(network.contains(cidr.address()));
        prop_assert!(cidr.contains(network.address()) && cidr.contains(cidr.last()));
        prop_assert!(previous(network.address()).is_none_or(|before| !cidr.contains(before)));
        prop_assert!(next(cidr.last()).is_none_or(|after| !cidr.contains(after)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9a-f:./%+-]{0,40}|\\PC{0,20}") {
        let _ = text.parse::<Cidr>();
        let _ = parse_ip_maybe_prefix(&text);
    }
}
