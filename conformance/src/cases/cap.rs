//! Capabilities and `runtimeConfig`.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
