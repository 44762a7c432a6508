//! Tracked connections of published ports.
//!
//! A peer that keeps sending from the same port keeps its tracked connection, and with it the translation of the connection's first packet.
//! So datagrams to a newly published port would go on to where they went before, and datagrams to a port that is published no more would
//! go on to a container that may be gone. TCP tells by itself: its connections end when nobody answers, and a new one starts anew.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni::Cidr;

use crate::conntrack::{self, Family, Match};
use crate::error::Error;
use crate::firewall::{Entry, Mapping, Protocol, Publish};
use crate::host::Host;

/// How long the kernel may take to list its connections: a million of them take some seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// The protocols without connections of their own, and SCTP, whose associations outlive a path that fails.
const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Sctp];

/// Forgets what was tracked to the mappings before they were there: whatever goes to a host port and not to its container.
pub(super) fn forget_stale(host: &mut Host<'_>, entries: &[Entry]) -> Result<(), Error> {
    if mappings(entries).next().is_none() {
        return Ok(());
    }
    // A container's own traffic to the same port of somebody else is none of this mapping's business.
    let mut local: Vec<Cidr> = host.netlink()?.local_addresses()?.into_iter().map(Cidr::host).collect();
    local.extend(Cidr::new(IpAddr::from([127, 0, 0, 0]), 8));
    let matches: Vec<Match> = mappings(entries)
        .map(|(publish, mapping)| Match {
            destination_within: local.clone(),
            except_reply_source: Some(publish.address.address()),
            ..to_host_port(publish, mapping)
        })
        .collect();
    match conntrack::flush(&matches, Instant::now() + LIMIT) {
        // Without connection tracking there is nothing to forget.
        Err(error) if error.is_unsupported() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Forgets what the mappings have translated. It goes by itself after half a minute, or three, so that it can't be done is no failure.
pub(super) fn forget_translated(entries: &[Entry]) {
    let matches: Vec<Match> = mappings(entries)
        .map(|(publish, mapping)| Match {
            translated: true,
            reply_source: Some(publish.address.address()),
            ..to_host_port(publish, mapping)
        })
        .collect();
    if !matches.is_empty() {
        drop(conntrack::flush(&matches, Instant::now() + LIMIT));
    }
}

/// Forgets every datagram connection that was translated to one of these addresses: for a container whose mappings are not known.
pub fn forget_container(addresses: &[IpAddr]) {
    let matches: Vec<Match> = addresses
        .iter()
        .flat_map(|address| PROTOCOLS.map(|protocol| (address, protocol)))
        .map(|(address, protocol)| Match {
            translated: true,
            reply_source: Some(*address),
            ..Match::new(Family::of(*address), protocol.number())
        })
        .collect();
    if !matches.is_empty() {
        drop(conntrack::flush(&matches, Instant::now() + LIMIT));
    }
}

fn mappings(entries: &[Entry]) -> impl Iterator<Item = (&Publish, &Mapping)> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Publish(publish) => Some(publish),
            _ => None,
        })
        .flat_map(|publish| publish.mappings.iter().map(move |mapping| (publish, mapping)))
        .filter(|(_, mapping)| PROTOCOLS.contains(&mapping.protocol))
}

fn to_host_port(publish: &Publish, mapping: &Mapping) -> Match {
    Match {
        destination_port: Some(mapping.host_port),
        destination: mapping.host_ip,
        ..Match::new(Family::of(publish.address.address()), mapping.protocol.number())
    }
}
