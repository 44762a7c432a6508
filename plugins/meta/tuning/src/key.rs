//! Names of sysctls, as configurations write them.

use std::fmt;

use cni::LinkName;

/// A sysctl below `net`, as the components of its path below `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SysctlKey(Vec<String>);

impl SysctlKey {
    /// Reads a key: its parts are separated by dots or slashes, and the first `IFNAME` in it stands for the container's interface.
    /// `None` for one that is not below `net`.
    ///
    /// The Go suite makes a slash of every dot. So an interface with a dot in its name could not be named; here what stands between
    /// `conf` (or `neigh`) and the last part is the interface, however many parts it has: the kernel has no directories in there.
    pub fn read(text: &str, ifname: &LinkName) -> Option<Self> {
        if text.contains('\0') || text.split('/').any(|part| part == "." || part == "..") {
            return None;
        }
        let path = text.replace('.', "/").replacen("IFNAME", ifname.as_str(), 1);
        // The name that was put in has its dots still, so a path is split at slashes only.
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let parts: Vec<String> = match parts.as_slice() {
            [net @ "net", family, kind @ ("conf" | "neigh"), interface @ .., parameter]
                if interface.len() > 1 =>
            {
                vec![
                    (*net).to_owned(),
                    (*family).to_owned(),
                    (*kind).to_owned(),
                    interface.join("."),
                    (*parameter).to_owned(),
                ]
            }
            ["net", _, ..] => parts.into_iter().map(ToOwned::to_owned).collect(),
            _ => return None,
        };
        Some(Self(parts))
    }
}

/// The path below `/proc/sys`.
impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str, ifname: &str) -> Option<String> {
        SysctlKey::read(text, &LinkName::new(ifname).unwrap()).map(|key| key.to_string())
    }

    #[test]
    fn dots_and_slashes_mean_the_same() {
        for text in
            ["net.ipv4.ip_forward", "net/ipv4/ip_forward", "net.ipv4/ip_forward", "/net//ipv4/ip_forward/"]
        {
            assert_eq!(path(text, "eth0").as_deref(), Some("net/ipv4/ip_forward"), "{text}");
        }
    }

    #[test]
    fn ifname_stands_for_the_interface_once() {
        assert_eq!(
            path("net.ipv4.conf.IFNAME.arp_filter", "eth0").as_deref(),
            Some("net/ipv4/conf/eth0/arp_filter")
        );
        assert_eq!(path("net.ipv4.conf.IFNAME.IFNAME", "eth0").as_deref(), Some("net/ipv4/conf/eth0/IFNAME"));
    }

    #[test]
    fn an_interface_may_have_dots_in_its_name() {
        let wanted = Some("net/ipv4/conf/eth0.100/arp_filter");
        assert_eq!(path("net.ipv4.conf.IFNAME.arp_filter", "eth0.100").as_deref(), wanted);
        assert_eq!(path("net/ipv4/conf/eth0.100/arp_filter", "x").as_deref(), wanted);
        assert_eq!(path("net.ipv4.conf.eth0/100.arp_filter", "x").as_deref(), wanted);
        assert_eq!(
            path("net.ipv6.neigh.eth0.100.ucast_solicit", "x").as_deref(),
            Some("net/ipv6/neigh/eth0.100/ucast_solicit")
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_stays_below_net(text in r"(net|\PC{0,8})([./]{1,3}(conf|neigh|IFNAME|\.\.|\PC{0,6})){0,6}") {
            if let Some(path) = path(&text, "eth0.1") {
                let parts: Vec<&str> = path.split('/').collect();
                proptest::prop_assert!(parts.len() > 1 && parts[0] == "net", "{}", path);
                proptest::prop_assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{}", path);
            }
        }
    }

    #[test]
    fn nothing_outside_net_can_be_named() {
        for text in [
            "",
            "net",
            "kernel.shmmax",
            "vm/overcommit_memory",
            "..",
            "net/../kernel/shmmax",
            "net.ipv4/../../kernel/hostname",
            "/proc/sys/net/ipv4/ip_forward",
            "network.ipv4",
            "net.ipv4.conf.IF\0NAME",
        ] {
            assert_eq!(path(text, "eth0"), None, "{text:?}");
        }
    }
}
