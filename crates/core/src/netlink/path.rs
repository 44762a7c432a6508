//! Which way packets to other hosts go, for many hosts at once.

use std::net::IpAddr;

use super::NetlinkError;
use super::entry::wire::{GET, RTM_NEWROUTE};
use super::message::{hops, number};
use super::tables::{NLMSG_ERROR, Tables, message};
use crate::nfnetlink::{ne32, parse};

/// How many requests go in one message: their answers fit the smallest usual receive buffer.
const CHUNK: usize = 64;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// What the tables say, and not what was learnt of a destination (`RTM_F_FIB_MATCH`, since Linux 4.13).
const FIB_MATCH: u32 = 0x2000;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTAX_MTU: u16 = 2;

/// The route to a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// Indexes of the links that it leaves through.
    pub links: Vec<u32>,
    /// The largest packet on it in bytes, where the route says so.
    pub mtu: Option<u32>,
}

impl Tables {
    /// The route to each of these addresses; `None` where there is none.
    pub fn paths(&mut self, destinations: &[IpAddr]) -> Result<Vec<Option<Path>>, NetlinkError> {
        let mut paths = vec![None; destinations.len()];
        for (chunk, paths) in destinations.chunks(CHUNK).zip(paths.chunks_mut(CHUNK)) {
            let operation = || format!("look up the routes to {} hosts", chunk.len());
            let first = self.next_sequence();
            let mut bytes = Vec::new();
            for (index, destination) in chunk.iter().enumerate() {
                let sequence = if index == 0 { first } else { self.next_sequence() };
                message(&mut bytes, RTM_NEWROUTE + GET, 0, sequence, |into| request(into, *destination));
            }
            self.send(&bytes, &operation)?;
            let mut answers = 0;
            self.receive(&operation, |heard| {
                let index = usize::try_from(heard.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(path) = paths.get_mut(index) else { return false };
                if heard.kind == RTM_NEWROUTE {
                    *path = decode(heard.payload);
                }
                answers += usize::from(matches!(heard.kind, RTM_NEWROUTE | NLMSG_ERROR));
                answers == chunk.len()
            })?;
        }
        Ok(paths)
    }
}

fn request(into: &mut Vec<u8>, destination: IpAddr) {
    let (family, bits, octets) = match destination {
        IpAddr::V4(v4) => (AF_INET, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, 128, v6.octets().to_vec()),
    };
    into.extend_from_slice(&[family, bits, 0, 0, 0, 0, 0, 0]);
    into.extend_from_slice(&FIB_MATCH.to_ne_bytes());
    into.extend_from_slice(&u16::try_from(4 + octets.len()).unwrap_or_default().to_ne_bytes());
    into.extend_from_slice(&RTA_DST.to_ne_bytes());
    into.extend_from_slice(&octets);
}

fn decode(payload: &[u8]) -> Option<Path> {
    let mut path = Path::default();
    for (kind, value) in parse(payload.get(RTMSG..)?) {
        match kind {
            RTA_OIF => path.links.extend(ne32(value)),
            RTA_METRICS => path.mtu = number(value, RTAX_MTU),
            RTA_MULTIPATH => path.links.extend(hops(value)),
            _ => {}
        }
    }
    Some(path)
}
