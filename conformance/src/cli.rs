//! The command line.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Parser;

use crate::profile::{self, Profile};
use crate::report;
use crate::run::{self, Plan, Progress, Suite};
use crate::verdict::Verdict;
use crate::{cases, catalogue};

/// Runs CNI plugins through the specification, item by item.
#[derive(Debug, Parser)]
#[command(
    name = "cni-conformance",
    version,
    after_help = "`cni-conformance prove` runs plugins with known faults, to prove the harness itself"
)]
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
    /// List the items, how strongly each binds and how many cases check it, and end
    #[arg(long)]
    pub list: bool,
    /// Cases side by side; 0: twice the number of processors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub jobs: usize,
}

/// Runs the program. Returns the exit status: 0 all held, 1 something did not, 2 the harness could not do its part.
///
/// # Errors
/// Wrong arguments, or output that cannot be written.
pub fn main(arguments: &Arguments) -> Result<u8, String> {
    if arguments.list {
        return list(&mut io::stdout().lock()).map(|()| 0);
    }
    let plan = plan(arguments)?;
    let terminal = io::stderr().is_terminal();
    let counts = std::sync::Mutex::new((0_usize, 0_usize));
    let progress = |event: Progress| {
        let Ok(mut counts) = counts.lock() else { return };
        match event {
            Progress::Planned(number) => counts.1 = number,
            Progress::Done { suite, plugin, result } => {
                counts.0 += 1;
                if terminal {
                    let _ = write!(
                        io::stderr(),
                        "\r\x1b[K{}/{} {suite} {plugin} {}/{}",
                        counts.0,
                        counts.1,
                        result.item,
                        result.case
                    );
                }
            }
        }
    };
    let report = run::run(&plan, &progress)?;
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    report::terminal::write(&report, &mut io::stdout().lock()).map_err(|error| error.to_string())?;
    let worst = report
        .suites
        .iter()
        .flat_map(|suite| &suite.plugins)
        .flat_map(|plugin| &plugin.cases)
        .map(|case| case.verdict)
        .max();
    Ok(match worst {
        Some(Verdict::Broken) => 2,
        Some(Verdict::Fail) => 1,
        _ => 0,
    })
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let mut suites = Vec::new();
    for text in &arguments.binaries {
        let (label, directory) = match text.split_once('=') {
            Some((label, directory)) => (label.to_owned(), PathBuf::from(directory)),
            None => (text.clone(), PathBuf::from(text)),
        };
        let directory = directory
            .canonicalize()
            .map_err(|error| format!("--bin {text}: {}: {error}", directory.display()))?;
        suites.push(Suite { label, directory });
    }
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    let own: Result<Vec<_>, _> = arguments.profiles.iter().map(|path| profile::load(path)).collect();
    for profile in profile::shipped()?.into_iter().chain(own?.into_iter().flatten()) {
        profiles.insert(profile.plugin.clone(), profile);
    }
    let jobs = match arguments.jobs {
        0 => std::thread::available_parallelism().map_or(4, |number| number.get() * 2),
        number => number,
    };
    Ok(Plan {
        suites,
        profiles: profiles.into_values().collect(),
        only: arguments.only.clone(),
        plugins: arguments.plugins.clone(),
        jobs,
    })
}

fn list(out: &mut dyn Write) -> Result<(), String> {
    for section in catalogue::sections()? {
        writeln!(out, "{}", section.title).map_err(|error| error.to_string())?;
        for item in section.item {
            let number = cases::of_item(&item.id).count();
            let checked = item.unchecked.unwrap_or_else(|| format!("{number} cases"));
            let level = format!("{:?}", item.level).to_lowercase();
            writeln!(out, "  {:7} {level:10} {} [{}; {checked}]", item.id, item.statement, item.source)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
