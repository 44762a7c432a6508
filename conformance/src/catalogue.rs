//! The items of the specification, as data: `catalogue/*.toml`.

use serde::{Deserialize, Serialize};

/// How strongly an item binds a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// MUST, MUST NOT, REQUIRED in the specification: breaking it is a failure.
    Must,
    /// SHOULD, RECOMMENDED in the specification: breaking it is a warning.
    Should,
    /// MAY: nothing can be broken; what was seen is information.
    May,
    /// The conventions document.
    Convention,
    /// What the reference implementation and the runtimes do, without being written down.
    Reference,
    /// Quality beyond the specification.
    Quality,
}

impl Level {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::May => "may",
            Self::Convention => "convention",
            Self::Reference => "reference",
            Self::Quality => "quality",
        }
    }
}

/// One thing that the specification, the conventions or practice ask of a plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// `ADD-03`.
    pub id: String,
    /// How strongly it binds.
    pub level: Level,
    /// Where it stands: a section of the specification, a version of it, or the document.
    pub source: String,
    /// What it asks, in a sentence.
    pub statement: String,
    /// Why no case of this harness checks it. Absent: a case does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

/// A part of the catalogue: the items whose ids begin alike.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// A title for reports.
    pub title: String,
    /// Its items, in order. A table of the file each, so the singular there.
    #[serde(rename(serialize = "items"), alias = "items")]
    pub item: Vec<Item>,
}

const SOURCES: &[(&str, &str)] = &[
    ("ENV", include_str!("../catalogue/env.toml")),
    ("CFG", include_str!("../catalogue/cfg.toml")),
    ("NEG", include_str!("../catalogue/neg.toml")),
    ("VER", include_str!("../catalogue/ver.toml")),
    ("ADD", include_str!("../catalogue/add.toml")),
    ("RES", include_str!("../catalogue/res.toml")),
    ("CHN", include_str!("../catalogue/chn.toml")),
    ("DEL", include_str!("../catalogue/del.toml")),
    ("CHK", include_str!("../catalogue/chk.toml")),
    ("STA", include_str!("../catalogue/sta.toml")),
    ("GC", include_str!("../catalogue/gc.toml")),
    ("ERR", include_str!("../catalogue/err.toml")),
    ("DLG", include_str!("../catalogue/dlg.toml")),
    ("ARG", include_str!("../catalogue/arg.toml")),
    ("CON", include_str!("../catalogue/con.toml")),
];

/// The whole catalogue, in the order of reports.
///
/// # Errors
/// Which part does not parse. The parts are compiled in, so a test sees to it that this does not happen.
pub fn sections() -> Result<Vec<Section>, String> {
    SOURCES
        .iter()
        .map(|(name, text)| toml::from_str(text).map_err(|error| format!("catalogue part {name}: {error}")))
        .collect()
}

/// Every item, in the order of reports.
///
/// # Errors
/// As [`sections`].
pub fn items() -> Result<Vec<Item>, String> {
    Ok(sections()?.into_iter().flat_map(|section| section.item).collect())
}
