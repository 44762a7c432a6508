//! Forgetting tracked connections.
//!
//! The kernel translates only the first packet of a connection by rule; every later one by what it remembered. A UDP peer that
//! keeps sending from the same port therefore keeps reaching the old place after the port mapping changed, for as long as it
//! keeps sending. Whoever changes a mapping deletes the entries of that mapping, and of no other.
//!
//! Interface: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::time::Instant;

use cni::Cidr;
use nix::errno::Errno;

use crate::nfnetlink::{
    self, Answer, Attributes, Kind, Message, Received, Refusal, Socket, be16, be32, find,
};

const SUBSYSTEM: u8 = 1;
const CT_GET: Kind = Kind { subsystem: SUBSYSTEM, message: 1 };
const CT_DELETE: Kind = Kind { subsystem: SUBSYSTEM, message: 2 };
const CT_GET_STATS: Kind = Kind { subsystem: SUBSYSTEM, message: 5 };

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `CTA_FILTER_F_*`, which the kernel keeps in `net/netfilter/nf_internals.h`: the parts of a tuple to compare.
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_IP_DST: u32 = 1 << 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// The tracked connections of the calling thread's network namespace as text; not every kernel has it (`CONFIG_NF_CONNTRACK_PROCFS`).
const PROC: &str = "/proc/thread-self/net/nf_conntrack";

/// Deletions handed to the kernel at once: few enough that their acknowledgements always fit the receive buffer.
const DELETIONS: usize = 64;

/// Why connections could not be forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused, or could not be reached.
    #[error(transparent)]
    Netlink(#[from] nfnetlink::Error),
}

impl Error {
    /// The kernel cannot list connections: it was built or loaded without `nf_conntrack_netlink`.
    pub fn is_unsupported(&self) -> bool {
        let Self::Netlink(error) = self;
        matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT))
    }

    /// `CAP_NET_ADMIN` is missing.
    pub fn is_permission_denied(&self) -> bool {
        let Self::Netlink(error) = self;
        matches!(error.errno(), Some(Errno::EPERM | Errno::EACCES))
    }
}

/// Address family of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// `NFPROTO_*`
    const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Which connections to forget: those that agree with every field that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Address family; an address of another family in a field below matches nothing.
    pub family: Family,
    /// Transport protocol, by its IANA number.
    pub protocol: u8,
    /// The port the first packet was sent to, before translation: the host port of a mapping.
    pub destination_port: Option<u16>,
    /// The address the first packet was sent to, before translation.
    pub destination: Option<IpAddr>,
    /// Networks of which one has to have the address the first packet was sent to; none stand for any.
    pub destination_within: Vec<Cidr>,
    /// Only connections whose destination was translated.
    pub translated: bool,
    /// The address replies come from, which is the destination after translation: the container of a mapping.
    pub reply_source: Option<IpAddr>,
    /// Spares the connections whose replies come from this address: those that a new mapping made already.
    pub except_reply_source: Option<IpAddr>,
}

impl Match {
    /// All connections of that protocol.
    pub const fn new(family: Family, protocol: u8) -> Self {
        Self {
            family,
            protocol,
            destination_port: None,
            destination: None,
            destination_within: Vec::new(),
            translated: false,
            reply_source: None,
            except_reply_source: None,
        }
    }

    /// Whether a line of [`PROC`] may be of a connection that this covers.
    fn may_be(&self, line: &str) -> bool {
        // `ipv4     2 udp      17 29 src=… dst=… sport=… dport=… [UNREPLIED] src=…`: the family, the protocol, and the first of the ports.
        let mut words = line.split_whitespace();
        let family = match words.next() {
            Some("ipv4") => Family::Ipv4,
            Some("ipv6") => Family::Ipv6,
            _ => return true,
        };
        let protocol = words.nth(2).and_then(|word| word.parse().ok());
        let port = words.find_map(|word| word.strip_prefix("dport=")).and_then(|port| port.parse().ok());
        family == self.family
            && protocol.is_none_or(|protocol: u8| protocol == self.protocol)
            && self.destination_port.is_none_or(|wanted| port.is_none_or(|port: u16| port == wanted))
    }

    fn covers(&self, connection: &Connection) -> bool {
        fn agrees<T: PartialEq + Copy>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        Some(self.protocol) == connection.protocol
            && agrees(self.destination_port, connection.destination_port)
            && agrees(self.destination, connection.destination)
            && (self.destination_within.is_empty() || connection.is_to(&self.destination_within))
            && (!self.translated || connection.destination != connection.reply_source)
            && agrees(self.reply_source, connection.reply_source)
            && (self.except_reply_source.is_none() || self.except_reply_source != connection.reply_source)
    }
}

