//! Results of earlier plugins that are short, wrong or of another version, or not there.

use serde_json::{Value, json};

use super::changes::chained;
use crate::cases::attach::since;
use crate::cases::truth::list;
use crate::lab::{Lab, Reply, in_version};
use crate::profile::Kind;
use crate::verdict::{Outcome, Stop};

/// What old plugins, and plugins of address management, leave out of a result.
pub(super) fn abbreviated(lab: &mut Lab) -> Outcome {
    type Change = fn(&mut Value);
    let table: [(&str, Change); 3] = [
        ("without interfaces", |base| {
            if let Some(base) = base.as_object_mut() {
                base.remove("interfaces");
            }
            without_indexes(base);
        }),
        ("whose addresses point at no interface", without_indexes),
        ("whose addresses point at the interface -1", |base| {
            for ip in base["ips"].as_array_mut().into_iter().flatten() {
                ip["interface"] = json!(-1);
            }
        }),
    ];
    for (index, (why, change)) in table.into_iter().enumerate() {
        let container = lab.container(&format!("c{index}"))?;
        let (call, mut base) = chained(lab, &container)?;
        change(&mut base);
        let call = call.previous(&base);
        let reply = lab.run(&call)?;
        lab.accepted(&reply, &format!("ADD with a prevResult {why}"));
        let reply = lab.run(&call.verb("DEL"))?;
        lab.accepted(&reply, &format!("DEL with a prevResult {why}"));
    }
    Ok(())
}

fn without_indexes(base: &mut Value) {
    for ip in base["ips"].as_array_mut().into_iter().flatten() {
        if let Some(ip) = ip.as_object_mut() {
            ip.remove("interface");
        }
    }
}

/// An error with the code that the item asks for; another code is a smaller fault than no error.
fn refused_as(lab: &mut Lab, reply: &Reply, codes: &[i64], why: &str) {
    if lab.refused(reply, None, why)
        && let Some(code) = reply.code().filter(|code| !codes.contains(code))
    {
        let wanted: Vec<String> = codes.iter().map(ToString::to_string).collect();
        lab.warn(format!("{why}: code {code} instead of {}", wanted.join(" or ")), Some(reply));
    }
}

pub(super) fn no_previous(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, _) = chained(lab, &container)?;
    let before = lab.snapshot()?;
    let reply = lab.run(&call.previous(&Value::Null))?;
    refused_as(lab, &reply, &[7], "ADD without prevResult");
    lab.unchanged(&before, "ADD without prevResult changed something")?;
    Ok(())
}

pub(super) fn malformed(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let (call, base) = chained(lab, &container)?;
    let with = |key: &str, value: Value| {
        let mut changed = base.clone();
        changed[key] = value;
        changed
    };
    let address = |address: &str| json!([{ "version": "4", "address": address }]);
    let table = [
        ("a string", json!("result")),
        ("a list", json!([base.clone()])),
        ("a number", json!(7)),
        ("an object whose ips are a string", with("ips", json!("10.55.1.2/24"))),
        ("an object whose interfaces are an object", with("interfaces", json!({ "name": "eth0" }))),
        ("an object with an address without prefix length", with("ips", address("10.55.1.2"))),
        ("an object with an address that is none", with("ips", address("10.55.1.256/24"))),
    ];
    for (why, previous) in table {
        let before = lab.snapshot()?;
        let call = call.clone().previous(&previous);
        let reply = lab.run(&call)?;
        let why = format!("ADD whose prevResult is {why}");
        refused_as(lab, &reply, &[6, 7], &why);
        if reply.ok() {
            lab.run(&call.verb("DEL").previous(&Value::Null))?;
        } else {
            lab.unchanged(&before, &format!("{why} changed something"))?;
        }
    }
    Ok(())
}

/// The versions whose results differ in nothing but the version's name.
fn family(version: &str) -> &'static [&'static str] {
    if since(version, "1.0.0") { &["1.0.0", "1.1.0"] } else { &["0.3.0", "0.3.1", "0.4.0"] }
}

/// ADD in `version` behind a result in `previous`.
fn across(lab: &mut Lab, version: &str, previous: &str) -> Outcome<Reply> {
    version.clone_into(&mut lab.version);
    let name = format!("v{version}-{previous}").replace('.', "");
    let container = lab.container(&name)?;
    let base = match lab.profile.kind {
        Kind::Meta => lab.beneath(&container)?,
        _ => lab.earlier(&container.interface("net1"))?,
    };
    let base = in_version(&plain(&base), previous);
    let call = lab.call("ADD", &container).previous(&base);
    let reply = lab.run(&call)?;
    lab.run(&call.verb("DEL"))?;
    Ok(reply)
}

/// A result as 1.0.0 has it.
fn plain(result: &Value) -> Value {
    let mut result = result.clone();
    for ip in result["ips"].as_array_mut().into_iter().flatten() {
        if let Some(ip) = ip.as_object_mut() {
            ip.remove("version");
        }
    }
    result
}

fn told(lab: &mut Lab, reply: &Reply, version: &str) {
    let result = reply.document().unwrap_or_default();
    let right = result["cniVersion"] == version
        && list(&result, "ips").all(|ip| ip["version"].is_string() != since(version, "1.0.0"));
    lab.check(right, Some(reply), || {
        format!("the result for a configuration in {version} is not in that version: {result}")
    });
}

pub(super) fn same_family(lab: &mut Lab) -> Outcome {
    let versions: Vec<String> = lab.versions.iter().filter(|v| since(v, "0.3.0")).cloned().collect();
    let mut tried = false;
    for version in &versions {
        for previous in family(version).iter().filter(|previous| *previous != version) {
            tried = true;
            let reply = across(lab, version, previous)?;
            if lab.accepted(&reply, &format!("ADD in {version} behind a result in {previous}")) {
                told(lab, &reply, version);
            }
        }
    }
    if tried { Ok(()) } else { Err(Stop::Skip("chains came with 0.3.0".to_owned())) }
}

/// Converted, or refused: not taken for what it is not.
pub(super) fn other_family(lab: &mut Lab) -> Outcome {
    let mut tried = false;
    for (version, previous) in [("1.0.0", "0.4.0"), ("0.4.0", "1.0.0"), ("1.0.0", "0.2.0")] {
        if !lab.versions.iter().any(|supported| supported == version) {
            continue;
        }
        tried = true;
        let reply = across(lab, version, previous)?;
        if reply.ok() {
            told(lab, &reply, version);
        } else {
            lab.refused(&reply, None, &format!("ADD in {version} behind a result in {previous}"));
        }
    }
    if tried { Ok(()) } else { Err(Stop::Skip("the plugin supports neither 0.4.0 nor 1.0.0".to_owned())) }
}
