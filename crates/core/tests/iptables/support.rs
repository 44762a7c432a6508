//! A host with one variant of iptables, and words for what the tests ask of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cni::{NetworkName, ValidAttachments};
use ferrule_core::attachment::Collection;
use ferrule_core::firewall::{
    Entry, Firewall, Forward, Iptables, Isolate, IsolationPolicy, Mapping, Masquerade, Protocol, Publish,
    Role,
};
use ferrule_core::owner::Owner;
use testkit::{Host, Netns, have, workspace_dir};

/// Which iptables a host calls `iptables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Tables of `nf_tables`.
    Nft,
    /// Tables of their own.
    Legacy,
}

impl Variant {
    /// A directory with `iptables`, `ip6tables` and their save and restore, all of this variant; `None` where the variant is not installed.
    fn directory(self) -> Option<PathBuf> {
        let name = match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        };
        let multi = have(&format!("xtables-{name}-multi"))?;
        let directory = PathBuf::from(format!("/run/iptables-{name}"));
        if !directory.exists() {
            std::fs::create_dir(&directory).unwrap();
            for family in ["iptables", "ip6tables"] {
                for program in ["", "-save", "-restore"] {
                    symlink(&multi, directory.join(format!("{family}{program}"))).unwrap();
                }
            }
        }
        Some(directory)
    }
}

/// A host whose iptables is of a variant.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) host: Host,
    pub(crate) directory: PathBuf,
}

impl Tables {
    /// `None` where the variant is not installed.
    pub(crate) fn new(variant: Variant) -> Option<Self> {
        let host = Host::new();
        Some(Self { host, directory: variant.directory()? })
    }

    /// The backend under test.
    pub(crate) fn backend(&self) -> Iptables {
        Iptables::new("test").with_path(&self.directory)
    }

    /// Runs one of the variant's programs in a namespace.
    pub(crate) fn run(&self, netns: &Netns, program: &str, arguments: &str) -> String {
        let program = self.directory.join(program);
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let ran = netns.run(program.to_str().unwrap(), &words);
        assert!(ran.code == 0, "{} {arguments}: {}", program.display(), ran.stderr);
        ran.stdout
    }

    /// Runs `iptables` on the host.
    pub(crate) fn iptables(&self, arguments: &str) -> String {
        self.run(self.host.netns(), "iptables", arguments)
    }

    /// All rules and chains of both families in a namespace, chain by chain: what an empty host has not. Policies other than ACCEPT
    /// count as a rule.
    pub(crate) fn dump_in(&self, netns: &Netns) -> String {
        let mut lines = Vec::new();
        for family in ["iptables", "ip6tables"] {
            for table in ["nat", "filter"] {
                let saved = self.run(netns, &format!("{family}-save"), &format!("-t {table}"));
                let chains = chains(&saved);
                if !chains.is_empty() {
                    lines.push(format!("# {family} {table}"));
                }
                for (chain, rules) in chains {
                    lines.push(chain);
                    lines.extend(rules.iter().map(|rule| format!("    {rule}")));
                }
            }
        }
        lines.iter().map(|line| line.clone() + "\n").collect()
    }

    /// [`Tables::dump_in`] the host.
    pub(crate) fn dump(&self) -> String {
        self.dump_in(self.host.netns())
    }
}

/// The chains of an `iptables-save` output, by name, with their rules in order; not the built-in ones that are empty and accept.
fn chains(saved: &str) -> BTreeMap<String, Vec<String>> {
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in saved.lines() {
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next().unwrap();
            match words.next() {
                Some("-") => drop(chains.entry(name.to_owned()).or_default()),
                Some("ACCEPT") => {}
                policy => chains.entry(name.to_owned()).or_default().push(format!("policy {policy:?}")),
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap();
            chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
        }
    }
    chains
}

/// Compares a dump with `testdata/iptables/NAME.txt`. With `FERRULE_BLESS` set, writes it there instead.
pub(crate) fn assert_golden(name: &str, dump: &str) {
    let file: PathBuf = workspace_dir().join("testdata/iptables").join(format!("{name}.txt"));
    if std::env::var_os("FERRULE_BLESS").is_some() {
        std::fs::write(&file, dump).unwrap();
    }
    assert_same(&read(&file), dump);
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Compares texts and prints both where they differ.
#[track_caller]
pub(crate) fn assert_same(expected: &str, found: &str) {
    assert!(expected == found, "expected:\n{expected}\nfound:\n{found}");
}

/// What a GC of the network removes, past records.
pub(crate) fn collect(backend: &mut Iptables, network: &str, role: Role, valid: &ValidAttachments) {
    let network = NetworkName::new(network).unwrap();
    backend.collect(&Collection::new(&network, "test", valid), role).unwrap();
}

/// The owner `network/container/ifname`.
pub(crate) fn owner(tag: &str) -> Owner {
    Owner::from_tag(tag).unwrap()
}

/// A masquerade entry.
pub(crate) fn masquerade(address: &str, exclude: &[&str]) -> Entry {
    Entry::Masquerade(Masquerade {
        address: address.parse().unwrap(),
        exclude: exclude.iter().map(|cidr| cidr.parse().unwrap()).collect(),
    })
}

/// A mapping written as `tcp 8080:80` or `tcp 192.0.2.1 8080:80`.
pub(crate) fn mapping(text: &str) -> Mapping {
    let words: Vec<&str> = text.split(' ').collect();
    let (host_port, container_port) = words.last().unwrap().split_once(':').unwrap();
    Mapping {
        protocol: Protocol::parse(words[0]).unwrap(),
        host_ip: (words.len() == 3).then(|| words[1].parse().unwrap()),
        host_port: host_port.parse().unwrap(),
        container_port: container_port.parse().unwrap(),
    }
}

/// Published ports as `portmap` asks for them by default.
pub(crate) fn publish(address: &str, mappings: &[&str]) -> Publish {
    Publish {
        address: address.parse().unwrap(),
        mappings: mappings.iter().map(|text| mapping(text)).collect(),
        snat: true,
        masq_all: false,
        mark_bit: 13,
        external_mark_chain: None,
        conditions: Vec::new(),
    }
}

/// A forwarding entry with the default chain.
pub(crate) fn forward(address: &str) -> Entry {
    Entry::Forward(Forward {
        address: address.parse::<IpAddr>().unwrap(),
        admin_chain: "CNI-ADMIN".to_owned(),
        zone: "trusted".to_owned(),
    })
}

/// An isolation entry.
pub(crate) fn isolate(bridge: &str, policy: IsolationPolicy) -> Entry {
    Entry::Isolate(Isolate { bridge: bridge.parse().unwrap(), policy, ports: Vec::new() })
}

/// Makes a test of a function that takes the host: one for each variant, which is skipped aloud where it is not installed.
#[macro_export]
macro_rules! in_both_variants {
    ($($(#[$attribute:meta])* fn $name:ident($tables:ident: &Tables) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs all of the file's imports")]
            use super::*;

            fn run($tables: &Tables) $body

            #[test]
            fn nft() {
                match Tables::new(Variant::Nft) {
                    Some(tables) => run(&tables),
                    None => testkit::skip!("iptables has no nft variant here"),
                }
            }

            #[test]
            fn legacy() {
                match Tables::new(Variant::Legacy) {
                    Some(tables) => run(&tables),
                    None => testkit::skip!("iptables has no legacy variant here"),
                }
            }
        }
    )+};
}
