//! Delegation to other plugins.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
