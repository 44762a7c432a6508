//! All or nothing, and errors that say what and why.

use std::fmt::Write as _;

use ferrule_core::nft::{
    Chain, ChainType, Connection, DataType, Element, Error, Field, Hook, Protocol, Set, Transaction, Value,
    Verdict, priority,
};

use testkit::tool;

use crate::support::{TABLE, commit, connect, in_namespace, listing, nft, rule, v4};

const PORTS: Set = Set::map(
    "ports",
    &[DataType::InetProto, DataType::InetService],
    &[DataType::Ipv4Addr, DataType::InetService],
);
const SOURCES: Set = Set::verdict_map("sources", &[DataType::Ipv4Addr]);

fn port(number: u16, target: &str) -> Element {
    Element::new([Protocol::TCP.into(), number.into()]).data([v4(target).into(), 80.into()])
}

fn with_ports() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
    });
}

fn refusal(connection: &mut Connection, fill: impl FnOnce(&mut Transaction)) -> Error {
    let mut transaction = Transaction::new();
    fill(&mut transaction);
    connection.commit(&transaction).unwrap_err()
}

/// The error with its causes, as a person sees it.
fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(told, ": {cause}").unwrap();
        source = cause.source();
    }
    told
}

#[test]
fn one_bad_change_undoes_all() {
    let error = refusal(&mut connect(), |transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
        transaction.add_element(&TABLE, &PORTS, &port(8080, "10.0.0.2"));
        transaction.add_rule(&TABLE, "nowhere", &rule().accept());
        transaction.add_chain(&TABLE, &Chain::regular("later"));
    });
    assert!(error.is_missing(), "{error:?}");
    assert_eq!(
        told(&error),
        "cannot add rule to chain 'inet ferrule nowhere': the kernel points at 'nowhere': ENOENT: No such file or directory"
    );
    assert_eq!(listing(), "");
}

#[test]
fn the_first_of_several_refusals_is_reported() {
    with_ports();
    let error = refusal(&mut connect(), |transaction| {
        transaction.delete_chain(&TABLE, "first");
        transaction.delete_chain(&TABLE, "second");
    });
    assert!(error.to_string().starts_with("cannot delete chain 'inet ferrule first'"), "{error}");
}

