//! The record as a fuzz target sees it.

use super::{FORMAT, Header, Record, line, path};
use crate::owner::Owner;
use crate::state::ROOT;

crate::resources! {
    /// All there are.
    enum Resource {
        Tunnel, Bridge, VethPair, BridgePort, OverlayPort, VlanGateway, Gateway, Interface, Forwarding, LocalRouting, ProxyArp, Lease, Rules, Backup,
        Setting, SysctlSetting,
    }
}

/// Whatever a record says, what was read of it can be written and read again, and a shorter one says less, not something else.
pub fn record(bytes: &[u8]) {
    let Some(record) = Record::<Resource>::parse(bytes) else { return };
    let first = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let header: Header = serde_json::from_slice(first).expect("it was read just now");
    assert_eq!(header.format, FORMAT);
    belongs(&header.owner, &header.plugin);

    let mut written = line(&header).expect("a header has a text");
    for resource in &record.resources {
        written.extend(line(resource).expect("a resource has a text"));
    }
    let again = Record::<Resource>::parse(&written).expect("what was written is a record");
    assert!(!again.damaged && again.netns == record.netns);
    assert_eq!(again.resources, record.resources, "written and read");

    // A process may have been killed anywhere. The middle stands for all places: the input chooses its length.
    if let Some(half) = Record::<Resource>::parse(&bytes[..bytes.len().midpoint(first.len())]) {
        assert!(
            record.resources.starts_with(&half.resources),
            "{:?} of {:?}",
            half.resources,
            record.resources
        );
    }
}

/// An owner's record is below the directory of records, whatever its names are.
fn belongs(owner: &Owner, plugin: &str) {
    let tag = owner.tag();
    assert!(tag.starts_with('#') || Owner::from_tag(&tag).as_ref() == Some(owner), "{tag}");
    if plugin == "bridge" {
        let path = path(owner, plugin);
        let below = path.strip_prefix(ROOT).expect("below the root of all state");
        assert_eq!(below.components().count(), 5, "{}", path.display());
        assert!(
            below.components().all(|part| matches!(part, std::path::Component::Normal(_))),
            "{}",
            path.display()
        );
    }
}
