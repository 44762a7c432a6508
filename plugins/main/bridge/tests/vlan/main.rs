//! VLANs of a bridge and its ports.
//!
//! Kernels made for small machines leave VLAN filtering out (`CONFIG_BRIDGE_VLAN_FILTERING`); `make test-uml` runs these tests on one that
//! has it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on")]
#![allow(dead_code, reason = "a part of the support of other tests")]

mod gateway;
mod port;
#[path = "../behaviour/support.rs"]
mod support;

use serde_json::Value;
use testkit::{Host, Netns};

/// Why a test is skipped.
pub const NO_FILTERING: &str = "this kernel's bridges filter no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)";

/// A host whose kernel has what these tests are about.
pub fn host_with_filtering() -> Option<Host> {
    let host = Host::new();
    let words = ["link", "add", "probe0", "type", "bridge", "vlan_filtering", "1"];
    if host.netns().run("ip", &words).code != 0 {
        return None;
    }
    support::ip(host.netns(), "link del probe0");
    Some(host)
}

/// The VLANs of a port: `100 PVID Egress Untagged`, or a range `200-210`.
pub fn vlans(netns: &Netns, port: &str) -> Vec<String> {
    let ran = netns.run("bridge", &["-j", "vlan", "show", "dev", port]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ports: Value = serde_json::from_str(&ran.stdout).unwrap();
    let vlans = ports[0]["vlans"].as_array().cloned().unwrap_or_default();
    vlans.iter().map(vlan).collect()
}

fn vlan(vlan: &Value) -> String {
    let mut text = vlan["vlan"].to_string();
    if let Some(end) = vlan.get("vlanEnd") {
        text = format!("{text}-{end}");
    }
    for flag in vlan["flags"].as_array().into_iter().flatten() {
        text.push(' ');
        text.push_str(flag.as_str().unwrap());
    }
    text
}
