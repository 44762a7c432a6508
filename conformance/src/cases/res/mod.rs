//! The content of results: schemas, interfaces, addresses, DNS.

mod dns;
mod form;
mod parts;

use super::protocol::asks_nobody_unasked;
use super::{ALL, CALLED, Case, INTERFACE, IPAM, META};
use crate::profile::{Kind, Profile};

const fn delegates(profile: &Profile) -> bool {
    profile.delegates
}

/// Plugins whose result has the addresses of a container that they, or their delegates, have chosen.
const ADDRESSING: &[Kind] = &[Kind::Interface, Kind::Ipam];

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("RES-01", "each-version", ALL, form::each_version),
    Case::new("RES-01", "each-variant", ALL, form::each_variant),
    Case::new("RES-02", "each-version", ALL, form::ips_since_1_0),
    Case::new("RES-03", "each-version", ALL, form::ips_before_1_0),
    Case::new("RES-04", "each-version", &[Kind::Interface, Kind::Ipam, Kind::Loopback], form::old),
    Case::new("RES-05", "no-address", INTERFACE, form::no_address)
        .when(|profile| delegates(profile) && asks_nobody_unasked(profile)),
    Case::new("RES-06", "each-version", ALL, form::nothing_newer),
    Case::new("RES-06", "route-attributes", INTERFACE, form::no_newer_routes).when(delegates),
    Case::new("RES-07", "nulls", ALL, form::no_nulls),
    Case::new("RES-08", "debugging", ALL, form::debugging),
    Case::new("IFC-01", "names", CALLED, parts::names),
    Case::new("IFC-02", "as-the-kernel", CALLED, parts::hardware_addresses),
    Case::new("IFC-03", "sandbox", CALLED, parts::sandboxes),
    Case::new("IFC-03", "verbatim", CALLED, parts::sandbox_verbatim),
    Case::new("IFC-04", "as-the-kernel", CALLED, parts::mtus),
    Case::new("IFC-04", "configured", INTERFACE, parts::configured_mtu)
        .when(|profile| profile.facts.contains_key("mtu")),
    Case::new("IFC-05", "socket", ALL, parts::sockets),
    Case::new("IFC-06", "device", ALL, parts::devices),
    Case::new("IPS-01", "own-address", ALL, parts::own_addresses),
    Case::new("IPS-02", "form", ALL, parts::gateways),
    Case::new("IPS-02", "from-delegate", INTERFACE, parts::gateways_of_delegate).when(delegates),
    Case::new("IPS-03", "points-at-its-interface", CALLED, parts::indexes),
    Case::new("IPS-03", "none-of-address-management", IPAM, parts::no_indexes),
    Case::new("IPS-04", "of-the-host", META, parts::foreign_addresses),
    Case::new("DNS-01", "from-configuration", INTERFACE, dns::from_configuration),
    Case::new("DNS-01", "from-delegate", INTERFACE, dns::from_delegate).when(delegates),
    Case::new("DNS-01", "from-file", IPAM, dns::from_file)
        .when(|profile| profile.facts.contains_key("resolver")),
    Case::new("DNS-02", "both", INTERFACE, dns::configuration_first).when(delegates),
    Case::new("DNS-03", "no-file", ADDRESSING, dns::no_file),
];
