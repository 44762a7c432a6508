//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits: far beyond what a healthy machine under load needs, so that only a broken one fails.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Calls `probe` until it yields something, and returns that.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was awaited.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
