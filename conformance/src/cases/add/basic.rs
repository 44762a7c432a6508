//! ADD that works: an interface, one true and whole result.

use crate::cases::attach::{Attachment, attach, attached, in_each_variant, in_each_version, since, versions};
use crate::cases::truth::{About, joined};
use crate::lab::Lab;
use crate::profile::Kind;
use crate::verdict::{Outcome, Stop};

pub(super) fn interface_is_there(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let call = lab.call("ADD", &container);
    let attachment = attached(lab, &container, &call)?;
    let there = attachment.world.inside.link(&container.ifname).is_some();
    lab.check(there, Some(&attachment.reply), || {
        format!("after ADD the container has no interface {:?}", container.ifname)
    });
    Ok(())
}

/// Success is a status of 0 and one document, in every version the plugin says it has.
pub(super) fn each_version(lab: &mut Lab) -> Outcome {
    for version in versions(lab) {
        version.clone_into(&mut lab.version);
        let container = lab.container(&format!("v{}", version.replace('.', "")))?;
        lab.beneath(&container)?;
        let call = lab.call("ADD", &container);
        let reply = lab.run(&call)?;
        if lab.accepted(&reply, &format!("ADD in version {version}")) {
            let document = reply.document();
            let problem = match &document {
                Ok(document) if document.is_object() => None,
                Ok(document) => Some(format!("standard output is no object: {document}")),
                Err(problem) => Some(problem.clone()),
            };
            if let Some(problem) = problem {
                lab.violated(format!("ADD in version {version}: {problem}"), Some(&reply));
            }
            let result = document.ok().filter(|_| since(&version, "0.4.0")).unwrap_or_default();
            lab.run(&call.verb("DEL").previous(&result))?;
        }
    }
    Ok(())
}

pub(super) fn each_variant(lab: &mut Lab) -> Outcome {
    in_each_variant(lab, |lab, why, outcome| {
        if let Err(reply) = outcome {
            lab.violated(format!("ADD with {why}: {}", reply.summary()), Some(reply));
        }
        Ok(())
    })
}

/// The interface is there already, and somebody else's: it must stay as it is.
pub(super) fn existing_interface(lab: &mut Lab) -> Outcome {
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
pub(super) fn second_add(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.add(&container)?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &container);
    let reply = lab.run(&call)?;
    lab.refused(&reply, None, "a second ADD for the same interface");
    lab.unchanged(&before, "a second ADD for the same interface changed something")?;
    Ok(())
}

/// Names that the kernel refuses whoever asks.
pub(super) fn impossible_names(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    for name in ["sixteen-letters-", ".", "..", "a/b", "a:b", "a b", "a\tb", "lo"] {
        let call = lab.call("ADD", &container.interface(name));
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("ADD with CNI_IFNAME {name:?}"));
    }
    lab.unchanged(&before, "ADD with names that no interface can have changed something")?;
    Ok(())
}

/// Names that mean something else to the kernel: it fills in `%d`, and refuses the two that its sysctls use. An interface of just this
/// name, or an error and nothing changed.
pub(super) fn names_with_a_meaning(lab: &mut Lab) -> Outcome {
    for (index, name) in ["eth%d", "%d", "all", "default"].into_iter().enumerate() {
        let container = lab.container(&format!("c{index}"))?.interface(name);
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container);
        match attach(lab, &container, &call)? {
            Ok(attachment) => {
                let there = attachment.world.inside.link(name).is_some();
                lab.check(there, Some(&attachment.reply), || {
                    let names = attachment.world.inside.names();
                    let names: Vec<_> = names.values().collect();
                    format!("CNI_IFNAME is {name:?}, ADD succeeded, and the container has {names:?}")
                });
                let del = attachment.call("DEL");
                lab.run(&del)?;
            }
            Err(reply) => {
                lab.refused(&reply, None, &format!("ADD with CNI_IFNAME {name:?}"));
                lab.unchanged(
                    &before,
                    &format!("ADD failed with CNI_IFNAME {name:?} and changed something"),
                )?;
            }
        }
    }
    Ok(())
}

fn tell_falsehoods(lab: &mut Lab, attachment: &Attachment, why: &str) {
    let mut falsehoods = attachment.world.falsehoods(&attachment.result);
    // An MTU that is not told is no untruth, but for IFC-04.
    falsehoods.retain(|falsehood| falsehood.about != About::MtuMissing);
    lab.check(falsehoods.is_empty(), Some(&attachment.reply), || format!("{why}: {}", joined(&falsehoods)));
}

pub(super) fn true_in_each_version(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            tell_falsehoods(lab, attachment, &format!("version {}", attachment.version));
            Ok(())
        },
    )
}

pub(super) fn true_in_each_variant(lab: &mut Lab) -> Outcome {
    in_each_variant(lab, |lab, why, outcome| {
        if let Ok(attachment) = outcome {
            tell_falsehoods(lab, attachment, why);
        }
        Ok(())
    })
}

fn tell_unlisted(lab: &mut Lab, attachment: &Attachment, why: &str) {
    let unlisted = attachment.world.unlisted(&attachment.before, &attachment.result);
    lab.check(unlisted.is_empty(), Some(&attachment.reply), || {
        format!("{why}: ADD made what its result does not list: {}", unlisted.join(", "))
    });
}

pub(super) fn whole_in_each_version(lab: &mut Lab) -> Outcome {
    let lists = |version: &str| since(version, "0.3.0");
    in_each_version(lab, lists, |lab, attachment| {
        tell_unlisted(lab, attachment, &format!("version {}", attachment.version));
        Ok(())
    })
}

pub(super) fn whole_in_each_variant(lab: &mut Lab) -> Outcome {
    if !since(&lab.version, "0.3.0") {
        return Err(Stop::Skip("interfaces are listed since 0.3.0".to_owned()));
    }
    in_each_variant(lab, |lab, why, outcome| {
        if let Ok(attachment) = outcome {
            tell_unlisted(lab, attachment, why);
        }
        Ok(())
    })
}

/// The very first call on a host without any of the directories that plugins keep state in.
pub(super) fn first_call(lab: &mut Lab) -> Outcome {
    lab.sh("rm -rf /var/lib/cni /run/cni")?;
    for place in lab.profile.state.clone() {
        lab.sh(&format!("rm -rf {}", crate::lab::quote(&place)))?;
    }
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let reply = lab.run(&lab.call("ADD", &container))?;
    if lab.accepted(&reply, "ADD as the first call ever") && lab.profile.kind == Kind::Ipam {
        let result = reply.document().unwrap_or_default();
        lab.check(result["ips"].is_array() || result["ip4"].is_object(), Some(&reply), || {
            format!("ADD as the first call ever gave no address: {result}")
        });
    }
    Ok(())
}
