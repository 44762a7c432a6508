//! The way out of this host, where no list says which address is its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ferrule_overlay::identity::{Hint, OwnAddress};
use ferrule_overlay::{Family, Invalid, Reason, Underlay};

/// Addresses that nobody has (RFC 5737, RFC 3849): the way to them is the default route.
const ELSEWHERE: [&str; 2] = ["192.0.2.255:9", "[2001:db8:ffff::1]:9"];

/// The addresses that this node is reached at: one a family at most, all of one link.
///
/// `server` is an address of the source of nodes: where nothing else is said, the link on the way to it is taken, since other nodes are
/// likely to be there as well.
pub fn locate(
    hint: &Hint,
    own: &[OwnAddress],
    server: Option<SocketAddr>,
) -> Result<Vec<OwnAddress>, Invalid> {
    let chosen = if let Some(address) = hint.address {
        let found = own.iter().find(|own| own.address == address);
        found.ok_or_else(|| Invalid::new("--underlay-address", address, Reason::NotLocal))?
    } else if let Some(interface) = &hint.interface {
        let mut on_link = own.iter().filter(|own| own.interface == *interface).peekable();
        if on_link.peek().is_none() {
            return Err(Invalid::new("--underlay-interface", interface, Reason::NoLink));
        }
        let found = on_link.find(|own| is_reachable(own.address));
        found.ok_or_else(|| Invalid::new("--underlay-interface", interface, Reason::NoAddressOnLink))?
    } else {
        let elsewhere = ELSEWHERE.iter().filter_map(|text| text.parse().ok());
        let ways = server.into_iter().chain(elsewhere).filter_map(source_towards);
        let mut found = ways.filter_map(|address| own.iter().find(|own| own.address == address));
        let found = found.find(|own| is_reachable(own.address));
        found.ok_or_else(|| Invalid::new("--underlay-interface", "none", Reason::Missing))?
    };
    let mut located = vec![chosen.clone()];
    let other_family = |other: &&OwnAddress| {
        other.interface == chosen.interface
            && other.address.is_ipv4() != chosen.address.is_ipv4()
            && is_reachable(other.address)
    };
    located.extend(own.iter().find(other_family).cloned());
    Ok(located)
}

/// The underlay of a family from what [`locate`] found.
pub fn of_family(located: &[OwnAddress], family: Family) -> Option<Underlay> {
    let own = located.iter().find(|own| own.address.is_ipv4() == family.is_ipv4())?;
    Some(Underlay {
        address: own.address,
        prefix: own.prefix,
        interface: own.interface.clone(),
        mtu: own.mtu,
    })
}

/// The address that packets to a target would leave with. Nothing is sent.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn is_reachable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}

#[cfg(test)]
mod tests {
    use cni::LinkName;

    use super::*;

    fn own(interface: &str, address: &str) -> OwnAddress {
        let interface = LinkName::new(interface).unwrap();
        OwnAddress { address: address.parse().unwrap(), prefix: 24, interface, mtu: 1500 }
    }

    fn host() -> Vec<OwnAddress> {
        vec![
            own("lo", "127.0.0.1"),
            own("eth0", "fe80::1"),
            own("eth0", "198.51.100.1"),
            own("eth0", "2001:db8::1"),
            own("eth1", "203.0.113.1"),
        ]
    }

    fn addresses(hint: &Hint) -> Result<Vec<String>, String> {
        let located = locate(hint, &host(), None).map_err(|invalid| invalid.to_string())?;
        Ok(located.iter().map(|own| own.address.to_string()).collect())
    }

    #[test]
    fn a_link_gives_an_address_of_each_family() {
        let hint = Hint { interface: LinkName::new("eth0").ok(), address: None };
        assert_eq!(addresses(&hint).unwrap(), ["198.51.100.1", "2001:db8::1"]);
    }

    #[test]
    fn an_address_comes_first_and_brings_its_links_other_family() {
        let hint = Hint { interface: None, address: "2001:db8::1".parse().ok() };
        assert_eq!(addresses(&hint).unwrap(), ["2001:db8::1", "198.51.100.1"]);
    }

    #[test]
    fn what_this_host_does_not_have_is_refused() {
        let absent = Hint { interface: None, address: "192.0.2.9".parse().ok() };
        let message = "--underlay-address: this host does not have this address (value: 192.0.2.9)";
        assert_eq!(addresses(&absent).unwrap_err(), message);
        let loopback = Hint { interface: LinkName::new("lo").ok(), address: None };
        assert!(
            addresses(&loopback).unwrap_err().starts_with("--underlay-interface: the link has no address")
        );
    }
}
