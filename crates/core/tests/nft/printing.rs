//! What we make must print, and read from the kernel, as what one would have typed.

use ferrule_core::nft::{
    AddressType, Chain, ChainType, DataType, Direction, Element, Family, Field, Hook, Policy, Protocol, Rule,
    Set, Table, Transaction, Verdict, ct_state, ct_status, priority,
};

use testkit::tool;

use crate::support::{TABLE, commit, connect, in_namespace, ip, listing, nft, rule, v4, v6};

/// Commits ours, types theirs into another namespace, and compares how `nft` prints both.
///
/// Also as bytecode, without the elements: to sets of intervals `nft` adds marks for its own use.
fn assert_prints_as(fill: impl FnOnce(&mut Transaction) + Send, typed: &str) {
    let look = || {
        let bytecode = tool("nft", &["--debug=netlink", "list", "ruleset"]);
        let is_element = |line: &&str| line.trim_start().starts_with("element ");
        (listing(), bytecode.lines().filter(|line| !is_element(line)).collect::<Vec<_>>().join("\n"))
    };
    let (ours, our_bytecode) = in_namespace(|| {
        commit(fill);
        look()
    });
    let (theirs, their_bytecode) = in_namespace(|| {
        nft(typed);
        look()
    });
    assert_eq!(ours, theirs);
    assert_eq!(our_bytecode, their_bytecode);
}

/// Puts the rules into one chain of an inet table, and compares as above.
fn assert_rules_print_as(rules: &[(Rule, &str)]) {
    let typed = rules.iter().map(|(_, typed)| *typed).collect::<Vec<_>>().join("\n");
    assert_prints_as(
        |transaction| {
            transaction.add_table(&TABLE);
            transaction.add_chain(&TABLE, &Chain::regular("other"));
            transaction.add_chain(&TABLE, &Chain::regular("rules"));
            for (rule, _) in rules {
                transaction.add_rule(&TABLE, "rules", rule);
            }
        },
        &format!("table inet ferrule {{\n chain other {{\n}}\n chain rules {{\n {typed}\n }}\n }}"),
    );
}

#[test]
fn published_ports() {
    const PORTS: Set = Set::map(
        "ports4",
        &[DataType::InetProto, DataType::Ipv4Addr, DataType::InetService],
        &[DataType::Ipv4Addr, DataType::InetService],
    );
    const ANY_PORTS: Set = Set::map(
        "anyports4",
        &[DataType::InetProto, DataType::InetService],
        &[DataType::Ipv4Addr, DataType::InetService],
    )
    .comment("any host address");
    const ANY_PORTS6: Set = Set::map(
        "anyports6",
        &[DataType::InetProto, DataType::InetService],
        &[DataType::Ipv6Addr, DataType::InetService],
    );
    let fill = |transaction: &mut Transaction| {
        transaction.add_table_with_comment(&TABLE, Some("made by ferrule"));
        for set in [PORTS, ANY_PORTS, ANY_PORTS6] {
            transaction.add_set(&TABLE, &set);
        }
        let chain = Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, priority::DSTNAT);
        transaction.add_chain(&TABLE, &chain.comment("published ports"));
        let exact = rule().dnat_map(&[Field::L4PROTO, Field::IP_DADDR, Field::TH_DPORT], &PORTS);
        transaction.add_rule(&TABLE, "prerouting", &exact);
        let local = || rule().fib_daddr_type(AddressType::Local);
        let any = local().dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &ANY_PORTS).comment("published");
        transaction.add_rule(&TABLE, "prerouting", &any);
        let any6 = local().dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &ANY_PORTS6);
        transaction.add_rule(&TABLE, "prerouting", &any6);

        let owned = Element::new([Protocol::TCP.into(), 8080.into()])
            .data([v4("10.88.0.2").into(), 80.into()])
            .comment("podman-0123456789ab-eth0");
        transaction.add_element(&TABLE, &ANY_PORTS, &owned);
        let dns = Element::new([Protocol::UDP.into(), v4("192.0.2.1").into(), 53.into()])
            .data([v4("10.88.0.3").into(), 5353.into()]);
        transaction.add_element(&TABLE, &PORTS, &dns);
        let sctp =
            Element::new([Protocol::SCTP.into(), 38412.into()]).data([v6("fd00::2").into(), 38412.into()]);
        transaction.add_element(&TABLE, &ANY_PORTS6, &sctp);
    };
    assert_prints_as(
        fill,
        r#"table inet ferrule {
            comment "made by ferrule"
            map ports4 {
                type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
                elements = { udp . 192.0.2.1 . 53 : 10.88.0.3 . 5353 }
            }
            map anyports4 {
                type inet_proto . inet_service : ipv4_addr . inet_service
                comment "any host address"
                elements = { tcp . 8080 comment "podman-0123456789ab-eth0" : 10.88.0.2 . 80 }
            }
            map anyports6 {
                type inet_proto . inet_service : ipv6_addr . inet_service
                elements = { sctp . 38412 : fd00::2 . 38412 }
            }
            chain prerouting {
                comment "published ports"
                type nat hook prerouting priority dstnat; policy accept;
                dnat ip to meta l4proto . ip daddr . th dport map @ports4
                fib daddr type local dnat ip to meta l4proto . th dport map @anyports4 comment "published"
                fib daddr type local dnat ip6 to meta l4proto . th dport map @anyports6
            }
        }"#,
    );
}

