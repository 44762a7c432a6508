//! Names that reach file paths and the kernel, validated once at the edge.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than the kernel takes (`IFNAMSIZ` less the terminating NUL).
    #[error("it is {length} bytes long; an interface name has at most 15")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// `.` and `..` are directory entries, not names.
    #[error("`.` and `..` are not names")]
    Dots,
    /// `all` and `default` stand for every interface and for those to come below `/proc/sys/net`, so the kernel gives them to none.
    #[error("`all` and `default` are reserved by the kernel")]
    Reserved,
    /// A character that the specification or the kernel does not allow.
    #[error("it contains {character:?}")]
    Character {
        /// The first offending character.
        character: char,
    },
    /// Must start with a letter or a digit.
    #[error("it starts with {character:?}, not with an ASCII letter or digit")]
    Start {
        /// The first character.
        character: char,
    },
}

/// The rule the specification gives for container ids and network names: `[A-Za-z0-9][A-Za-z0-9_.-]*`.
fn check_identifier(text: &str) -> Result<(), NameError> {
    let mut characters = text.chars();
    match characters.next() {
        None => return Err(NameError::Empty),
        Some(first) if !first.is_ascii_alphanumeric() => return Err(NameError::Start { character: first }),
        Some(_) => {}
    }
    match characters.find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

/// The kernel's `dev_valid_name`, and libcni's `ValidateInterfaceName` which also refuses Unicode spaces.
fn check_link_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 15 {
        return Err(NameError::TooLong { length: text.len() });
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots);
    }
    if text == "all" || text == "default" {
        return Err(NameError::Reserved);
    }
    // `%` makes the kernel treat the name as a template (`eth%d` becomes `eth0`), so what was asked for would not be what is made.
    match text.chars().find(|c| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace()) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the name if it is valid.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A container id: `CNI_CONTAINERID`.
    ContainerId,
    check_identifier
);
name_type!(
    /// A network name: `name` in the network configuration.
    NetworkName,
    check_identifier
);
name_type!(
    /// The name of a network interface: `CNI_IFNAME`, a bridge, a host veth. 1 to 15 bytes.
    LinkName,
    check_link_name
);

#[cfg(test)]
mod tests;
