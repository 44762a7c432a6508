//! What attachments share, and what happens to it when they come and go in any order, or at the same time.

use cni::{Attachment, ContainerId, LinkName, ValidAttachments};
use ferrule_core::firewall::{Entry, Firewall, FirewallError, Forward, IsolationPolicy, Role};

use crate::in_both_variants;
use crate::support::{
    Tables, Variant, assert_same, collect, forward, isolate, mapping, masquerade, owner, publish,
};

fn ports(address: &str, mappings: &[&str]) -> Entry {
    Entry::Publish(publish(address, mappings))
}

fn listed(attachments: &[(&str, &str)]) -> ValidAttachments {
    ValidAttachments::from_attachments(attachments.iter().map(|(id, ifname)| Attachment {
        container_id: ContainerId::new(*id).unwrap(),
        ifname: LinkName::new(*ifname).unwrap(),
    }))
}

fn taken_by(error: &FirewallError) -> (&str, &str) {
    match error {
        FirewallError::PortTaken { port, owner } => (port, owner),
        other => panic!("not a port conflict: {other}"),
    }
}

/// Removes a rule as an administrator would: `line` is one of [`Tables::dump`], of the chain named.
fn delete_rule(tables: &Tables, family: &str, table: &str, chain: &str, line: &str) {
    let text = format!("*{table}\n-D {chain} {line}\nCOMMIT\n");
    std::fs::write("/run/change", text).unwrap();
    let program = tables.directory.join(format!("{family}-restore"));
    let command = format!("{} --noflush < /run/change", program.display());
    let ran = tables.host.netns().run("sh", &["-c", &command]);
    assert!(ran.code == 0, "{}", ran.stderr);
}

