//! Sets and maps: declarations and their elements.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::abi;
use super::userdata::{self, ByteOrder};
use super::value::{self, Concatenation, DataType, Value};
use crate::nfnetlink::{Attributes, be32, find, text};

/// What a packet's walk through the chains does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let the packet pass this hook.
    Accept,
    /// Discard the packet.
    Drop,
    /// Go on with the next expression or rule.
    Continue,
    /// Go back to the calling chain; in a base chain, apply the policy.
    Return,
    /// Go through another chain, then come back.
    Jump(Cow<'static, str>),
    /// Go through another chain and return to this one's caller.
    Goto(Cow<'static, str>),
}

impl Verdict {
    /// Goes through `chain`, then comes back.
    pub fn jump(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Jump(chain.into())
    }

    /// Goes through `chain` and returns to this one's caller.
    pub fn goto(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Goto(chain.into())
    }

    /// `enum nft_verdicts`, which continues netfilter's `NF_DROP` and `NF_ACCEPT`; and the chain to go to.
    fn parts(&self) -> (i32, Option<&str>) {
        match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Continue => (-1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        }
    }

    /// Adds the verdict as `NFTA_DATA_VERDICT`.
    pub(super) fn encode(&self, into: &mut Attributes) {
        let (code, chain) = self.parts();
        into.nest(abi::data::VERDICT, |verdict| {
            verdict.bytes(abi::data::VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.string(abi::data::VERDICT_CHAIN, chain);
            }
        });
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let code = find(bytes, abi::data::VERDICT_CODE)?.try_into().ok().map(i32::from_be_bytes)?;
        let chain = || find(bytes, abi::data::VERDICT_CHAIN).map(|name| Cow::Owned(text(name)));
        Some(match code {
            0 => Self::Drop,
            1 => Self::Accept,
            -1 => Self::Continue,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// What the elements of a map yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapTo {
    /// A verdict: the map decides where packets go.
    Verdict,
    /// A value, or several, such as the address and port to translate to.
    Data(&'static [DataType]),
}

/// The declaration of a named set or map: enough to create it, and to write and read its elements.
///
/// ```
/// use ferrule_core::nft::{DataType, Set};
/// const PORTS: Set = Set::map("ports", &[DataType::InetProto, DataType::InetService], &[DataType::Ipv4Addr, DataType::InetService]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    pub(super) name: Cow<'static, str>,
    pub(super) key: &'static [DataType],
    pub(super) to: Option<MapTo>,
    pub(super) interval: bool,
    pub(super) comment: Option<&'static str>,
}

impl Set {
    /// A set of keys of the concatenated type `key`.
    pub const fn new(name: &'static str, key: &'static [DataType]) -> Self {
        Self { name: Cow::Borrowed(name), key, to: None, interval: false, comment: None }
    }

    /// A map from keys to data.
    pub const fn map(name: &'static str, key: &'static [DataType], data: &'static [DataType]) -> Self {
        Self { name: Cow::Borrowed(name), key, to: Some(MapTo::Data(data)), interval: false, comment: None }
    }

    /// A map from keys to verdicts.
    pub const fn verdict_map(name: &'static str, key: &'static [DataType]) -> Self {
        Self { name: Cow::Borrowed(name), key, to: Some(MapTo::Verdict), interval: false, comment: None }
    }

    /// Elements are ranges or prefixes rather than single keys. Lookup is then logarithmic, no longer constant.
    #[must_use]
    pub const fn interval(mut self) -> Self {
        self.interval = true;
        self
    }

    /// Sets the comment that `nft list` shows.
    #[must_use]
    pub const fn comment(mut self, comment: &'static str) -> Self {
        self.comment = Some(comment);
        self
    }

    /// The same declaration under another name.
    #[must_use]
    pub fn renamed(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The name, unique among the sets and maps of its table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `map` or `set`, as messages call it.
    pub(super) const fn noun(&self) -> &'static str {
        if self.to.is_some() { "map" } else { "set" }
    }

    /// A single value's intervals are kept as two elements, start and end; a concatenation's as one with two keys.
    const fn splits_intervals(&self) -> bool {
        self.interval && self.key.len() == 1
    }

    /// Why the kernel or `nft` could not do with this declaration.
    pub(super) fn fault(&self) -> Option<String> {
        let too_long = |what, types| {
            let length = value::length(types);
            (length == 0 || length > abi::register::TOTAL)
                .then(|| format!("its {what} has {length} bytes, and 1 to 64 are possible"))
        };
        let host_endian = self.splits_intervals() && self.key[0].is_host_endian();
        too_long("key", self.key)
            .or_else(|| if let Some(MapTo::Data(data)) = self.to { too_long("value", data) } else { None })
            // nft converts such keys to network order in every rule first; nobody needed that here yet.
            .or_else(|| host_endian.then(|| "intervals of names or marks are not supported".to_owned()))
            .or_else(|| self.comment.and_then(userdata::comment_fault).map(str::to_owned))
    }

    /// Adds what describes the set in `NFT_MSG_NEWSET`, without table and name.
    pub(super) fn encode(&self, into: &mut Attributes) {
        // Only concatenations of intervals are concatenations to the kernel; others are keys like any.
        let concatenated = self.interval && self.key.len() > 1;
        let mut flags = 0;
        if self.interval {
            flags |= abi::set::FLAG_INTERVAL;
        }
        if concatenated {
            flags |= abi::set::FLAG_CONCAT;
        }
        if self.to.is_some() {
            flags |= abi::set::FLAG_MAP;
        }
        into.be32(abi::set::FLAGS, flags);
        into.be32(abi::set::KEY_TYPE, value::type_id(self.key));
        into.be32(abi::set::KEY_LEN, length_u32(self.key));
        match self.to {
            Some(MapTo::Data(data)) => {
                into.be32(abi::set::DATA_TYPE, value::type_id(data));
                into.be32(abi::set::DATA_LEN, length_u32(data));
            }
            Some(MapTo::Verdict) => {
                into.be32(abi::set::DATA_TYPE, abi::set::VERDICT);
                into.be32(abi::set::DATA_LEN, 0);
            }
            None => {}
        }
        if concatenated {
            // In bytes, although the kernel's header says bits.
            into.nest(abi::set::DESC, |description| {
                description.nest(abi::set::DESC_CONCAT, |fields| {
                    for part in self.key {
                        fields.nest(abi::list::ELEM, |field| {
                            field.be32(abi::set::FIELD_LEN, length_u32(std::slice::from_ref(part)));
                        });
                    }
                });
            });
        }
        let data = self
            .to
            .map(|to| if let MapTo::Data(data) = to { byte_order(data) } else { ByteOrder::Unspecified });
        into.bytes(abi::set::USERDATA, &userdata::set(byte_order(self.key), data, self.comment));
    }

    /// Adds what asks for the element with this key. An interval over single values is asked for by both its ends.
    pub(super) fn encode_question(&self, key: &[u8], into: &mut Attributes) {
        let ends: &[u32] = if self.splits_intervals() { &[0, abi::element::FLAG_INTERVAL_END] } else { &[0] };
        for flags in ends {
            into.nest(abi::list::ELEM, |element| {
                element.nest(abi::element::KEY, |value| _ = value.bytes(abi::data::VALUE, key));
                if *flags != 0 {
                    element.be32(abi::element::FLAGS, *flags);
                }
            });
        }
    }

    /// Encodes a key as it stands in element messages.
    pub(super) fn encode_key(&self, key: &[Value]) -> Option<Vec<u8>> {
        value::encode(self.key, key)
    }
}

fn length_u32(types: &[DataType]) -> u32 {
    u32::try_from(value::length(types)).unwrap_or(u32::MAX)
}

fn byte_order(types: &[DataType]) -> ByteOrder {
    match types {
        [single] if single.is_host_endian() => ByteOrder::Host,
        [_] => ByteOrder::Network,
        _ => ByteOrder::Unspecified,
    }
}

/// What a key of a map yields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mapped {
    /// For a verdict map.
    Verdict(Verdict),
    /// For a data map: one value for each part of the map's value type.
    Data(Vec<Value>),
}

/// An element of a set or map, to be added or as read back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// One value for each part of the set's key type. In an interval, the first key that belongs to it.
    pub key: Vec<Value>,
    /// In an interval, the last key that belongs to it.
    pub through: Option<Vec<Value>>,
    /// What the key yields, in a map.
    pub value: Option<Mapped>,
    /// Shown by `nft list`; the place to keep the owner.
    pub comment: Option<String>,
}

impl Element {
    /// An element with this key, such as `[Protocol::TCP.into(), 8080.into()]`.
    pub fn new(key: impl Into<Vec<Value>>) -> Self {
        Self { key: key.into(), through: None, value: None, comment: None }
    }

    /// All addresses that share the first `length` bits with `address`.
    pub fn prefix(address: IpAddr, length: u8) -> Self {
        let (first, last) = prefix_bounds(address, length);
        Self::new([first.into()]).through([last.into()])
    }

    /// Makes the element an interval up to and including this key. In a concatenation, each part is an interval by itself.
    #[must_use]
    pub fn through(mut self, last: impl Into<Vec<Value>>) -> Self {
        self.through = Some(last.into()).filter(|last| *last != self.key);
        self
    }

    /// Sets what the key yields in a data map.
    #[must_use]
    pub fn data(mut self, values: impl Into<Vec<Value>>) -> Self {
        self.value = Some(Mapped::Data(values.into()));
        self
    }

    /// Sets what the key yields in a verdict map.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.value = Some(Mapped::Verdict(verdict));
        self
    }

    /// Sets the comment, at most 128 bytes without double quotes.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Adds the element to the list in an element message. `key_only` leaves out what a deletion or a question has no use for.
    pub(super) fn encode(&self, set: &Set, key_only: bool, into: &mut Attributes) -> Result<(), String> {
        let mismatch = |values: &[Value]| {
            format!("'{}' is not of the type of the {}", Concatenation(values), set.noun())
        };
        let encoded = |values: &Vec<Value>| set.encode_key(values).ok_or_else(|| mismatch(values));
        let start = encoded(&self.key)?;
        let end = self.through.as_ref().map(encoded).transpose()?;
        if end.is_some() && !set.interval {
            return Err(format!("the {} holds single keys, not intervals", set.noun()));
        }
        if let Some(end) = &end
            && *end < start
            && set.splits_intervals()
        {
            return Err("the interval ends before it starts".to_owned());
        }
        let data = match (&set.to, &self.value) {
            _ if key_only => None,
            (Some(MapTo::Data(types)), Some(Mapped::Data(values))) => {
                Some(value::encode(types, values).ok_or_else(|| mismatch(values))?)
            }
            (Some(MapTo::Verdict), Some(Mapped::Verdict(_))) | (None, None) => None,
            _ => return Err(format!("its value does not fit the {}", set.noun())),
        };
        if let Some(fault) = self.comment.as_deref().and_then(userdata::comment_fault) {
            return Err(fault.to_owned());
        }

        into.nest(abi::list::ELEM, |element| {
            element.nest(abi::element::KEY, |key| _ = key.bytes(abi::data::VALUE, &start));
            if let Some(end) = end.as_ref().filter(|_| !set.splits_intervals()) {
                element.nest(abi::element::KEY_END, |key| _ = key.bytes(abi::data::VALUE, end));
            }
            if let Some(data) = data {
                element.nest(abi::element::DATA, |value| _ = value.bytes(abi::data::VALUE, &data));
            } else if let Some(Mapped::Verdict(verdict)) = self.value.as_ref().filter(|_| !key_only) {
                element.nest(abi::element::DATA, |value| verdict.encode(value));
            }
            if let Some(comment) = self.comment.as_ref().filter(|_| !key_only) {
                element.bytes(abi::element::USERDATA, &userdata::comment(comment));
            }
        });
        // The end of an interval over single values is an element of its own: the first key that is no longer in it.
        // There is none behind the highest key.
        if set.splits_intervals()
            && let Some(after) = successor(end.unwrap_or(start))
        {
            into.nest(abi::list::ELEM, |element| {
                element.nest(abi::element::KEY, |key| _ = key.bytes(abi::data::VALUE, &after));
                element.be32(abi::element::FLAGS, abi::element::FLAG_INTERVAL_END);
            });
        }
        Ok(())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Concatenation(&self.key).fmt(f)?;
        match &self.through {
            Some(last) => write!(f, " - {}", Concatenation(last)),
            None => Ok(()),
        }
    }
}

/// First and last address of a prefix; host bits of `address` are ignored.
fn prefix_bounds(address: IpAddr, length: u8) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            let bits = address.to_bits();
            (IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into()))
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            let bits = address.to_bits();
            (IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into()))
        }
    }
}

