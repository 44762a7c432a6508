//! The checks. A file for each part of the catalogue; a case is a function bound to one item.

mod add;
mod arg;
mod attach;
mod cap;
mod cfg;
mod chk;
mod chn;
mod con;
mod defects;
mod del;
mod dlg;
mod env;
mod err;
mod gc;
mod ipm;
mod life;
mod neg;
mod protocol;
mod qua;
mod res;
mod rte;
mod runtime;
mod sta;
mod truth;
mod ver;

use serde_json::Value;

use crate::lab::Lab;
use crate::profile::{Kind, Profile};
use crate::verdict::{Finding, Outcome, Stop, Verdict};

/// A check of one item.
#[derive(Clone, Copy)]
pub struct Case {
    /// The item: `ADD-03`.
    pub item: &'static str,
    /// What this case tries, in a few words joined by hyphens; unique within the item.
    pub name: &'static str,
    /// The kinds of plugins it applies to.
    pub kinds: &'static [Kind],
    /// Whether it applies to a plugin of such a kind, beyond that.
    pub when: fn(&Profile) -> bool,
    /// It spends its time waiting, not working: it is started early, beside the others.
    pub waits: bool,
    /// The check itself. It tells what it finds to the lab.
    pub run: fn(&mut Lab) -> Outcome,
}

/// Every kind of plugin.
pub const ALL: &[Kind] = &[Kind::Interface, Kind::Ipam, Kind::Meta, Kind::Loopback];
/// Plugins that make or bring up an interface.
pub const INTERFACE: &[Kind] = &[Kind::Interface];
/// Address management.
pub const IPAM: &[Kind] = &[Kind::Ipam];
/// Plugins that only run after another.
pub const META: &[Kind] = &[Kind::Meta];
/// Everything that a runtime calls itself, that is, all but address management.
pub const CALLED: &[Kind] = &[Kind::Interface, Kind::Meta, Kind::Loopback];

impl Case {
    /// A case for plugins of these kinds.
    pub const fn new(
        item: &'static str,
        name: &'static str,
        kinds: &'static [Kind],
        run: fn(&mut Lab) -> Outcome,
    ) -> Self {
        Self { item, name, kinds, when: |_| true, waits: false, run }
    }

    /// …of which only those for which `when` holds.
    #[must_use]
    pub const fn when(mut self, when: fn(&Profile) -> bool) -> Self {
        self.when = when;
        self
    }

    /// …which tries the plugin's patience.
    #[must_use]
    pub const fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Whether it applies to this plugin.
    pub fn applies(&self, profile: &Profile) -> bool {
        self.kinds.contains(&profile.kind) && (self.when)(profile)
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.item, self.name)
    }
}

/// The parts, in no particular order: the catalogue has the order.
const PARTS: &[&[Case]] = &[
    add::CASES,
    arg::CASES,
    cap::CASES,
    cfg::CASES,
    chk::CASES,
    chn::CASES,
    con::CASES,
    defects::CASES,
    del::CASES,
    dlg::CASES,
    env::CASES,
    err::CASES,
    gc::CASES,
    ipm::CASES,
    neg::CASES,
    qua::CASES,
    res::CASES,
    rte::CASES,
    runtime::CASES,
    sta::CASES,
    ver::CASES,
];

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    PARTS.iter().copied().flatten()
}

/// The cases of an item.
pub fn of_item(item: &str) -> impl Iterator<Item = &'static Case> {
    let item = item.to_owned();
    all().filter(move |case| case.item == item)
}

/// One case.
pub fn find(item: &str, name: &str) -> Option<&'static Case> {
    all().find(|case| case.item == item && case.name == name)
}

/// Asks a plugin for its versions, and tries what its profile needs of the kernel. The versions are left as a passing finding.
pub fn probe(lab: &mut Lab) -> Outcome {
    for command in lab.profile.needs.clone() {
        let (ok, _, stderr) = lab.try_sh(&command)?;
        if !ok {
            return Err(Stop::Skip(format!("needs `{command}` to work here: {}", stderr.trim())));
        }
    }
    let reply = lab.run(&lab.call_network("VERSION"))?;
    let versions: Vec<String> = reply
        .document()
        .ok()
        .and_then(|document| document.get("supportedVersions").cloned())
        .and_then(|list| serde_json::from_value::<Vec<Value>>(list).ok())
        .unwrap_or_default()
        .iter()
        .filter_map(|version| version.as_str().map(str::to_owned))
        .collect();
    // Without an answer the cases run as a runtime would assume (version 1.0.0), and VERSION has items of its own.
    lab.found(Finding { verdict: Verdict::Pass, message: versions.join(" "), step: None });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalogue;

    #[test]
    fn every_case_belongs_to_an_item_and_has_a_name_of_its_own() {
        let items: BTreeSet<String> = catalogue::items().unwrap().into_iter().map(|item| item.id).collect();
        let mut names = BTreeSet::new();
        for case in all() {
            assert!(items.contains(case.item), "{case:?}: no such item");
            assert!(names.insert(format!("{case:?}")), "{case:?}: twice");
        }
    }

    #[test]
    fn every_item_is_checked_or_says_why_not() {
        for item in catalogue::items().unwrap() {
            let cases = of_item(&item.id).count();
            assert_ne!(
                cases > 0,
                item.unchecked.is_some(),
                "{}: {cases} cases, {:?}",
                item.id,
                item.unchecked
            );
        }
    }

    #[test]
    fn the_catalogue_is_whole() {
        let items = catalogue::items().unwrap();
        let ids: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!((items.len(), ids.len()), (187, 187));
    }
}
