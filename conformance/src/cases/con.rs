//! Many at once, and killed in the middle.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
