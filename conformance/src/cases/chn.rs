//! Chains: `prevResult` in, the same and one's own changes out.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
