//! User data: bytes the kernel keeps for userspace beside an object. `nft` keeps comments and type hints there.
//!
//! The layout is libnftnl's (`include/libnftnl/udata.h`): one byte type, one byte length, the value.

/// Types of the entries beside a table, chain, rule or element (`NFTNL_UDATA_*_COMMENT`); a set's comment has its own.
const COMMENT: u8 = 0;
const SET_KEY_BYTEORDER: u8 = 0;
const SET_DATA_BYTEORDER: u8 = 1;
const SET_COMMENT: u8 = 7;

/// `nft` refuses longer comments when it reads a listing back (`NFTNL_UDATA_COMMENT_MAXLEN`).
pub(super) const COMMENT_MAX: usize = 128;

/// What is wrong with a comment, if anything. `nft` prints comments between double quotes, and knows no escapes.
pub(super) fn comment_fault(comment: &str) -> Option<&'static str> {
    if comment.len() > COMMENT_MAX {
        Some("the comment is longer than the 128 bytes nft can read back")
    } else if comment.contains(['"', '\n', '\0']) {
        Some("the comment contains a quote, newline or NUL, which nft cannot read back")
    } else {
        None
    }
}

/// The comment of a table, chain, rule or element.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 3);
    push_comment(&mut bytes, COMMENT, text);
    bytes
}

/// Reads back what [`comment`] wrote.
pub(super) fn read_comment(mut bytes: &[u8]) -> Option<String> {
    loop {
        let [kind, length, rest @ ..] = bytes else { return None };
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(crate::nfnetlink::text(value));
        }
        bytes = &rest[value.len()..];
    }
}

/// In what byte order a value is kept, as `nft` numbers it (`enum byteorder`).
#[derive(Debug, Clone, Copy)]
pub(super) enum ByteOrder {
    /// A concatenation, each part in its own order; or a verdict.
    Unspecified = 0,
    Host = 1,
    Network = 2,
}

/// What `nft` needs to print a set as it was declared.
pub(super) fn set(key: ByteOrder, data: Option<ByteOrder>, comment: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |kind, order: ByteOrder| {
        bytes.extend_from_slice(&[kind, 4]);
        bytes.extend_from_slice(&(order as u32).to_ne_bytes());
    };
    push(SET_KEY_BYTEORDER, key);
    if let Some(data) = data {
        push(SET_DATA_BYTEORDER, data);
    }
    if let Some(text) = comment {
        push_comment(&mut bytes, SET_COMMENT, text);
    }
    bytes
}

fn push_comment(bytes: &mut Vec<u8>, kind: u8, text: &str) {
    // Longer texts were refused before (COMMENT_MAX); should one get here, losing its end is better than a wrong length.
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX - 1);
    bytes.extend_from_slice(&[kind, length + 1]);
    bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_laid_out_as_nft_does() {
        assert_eq!(comment("own"), b"\x00\x04own\x00");
        assert_eq!(read_comment(b"\x00\x04own\x00").as_deref(), Some("own"));
        assert_eq!(
            read_comment(b"\x05\x01x\x00\x04own\x00").as_deref(),
            Some("own"),
            "other entries are skipped"
        );
        assert_eq!(read_comment(b"\x00\x09own\x00"), None, "a length beyond the end");
    }

    #[test]
    fn a_set_says_the_byte_order_of_key_and_data() {
        let expected = [[0, 4].as_slice(), &1_u32.to_ne_bytes(), &[1, 4], &0_u32.to_ne_bytes()].concat();
        assert_eq!(set(ByteOrder::Host, Some(ByteOrder::Unspecified), None), expected);
    }

    #[test]
    fn comments_nft_could_not_read_back_are_faulty() {
        assert_eq!(comment_fault(&"x".repeat(128)), None);
        assert!(comment_fault(&"x".repeat(129)).is_some());
        assert!(comment_fault("say \"hi\"").is_some());
    }
}
