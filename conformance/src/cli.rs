//! The command line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::catalogue;
use crate::expect::{Expectations, Rule};
use crate::profile::{self, Profile};
use crate::replay::{self, Place};
use crate::report::terminal::{self, Style};
use crate::report::{html, json, junit, list, progress};
use crate::run::{self, Plan, Report, Suite};
use crate::verdict::Verdict;

/// Runs CNI plugins through the specification, item by item.
///
/// Each case has namespaces and files of its own: nothing of this machine is changed, and root is needed only where users may not create user
/// namespaces.
#[derive(Debug, Parser)]
#[command(
    name = "cni-conformance",
    version,
    after_help = "`cni-conformance prove` runs plugins with known faults, to prove the harness itself.\n\n\
        Exit status: 0 all is as it should be; 1 something is not; 2 the harness could not do its part (wrong arguments, \
        no namespaces, a broken case, an interrupt)."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Arguments {
    /// A directory of plugins; several are compared side by side. A label may come first: `reference=/usr/lib/cni`
    #[arg(long = "bin", value_name = "[LABEL=]DIR", default_value = "/opt/cni/bin")]
    pub binaries: Vec<String>,
    /// Only these items or cases: `ADD-*`, `GC-02`, `DEL-02/by-hand`; several separated by commas
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these plugins: `bridge`, `*lan`
    #[arg(long = "plugin", value_name = "NAME", value_delimiter = ',')]
    pub plugins: Vec<String>,
    /// A profile of your own plugin, or a directory of them; one of the same name replaces a shipped one
    #[arg(long = "profile", value_name = "FILE|DIR")]
    pub profiles: Vec<PathBuf>,
    /// List the items, how strongly each binds and which cases check it, and end
    #[arg(long)]
    pub list: bool,
    /// Cases side by side; 0: six for each processor, for most of them wait for the kernel most of the time
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub jobs: usize,
    /// Fail on warnings and remarks too, and on expected deviations that do not occur
    #[arg(long)]
    pub strict: bool,
    /// The deviations that are known, with reasons; anything else than a pass that is not in it fails, also a skip
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// A skip that `--expect` does not list is no failure: other machines have other kernels
    #[arg(long)]
    pub allow_skips: bool,
    /// Write what came out as such a file; the reasons of `--expect` are kept, new ones are yours to write
    #[arg(long, value_name = "FILE")]
    pub write_expect: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as XML of the kind that CI systems read (`JUnit`)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a shell script for each case with a finding, which does the same again
    #[arg(long, value_name = "DIR")]
    pub replay: Option<PathBuf>,
    /// Run nothing: take what an earlier run wrote with `--json`; of several files, side by side
    #[arg(long, value_name = "FILE", conflicts_with_all = ["binaries", "only", "plugins", "profiles", "list", "jobs"])]
    pub from: Vec<PathBuf>,
    /// In the table, rows also for items that hold with every plugin
    #[arg(long)]
    pub all: bool,
}

/// Runs the program. Returns the exit status: 0 all is as it should be, 1 something is not, 2 the harness could not do its part.
///
/// # Errors
/// Wrong arguments, a place that lets nobody make namespaces, or output that cannot be written.
pub fn main(arguments: &Arguments) -> Result<u8, String> {
    let out = &mut io::stdout().lock();
    if arguments.list {
        let sections = catalogue::sections()?;
        check_only(&sections, &arguments.only)?;
        return quiet_pipe(list::write(&sections, &arguments.only, terminal::width(), out)).map(|()| 0);
    }
    let expectations = arguments.expect.as_deref().map(Expectations::load).transpose()?;
    let mut report = if arguments.from.is_empty() {
        let plan = plan(arguments)?;
        let line = progress::Line::new();
        let report = run::run(&plan, &|event| line.event(&event));
        line.clear();
        report?
    } else {
        json::read(&arguments.from)?
    };
    if let Some(expectations) = &expectations {
        expectations.apply(&mut report);
    }
    let rule = Rule {
        strict: arguments.strict,
        allow_skips: arguments.allow_skips,
        expectations: expectations.as_ref(),
    };
    write_files(arguments, &report, rule)?;
    if let Some(path) = &arguments.write_expect {
        let text = expectations.clone().unwrap_or_default().updated(&report);
        fs::write(path, text).map_err(|error| format!("--write-expect {}: {error}", path.display()))?;
    }
    let style = Style {
        colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        width: terminal::width(),
        all: arguments.all,
        replay: arguments.replay.as_deref(),
        rule,
    };
    quiet_pipe(terminal::write(&report, style, out))?;
    Ok(rule.status(&report))
}

/// A reader who has seen enough (`| head`) is no error.
fn quiet_pipe(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| format!("cannot write to standard output: {error}")),
    }
}

