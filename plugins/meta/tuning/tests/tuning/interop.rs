//! Next to the Go suite on one host.

use std::fs;

use serde_json::{Value, json};
use testkit::{Plugin, Snapshot, reference_dir};

use crate::lab::{Lab, config, properties};

fn tuned() -> Value {
    let mut config = config(&json!({
        "cniVersion": "1.0.0", "mac": "c2:11:22:33:44:55", "mtu": 1400, "promisc": true, "allmulti": true
    }));
    config["prevResult"]["cniVersion"] = "1.0.0".into();
    config
}

#[test]
fn each_suite_restores_what_the_other_has_changed() {
    let Some(reference) = reference_dir(&["tuning"]) else {
        testkit::skip!("the Go suite is not installed (package containernetworking-plugins)");
    };
    let lab = Lab::new();
    let (ours, theirs) = (Plugin::new("tuning"), Plugin::at(reference.join("tuning")));
    let before = properties(&lab.link());
    for (add, del) in [(&theirs, &ours), (&ours, &theirs)] {
        lab.run(add, "ADD", "", &tuned()).success();
        let file = fs::read("/run/cni/tuning/c1_eth0.json").unwrap();
        let saved: Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(
            saved,
            json!({ "mac": before["mac"], "mtu": before["mtu"], "promisc": false, "allmulti": false })
        );
        lab.run(del, "CHECK", "", &tuned()).success();
        lab.run(del, "DEL", "", &tuned()).success();
        assert_eq!(properties(&lab.link()), before);
    }
    // What is ours alone goes with our own DEL, and there is nothing left to restore.
    lab.run(&ours, "DEL", "", &tuned()).success();
    assert_eq!(properties(&lab.link()), before);
    assert_eq!(Snapshot::take().section("files"), Vec::<String>::new());
}
