//! What the numbers were measured on.

use std::fs;
use std::process::Command;

use crate::suite::{Contender, NO_REFERENCE, REFERENCE};

/// Lines about the machine and the contenders.
pub fn describe(contenders: &[Contender]) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name"))
        .filter_map(|rest| rest.split_once(':'))
        .map(|(_, model)| model.trim())
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut lines = vec![
        format!("date       {}", date()),
        format!("kernel     Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("processor  {cores} x {}", models.first().unwrap_or(&std::env::consts::ARCH)),
        format!("load       {}", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ];
    for contender in contenders {
        if let Contender::Suite(suite) = contender {
            lines.push(format!("{:<10} {}", suite.name, suite.version));
        }
    }
    if !contenders.iter().any(|contender| contender.name() == REFERENCE) {
        lines.push(format!("{REFERENCE:<10} {NO_REFERENCE}"));
    }
    lines
}

/// Today, `2026-11-22`.
fn date() -> String {
    let asked = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
