//! Chains: `prevResult` in, the same and one's own changes out.

mod broken;
mod changes;
mod foreign;
mod links;

use super::{CALLED, Case, INTERFACE, META};
use crate::profile::Kind;

/// What may stand behind another plugin.
const CHAINED: &[Kind] = &[Kind::Meta, Kind::Loopback];

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("CHN-01", "passes-on", CHAINED, changes::passes_on),
    Case::new("CHN-01", "adds-its-own", INTERFACE, changes::adds_its_own),
    Case::new("CHN-02", "each-version", CHAINED, changes::nothing_lost),
    Case::new("CHN-02", "rich", CHAINED, changes::nothing_lost_of_much),
    Case::new("CHN-03", "new-values", META, changes::new_values),
    Case::new("CHN-03", "appended", INTERFACE, changes::appended),
    Case::new("CHN-04", "no-version", CHAINED, changes::no_version),
    Case::new("CHN-05", "unknown-keys", CHAINED, changes::unknown_keys),
    Case::new("CHN-06", "abbreviated", CHAINED, broken::abbreviated),
    Case::new("CHN-07", "no-previous", META, broken::no_previous),
    Case::new("CHN-08", "sorts-of-links", META, links::sorts),
    Case::new("CHN-09", "malformed", CALLED, broken::malformed),
    Case::new("CHN-10", "same-family", CHAINED, broken::same_family),
    Case::new("CHN-10", "other-family", CHAINED, broken::other_family),
    Case::new("CHN-11", "check", CALLED, foreign::check),
    Case::new("CHN-11", "del", CALLED, foreign::del),
];
