//! The bench end to end: a tiny run, with the plugins that tests are about.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has to fail")]

use std::path::Path;

use bench::report::{Metric, Report};
use bench::scenario::{Bench, SCENARIOS};
use bench::suite::{Contender, FLOOR, OURS, Suite};
use testkit::{Host, Snapshot, have, may_trace, plugin_dir, skip};

const ROUNDS: u16 = 2;

/// What a run of one scenario measured.
fn measure(host: Host, name: &str) -> Report {
    let ours = Suite::ours(&plugin_dir()).expect("the plugins under test");
    let floor = Contender::Floor { program: Path::new(env!("CARGO_BIN_EXE_bench-floor")).to_owned() };
    let contenders = vec![Contender::Suite(ours), floor];
    let mut bench = Bench { base: host, contenders, rounds: ROUNDS, report: Report::default() };
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario");
    scenario.run(&mut bench).expect("a run");
    bench.report
}

#[test]
fn a_round_has_times_counts_and_memory_of_everyone() {
    if have("strace").is_none() || !may_trace() {
        skip!("strace is not installed, or may not trace here");
    }
    let host = Host::new();
    let before = Snapshot::take();
    let report = measure(host, "chain-dual");
    before.assert_same(&Snapshot::take());

    for (who, verbs) in [(OURS, "ADD+CHECK+DEL"), (FLOOR, "ADD+DEL")] {
        for metric in [Metric::Wall, Metric::Cpu] {
            let value = report.value("chain-dual", who, verbs, metric);
            assert!(value.is_some_and(|value| value > 0.0), "{who} {metric:?}: {value:?}");
        }
        let memory = report.value("chain-dual", who, "peak memory", Metric::Figure);
        assert!(memory.is_some_and(|memory| memory > 100.0), "{who}: {memory:?} KiB");
    }
    assert!(report.series.iter().all(|series| series.rounds.len() == usize::from(ROUNDS)));
    let of_add = |who: &str| {
        let found = report.counts.iter().find(|count| count.contender == who && count.verb == "ADD");
        found.expect("counts").counts
    };
    // bridge, which starts host-local, portmap, firewall, tuning.
    assert_eq!(of_add(OURS).execs, 5);
    // The links, the firewall, and the container's side.
    assert_eq!((of_add(FLOOR).execs, of_add(FLOOR).requests), (1, 3));
}
