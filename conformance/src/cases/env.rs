//! The environment: verbs, variables, and what is refused before anything is done.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
