//! The bench end to end: a tiny run, with the plugins that tests are about.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has to fail")]

use std::path::Path;

use bench::report::{Metric, Report};
use bench::scenario::{Bench, SCENARIOS, Scale, Scenario};
use bench::suite::{Contender, FLOOR, NETAVARK, OURS, Suite};
use testkit::{Host, Snapshot, have, may_trace, plugin_dir, skip};

const ROUNDS: u16 = 2;
const SCALE: Scale = Scale {
    rounds: ROUNDS,
    slow_rounds: ROUNDS,
    leases: 300,
    crowd: 2,
    connections: 20,
    storm: 6,
    small_storm: 2,
    growth: 3,
};

/// A bench of the plugins under test and the floor.
fn bench(host: Host) -> Bench {
    let ours = Suite::ours(&plugin_dir()).expect("the plugins under test");
    let floor = Contender::Floor { program: Path::new(env!("CARGO_BIN_EXE_bench-floor")).to_owned() };
    let contenders = vec![Contender::Suite(ours), floor];
    Bench { base: host, contenders, scale: SCALE, report: Report::default(), multi_call: None }
}

fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario")
}

#[test]
fn a_round_has_times_counts_and_memory_of_everyone() {
    if have("strace").is_none() || !may_trace() {
        skip!("strace is not installed, or may not trace here");
    }
    let host = Host::new();
    let before = Snapshot::take();
    let mut bench = bench(host);
    scenario("chain-dual").run(&mut bench).expect("a run");
    let report = bench.report;
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

#[test]
fn every_scenario_runs_to_its_end_and_leaves_the_host_as_it_was() {
    if have("strace").is_none() || !may_trace() {
        skip!("strace is not installed, or may not trace here");
    }
    let mut bench = bench(Host::new());
    let before = Snapshot::take();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name != "chain-dual") {
        scenario.run(&mut bench).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
    }
    before.assert_same(&Snapshot::take());
    let report = bench.report;
    for (scenario, who, what, metric) in [
        ("bridge", FLOOR, "ADD+DEL", Metric::Wall),
        ("dad", OURS, "ADD", Metric::Wall),
        ("size", OURS, "standalone files", Metric::Figure),
        ("leases", "ours, full store", "ADD+CHECK+DEL", Metric::Wall),
        ("ports", "ours, many ports", "ADD+DEL+connect", Metric::Wall),
        ("storm", OURS, "16 at a time", Metric::Figure),
        ("growth", OURS, "ADD", Metric::Wall),
    ] {
        let value = report.value(scenario, who, what, metric);
        assert!(value.is_some_and(|value| value > 0.0), "{scenario}, {who}: {what}: {value:?}");
    }
    let ran = |name: &str| {
        report.skipped.contains_key(name) || report.value(name, NETAVARK, "ADD", Metric::Wall) > None
    };
    assert!(ran("netavark"), "neither run nor skipped: {:?}", report.skipped);
}
