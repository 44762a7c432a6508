//! Errors: one document, a code that means something.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
