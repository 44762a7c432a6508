//! Delegates that are not address management. Which plugin executes one, and where its type stands, is a fact of the profile:
//! `delegate`, a patch on the configuration in which the type is `cnf-delegate`.

use serde_json::{Value, json};

use crate::lab::{Act, Call, Container, Lab, in_version};
use crate::profile::{Profile, merge};
use crate::verdict::Outcome;

/// The stub, as the fact must name it.
const STUB: &str = "cnf-delegate";

pub(super) fn delegates_to_any(profile: &Profile) -> bool {
    profile.facts.contains_key("delegate")
}

fn call(lab: &Lab, verb: &str, container: &Container) -> Call {
    let patch = lab.profile.facts.get("delegate").cloned().unwrap_or_default();
    lab.call(verb, container).edit(|config| merge(config, &patch))
}

/// What another plugin might answer: an interface of its own, with an address.
fn answer(lab: &Lab, container: &Container) -> Value {
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": container.ifname, "mac": "02:00:00:00:00:77", "sandbox": container.netns }],
        "ips": [{ "address": "10.66.0.5/24", "gateway": "10.66.0.1", "interface": 0 }],
        "dns": {},
    });
    in_version(&result, &lab.version)
}

/// Every verb reaches it with the environment; its result is in the plugin's.
pub(super) fn any_delegate(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    let result = answer(lab, &container);
    lab.stub(STUB, &[("ADD".to_owned(), Act::reply(&result))].into())?;
    let add = call(lab, "ADD", &container);
    let reply = lab.run(&add)?;
    if !lab.accepted(&reply, "ADD with a delegate that succeeds") {
        return Ok(());
    }
    let printed = reply.document().unwrap_or(Value::Null);
    let address = |result: &Value| result["ips"][0]["address"].clone();
    lab.check(address(&printed) == address(&result), Some(&reply), || {
        format!(
            "the delegate's address {} is not in the result, which has {}",
            address(&result),
            printed["ips"]
        )
    });
    for verb in ["CHECK", "DEL"] {
        if lab.need_verb(verb).is_ok() {
            let reply = lab.run(&call(lab, verb, &container).previous(&printed))?;
            lab.accepted(&reply, &format!("{verb} with a delegate that succeeds"));
        }
    }
    let verbs = lab.verbs_seen(STUB);
    lab.check(["ADD", "DEL"].iter().all(|verb| verbs.iter().any(|seen| seen == verb)), None, || {
        format!("the delegate was to see ADD and DEL; it saw {verbs:?}")
    });
    for seen in lab.seen(STUB) {
        for (name, value) in add.environment.iter().filter(|(name, _)| name.starts_with("CNI_")) {
            lab.check(name == "CNI_COMMAND" || seen.environment.get(name) == Some(value), None, || {
                format!(
                    "{}: {name} is {value:?} for the plugin and {:?} for its delegate",
                    seen.verb,
                    seen.environment.get(name)
                )
            });
        }
        lab.check(seen.config()["name"] == add.read_config().unwrap_or_default()["name"], None, || {
            format!("{}: the delegate's configuration has another network name: {}", seen.verb, seen.stdin)
        });
    }
    Ok(())
}

/// Its error is the plugin's, and it sees DEL.
pub(super) fn any_delegate_fails(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.beneath(&container)?;
    lab.stub(STUB, &[("ADD".to_owned(), Act::error(123, "cnf: no"))].into())?;
    let before = lab.snapshot()?;
    let reply = lab.run(&call(lab, "ADD", &container))?;
    lab.refused(&reply, Some(123), "ADD whose delegate failed with code 123");
    let verbs = lab.verbs_seen(STUB);
    lab.check(verbs == ["ADD", "DEL"], Some(&reply), || {
        format!("a delegate whose ADD failed was to see ADD and DEL; it saw {verbs:?}")
    });
    lab.unchanged(&before, "ADD whose delegate failed left something")?;
    Ok(())
}
