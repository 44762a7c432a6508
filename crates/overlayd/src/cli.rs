//! The command line.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;
use crate::error::Error;
use crate::{agent, cleanup, control};

// With the sources of nodes that it was built with.
#[cfg(feature = "etcd")]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (nodes from a file or from etcd)");
#[cfg(not(feature = "etcd"))]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (nodes from a file; built without etcd)");

/// The node agent of Ferrule's overlay networks: follows a source of nodes and keeps this host's VXLAN device, routes and forwarding
/// entries as they say, whatever happens to them
#[derive(Debug, Parser)]
#[command(name = "overlayd", version = VERSION, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// What to do instead of running.
    #[command(subcommand)]
    command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    run: Option<RunOptions>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the agents of this host know and do
    Status {
        /// Of this network only
        #[arg(long)]
        network: Option<String>,
        /// As JSON, one document a network
        #[arg(long)]
        json: bool,
    },
    /// Take a network off this host: device, routes, firewall table, state. With --etcd, this node's record and blocks too
    Cleanup(Box<RunOptions>),
}

/// A network, this node's part in it, and where its nodes are known from.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// The network's name, as in the configuration of the `vxlan` plugin
    #[arg(long, value_name = "NAME")]
    pub network: String,
    /// VXLAN network identifier, 1 to 16777215 [required to run]
    #[arg(long, value_name = "N")]
    pub vni: Option<u64>,
    /// Nodes from this file: a JSON list of `{"node", "underlay", "blocks"}`, read again when it changes
    #[arg(long, value_name = "FILE", conflicts_with = "etcd")]
    pub peers_file: Option<PathBuf>,
    /// Nodes from etcd: its members, `http://HOST:2379` or `https://HOST:2379`
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// What all keys in etcd begin with
    #[arg(long, value_name = "PREFIX", default_value = "/ferrule", requires = "etcd")]
    pub etcd_prefix: String,
    /// Certificates that etcd's own is checked against
    #[arg(long, value_name = "FILE", requires = "etcd")]
    pub etcd_ca: Option<PathBuf>,
    /// This node's certificate for etcd
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_key"])]
    pub etcd_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_cert"])]
    pub etcd_key: Option<PathBuf>,
    /// The user that etcd knows this node as
    #[arg(long, value_name = "NAME", requires_all = ["etcd", "etcd_password_file"])]
    pub etcd_user: Option<String>,
    /// A file with that user's password
    #[arg(long, value_name = "FILE", requires_all = ["etcd", "etcd_user"])]
    pub etcd_password_file: Option<PathBuf>,
    /// The networks that nodes' blocks are taken from (with --etcd), and that nothing is masqueraded to; one a family
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Prefix length of a node's block, one for each --cluster-cidr [default: 24 for IPv4, 64 for IPv6]
    #[arg(long, value_name = "LENGTH", value_delimiter = ',')]
    pub block_size: Vec<u8>,
    /// Seconds that a silent node keeps its record, and a given-back block stays unused (with --etcd)
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "etcd")]
    pub grace: u64,
    /// Seconds after which a node that says nothing is taken for silent (with --etcd)
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=3600), requires = "etcd")]
    pub alive: u64,
    /// `routed` (a block a node, as flannel) or `bridged` (one subnet stretched over all nodes)
    #[arg(long, value_enum, default_value_t = ModeOption::Routed)]
    pub mode: ModeOption,
    /// The stretched subnets of a bridged network [default: --cluster-cidr]; routed: the subnets that containers see, which all blocks are in
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub subnet: Vec<String>,
    /// Bridged: send broadcast, unknown and multicast frames to every peer
    #[arg(long)]
    pub bum: bool,
    /// Take the network's packets from any address, not from its nodes only: for kernels without nftables
    #[arg(long)]
    pub any_sender: bool,
    /// Reach peers on the same underlay link without a tunnel
    #[arg(long)]
    pub direct_routing: bool,
    /// UDP port of the tunnels, the same on all nodes
    #[arg(long, value_name = "PORT", default_value_t = 4789)]
    pub port: u16,
    /// MTU inside the tunnels [default: what the underlay leaves]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// The bridge of this network's containers [default: vb-NETWORK]
    #[arg(long, value_name = "LINK")]
    pub bridge: Option<String>,
    /// This node's name [default: the one with an address of this host, with --peers-file; the host name, with --etcd]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// The link that leads to the other nodes [default: the one on the way to etcd]
    #[arg(long, value_name = "LINK")]
    pub underlay_interface: Option<String>,
    /// The address that tunnels begin at [default: that link's]
    #[arg(long, value_name = "ADDRESS")]
    pub underlay_address: Option<IpAddr>,
    /// Answer Prometheus on this address: `127.0.0.1:9475`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Where the last known nodes are kept for the next start
    #[arg(long, value_name = "DIRECTORY", default_value = crate::snapshot::DIRECTORY)]
    pub state_dir: PathBuf,
    /// Seconds between full comparisons with the kernel, which events cause besides
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub check_interval: f64,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: LevelFilter,
    /// Log for people or for machines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How containers of a network are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeOption {
    /// A block a node, packets routed in between.
    Routed,
    /// One subnet, frames switched.
    Bridged,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    Text,
    /// A JSON document.
    Json,
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "overlayd: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    match (arguments.command, arguments.run) {
        (Some(Command::Status { network, json }), _) => status(network, json),
        (Some(Command::Cleanup(options)), _) => {
            log(&options);
            runtime()?.block_on(cleanup::run(&options))
        }
        (None, Some(options)) => {
            let config = Config::new(&options)?;
            log(&options);
            runtime()?.block_on(agent::run(config))
        }
        // The options are required where there is no command.
        (None, None) => Ok(()),
    }
}

/// One thread: the agent waits for the kernel and for one connection, and what it does in between is done in order.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("start the event loop"))
}

fn log(options: &RunOptions) {
    // What libraries say of every frame they send is nobody's business but their authors'.
    let own = Targets::new().with_target("overlayd", options.log);
    let own = own.with_default(options.log.min(LevelFilter::WARN));
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_filter(own)).init(),
        // The journal has the time already.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            registry.with(layer.without_time().with_filter(own)).init();
        }
        LogFormat::Text => registry.with(layer.with_filter(own)).init(),
    }
}

fn status(network: Option<String>, json: bool) -> Result<(), Error> {
    let networks = match network {
        Some(name) => vec![crate::config::network(&name)?],
        None => control::running(),
    };
    let mut out = io::stdout().lock();
    let written = Error::system("write to standard output");
    let mut text = String::new();
    if networks.is_empty() {
        text = if json { String::new() } else { "no overlayd runs on this host\n".to_owned() };
    }
    for (index, network) in networks.iter().enumerate() {
        let status = control::query(network)?;
        if json {
            text += &serde_json::to_string(&status).unwrap_or_default();
            text.push('\n');
        } else {
            text += if index > 0 { "\n" } else { "" };
            text += &status.table();
        }
    }
    out.write_all(text.as_bytes()).map_err(written)
}