#[test]
fn masquerading_by_source_with_a_verdict_map() {
    const SOURCES: Set = Set::verdict_map("sources", &[DataType::Ipv4Addr]);
    let fill = |transaction: &mut Transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("masquerade-podman"));
        transaction.add_set(&TABLE, &SOURCES);
        transaction.add_chain(
            &TABLE,
            &Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, priority::SRCNAT),
        );
        let own = rule().outside(Field::IP_DADDR, ip("10.88.0.0"), 16);
        transaction.add_rule(
            &TABLE,
            "masquerade-podman",
            &own.outside(Field::IP_DADDR, ip("224.0.0.0"), 4).masquerade(true),
        );
        transaction.add_rule(&TABLE, "postrouting", &rule().ct_status(ct_status::DNAT).masquerade(false));
        transaction.add_rule(&TABLE, "postrouting", &rule().vmap(&[Field::IP_SADDR], &SOURCES));
        let element = Element::new([v4("10.88.0.2").into()]).verdict(Verdict::goto("masquerade-podman"));
        transaction.add_element(&TABLE, &SOURCES, &element.comment("podman a eth0"));
        let element = Element::new([v4("10.88.0.3").into()]).verdict(Verdict::Drop);
        transaction.add_element(&TABLE, &SOURCES, &element);
    };
    assert_prints_as(
        fill,
        r#"table inet ferrule {
            map sources {
                type ipv4_addr : verdict
                elements = { 10.88.0.2 comment "podman a eth0" : goto masquerade-podman, 10.88.0.3 : drop }
            }
            chain masquerade-podman {
                ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
            }
            chain postrouting {
                type nat hook postrouting priority srcnat; policy accept;
                ct status dnat masquerade
                ip saddr vmap @sources
            }
        }"#,
    );
}

