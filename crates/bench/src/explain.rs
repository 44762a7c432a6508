//! Where the time goes: the system calls of one ADD, CHECK and DEL that took longest.

use std::fmt::Write as _;

use crate::report::{Count, Report};
use crate::table::short;
use crate::trace::{Counts, Traced};

/// How many calls of each program are shown.
const SHOWN: usize = 6;
/// Shorter ones are never shown, in milliseconds.
const WORTH: f64 = 0.1;

/// For every contender and verb: each program's time in system calls, how often the kernel made it wait, and the longest calls.
///
/// Tracing itself takes some 30 µs a call, so short calls look longer than they are.
pub fn explain(report: &Report) -> String {
    let mut text = String::new();
    for count in &report.counts {
        let Count { scenario, contender, verb, counts, traced } = count;
        let _ = writeln!(
            text,
            "{scenario} {verb}, {contender}: {} programs, {} calls, {} netlink requests, {} waits for the kernel: {} ms",
            counts.execs,
            counts.calls,
            counts.requests,
            counts.waits,
            short(counts.waited_ms)
        );
        for program in traced {
            program_lines(&mut text, program);
        }
    }
    text
}

fn program_lines(text: &mut String, program: &Traced) {
    let counts = Counts::of(&program.calls);
    let _ = writeln!(
        text,
        "  {:<12}{} calls, {} netlink requests, {} waits: {} ms",
        program.plugin,
        counts.calls,
        counts.requests,
        counts.waits,
        short(counts.waited_ms)
    );
    let mut longest: Vec<_> = program.calls.iter().filter(|call| call.milliseconds >= WORTH).collect();
    longest.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    for call in longest.into_iter().take(SHOWN) {
        let waited = if call.waited() { "  <- waits for the kernel" } else { "" };
        let _ = writeln!(
            text,
            "    {:>7} ms  {}({}{waited}",
            short(call.milliseconds),
            call.name,
            call.arguments.trim_end()
        );
    }
}
