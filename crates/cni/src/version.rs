//! Specification versions, and what each of them allows.

use std::fmt;

use serde::{Serialize, Serializer};

/// A version of the CNI specification that this crate speaks.
///
/// Versions are matched as exact strings, as libcni does: `1.1` is not `1.1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.1.0, also assumed where a configuration names no version.
    V0_1_0,
    /// 0.2.0: adds the VERSION verb.
    V0_2_0,
    /// 0.3.0: results with interfaces, chained plugins.
    V0_3_0,
    /// 0.3.1: a corrected 0.3.0.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: addresses no longer name their family.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS, interface MTU, route attributes.
    V1_1_0,
}

/// The shape a result has on the wire; versions of one family differ only in the version string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultFamily {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    Legacy,
    /// 0.3.0 to 0.4.0: `ips` with a `version`.
    Versioned,
    /// 1.0.0 and later.
    Current,
}

impl SpecVersion {
    /// Every version, oldest first.
    pub const ALL: &'static [Self] =
        &[Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version assumed when a configuration has none (every implementation does so; `spec-upgrades.md` says 0.2.0,
    /// whose results differ only in the version string).
    pub const ASSUMED: Self = Self::V0_1_0;

    /// The version with exactly this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.as_str() == text)
    }

    /// The text form, as in `cniVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    pub(crate) const fn result_family(self) -> ResultFamily {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => ResultFamily::Legacy,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => ResultFamily::Versioned,
            Self::V1_0_0 | Self::V1_1_0 => ResultFamily::Current,
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SpecVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
