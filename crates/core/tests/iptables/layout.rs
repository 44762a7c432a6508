//! What each kind of entry looks like in the tables. The expected dumps are in `testdata/iptables`; that they are what the Go suite
//! makes is shown in `interop`.

use ferrule_core::firewall::{Entry, Firewall, IsolationPolicy, Role};

use crate::in_both_variants;
use crate::support::{
    Tables, Variant, assert_golden, assert_same, forward, isolate, masquerade, owner, publish,
};

/// Ensures entries, compares the dump, and sees that nothing is left when they are removed in the opposite order.
fn assert_layout(tables: &Tables, name: &str, tag: &str, entries: &[Entry]) {
    let mut backend = tables.backend();
    let owner = owner(tag);
    backend.ensure(&owner, entries).unwrap();
    let dump = tables.dump();
    assert_golden(name, &dump);
    backend.verify(&owner, entries).unwrap();
    backend.ensure(&owner, entries).unwrap();
    assert_same(&dump, &tables.dump());
    backend.remove(&owner, entries).unwrap();
    assert_same("", &tables.dump());
    backend.remove(&owner, entries).unwrap();
}

in_both_variants! {
    fn masquerade_of_two_families(tables: &Tables) {
        assert_layout(tables, "masquerade", "blue/c1/eth0", &[
            masquerade("10.1.0.5/16", &[]),
            masquerade("fd00::5/64", &[]),
        ]);
    }

    fn masquerade_with_exclusions(tables: &Tables) {
        assert_layout(tables, "masquerade-exclude", "blue/c1/eth0", &[
            masquerade("10.1.0.5/16", &["10.0.0.0/8", "192.168.7.0/24"]),
        ]);
    }

    fn published_ports(tables: &Tables) {
        assert_layout(tables, "publish", "blue/c1/eth0", &[
            Entry::Publish(publish("10.1.0.5/16", &["tcp 8080:80", "udp 5353:53", "tcp 192.0.2.1 8443:443", "sctp 99:9"])),
            Entry::Publish(publish("fd00::5/64", &["tcp 8080:80", "udp 5353:53", "sctp 99:9"])),
        ]);
    }

    fn more_published_ports_than_one_rule_can_have(tables: &Tables) {
        let ports: Vec<String> = (1..=20).map(|n| format!("tcp {}:{}", 8000 + n, n)).collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        assert_layout(tables, "publish-many", "blue/c1/eth0", &[Entry::Publish(publish("10.1.0.5/16", &ports))]);
    }

    fn published_ports_that_are_all_masqueraded(tables: &Tables) {
        let mut v4 = publish("10.1.0.5/16", &["tcp 8080:80"]);
        v4.masq_all = true;
        v4.mark_bit = 31;
        let mut v6 = publish("fd00::5/64", &["tcp 8080:80"]);
        v6.masq_all = true;
        v6.mark_bit = 31;
        assert_layout(tables, "publish-masq-all", "blue/c1/eth0", &[Entry::Publish(v4), Entry::Publish(v6)]);
    }

    fn published_ports_without_source_nat(tables: &Tables) {
        let mut entry = publish("10.1.0.5/16", &["tcp 0.0.0.0 8080:80"]);
        entry.snat = false;
        assert_layout(tables, "publish-no-snat", "blue/c1/eth0", &[Entry::Publish(entry)]);
    }

    fn published_ports_under_conditions(tables: &Tables) {
        let mut entry = publish("10.1.0.5/16", &["tcp 8080:80"]);
        entry.conditions = ["!", "-s", "198.51.100.1", "-m", "mark", "!", "--mark", "1"].map(str::to_owned).to_vec();
        assert_layout(tables, "publish-conditions", "blue/c1/eth0", &[Entry::Publish(entry)]);
    }

    /// The kernel prints these conditions in other words than the operator's.
    fn conditions_that_cannot_be_recognised(tables: &Tables) {
        let mut backend = tables.backend();
        let mut entry = publish("10.1.0.5/16", &["tcp 8080:80"]);
        entry.conditions = ["-m", "limit", "--limit", "5/m"].map(str::to_owned).to_vec();
        let entries = [Entry::Publish(entry)];
        backend.ensure(&owner("blue/c1/eth0"), &entries).unwrap();
        let dump = tables.dump();
        backend.ensure(&owner("blue/c1/eth0"), &entries).unwrap();
        assert_same(&dump, &tables.dump());
        backend.verify(&owner("blue/c1/eth0"), &entries).unwrap();
        backend.remove(&owner("blue/c1/eth0"), &entries).unwrap();
        assert_same("", &tables.dump());
    }

    fn a_condition_cannot_bring_a_command_of_its_own(tables: &Tables) {
        tables.iptables("-t nat -N PRECIOUS");
        let before = tables.dump();
        let mut entry = publish("10.1.0.5/16", &["tcp 8080:80"]);
        entry.conditions = vec!["-i".to_owned(), "eth0\n-X PRECIOUS".to_owned()];
        tables.backend().ensure(&owner("blue/c1/eth0"), &[Entry::Publish(entry)]).unwrap_err();
        assert_same(&before, &tables.dump());
    }

    fn published_ports_with_somebody_elses_mark_chain(tables: &Tables) {
        tables.iptables("-t nat -N KUBE-MARK-MASQ");
        let before = tables.dump();
        let mut entry = publish("10.1.0.5/16", &["tcp 8080:80"]);
        entry.external_mark_chain = Some("KUBE-MARK-MASQ".to_owned());
        let entries = [Entry::Publish(entry)];
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &entries).unwrap();
        assert_golden("publish-external-mark", &tables.dump());
        backend.remove(&owner("blue/c1/eth0"), &entries).unwrap();
        assert_same(&before, &tables.dump());
    }

    fn forwarding_of_two_families(tables: &Tables) {
        assert_layout(tables, "forward", "blue/c1/eth0", &[forward("10.1.0.5"), forward("fd00::5")]);
    }

    fn an_isolated_bridge(tables: &Tables) {
        assert_layout(tables, "isolate-same-bridge", "blue/c1/eth0", &[
            forward("10.1.0.5"),
            isolate("cni7", IsolationPolicy::SameBridge),
        ]);
    }

    fn isolated_ports_of_a_bridge(tables: &Tables) {
        assert_layout(tables, "isolate-ports", "blue/c1/eth0", &[
            forward("10.1.0.5"),
            isolate("cni7", IsolationPolicy::Isolated),
        ]);
    }

    /// Without addresses there is no family to prefer.
    fn isolation_alone_is_for_both_families(tables: &Tables) {
        assert_layout(tables, "isolate-alone", "blue/c1/eth0", &[isolate("cni7", IsolationPolicy::SameBridge)]);
    }

    /// 255 bytes are what the kernel takes; the Go suite cuts to 256 and is refused.
    fn a_network_and_a_container_with_the_longest_names(tables: &Tables) {
        let tag = format!("{}/{}/eth0", "n".repeat(180), "c".repeat(64));
        let mut backend = tables.backend();
        let owner = ferrule_core::owner::Owner::from_tag(&tag).unwrap();
        let entries = [masquerade("10.1.0.5/16", &[]), Entry::Publish(publish("10.1.0.5/16", &["tcp 8080:80"]))];
        backend.ensure(&owner, &entries).unwrap();
        backend.verify(&owner, &entries).unwrap();
        backend.remove_owner(&owner, Role::Interface, &[]).unwrap();
        backend.remove_owner(&owner, Role::Publish, &[]).unwrap();
        assert_same("", &tables.dump());
    }
}
