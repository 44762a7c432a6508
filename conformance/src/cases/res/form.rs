//! The form of a result, in each version.

use serde_json::{Value, json};

use crate::cases::attach::{
    addresses, attached, delegated, in_each_variant, in_each_version, since, versions, with_routes,
};
use crate::cases::truth::{Flaw, Part, flaws, joined};
use crate::lab::{Lab, Reply};
use crate::verdict::{Outcome, Stop};

/// Tells the flaws of a result in the parts that `wanted` holds for.
fn tell(lab: &mut Lab, reply: &Reply, result: &Value, version: &str, wanted: impl Fn(Part) -> bool) {
    let found: Vec<Flaw> = flaws(result, version).into_iter().filter(|flaw| wanted(flaw.part)).collect();
    lab.check(found.is_empty(), Some(reply), || format!("version {version}: {}", joined(&found)));
}

/// What a schema of the version would not let through. Keys of later versions, and nulls, have items of their own.
const fn schema(part: Part) -> bool {
    !matches!(part, Part::Newer | Part::Null)
}

pub(super) fn each_version(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, schema);
            Ok(())
        },
    )
}

pub(super) fn each_variant(lab: &mut Lab) -> Outcome {
    in_each_variant(lab, |lab, _, outcome| {
        if let Ok(attachment) = outcome {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, schema);
        }
        Ok(())
    })
}

const fn of_ips(part: Part) -> bool {
    matches!(part, Part::IpVersion | Part::Address | Part::Gateway | Part::Index)
}

pub(super) fn ips_since_1_0(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| since(version, "1.0.0"),
        |lab, attachment| {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, of_ips);
            Ok(())
        },
    )
}

pub(super) fn ips_before_1_0(lab: &mut Lab) -> Outcome {
    let wanted = |version: &str| since(version, "0.3.0") && !since(version, "1.0.0");
    in_each_version(lab, wanted, |lab, attachment| {
        tell(lab, &attachment.reply, &attachment.result, &attachment.version, of_ips);
        Ok(())
    })
}

pub(super) fn old(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| !since(version, "0.3.0"),
        |lab, attachment| {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, schema);
            let has = attachment.result["ip4"].is_object() || attachment.result["ip6"].is_object();
            lab.check(has, Some(&attachment.reply), || {
                format!("version {}: neither ip4 nor ip6: {}", attachment.version, attachment.result)
            });
            Ok(())
        },
    )
}

/// Without address management there is nothing that 0.1.0 and 0.2.0 could tell.
pub(super) fn no_address(lab: &mut Lab) -> Outcome {
    let old: Vec<String> = versions(lab).into_iter().filter(|version| !since(version, "0.3.0")).collect();
    if old.is_empty() {
        return Err(Stop::Skip("the plugin supports neither 0.1.0 nor 0.2.0".to_owned()));
    }
    let container = lab.container("c1")?;
    for version in old {
        version.clone_into(&mut lab.version);
        let before = lab.snapshot()?;
        let call = lab.call("ADD", &container).edit(|config| {
            if let Some(config) = config.as_object_mut() {
                config.remove("ipam");
                config.remove("isGateway");
                config.remove("ipMasq");
            }
        });
        let reply = lab.run(&call)?;
        lab.refused(&reply, None, &format!("ADD without addresses in version {version}"));
        lab.unchanged(&before, &format!("ADD without addresses in version {version} left something"))?;
        lab.run(&call.verb("DEL"))?;
    }
    Ok(())
}

pub(super) fn nothing_newer(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |version| !since(version, "1.1.0"),
        |lab, attachment| {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, |part| part == Part::Newer);
            Ok(())
        },
    )
}

/// Address management gives attributes of routes that only 1.1.0 knows.
pub(super) fn no_newer_routes(lab: &mut Lab) -> Outcome {
    let Some(version) = versions(lab).into_iter().rev().find(|v| !since(v, "1.1.0") && since(v, "0.3.0"))
    else {
        return Err(Stop::Skip("the plugin supports no version from 0.3.0 to 1.0.0".to_owned()));
    };
    version.clone_into(&mut lab.version);
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "10.250.0.0/16", "priority": 7, "mtu": 1400 }]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes))?;
    let attachment = attached(lab, &container, &call)?;
    tell(lab, &attachment.reply, &attachment.result, &version, |part| part == Part::Newer);
    Ok(())
}

pub(super) fn no_nulls(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            tell(lab, &attachment.reply, &attachment.result, &attachment.version, |part| part == Part::Null);
            Ok(())
        },
    )
}

/// Everything with which programs are told to be talkative. Standard error may say what it likes.
pub(super) fn debugging(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let talkative = [
        ("DEBUG", "1"),
        ("CNI_DEBUG", "true"),
        ("CNI_LOG_LEVEL", "debug"),
        ("LOG_LEVEL", "debug"),
        ("CNI_LOG_FILE", "/dev/stdout"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
        ("GODEBUG", "gctrace=1"),
        ("GOTRACEBACK", "all"),
    ];
    let call =
        talkative.into_iter().fold(lab.call("ADD", &container), |call, (name, value)| call.env(name, value));
    let reply = lab.run(&call)?;
    if !reply.ok() {
        lab.violated(format!("ADD fails where debugging is asked for: {}", reply.summary()), Some(&reply));
    } else if let Err(problem) = reply.document() {
        // Logs among the result break every runtime, however optional they are.
        lab.warn(format!("debugging is asked for: {problem}"), Some(&reply));
    }
    Ok(())
}
