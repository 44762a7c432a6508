//! What can't be is refused with its path and value, before anything is changed.

use std::fs;
use std::net::UdpSocket;

use serde_json::{Value, json};
use testkit::{Attachment, Fabric};

use crate::lab::{
    Inside, all_reach_all, connect, connect_all, list, named, peers, peers_with, refusal, run, state,
};

/// ADD and STATUS refuse; the host is as it was.
#[track_caller]
fn refused(fabric: &Fabric, keys: Value) -> (u64, String) {
    let host = &fabric.hosts()[0];
    let before = state(host);
    let container = fabric.container("c1");
    let chain = host.runtime().chain(&list(&keys));
    let attachment = Attachment::new("c1", &container, "eth0");
    let refused = refusal(chain.add(&attachment));
    // What another namespace hides is seen only by trying.
    if !refused.1.contains("in another network namespace") {
        let (code, text) = refusal(chain.status());
        assert_eq!(text, refused.1);
        // 7 for what is wrong with the configuration wherever it is read, 50 for what is wrong with it, or with anything else, on this host.
        assert!(code == 50 || (code, refused.0) == (7, 7), "{code} {text}");
    }
    chain.del(&attachment).unwrap();
    drop(container);
    before.assert_same(&state(host));
    refused
}

fn with(mut peers: Value, peer: Value) -> Value {
    peers.as_array_mut().unwrap().push(peer);
    peers
}

#[test]
fn a_mistake_in_the_configuration() {
    let fabric = Fabric::switched(2);
    let peers = peers(&fabric, Inside::V4, true);
    let c = |blocks: &str| json!({ "node": "c", "underlay": "192.0.2.9", "blocks": [blocks] });
    for (keys, message) in [
        (json!({ "peers": peers }), "vni: it is missing"),
        (
            json!({ "vni": 0, "peers": peers }),
            "vni: 0 is not a VXLAN network identifier; it is 1 to 16777215 (value: 0)",
        ),
        (json!({ "vni": 100 }), "nothing says who the nodes are"),
        (json!({ "vni": 100, "peers": peers, "source": "agent" }), "each say who the nodes are"),
        (json!({ "source": "etcd" }), "source: \"etcd\" is not known"),
        (json!({ "source": "agent", "vni": 100 }), "vni: the agent decides this"),
        (json!({ "vni": 100, "peers": peers, "mode": "l2" }), "mode: \"l2\" is not known"),
        (
            json!({ "vni": 100, "peers": peers, "mode": "bridged" }),
            "peers[0].blocks[0]: a bridged network needs a subnet of IPv4",
        ),
        (
            json!({ "vni": 100, "mode": "bridged", "subnet": "10.0.0.0/8", "peers": with(peers.clone(), c("10.128.0.0/15")) }),
            "mode: bridged mode would need entries for 131328 addresses in its peers' blocks, and 100000 are possible; give the nodes smaller blocks",
        ),
        (
            json!({ "vni": 100, "peers": peers, "multicastGroup": "239.1.1.1" }),
            "multicastGroup: it belongs to mode \"bridged\"",
        ),
        (
            json!({ "vni": 100, "peers": peers, "mtu": 1451 }),
            "mtu: eth0 carries 1500 bytes, of which 1450 are left for a packet inside the tunnel (value: 1451)",
        ),
        (
            json!({ "vni": 100, "peers": peers, "mtu": 100 }),
            "mtu: 100 is not a possible MTU; it is 576 to 65535 (value: 100)",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), c("10.40.2.0/25")) }),
            "peers[2].blocks[0]: it overlaps 10.40.2.0/24 of node h2 at peers[1] (value: 10.40.2.0/25)",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), c("10.40.9.1/24")) }),
            "peers[2].blocks[0]: it has host bits; the network is 10.40.9.0/24 (value: 10.40.9.1/24)",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), json!({ "node": "h1", "underlay": "192.0.2.9" })) }),
            "peers[2].node: it names the same node as peers[0] (value: h1)",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), json!({ "node": "c", "underlay": "192.0.2.9/24" })) }),
            "peers[2].underlay: expected an IP address",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), json!({ "node": "c", "underlay": "192.0.2.9", "block": ["10.40.9.0/24"] })) }),
            "peers[2].blocks: it has no block of addresses (value: [])",
        ),
        // It would take the place of the route to the underlay.
        (
            json!({ "vni": 100, "peers": with(peers.clone(), c("192.0.2.0/24")) }),
            "peers[2].blocks[0]: it contains 192.0.2.1, which the link eth0 of this host has (value: 192.0.2.0/24)",
        ),
        (
            json!({ "vni": 100, "peers": with(peers.clone(), c("192.0.2.8/29")) }),
            "peers[2].blocks[0]: it contains 192.0.2.9, at which the tunnels of node c end (value: 192.0.2.8/29)",
        ),
        (
            json!({ "vni": 100, "peers": [peers[1]] }),
            "peers: this host is not among its peers: it has none of these addresses (its own: 192.0.2.1, 2001:db8::1) (value: 192.0.2.2)",
        ),
        (
            json!({ "vni": 100, "peers": peers, "underlay": { "interface": "eth9" } }),
            "underlay.interface: this host has no such link (value: eth9)",
        ),
        (
            json!({ "vni": 100, "peersFile": "peers.json" }),
            "peersFile: \"peers.json\" is not an absolute path",
        ),
    ] {
        let (code, text) = refused(&fabric, keys);
        assert_eq!(code, 7, "{text}");
        assert!(text.contains(message), "{text}\nwas expected to contain\n{message}");
    }
}

