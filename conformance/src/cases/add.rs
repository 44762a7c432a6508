//! ADD: an interface that works, a true result, and nothing left of a failure.

use super::{Case, INTERFACE};
use crate::lab::Lab;
use crate::verdict::Outcome;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("ADD-03", "existing-interface", INTERFACE, existing_interface),
    Case::new("ADD-03", "second-add", INTERFACE, second_add),
];

/// The interface is there already, and somebody else's: it must stay as it is.
fn existing_interface(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let name = &container.ifname;
    // A bridge stands in for "some link": every kernel that runs containers has it.
    lab.sh_in(&container, &format!("ip link add {name} type bridge && ip addr add 192.0.2.1/24 dev {name}"))?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &container);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "ADD where CNI_IFNAME exists already");
    lab.unchanged(&before, "ADD where CNI_IFNAME exists already changed something")?;
    Ok(())
}

/// The same ADD twice, without DEL: the second must fail and must not harm the first.
fn second_add(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.add(&container)?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &container);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "a second ADD for the same interface");
    lab.unchanged(&before, "a second ADD for the same interface changed something")?;
    Ok(())
}
