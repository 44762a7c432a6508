//! Which way packets to other hosts go, for many hosts at once.

use std::net::IpAddr;

use cni::Cidr;
use nix::errno::Errno;

use super::entry::wire::{GET, RTM_NEWROUTE};
use super::message::{hops, number};
use super::socket::{NLMSG_ERROR, message};
use super::{NetlinkError, PrefixRoute, Tables};
use crate::nfnetlink::{ip, ne32, parse};

/// How many requests go in one message: their answers fit the smallest usual receive buffer.
const CHUNK: usize = 64;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// What the tables say, and not what was learnt of a destination (`RTM_F_FIB_MATCH`, since Linux 4.13).
const FIB_MATCH: u32 = 0x2000;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
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

/// A route to a network, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The route.
    pub route: PrefixRoute,
    /// Index of the link that it leaves through, the first of several; `None` if it leads nowhere.
    pub link: Option<u32>,
    /// The gateway, where there is one.
    pub gateway: Option<IpAddr>,
}

/// What the kernel said to a question.
enum Answer<T> {
    Found(T),
    /// There is no such route.
    Nothing,
    /// There is one that leads nowhere; of IPv4, the kernel does not say which.
    Refused,
}

impl<T> Answer<T> {
    fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Nothing | Self::Refused => None,
        }
    }
}

impl Tables {
    /// The route to each of these addresses; `None` where there is none.
    pub fn paths(&mut self, destinations: &[IpAddr]) -> Result<Vec<Option<Path>>, NetlinkError> {
        let answers = self.look_up(destinations, "hosts", decode)?;
        Ok(answers.into_iter().map(Answer::found).collect())
    }

    /// The route of the main table to exactly each of these networks, the one that is in effect; `None` where there is none. What routes there are
    /// besides does not matter: nothing is listed, but where one leads nowhere.
    pub fn standing(&mut self, networks: &[Cidr]) -> Result<Vec<Option<Standing>>, NetlinkError> {
        // Its last address: what routes within a network there are is rather to its first ones.
        let lasts: Vec<IpAddr> = networks.iter().map(Cidr::last).collect();
        let answers = self.look_up(&lasts, "networks", standing)?;
        let mut dead_ends: [Option<Vec<PrefixRoute>>; 2] = [None, None];
        let mut all = Vec::with_capacity(networks.len());
        for (network, answer) in networks.iter().zip(answers) {
            let ipv4 = network.is_ipv4();
            let refused = matches!(answer, Answer::Refused);
            let mut found = answer.found().filter(|found| found.route.destination == *network);
            if refused {
                let listed = &mut dead_ends[usize::from(ipv4)];
                let routes = match listed {
                    Some(routes) => routes,
                    None => listed.insert(self.all_routes(ipv4)?),
                };
                let route = routes.iter().find(|route| route.destination == *network);
                found = route.map(|route| Standing { route: *route, link: None, gateway: None });
            }
            all.push(found);
        }
        Ok(all)
    }

    fn look_up<T>(
        &mut self,
        destinations: &[IpAddr],
        what: &str,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<Answer<T>>, NetlinkError> {
        let mut found: Vec<Answer<T>> = destinations.iter().map(|_| Answer::Nothing).collect();
        for (chunk, found) in destinations.chunks(CHUNK).zip(found.chunks_mut(CHUNK)) {
            let operation = || format!("look up the routes to {} {what}", chunk.len());
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
                let Some(found) = found.get_mut(index) else { return false };
                match heard.kind {
                    RTM_NEWROUTE => *found = decode(heard.payload).map_or(Answer::Nothing, Answer::Found),
                    NLMSG_ERROR if heard.refusal().is_some_and(|e| e.errno != Errno::ENETUNREACH) => {
                        *found = Answer::Refused;
                    }
                    NLMSG_ERROR => {}
                    _ => return false,
                }
                answers += 1;
                answers == chunk.len()
            })?;
        }
        Ok(found)
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

fn standing(payload: &[u8]) -> Option<Standing> {
    let route = PrefixRoute::decode(payload)?;
    let (mut link, mut gateway) = (None, None);
    for (kind, value) in parse(payload.get(RTMSG..)?) {
        match kind {
            RTA_OIF => link = ne32(value),
            RTA_GATEWAY => gateway = ip(value),
            RTA_MULTIPATH => link = link.or_else(|| hops(value).next()),
            _ => {}
        }
    }
    Some(Standing { route, link, gateway })
}
