//! What the plugins take on a disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::error::{Doing as _, Result};
use crate::scenario::Bench;
use crate::suite::{OURS, Suite};

/// The plugins that both suites have, of those that this bench calls.
const PLUGINS: [&str; 6] = ["bridge", "host-local", "loopback", "portmap", "firewall", "tuning"];

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    for suite in bench.suites() {
        let size = of_files(&suite, &PLUGINS)?;
        bench.report.add_figure(scenario, suite.name, "standalone files", "MB", size);
        for plugin in PLUGINS {
            let size = of_files(&suite, &[plugin])?;
            bench.report.add_figure(scenario, suite.name, &format!("size of {plugin}"), "MB", size);
        }
    }
    match bench.multi_call.clone() {
        Some(program) => {
            let size = of_paths(&[program])?;
            bench.report.add_figure(scenario, OURS, "multi-call", "MB", size);
        }
        None => bench.report.skip("multi-call", "no --multi-call FILE, a program of the same plugins"),
    }
    Ok(())
}

fn of_files(suite: &Suite, names: &[&str]) -> Result<f64> {
    of_paths(&names.iter().map(|name| suite.require(name)).collect::<Result<Vec<_>>>()?)
}

/// Megabytes. Files by several names count once.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn of_paths(paths: &[PathBuf]) -> Result<f64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    for path in paths {
        let metadata = fs::metadata(path).doing("look at", path)?;
        if seen.insert((metadata.dev(), metadata.ino())) {
            total += metadata.len();
        }
    }
    Ok(total as f64 / 1e6)
}