#[test]
fn a_key_can_be_claimed_only_once() {
    with_ports();
    let mut connection = connect();
    let mut transaction = Transaction::new();
    transaction.create_element(&TABLE, &PORTS, &port(8080, "10.0.0.2").comment("first"));
    connection.commit(&transaction).unwrap();

    for (number, other) in [(8080, "10.0.0.2"), (8080, "10.0.0.3")] {
        let error = refusal(&mut connection, |transaction| {
            transaction.create_element(&TABLE, &PORTS, &port(8081, "10.0.0.3"));
            transaction.create_element(&TABLE, &PORTS, &port(number, other).comment("second"));
        });
        assert!(error.is_exists(), "{error:?}");
        assert!(
            error.to_string().starts_with("cannot add element 'tcp . 8080' to map 'inet ferrule ports'"),
            "{error}"
        );
    }
    let listed = tool("nft", &["list", "map", "inet", "ferrule", "ports"]);
    assert!(listed.contains(r#"elements = { tcp . 8080 comment "first" : 10.0.0.2 . 80 }"#), "{listed}");
}

#[test]
fn adding_again_is_fine_unless_the_value_differs() {
    with_ports();
    commit(|transaction| {
        transaction.add_element(&TABLE, &PORTS, &port(8080, "10.0.0.2").comment("first"));
    });
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &PORTS);
        transaction.add_element(&TABLE, &PORTS, &port(8080, "10.0.0.2").comment("second"));
    });
    let error = refusal(&mut connect(), |transaction| {
        transaction.add_element(&TABLE, &PORTS, &port(8080, "10.0.0.3"));
    });
    assert!(error.is_exists(), "{error:?}");
    assert!(listing().contains(r#"tcp . 8080 comment "first" : 10.0.0.2 . 80"#), "{}", listing());
}

/// A connection as on the running kernel, and one that has to do without `NFT_MSG_DESTROY*`.
fn new_and_old_kernel() -> [Connection; 2] {
    let mut old = connect();
    old.assume_no_destroy();
    [connect(), old]
}

#[test]
fn destroying_what_is_missing_succeeds_and_the_rest_is_done() {
    for index in 0..2 {
        in_namespace(|| {
            let mut connection = new_and_old_kernel().into_iter().nth(index).unwrap();
            let missing = |transaction: &mut Transaction| {
                transaction.destroy_element(&TABLE, &PORTS, &port(1, "10.0.0.2"));
                transaction.destroy_set(&TABLE, &PORTS);
                transaction.destroy_rule(&TABLE, "nowhere", 77);
                transaction.destroy_chain(&TABLE, "nowhere");
                transaction.destroy_table(&TABLE);
            };
            let mut transaction = Transaction::new();
            missing(&mut transaction);
            connection.commit(&transaction).unwrap();

            with_ports();
            commit(|transaction| transaction.add_element(&TABLE, &PORTS, &port(8080, "10.0.0.2")));
            let mut transaction = Transaction::new();
            transaction.destroy_element(&TABLE, &PORTS, &port(9, "10.0.0.9"));
            transaction.destroy_element(&TABLE, &PORTS, &port(8080, "10.0.0.2"));
            transaction.destroy_chain(&TABLE, "nowhere");
            transaction.add_element(&TABLE, &PORTS, &port(8081, "10.0.0.2"));
            connection.commit(&transaction).unwrap();
            let listed = listing();
            assert!(listed.contains("elements = { tcp . 8081 : 10.0.0.2 . 80 }"), "{listed}");

            let mut transaction = Transaction::new();
            missing(&mut transaction);
            connection.commit(&transaction).unwrap();
            assert_eq!(listing(), "");
        });
    }
}

#[test]
fn destroying_what_is_in_use_is_refused_and_changes_nothing() {
    for index in 0..2 {
        in_namespace(|| {
            with_ports();
            commit(|transaction| {
                transaction.add_chain(&TABLE, &Chain::regular("used"));
                transaction.add_chain(&TABLE, &Chain::regular("user"));
                transaction.add_rule(&TABLE, "user", &rule().jump("used"));
            });
            let before = listing();
            let mut connection = new_and_old_kernel().into_iter().nth(index).unwrap();
            let error = refusal(&mut connection, |transaction| {
                transaction.destroy_chain(&TABLE, "nowhere");
                transaction.destroy_set(&TABLE, &PORTS);
                transaction.destroy_chain(&TABLE, "used");
            });
            assert!(error.is_busy(), "{error:?}");
            assert!(error.to_string().starts_with("cannot delete chain 'inet ferrule used'"), "{error}");
            assert_eq!(listing(), before);
        });
    }
}

#[test]
fn deleting_what_is_missing_fails() {
    with_ports();
    let mut connection = connect();
    let mut assert_missing = |fill: fn(&mut Transaction), what: &str| {
        let error = refusal(&mut connection, fill);
        assert!(error.is_missing() && error.to_string().starts_with(what), "{error:?}");
    };
    assert_missing(
        |transaction| transaction.delete_element(&TABLE, &PORTS, &port(1, "10.0.0.2")),
        "cannot delete element 'tcp . 1' from map 'inet ferrule ports'",
    );
    assert_missing(
        |transaction| transaction.delete_set(&TABLE, &SOURCES),
        "cannot delete map 'inet ferrule sources'",
    );
    assert_missing(
        |transaction| transaction.delete_rule(&TABLE, "nowhere", 5),
        "cannot delete rule with handle 5 from chain 'inet ferrule nowhere'",
    );
}

#[test]
fn what_cannot_be_expressed_is_refused_before_anything_is_sent() {
    let mut connection = connect();
    let mut assert_refused = |fill: &dyn Fn(&mut Transaction), told: &str| {
        let error = refusal(&mut connection, |transaction| {
            transaction.add_table(&TABLE);
            fill(transaction);
        });
        assert!(matches!(error, Error::Unencodable { .. }), "{error:?}");
        assert_eq!(error.to_string(), told);
    };
    assert_refused(
        &|transaction| transaction.add_rule(&TABLE, "chain", &rule().comment("say \"hi\"")),
        "cannot add rule 'say \"hi\"' to chain 'inet ferrule chain': \
         the comment contains a quote, newline or NUL, which nft cannot read back",
    );
    assert_refused(
        &|transaction| transaction.add_rule(&TABLE, "chain", &rule().in_set(&[Field::IP_SADDR], &PORTS)),
        "cannot add rule to chain 'inet ferrule chain': 'ip saddr' is not the key of map 'ports'",
    );
    assert_refused(
        &|transaction| {
            let both = rule().is(Field::IP_SADDR, v4("10.0.0.1")).is(Field::IP6_SADDR, [0; 6]);
            transaction.add_rule(&TABLE, "chain", &both);
        },
        "cannot add rule to chain 'inet ferrule chain': ip6 saddr cannot be compared with 00:00:00:00:00:00",
    );
    assert_refused(
        &|transaction| {
            let both = rule().network(ferrule_core::nft::Family::Ip6).is(Field::IP_SADDR, v4("10.0.0.1"));
            transaction.add_rule(&TABLE, "chain", &both);
        },
        "cannot add rule to chain 'inet ferrule chain': ip headers do not occur in ip6 packets",
    );
    assert_refused(
        &|transaction| transaction.add_element(&TABLE, &PORTS, &Element::new([Value::Port(80)])),
        "cannot add element '80' to map 'inet ferrule ports': '80' is not of the type of the map",
    );
    assert_refused(
        &|transaction| transaction.add_element(&TABLE, &SOURCES, &Element::new([v4("10.0.0.1").into()])),
        "cannot add element '10.0.0.1' to map 'inet ferrule sources': its value does not fit the map",
    );
    assert_refused(
        &|transaction| transaction.add_chain(&TABLE, &Chain::regular("a\0b")),
        "cannot add chain 'inet ferrule a\0b': a name contains NUL, or something is longer than 64 KiB",
    );
    assert_eq!(listing(), "");
}

#[test]
fn a_change_based_on_old_reading_conflicts() {
    let mut connection = connect();
    let before = connection.generation().unwrap();
    let mut transaction = Transaction::new();
    transaction.expect_generation(before);
    transaction.add_table(&TABLE);
    connection.commit(&transaction).unwrap();

    let error = connection.commit(&transaction).unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot commit: the ruleset changed since generation {before}"));
    assert!(connection.generation().unwrap() > before);
    connection.commit(&Transaction::new()).unwrap();
}

#[test]
fn rules_go_where_they_are_put_and_leave_by_handle() {
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_chain(&TABLE, &Chain::regular("chain"));
        transaction.add_rule(&TABLE, "chain", &rule().accept().comment("second"));
        transaction.add_rule(&TABLE, "chain", &rule().accept().comment("third"));
        transaction.insert_rule(&TABLE, "chain", &rule().accept().comment("first"));
    });
    let comments = || {
        let rules = connect().rules(&TABLE, "chain").unwrap();
        rules.into_iter().map(|rule| (rule.comment.unwrap(), rule.handle)).collect::<Vec<_>>()
    };
    let found = comments();
    assert_eq!(
        found.iter().map(|(comment, _)| comment.as_str()).collect::<Vec<_>>(),
        ["first", "second", "third"]
    );
    commit(|transaction| transaction.delete_rule(&TABLE, "chain", found[1].1));
    assert_eq!(
        comments().iter().map(|(comment, _)| comment.as_str()).collect::<Vec<_>>(),
        ["first", "third"]
    );
    commit(|transaction| transaction.flush_chain(&TABLE, "chain"));
    assert_eq!(comments(), []);
    commit(|transaction| {
        transaction.delete_chain(&TABLE, "chain");
        transaction.delete_table(&TABLE);
    });
    assert_eq!(listing(), "");
}

