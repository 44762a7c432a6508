//! DEL: everything goes, whatever is missing.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
