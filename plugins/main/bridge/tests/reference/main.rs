//! The same configurations run by the Go suite and by ours: results with the same meaning, the same state of host and container.
//!
//! What differs must be in the list of [`differences`], with its reason; what is in the list must occur.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on")]
#![allow(dead_code, reason = "a part of the support of other tests")]

mod differences;
mod networks;
mod side_by_side;
#[path = "../behaviour/support.rs"]
mod support;
