//! CHECK: what ADD built is there, and what is broken is told.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
