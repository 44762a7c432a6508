//! `nf_tables` over netlink: the kernel's packet filter, read and changed in-process.
//!
//! No policy lives here, only the transport: typed tables, chains, sets and rules; transactions that apply as a whole; errors
//! that name the object. What it makes prints in `nft list ruleset` as if it had been typed, which is how it is tested.
//! Why there is an encoder of our own is recorded in `docs/adr/0003-own-nf-tables-encoder.md`.
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//! use std::time::{Duration, Instant};
//! use ferrule_core::nft::{AddressType, Chain, ChainType, Connection, DataType, Element, Family, Field, Hook, Protocol, Rule, Set,
//!     Table, Transaction, priority};
//!
//! const TABLE: Table = Table::new(Family::Inet, "example");
//! const PORTS: Set = Set::map("ports", &[DataType::InetProto, DataType::InetService], &[DataType::Ipv4Addr, DataType::InetService]);
//!
//! let mut connection = Connection::open(Instant::now() + Duration::from_secs(5))?;
//! let mut transaction = Transaction::new();
//! transaction.add_table(&TABLE);
//! transaction.add_set(&TABLE, &PORTS);
//! if connection.chain(&TABLE, "prerouting")?.is_none() {
//!     let chain = Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, priority::DSTNAT);
//!     transaction.add_chain(&TABLE, &chain);
//!     let rule = Rule::new(Family::Inet)
//!         .fib_daddr_type(AddressType::Local)
//!         .dnat_map(&[Field::L4PROTO, Field::TH_DPORT], &PORTS);
//!     transaction.add_rule(&TABLE, "prerouting", &rule);
//! }
//! let key = [Protocol::TCP.into(), 8080.into()];
//! let target = [Ipv4Addr::new(10, 88, 0, 2).into(), 80.into()];
//! transaction.create_element(&TABLE, &PORTS, &Element::new(key).data(target).comment("container 1"));
//! connection.commit(&transaction)?;
//! # Ok::<(), ferrule_core::nft::Error>(())
//! ```

mod abi;
mod connection;
mod element;
mod error;
mod expression;
mod field;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod outcome;
mod read;
mod rule;
mod set;
mod table;
mod transaction;
mod userdata;
mod value;
mod verdict;

pub use connection::Connection;
pub use element::{Element, Mapped};
pub use error::Error;
pub use field::Field;
pub use outcome::Outcome;
pub use read::{ChainInfo, RuleInfo, TableInfo};
pub use rule::{AddressType, Direction, Rule, ct_state, ct_status};
pub use set::{MapTo, Set};
pub use table::{Base, Chain, ChainType, Family, Hook, Policy, Table, priority};
pub use transaction::Transaction;
pub use value::{DataType, Protocol, Value};
pub use verdict::Verdict;
