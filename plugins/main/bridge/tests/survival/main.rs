//! What `bridge` leaves when many run at once, and when it is killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "how many calls there were is worth knowing")]
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on")]
#![allow(dead_code, reason = "a part of the support of other tests")]

mod execution;
mod killed;
mod storm;
#[path = "../behaviour/support.rs"]
mod support;
