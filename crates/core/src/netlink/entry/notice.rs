//! Notifications of the kernel's that tell of one's own changes.

use super::wire::{DELETE, Key, RTM_NEWNEIGH, RTM_NEWNEXTHOP, RTM_NEWROUTE, key};
use super::{Change, Entry, Fdb, FdbTarget, Neighbour, Nexthop, PrefixRoute};

/// Whether a notification (type of the message, and what is behind its header) says no more than that these changes were made. One that says that an
/// entry is another than was set, or is back that was removed, does not.
pub fn is_echo(kind: u16, payload: &[u8], own: &[Change]) -> bool {
    let Some(told) = key(kind, payload) else { return false };
    let removed = kind & GET_OR_DELETE == DELETE;
    own.iter().any(|change| match change {
        Change::Set(entry) => {
            Key::of(entry) == told && !removed && listed(kind, payload).is_some_and(|now| agrees(&now, entry))
        }
        // A neighbour fails before it goes.
        Change::Remove(entry) => Key::of(entry) == told && (removed || listed(kind, payload).is_none()),
    })
}

/// The two lowest bits of a message's type: make, remove, ask, change.
const GET_OR_DELETE: u16 = 3;

/// The entry that a notification shows, as a listing would; `None` for one that nobody has made.
fn listed(kind: u16, payload: &[u8]) -> Option<Entry> {
    match kind {
        RTM_NEWNEIGH => Fdb::decode(payload)
            .filter(|_| Key::is_of_fdb(payload))
            .map(Entry::Fdb)
            .or_else(|| Neighbour::decode(payload).map(Entry::Neighbour)),
        RTM_NEWNEXTHOP => Nexthop::decode(payload).map(Entry::Nexthop),
        RTM_NEWROUTE => PrefixRoute::decode(payload).map(Entry::Route),
        _ => None,
    }
}

/// Whether an entry is as it was set. What was set in a device and its bridge at once is two.
fn agrees(now: &Entry, set: &Entry) -> bool {
    match (now, set) {
        (Entry::Fdb(now), Entry::Fdb(set)) if now.bridge => set.bridge && now.target == FdbTarget::Port,
        (Entry::Fdb(now), Entry::Fdb(set)) => now.target == set.target,
        (now, set) => now == set,
    }
}
