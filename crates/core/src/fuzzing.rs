//! What the fuzz targets (`fuzz/`) call: readers of what others have written, which are private. Compiled for them only.
//!
//! Each asserts what must hold of whatever it is given, beside that it ends.

pub use crate::attachment::fuzzing::record;
pub use crate::netlink::fuzzing::rtnetlink;
pub use crate::nft::fuzzing::nf_tables;
