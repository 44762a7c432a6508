//! The documentation's example does what the page says.

use serde_json::json;
use testkit::{Attachment, Runtime, Snapshot, Uplink, documented_example, ping};

use crate::lab::{Lab, iptables, network};

#[test]
fn the_example_connects_and_isolates() {
    let lab = Lab::new();
    iptables("-P FORWARD DROP");
    let other = lab.start(&network(2, &json!({ "ingressPolicy": "same-bridge" })), "other");
    let before = Snapshot::take();
    let chain = Runtime::new().chain(&documented_example("firewall"));
    chain.status().unwrap();
    let containers = ["c1", "c2"].map(|id| lab.host.container(id));
    let attachments =
        [0, 1].map(|index| Attachment::new(containers[index].name(), &containers[index], "eth0"));
    for attachment in &attachments {
        chain.add(attachment).unwrap_or_else(|failure| panic!("{failure}"));
        chain.check(attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
    assert!(ping(&containers[0], [10, 94, 0, 3]), "each other");
    assert!(ping(&containers[0], Uplink::OUTSIDE_IPV4), "the world");
    assert!(!ping(&other.container, [10, 94, 0, 2]), "from another isolated bridge");
    for attachment in &attachments {
        chain.del(attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let leases = ["/var/lib/cni"];
    before.without(&leases).assert_same(&Snapshot::take().without(&leases));
}