/// Deletes every tracked connection that one of the `matches` covers, and says how many there were.
///
/// Works on the network namespace of the calling thread. The table is read once for each address family, however many matches
/// there are; the kernel leaves out what none of them can cover as far as they agree with each other (Linux 5.8 and later).
///
/// # Errors
/// When the table cannot be read, or an entry not deleted. An entry that expired meanwhile is not an error, and not counted.
pub fn flush(matches: &[Match], deadline: Instant) -> Result<usize, Error> {
    let mut deleted = 0;
    let mut socket = None;
    for family in [Family::Ipv4, Family::Ipv6] {
        let matches: Vec<&Match> = matches.iter().filter(|wanted| wanted.family == family).collect();
        if matches.is_empty() {
            continue;
        }
        let socket = match &mut socket {
            Some(socket) => socket,
            none => none.insert(Socket::open(deadline)?),
        };
        if !may_be_tracked(socket, &matches) {
            continue;
        }
        for chunk in list(socket, family, &matches)?.chunks(DELETIONS) {
            deleted += delete(socket, family, chunk)?;
        }
    }
    Ok(deleted)
}

/// Whether this network namespace may track what one of the matches covers.
///
/// All namespaces share one table, and a dump over netlink locks every place of it in turn: some milliseconds, however few connections are
/// there. `/proc` skips the empty places, in a tenth of the time, but begins again for every page of text: it is for few connections.
fn may_be_tracked(socket: &mut Socket, matches: &[&Match]) -> bool {
    const FEW: u32 = 64;
    let request = Message::new(CT_GET_STATS, 0, 0);
    let count = |answer: Answer<'_>| find(answer.attributes, CTA_STATS_GLOBAL_ENTRIES).and_then(be32);
    // What cannot be told is listed.
    match socket.query(&request, &"count tracked connections", count).as_deref() {
        Ok([0]) => false,
        Ok([count]) if *count <= FEW => fs::read_to_string(PROC)
            .map_or(true, |text| text.lines().any(|line| matches.iter().any(|wanted| wanted.may_be(line)))),
        _ => true,
    }
}

/// Dumps the table of one family and gives deletion requests for what the matches cover.
fn list(socket: &mut Socket, family: Family, matches: &[&Match]) -> Result<Vec<Message>, nfnetlink::Error> {
    let what = format!("list tracked {family} connections");
    let mut request = Message::new(CT_GET, libc::NLM_F_DUMP, family.number());
    filter(matches, &mut request.attributes);
    let read = |answer: Answer<'_>| {
        let connection = Connection::read(answer.attributes);
        matches.iter().any(|wanted| wanted.covers(&connection)).then(|| deletion(family, answer.attributes))
    };
    match socket.query(&request, &what, read) {
        // A kernel that knows the attribute but not one of its flags. Reading everything still works.
        Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL)) => {
            request.attributes = Attributes::new();
            socket.query(&request, &what, read)
        }
        answered => answered,
    }
}

/// Deletes the given entries and counts those that were still there.
fn delete(socket: &mut Socket, family: Family, requests: &[Message]) -> Result<usize, nfnetlink::Error> {
    let what = format!("delete tracked {family} connections");
    let count = requests.len();
    let first = socket.reserve(u32::try_from(count).unwrap_or(u32::MAX));
    let mut bytes = Vec::new();
    for (request, sequence) in requests.iter().zip(first..) {
        request.encode(&mut bytes, sequence, libc::NLM_F_ACK);
    }
    socket.send(&bytes, &what)?;

    let (mut answered, mut deleted, mut refused) = (0, 0, None);
    let complete = socket.receive(&what, |number, received| {
        let Some(index) = number.checked_sub(first).and_then(|index| usize::try_from(index).ok()) else {
            return false;
        };
        match received {
            Received::Done => deleted += 1,
            // Expired, or replaced by another connection between the same endpoints (the id differs then).
            Received::Refused(Refusal { errno: Errno::ENOENT, .. }) => {}
            Received::Refused(refusal) => refused = refused.take().or(Some((index, refusal))),
            Received::Data(_) => return false,
        }
        answered += 1;
        answered == count
    })?;
    match refused {
        Some((index, refusal)) => Err(refusal.into_error(&what, requests.get(index).unwrap_or(&requests[0]))),
        None if complete => Ok(deleted),
        None => Err(nfnetlink::Error::Lost { operation: what }),
    }
}

/// The request that deletes exactly this entry: its original tuple, its zone, and its id.
fn deletion(family: Family, entry: &[u8]) -> Message {
    let mut request = Message::new(CT_DELETE, 0, family.number());
    for kind in [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID] {
        if let Some(payload) = find(entry, kind) {
            match kind {
                CTA_TUPLE_ORIG => request.attributes.nest(kind, |tuple| _ = tuple.raw(payload)),
                _ => request.attributes.bytes(kind, payload),
            };
        }
    }
    request
}

