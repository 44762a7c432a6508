//! The configuration on standard input.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
