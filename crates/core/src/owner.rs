//! Who owns a kernel object: the key of all state, and its form where the kernel has room for a text.

use std::collections::BTreeSet;
use std::fmt;

use cni::{Attachment, ContainerId, LinkName, NetworkName, ValidAttachments};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};

/// The owner of everything that one attachment has made: network, container and interface name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The network.
    pub network: NetworkName,
    /// The container.
    pub container_id: ContainerId,
    /// The container's interface.
    pub ifname: LinkName,
}

/// The longest comment nftables prints (`NFTNL_UDATA_COMMENT_MAXLEN`), which is shorter than a link's alias may be (255).
const TAG_LIMIT: usize = 128;

/// What the alias of a link of ours begins with; the owner's tag follows.
const ALIAS: &str = "ferrule:";

impl Owner {
    /// The owner of an attachment to a network.
    pub fn new(network: &NetworkName, attachment: &Attachment) -> Self {
        Self {
            network: network.clone(),
            container_id: attachment.container_id.clone(),
            ifname: attachment.ifname.clone(),
        }
    }

    /// The owner as a text of at most 128 bytes: `network/container/ifname`, none of which may contain a slash. Where that is too
    /// long, `#` and hashes stand for it: one of the network, so that GC still finds its own, and one of the whole.
    pub fn tag(&self) -> String {
        let plain = self.to_string();
        if plain.len() <= TAG_LIMIT {
            return plain;
        }
        format!("#{}/{}", hex_digest(self.network.as_str(), 32), hex_digest(&plain, 48))
    }

    /// The alias of a link that belongs to this owner.
    pub fn alias(&self) -> String {
        format!("{ALIAS}{}", self.tag())
    }

    /// The tag in the alias of a link of ours; `None` for the alias of somebody else's.
    pub fn tag_in_alias(alias: &str) -> Option<&str> {
        alias.strip_prefix(ALIAS)
    }

    /// Whether a tag belongs to an owner in this network.
    pub fn tag_is_of_network(tag: &str, network: &NetworkName) -> bool {
        match tag.strip_prefix('#') {
            Some(hashes) => hashes.split('/').next() == Some(&hex_digest(network.as_str(), 32)),
            None => tag.split('/').next() == Some(network.as_str()),
        }
    }

    /// The tags of the attachments to a network that are in a list.
    pub fn tags(network: &NetworkName, attachments: &ValidAttachments) -> BTreeSet<String> {
        let owners = attachments.iter().filter_map(|(container, ifname)| {
            Some(Self {
                network: network.clone(),
                container_id: ContainerId::new(container).ok()?,
                ifname: LinkName::new(ifname).ok()?,
            })
        });
        owners.map(|owner| owner.tag()).collect()
    }

    /// The owner a tag names; `None` for a hashed tag and for what is no tag.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let mut parts = tag.splitn(3, '/');
        let network = NetworkName::new(parts.next()?).ok()?;
        let container_id = ContainerId::new(parts.next()?).ok()?;
        let ifname = LinkName::new(parts.next()?).ok()?;
        Some(Self { network, container_id, ifname })
    }

    /// The name of the host's end of this owner's veth pair: `veth` and eight hexadecimal digits, as the Go suite's look, but derived,
    /// so that it can be found again. `attempt` gives another name should somebody else have the first.
    pub fn host_veth_name(&self, attempt: u32) -> Option<LinkName> {
        LinkName::new(format!("veth{}", hex_digest(&format!("{self}#{attempt}"), 8))).ok()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// The first `length` hexadecimal digits of the SHA-512 of a text: what the Go suite derives its chain names from.
pub fn hex_digest(text: &str, length: usize) -> String {
    let mut hex = String::with_capacity(128);
    for byte in Sha512::digest(text.as_bytes()) {
        for nibble in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    hex.truncate(length);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str) -> Owner {
        Owner {
            network: NetworkName::new(network).unwrap(),
            container_id: ContainerId::new(container).unwrap(),
            ifname: LinkName::new("eth0").unwrap(),
        }
    }

    #[test]
    fn a_tag_names_its_owner() {
        let owner = owner("blue", "c1");
        assert_eq!(owner.tag(), "blue/c1/eth0");
        assert_eq!(Owner::from_tag(&owner.tag()), Some(owner));
    }

    #[test]
    fn a_long_owner_still_has_a_tag_that_fits_and_belongs_to_its_network() {
        let long = owner("blue", &"c".repeat(200));
        let tag = long.tag();
        assert!(tag.len() <= 128);
        assert!(Owner::tag_is_of_network(&tag, &NetworkName::new("blue").unwrap()));
        assert!(!Owner::tag_is_of_network(&tag, &NetworkName::new("red").unwrap()));
    }

    #[test]
    fn tags_of_a_list_are_those_of_its_owners() {
        let long = "c".repeat(200);
        let attachment = |container: &str| Attachment {
            container_id: ContainerId::new(container).unwrap(),
            ifname: LinkName::new("eth0").unwrap(),
        };
        let valid = ValidAttachments::from_attachments([attachment("c1"), attachment(&long)]);
        let tags = Owner::tags(&NetworkName::new("blue").unwrap(), &valid);
        assert_eq!(tags, BTreeSet::from([owner("blue", "c1").tag(), owner("blue", &long).tag()]));
    }

    #[test]
    fn digests_are_those_the_go_suite_derives_names_from() {
        assert_eq!(hex_digest("test1234", 24), "2bbe0c48b91a7d1b8a6753a8");
        assert_eq!(hex_digest("mynet", 16), "d23676b4f2d9fe04");
    }
}