#[test]
fn comparisons() {
    assert_rules_print_as(&[
        (
            rule().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept(),
            "ct state established,related accept",
        ),
        (rule().ct_state(ct_state::INVALID).drop(), "ct state invalid drop"),
        (rule().ct_direction(Direction::Reply).accept(), "ct direction reply accept"),
        (rule().fib_saddr_type(AddressType::Broadcast).drop(), "fib saddr type broadcast drop"),
        (
            rule().is(Field::IIFNAME, "eth0").is_not(Field::OIFNAME, "lo").accept(),
            "iifname eth0 oifname != lo accept",
        ),
        (rule().network(Family::Ip6).accept(), "meta nfproto ipv6 accept"),
        (rule().is(Field::IP_SADDR, v4("192.0.2.1")).counter(), "ip saddr 192.0.2.1 counter"),
        (rule().is_not(Field::IP6_DADDR, v6("fd00::1")).counter(), "ip6 daddr != fd00::1 counter"),
        (rule().within(Field::IP_SADDR, ip("10.1.2.0"), 24).accept(), "ip saddr 10.1.2.0/24 accept"),
        (rule().within(Field::IP_SADDR, ip("10.1.2.4"), 30).accept(), "ip saddr 10.1.2.4/30 accept"),
        (rule().outside(Field::IP6_DADDR, ip("ff00::"), 8).accept(), "ip6 daddr != ff00::/8 accept"),
        (rule().within(Field::IP6_DADDR, ip("fe80::"), 10).accept(), "ip6 daddr fe80::/10 accept"),
        (rule().transport(Protocol::TCP).is(Field::TH_DPORT, 80).accept(), "tcp dport 80 accept"),
        (rule().transport(Protocol::UDP).is_not(Field::TH_SPORT, 53).drop(), "udp sport != 53 drop"),
        (rule().is(Field::TH_DPORT, 80).accept(), "th dport 80 accept"),
        (rule().icmpv6_type(134).drop(), "icmpv6 type nd-router-advert drop"),
        (rule().is(Field::MARK, ferrule_core::nft::Value::Mark(7)).accept(), "meta mark 7 accept"),
        (rule().is(Field::ETHER_SADDR, [2, 0, 0, 0, 0, 1]).accept(), "ether saddr 02:00:00:00:00:01 accept"),
        (
            rule()
                .within(Field::IP_SADDR, ip("10.0.0.0"), 8)
                .within(Field::IP_DADDR, ip("10.0.0.0"), 8)
                .accept(),
            "ip saddr 10.0.0.0/8 ip daddr 10.0.0.0/8 accept",
        ),
    ]);
}

#[test]
fn actions() {
    assert_rules_print_as(&[
        (rule().set_mark(0x2000, 0x2000), "meta mark set meta mark | 0x2000"),
        (rule().set_mark(5, u32::MAX), "meta mark set 5"),
        (rule().mark_any(0x2000).accept(), "meta mark & 0x2000 != 0 accept"),
        (rule().verdict(&Verdict::Return), "return"),
        (rule().verdict(&Verdict::Continue), "continue"),
        (rule().counter().jump("other"), "counter jump other"),
        (
            rule().goto("other").comment("CNI, with spaces: and 'quotes'"),
            "goto other comment \"CNI, with spaces: and 'quotes'\"",
        ),
    ]);
}

#[test]
fn translation_to_fixed_addresses() {
    let dnat = |rule: Rule| rule.transport(Protocol::TCP).is(Field::TH_DPORT, 80);
    let fill = |transaction: &mut Transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::base("pre", ChainType::Nat, Hook::Prerouting, -101));
        transaction
            .add_chain(&TABLE, &Chain::base("post", ChainType::Nat, Hook::Postrouting, priority::SRCNAT));
        transaction.add_rule(&TABLE, "pre", &dnat(rule()).dnat(ip("10.0.0.2"), Some(8080)));
        transaction.add_rule(&TABLE, "pre", &dnat(rule()).dnat(ip("fd00::2"), Some(8080)));
        transaction.add_rule(
            &TABLE,
            "pre",
            &rule().is(Field::IP_DADDR, v4("192.0.2.1")).dnat(ip("10.0.0.2"), None),
        );
        let source = rule().within(Field::IP_SADDR, ip("10.0.0.0"), 24);
        transaction.add_rule(&TABLE, "post", &source.snat(ip("192.0.2.1"), None));
    };
    assert_prints_as(
        fill,
        "table inet ferrule {
            chain pre {
                type nat hook prerouting priority dstnat - 1; policy accept;
                tcp dport 80 dnat ip to 10.0.0.2:8080
                tcp dport 80 dnat ip6 to [fd00::2]:8080
                ip daddr 192.0.2.1 dnat ip to 10.0.0.2
            }
            chain post {
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 10.0.0.0/24 snat ip to 192.0.2.1
            }
        }",
    );
}