/// What a key may be is said with its own range, and a number that a template has put in quotes is told of as such.
#[test]
fn a_value_that_is_no_number_of_its_key() {
    let fabric = Fabric::switched(2);
    let peers = peers(&fabric, Inside::V4, true);
    for (keys, message) in [
        (
            json!({ "vni": "100", "peers": peers }),
            "vni: expected a whole number from 1 to 16777215, without quotes (value: \"100\")",
        ),
        (
            json!({ "vni": "blue", "peers": peers }),
            "vni: expected a whole number from 1 to 16777215, found a string (value: \"blue\")",
        ),
        (
            json!({ "vni": -1, "peers": peers }),
            "vni: expected a whole number from 1 to 16777215, found a negative one (value: -1)",
        ),
        (
            json!({ "vni": [100], "peers": peers }),
            "vni: invalid type: sequence, expected a whole number from 1 to 16777215 (value: [",
        ),
        (
            json!({ "vni": 100, "peers": peers, "port": "4789" }),
            "port: expected a whole number from 1 to 65535, without quotes (value: \"4789\")",
        ),
        (
            json!({ "vni": 100, "peers": peers, "mtu": "1400" }),
            "mtu: expected a whole number from 576 to 65535, without quotes (value: \"1400\")",
        ),
        (
            json!({ "vni": 100, "peers": peers, "mtu": 1400.5 }),
            "mtu: expected a whole number from 576 to 65535, without decimals (value: 1400.5)",
        ),
    ] {
        let (code, text) = refused(&fabric, keys);
        assert_eq!(code, 7, "{text}");
        assert!(text.contains(message), "{text}\nwas expected to contain\n{message}");
    }
}

/// Two routes to one network are one too many: it would be the other suite's containers that nobody reaches.
#[test]
fn a_block_that_another_network_of_this_host_has() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    run(host, "ip link add docker0 type bridge");
    run(host, "ip link set docker0 up");
    run(host, "ip addr add 10.40.2.1/24 dev docker0");
    let (code, text) = refused(&fabric, json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) }));
    assert_eq!(
        (code, text.as_str()),
        (
            7,
            "invalid configuration: peers[1].blocks[0]: it contains 10.40.2.1, which the link docker0 of this host has (value: 10.40.2.0/24)"
        )
    );
    assert!(run(host, "ip route show 10.40.2.0/24").contains("dev docker0"));
}

