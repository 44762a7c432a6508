//! `CNI_ARGS`: `K=V;K2=V2`.

use crate::failure::{Code, Failure};
use crate::json::shorten;

/// The pairs of `CNI_ARGS`, in order. Parsed only by plugins that use them; others ignore the variable altogether.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Parses as libcni's `LoadArgs`: pairs separated by `;`, each with exactly one `=`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(';')
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) if !value.contains('=') => Ok((key.to_owned(), value.to_owned())),
                _ => Err(Failure::new(
                    Code::InvalidEnvironment,
                    format!("CNI_ARGS: invalid pair {:?}", shorten(pair)),
                )
                .hint("write CNI_ARGS as KEY=VALUE;KEY2=VALUE2, without a trailing `;`")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The last value of a key; keys are case-sensitive.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Refuses keys other than those given, unless `IgnoreUnknown` is `1` or `true`.
    pub fn allow_only(&self, known: &[&str]) -> Result<(), Failure> {
        let ignore = match self.get("IgnoreUnknown") {
            None => false,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => {
                    let message = format!(
                        "CNI_ARGS: IgnoreUnknown is {:?}, not one of 1, true, 0, false",
                        shorten(text)
                    );
                    return Err(Failure::new(Code::InvalidEnvironment, message));
                }
            },
        };
        let unknown: Vec<&str> = self
            .0
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| *key != "IgnoreUnknown" && !known.contains(key))
            .collect();
        if ignore || unknown.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Code::InvalidEnvironment,
            format!("CNI_ARGS: unknown args {}", shorten(&format!("{unknown:?}"))),
        )
        .hint("add IgnoreUnknown=1 to CNI_ARGS to pass keys that this plugin does not know"))
    }
}

#[cfg(test)]
mod tests;
