//! Hygiene: descriptors, privileges, files, other people's things.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
