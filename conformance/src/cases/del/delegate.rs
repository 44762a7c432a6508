//! DEL, and the plugin that was delegated to.

use serde_json::Value;

use crate::cases::life::{DELEGATE, add_delegating, delegate, delegating, fresh};
use crate::lab::{Act, Call, Lab, Reply};
use crate::verdict::Outcome;

/// Nothing of the plugin's own is left, in several ways: the delegate hears of each DEL.
pub(super) fn own_part_gone(lab: &mut Lab) -> Outcome {
    delegate(lab, "DEL", Act::default())?;
    let container = lab.container("c1")?;
    let called = |lab: &mut Lab, call: Call, why: &str| -> Outcome<Reply> {
        lab.forget(DELEGATE);
        let reply = lab.run(&call)?;
        let dels: Vec<_> = lab.seen(DELEGATE).into_iter().filter(|call| call.verb == "DEL").collect();
        let right = dels.iter().any(|call| call.environment.get("CNI_CONTAINERID") == Some(&container.id));
        lab.check(right, Some(&reply), || {
            format!(
                "DEL {why}: the delegate was not called with DEL for this container ({})",
                reply.summary()
            )
        });
        Ok(reply)
    };
    let call = delegating(lab.call("DEL", &container));
    called(lab, call.clone(), "of a container that was never added")?;
    let result = add_delegating(lab, &container)?;
    let call = call.previous(&result);
    lab.sh_in(&container, &format!("ip link del {}", container.ifname))?;
    called(lab, call.clone(), "after the interface was deleted by hand")?;
    called(lab, call.clone(), "once more")?;
    called(lab, call.clone().env("CNI_NETNS", ""), "with an empty CNI_NETNS")?;
    called(lab, call.clone().previous(&Value::Null), "without prevResult")?;
    lab.destroy(&container)?;
    called(lab, call, "after the namespace was destroyed")?;
    Ok(())
}

/// The delegate's DEL fails: the plugin's own part goes all the same, and the error is told.
pub(super) fn delegate_fails(lab: &mut Lab) -> Outcome {
    delegate(lab, "DEL", Act::error(123, "the address cannot be released"))?;
    let (container, before) = fresh(lab, "c1")?;
    let result = add_delegating(lab, &container)?;
    let call = delegating(lab.call("DEL", &container)).previous(&result);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "DEL whose delegate failed");
    // A file may remember that something is still to be done.
    let left = lab.left(&before)?.only("host/*");
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL whose delegate failed did not finish its own part: {left}")
    });
    Ok(())
}

/// The delegate's program is gone. Whether that is an error or not, the plugin's own part must not wait for it.
pub(super) fn delegate_uninstalled(lab: &mut Lab) -> Outcome {
    delegate(lab, "DEL", Act::default())?;
    let (container, before) = fresh(lab, "c1")?;
    let result = add_delegating(lab, &container)?;
    let call = delegating(lab.call("DEL", &container)).previous(&result);
    lab.sh(&format!("rm {}", crate::lab::world::stubs().join(DELEGATE).display()))?;
    let reply = lab.run(&call)?;
    let left = lab.left(&before)?.only("host/*");
    lab.check(left.is_empty(), Some(&reply), || {
        format!("DEL left its own part because the delegate's program is missing: {left}")
    });
    Ok(())
}
