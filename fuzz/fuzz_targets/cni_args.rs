//! `CNI_ARGS`, and the names in the environment.
#![no_main]

use cni::{Args, ContainerId, LinkName, NetworkName};
use ferrule_core::Owner;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(input) else { return Corpus::Reject };
    if let Ok(args) = Args::parse(text) {
        let pairs: Vec<(&str, &str)> = text.split(';').filter_map(|pair| pair.split_once('=')).collect();
        for (key, _) in &pairs {
            let last = pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value);
            assert_eq!(args.get(key), last, "the last value of {key:?}");
        }
        let known: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
        if args.get("IgnoreUnknown").is_none() {
            assert!(args.allow_only(&known).is_ok());
            let unknown = known.iter().any(|key| *key != "IP");
            assert_eq!(args.allow_only(&["IP"]).is_err(), unknown);
        }
        let printed: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(Args::parse(&printed.join(";")).as_ref(), Ok(&args), "printed and parsed");
    }
    names(text);
    Corpus::Keep
});

/// What is accepted as a name leads nowhere, and an owner's tag names that owner alone.
fn names(text: &str) {
    let parts: Vec<&str> = text.splitn(3, ';').collect();
    for part in &parts {
        let accepted =
            [ContainerId::new(*part).is_ok(), NetworkName::new(*part).is_ok(), LinkName::new(*part).is_ok()];
        if accepted.contains(&true) {
            assert!(
                !part.is_empty() && *part != "." && *part != ".." && !part.contains(['/', '\0']),
                "{part:?}"
            );
        }
    }
    let [network, container, ifname] = parts[..] else { return };
    let names = (NetworkName::new(network), ContainerId::new(container), LinkName::new(ifname));
    let (Ok(network), Ok(container_id), Ok(ifname)) = names else { return };
    let owner = Owner { network, container_id, ifname };
    let tag = owner.tag();
    assert!(tag.len() <= 128 && Owner::tag_is_of_network(&tag, &owner.network), "{tag}");
    assert_eq!(Owner::tag_in_alias(&owner.alias()), Some(tag.as_str()));
    assert!(tag.starts_with('#') || Owner::from_tag(&tag).as_ref() == Some(&owner), "{tag}");
    assert!(owner.host_veth_name(0).is_some());
}
