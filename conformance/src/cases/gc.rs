//! GC: what no valid attachment owns goes.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
