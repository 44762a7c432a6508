//! Programs that fail, and others who change the tables at the same time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cni::ValidAttachments;
use ferrule_core::firewall::{Entry, Firewall, FirewallError, Role};

use crate::in_both_variants;
use crate::support::{Tables, Variant, assert_same, collect, forward, masquerade, owner, publish};

/// Puts a script in the place of one of the host's programs; `$REAL` in it is the program.
fn replace(tables: &Tables, program: &str, script: &str) {
    let file = tables.directory.join(program);
    let real = tables.directory.join("real");
    fs::create_dir_all(&real).unwrap();
    fs::rename(&file, real.join(program)).unwrap();
    let text = format!("#!/bin/sh\nREAL={}\n{script}\n", real.join(program).display());
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn ports() -> [Entry; 1] {
    [Entry::Publish(publish("10.1.0.5/16", &["tcp 8080:80"]))]
}

in_both_variants! {
    fn a_chain_that_another_made_meanwhile_is_not_emptied(tables: &Tables) {
        // Between our reading and our writing, somebody else makes the shared chain and puts a rule into it.
        let iptables = tables.directory.join("iptables");
        replace(tables, "iptables-restore", &format!(
            "if ! [ -e /run/raced ]; then touch /run/raced
                {0} -t nat -N CNI-HOSTPORT-DNAT && {0} -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 1 -j RETURN
             fi
             exec $REAL \"$@\"", iptables.display()));
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &ports()).unwrap();
        backend.verify(&owner("blue/c1/eth0"), &ports()).unwrap();
        assert!(tables.dump().contains("-p tcp -m tcp --dport 1 -j RETURN"));
        // It is in use, so our leaving leaves it.
        backend.remove(&owner("blue/c1/eth0"), &ports()).unwrap();
        let left = tables.dump();
        assert!(left.contains("--dport 1 -j RETURN") && left.contains("-j CNI-HOSTPORT-DNAT") && !left.contains("8080"), "{left}");
    }

    fn a_chain_that_another_uses_meanwhile_is_kept(tables: &Tables) {
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &ports()).unwrap();
        let iptables = tables.directory.join("iptables");
        replace(tables, "iptables-restore", &format!(
            "if ! [ -e /run/raced ]; then touch /run/raced
                {0} -t nat -A FORWARDED -j CNI-HOSTPORT-SETMARK
             fi
             exec $REAL \"$@\"", iptables.display()));
        tables.iptables("-t nat -N FORWARDED");
        backend.remove(&owner("blue/c1/eth0"), &ports()).unwrap();
        let left = tables.dump();
        assert!(left.contains("CNI-HOSTPORT-SETMARK") && !left.contains("CNI-HOSTPORT-DNAT"), "{left}");
    }

    fn a_refused_change_says_what_iptables_said(tables: &Tables) {
        let mut entry = publish("10.1.0.5/16", &["tcp 8080:80"]);
        entry.conditions = ["-m", "nonsense"].map(str::to_owned).to_vec();
        let error = tables.backend().ensure(&owner("blue/c1/eth0"), &[Entry::Publish(entry)]).unwrap_err();
        let FirewallError::Program { program, stderr, input, .. } = error else { panic!("{error}") };
        assert!(program.ends_with("iptables-restore"), "{program}");
        assert!(stderr.contains("nonsense"), "{stderr}");
        assert!(input.contains("-m nonsense"), "{input}");
        // All or nothing.
        assert_same("", &tables.dump());
    }

    fn a_lock_that_is_not_released_is_a_matter_of_trying_again(tables: &Tables) {
        replace(tables, "iptables-restore",
            "echo 'Another app is currently holding the xtables lock; waited 30s.' >&2; exit 4");
        let error = tables.backend().ensure(&owner("blue/c1/eth0"), &ports()).unwrap_err();
        assert!(matches!(error, FirewallError::Busy { seconds: 30, .. }), "{error}");
    }

    fn garbage_is_not_taken_for_an_empty_table(tables: &Tables) {
        replace(tables, "iptables-save", "echo 'libfoo: version mismatch'");
        let error = tables.backend().ensure(&owner("blue/c1/eth0"), &ports()).unwrap_err();
        assert!(matches!(&error, FirewallError::Output { line, .. } if line.starts_with("libfoo")), "{error}");
    }

    /// Hosts without IPv6 have no use for ip6tables, and it fails there.
    fn a_family_without_entries_is_not_touched(tables: &Tables) {
        for program in ["ip6tables-save", "ip6tables-restore"] {
            replace(tables, program, "touch /run/touched; exit 3");
        }
        let mut backend = tables.backend();
        let entries = [masquerade("10.1.0.5/16", &[]), forward("10.1.0.5")];
        backend.ensure(&owner("blue/c1/eth0"), &entries).unwrap();
        backend.verify(&owner("blue/c1/eth0"), &entries).unwrap();
        backend.remove(&owner("blue/c1/eth0"), &entries).unwrap();
        assert!(!Path::new("/run/touched").exists());
        backend.ensure(&owner("blue/c1/eth0"), &[forward("fd00::5")]).unwrap_err();
    }

    fn nothing_is_run_where_there_is_no_table(tables: &Tables) {
        for program in ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"] {
            replace(tables, program, "touch /run/touched; exit 3");
        }
        let mut backend = tables.backend();
        backend.remove(&owner("blue/c1/eth0"), &ports()).unwrap();
        for role in [Role::Interface, Role::Publish, Role::Forward] {
            backend.remove_owner(&owner("blue/c1/eth0"), role, &["10.1.0.5".parse().unwrap()]).unwrap();
            collect(&mut backend, "blue", role, &ValidAttachments::default());
        }
        assert!(!Path::new("/run/touched").exists());
        assert_same("", &testkit::nft_text());
    }

    /// As iptables does where the kernel fails its question about the versions of an extension.
    fn a_rule_that_was_made_wrong_is_made_again(tables: &Tables) {
        let wrong = "[ -e /run/once ] && exec $REAL \"$@\"; touch /run/once; sed 's/-j DNAT --to-destination .*/-j DNAT --to-destination 3.0.0.0-3.0.0.1/' | $REAL \"$@\"";
        replace(tables, "iptables-restore", wrong);
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &ports()).unwrap();
        let rules = tables.dump();
        assert!(!rules.contains("3.0.0.0") && rules.contains("--to-destination 10.1.0.5:80"), "{rules}");
        backend.remove(&owner("blue/c1/eth0"), &ports()).unwrap();
        assert!(tables.dump().is_empty(), "{}", tables.dump());
    }

    fn a_rule_that_cannot_be_made_is_an_error(tables: &Tables) {
        replace(tables, "iptables-restore", "sed '/-j DNAT/d' | $REAL \"$@\"");
        let error = tables.backend().ensure(&owner("blue/c1/eth0"), &ports()).unwrap_err();
        assert!(matches!(error, FirewallError::Ineffective { .. }), "{error}");
        assert!(error.to_string().contains("-j DNAT --to-destination 10.1.0.5:80"), "{error}");
    }

    /// Of a rule that says one thing and is another, iptables finds no match.
    fn a_rule_that_is_not_what_it_says_is_deleted_by_number(tables: &Tables) {
        let mut backend = tables.backend();
        backend.ensure(&owner("blue/c1/eth0"), &ports()).unwrap();
        backend.ensure(&owner("blue/c2/eth0"), &[masquerade("10.1.0.6/16", &[])]).unwrap();
        let unmatched = "cat > /run/changes; grep -q -e '-D CNI-DN.* -j DNAT' /run/changes && echo 'Bad rule' >&2 && exit 1; $REAL \"$@\" < /run/changes";
        replace(tables, "iptables-restore", unmatched);
        backend.remove(&owner("blue/c1/eth0"), &ports()).unwrap();
        let rules = tables.dump();
        assert!(!rules.contains("10.1.0.5") && rules.contains("10.1.0.6"), "{rules}");
    }

    /// One read, one write, and a look at it; no write where there is nothing to do. A table with nothing in it is read twice.
    fn programs_are_run_as_seldom_as_can_be(tables: &Tables) {
        for program in ["iptables-save", "iptables-restore"] {
            replace(tables, program, "echo \"${0##*/}\" >> /run/calls; exec $REAL \"$@\"");
        }
        let calls = || {
            let calls = fs::read_to_string("/run/calls").unwrap();
            fs::remove_file("/run/calls").unwrap();
            calls.lines().map(|program| program.trim_start_matches("iptables-").to_owned()).collect::<Vec<_>>().join(" ")
        };
        let (first, second) = (owner("blue/c1/eth0"), owner("blue/c2/eth0"));
        let mut backend = tables.backend();
        backend.ensure(&first, &ports()).unwrap();
        assert_eq!(calls(), "save save restore save");
        backend.ensure(&first, &ports()).unwrap();
        assert_eq!(calls(), "save");
        backend.verify(&first, &ports()).unwrap();
        assert_eq!(calls(), "save");
        let entries = [masquerade("10.1.0.6/16", &[])];
        backend.ensure(&second, &entries).unwrap();
        assert_eq!(calls(), "save restore save");
        backend.remove(&second, &entries).unwrap();
        assert_eq!(calls(), "save restore");
        backend.remove(&first, &ports()).unwrap();
        assert_eq!(calls(), "save restore");
    }
}

/// The nft variant shows no table with something in it that iptables has no words for, and says so with exit status 0.
#[test]
fn a_table_that_iptables_cannot_show_is_an_error() {
    let Some(tables) = Tables::new(Variant::Nft) else { testkit::skip!("iptables has no nft variant here") };
    testkit::tool("nft", &["add table ip nat"]);
    testkit::tool("nft", &["add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }"]);
    testkit::tool("nft", &["add rule ip nat POSTROUTING ip saddr { 10.0.0.1, 10.0.0.2 } counter masquerade"]);
    let before = testkit::nft_text();
    let error = tables.backend().ensure(&owner("blue/c1/eth0"), &ports()).unwrap_err();
    assert!(matches!(error, FirewallError::Incompatible { table: "nat" }), "{error}");
    // Nothing of ours can be in it.
    tables.backend().remove_owner(&owner("blue/c1/eth0"), Role::Publish, &[]).unwrap();
    assert_same(&before, &testkit::nft_text());
}
