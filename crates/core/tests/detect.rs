//! Who owns the forward path, on hosts of each sort: what is found there, and that packets pass in the backend it leads to.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use ferrule_core::firewall::detect::{Evidence, Sign, Variant, detect};
use ferrule_core::firewall::{Backend, Entry, Forward, open, probe};
use ferrule_core::owner::Owner;
use testkit::{Container, Host, Uplink, have, nft_text, ping, set_sysctl, tool};

/// Docker's, without anything running: it sets the policy itself.
const DOCKER: &str = "\
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -j RETURN
COMMIT
";

/// ufw's with its default, `DEFAULT_FORWARD_POLICY=\"DROP\"`.
const UFW: &str = "\
*filter
:FORWARD DROP
:ufw-before-forward -
:ufw-reject-forward -
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// An administrator's own: everything is accepted, but for the last rule of a chain.
const OWN_RULES: &str = "\
*filter
:SITE -
:SITE-END -
:UNUSED -
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment \"only counts\"
-A FORWARD -j SITE
-A SITE -i lo -j ACCEPT
-A SITE -g SITE-END
-A SITE-END -j REJECT
COMMIT
";

/// Nothing that drops what is forwarded.
const HARMLESS: &str = "\
*filter
:UNUSED -
-A INPUT -p tcp --dport 22 -j DROP
-A FORWARD -p tcp --dport 1 -j LOG
-A FORWARD -p tcp --dport 2 -j ACCEPT
-A UNUSED -j DROP
COMMIT
";

fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut child =
        Command::new(have(program).unwrap()).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Runs `check` for both variants and families, on hosts with these rules. The name of the restore program is the first argument.
fn with_rules(variant: Variant, ipv6: bool, rules: &str) {
    let family = if ipv6 { "ip6tables" } else { "iptables" };
    let variant = if variant == Variant::Nft { "nft" } else { "legacy" };
    feed(&format!("{family}-{variant}-restore"), &[], rules);
}

fn iptables(variant: Variant, ipv6: bool, sign: Sign) -> Vec<Evidence> {
    vec![Evidence::Iptables { variant, ipv6, sign }]
}

fn drop_in(chain: &str) -> Sign {
    Sign::Drop(chain.to_owned())
}

fn nft(rules: &str) {
    feed("nft", &["-f", "-"], rules);
}

/// A container that routes through the host to a neighbour outside who knows the way back.
struct Path {
    container: Container,
    _uplink: Uplink,
}

impl Path {
    fn new(host: &Host) -> Self {
        let uplink = host.uplink();
        let container = host.container("c1");
        set_sysctl("net/ipv4/ip_forward", "1");
        let ip = |arguments: &str| tool("ip", &arguments.split(' ').collect::<Vec<_>>());
        ip("link add veth1 type veth peer name eth0 netns c1");
        ip("addr add 10.1.0.1/24 dev veth1");
        ip("link set veth1 up");
        for arguments in
            ["addr add 10.1.0.5/24 dev eth0", "link set eth0 up", "route add default via 10.1.0.1"]
        {
            container.run("ip", &arguments.split(' ').collect::<Vec<_>>());
        }
        uplink.run("ip", &["route", "add", "10.1.0.0/24", "via", "192.0.2.1"]);
        let path = Self { container, _uplink: uplink };
        assert!(path.is_open(), "nothing is in the way yet");
        path
    }

    fn is_open(&self) -> bool {
        ping(&self.container, Uplink::OUTSIDE_IPV4)
    }
}

/// Lets the container's packets through in the backends that detection leads to, and sees them pass.
fn assert_passes(path: &Path, backends: &[Backend]) {
    let owner = Owner::from_tag("blue/c1/eth0").unwrap();
    let entries = [Entry::Forward(Forward {
        address: "10.1.0.5".parse().unwrap(),
        admin_chain: "CNI-ADMIN".to_owned(),
        zone: "trusted".to_owned(),
    })];
    for backend in backends {
        open(*backend, "test").ensure(&owner, &entries).unwrap();
    }
    assert!(path.is_open(), "packets do not pass with {backends:?}");
    for backend in backends {
        open(*backend, "test").remove(&owner, &entries).unwrap();
    }
}

#[test]
fn nobody() {
    let host = Host::new();
    let path = Path::new(&host);
    let found = detect().unwrap();
    assert_eq!(found.evidence, []);
    assert_eq!(found.backends, [Backend::Nftables]);
    assert_passes(&path, &found.backends);
    // Nothing was made by looking, and what we made is nobody's.
    assert_eq!(nft_text(), "");
    assert_eq!(std::fs::read_to_string("/proc/net/ip_tables_names").unwrap(), "");
}

/// Runs a test on a host of each variant; each has a process of its own.
macro_rules! on_each_variant {
    ($($(#[$attribute:meta])* fn $name:ident($variant:ident: Variant) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            fn run($variant: Variant) $body

            #[test]
            fn nft() {
                if have("iptables-nft-restore").is_none() {
                    testkit::skip!("iptables has no nft variant here");
                }
                run(Variant::Nft);
            }

            #[test]
            fn legacy() {
                if have("iptables-legacy-restore").is_none() {
                    testkit::skip!("iptables has no legacy variant here");
                }
                run(Variant::Legacy);
            }
        }
    )+};
}

