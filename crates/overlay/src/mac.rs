//! Hardware addresses that are computed, so that nobody has to publish them.
//!
//! A tunnel end whose address is made up at random has to tell it to its peers, and peers that miss the news send frames which are dropped: that
//! is how overlays break when a device is made again or renamed by somebody. Here everybody computes the same address from names that
//! everybody knows.

use std::net::IpAddr;

use cni::NetworkName;
use ferrule_core::netlink::MacAddress;
use sha2::{Digest, Sha256};

use crate::names::NodeId;

/// The address of a node's tunnel end in a network.
pub fn vtep(network: &NetworkName, node: &NodeId) -> MacAddress {
    derive(&["vtep", network.as_str(), node.as_str()])
}

/// The address of a container in a bridged network, by its IP address. Peers compute it for every address of a node's blocks.
pub fn container(network: &NetworkName, address: IpAddr) -> MacAddress {
    derive(&["container", network.as_str(), &address.to_string()])
}

/// The address of the gateway of a bridged network: the same on every node, because each is the gateway of its own containers.
pub fn gateway(network: &NetworkName) -> MacAddress {
    derive(&["gateway", network.as_str()])
}

/// 46 bits of a digest; the other two say that the address is locally administered and that of one interface. The parts are separated by a
/// byte that no name contains.
fn derive(parts: &[&str]) -> MacAddress {
    let digest = Sha256::digest(parts.join("/").as_bytes());
    let mut bytes = [0; 6];
    for (byte, digest) in bytes.iter_mut().zip(digest) {
        *byte = digest;
    }
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    MacAddress(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_never_change_from_one_release_to_the_next() {
        let blue = NetworkName::new("blue").unwrap();
        // `printf vtep/blue/a | sha256sum`, with the second lowest bit of the first byte set and the lowest cleared.
        assert_eq!(vtep(&blue, &NodeId::new("a").unwrap()).to_string(), "22:36:c1:37:5e:b0");
        assert_eq!(container(&blue, "10.40.1.2".parse().unwrap()).to_string(), "f2:f7:a1:10:8a:d1");
        assert_eq!(gateway(&blue).to_string(), "42:af:fc:f7:35:1f");
    }

    #[test]
    fn an_address_is_locally_administered_and_no_groups() {
        let blue = NetworkName::new("blue").unwrap();
        for number in 0..1000 {
            let MacAddress(bytes) = vtep(&blue, &NodeId::new(format!("node{number}")).unwrap());
            assert_eq!(bytes[0] & 3, 2);
        }
    }
}
