//! What rules of others do with the packets they match, as far as one must know to tell whether packets pass.

use super::abi::{self, expression, register};
use super::read::RuleInfo;
use super::verdict::Verdict;
use crate::nfnetlink::{be32, find, parse, text};

/// What a rule may do with a packet it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Always this.
    Verdict(Verdict),
    /// The packet is discarded, and its sender told.
    Reject,
    /// What a map of verdicts says, by name.
    Map(String),
}

/// `NFTA_TARGET_NAME` of `linux/netfilter/nf_tables_compat.h`: a target of iptables.
const TARGET_NAME: u16 = 1;

impl RuleInfo {
    /// What the rule may do with a packet; nothing for one that only counts, marks or translates.
    pub fn outcomes(&self) -> Vec<Outcome> {
        parse(&self.expressions).filter_map(|(_, expression)| outcome(expression)).collect()
    }
}

fn outcome(bytes: &[u8]) -> Option<Outcome> {
    let data = find(bytes, expression::DATA).unwrap_or_default();
    let to_verdict = |kind| find(data, kind).and_then(be32) == Some(register::VERDICT);
    match text(find(bytes, expression::NAME)?).as_str() {
        "immediate" if to_verdict(expression::IMMEDIATE_DREG) => {
            let value = find(data, expression::IMMEDIATE_DATA)?;
            Verdict::decode(find(value, abi::data::VERDICT)?).map(Outcome::Verdict)
        }
        "lookup" if to_verdict(expression::LOOKUP_DREG) => {
            Some(Outcome::Map(text(find(data, expression::LOOKUP_SET)?)))
        }
        "reject" => Some(Outcome::Reject),
        "target" if text(find(data, TARGET_NAME)?) == "REJECT" => Some(Outcome::Reject),
        _ => None,
    }
}
