//! Isolation of bridges in `filter`, in two stages: what comes from an isolated bridge and leaves by another link goes on to the second
//! stage, which drops what would enter an isolated bridge.

use cni::LinkName;

use super::forward::{CNI_FORWARD, FORWARD};
use super::rule::Rule;
use super::table::Table;
use crate::firewall::{Isolate, IsolationPolicy};

const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// What all comments begin with.
const ANY_COMMENT: &str = "CNI firewall plugin rules (ingressPolicy: ";

/// The comment of what both policies share.
const SHARED: &str = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";

fn comment(policy: IsolationPolicy) -> String {
    format!("CNI firewall plugin rules (ingressPolicy: {})", policy.as_str())
}

fn jump() -> Rule {
    Rule::new::<&str>([]).comment(SHARED).jump(STAGE_1)
}

fn end() -> Rule {
    Rule::new::<&str>([]).comment(SHARED).jump("RETURN")
}

/// Whether two rules differ in their comment at most. Versions of the Go suite before 1.7 named the policy in the comments of all
/// rules, so theirs stand for ours.
fn alike(one: &Rule, other: &Rule) -> bool {
    let known = |rule: &Rule| rule.comment_text().is_some_and(|text| text.starts_with(ANY_COMMENT));
    one.target() == other.target()
        && one.beyond(&["comment"]) == other.beyond(&["comment"])
        && known(one)
        && known(other)
}

fn ensure_first(table: &mut Table, chain: &str, rule: Rule) {
    if !table.rules(chain).iter().any(|other| alike(other, &rule)) {
        table.prepend(chain, rule);
    }
}

fn ensure_last(table: &mut Table, chain: &str, rule: Rule) {
    if !table.rules(chain).iter().any(|other| alike(other, &rule)) {
        table.append(chain, rule);
    }
}

/// Makes the isolation of one bridge so.
pub(super) fn ensure(table: &mut Table, entry: &Isolate) {
    let bridge = entry.bridge.as_str();
    let comment = comment(entry.policy);
    table.ensure_chain(STAGE_1);
    table.ensure_chain(STAGE_2);
    ensure_first(table, FORWARD, jump());
    let leaving = Rule::new(["-i", bridge, "!", "-o", bridge]).comment(&comment).jump(STAGE_2);
    ensure_first(table, STAGE_1, leaving);
    if entry.policy == IsolationPolicy::Isolated {
        let between_ports = Rule::new(["-i", bridge, "-o", bridge]).comment(&comment).jump("DROP");
        ensure_first(table, STAGE_1, between_ports);
    }
    ensure_last(table, STAGE_1, end());
    let entering = Rule::new(["-o", bridge]).comment(SHARED).jump("DROP");
    ensure_first(table, STAGE_2, entering);
    ensure_last(table, STAGE_2, end());
    keep_before_forward(table);
}

/// Isolation decides before `CNI-FORWARD` accepts. The Go suite puts both first and trusts that it is the last to do so, which does not
/// hold after somebody flushed a part of `FORWARD`.
pub(super) fn keep_before_forward(table: &mut Table) {
    let rules = table.rules(FORWARD);
    let first = |chain: &str| rules.iter().position(|rule| rule.target() == Some(chain));
    if let (Some(isolation), Some(forward)) = (first(STAGE_1), first(CNI_FORWARD))
        && forward < isolation
    {
        table.delete(FORWARD, |rule| rule.target() == Some(STAGE_1));
        table.prepend(FORWARD, jump());
    }
}

/// Removes the isolation of a bridge that nobody uses any more, and the chains when no bridge is isolated.
pub(super) fn remove(table: &mut Table, bridge: &LinkName) {
    let about = |rule: &Rule, options: &[&str]| {
        options.iter().any(|option| rule.value(option) == Some(bridge.as_str()))
            && rule.comment_text().is_some_and(|text| text.starts_with(ANY_COMMENT))
    };
    table.delete(STAGE_1, |rule| about(rule, &["-i"]));
    table.delete(STAGE_2, |rule| about(rule, &["-o"]));
    let idle = |chain| table.rules(chain).iter().all(|rule| alike(rule, &end()));
    if table.has_chain(STAGE_1) && idle(STAGE_1) && idle(STAGE_2) {
        table.delete(FORWARD, |rule| rule.target() == Some(STAGE_1));
        table.delete_chain(STAGE_1);
        table.delete_chain(STAGE_2);
    }
}