#[test]
fn sets_of_names_addresses_and_intervals() {
    const NAMES: Set = Set::new("names", &[DataType::IfName]);
    const NETWORKS: Set = Set::new("networks", &[DataType::Ipv4Addr]).interval();
    const NETWORKS6: Set = Set::new("networks6", &[DataType::Ipv6Addr]).interval();
    const ALLOWED: Set = Set::new("allowed", &[DataType::Ipv4Addr, DataType::InetService]).interval();
    const MARKS: Set = Set::map("marks", &[DataType::IfName], &[DataType::Mark]);
    let fill = |transaction: &mut Transaction| {
        transaction.add_table(&TABLE);
        for set in [NAMES, NETWORKS, NETWORKS6, ALLOWED, MARKS] {
            transaction.add_set(&TABLE, &set);
        }
        transaction.add_chain(
            &TABLE,
            &Chain::base("forward", ChainType::Filter, Hook::Forward, priority::FILTER).policy(Policy::Drop),
        );
        transaction.add_rule(&TABLE, "forward", &rule().in_set(&[Field::IIFNAME], &NAMES).accept());
        transaction.add_rule(&TABLE, "forward", &rule().not_in_set(&[Field::IP_DADDR], &NETWORKS).accept());
        transaction.add_rule(&TABLE, "forward", &rule().in_set(&[Field::IP6_SADDR], &NETWORKS6).accept());
        transaction.add_rule(
            &TABLE,
            "forward",
            &rule().in_set(&[Field::IP_SADDR, Field::TH_DPORT], &ALLOWED).accept(),
        );

        transaction.add_element(&TABLE, &NAMES, &Element::new(["veth0".into()]).comment("a"));
        transaction.add_element(&TABLE, &NETWORKS, &Element::prefix(ip("10.0.0.0"), 8).comment("b"));
        let range = Element::new([v4("192.168.0.1").into()]).through([v4("192.168.0.5").into()]);
        transaction.add_element(&TABLE, &NETWORKS, &range);
        transaction.add_element(&TABLE, &NETWORKS, &Element::prefix(ip("240.0.0.0"), 4));
        transaction.add_element(&TABLE, &NETWORKS, &Element::new([v4("11.0.0.0").into()]));
        transaction.add_element(&TABLE, &NETWORKS6, &Element::prefix(ip("fd00::"), 64));
        let range = Element::new([v4("10.0.0.0").into(), 80.into()])
            .through([v4("10.255.255.255").into(), 90.into()]);
        transaction.add_element(&TABLE, &ALLOWED, &range.comment("c"));
        transaction.add_element(
            &TABLE,
            &MARKS,
            &Element::new(["veth1".into()]).data([ferrule_core::nft::Value::Mark(1)]),
        );
    };
    let typed = r#"table inet ferrule {
            set names { type ifname; elements = { "veth0" comment "a" }; }
            set networks {
                type ipv4_addr
                flags interval
                elements = { 10.0.0.0/8 comment "b", 11.0.0.0, 192.168.0.1-192.168.0.5, 240.0.0.0/4 }
            }
            set networks6 { type ipv6_addr; flags interval; elements = { fd00::/64 }; }
            set allowed {
                type ipv4_addr . inet_service
                flags interval
                elements = { 10.0.0.0/8 . 80-90 comment "c" }
            }
            map marks { type ifname : mark; elements = { "veth1" : 0x1 }; }
            chain forward {
                type filter hook forward priority filter; policy drop;
                iifname @names accept
                ip daddr != @networks accept
                ip6 saddr @networks6 accept
                ip saddr . th dport @allowed accept
            }
        }"#;
    assert_prints_as(fill, typed);
}

