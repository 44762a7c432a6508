//! GC again, and GC beside others. A runtime promises not to do the latter; two runtimes on one host do not know of each other.

use super::collect;
use crate::cases::life::{attached, fresh, outside, still_whole};
use crate::lab::{Call, Lab};
use crate::verdict::Outcome;

/// How many attachments come or go beside a GC.
const MANY: usize = 4;

/// How often they come beside GCs. What goes wrong in between takes a moment that is hard to meet.
const ROUNDS: usize = 2;

/// GC again and again. It starts when the first ADDs do, and lasts longer.
const AGAIN: &str = "in=$(cat); for i in 1 2 3 4; do printf %s \"$in\" | \"$@\" || exit; done";

/// A second GC.
pub(super) fn twice(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "k1")?;
    let stale = attached(lab, "c1")?;
    lab.destroy(&stale.container)?;
    let call = collect(lab, &[&kept.container]);
    lab.run(&call)?;
    let after = lab.snapshot()?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "a second GC with the same list");
    let difference = lab.changes(&after)?;
    lab.check(difference.is_empty(), Some(&reply), || {
        format!("a second GC with the same list changed something: {difference}")
    });
    Ok(())
}

/// Others are being attached, of which the list does not know yet. They may be collected or not, but not in part.
pub(super) fn beside_adds(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "k1")?;
    let mut containers = Vec::new();
    for number in 0..MANY {
        containers.push(fresh(lab, &format!("c{number}"))?.0);
    }
    let before = lab.snapshot()?;
    for _ in 0..ROUNDS {
        let through = |call: Call, script: &str| Call {
            wrapper: ["sh", "-c", script, "sh"].map(str::to_owned).to_vec(),
            ..call
        };
        // Two at a time, so that one of them may be in its middle wherever an ADD is.
        let mut calls = vec![through(collect(lab, &[&kept.container]), AGAIN); 2];
        for (number, container) in containers.iter().enumerate() {
            let script = format!("sleep 0.0{number}; exec \"$@\"");
            calls.push(through(lab.call("ADD", container), &script));
        }
        for reply in lab.race(&calls)?.iter().take(2) {
            lab.accepted(reply, "GC beside ADDs");
        }
        for container in &containers {
            let call = lab.call("DEL", container);
            let reply = lab.run(&call)?;
            lab.accepted(&reply, "DEL after a GC beside ADDs");
        }
    }
    still_whole(lab, &kept, "CHECK of a listed attachment after GCs beside ADDs")?;
    // What was collected in between cannot be put back in the container.
    let difference = outside(lab.changes(&before)?);
    lab.check(difference.is_empty(), None, || {
        format!("GCs beside ADDs, and DEL of all, left a difference: {difference}")
    });
    Ok(())
}

/// The stale attachments are just being deleted.
pub(super) fn beside_dels(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "k1")?;
    let mut calls = Vec::new();
    let mut containers = Vec::new();
    for number in 0..MANY {
        containers.push(fresh(lab, &format!("c{number}"))?.0);
    }
    let before = lab.snapshot()?;
    for container in &containers {
        let result = lab.add(container)?;
        calls.push(lab.call("DEL", container).previous(&result));
    }
    calls.insert(0, collect(lab, &[&kept.container]));
    for reply in lab.race(&calls)? {
        lab.accepted(&reply, "GC and DEL of the same attachments side by side");
    }
    let difference = outside(lab.changes(&before)?);
    lab.check(difference.is_empty(), None, || {
        format!("GC and DEL of the same attachments side by side left a difference: {difference}")
    });
    still_whole(lab, &kept, "CHECK of a listed attachment after a GC beside DELs")
}