/// The next higher key of that length, big-endian; `None` behind the highest.
fn successor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        let (next, overflowed) = byte.overflowing_add(1);
        *byte = next;
        if !overflowed {
            return Some(key);
        }
    }
    None
}

/// The key before this one.
fn predecessor(mut key: Vec<u8>) -> Vec<u8> {
    for byte in key.iter_mut().rev() {
        let (previous, overflowed) = byte.overflowing_sub(1);
        *byte = previous;
        if !overflowed {
            break;
        }
    }
    key
}

/// An element as the kernel lists it: of an interval over single values, start and end come separately.
#[derive(Debug)]
pub(super) struct RawElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    ends_interval: bool,
    value: Option<Mapped>,
    comment: Option<String>,
}

impl RawElement {
    /// Reads one element. `None` for what is not of the set's declared type, and for the catch-all element.
    pub(super) fn decode(set: &Set, bytes: &[u8]) -> Option<Self> {
        let flags = find(bytes, abi::element::FLAGS).and_then(be32).unwrap_or(0);
        if flags & abi::element::FLAG_CATCHALL != 0 {
            return None;
        }
        let value_of = |bytes| find(bytes, abi::data::VALUE).map(<[u8]>::to_vec);
        let value = match (set.to, find(bytes, abi::element::DATA)) {
            (Some(MapTo::Verdict), Some(data)) => {
                Some(Mapped::Verdict(Verdict::decode(find(data, abi::data::VERDICT)?)?))
            }
            (Some(MapTo::Data(types)), Some(data)) => {
                Some(Mapped::Data(value::decode(types, &value_of(data)?)?))
            }
            _ => None,
        };
        Some(Self {
            key: find(bytes, abi::element::KEY).and_then(value_of)?,
            key_end: find(bytes, abi::element::KEY_END).and_then(value_of),
            ends_interval: flags & abi::element::FLAG_INTERVAL_END != 0,
            value,
            comment: find(bytes, abi::element::USERDATA).and_then(userdata::read_comment),
        })
    }
}

/// Turns the kernel's list into elements, putting starts and ends of intervals together.
pub(super) fn assemble(set: &Set, mut raw: Vec<RawElement>) -> Vec<Element> {
    if set.splits_intervals() {
        // By key; where one interval ends and the next starts at the same key, the end first.
        raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.ends_interval.cmp(&a.ends_interval)));
    }
    let mut elements = Vec::new();
    let mut raw = raw.into_iter().peekable();
    while let Some(start) = raw.next() {
        if start.ends_interval {
            continue; // nft puts a lone end at the lowest key of a new set
        }
        let end = if set.splits_intervals() {
            let end = raw.next_if(|next| next.ends_interval);
            Some(end.map_or_else(|| vec![0xff; start.key.len()], |end| predecessor(end.key)))
        } else {
            start.key_end
        };
        let Some(key) = value::decode(set.key, &start.key) else { continue };
        let through = end.and_then(|end| value::decode(set.key, &end)).filter(|end| *end != key);
        elements.push(Element { key, through, value: start.value, comment: start.comment });
    }
    elements
}
