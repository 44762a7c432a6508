//! What the floor is to make, as its command line has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// What an attachment of the floor consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The container's namespace.
    pub netns: PathBuf,
    /// Its number: names the link on the host, and the addresses.
    pub number: u16,
    /// Whether it has IPv4, IPv6 or both.
    pub families: Vec<Family>,
    /// Whether masquerading, forwarding and ports are part of it.
    pub firewall: bool,
    /// Ports of the host, and where they lead.
    pub ports: Vec<Port>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The number of TCP or UDP in an IP header.
    pub protocol: u8,
    /// On the host.
    pub host: u16,
    /// In the container.
    pub container: u16,
}

impl Request {
    /// The bridge of all floor attachments.
    pub const BRIDGE: &'static str = "cni-bench";
    /// Leases, a file each, named by address.
    pub const LEASES: &'static str = "/var/lib/cni/floor";

    /// The link's name on the host.
    pub fn link(&self) -> String {
        format!("floor{:04x}", self.number)
    }

    /// The addresses, each with its prefix length and its gateway.
    pub fn addresses(&self) -> Vec<(IpAddr, u8, IpAddr)> {
        let of = |family: &Family| match family {
            Family::V4 => {
                // From 10.93.1.0 on: below are gateways.
                let [high, low] = (self.number + 256).to_be_bytes();
                let address = Ipv4Addr::new(10, 93, high, low);
                (address.into(), 16, Ipv4Addr::new(10, 93, 0, 1).into())
            }
            Family::V6 => {
                let address = Ipv6Addr::new(0xfd93, 0, 0, 0, 0, 0, 1, self.number);
                (address.into(), 64, Ipv6Addr::new(0xfd93, 0, 0, 0, 0, 0, 0, 1).into())
            }
        };
        self.families.iter().map(of).collect()
    }

    /// The command line that says this: `NETNS NUMBER FAMILIES FIREWALL PROTOCOL:HOST:CONTAINER…`.
    pub fn arguments(&self) -> Vec<String> {
        let families: String =
            self.families.iter().map(|family| if *family == Family::V4 { '4' } else { '6' }).collect();
        let fixed = [
            self.netns.display().to_string(),
            self.number.to_string(),
            families,
            if self.firewall { "firewall" } else { "plain" }.to_owned(),
        ];
        let ports =
            self.ports.iter().map(|port| format!("{}:{}:{}", port.protocol, port.host, port.container));
        fixed.into_iter().chain(ports).collect()
    }

    /// The request that a command line says, if it says one.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let netns = arguments.next()?.into();
        let number = arguments.next()?.parse().ok()?;
        let families = arguments.next()?;
        let families = families.chars().map(|family| if family == '4' { Family::V4 } else { Family::V6 });
        let families = families.collect();
        let firewall = arguments.next()? == "firewall";
        let port = |text: String| {
            let mut parts = text.split(':');
            Some(Port {
                protocol: parts.next()?.parse().ok()?,
                host: parts.next()?.parse().ok()?,
                container: parts.next()?.parse().ok()?,
            })
        };
        let ports = arguments.map(port).collect::<Option<_>>()?;
        Some(Self { netns, number, families, firewall, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, Port, Request};

    #[test]
    fn a_command_line_says_all_of_it() {
        let request = Request {
            netns: "/run/netns/c1".into(),
            number: 300,
            families: vec![Family::V4, Family::V6],
            firewall: true,
            ports: vec![Port { protocol: 17, host: 20_001, container: 81 }],
        };
        assert_eq!(request.arguments(), ["/run/netns/c1", "300", "46", "firewall", "17:20001:81"]);
        assert_eq!(Request::parse(request.arguments().into_iter()), Some(request.clone()));
        let addresses: Vec<String> =
            request.addresses().iter().map(|(address, ..)| address.to_string()).collect();
        assert_eq!(addresses, ["10.93.2.44", "fd93::1:12c"]);
    }
}