/// The kernel would replace it without a word.
#[test]
fn a_block_that_this_host_has_a_route_to() {
    for (route, way) in [
        ("10.40.2.0/24 via 192.0.2.254", "via 192.0.2.254 dev eth0"),
        ("10.40.2.0/24 dev eth0 metric 50", "dev eth0"),
        ("blackhole 10.40.2.0/24", "to nowhere"),
        ("fd00:40:2::/64 via 2001:db8::99", "via 2001:db8::99 dev eth0"),
        ("unreachable fd00:40:2::/64", "to nowhere"),
    ] {
        let fabric = Fabric::switched(2);
        let host = &fabric.hosts()[0];
        run(host, &format!("ip route add {route}"));
        let keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::Dual, true) });
        let (code, text) = refused(&fabric, keys.clone());
        let expected = format!("this host has a route to it that is not of this network: {way} (value: ");
        assert!(code == 7 && text.contains("peers[1].blocks["), "{route}: {code} {text}");
        assert!(text.contains(&expected), "{route}: {text}");
        run(host, &format!("ip route del {route}"));
        let connected = connect_all(&fabric, &list(&keys));
        all_reach_all(&connected);
    }
}

/// A route to more or to less than a block is not replaced, and is nobody's mistake.
#[test]
fn a_route_to_more_than_a_block_is_in_nobodys_way() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    for route in ["10.40.0.0/16 via 192.0.2.254", "blackhole 10.0.0.0/8", "blackhole fd00::/16"] {
        run(host, &format!("ip route add {route}"));
    }
    let connected =
        connect_all(&fabric, &list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::Dual, true) })));
    all_reach_all(&connected);
    connected[0].check().unwrap();
}

/// Two networks of one host with the same blocks would take each other's packets; what somebody has put in the place of a route of one's own is put
/// right.
#[test]
fn whose_a_route_is_decides_whether_it_is_replaced() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    let keys = |vni: u32, more: Option<&str>| {
        let peers = peers_with(&fabric, true, |number| {
            let more = more.filter(|_| number == 2).map(str::to_owned);
            Inside::V4.blocks(number).into_iter().chain(more).collect()
        });
        json!({ "vni": vni, "peers": peers })
    };
    let connected = connect_all(&fabric, &list(&keys(100, None)));
    let red = host.runtime().chain(&named("red", &keys(101, None)));
    let container = fabric.container("red");
    let (code, text) = refusal(red.add(&Attachment::new("red", &container, "eth0")));
    assert!(code == 7 && text.contains("via 10.40.2.0 dev vx-blue (value: 10.40.2.0/24)"), "{code} {text}");
    all_reach_all(&connected);
    connected[0].check().unwrap();

    run(host, "ip route replace 10.40.2.0/24 via 192.0.2.254");
    let (code, text) = refusal(connected[0].check());
    assert!(code == 102 && text.contains("route 10.40.2.0/24"), "{code} {text}");
    assert_eq!(refusal(connected[0].chain.status()).0, 51);
    let again = connect(&fabric, 1, &list(&keys(100, None)), "again");
    connected[0].check().unwrap();
    all_reach_all(&[again]);
    all_reach_all(&connected);

    // Of a node that is known, a block that is new.
    run(host, "ip route add 10.60.2.0/24 via 192.0.2.254");
    let grown = host.runtime().chain(&list(&keys(100, Some("10.60.2.0/24"))));
    let (code, text) = refusal(grown.add(&Attachment::new("red", &container, "eth0")));
    assert!(code == 7 && text.contains("via 192.0.2.254 dev eth0 (value: 10.60.2.0/24)"), "{code} {text}");
    assert!(run(host, "ip route show 10.60.2.0/24").contains("via 192.0.2.254"));
    all_reach_all(&connected);
}