/// Asks the kernel to leave out what none of the matches can cover: whatever they all agree on.
fn filter(matches: &[&Match], into: &mut Attributes) {
    let Some((first, rest)) = matches.split_first() else { return };
    let protocol = common(first, rest, |wanted| Some(wanted.protocol));
    // The kernel reads a port only together with a protocol.
    let port = protocol.and_then(|_| common(first, rest, |wanted| wanted.destination_port));
    // Not for IPv6: there the kernel's comparison is inverted (`!ipv6_addr_cmp()` in `ctnetlink_filter_match_tuple()`, Linux
    // 5.8 to at least 6.18), and leaves out exactly what is wanted.
    let comparable = |address: &IpAddr| first.family == Family::Ipv4 && address.is_ipv4();
    let destination = common(first, rest, |wanted| wanted.destination).filter(comparable);
    let reply_source = common(first, rest, |wanted| wanted.reply_source).filter(comparable);

    let flag = |set: bool, flag| if set { flag } else { 0 };
    let original = flag(destination.is_some(), FILTER_IP_DST)
        | flag(protocol.is_some(), FILTER_PROTO_NUM)
        | flag(port.is_some(), FILTER_PROTO_DST_PORT);
    let reply = flag(reply_source.is_some(), FILTER_IP_SRC);
    if original | reply == 0 {
        return;
    }
    into.nest(CTA_TUPLE_ORIG, |tuple| {
        if let Some(address) = destination {
            tuple.nest(CTA_TUPLE_IP, |ip| address_attribute(ip, address, false));
        }
        if let Some(protocol) = protocol {
            tuple.nest(CTA_TUPLE_PROTO, |proto| {
                proto.bytes(CTA_PROTO_NUM, &[protocol]);
                if let Some(port) = port {
                    proto.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                }
            });
        }
    });
    if let Some(address) = reply_source {
        into.nest(CTA_TUPLE_REPLY, |tuple| {
            tuple.nest(CTA_TUPLE_IP, |ip| address_attribute(ip, address, true));
        });
    }
    into.nest(CTA_FILTER, |filter| {
        // These two are in the machine's byte order (`nla_get_u32`), unlike everything else here.
        filter.bytes(CTA_FILTER_ORIG_FLAGS, &original.to_ne_bytes());
        filter.bytes(CTA_FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    });
}

/// What all matches ask of one field, if they agree.
fn common<T: PartialEq + Copy>(
    first: &Match,
    rest: &[&Match],
    field: impl Fn(&Match) -> Option<T>,
) -> Option<T> {
    field(first).filter(|value| rest.iter().all(|other| field(other) == Some(*value)))
}

/// `CTA_IP_V4_SRC`, `_V4_DST`, `_V6_SRC`, `_V6_DST`: 1 to 4.
const fn address_kind(ipv4: bool, source: bool) -> u16 {
    match (ipv4, source) {
        (true, true) => 1,
        (true, false) => 2,
        (false, true) => 3,
        (false, false) => 4,
    }
}

fn address_attribute(into: &mut Attributes, address: IpAddr, source: bool) {
    match address {
        IpAddr::V4(v4) => into.bytes(address_kind(true, source), &v4.octets()),
        IpAddr::V6(v6) => into.bytes(address_kind(false, source), &v6.octets()),
    };
}

/// What matches look at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Connection {
    protocol: Option<u8>,
    destination_port: Option<u16>,
    destination: Option<IpAddr>,
    reply_source: Option<IpAddr>,
}

impl Connection {
    fn is_to(&self, networks: &[Cidr]) -> bool {
        self.destination.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
    }

    fn read(entry: &[u8]) -> Self {
        let original = find(entry, CTA_TUPLE_ORIG).unwrap_or_default();
        let reply = find(entry, CTA_TUPLE_REPLY).unwrap_or_default();
        let transport = find(original, CTA_TUPLE_PROTO).unwrap_or_default();
        Self {
            protocol: find(transport, CTA_PROTO_NUM).and_then(|bytes| bytes.first().copied()),
            destination_port: find(transport, CTA_PROTO_DST_PORT).and_then(be16),
            destination: read_address(original, false),
            reply_source: read_address(reply, true),
        }
    }
}

fn read_address(tuple: &[u8], source: bool) -> Option<IpAddr> {
    let addresses = find(tuple, CTA_TUPLE_IP)?;
    let v4 = || <[u8; 4]>::try_from(find(addresses, address_kind(true, source))?).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(find(addresses, address_kind(false, source))?).ok().map(IpAddr::from);
    v4().or_else(v6)
}

/// Reads an entry and asks for its deletion, for a fuzz target.
#[cfg(fuzzing)]
pub(crate) fn fuzzing(entry: &[u8]) {
    let connection = Connection::read(entry);
    for family in [Family::Ipv4, Family::Ipv6] {
        let wanted = Match::new(family, 6);
        assert!(!wanted.covers(&connection) || connection.protocol == Some(6));
        assert!(deletion(family, entry).attributes.is_encodable());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_told_by_family_protocol_and_port() {
        let line = "ipv4     2 udp      17 30 src=127.0.0.1 dst=127.0.0.1 sport=1 dport=904 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=904 dport=1 mark=0 zone=0 use=2";
        let udp = Match::new(Family::Ipv4, 17);
        assert!(udp.may_be(line));
        assert!(Match { destination_port: Some(904), ..udp.clone() }.may_be(line));
        assert!(!Match { destination_port: Some(1), ..udp.clone() }.may_be(line), "the port of the replies");
        assert!(!Match { family: Family::Ipv6, ..udp.clone() }.may_be(line));
        assert!(!Match { protocol: 132, ..udp.clone() }.may_be(line));
        assert!(udp.may_be("a line of another kernel"));
    }
}
