//! What the plugins take on a disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::error::{Doing as _, Result};
use crate::scenario::Bench;
use crate::suite::{OURS, Suite};

/// The plugins that both suites have, of those that this bench calls.
const PLUGINS: [&str; 6] = ["bridge", "host-local", "loopback", "portmap", "firewall", "tuning"];
/// All plugins in one program.
const MULTI_CALL: &str = "ferrule";

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    for suite in bench.suites() {
        let size = of_files(&suite, &PLUGINS)?;
        bench.report.add_figure(scenario, suite.name, "standalone files", "MB", size);
        for plugin in PLUGINS {
            let size = of_files(&suite, &[plugin])?;
            bench.report.add_figure(scenario, suite.name, &format!("size of {plugin}"), "MB", size);
        }
        if suite.has(MULTI_CALL) {
            let size = of_files(&suite, &[MULTI_CALL])?;
            bench.report.add_figure(scenario, suite.name, "multi-call", "MB", size);
        } else if suite.name == OURS {
            bench
                .report
                .skip("multi-call", &format!("there is no program `{MULTI_CALL}` beside the plugins"));
        }
    }
    Ok(())
}

/// Files by several names count once.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn of_files(suite: &Suite, names: &[&str]) -> Result<f64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    for name in names {
        let path = suite.require(name)?;
        let metadata = fs::metadata(&path).doing("look at", &path)?;
        if seen.insert((metadata.dev(), metadata.ino())) {
            total += metadata.len();
        }
    }
    Ok(total as f64 / 1e6)
}
