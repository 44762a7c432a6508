//! Sets and maps: their declarations.

use std::borrow::Cow;

use super::abi;
use super::userdata::{self, ByteOrder};
use super::value::{self, DataType, Value};
use crate::nfnetlink::Attributes;

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
    pub(super) const fn splits_intervals(&self) -> bool {
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
