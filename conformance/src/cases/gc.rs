//! GC: what the runtime does not list goes, and nothing else.

mod list;
mod race;

use super::life::{
    Attached, DELEGATE, add_delegating, attach, attached, delegate, delegating, fresh, not_of, outside,
    second, still_whole,
};
use super::{ALL, Case, INTERFACE};
use crate::kernel::Difference;
use crate::lab::{Act, Call, Container, Lab};
use crate::verdict::{Outcome, Stop};
use list::listing;

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("GC-01", "three-of-five", ALL, three_of_five),
    Case::new("GC-01", "namespaces-still-there", ALL, namespaces_still_there),
    Case::new("GC-02", "pair-of-id-and-interface", ALL, pair_of_id_and_interface),
    Case::new("GC-03", "another-network", ALL, another_network),
    Case::new("GC-04", "namespaces-gone", ALL, namespaces_gone),
    Case::new("GC-05", "delegate-fails", INTERFACE, delegate_fails).when(|profile| profile.delegates),
    Case::new("GC-05", "one-is-stuck", ALL, one_is_stuck).when(|profile| profile.stuck.is_some()),
    Case::new("GC-06", "delegate-called", INTERFACE, delegate_called).when(|profile| profile.delegates),
    Case::new("GC-07", "silent", ALL, silent),
    Case::new("GC-07", "error-document", INTERFACE, error_document).when(|profile| profile.delegates),
    Case::new("GC-08", "bare", ALL, bare),
    Case::new("GC-09", "old-key", ALL, list::old_key),
    Case::new("GC-09", "nothing-is-valid", ALL, list::nothing_is_valid),
    Case::new("GC-09", "no-list", ALL, list::no_list),
    Case::new("GC-09", "unusable-list", ALL, list::unusable_list),
    Case::new("GC-09", "double-and-unknown", ALL, list::double_and_unknown),
    Case::new("GC-10", "twice", ALL, race::twice),
    Case::new("GC-10", "beside-adds", ALL, race::beside_adds),
    Case::new("GC-10", "beside-dels", ALL, race::beside_dels),
    Case::new("GC-11", "everything-listed", ALL, everything_listed),
];

/// GC as a runtime asks, with these attachments listed under both keys.
fn collect(lab: &Lab, valid: &[&Container]) -> Call {
    listing(list::bare_call(lab), &list::KEYS, &list::entries(valid))
}

/// Five attachments, of which two are listed; the others' namespaces are gone, as after a crash of the runtime.
fn three_of_five(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = [attached(lab, "k1")?, attached(lab, "k2")?];
    let before = lab.snapshot()?;
    for name in ["c1", "c2", "c3"] {
        let stale = attached(lab, name)?;
        lab.destroy(&stale.container)?;
    }
    let call = collect(lab, &[&kept[0].container, &kept[1].container]);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC");
    let left = lab.lasting_changes(&before, Difference::added)?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("GC left what belongs to attachments that are not listed: {left}")
    });
    for attached in &kept {
        still_whole(lab, attached, "CHECK of a listed attachment after GC")?;
    }
    Ok(())
}

/// The same, but the namespaces of what is not listed are still there.
fn namespaces_still_there(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "k1")?;
    let (first, _) = fresh(lab, "c1")?;
    let (other, before) = fresh(lab, "c2")?;
    attach(lab, &first)?;
    attach(lab, &other)?;
    let call = collect(lab, &[&kept.container]);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC while the namespaces of stale attachments exist");
    let left = lab.lasting_changes(&before, |changes| outside(changes.added()))?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("GC left what belongs to attachments that are not listed: {left}")
    });
    still_whole(lab, &kept, "CHECK of a listed attachment after GC")
}

/// Two containers, of which one's id begins with the other's, with two interfaces each; of each pair one is listed.
fn pair_of_id_and_interface(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let (one, _) = fresh(lab, "c1")?;
    let one_more = second(lab, &one)?;
    let (longer, _) = fresh(lab, "c11")?;
    let longer_more = second(lab, &longer)?;
    let kept = [attach(lab, &one)?, attach(lab, &longer_more)?];
    let stale = [attach(lab, &one_more)?, attach(lab, &longer)?];
    let call = collect(lab, &[&kept[0].container, &kept[1].container]);
    let before = lab.snapshot()?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC");
    let harm = not_of(&[&stale[0], &stale[1]], lab.changes(&before)?);
    lab.check(harm.is_empty(), Some(&reply), || {
        format!("GC changed more than what belongs to the attachments that are not listed: {harm}")
    });
    for attached in &kept {
        still_whole(lab, attached, "CHECK of a listed attachment after GC")?;
    }
    Ok(())
}

