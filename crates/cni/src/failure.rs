//! The error a plugin answers with (specification section 5, "Error").

use std::fmt;

use serde_json::{Map, Value};

use crate::version::SpecVersion;

/// Error codes. 1 to 99 belong to the specification; Ferrule's own start at 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// 1: the configuration's version is not supported.
    IncompatibleVersion,
    /// 2: a field is not supported; the message has its key and value.
    UnsupportedField,
    /// 3: the container is unknown or does not exist; the runtime need not clean up.
    UnknownContainer,
    /// 4: an environment variable is missing or invalid; the message has its name.
    InvalidEnvironment,
    /// 5: an input or output operation failed.
    Io,
    /// 6: the configuration could not be decoded.
    Decode,
    /// 7: the configuration is invalid.
    InvalidConfig,
    /// 11: a condition that passes; try again later.
    TryAgainLater,
    /// 50: the plugin is not available and can't serve ADD.
    NotAvailable,
    /// 51: as 50, and existing containers may have limited connectivity.
    LimitedConnectivity,
    /// 100: the kernel refused a change.
    Kernel,
    /// 101: the network namespace can't be entered, or vanished while it was worked on. (A `CNI_NETNS` that is no usable
    /// namespace from the start is code 4.)
    Netns,
    /// 102: CHECK found something missing or different.
    CheckFailed,
    /// 103: another owner has what was asked for (a name, a port, an address).
    Conflict,
    /// 104: no free address.
    Exhausted,
    /// 105: a delegate is missing, crashed, hung or answered with garbage.
    Delegate,
    /// 106: not permitted (missing capability).
    NotPermitted,
    /// 107: several operations failed; the details list them.
    Several,
    /// 199: a defect of the plugin itself.
    Internal,
    /// A code received from a delegate, passed through unchanged.
    Foreign(u32),
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Kernel => 100,
            Self::Netns => 101,
            Self::CheckFailed => 102,
            Self::Conflict => 103,
            Self::Exhausted => 104,
            // A delegate's 0 means only that nobody could read its number; the specification has no code 0.
            Self::Delegate | Self::Foreign(0) => 105,
            Self::NotPermitted => 106,
            Self::Several => 107,
            Self::Internal => 199,
            Self::Foreign(number) => number,
        }
    }

    /// The code of a number that another plugin answered with. What the specification defines is that; a number of the
    /// plugin's own stays [`Code::Foreign`], since only that plugin knows what it means.
    pub const fn received(number: u32) -> Self {
        match number {
            1 => Self::IncompatibleVersion,
            2 => Self::UnsupportedField,
            3 => Self::UnknownContainer,
            4 => Self::InvalidEnvironment,
            5 => Self::Io,
            6 => Self::Decode,
            7 => Self::InvalidConfig,
            11 => Self::TryAgainLater,
            50 => Self::NotAvailable,
            51 => Self::LimitedConnectivity,
            other => Self::Foreign(other),
        }
    }
}

/// What a plugin answers when it fails: a code, one line saying what failed, more detail, and what to do about it.
///
/// ```
/// use cni::{Code, Failure};
///
/// let failure = Failure::new(Code::InvalidConfig, "ipam.subnet: `10.1.0.0` is not in CIDR notation")
///     .hint("write it as address/prefix-length");
/// assert_eq!(failure.code().number(), 7);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: Code,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its one-line message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new(), hint: None }
    }

    /// A failure whose details are the chain of sources of an error, outermost first.
    pub fn from_error(code: Code, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            failure.details.push(cause.to_string());
            source = cause.source();
        }
        failure
    }

    /// Adds a line to the details.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        if !detail.is_empty() {
            self.details.push(detail);
        }
        self
    }

    /// Says what to do about it. A later hint replaces an earlier one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Replaces the code, keeping the text.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Joins failures of independent steps: none is `Ok`, one is itself, several become one that lists them all, with their code
    /// where it is the same and [`Code::Several`] where it is not.
    pub fn join(failures: Vec<Self>) -> Result<(), Self> {
        let mut failures = failures.into_iter();
        let Some(first) = failures.next() else { return Ok(()) };
        let rest: Vec<Self> = failures.collect();
        if rest.is_empty() {
            return Err(first);
        }
        let code = if rest.iter().all(|other| other.code == first.code) { first.code } else { Code::Several };
        let mut joined =
            Self::new(code, format!("{} operations failed; the first: {}", rest.len() + 1, first.message));
        joined.hint.clone_from(&first.hint);
        joined.details = first.details;
        for other in rest {
            joined.details.push(other.message);
            joined.details.extend(other.details);
        }
        Err(joined)
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The one-line message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Details and hint as they appear in the document, one line each.
    pub fn details(&self) -> String {
        let mut lines: Vec<String> = self.details.clone();
        if let Some(hint) = &self.hint {
            lines.push(format!("hint: {hint}"));
        }
        lines.join("\n")
    }

    /// The error document, in the version of the request.
    pub fn document(&self, version: SpecVersion) -> Value {
        let mut document = Map::new();
        document.insert("cniVersion".to_owned(), version.as_str().into());
        document.insert("code".to_owned(), self.code.number().into());
        document.insert("msg".to_owned(), one_line(&self.message).into());
        let details = self.details();
        if !details.is_empty() {
            document.insert("details".to_owned(), details.into());
        }
        Value::Object(document)
    }
}

/// A message as runtimes log it: one line, of no more than a thousand characters. What makes one longer is a name or value of any length
/// that it quotes, so what is left out is in the middle: what failed stands before it, and why behind it.
fn one_line(message: &str) -> String {
    const START: usize = 700;
    const END: usize = 300;
    let line = message.replace(char::is_control, " ");
    let length = line.chars().count();
    if length <= START + END {
        return line;
    }
    line.chars().take(START).chain(" […] ".chars()).chain(line.chars().skip(length - END)).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code.number())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests;