#[test]
fn a_guard_in_the_bridge_family() {
    const BRIDGE: Table = Table::new(Family::Bridge, "guard");
    const SENDERS: Set = Set::new("senders", &[DataType::IfName, DataType::EtherAddr]);
    const ADDRESSES: Set =
        Set::verdict_map("addresses", &[DataType::IfName, DataType::EtherAddr, DataType::Ipv4Addr]);
    let rule = || Rule::new(Family::Bridge);
    let fill = |transaction: &mut Transaction| {
        transaction.add_table(&BRIDGE);
        transaction.add_set(&BRIDGE, &SENDERS);
        transaction.add_set(&BRIDGE, &ADDRESSES);
        let chain = Chain::base("prerouting", ChainType::Filter, Hook::Prerouting, priority::BRIDGE_FILTER);
        transaction.add_chain(&BRIDGE, &chain);
        let mac = [2, 0, 0, 0, 0, 1];
        for rule in [
            rule().not_in_set(&[Field::IIFNAME, Field::ETHER_SADDR], &SENDERS).drop(),
            rule().vmap(&[Field::IIFNAME, Field::ETHER_SADDR, Field::IP_SADDR], &ADDRESSES),
            rule().is(Field::ETHER_DADDR, mac).accept(),
            rule().network(Family::Arp).counter(),
        ] {
            transaction.add_rule(&BRIDGE, "prerouting", &rule);
        }
        transaction.add_element(&BRIDGE, &SENDERS, &Element::new(["veth0".into(), mac.into()]).comment("a"));
        let key = ["veth0".into(), mac.into(), v4("10.0.0.2").into()];
        transaction.add_element(&BRIDGE, &ADDRESSES, &Element::new(key).verdict(Verdict::Accept));
    };
    assert_prints_as(
        fill,
        r#"table bridge guard {
            set senders { type ifname . ether_addr; elements = { "veth0" . 02:00:00:00:00:01 comment "a" }; }
            map addresses {
                type ifname . ether_addr . ipv4_addr : verdict
                elements = { "veth0" . 02:00:00:00:00:01 . 10.0.0.2 : accept }
            }
            chain prerouting {
                type filter hook prerouting priority filter; policy accept;
                iifname . ether saddr != @senders drop
                iifname . ether saddr . ip saddr vmap @addresses
                ether daddr 02:00:00:00:00:01 accept
                meta protocol arp counter
            }
        }"#,
    );
}

#[test]
fn arp_and_neighbour_discovery_fields() {
    const BRIDGE: Table = Table::new(Family::Bridge, "guard");
    let rule = || Rule::new(Family::Bridge);
    let ours = in_namespace(|| {
        commit(|transaction| {
            transaction.add_table(&BRIDGE);
            transaction.add_chain(&BRIDGE, &Chain::regular("rules"));
            for rule in [
                rule().is(Field::ARP_SADDR_ETHER, [2, 0, 0, 0, 0, 1]).accept(),
                rule().is(Field::ARP_SADDR_IP, v4("10.0.0.2")).accept(),
                rule().is_not(Field::ARP_DADDR_IP, v4("10.0.0.2")).accept(),
                rule().icmpv6_type(136).is(Field::ND_TARGET, v6("fd00::2")).accept(),
                rule().is(Field::ND_TARGET, v6("fd00::2")).accept(),
            ] {
                transaction.add_rule(&BRIDGE, "rules", &rule);
            }
        });
        listing()
    });
    // Not compared with typed rules: nft 1.0.6 compares the Ethernet type in the header where we use `meta protocol`, merges
    // neighbouring ARP fields into one load, and has no word for the target address yet, which it prints as raw bits.
    let expected = "table bridge guard {
	chain rules {
		arp saddr ether 02:00:00:00:00:01 accept
		arp saddr ip 10.0.0.2 accept
		arp daddr ip != 10.0.0.2 accept
		icmpv6 type nd-neighbor-advert @th,64,128 0xfd000000000000000000000000000002 accept
		meta l4proto ipv6-icmp @th,64,128 0xfd000000000000000000000000000002 accept
	}
}
";
    assert_eq!(ours, expected);
}

#[test]
fn the_bridge_of_a_frame() {
    const BRIDGE: Table = Table::new(Family::Bridge, "guard");
    let mut transaction = Transaction::new();
    transaction.add_table(&BRIDGE);
    let forward = Chain::base("forward", ChainType::Filter, Hook::Forward, priority::BRIDGE_FILTER);
    transaction.add_chain(&BRIDGE, &forward);
    let rule = Rule::new(Family::Bridge).is(Field::IBRNAME, "br0").is(Field::OBRNAME, "br0").drop();
    transaction.add_rule(&BRIDGE, "forward", &rule);
    match connect().commit(&transaction) {
        Err(error) if error.is_unsupported() => {
            testkit::skip!("this kernel has no `meta ibrname` (CONFIG_NFT_BRIDGE_META)")
        }
        committed => committed.unwrap(),
    }
    assert!(listing().contains("\t\tmeta ibrname \"br0\" meta obrname \"br0\" drop\n"), "{}", listing());
}
