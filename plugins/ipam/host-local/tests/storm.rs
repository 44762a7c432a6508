//! Many calls at once, and many in a row: no address twice, none lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;

use common::{Answer, Lab};
use proptest::prelude::*;
use serde_json::Value;

/// Starts a verb for every container, all before the first is waited for.
fn all(lab: &Lab, verb: &str, containers: &[String], config: &Value) -> Vec<Answer> {
    let children: Vec<Child> = containers
        .iter()
        .map(|container| common::start(lab.command(common::OURS, verb, container, "eth0"), config))
        .collect();
    children.into_iter().map(|child| Answer::of(&child.wait_with_output().unwrap())).collect()
}

#[test]
fn fifty_at_once_get_different_addresses() {
    let lab = Lab::new();
    // Exactly as many addresses as containers: each must be found.
    let config = lab.config(&serde_json::json!({ "ranges": [
        [{ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.59" }], [{ "subnet": "fd00::/64" }]
    ] }));
    let containers: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    let mut seen = BTreeSet::new();
    for answer in all(&lab, "ADD", &containers, &config) {
        for address in answer.addresses() {
            assert!(seen.insert(address.clone()), "{address} was given twice");
        }
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(lab.leases().len(), 100);
    lab.call("ADD", "one-more", &config).failed(104);
    for answer in all(&lab, "CHECK", &containers, &config) {
        answer.ok();
    }
    for answer in all(&lab, "DEL", &containers, &config) {
        answer.ok();
    }
    assert!(lab.leases().is_empty());
    lab.assert_tidy();
}

#[test]
fn the_same_attachment_fifty_times_at_once_gets_one_lease() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/24"]);
    let containers = vec!["c1".to_owned(); 50];
    let answers = all(&lab, "ADD", &containers, &config);
    assert_eq!(answers.iter().filter(|answer| answer.success).count(), 1);
    for answer in answers.iter().filter(|answer| !answer.success) {
        assert!(answer.failed(103).contains("duplicate allocation is not allowed"));
    }
    assert_eq!(lab.leases().len(), 1);
}

#[test]
fn adds_and_dels_and_gc_mixed() {
    let lab = Lab::new();
    let config = lab.subnets(&["10.0.0.0/26"]);
    let old: Vec<String> = (0..25).map(|number| format!("old{number}")).collect();
    for answer in all(&lab, "ADD", &old, &config) {
        answer.ok();
    }
    let new: Vec<String> = (0..25).map(|number| format!("new{number}")).collect();
    let mut children = Vec::new();
    for (old, new) in old.iter().zip(&new) {
        children.push(common::start(lab.command(common::OURS, "DEL", old, "eth0"), &config));
        children.push(common::start(lab.command(common::OURS, "ADD", new, "eth0"), &config));
    }
    for child in children {
        Answer::of(&child.wait_with_output().unwrap()).ok();
    }
    let owners: BTreeSet<String> = lab.leases().into_values().collect();
    let expected: BTreeSet<String> = new.iter().map(|container| format!("{container}\r\neth0")).collect();
    assert_eq!(owners, expected);
}

/// One step of a history: a verb for one of a few containers.
#[derive(Debug, Clone)]
enum Step {
    Add(u8, Option<u8>),
    Del(u8),
    Check(u8),
    Gc(BTreeSet<u8>),
    /// Somebody else's hand in the store.
    Remove(u8),
    Debris(u8),
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..8_u8, proptest::option::weighted(0.2, 2..7_u8)).prop_map(|(container, address)| Step::Add(container, address)),
        6 => (0..8_u8).prop_map(Step::Del),
        2 => (0..8_u8).prop_map(Step::Check),
        1 => proptest::collection::btree_set(0..8_u8, 0..8).prop_map(Step::Gc),
        1 => (2..7_u8).prop_map(Step::Remove),
        1 => (2..7_u8).prop_map(Step::Debris),
        1 => Just(Step::LoseIndex),
    ]
}

/// What the store must hold: container by address.
type Model = BTreeMap<String, u8>;

fn holder(model: &Model, container: u8) -> Option<&String> {
    model.iter().find(|(_, owner)| **owner == container).map(|(address, _)| address)
}

/// Runs a step on the plugin and on the model.
fn apply(lab: &Lab, model: &mut Model, step: &Step) {
    let mut config = lab.subnets(&["10.0.0.0/29"]);
    match step {
        Step::Add(container, wanted) => {
            if let Some(last) = wanted {
                config["runtimeConfig"] = serde_json::json!({ "ips": [format!("10.0.0.{last}")] });
            }
            let answer = lab.call("ADD", &format!("c{container}"), &config);
            let taken = |last: &u8| model.contains_key(&format!("10.0.0.{last}"));
            if holder(model, *container).is_some() || wanted.as_ref().is_some_and(taken) {
                answer.failed(103);
            } else if model.len() == 5 {
                answer.failed(104);
            } else {
                let address = answer.addresses().remove(0);
                assert!(wanted.is_none_or(|last| address == format!("10.0.0.{last}")));
                assert_eq!(model.insert(address.clone(), *container), None, "{address} was taken");
            }
        }
        Step::Del(container) => {
            lab.del(&format!("c{container}"), &config);
            model.retain(|_, owner| owner != container);
        }
        Step::Check(container) => {
            let answer = lab.call("CHECK", &format!("c{container}"), &config);
            assert_eq!(answer.success, holder(model, *container).is_some(), "{}", answer.document);
        }
        Step::Gc(valid) => {
            let pairs: Vec<String> = valid.iter().map(|container| format!("c{container}/eth0")).collect();
            lab.gc(&config, &pairs.iter().map(String::as_str).collect::<Vec<_>>()).ok();
            model.retain(|_, owner| valid.contains(owner));
        }
        Step::Remove(last) => {
            let _ = std::fs::remove_file(lab.lease(&format!("10.0.0.{last}")));
            model.remove(&format!("10.0.0.{last}"));
        }
        Step::Debris(last) => {
            let address = format!("10.0.0.{last}");
            if !model.contains_key(&address) && lab.store().exists() {
                lab.write_lease(&address, "");
            }
        }
        Step::LoseIndex => drop(std::fs::remove_dir_all(lab.data().join(".ferrule"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_history_of_calls_keeps_the_store_as_a_model_of_it(steps in proptest::collection::vec(step(), 1..60)) {
        let lab = Lab::new();
        let mut model = Model::new();
        for step in &steps {
            apply(&lab, &mut model, step);
            let leases: Model = lab
                .leases()
                .into_iter()
                .filter(|(_, owner)| !owner.is_empty())
                .map(|(address, owner)| (address, owner[1..2].parse().unwrap()))
                .collect();
            prop_assert_eq!(&leases, &model, "after {:?}", step);
        }
        for container in 0..8 {
            apply(&lab, &mut model, &Step::Del(container));
        }
        prop_assert!(lab.leases().values().all(String::is_empty));
    }
}
