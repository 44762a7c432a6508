//! `CNI_ARGS` and `args`.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