#[test]
fn an_mtu_too_small_for_ipv6() {
    let fabric = Fabric::switched(2);
    fabric.set_mtu(1300);
    let (code, text) = refused(&fabric, json!({ "vni": 100, "peers": peers(&fabric, Inside::V6, true) }));
    assert_eq!(code, 7);
    assert!(
        text.contains("mtu: eth0 carries 1300 bytes, of which 1250 are left for a packet inside the tunnel, and IPv6 needs 1280 at least (value: 1250)"),
        "{text}"
    );
}

#[test]
fn a_foreign_device_with_the_same_vni_and_port_is_named() {
    let fabric = Fabric::switched(2);
    let keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) });
    run(&fabric.hosts()[0], "ip link add theirs type vxlan id 100 dstport 4789 local 192.0.2.1");
    let (code, text) = refused(&fabric, keys.clone());
    assert_eq!(
        (code, text.as_str()),
        (103, "VNI 100 on UDP port 4789 is held by the link theirs, which does not belong to network blue")
    );
    // Another port, or another VNI, is another device.
    let fabric_keys = json!({ "port": 8472 });
    let mut keys = keys;
    keys.as_object_mut().unwrap().extend(fabric_keys.as_object().unwrap().clone());
    let one = connect(&fabric, 1, &list(&keys), "c1");
    one.del();
}

/// Devices with other settings than ours do not share their socket, whatever their VNI.
#[test]
fn a_foreign_device_that_has_the_port_for_itself_is_named() {
    for kind in ["id 7 gbp", "external"] {
        let fabric = Fabric::switched(2);
        let keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) });
        run(&fabric.hosts()[0], &format!("ip link add theirs type vxlan {kind} dstport 4789"));
        run(&fabric.hosts()[0], "ip link set theirs up");
        let (code, text) = refused(&fabric, keys);
        assert!(code == 103 && text.contains("is held by the link theirs,"), "{kind}: {code} {text}");
    }
}

/// STATUS says it before a runtime tries, and ADD before it has made anything.
#[test]
fn a_port_that_a_program_has_is_named() {
    for (ipv4, any) in
        [(true, "0.0.0.0:4789"), (true, "[::]:4789"), (true, "192.0.2.1:4789"), (false, "[::]:4789")]
    {
        let fabric = Fabric::switched(2);
        let host = &fabric.hosts()[0];
        let socket = host.enter(|| UdpSocket::bind(any).unwrap());
        let keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, ipv4) });
        let (code, text) = refused(&fabric, keys.clone());
        let start = "UDP port 4789, which network blue receives on, is held by the program ";
        let process = format!("(process {})", std::process::id());
        assert!(code == 103 && text.starts_with(start) && text.ends_with(&process), "{any}: {code} {text}");
        drop(socket);
        let one = connect(&fabric, 1, &list(&keys), "c2");
        one.check().unwrap();
        one.chain.status().unwrap();
    }
}

/// What does not keep the kernel from receiving is in nobody's way.
#[test]
fn a_port_that_others_have_beside_is_none_of_our_business() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    let elsewhere = fabric.container("elsewhere");
    // By the other family, and of a device that shares its socket, wherever it is now.
    let _socket = host.enter(|| UdpSocket::bind("[2001:db8::1]:4789").unwrap());
    run(host, "ip link add theirs type vxlan id 7 dstport 4789 local 192.0.2.1");
    run(host, "ip link set theirs up");
    run(host, &format!("ip link set theirs netns {}", elsewhere.path().display()));
    run(&elsewhere, "ip link set theirs up");
    let list = list(&json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) }));
    host.runtime().chain(&list).status().unwrap();
    all_reach_all(&connect_all(&fabric, &list));
}

