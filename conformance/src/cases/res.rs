//! The content of results: schemas, interfaces, addresses, DNS.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
