//! STATUS: can ADD be served?

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
