//! Routes, in results and in the kernel.

use super::Case;

/// The cases.
pub(super) const CASES: &[Case] = &[];
