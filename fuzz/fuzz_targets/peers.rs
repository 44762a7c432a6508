//! The nodes of an overlay network: a file of peers, records, flannel's file, the agent's state. What is accepted makes a network in which no
//! two nodes have the same address.
#![no_main]

use cni::{LinkName, NetworkName};
use ferrule_overlay::source::{Flannel, State, peers};
use ferrule_overlay::{Listed, NodeRecord, Port, Settings, Underlay, View, Vni};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

fuzz_target!(|input: &[u8]| -> Corpus {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(flannel) = Flannel::parse(text, "subnet.env")
    {
        assert!(!flannel.blocks.is_empty());
        assert!(flannel.blocks.iter().chain(&flannel.cluster).all(|block| block.network() == *block));
    }
    if let Ok(state) = serde_json::from_slice::<State>(input) {
        let text = serde_json::to_vec(&state).expect("JSON has a text");
        assert_eq!(serde_json::from_slice::<State>(&text).expect("what was written can be read"), state);
        is_a_file_name(state.node.as_str());
    }
    if let Ok(record) = NodeRecord::from_json(input, "record") {
        comes_back(&record);
    }
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return Corpus::Keep };
    let Ok(vni) = Vni::new(42) else { return Corpus::Reject };
    if let Ok(nodes) = peers(&value, "peers", vni, Port::VXLAN) {
        nodes.iter().for_each(|listed| comes_back(&listed.record));
        network_of(nodes, vni);
    }
    Corpus::Keep
});

fn comes_back(record: &NodeRecord) {
    let text = serde_json::to_vec(record).expect("JSON has a text");
    let again = NodeRecord::from_json(&text, "record");
    assert_eq!(again.as_ref().ok(), Some(record), "{again:?}");
    is_a_file_name(record.node.as_str());
    assert!(record.blocks.iter().all(|block| block.network() == *block));
}

fn is_a_file_name(name: &str) {
    assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']), "{name:?}");
}

/// The first node's view of all.
fn network_of(nodes: Vec<Listed>, vni: Vni) {
    let Some(own) = nodes.first().map(|listed| listed.record.clone()) else { return };
    let settings = Settings::new(NetworkName::new("blue").expect("a name"), vni).expect("names that fit");
    let family = View::transport(&settings, &nodes);
    let Some(address) = own.underlay(family) else { return };
    let interface = LinkName::new("eth0").expect("a name");
    let underlay = Underlay { address, prefix: 24, interface, mtu: 1500 };
    let Ok((view, _)) = View::screened(settings, underlay, &own.node, nodes) else { return };
    let all: Vec<&NodeRecord> = std::iter::once(view.node()).chain(view.peers()).collect();
    let blocks: Vec<_> = all.iter().flat_map(|node| &node.blocks).collect();
    for (index, block) in blocks.iter().enumerate() {
        assert!(blocks[..index].iter().all(|other| !other.overlaps(block)), "{block} is given twice");
    }
    for (index, node) in all.iter().enumerate() {
        let same = |other: &&NodeRecord| {
            other.node == node.node || other.underlays().any(|a| node.underlays().any(|b| a == b))
        };
        assert!(!all[..index].iter().any(same), "{node:?} is there twice");
    }
}
