//! What lies beneath a plugin that is not the first of its chain.

use std::fs::File;
use std::io;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::direct::raise_loopback;
use super::rtnetlink::Rtnetlink;
use super::{Container, Lab, in_version, quote};
use crate::kernel::{View, inside};
use crate::profile::Kind;
use crate::verdict::{Outcome, Stop};

impl Lab {
    /// For a meta plugin: makes what an earlier plugin of the chain would have made (a veth pair with addresses of both families, the
    /// host's end as gateway) and keeps a true result of it, for [`Lab::call`]. Other kinds need nothing beneath. Returns that result, or null.
    pub fn beneath(&mut self, container: &Container) -> Outcome<Value> {
        if self.profile.kind != Kind::Meta {
            return Ok(Value::Null);
        }
        let result = self.earlier(container)?;
        self.bases.insert(key_of(container), result.clone());
        Ok(result)
    }

    /// Makes what [`Lab::beneath`] makes, for a plugin of any kind, and keeps nothing: what an earlier plugin of the chain would have made
    /// for this container and interface, and its result.
    pub fn earlier(&mut self, container: &Container) -> Outcome<Value> {
        self.made += 1;
        let number = self.made;
        let (host, name, ifname) =
            (format!("cnfv{number}"), container.name.clone(), container.ifname.clone());
        let (v4, v6) = (format!("10.55.{number}"), format!("fd00:55:{number}:"));
        // A second interface of a container has its default routes behind those of the first.
        let second = self.bases.keys().any(|key| key.starts_with(&format!("{name}/")));
        let metric = if second { u32::from(number) } else { 0 };
        let commands = format!(
            "ip link add {host} type veth peer name {ifname} netns {name} && ip link set {host} up && ip addr add {v4}.1/24 dev {host} && ip addr add {v6}:1/64 dev {host} nodad"
        );
        let inner = format!(
            "ip link set lo up && ip link set {ifname} up && ip addr add {v4}.2/24 dev {ifname} && ip addr add {v6}:2/64 dev {ifname} nodad \
             && ip route add default via {v4}.1 metric {metric} && ip route add ::/0 via {v6}:1 metric {}",
            1024 + metric
        );
        make(container, &host, number, metric).map_err(|error| {
            Stop::Broken(format!("cannot do what `{commands}` and `{inner}` do: {error}"))
        })?;
        self.journal_line(commands, "made");
        self.journal_line(format!("ip netns exec {name} sh -c {}", quote(&inner)), "made");
        let mac = |view: &View, name: &str| view.link(name).map(|link| link.mac.clone()).unwrap_or_default();
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": host, "mac": mac(&self.host()?, &host) },
                { "name": ifname, "mac": mac(&self.view(container)?, &ifname), "sandbox": container.netns },
            ],
            "ips": [
                { "address": format!("{v4}.2/24"), "gateway": format!("{v4}.1"), "interface": 1 },
                { "address": format!("{v6}:2/64"), "gateway": format!("{v6}:1"), "interface": 1 },
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": format!("{v4}.1") }, { "dst": "::/0", "gw": format!("{v6}:1") }],
            "dns": {},
        });
        Ok(in_version(&result, &self.version))
    }
}

/// Makes the pair of a container, and what belongs to both ends.
fn make(container: &Container, host: &str, number: u8, metric: u32) -> io::Result<()> {
    let v4 = |end| IpAddr::from([10, 55, number, end]);
    // As it is written: the digits of the number are those of a group.
    let group = u16::from_str_radix(&number.to_string(), 16).map_err(io::Error::other)?;
    let v6 = |end| IpAddr::from([0xfd00, 0x55, group, 0, 0, 0, 0, end]);
    let furnish = |ends: &Rtnetlink, index: u32, end: u8| {
        ends.raise(index)?;
        ends.add_address(index, v4(end), 24)?;
        ends.add_address(index, v6(u16::from(end)), 64)
    };
    let index = |name: &str| {
        let view = View::read()?;
        view.link(name).map(|link| link.index).ok_or(io::Error::from(io::ErrorKind::NotFound))
    };
    let here = Rtnetlink::open()?;
    here.add_veth(host, &container.ifname, File::open(container.path())?)?;
    furnish(&here, index(host)?, 1)?;
    inside(&container.path(), || {
        let there = Rtnetlink::open()?;
        raise_loopback()?;
        furnish(&there, index(&container.ifname)?, 2)?;
        there.add_default_route(v4(1), metric)?;
        there.add_default_route(v6(1), 1024 + metric)
    })?
}

/// An attachment, as a key.
pub(super) fn key_of(container: &Container) -> String {
    format!("{}/{}", container.name, container.ifname)
}
