//! Where the time goes: the system calls of one ADD, CHECK and DEL that took longest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::{Count, Report, Series};
use crate::suite::{FLOOR, OURS};
use crate::table::short;
use crate::trace::{Counts, Traced};

/// How many calls of each program are shown.
const SHOWN: usize = 6;
/// How many kinds of calls are counted.
const MOST: usize = 10;
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
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for call in &program.calls {
        *by_name.entry(&call.name).or_default() += 1;
    }
    let mut by_name: Vec<_> = by_name.into_iter().collect();
    by_name.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let most: Vec<String> =
        by_name.iter().take(MOST).map(|(name, count)| format!("{count} {name}")).collect();
    let _ = writeln!(text, "    of them {}", most.join(", "));
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

/// Our verbs, plugin by plugin, with what waited for the kernel; and the same of the floor.
pub fn where_time_goes(report: &Report) -> String {
    let mut text = String::new();
    for series in &report.series {
        if let (Some(count), OURS | FLOOR) = (report.count_of(series), series.contender.as_str()) {
            let _ = writeln!(
                text,
                "{:<10} {:<5} {:<5} {}",
                series.scenario,
                series.verb,
                series.contender,
                of_one(series, count)
            );
        }
    }
    text
}

/// `bridge 20.1 ms, portmap 6.3 ms; waits: close(packet socket) 13.1 ms`.
pub fn of_one(series: &Series, count: &Count) -> String {
    let mut plugins: Vec<(&String, &f64)> = series.plugins.iter().collect();
    plugins.sort_by(|a, b| b.1.total_cmp(a.1));
    let plugins: Vec<String> =
        plugins.into_iter().map(|(plugin, time)| format!("{plugin} {} ms", short(*time))).collect();
    let mut waits: Vec<_> =
        count.traced.iter().flat_map(|program| &program.calls).filter(|call| call.waited()).collect();
    waits.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    let waits: Vec<String> =
        waits.iter().map(|call| format!("{} {} ms", call.gist(), short(call.milliseconds))).collect();
    if waits.is_empty() {
        return plugins.join(", ");
    }
    format!("{}; waits: {}", plugins.join(", "), waits.join(", "))
}
