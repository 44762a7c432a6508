//! The settings of an interface as a list of links brings them: a hundred values in one message, where `/proc/sys` takes three system calls
//! for each.

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{AfSpecInet, AfSpecInet6, AfSpecUnspec};

/// The values of one interface, in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    ipv4: Vec<i32>,
    ipv6: Vec<i32>,
}

impl Settings {
    /// Reads what a link's message says.
    pub(super) fn read(families: &[AfSpecUnspec]) -> Self {
        let mut settings = Self::default();
        for family in families {
            match family {
                AfSpecUnspec::Inet(parts) => {
                    for part in parts {
                        if let AfSpecInet::DevConf(values) = part {
                            settings.ipv4 = numbers(values);
                        }
                    }
                }
                AfSpecUnspec::Inet6(parts) => {
                    for part in parts {
                        if let AfSpecInet6::DevConf(values) = part {
                            settings.ipv6 = numbers(values);
                        }
                    }
                }
                _ => {}
            }
        }
        settings
    }

    /// The value of a file in `net/ipv4/conf/…` or `net/ipv6/conf/…`; `None` of those that the message does not have.
    pub(super) fn value(&self, ipv4: bool, name: &str) -> Option<i32> {
        let (names, values): (&[&str], _) = if ipv4 { (&IPV4, &self.ipv4) } else { (&IPV6, &self.ipv6) };
        let index = names.iter().position(|known| *known == name)?;
        values.get(index).copied()
    }
}

impl Settings {
    /// How many values there are of each family: what [`Self::value`] has depends on nothing else.
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.ipv4.len(), self.ipv6.len())
    }

    /// Each that the message has, of IPv4 or not: its name and its value.
    pub(super) fn named(&self) -> impl Iterator<Item = (bool, &'static str, i32)> {
        let named = |ipv4, names: &'static [&'static str], values: &[i32]| {
            let named = names.iter().zip(values.to_vec()).filter(|(name, _)| !name.is_empty());
            named.map(move |(name, value)| (ipv4, *name, value))
        };
        named(true, &IPV4, &self.ipv4).chain(named(false, &IPV6, &self.ipv6))
    }
}

fn numbers(values: &impl Emitable) -> Vec<i32> {
    let mut bytes = vec![0; values.buffer_len()];
    values.emit(&mut bytes);
    bytes.chunks_exact(4).map(|four| i32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// By `IPV4_DEVCONF_*` less one (linux/ip.h).
const IPV4: [&str; 33] = [
    "forwarding",
    "mc_forwarding",
    "proxy_arp",
    "accept_redirects",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "rp_filter",
    "accept_source_route",
    "bootp_relay",
    "log_martians",
    "tag",
    "arp_filter",
    "medium_id",
    "disable_xfrm",
    "disable_policy",
    "force_igmp_version",
    "arp_announce",
    "arp_ignore",
    "promote_secondaries",
    "arp_accept",
    "arp_notify",
    "accept_local",
    "src_valid_mark",
    "proxy_arp_pvlan",
    "route_localnet",
    "igmpv2_unsolicited_report_interval",
    "igmpv3_unsolicited_report_interval",
    "ignore_routes_with_linkdown",
    "drop_unicast_in_l2_multicast",
    "drop_gratuitous_arp",
    "bc_forwarding",
    "arp_evict_nocarrier",
];

/// By `DEVCONF_*` (linux/ipv6.h). Newer settings, and those that the kernel leaves empty here, are read as files.
const IPV6: [&str; 60] = [
    "forwarding",
    "hop_limit",
    "mtu",
    "accept_ra",
    "accept_redirects",
    "autoconf",
    "dad_transmits",
    "router_solicitations",
    "router_solicitation_interval",
    "router_solicitation_delay",
    "use_tempaddr",
    "temp_valid_lft",
    "temp_prefered_lft",
    "regen_max_retry",
    "max_desync_factor",
    "max_addresses",
    "force_mld_version",
    "accept_ra_defrtr",
    "accept_ra_pinfo",
    "accept_ra_rtr_pref",
    "router_probe_interval",
    "accept_ra_rt_info_max_plen",
    "proxy_ndp",
    "optimistic_dad",
    "accept_source_route",
    "mc_forwarding",
    "disable_ipv6",
    "accept_dad",
    "force_tllao",
    "ndisc_notify",
    "mldv1_unsolicited_report_interval",
    "mldv2_unsolicited_report_interval",
    "suppress_frag_ndisc",
    "accept_ra_from_local",
    "use_optimistic",
    "accept_ra_mtu",
    "",
    "use_oif_addrs_only",
    "accept_ra_min_hop_limit",
    "ignore_routes_with_linkdown",
    "drop_unicast_in_l2_multicast",
    "drop_unsolicited_na",
    "keep_addr_on_down",
    "router_solicitation_max_interval",
    "seg6_enabled",
    "seg6_require_hmac",
    "enhanced_dad",
    "addr_gen_mode",
    "disable_policy",
    "accept_ra_rt_info_min_plen",
    "ndisc_tclass",
    "rpl_seg_enabled",
    "ra_defrtr_metric",
    "ioam6_enabled",
    "ioam6_id",
    "ioam6_id_wide",
    "ndisc_evict_nocarrier",
    "accept_untracked_na",
    "accept_ra_min_lft",
    "force_forwarding",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::View;

    /// Each is changed by itself and must be seen to change, so that none is taken for its neighbour.
    #[test]
    fn every_setting_is_that_of_its_file() {
        let value = |ipv4, name: &str| {
            View::read().unwrap().link("lo").and_then(|link| link.settings.value(ipv4, name)).unwrap()
        };
        let mut changed = 0;
        for (ipv4, names) in [(true, IPV4.as_slice()), (false, IPV6.as_slice())] {
            for name in names.iter().filter(|name| !name.is_empty()) {
                let path = format!("/proc/sys/net/{}/conf/lo/{name}", if ipv4 { "ipv4" } else { "ipv6" });
                let Ok(text) = std::fs::read_to_string(&path) else {
                    println!("{path} is not there, or nobody may read it");
                    continue;
                };
                let before = value(ipv4, name);
                let other = if text.trim() == "1" { "0" } else { "1" };
                if std::fs::write(&path, other).is_err() {
                    println!("{path} cannot be written; it is {}, the message has {before}", text.trim());
                    continue;
                }
                if std::fs::read_to_string(&path).unwrap().trim() != other {
                    continue;
                }
                assert_ne!(value(ipv4, name), before, "{path}: {} -> {other}", text.trim());
                changed += 1;
            }
        }
        assert!(changed > 60, "{changed}");
    }
}