/// Two networks which share what they can share: GC of one with an empty list leaves the other's attachments.
fn another_network(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let mine = attached(lab, "c1")?;
    let (container, before) = fresh(lab, "c2")?;
    let add = lab.on_the_other_network(lab.call("ADD", &container));
    let result = lab.must_add(&add)?;
    let own = lab.all_changes(&before)?.lines.into_iter().map(|(key, _)| key).collect();
    let theirs = Attached { container: container.clone(), result, own };
    let before = lab.snapshot()?;
    let call = collect(lab, &[]);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC of one of two networks");
    let mut harm = mine.foreign(lab.changes(&before)?);
    harm.lines.retain(|(key, _)| theirs.own.contains(key));
    lab.check(harm.is_empty(), Some(&reply), || {
        format!("GC of one network changed what is another's: {harm}")
    });
    let call = lab.on_the_other_network(lab.call("CHECK", &container)).previous(&theirs.result);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "CHECK on another network after GC of the first");
    Ok(())
}

/// No `CNI_NETNS`, and no namespaces.
fn namespaces_gone(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let stale = attached(lab, "c1")?;
    lab.destroy(&stale.container)?;
    let call = collect(lab, &[]).without("CNI_NETNS");
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC of an attachment whose namespace is gone");
    Ok(())
}

/// The delegate's GC fails: the plugin's own part goes all the same, and the error is told.
fn delegate_fails(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    delegate(lab, "GC", Act::error(123, "a lease cannot be removed"))?;
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    add_delegating(lab, &container)?;
    lab.destroy(&container)?;
    let call = delegating(collect(lab, &[]));
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "GC whose delegate failed");
    // A file may remember that something is still to be done.
    let left = lab.lasting_changes(&before, |changes| changes.added().only("host/*"))?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("GC whose delegate failed did not finish its own part: {left}")
    });
    Ok(())
}

/// One of three stale attachments has something that cannot be removed.
fn one_is_stuck(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let Some(command) = lab.profile.stuck.clone() else { return Ok(()) };
    let before = lab.snapshot()?;
    let mut all = Vec::new();
    for name in ["c1", "c2", "c3"] {
        let stale = attached(lab, name)?;
        lab.destroy(&stale.container)?;
        all.push(stale);
    }
    let stuck = &all[1];
    lab.sh_about(&stuck.container, &stuck.result, &command)?;
    let call = collect(lab, &[]);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "GC of three attachments, of which one has something that cannot be removed");
    let left = lab.lasting_changes(&before, |changes| {
        let mut left = stuck.foreign(changes.added());
        // The directories above what is stuck stay, whoever made them.
        left.lines.retain(|(key, _)| !key.ends_with('/'));
        left
    })?;
    lab.check(left.is_empty(), Some(&reply), || {
        format!("GC stopped at what it could not remove, and left of the others: {left}")
    });
    Ok(())
}

/// The delegate hears of GC, with the same configuration and list.
fn delegate_called(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    delegate(lab, "GC", Act::default())?;
    let container = lab.container("c1")?;
    add_delegating(lab, &container)?;
    for (valid, why) in [(vec![&container], "with one attachment listed"), (vec![], "with an empty list")] {
        lab.forget(DELEGATE);
        let call = delegating(collect(lab, &valid));
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("GC {why}, whose delegate succeeds"));
        let seen = lab.seen(DELEGATE);
        let Some(seen) = seen.iter().find(|seen| seen.verb == "GC") else {
            lab.violated(format!("GC {why} did not execute its delegate"), Some(&reply));
            continue;
        };
        lab.check(Some(seen.config()) == call.read_config(), Some(&reply), || {
            format!("the delegate's GC {why} did not get the configuration that was given: {}", seen.stdin)
        });
    }
    Ok(())
}

/// Nothing to print.
fn silent(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "c1")?;
    attached(lab, "c2")?;
    let call = collect(lab, &[&kept.container]);
    for why in ["that has something to remove", "that has nothing to remove"] {
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("GC {why}"));
        lab.check(!reply.ok() || reply.stdout.is_empty(), Some(&reply), || {
            format!("GC {why} succeeded and printed something: {:?}", reply.text())
        });
    }
    Ok(())
}

/// An error is told as everywhere.
fn error_document(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    delegate(lab, "GC", Act::error(123, "a lease cannot be removed"))?;
    let call = delegating(collect(lab, &[]));
    let reply = lab.run(&call)?;
    if reply.ok() {
        return Err(Stop::Skip("GC did not fail although its delegate did (see GC-05, GC-06)".to_owned()));
    }
    lab.refused(&reply, None, "GC whose delegate failed");
    Ok(())
}

/// Only the verb, the path of plugins, and a configuration.
fn bare(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let kept = attached(lab, "c1")?;
    let call = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
        .into_iter()
        .fold(collect(lab, &[&kept.container]), Call::without);
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC with only CNI_COMMAND and CNI_PATH");
    Ok(())
}

/// All are listed.
fn everything_listed(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let one = attached(lab, "c1")?;
    let container = second(lab, &one.container)?;
    let more = attach(lab, &container)?;
    let other = attached(lab, "c2")?;
    let call = collect(lab, &[&one.container, &more.container, &other.container]);
    let before = lab.snapshot()?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "GC with every attachment listed");
    let difference = lab.changes(&before)?;
    lab.check(difference.is_empty(), Some(&reply), || {
        format!("GC with every attachment listed changed something: {difference}")
    });
    Ok(())
}
