//! Every sort of link that a container may have.

use serde_json::json;

use crate::lab::{Lab, in_version};
use crate::verdict::Outcome;

/// How to make `eth0` in the namespace `$C`, of each sort. Those that this kernel does not have are told in the journal.
const SORTS: &[(&str, &str)] = &[
    ("bridge", "ip -n $C link add eth0 type bridge"),
    ("tap", "ip netns exec $C ip tuntap add eth0 mode tap"),
    ("dummy", "ip -n $C link add eth0 type dummy"),
    (
        "macvlan",
        "ip link add cnfup type veth peer name cnfdown && ip link add link cnfup name eth0 netns $C type macvlan mode bridge",
    ),
    (
        "ipvlan",
        "ip link add cnfup2 type veth peer name cnfdown2 && ip link add link cnfup2 name eth0 netns $C type ipvlan",
    ),
];

pub(super) fn sorts(lab: &mut Lab) -> Outcome {
    for (index, (sort, make)) in SORTS.iter().enumerate() {
        let container = lab.container(&format!("c{index}"))?;
        let (made, _, _) = lab.try_sh(&make.replace("$C", &container.name))?;
        if !made {
            lab.note(&format!("this kernel has no {sort}"));
            continue;
        }
        lab.sh_in(&container, &format!("ip addr add 10.55.{index}.2/24 dev eth0 && ip link set eth0 up"))?;
        let mac = lab.view(&container)?.link("eth0").map(|link| link.mac.clone()).unwrap_or_default();
        let base = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "mac": mac, "sandbox": container.netns }],
            "ips": [{ "address": format!("10.55.{index}.2/24"), "interface": 0 }],
        });
        let call = lab.call("ADD", &container).previous(&in_version(&base, &lab.version));
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("ADD on a {sort}"));
        let result = reply.document().unwrap_or_default();
        let reply = lab.run(&call.verb("DEL").previous(&result))?;
        lab.accepted(&reply, &format!("DEL on a {sort}"));
        lab.destroy(&container)?;
    }
    Ok(())
}
