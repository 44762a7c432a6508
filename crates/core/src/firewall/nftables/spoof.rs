//! Frames from a bridge port must carry the container's MAC address.
//!
//! ```text
//! table bridge ferrule_spoof {
//!     set ports { type ifname }                     # vethabcd1234
//!     set allowed { type ifname . ether_addr }      # vethabcd1234 . 02:42:…
//!     chain prerouting { type filter hook prerouting priority -300; iifname @ports iifname . ether saddr != @allowed drop }
//! }
//! ```

use super::plan::{Claim, Owned, Plan, Scaffold};
use crate::firewall::SpoofGuard;
use crate::netlink::MacAddress;
use crate::nft::{
    Chain, ChainType, DataType, Element, Family, Field, Hook, Rule, Set, Table, Value, priority,
};

pub(super) const TABLE: Table = Table::new(Family::Bridge, "ferrule_spoof");
const PORTS: Set = Set::new("ports", &[DataType::IfName]);
const ALLOWED: Set = Set::new("allowed", &[DataType::IfName, DataType::EtherAddr]);

pub(super) fn sets() -> Vec<Set> {
    vec![PORTS, ALLOWED]
}

pub(super) fn scaffold() -> Scaffold {
    let rule = Rule::new(Family::Bridge)
        .in_set(&[Field::IIFNAME], &PORTS)
        .not_in_set(&[Field::IIFNAME, Field::ETHER_SADDR], &ALLOWED)
        .drop();
    Scaffold {
        table: TABLE,
        sets: sets(),
        chains: vec![Chain::base("prerouting", ChainType::Filter, Hook::Prerouting, priority::RAW)],
        rules: vec![("prerouting", rule)],
    }
}

pub(super) fn compile(entry: &SpoofGuard, plan: &mut Plan) {
    let port = Value::IfName(entry.port.to_string());
    let mac = Value::Ether(entry.mac.parse::<MacAddress>().unwrap_or_default().0);
    plan.need(scaffold());
    for (set, key) in [(ALLOWED, vec![port.clone(), mac]), (PORTS, vec![port])] {
        plan.elements.push(Owned { table: TABLE, set, element: Element::new(key), claim: Claim::Takes });
    }
}
