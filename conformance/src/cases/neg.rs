//! Version negotiation.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
