//! Chain names and comments as the Go suite derives them, so that each suite finds what the other made.

use crate::owner::{Owner, hex_digest};

/// The longest comment the kernel takes: `XT_MAX_COMMENT_LEN` less the NUL.
const COMMENT_LIMIT: usize = 255;

/// Digits of a hash in a chain's name: 28 characters, the limit of xtables, less the prefix.
fn derived(prefix: &str, owner: &Owner) -> String {
    // No separator, and no interface name: what the Go suite hashes.
    let seed = format!("{}{}", owner.network, owner.container_id);
    format!("{prefix}{}", hex_digest(&seed, 28 - prefix.len()))
}

/// The chain in `nat` with a container's masquerade rules.
pub(super) fn masquerade_chain(owner: &Owner) -> String {
    derived("CNI-", owner)
}

/// Whether a chain's name is one of [`masquerade_chain`].
pub(super) fn is_masquerade_chain(name: &str) -> bool {
    name.len() == 28
        && name
            .strip_prefix("CNI-")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// The chain in `nat` with a container's published ports.
pub(super) fn publish_chain(owner: &Owner) -> String {
    derived("CNI-DN-", owner)
}

/// The chain in `nat` that old versions of the Go suite made beside it.
pub(super) fn old_snat_chain(owner: &Owner) -> String {
    derived("CNI-SN-", owner)
}

/// The comment of masquerade rules.
pub(super) fn masquerade_comment(owner: &Owner) -> String {
    fit(format!("name: \"{}\" id: \"{}\"", owner.network, owner.container_id))
}

/// The comment of the rules that lead to [`publish_chain`].
pub(super) fn publish_comment(owner: &Owner) -> String {
    fit(format!("dnat name: \"{}\" id: \"{}\"", owner.network, owner.container_id))
}

/// Cuts a comment as the Go suite does, but to what the kernel takes: its own cut is one byte too long.
fn fit(mut comment: String) -> String {
    if comment.len() > COMMENT_LIMIT {
        comment.truncate(COMMENT_LIMIT - 3); // ASCII only: network names and container ids are
        comment.push_str("...");
    }
    comment
}

/// The network and the container that a comment names; `None` for other comments and for those that were cut.
pub(super) fn read_comment(comment: &str) -> Option<(&str, &str)> {
    let (_, rest) = comment.split_once("name: \"")?;
    let (network, rest) = rest.split_once("\" id: \"")?;
    Some((network, rest.strip_suffix('"')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str) -> Owner {
        Owner {
            network: cni::NetworkName::new(network).unwrap(),
            container_id: cni::ContainerId::new(container).unwrap(),
            ifname: cni::LinkName::new("eth0").unwrap(),
        }
    }

    #[test]
    fn chains_have_the_names_the_go_suite_gives_them() {
        assert_eq!(masquerade_chain(&owner("test", "1234")), "CNI-2bbe0c48b91a7d1b8a6753a8");
        assert_eq!(publish_chain(&owner("mynet", "abc123")), "CNI-DN-70a29d9dc18bc4d652ea5");
        assert_eq!(old_snat_chain(&owner("mynet", "abc123")), "CNI-SN-70a29d9dc18bc4d652ea5");
        assert!(is_masquerade_chain("CNI-2bbe0c48b91a7d1b8a6753a8"));
        assert!(!is_masquerade_chain("CNI-DN-70a29d9dc18bc4d652ea5"));
        assert!(!is_masquerade_chain("CNI-ISOLATION-STAGE-1"));
    }

    #[test]
    fn a_comment_names_its_owner_and_fits() {
        let short = owner("blue", "c1");
        assert_eq!(read_comment(&publish_comment(&short)), Some(("blue", "c1")));
        assert_eq!(read_comment(&masquerade_comment(&short)), Some(("blue", "c1")));
        let long = owner(&"n".repeat(200), &"c".repeat(64));
        assert_eq!(publish_comment(&long).len(), 255);
        assert_eq!(read_comment(&publish_comment(&long)), None);
        assert_eq!(read_comment("CNI portfwd masquerade mark"), None);
    }
}
