//! ADD: an interface that works, a true result, and nothing left of a failure.

mod basic;
mod failing;
mod routes;
mod several;
mod traffic;

use super::{ALL, CALLED, Case, INTERFACE};
use crate::profile::{Kind, Profile};

/// Everything with state of its own for each attachment. Of loopback there is one for each container, whatever the network.
const KEYED: &[Kind] = &[Kind::Interface, Kind::Ipam, Kind::Meta];

const fn delegates(profile: &Profile) -> bool {
    profile.delegates
}

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ADD-01", "interface-is-there", CALLED, basic::interface_is_there),
    Case::new("ADD-02", "each-version", ALL, basic::each_version),
    Case::new("ADD-02", "each-variant", ALL, basic::each_variant),
    Case::new("ADD-03", "existing-interface", INTERFACE, basic::existing_interface),
    Case::new("ADD-03", "second-add", INTERFACE, basic::second_add),
    Case::new("ADD-04", "impossible-names", INTERFACE, basic::impossible_names),
    Case::new("ADD-04", "names-with-a-meaning", INTERFACE, basic::names_with_a_meaning),
    Case::new("ADD-05", "each-version", CALLED, basic::true_in_each_version),
    Case::new("ADD-05", "each-variant", CALLED, basic::true_in_each_variant),
    Case::new("ADD-06", "each-version", CALLED, basic::whole_in_each_version),
    Case::new("ADD-06", "each-variant", CALLED, basic::whole_in_each_variant),
    Case::new("ADD-07", "up", CALLED, traffic::up),
    Case::new("ADD-07", "host-and-container", INTERFACE, traffic::host_and_container)
        .when(|profile| profile.carries_traffic),
    Case::new("ADD-07", "container-and-container", INTERFACE, traffic::container_and_container)
        .when(|profile| profile.carries_traffic),
    Case::new("ADD-07", "loopback", &[Kind::Loopback], traffic::loopback),
    Case::new("ADD-07", "still-passes", super::META, traffic::still_passes),
    Case::new("ADD-08", "delegate-fails", INTERFACE, failing::delegate_is_called_again).when(delegates),
    Case::new("ADD-09", "delegate", INTERFACE, failing::delegate_unchanged).when(delegates),
    Case::new("ADD-09", "kernel-refuses", INTERFACE, failing::kernel_refuses).when(delegates),
    Case::new("ADD-09", "late", ALL, failing::late).when(|profile| !profile.fails.is_empty()),
    Case::new("ADD-09", "no-room", super::IPAM, failing::no_room)
        .when(|profile| profile.facts.contains_key("room_for_one")),
    Case::new("ADD-10", "failed", INTERFACE, failing::deleted_after_failure).when(delegates),
    Case::new("ADD-10", "failed-late", ALL, failing::deleted_after_late_failure)
        .when(|profile| !profile.fails.is_empty()),
    Case::new("ADD-10", "killed", ALL, failing::killed),
    Case::new("ADD-10", "killed-in-delegate", INTERFACE, failing::killed_in_delegate).when(delegates),
    Case::new("ADD-11", "same-network", KEYED, several::same_network),
    Case::new("ADD-11", "other-network", INTERFACE, several::other_network).when(delegates),
    Case::new("ADD-12", "one-goes", KEYED, several::one_goes),
    Case::new("ADD-12", "either-way", KEYED, several::either_way),
    Case::new("ADD-13", "default-route", INTERFACE, routes::default_route_exists).when(delegates),
    Case::new("ADD-14", "no-priority", INTERFACE, routes::metric_zero).when(delegates),
    Case::new("ADD-15", "first-call", ALL, basic::first_call),
    Case::new("ADD-16", "gateway-alone", INTERFACE, routes::gateway_is_no_route).when(delegates),
];