#[test]
fn a_flushed_set_is_empty_but_there() {
    with_ports();
    commit(|transaction| transaction.add_element(&TABLE, &PORTS, &port(1, "10.0.0.2")));
    commit(|transaction| transaction.flush_set(&TABLE, &PORTS));
    let listed = listing();
    assert!(listed.contains("map ports") && !listed.contains("elements"), "{listed}");
}

/// Thousands of changes outgrow the default socket buffers, in both directions.
#[test]
fn a_large_transaction_is_committed_and_its_refusal_still_names_the_element() {
    with_ports();
    let fill = |transaction: &mut Transaction| {
        for number in 1..=20_000 {
            transaction.create_element(
                &TABLE,
                &PORTS,
                &port(number, "10.0.0.2").comment("some-network-container-eth0"),
            );
        }
    };
    commit(fill);
    assert_eq!(connect().elements(&TABLE, &PORTS).unwrap().len(), 20_000);

    let error = refusal(&mut connect(), fill);
    assert!(error.is_exists(), "{error:?}");
    assert!(error.to_string().contains("element 'tcp . 1' "), "{error}");
}

#[test]
fn an_interval_can_be_deleted_by_its_ends() {
    const NETWORKS: Set = Set::verdict_map("networks", &[DataType::Ipv4Addr]).interval();
    let networks = ["10.0.0.0/8", "10.0.0.0/8", "240.0.0.0/4", "192.0.2.7/32"].map(|network| {
        let (address, length) = network.split_once('/').unwrap();
        Element::prefix(address.parse().unwrap(), length.parse().unwrap()).verdict(Verdict::Accept)
    });
    commit(|transaction| {
        transaction.add_table(&TABLE);
        transaction.add_set(&TABLE, &NETWORKS);
        for network in &networks {
            transaction.add_element(&TABLE, &NETWORKS, network);
        }
    });
    commit(|transaction| transaction.delete_element(&TABLE, &NETWORKS, &networks[0]));
    let listed = listing();
    assert!(listed.contains("elements = { 192.0.2.7 : accept, 240.0.0.0/4 : accept }"), "{listed}");
    // nft can delete what we made, and we what nft made.
    nft("delete element inet ferrule networks { 240.0.0.0/4 }");
    nft("add element inet ferrule networks { 10.0.0.0/8 : accept }");
    commit(|transaction| {
        transaction.delete_element(&TABLE, &NETWORKS, &networks[0]);
        transaction.destroy_element(&TABLE, &NETWORKS, &networks[3]);
    });
    assert!(!listing().contains("elements"), "{}", listing());
}

#[test]
fn a_chain_in_a_family_without_its_hook_is_refused() {
    let error = refusal(&mut connect(), |transaction| {
        let chain = Chain::base("egress", ChainType::Filter, Hook::Egress, priority::FILTER);
        transaction.add_chain(&TABLE, &chain);
    });
    assert_eq!(
        error.to_string(),
        "cannot add chain 'inet ferrule egress': the inet family has no egress hook"
    );
}