fn write_files(arguments: &Arguments, report: &Report, rule: Rule<'_>) -> Result<(), String> {
    if let Some(path) = &arguments.json {
        write_file("--json", path, |out| json::write(report, out))?;
    }
    if let Some(path) = &arguments.junit {
        write_file("--junit", path, |out| junit::write(report, rule, out))?;
    }
    if let Some(path) = &arguments.html {
        write_file("--html", path, |out| html::write(report, rule, out))?;
    }
    let Some(directory) = &arguments.replay else { return Ok(()) };
    for (suite, plugin, case) in report.cases() {
        if case.journal.is_empty() || case.verdict <= Verdict::Pass {
            continue;
        }
        let item = report.items().find(|item| item.id == case.item);
        let place = Place { suite, plugin: &plugin.plugin, item };
        let script = replay::script(place, case);
        let path = directory.join(replay::file_name(place, case));
        write_file("--replay", &path, |out| out.write_all(script.as_bytes()))?;
    }
    Ok(())
}

fn write_file(
    option: &str,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), String> {
    let attempt = || {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let mut out = BufWriter::new(File::create(path)?);
        write(&mut out)?;
        out.flush()
    };
    attempt().map_err(|error| format!("{option} {}: {error}", path.display()))
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    let own: Result<Vec<_>, _> = arguments.profiles.iter().map(|path| profile::load(path)).collect();
    for profile in profile::shipped()?.into_iter().chain(own?.into_iter().flatten()) {
        profiles.insert(profile.plugin.clone(), profile);
    }
    let jobs = match arguments.jobs {
        0 => std::thread::available_parallelism().map_or(4, |number| number.get() * 6),
        number => number,
    };
    let plan = Plan {
        suites: suites(&arguments.binaries)?,
        profiles: profiles.into_values().collect(),
        only: arguments.only.clone(),
        plugins: arguments.plugins.clone(),
        jobs,
    };
    let sections = catalogue::sections()?;
    check_only(&sections, &plan.only)?;
    check_plugins(&plan)?;
    let items: Vec<_> = sections.into_iter().flat_map(|section| section.item).collect();
    let applies = |profile| !run::planned(&items, profile, &plan.only).is_empty();
    if !plan.suites.iter().any(|suite| plan.profiles_of(suite).any(applies)) {
        return Err(format!("--only {}: no case of it applies to these plugins", plan.only.join(",")));
    }
    Ok(plan)
}

fn suites(binaries: &[String]) -> Result<Vec<Suite>, String> {
    let mut suites: Vec<Suite> = Vec::new();
    for text in binaries {
        // A path may have an equals sign too.
        let (label, path) = match text.split_once('=') {
            Some((label, path)) if !label.contains('/') && !label.is_empty() => (label, path),
            _ => (text.as_str(), text.as_str()),
        };
        let directory =
            Path::new(path).canonicalize().map_err(|error| format!("--bin {text}: {path}: {error}"))?;
        if !directory.is_dir() {
            return Err(format!("--bin {text}: {path} is no directory"));
        }
        if suites.iter().any(|suite| suite.label == label) {
            return Err(format!(
                "--bin {text}: there is a suite `{label}` already; a label tells them apart: other={path}"
            ));
        }
        suites.push(Suite { label: label.to_owned(), directory });
    }
    Ok(suites)
}

fn check_only(sections: &[catalogue::Section], only: &[String]) -> Result<(), String> {
    let items = || sections.iter().flat_map(|section| &section.item);
    for pattern in only {
        if items().any(|item| list::picks(pattern, item)) {
            continue;
        }
        let (id, _) = pattern.split_once('/').unwrap_or((pattern, ""));
        if let Some(item) = items().find(|item| item.id == id) {
            let names: Vec<&str> = crate::cases::of_item(&item.id).map(|case| case.name).collect();
            return Err(format!("--only {pattern}: {id} has no such case; it has: {}", names.join(", ")));
        }
        let mut parts: Vec<&str> = items().filter_map(|item| item.id.split('-').next()).collect();
        parts.dedup();
        return Err(format!(
            "--only {pattern}: no item is called so; the ids begin with {} (--list shows them)",
            parts.join(", ")
        ));
    }
    Ok(())
}

fn check_plugins(plan: &Plan) -> Result<(), String> {
    let names = || plan.profiles.iter().map(|profile| profile.plugin.as_str());
    for pattern in &plan.plugins {
        if !names().any(|name| crate::glob(pattern, name)) {
            let known: Vec<&str> = names().collect();
            return Err(format!(
                "--plugin {pattern}: no profile has this name; there are {} (--profile gives another)",
                known.join(", ")
            ));
        }
    }
    for suite in &plan.suites {
        if plan.profiles_of(suite).next().is_some() {
            continue;
        }
        let wanted: Vec<&str> = names()
            .filter(|name| {
                plan.plugins.is_empty() || plan.plugins.iter().any(|pattern| crate::glob(pattern, name))
            })
            .collect();
        return Err(format!(
            "--bin {}: none of the plugins looked for is in {}: {} (--profile gives another)",
            suite.label,
            suite.directory.display(),
            wanted.join(", ")
        ));
    }
    Ok(())
}
