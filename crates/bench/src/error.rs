//! What can go wrong with a measurement.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be measured. A missed target is none of these: it is a result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The operating system refused something.
    #[error("cannot {doing} {object}")]
    System {
        /// What was to be done, as a verb: `open`, `mount`.
        doing: &'static str,
        /// On which object.
        object: String,
        /// What it said.
        source: io::Error,
    },
    /// A program ended with another exit code than 0.
    #[error("{program} ended with {status}: {said}")]
    Failed {
        /// The program, and what it was to do.
        program: String,
        /// `exit status: 1`.
        status: String,
        /// Standard output and error.
        said: String,
    },
    /// A program printed something else than expected.
    #[error("{program} printed no JSON document: {said}")]
    NoDocument {
        /// The program, and what it was to do.
        program: String,
        /// What it printed instead.
        said: String,
        /// The parser's complaint.
        source: serde_json::Error,
    },
    /// A directory lacks a plugin that a scenario needs.
    #[error(
        "there is no plugin {plugin} in {directory}; `make` builds ours into bin/, and --bin names another directory"
    )]
    NoPlugin {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A tool is missing.
    #[error("`{tool}` is not installed: run tools/install-deps")]
    NoTool {
        /// Its name.
        tool: &'static str,
    },
    /// No scenario has this name.
    #[error("there is no scenario called {name}: `bench --list` lists them")]
    NoScenario {
        /// What was asked for.
        name: String,
    },
}

/// The result of a measurement.
pub type Result<T> = std::result::Result<T, BenchError>;

/// Says what was being done when the operating system refused it: `fs::read(path).doing("read", path)?`.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, object: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: &'static str, object: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| BenchError::System {
            doing,
            object: object.as_ref().display().to_string(),
            source: source.into(),
        })
    }
}
