//! What is read back is what is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrule_core::nfnetlink;
use ferrule_core::nft::{
    Base, Chain, ChainType, DataType, Element, Error, Family, Field, Hook, Mapped, Policy, Protocol, Set,
    Table, Transaction, Value, Verdict, priority,
};
use testkit::tool;

use crate::support::{TABLE, commit, connect, ip, listing, nft, rule, v4};

const PORTS: Set = Set::map(
    "ports",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);

fn port(number: u16) -> Element {
    Element::new([Protocol::TCP.into(), number.into()])
        .data([v4("10.0.0.2").into(), 80.into()])
        .comment(format!("owner {number}"))
}

#[test]
fn tables_and_sets_are_found_by_name() {
    let mut connection = connect();
    assert_eq!(connection.table(&TABLE).unwrap(), None);
    assert!(!connection.has_set(&TABLE, &PORTS).unwrap());
    commit(|transaction| {
        transaction.add_table_with_comment(&TABLE, Some("ours"));
        transaction.add_set(&TABLE, &PORTS);
    });
    nft("add table ip6 other");
    let found = connection.table(&TABLE).unwrap().unwrap();
    assert_eq!((found.table, found.comment.as_deref()), (TABLE, Some("ours")));
    assert!(connection.has_set(&TABLE, &PORTS).unwrap());
    assert_eq!(connection.table(&Table::new(Family::Ip, "ferrule")).unwrap(), None, "another family");

    let all = connection.tables().unwrap();
    let names: Vec<_> = all.iter().map(|info| info.table.to_string()).collect();
    assert_eq!(names, ["inet ferrule", "ip6 other"]);
}

#[test]
fn chains_are_found_by_name_with_their_attachment() {
    let mut connection = connect();
    assert_eq!(connection.chain(&TABLE, "forward").unwrap(), None, "no table");
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("regular").comment("no hook"));
        let forward = Chain::base("forward", ChainType::Filter, Hook::Forward, -5).policy(Policy::Drop);
        transaction.add_chain(&TABLE, &forward);
    });
    assert_eq!(connection.chain(&TABLE, "nowhere").unwrap(), None, "no chain");
    let regular = connection.chain(&TABLE, "regular").unwrap().unwrap();
    assert_eq!((regular.base, regular.comment.as_deref()), (None, Some("no hook")));
    let forward = connection.chain(&TABLE, "forward").unwrap().unwrap();
    let base = Base { kind: ChainType::Filter, hook: Hook::Forward, priority: -5, policy: Policy::Drop };
    assert_eq!(forward.base, Some(base));
}

#[test]
fn foreign_chains_at_the_forward_hook_are_seen() {
    nft("table inet firewalld {
            chain filter_FORWARD { type filter hook forward priority filter + 10; policy drop; }
            chain filter_INPUT { type filter hook input priority filter + 10; policy accept; }
            chain zones { }
        }
        table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; }; }
        table bridge b { chain forward { type filter hook forward priority filter; }; }
        table arp a { chain in { type filter hook input priority 0; }; }
        ");
    tool("iptables-nft", &["-P", "FORWARD", "DROP"]);
    let at_forward = |family| {
        let mut found: Vec<_> = connect()
            .chains(family)
            .unwrap()
            .into_iter()
            .filter_map(|chain| {
                let base = chain.base.filter(|base| base.hook == Hook::Forward)?;
                Some((format!("{} {}", chain.table, chain.name), base.priority, base.policy))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let all = [
        ("bridge b forward".to_owned(), priority::BRIDGE_FILTER, Policy::Accept),
        ("inet firewalld filter_FORWARD".to_owned(), 10, Policy::Drop),
        ("ip filter FORWARD".to_owned(), 0, Policy::Drop),
    ];
    assert_eq!(at_forward(None), all);
    assert_eq!(at_forward(Some(Family::Inet)), all[1..2]);
}

#[test]
fn rules_of_one_chain_come_with_handle_and_comment() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        for chain in ["one", "two"] {
            transaction.add_chain(&TABLE, &Chain::regular(chain));
        }
        transaction.add_rule(
            &TABLE,
            "one",
            &rule().is(Field::IP_SADDR, v4("10.0.0.2")).accept().comment("a"),
        );
        transaction.add_rule(&TABLE, "two", &rule().accept().comment("not asked for"));
        transaction.add_rule(&TABLE, "one", &rule().accept());
    });
    let rules = connect().rules(&TABLE, "one").unwrap();
    assert_eq!(rules.iter().map(|rule| rule.comment.as_deref()).collect::<Vec<_>>(), [Some("a"), None]);
    let listed = tool("nft", &["-a", "list", "chain", "inet", "ferrule", "one"]);
    assert!(listed.contains(&format!("comment \"a\" # handle {}\n", rules[0].handle)), "{listed}");
    assert_ne!(rules[0].expressions, rules[1].expressions);
    assert_eq!(connect().rules(&TABLE, "nowhere").unwrap(), []);
    assert_eq!(connect().rules(&Table::new(Family::Ip, "nowhere"), "one").unwrap(), []);
}

