//! Numbers of the `nf_tables` interface, under the names of `include/uapi/linux/netfilter/nf_tables.h`.
//!
//! Only those in use. The values are kernel ABI and never change.

pub(super) mod message {
    pub(crate) const NEWTABLE: u8 = 0;
    pub(crate) const GETTABLE: u8 = 1;
    pub(crate) const DELTABLE: u8 = 2;
    pub(crate) const NEWCHAIN: u8 = 3;
    pub(crate) const GETCHAIN: u8 = 4;
    pub(crate) const DELCHAIN: u8 = 5;
    pub(crate) const NEWRULE: u8 = 6;
    pub(crate) const GETRULE: u8 = 7;
    pub(crate) const DELRULE: u8 = 8;
    pub(crate) const NEWSET: u8 = 9;
    pub(crate) const GETSET: u8 = 10;
    pub(crate) const DELSET: u8 = 11;
    pub(crate) const NEWSETELEM: u8 = 12;
    pub(crate) const GETSETELEM: u8 = 13;
    pub(crate) const DELSETELEM: u8 = 14;
    pub(crate) const GETGEN: u8 = 16;
    // Linux 6.3 and later: deletions that succeed when there is nothing to delete.
    pub(crate) const DESTROYTABLE: u8 = 26;
    pub(crate) const DESTROYCHAIN: u8 = 27;
    pub(crate) const DESTROYRULE: u8 = 28;
    pub(crate) const DESTROYSET: u8 = 29;
    pub(crate) const DESTROYSETELEM: u8 = 30;
}

/// `linux/netfilter/nfnetlink.h`
pub(super) mod batch {
    pub(crate) const SUBSYSTEM: u8 = 10;
    pub(crate) const BEGIN: u16 = 16;
    pub(crate) const END: u16 = 17;
    pub(crate) const GENID: u16 = 1;
}

pub(super) mod generation {
    pub(crate) const ID: u16 = 1;
}

/// `NFTA_LIST_*`: any list of like attributes.
pub(super) mod list {
    pub(crate) const ELEM: u16 = 1;
}

pub(super) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const USERDATA: u16 = 6;
}

pub(super) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const USERDATA: u16 = 12;

    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
}

pub(super) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const USERDATA: u16 = 7;
}

pub(super) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LEN: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const USERDATA: u16 = 13;

    pub(crate) const DESC_CONCAT: u16 = 2;
    pub(crate) const FIELD_LEN: u16 = 1;

    pub(crate) const FLAG_INTERVAL: u32 = 0x4;
    pub(crate) const FLAG_MAP: u32 = 0x8;
    pub(crate) const FLAG_CONCAT: u32 = 0x80;

    /// The data type that says "the value is a verdict" (`NFT_DATA_VERDICT`).
    pub(crate) const VERDICT: u32 = 0xffff_ff00;
}

pub(super) mod element {
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;

    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const KEY_END: u16 = 10;

    pub(crate) const FLAG_INTERVAL_END: u32 = 0x1;
    pub(crate) const FLAG_CATCHALL: u32 = 0x2;
}

pub(super) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
}

/// `NFTA_EXPR_*` and the attributes of each expression.
pub(super) mod expression {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;

    pub(crate) const IMMEDIATE_DREG: u16 = 1;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;

    pub(crate) const BITWISE_SREG: u16 = 1;
    pub(crate) const BITWISE_DREG: u16 = 2;
    pub(crate) const BITWISE_LEN: u16 = 3;
    pub(crate) const BITWISE_MASK: u16 = 4;
    pub(crate) const BITWISE_XOR: u16 = 5;

    pub(crate) const CMP_SREG: u16 = 1;
    pub(crate) const CMP_OP: u16 = 2;
    pub(crate) const CMP_DATA: u16 = 3;

    pub(crate) const RANGE_SREG: u16 = 1;
    pub(crate) const RANGE_OP: u16 = 2;
    pub(crate) const RANGE_FROM: u16 = 3;
    pub(crate) const RANGE_TO: u16 = 4;

    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LOOKUP_SREG: u16 = 2;
    pub(crate) const LOOKUP_DREG: u16 = 3;
    pub(crate) const LOOKUP_FLAGS: u16 = 5;
    pub(crate) const LOOKUP_INVERT: u32 = 1;

    pub(crate) const PAYLOAD_DREG: u16 = 1;
    pub(crate) const PAYLOAD_BASE: u16 = 2;
    pub(crate) const PAYLOAD_OFFSET: u16 = 3;
    pub(crate) const PAYLOAD_LEN: u16 = 4;

    pub(crate) const META_DREG: u16 = 1;
    pub(crate) const META_KEY: u16 = 2;
    pub(crate) const META_SREG: u16 = 3;

    pub(crate) const CT_DREG: u16 = 1;
    pub(crate) const CT_KEY: u16 = 2;

    pub(crate) const FIB_DREG: u16 = 1;
    pub(crate) const FIB_RESULT: u16 = 2;
    pub(crate) const FIB_FLAGS: u16 = 3;
    pub(crate) const FIB_RESULT_ADDRTYPE: u32 = 3;
    pub(crate) const FIB_F_SADDR: u32 = 1;
    pub(crate) const FIB_F_DADDR: u32 = 2;

    pub(crate) const NAT_TYPE: u16 = 1;
    pub(crate) const NAT_FAMILY: u16 = 2;
    pub(crate) const NAT_REG_ADDR_MIN: u16 = 3;
    pub(crate) const NAT_REG_PROTO_MIN: u16 = 5;
    pub(crate) const NAT_SNAT: u32 = 0;
    pub(crate) const NAT_DNAT: u32 = 1;

    pub(crate) const MASQ_FLAGS: u16 = 1;
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` in `linux/netfilter/nf_nat.h`.
    pub(crate) const RANDOM_FULLY: u32 = 1 << 4;
}

/// The verdict register, and the first of the sixteen 4-byte registers (`NFT_REG_VERDICT`, `NFT_REG32_00`).
pub(super) mod register {
    pub(crate) const VERDICT: u32 = 0;
    pub(crate) const FIRST: u32 = 8;
    /// All registers together, in bytes: what one concatenation can hold at most (`NFT_DATA_VALUE_MAXLEN`).
    pub(crate) const TOTAL: usize = 64;
}
