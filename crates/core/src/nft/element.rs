//! Elements of sets and maps.

use std::fmt;
use std::net::IpAddr;

use super::abi;
use super::set::{MapTo, Set};
use super::userdata;
use super::value::{self, Concatenation, Value};
use super::verdict::Verdict;
use crate::nfnetlink::{Attributes, be32, find};

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

#[cfg(test)]
mod tests {
    use super::super::DataType;
    use super::*;

    #[test]
    fn a_prefix_covers_its_first_to_its_last_address() {
        let bounds = |address: &str, length| {
            let (first, last) = prefix_bounds(address.parse().unwrap(), length);
            (first.to_string(), last.to_string())
        };
        let pair = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(bounds("10.1.2.3", 24), pair("10.1.2.0", "10.1.2.255"));
        assert_eq!(bounds("10.1.2.3", 32), pair("10.1.2.3", "10.1.2.3"));
        assert_eq!(bounds("10.1.2.3", 0), pair("0.0.0.0", "255.255.255.255"));
        assert_eq!(bounds("fd00::1:2", 112), pair("fd00::1:0", "fd00::1:ffff"));
        assert_eq!(bounds("fd00::", 0), pair("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(bounds("fd00::", 128), pair("fd00::", "fd00::"));
    }

    #[test]
    fn keys_are_counted_up_and_down_across_bytes() {
        assert_eq!(successor(vec![1, 0xff]), Some(vec![2, 0]));
        assert_eq!(successor(vec![0xff, 0xff]), None);
        assert_eq!(predecessor(vec![2, 0]), [1, 0xff]);
    }

    #[test]
    fn ends_and_starts_are_put_together_in_any_order() {
        const SET: Set = Set::new("set", &[DataType::InetService]).interval();
        let raw = |key: [u8; 2], ends_interval| RawElement {
            key: key.to_vec(),
            key_end: None,
            ends_interval,
            value: None,
            comment: None,
        };
        // 10-19, 20-29 right behind it, 0xff00 to the end; and the lone end that nft puts at zero.
        let listed = vec![
            raw([0xff, 0], false),
            raw([0, 20], false),
            raw([0, 20], true),
            raw([0, 30], true),
            raw([0, 0], true),
            raw([0, 10], false),
        ];
        let interval = |first: u16, last: u16| Element::new([first.into()]).through([last.into()]);
        assert_eq!(assemble(&SET, listed), [interval(10, 19), interval(20, 29), interval(0xff00, 0xffff)]);
    }

    #[test]
    fn damaged_elements_are_left_out() {
        const MAP: Set = Set::verdict_map("map", &[DataType::Ipv4Addr]);
        let mut list = Attributes::new();
        let element =
            Element::new([std::net::Ipv4Addr::LOCALHOST.into()]).verdict(Verdict::goto("chain")).comment("c");
        element.encode(&MAP, false, &mut list).unwrap();
        let whole = find(list.as_bytes(), abi::list::ELEM).unwrap();
        assert_eq!(
            assemble(&MAP, RawElement::decode(&MAP, whole).into_iter().collect()),
            std::slice::from_ref(&element)
        );
        for cut in 0..whole.len() {
            let found = assemble(&MAP, RawElement::decode(&MAP, &whole[..cut]).into_iter().collect());
            assert!(found.iter().all(|found| found.key == element.key), "cut at {cut}: {found:?}");
        }
    }
}