/// More rules than fit one answer of the kernel.
#[test]
fn long_lists_are_complete() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("chain"));
        transaction.add_set(&TABLE, &PORTS);
        for number in 1..=2000 {
            transaction.add_rule(&TABLE, "chain", &rule().accept().comment(format!("rule {number}")));
            transaction.add_element(&TABLE, &PORTS, &port(number));
        }
    });
    let rules = connect().rules(&TABLE, "chain").unwrap();
    let comments: Vec<_> = rules.into_iter().filter_map(|rule| rule.comment).collect();
    assert_eq!(comments, (1..=2000).map(|number| format!("rule {number}")).collect::<Vec<_>>());
    let mut elements = connect().elements(&TABLE, &PORTS).unwrap();
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(elements, (1..=2000).map(port).collect::<Vec<_>>());
}

/// The kernel hands a long list out in parts, and another writer may come between two of them.
#[test]
fn a_list_that_changes_while_it_is_read_is_read_again() {
    const ROUNDS: u32 = 12;
    let generation = |round: u32| {
        let mut transaction = Transaction::new();
        transaction.flush_set(&TABLE, &PORTS);
        for number in 1..=1500 {
            transaction.add_element(&TABLE, &PORTS, &port(number).comment(format!("round {round}")));
        }
        transaction
    };
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
    });
    connect().commit(&generation(0)).unwrap();
    let done = AtomicBool::new(false);
    let mut whole = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = connect();
            (1..ROUNDS).for_each(|round| connection.commit(&generation(round)).unwrap());
            done.store(true, Ordering::Relaxed);
        });
        let mut connection = connect();
        let mut last = false;
        while !last {
            // Once more when nobody writes: then there is a list.
            last = done.load(Ordering::Relaxed);
            match connection.elements(&TABLE, &PORTS) {
                Ok(elements) => {
                    let rounds: BTreeSet<_> =
                        elements.iter().filter_map(|element| element.comment.clone()).collect();
                    assert_eq!((elements.len(), rounds.len()), (1500, 1), "{rounds:?}");
                    whole += 1;
                }
                // Nothing is better than something wrong.
                Err(Error::Netlink(nfnetlink::Error::Interrupted { attempts: 5, .. })) if !last => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    assert!(whole > 0);
}

#[test]
fn one_element_is_found_by_its_key_with_owner_and_target() {
    let mut connection = connect();
    let key = [Protocol::TCP.into(), 8080.into()];
    assert_eq!(connection.element(&TABLE, &PORTS, &key).unwrap(), None, "no table");
    commit(|transaction| transaction.add_table(&TABLE));
    assert_eq!(connection.element(&TABLE, &PORTS, &key).unwrap(), None, "no map");
    commit(|transaction| {
        transaction.add_set(&TABLE, &PORTS);
        transaction.add_element(&TABLE, &PORTS, &port(8080));
        transaction.add_element(&TABLE, &PORTS, &port(8081));
    });
    assert_eq!(connection.element(&TABLE, &PORTS, &key).unwrap(), Some(port(8080)));
    let udp = [Protocol::UDP.into(), 8080.into()];
    assert_eq!(connection.element(&TABLE, &PORTS, &udp).unwrap(), None, "another key");
    let error = connection.element(&TABLE, &PORTS, &[Value::Port(8080)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot look up '8080' in map 'inet ferrule ports': the key is not of the type of the map"
    );
}

#[test]
fn elements_of_every_kind_are_read_as_written() {
    const NAMES: Set = Set::verdict_map("names", &[DataType::IfName, DataType::EtherAddr]);
    const MARKS: Set = Set::map("marks", &[DataType::Mark], &[DataType::Ipv6Addr]);
    const NETWORKS: Set = Set::new("networks", &[DataType::Ipv4Addr]).interval();
    const PAIRS: Set = Set::new("pairs", &[DataType::Ipv4Addr, DataType::InetService]).interval();
    let name = |name: &str| [name.into(), [2, 0, 0, 0, 0, 1].into()];
    let cases = [
        (
            NAMES,
            vec![
                Element::new(name("a")).verdict(Verdict::Drop),
                Element::new(name("abcdefghijklmno")).verdict(Verdict::jump("chain")).comment("longest name"),
            ],
        ),
        (MARKS, vec![Element::new([Value::Mark(1)]).data([Value::from(ip("fd00::1"))])]),
        (
            NETWORKS,
            vec![
                Element::prefix(ip("10.0.0.0"), 8).comment("ten"),
                Element::prefix(ip("11.0.0.0"), 8),
                Element::new([v4("192.0.2.7").into()]).comment("one"),
                Element::prefix(ip("240.0.0.0"), 4),
            ],
        ),
        (
            PAIRS,
            vec![
                Element::new([v4("10.0.0.0").into(), 80.into()])
                    .through([v4("10.0.0.255").into(), 90.into()])
                    .comment("range"),
                Element::new([v4("10.0.1.1").into(), 80.into()]),
            ],
        ),
    ];
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("chain"));
        for (set, elements) in &cases {
            transaction.add_set(&TABLE, set);
            for element in elements {
                transaction.add_element(&TABLE, set, element);
            }
        }
    });
    for (set, elements) in cases {
        let mut found = connect().elements(&TABLE, &set).unwrap();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, elements, "{}", set.name());
        for element in elements {
            let found = connect().element(&TABLE, &set, &element.key).unwrap();
            assert_eq!(found, Some(element), "{}", set.name());
        }
    }
    let inside = connect().element(&TABLE, &NETWORKS, &[v4("10.20.30.40").into()]).unwrap().unwrap();
    assert_eq!(inside, Element::prefix(ip("10.0.0.0"), 8).comment("ten"), "the interval around a key");
    let outside = connect().element(&TABLE, &NETWORKS, &[v4("12.0.0.1").into()]).unwrap();
    assert_eq!(outside, None);
}

#[test]
fn what_nft_wrote_is_read_alike() {
    const NETWORKS: Set = Set::verdict_map("networks", &[DataType::Ipv4Addr]).interval();
    nft(r#"table inet ferrule {
            chain other {
            }
            map networks {
                type ipv4_addr : verdict
                flags interval
                elements = { 10.0.0.0/8 comment "ten" : goto other, 192.0.2.0/24 : accept, 240.0.0.0/4 : drop }
            }
        }"#);
    let verdicts = [Verdict::goto("other"), Verdict::Accept, Verdict::Drop];
    let found = connect().elements(&TABLE, &NETWORKS).unwrap();
    assert_eq!(found[0].comment.as_deref(), Some("ten"));
    assert_eq!(found[2].through, Some(vec![v4("255.255.255.255").into()]));
    let found: Vec<_> = found.into_iter().filter_map(|element| element.value).collect();
    assert_eq!(found, verdicts.map(Mapped::Verdict), "{}", listing());
}