#[test]
fn a_foreign_device_that_was_moved_away_still_holds_its_port() {
    let fabric = Fabric::switched(2);
    let keys = json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) });
    let elsewhere = fabric.container("elsewhere");
    let host = &fabric.hosts()[0];
    run(host, "ip link add theirs type vxlan id 100 dstport 4789 local 192.0.2.1");
    run(host, &format!("ip link set theirs netns {}", elsewhere.path().display()));
    let (code, text) = refused(&fabric, keys);
    assert_eq!(
        (code, text.as_str()),
        (
            103,
            "VNI 100 on UDP port 4789 is held by a link in another network namespace, which does not belong to network blue"
        )
    );
}

#[test]
fn a_link_of_somebody_elses_with_the_devices_name() {
    let fabric = Fabric::switched(2);
    run(&fabric.hosts()[0], "ip link add vx-blue type bridge");
    let (code, text) = refused(&fabric, json!({ "vni": 100, "peers": peers(&fabric, Inside::V4, true) }));
    assert_eq!(code, 103);
    assert!(
        text.starts_with(
            "the link vx-blue exists and is not the VXLAN device of network blue but a bridge link"
        ),
        "{text}"
    );
}

/// A bridge of that name may be another suite's, with containers of its own.
#[test]
fn a_link_of_somebody_elses_with_the_bridges_name() {
    let fabric = Fabric::switched(2);
    run(&fabric.hosts()[0], "ip link add vb-blue type bridge");
    let peers = crate::lab::peers_with(&fabric, true, |number| Inside::V4.slices(number));
    let keys = json!({ "vni": 100, "mode": "bridged", "subnet": "10.50.0.0/16", "peers": peers });
    let (code, text) = refused(&fabric, keys);
    assert_eq!(
        (code, text.as_str()),
        (
            103,
            "the link vb-blue exists and is not the bridge of network blue but a bridge link of somebody else's"
        )
    );
}

#[test]
fn an_agent_that_has_not_written_its_state_yet() {
    let fabric = Fabric::switched(1);
    let (code, text) = refused(&fabric, json!({ "source": "agent" }));
    assert_eq!(
        (code, text.as_str()),
        (11, "network blue has no state file /run/ferrule/overlay/blue.json yet")
    );
    let (code, text) = refused(&fabric, json!({ "source": "flannel" }));
    assert_eq!((code, text.as_str()), (11, "network blue has no state file /run/flannel/subnet.env yet"));
}

#[test]
fn an_mtu_that_flannels_tunnels_do_not_carry() {
    let fabric = Fabric::switched(1);
    let file = "/run/fabric/mtu.env";
    fs::write(file, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1400\n")
        .unwrap();
    let (code, text) = refused(&fabric, json!({ "source": "flannel", "subnetFile": file, "mtu": 1450 }));
    let wanted = "invalid configuration: mtu: 1450 does not fit into the tunnels, which carry 1400";
    assert_eq!((code, text.as_str()), (7, wanted));
}

/// Nobody guesses that names decide.
#[test]
fn who_has_two_nodes_with_one_hardware_address_is_told_what_to_do() {
    let fabric = Fabric::switched(2);
    let node = |name: &str, last: u8| json!({ "node": name, "underlay": format!("192.0.2.{last}"), "blocks": [format!("10.40.{last}.0/24")] });
    let peers = with(with(peers(&fabric, Inside::V4, true), node("n17600135", 3)), node("n18880380", 4));
    let chain = fabric.hosts()[0].runtime().chain(&list(&json!({ "vni": 100, "peers": peers })));
    let container = fabric.container("c1");
    let failure = chain.add(&Attachment::new("c1", &container, "eth0")).unwrap_err();
    let error = failure.output.error();
    let (text, details) = (error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
    assert!(text.contains("peers[3].node: its tunnel end would have the hardware address"), "{text}");
    assert!(details.contains("hint: hardware addresses are computed from the network's and the node's name: rename one of the two nodes"), "{details}");
}