on_each_variant! {
    fn a_policy_of_drop(variant: Variant) {
        let _host = Host::new();
        with_rules(variant, false, DOCKER);
        assert_eq!(detect().unwrap().evidence, iptables(variant, false, Sign::Policy));
        assert_eq!(detect().unwrap().backends, [Backend::Iptables]);
        with_rules(variant, true, UFW);
        assert_eq!(detect().unwrap().evidence.len(), 2);
    }

    fn a_drop_that_no_program_here_can_overrule(variant: Variant) {
        let _host = Host::new();
        with_rules(variant, false, &DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"));
        let program = have("iptables-save").unwrap();
        let hide = || tool("mount", &["--bind", "/dev/null", program.to_str().unwrap()]);
        hide();
        // Chains of somebody's alone drop nothing.
        assert_eq!(detect().unwrap().backends, [Backend::Nftables]);
        tool("umount", &[program.to_str().unwrap()]);
        with_rules(variant, false, DOCKER);
        hide();
        assert_eq!(detect().unwrap().backends, [Backend::Iptables]);
        let missing = probe(Backend::Iptables).unwrap_err().to_string();
        assert!(missing.contains("iptables-save"), "{missing}");
    }

    fn chains_of_somebody_who_filters(variant: Variant) {
        let _host = Host::new();
        with_rules(variant, false, &DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"));
        with_rules(variant, true, &UFW.replace("FORWARD DROP", "FORWARD ACCEPT"));
        let mut expected = iptables(variant, false, Sign::Chain("DOCKER".to_owned()));
        expected.extend(iptables(variant, true, Sign::Chain("ufw-before-forward".to_owned())));
        assert_eq!(detect().unwrap().evidence, expected);
        with_rules(variant, false, "*filter\n:FORWARD ACCEPT\n:CNI-FORWARD -\nCOMMIT\n");
        assert!(detect().unwrap().evidence.contains(&iptables(variant, false, Sign::Chain("CNI-FORWARD".to_owned()))[0]));
    }

    fn a_rule_that_drops_at_the_end_of_the_way(variant: Variant) {
        let _host = Host::new();
        for ipv6 in [false, true] {
            with_rules(variant, ipv6, OWN_RULES);
        }
        let mut expected = iptables(variant, false, drop_in("SITE-END"));
        expected.extend(iptables(variant, true, drop_in("SITE-END")));
        assert_eq!(detect().unwrap().evidence, expected);
        for ipv6 in [false, true] {
            with_rules(variant, ipv6, "*filter\n-A FORWARD -p tcp --dport 1\n-A FORWARD -p udp -j DROP\nCOMMIT\n");
        }
        let mut expected = iptables(variant, false, drop_in("FORWARD"));
        expected.extend(iptables(variant, true, drop_in("FORWARD")));
        assert_eq!(detect().unwrap().evidence, expected);
    }

    fn rules_that_drop_nothing_that_is_forwarded(variant: Variant) {
        let _host = Host::new();
        for ipv6 in [false, true] {
            with_rules(variant, ipv6, HARMLESS);
        }
        assert_eq!(detect().unwrap().evidence, []);
        assert_eq!(detect().unwrap().backends, [Backend::Nftables]);
    }
}

/// `iptables` is of the nft variant here or of the other, so only hosts whose rules are in that one can be helped by it.
#[test]
fn packets_pass_on_hosts_that_iptables_rules() {
    let version = Command::new(have("iptables").unwrap()).arg("--version").output().unwrap();
    let nft = String::from_utf8(version.stdout).unwrap().contains("nf_tables");
    let variant = if nft { Variant::Nft } else { Variant::Legacy };
    let host = Host::new();
    let path = Path::new(&host);
    for rules in [DOCKER, UFW, OWN_RULES] {
        with_rules(variant, false, "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n");
        with_rules(variant, false, rules);
        assert!(!path.is_open(), "this host drops nothing: {rules}");
        let found = detect().unwrap();
        assert_eq!(found.backends, [Backend::Iptables], "{:?}", found.evidence);
        assert_passes(&path, &found.backends);
        assert!(!path.is_open(), "something of ours was left");
    }
}

#[test]
fn chains_of_nftables_that_are_nobodys_we_know() {
    let _host = Host::new();
    let foreign = |table: &str, chain: &str, by_policy| Evidence::ForeignNftables {
        table: table.to_owned(),
        chain: chain.to_owned(),
        by_policy,
    };
    nft("table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }");
    let found = detect().unwrap();
    assert_eq!(found.evidence, [foreign("inet filter", "forward", true)]);
    assert_eq!(found.backends, [Backend::Nftables]);
    assert_eq!(found.obstacles().count(), 1);
    let text = found.obstacles().next().unwrap().to_string();
    assert_eq!(text, "nftables chain `inet filter forward` has policy drop");

    nft("flush ruleset
         table ip site { chain way { type filter hook forward priority 5; jump more; }; chain more { ip daddr 10.9.0.0/16 drop; }; }
         table ip6 site { chain way { type filter hook forward priority 5; tcp dport 1 reject; }; }");
    let expected = [foreign("ip site", "way", false), foreign("ip6 site", "way", false)];
    assert_eq!(detect().unwrap().evidence, expected);

    nft("flush ruleset
         table inet maps { map verdicts { type ipv4_addr : verdict; };
                           chain way { type filter hook forward priority 5; ip daddr vmap @verdicts; }; }");
    assert_eq!(detect().unwrap().evidence, [foreign("inet maps", "way", false)]);

    nft("flush ruleset
         table inet harmless { chain way { type filter hook forward priority 5; counter; ct state established accept; };
                               chain entry { type filter hook input priority 5; policy drop; };
                               chain unused { drop; }; }
         table bridge other { chain way { type filter hook forward priority 5; policy drop; }; }");
    assert_eq!(detect().unwrap().evidence, []);
}
