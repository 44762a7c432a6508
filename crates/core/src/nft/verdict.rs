//! Verdicts: what becomes of a packet.

use std::borrow::Cow;
use std::fmt;

use super::abi;
use crate::nfnetlink::{Attributes, find, text};

/// What a packet's walk through the chains does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let the packet pass this hook.
    Accept,
    /// Discard the packet.
    Drop,
    /// Go on with the next expression or rule.
    Continue,
    /// Go back to the calling chain; in a base chain, apply the policy.
    Return,
    /// Go through another chain, then come back.
    Jump(Cow<'static, str>),
    /// Go through another chain and return to this one's caller.
    Goto(Cow<'static, str>),
}

impl Verdict {
    /// Goes through `chain`, then comes back.
    pub fn jump(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Jump(chain.into())
    }

    /// Goes through `chain` and returns to this one's caller.
    pub fn goto(chain: impl Into<Cow<'static, str>>) -> Self {
        Self::Goto(chain.into())
    }

    /// `enum nft_verdicts`, which continues netfilter's `NF_DROP` and `NF_ACCEPT`; and the chain to go to.
    fn parts(&self) -> (i32, Option<&str>) {
        match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Continue => (-1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        }
    }

    /// Adds the verdict as `NFTA_DATA_VERDICT`.
    pub(super) fn encode(&self, into: &mut Attributes) {
        let (code, chain) = self.parts();
        into.nest(abi::data::VERDICT, |verdict| {
            verdict.bytes(abi::data::VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.string(abi::data::VERDICT_CHAIN, chain);
            }
        });
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let code = find(bytes, abi::data::VERDICT_CODE)?.try_into().ok().map(i32::from_be_bytes)?;
        let chain = || find(bytes, abi::data::VERDICT_CHAIN).map(|name| Cow::Owned(text(name)));
        Some(match code {
            0 => Self::Drop,
            1 => Self::Accept,
            -1 => Self::Continue,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
