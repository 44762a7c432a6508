//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::job::{Job, Sweep};
use crate::plan::{Form, Plan};
use crate::pool::Pool;
use crate::report::Tally;
use crate::worker;

/// Kills plugins at every system call, lets every call fail, storms and churns them, and looks at what is left.
#[derive(Debug, Parser)]
#[command(name = "survival", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One world: what this program starts for itself.
    #[command(hide = true)]
    World {
        #[arg(long)]
        bin: PathBuf,
        #[arg(long)]
        network: String,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// The directory of plugins.
    #[arg(long, default_value = "bin")]
    bin: PathBuf,
    /// Every so-and-so-many point instead of every one, and small storms: under two minutes.
    #[arg(long)]
    short: bool,
    /// Every so-and-so-many point of all sweeps: with each `--offset` below it once, the full form in parts.
    #[arg(long, conflicts_with = "write", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    every: Option<usize>,
    /// Where the short form, or one by `--every`, begins; the day's number unless given, so that each day tries others.
    #[arg(long)]
    offset: Option<usize>,
    /// Only parts whose name contains this, such as `kill bridge`.
    #[arg(long)]
    only: Option<String>,
    /// A configuration list to sweep instead of the built-in networks. Its plugins are killed and failed; nothing else is done.
    #[arg(long)]
    network: Option<PathBuf>,
    /// Tries one point, as a failure named it.
    #[arg(long)]
    replay: Option<String>,
    /// How many worlds side by side.
    #[arg(long, default_value_t = 2)]
    worlds: usize,
    /// Write the outcome as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the outcome as a page, such as docs/survival.md.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::World { bin, network }) = cli.command {
        worker::work(&bin, &network);
        return ExitCode::SUCCESS;
    }
    survive(&cli.options)
}

#[expect(clippy::print_stderr, reason = "a message of a command line tool")]
fn survive(options: &Options) -> ExitCode {
    let Ok(bin) = options.bin.canonicalize() else {
        eprintln!("survival: there is no directory {}: `make build` makes bin/", options.bin.display());
        return ExitCode::from(2);
    };
    let pool = Pool { bin: bin.clone(), worlds: options.worlds.max(1) };
    let mut tally = Tally::new(&bin, options.short);
    if let Some(text) = &options.replay {
        let Some((sweep, point)) = Sweep::read(text) else {
            eprintln!(
                "survival: {text} is not a point, such as kill:bridge/openat.3:bridge:ADD:DEL:alone:chain"
            );
            return ExitCode::from(2);
        };
        tally.verbose();
        pool.run(vec![Job::Sweep(sweep, vec![point])], |report| tally.hear(&report));
    } else {
        let form = Form {
            short: options.short,
            every: options.every,
            offset: options.offset.unwrap_or_else(crate::plan::day),
            only: options.only.clone(),
            network: options.network.as_ref().map(|path| path.display().to_string()),
        };
        Plan::new(form).run(&pool, &mut tally);
    }
    tally.finish(options.json.as_deref(), options.write.as_deref())
}
