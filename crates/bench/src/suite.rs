//! Who is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{BenchError, Result};

/// The version of the Go suite that targets are about, as `go install` puts it into the cache.
const REFERENCE_VERSION: &str = "v1.9.1";
/// Where Debian's package has it.
const DEBIAN: &str = "/usr/lib/cni";

/// One of those that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// Plugins.
    Suite(Suite),
    /// The kernel's own part: see [`crate::floor`].
    Floor {
        /// The program that does it.
        program: PathBuf,
    },
    /// Podman's.
    Netavark {
        /// Its program.
        program: PathBuf,
    },
}

/// A directory of plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// What it is called in tables: `ours`, `reference`.
    pub name: &'static str,
    /// Where its plugins are.
    pub directory: PathBuf,
    /// What it is, for a person.
    pub version: String,
}

/// The name of our suite.
pub const OURS: &str = "ours";
/// The name of the suite that ours is held against.
pub const REFERENCE: &str = "reference";
/// Why there may be none.
pub const NO_REFERENCE: &str =
    "neither the Go suite in ~/.cache/ferrule (built with Go) nor Debian's package is here";
/// The name of the floor.
pub const FLOOR: &str = "floor";
/// The name of netavark.
pub const NETAVARK: &str = "netavark";
/// The version of it that targets are about.
pub const NETAVARK_VERSION: &str = "2.1";

impl Contender {
    /// What it is called in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Suite(suite) => suite.name,
            Self::Floor { .. } => FLOOR,
            Self::Netavark { .. } => NETAVARK,
        }
    }
}

impl Suite {
    /// Our plugins, in this directory.
    ///
    /// # Errors
    /// If there is no bridge plugin in it.
    pub fn ours(directory: &Path) -> Result<Self> {
        let suite = Self { name: OURS, directory: absolute(directory), version: introduction(directory) };
        suite.require("bridge")?;
        Ok(suite)
    }

    /// The suite to compare with: the one in `given`, else the newest Go suite from the cache, else Debian's.
    pub fn reference(given: Option<&Path>) -> Option<Self> {
        let cached = cache().map(|cache| cache.join(format!("plugins-{REFERENCE_VERSION}")));
        let candidates = match given {
            Some(directory) => vec![(directory.to_owned(), format!("{}", directory.display()))],
            None => vec![
                (cached.unwrap_or_default(), format!("Go suite {REFERENCE_VERSION}")),
                (DEBIAN.into(), format!("Go suite, Debian's {}", debian_version())),
            ],
        };
        let (directory, version) =
            candidates.into_iter().find(|(directory, _)| directory.join("bridge").is_file())?;
        Some(Self { name: REFERENCE, directory: absolute(&directory), version })
    }

    /// Whether it has a plugin.
    pub fn has(&self, plugin: &str) -> bool {
        self.directory.join(plugin).is_file()
    }

    /// The path of a plugin.
    ///
    /// # Errors
    /// If it is not there.
    pub fn require(&self, plugin: &str) -> Result<PathBuf> {
        let path = self.directory.join(plugin);
        if path.is_file() {
            return Ok(path);
        }
        Err(BenchError::NoPlugin { plugin: plugin.to_owned(), directory: self.directory.clone() })
    }
}

/// Netavark's program: from the cache, else from where podman has it.
pub fn netavark() -> Option<PathBuf> {
    let cached = cache().map(|cache| cache.join(format!("netavark-{NETAVARK_VERSION}/bin/netavark")));
    let packaged = Path::new("/usr/lib/podman/netavark").to_owned();
    [cached, testkit::have("netavark"), Some(packaged)].into_iter().flatten().find(|path| path.is_file())
}

/// Where programs that are only built for comparisons are kept.
pub fn cache() -> Option<PathBuf> {
    let given = std::env::var_os("FERRULE_CACHE").map(PathBuf::from);
    given.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/ferrule")))
}

/// A relative path would lead elsewhere once a thread has entered a host.
fn absolute(directory: &Path) -> PathBuf {
    std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned())
}

/// What a plugin says of itself when it is started by hand: the first line.
fn introduction(directory: &Path) -> String {
    let said = Command::new(directory.join("bridge")).env_clear().output();
    let said = said.map(|output| [output.stderr, output.stdout].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
    // `CNI bridge plugin (Ferrule 0.1.0)`
    let inner = said.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.map_or(said.clone(), |(inner, _)| inner.to_owned())
}

fn debian_version() -> String {
    let query = ["--show", "--showformat", "${Version}", "containernetworking-plugins"];
    let asked = Command::new("dpkg-query").args(query).output();
    asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
