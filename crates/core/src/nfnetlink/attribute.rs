//! Netlink attributes: a 16-bit length, a 16-bit type, the payload, padded to four bytes; nested at will.

use std::net::IpAddr;

/// Set by the sender on an attribute that contains attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// What remains of the type field when the two flag bits are taken off (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// A list of attributes under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
    /// Something did not fit its field. Kept as a flag so that building stays a chain of plain calls.
    unencodable: bool,
}

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// False when a payload exceeded the 16-bit length or a string contained a NUL; such a list must not be sent.
    pub(crate) fn is_encodable(&self) -> bool {
        !self.unencodable
    }

    /// Adds one attribute with an opaque payload.
    pub(crate) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start)
    }

    /// Adds a string with the terminating NUL that users of netfilter and rtnetlink send.
    pub(crate) fn string(&mut self, kind: u16, text: &str) -> &mut Self {
        self.unencodable |= text.contains('\0');
        let start = self.open(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.close(start)
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// A number as rtnetlink has it, in this machine's order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn ip(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.bytes(kind, &v4.octets()),
            IpAddr::V6(v6) => self.bytes(kind, &v6.octets()),
        }
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that contains the attributes which `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_unmarked(kind | NESTED, fill)
    }

    /// The same without the flag, which rtnetlink does not ask for in what is older than the flag.
    pub(crate) fn nest_unmarked(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind);
        fill(self);
        self.close(start)
    }

    /// Adds attributes that were built before.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.unencodable |= other.unencodable;
        self.raw(&other.bytes)
    }

    /// Adds attributes that are encoded already, as they came from the kernel.
    pub(crate) fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(encoded);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) -> &mut Self {
        let length = self.bytes.len() - start;
        match u16::try_from(length) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.unencodable = true,
        }
        // The padding belongs to no attribute, but does count in an enclosing one.
        self.bytes.resize(start + length.next_multiple_of(4), 0);
        self
    }
}

/// Walks a list of attributes as (type, payload). Ends at the first one that does not fit, so damaged input cannot be over-read.
pub(crate) fn parse(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & TYPE_MASK;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of this type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    parse(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

/// A number as rtnetlink has it, in this machine's order.
pub(crate) fn ne32(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_ne_bytes)
}

/// An address; its length says of which family.
pub(crate) fn ip(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => <[u8; 4]>::try_from(payload).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(payload).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(crate) fn be16(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_be_bytes)
}

pub(crate) fn be32(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

pub(crate) fn be64(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_be_bytes)
}

/// A string attribute, with or without its terminating NUL. Names are bytes to the kernel; what is not UTF-8 is shown as such.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_lengths_count_the_padding() {
        let mut list = Attributes::new();
        list.string(1, "ab").nest(2, |inner| {
            inner.bytes(3, &[9]);
            inner.be32(4, 5);
        });
        let mut expected = vec![7, 0, 1, 0, b'a', b'b', 0, 0];
        expected.extend([20, 0, 2, 0x80, 5, 0, 3, 0, 9, 0, 0, 0, 8, 0, 4, 0, 0, 0, 0, 5]);
        if cfg!(target_endian = "little") {
            assert_eq!(list.as_bytes(), expected);
        }
        let nested = find(list.as_bytes(), 2).unwrap();
        assert_eq!(find(nested, 4).and_then(be32), Some(5));
        assert_eq!(find(list.as_bytes(), 1).map(text).as_deref(), Some("ab"));
    }

    #[test]
    fn a_truncated_list_ends_early_instead_of_reading_past_its_end() {
        let mut list = Attributes::new();
        list.be32(1, 1).be32(2, 2);
        for cut in 0..list.as_bytes().len() {
            let found = parse(&list.as_bytes()[..cut]).count();
            assert_eq!(found, cut / 8, "cut at {cut}");
        }
        assert_eq!(parse(&[3, 0, 1, 0]).count(), 0, "a length below the header's own would loop for ever");
    }

    #[test]
    fn what_does_not_fit_is_flagged() {
        let mut list = Attributes::new();
        list.bytes(1, &vec![0; 70_000]);
        assert!(!list.is_encodable());
        let mut list = Attributes::new();
        list.string(1, "a\0b");
        assert!(!list.is_encodable());
    }
}
