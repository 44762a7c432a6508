//! Medians and spread.

use std::time::Duration;

use serde::Serialize;

/// What many measurements of one thing come to. Quartiles rather than a mean: on a shared machine the slow ones are the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many there were.
    pub count: usize,
    /// The least.
    pub least: f64,
    /// A quarter was below.
    pub lower: f64,
    /// Half was below.
    pub median: f64,
    /// Three quarters were below.
    pub upper: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Summary {
    /// Of numbers in any order; `None` of none.
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            count: sorted.len(),
            least: *sorted.first()?,
            lower: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper: quantile(&sorted, 0.75),
            greatest: *sorted.last()?,
        })
    }

    /// Of durations, in milliseconds.
    pub fn of_times(times: &[Duration]) -> Option<Self> {
        Self::of(&times.iter().map(|time| milliseconds(*time)).collect::<Vec<_>>())
    }
}

/// A duration in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value at a fraction of the way through sorted numbers, between two of them where none is exactly there.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a short list"
)]
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (position - position.floor())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Summary;

    #[test]
    fn quartiles_lie_between_the_numbers() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            summary,
            Summary { count: 4, least: 1.0, lower: 1.75, median: 2.5, upper: 3.25, greatest: 4.0 }
        );
    }

    #[test]
    fn one_slow_round_does_not_move_the_median() {
        let times = [10, 11, 12, 13, 9_000].map(Duration::from_millis);
        let summary = Summary::of_times(&times).unwrap();
        assert!((summary.median - 12.0).abs() < 1e-9, "{summary:?}");
        assert!((summary.greatest - 9_000.0).abs() < 1e-9, "{summary:?}");
    }

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[5.0]).unwrap();
        assert!([one.lower, one.median, one.upper].iter().all(|value| (value - 5.0).abs() < 1e-9));
    }
}
