//! A container network across hosts, as data.
//!
//! A [`NodeRecord`] is what others must know of a node. A [`View`] is a network as one node sees it: settings, itself, its peers, valid by
//! construction. What the kernel should have for it is a pure function of the view; what it has is listed, the difference is a batch of
//! changes. The `vxlan` plugin without an agent and the node agent use the same functions, so they agree on every object.
//!
//! Nothing here talks to a server, and nothing is asynchronous.
#![forbid(unsafe_code)]

pub mod actual;
pub mod desired;
pub mod device;
mod diff;
mod error;
pub mod identity;
pub mod ledger;
mod live;
pub mod mac;
mod names;
mod nexthops;
mod node;
mod occupied;
mod ports;
mod program;
pub mod source;
mod table;
mod view;

pub use actual::{Actual, Links};
pub use desired::{Desired, Endpoint, Hop, endpoints, gateway, gateways, is_endpoint, used};
pub use diff::{Changes, diff};
pub use error::{Error, Invalid, Reason};
pub use live::{Live, Stepped};
pub use names::{Family, Mode, Mtu, NodeId, Port, RangeError, Vni};
pub use node::{FORMAT, Listed, NodeRecord};
pub use occupied::occupied;
pub use ports::PLUGIN;
pub use program::{Purge, Report, apply, guard, program, reconcile, remove, survey, tunnel, verify};
pub use source::{Flannel, State};
pub use table::Table;
pub use view::{ALIAS, ENDPOINT_LIMIT, Settings, Step, Underlay, View, aggregate};