in_both_variants! {
    fn two_interfaces_share_a_masquerade_chain(tables: &Tables) {
        let mut backend = tables.backend();
        let (first, second) = (owner("blue/c1/eth0"), owner("blue/c1/eth1"));
        let one = [masquerade("10.1.0.5/16", &["192.168.0.0/16"])];
        let two = [masquerade("10.2.0.5/16", &["192.168.0.0/16"])];
        backend.ensure(&first, &one).unwrap();
        let alone = tables.dump();
        backend.ensure(&second, &two).unwrap();
        backend.verify(&first, &one).unwrap();
        backend.verify(&second, &two).unwrap();
        backend.remove(&second, &two).unwrap();
        assert_same(&alone, &tables.dump());
        backend.ensure(&second, &two).unwrap();
        backend.remove_owner(&second, Role::Interface, &["10.2.0.5".parse().unwrap()]).unwrap();
        backend.verify(&first, &one).unwrap();
        backend.remove(&first, &one).unwrap();
        assert_same("", &tables.dump());
    }

    fn two_interfaces_in_one_subnet_share_what_is_about_the_subnet(tables: &Tables) {
        let mut backend = tables.backend();
        let (first, second) = (owner("blue/c1/eth0"), owner("blue/c1/eth1"));
        let one = [masquerade("10.1.0.5/16", &[])];
        let two = [masquerade("10.1.0.6/16", &[])];
        backend.ensure(&first, &one).unwrap();
        let alone = tables.dump();
        backend.ensure(&second, &two).unwrap();
        backend.remove(&second, &two).unwrap();
        assert_same(&alone, &tables.dump());
    }

    fn two_interfaces_share_a_chain_of_ports(tables: &Tables) {
        let mut backend = tables.backend();
        let (first, second) = (owner("blue/c1/eth0"), owner("blue/c1/eth1"));
        let one = [ports("10.1.0.5/16", &["tcp 80:80", "tcp 192.0.2.1 443:443"])];
        let two = [ports("10.2.0.5/16", &["tcp 81:80", "tcp 192.0.2.2 443:443"])];
        backend.ensure(&first, &one).unwrap();
        let alone = tables.dump();
        backend.ensure(&second, &two).unwrap();
        backend.verify(&first, &one).unwrap();
        backend.remove(&second, &two).unwrap();
        assert_same(&alone, &tables.dump());
        backend.ensure(&second, &two).unwrap();
        backend.remove_owner(&second, Role::Publish, &["10.2.0.5".parse().unwrap()]).unwrap();
        assert_same(&alone, &tables.dump());
        let again = backend.ensure(&second, &[ports("10.2.0.5/16", &["tcp 80:80"])]).unwrap_err();
        let interface = "another interface of container c1 in network blue (10.1.0.5:80)";
        assert_eq!(taken_by(&again), ("tcp 0.0.0.0:80", interface));
        backend.remove(&first, &one).unwrap();
        assert_same("", &tables.dump());
    }

    fn a_port_has_one_owner(tables: &Tables) {
        let mut backend = tables.backend();
        let other = owner("red/c2/eth0");
        backend.ensure(&owner("blue/c1/eth0"), &[
            ports("10.1.0.5/16", &["tcp 8080:80", "udp 192.0.2.1 53:53"]),
            ports("fd00::5/64", &["tcp 8080:80"]),
        ]).unwrap();
        let before = tables.dump();
        for (address, wanted, expected) in [
            ("10.1.0.6/16", "tcp 8080:81", Some("tcp 0.0.0.0:8080")),
            ("10.1.0.6/16", "tcp 192.0.2.1 8080:80", Some("tcp 192.0.2.1:8080")),
            ("10.1.0.6/16", "udp 53:53", Some("udp 0.0.0.0:53")),
            ("10.1.0.6/16", "udp 192.0.2.1 53:53", Some("udp 192.0.2.1:53")),
            ("fd00::6/64", "tcp 8080:80", Some("tcp [::]:8080")),
            ("10.1.0.6/16", "udp 8080:80", None),
            ("10.1.0.6/16", "tcp 8081:80", None),
            ("10.1.0.6/16", "udp 192.0.2.2 53:53", None),
            ("fd00::6/64", "udp 53:53", None),
        ] {
            let entries = [ports(address, &["tcp 9999:9", wanted])];
            match (backend.ensure(&other, &entries), expected) {
                (Err(error), Some(port)) => {
                    let (found, by) = taken_by(&error);
                    assert_eq!(found, port);
                    assert!(by.starts_with("container c1 in network blue"), "{by}");
                }
                (Ok(()), None) => backend.remove(&other, &entries).unwrap(),
                (result, _) => panic!("{wanted} to {address}: {result:?}"),
            }
            assert_same(&before, &tables.dump());
        }
    }

    /// They are about other connections, and an operator may well share a port so.
    fn a_port_under_other_conditions_is_another_port(tables: &Tables) {
        let mut backend = tables.backend();
        let entry = |address: &str, source: &str| {
            let mut entry = publish(address, &["tcp 8080:80"]);
            entry.conditions = vec!["-s".to_owned(), source.to_owned()];
            [Entry::Publish(entry)]
        };
        backend.ensure(&owner("blue/c1/eth0"), &entry("10.1.0.5/16", "198.51.100.0/24")).unwrap();
        backend.ensure(&owner("blue/c2/eth0"), &entry("10.1.0.6/16", "203.0.113.0/24")).unwrap();
        let same = backend.ensure(&owner("blue/c3/eth0"), &entry("10.1.0.7/16", "203.0.113.9/24")).unwrap_err();
        assert_eq!(taken_by(&same).1, "container c2 in network blue (10.1.0.6:80)");
    }

    fn an_operators_rules_are_left_alone(tables: &Tables) {
        let mut backend = tables.backend();
        let owner = owner("blue/c1/eth0");
        backend.ensure(&owner, &[forward("10.1.0.5")]).unwrap();
        tables.iptables("-A CNI-ADMIN -s 203.0.113.0/24 -j DROP");
        backend.remove(&owner, &[forward("10.1.0.5")]).unwrap();
        let left = tables.dump();
        // Still asked, though there is no container to ask for.
        assert!(left.contains("-s 203.0.113.0/24 -j DROP") && left.contains("-j CNI-FORWARD"), "{left}");
        tables.iptables("-F CNI-ADMIN");
        backend.remove(&owner, &[forward("10.1.0.5")]).unwrap();
        assert_same("", &tables.dump());
    }

    fn an_operators_own_chain_is_used_and_kept(tables: &Tables) {
        tables.iptables("-N SITE-POLICY");
        let before = tables.dump();
        let mut backend = tables.backend();
        let owner = owner("blue/c1/eth0");
        let entries = [Entry::Forward(Forward {
            address: "10.1.0.5".parse().unwrap(),
            admin_chain: "SITE-POLICY".to_owned(),
            zone: String::new(),
        })];
        // Another network has the usual chain: both are asked first, in whatever order.
        backend.ensure(&owner, &[forward("10.9.0.5")]).unwrap();
        backend.ensure(&owner, &entries).unwrap();
        backend.ensure(&owner, &[forward("10.9.0.5")]).unwrap();
        backend.verify(&owner, &entries).unwrap();
        let dump = tables.dump();
        let accept = dump.find("-s 10.9.0.5/32").unwrap();
        assert!(dump.find("-j SITE-POLICY").unwrap() < accept && dump.find("-j CNI-ADMIN").unwrap() < accept, "{dump}");
        backend.remove(&owner, &entries).unwrap();
        backend.remove(&owner, &[forward("10.9.0.5")]).unwrap();
        assert_same(&before, &tables.dump());
    }

    fn isolation_stays_before_forwarding(tables: &Tables) {
        let mut backend = tables.backend();
        let isolation = [isolate("cni7", IsolationPolicy::SameBridge)];
        let order = || {
            let saved = tables.iptables("-S FORWARD");
            let place = |chain| saved.find(&format!("-j {chain}")).unwrap();
            (place("CNI-ISOLATION-STAGE-1"), place("CNI-FORWARD"))
        };
        backend.ensure(&owner("blue/c1/eth0"), &[isolate("cni7", IsolationPolicy::SameBridge), forward("10.1.0.5")]).unwrap();
        assert!(order().0 < order().1);
        // Somebody flushed FORWARD, and another network without isolation comes first; then somebody put the jump last.
        tables.iptables("-F FORWARD");
        backend.ensure(&owner("red/c2/eth0"), &[forward("10.2.0.5")]).unwrap();
        backend.ensure(&owner("blue/c1/eth0"), &isolation).unwrap();
        assert!(order().0 < order().1);
        tables.iptables("-D FORWARD 1");
        tables.iptables("-A FORWARD -m comment --comment x -j CNI-ISOLATION-STAGE-1");
        backend.verify(&owner("red/c2/eth0"), &[forward("10.2.0.5")]).unwrap_err();
        backend.ensure(&owner("red/c2/eth0"), &[forward("10.2.0.5")]).unwrap();
        assert!(order().0 < order().1);
    }

    fn a_bridge_is_isolated_as_long_as_anybody_is_on_it(tables: &Tables) {
        let mut backend = tables.backend();
        let (first, second) = (owner("blue/c1/eth0"), owner("blue/c2/eth0"));
        let isolation = [isolate("cni7", IsolationPolicy::Isolated)];
        tables.host.netns().run("ip", &["link", "add", "cni7", "type", "bridge"]);
        backend.ensure(&first, &isolation).unwrap();
        let dump = tables.dump();
        backend.ensure(&second, &isolation).unwrap();
        backend.remove(&first, &isolation).unwrap();
        backend.remove(&first, &isolation).unwrap();
        assert_same(&dump, &tables.dump());
        // A port of somebody who registers nowhere, such as the Go suite.
        tables.host.netns().run("ip", &["link", "add", "veth1", "type", "veth", "peer", "name", "veth2"]);
        tables.host.netns().run("ip", &["link", "set", "veth1", "master", "cni7"]);
        backend.remove(&second, &isolation).unwrap();
        assert_same(&dump, &tables.dump());
        // One's own port is still there when one leaves.
        tables.host.netns().run("ip", &["link", "set", "veth1", "alias", "ferrule:blue/c2/eth0"]);
        backend.remove(&second, &isolation).unwrap();
        assert_same("", &tables.dump());
    }

    fn other_bridges_stay_isolated(tables: &Tables) {
        let mut backend = tables.backend();
        let (one, two) = ([isolate("cni1", IsolationPolicy::Isolated)], [isolate("cni2", IsolationPolicy::SameBridge)]);
        backend.ensure(&owner("blue/c1/eth0"), &one).unwrap();
        let dump = tables.dump();
        backend.ensure(&owner("red/c1/eth0"), &two).unwrap();
        backend.verify(&owner("blue/c1/eth0"), &one).unwrap();
        backend.remove(&owner("red/c1/eth0"), &two).unwrap();
        assert_same(&dump, &tables.dump());
    }

    /// The old container's DEL comes after the new one's ADD: runtimes retry.
    fn an_address_given_to_another_container_stays_connected(tables: &Tables) {
        let mut backend = tables.backend();
        let entries = [forward("10.1.0.5")];
        backend.ensure(&owner("blue/old/eth0"), &entries).unwrap();
        backend.ensure(&owner("blue/new/eth0"), &entries).unwrap();
        backend.remove(&owner("blue/old/eth0"), &entries).unwrap();
        backend.remove(&owner("blue/old/eth0"), &entries).unwrap();
        backend.verify(&owner("blue/new/eth0"), &entries).unwrap();
        backend.remove(&owner("blue/new/eth0"), &entries).unwrap();
        assert_same("", &tables.dump());
    }

    fn verify_misses_each_rule_and_ensure_puts_it_back(tables: &Tables) {
        let mut backend = tables.backend();
        let owner = owner("blue/c1/eth0");
        let entries = [
            masquerade("10.1.0.5/16", &["192.168.0.0/16"]),
            ports("10.1.0.5/16", &["tcp 8080:80"]),
            ports("fd00::5/64", &["tcp 8080:80"]),
            forward("10.1.0.5"),
            isolate("cni7", IsolationPolicy::Isolated),
        ];
        backend.ensure(&owner, &entries).unwrap();
        let (mut family, mut table, mut chain, mut rules) = (String::new(), String::new(), String::new(), 0);
        for line in tables.dump().lines() {
            if let Some(place) = line.strip_prefix("# ") {
                (family, table) = place.split_once(' ').map(|(f, t)| (f.to_owned(), t.to_owned())).unwrap();
            } else if line.contains("--ctstate DNAT") {
                // Not asked for by CHECK, because an attachment of the Go suite's has no such rule.
            } else if let Some(rule) = line.strip_prefix("    ") {
                delete_rule(tables, &family, &table, &chain, rule);
                let error = backend.verify(&owner, &entries).unwrap_err();
                assert!(matches!(error, FirewallError::Missing { .. }), "{family} {table} {chain} {rule}: {error}");
                backend.ensure(&owner, &entries).unwrap();
                backend.verify(&owner, &entries).unwrap();
                rules += 1;
            } else {
                line.clone_into(&mut chain);
            }
        }
        assert!(rules > 20, "{rules}");
        backend.remove(&owner, &entries).unwrap();
        assert_same("", &tables.dump());
    }

    fn collect_keeps_a_container_by_any_of_its_interfaces(tables: &Tables) {
        let mut backend = tables.backend();
        for id in ["c1", "c2"] {
            let last = if id == "c1" { 5 } else { 6 };
            let address = format!("10.1.0.{last}/16");
            let owner = owner(&format!("blue/{id}/eth0"));
            backend.ensure(&owner, &[masquerade(&address, &[]), ports(&address, &[&format!("tcp 808{last}:80")])]).unwrap();
        }
        collect(&mut backend, "blue", Role::Interface, &listed(&[("c2", "eth1")]));
        collect(&mut backend, "blue", Role::Publish, &listed(&[("c2", "eth1")]));
        let left = tables.dump();
        assert!(left.contains("10.1.0.6") && left.contains("8086") && !left.contains("10.1.0.5"), "{left}");
        collect(&mut backend, "blue", Role::Interface, &listed(&[]));
        collect(&mut backend, "blue", Role::Publish, &listed(&[]));
        assert_same("", &tables.dump());
    }

    fn many_at_once_leave_nothing(tables: &Tables) {
        std::thread::scope(|scope| {
            for n in 1..=12 {
                scope.spawn(move || {
                    let owner = owner(&format!("blue/c{n}/eth0"));
                    let address = format!("10.1.0.{n}");
                    let mut entry = publish(&format!("{address}/16"), &[]);
                    entry.mappings.push(mapping(&format!("tcp {}:80", 8000 + n)));
                    let entries = [
                        masquerade(&format!("{address}/16"), &[]),
                        Entry::Publish(entry),
                        forward(&address),
                        isolate("cni7", IsolationPolicy::SameBridge),
                    ];
                    let mut backend = tables.backend();
                    for _ in 0..2 {
                        backend.ensure(&owner, &entries).unwrap();
                        backend.verify(&owner, &entries).unwrap();
                        backend.remove(&owner, &entries).unwrap();
                    }
                });
            }
        });
        assert_same("", &tables.dump());
        assert!(!std::path::Path::new("/run/ferrule").exists(), "registers or locks were left");
    }
}
