//! What the well-known keys of a configuration do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cases::protocol::{addresses, ready};
use crate::lab::{Act, Container, Lab};
use crate::profile::Profile;
use crate::verdict::{Outcome, Stop};

/// The profile's configuration masquerades, and traffic gets through to show it.
pub(super) fn masquerades(profile: &Profile) -> bool {
    profile.carries_traffic && profile.config.get("ipMasq").is_some_and(|value| value == true)
}

/// A host beyond the fake host knows no way back to the containers: an answer comes only to a source address of the host.
pub(super) fn masquerade(lab: &mut Lab) -> Outcome {
    let beyond = lab.container("beyond")?;
    lab.sh("ip link add uplink type veth peer name eth0 netns beyond && ip addr add 198.51.100.1/24 dev uplink && ip link set uplink up")?;
    lab.sh_in(&beyond, "ip addr add 198.51.100.2/24 dev eth0 && ip link set eth0 up")?;
    for wanted in [true, false] {
        let container = lab.container(if wanted { "c1" } else { "c2" })?;
        let call = lab.call("ADD", &container).edit(|config| config["ipMasq"] = json!(wanted));
        let result = lab.must_add(&call)?;
        let ping = format!("ip netns exec {} ping -n -c1 -W1 198.51.100.2", container.name);
        let (answered, said, _) = lab.try_sh(&ping)?;
        lab.check(answered == wanted, None, || {
            let (is, was) = if wanted { ("is true", "no answer") } else { ("is false", "an answer") };
            format!(
                "ipMasq {is}, and a ping from {} to a host that knows no way back got {was}: {}",
                addresses(&result).join(", "),
                said.lines().last().unwrap_or_default()
            )
        });
        lab.run(&call.verb("DEL").previous(&result))?;
    }
    Ok(())
}

pub(super) fn dns(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let dns = json!({ "nameservers": ["192.0.2.53", "192.0.2.1"], "domain": "example.org",
        "search": ["a.example.org", "example.org"], "options": ["ndots:2"] });
    let call = lab.call("ADD", &container).edit(|config| config["dns"] = dns.clone());
    let reply = lab.run(&call)?;
    if lab.accepted(&reply, "ADD with dns") {
        let got = reply.document().unwrap_or_default()["dns"].clone();
        lab.check(got == dns, Some(&reply), || {
            format!("the configuration's dns is {dns}, the result's {got}")
        });
    }
    Ok(())
}

/// The delegate is the one that `ipam.type` names, and its address is the container's.
pub(super) fn ipam_type(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let result =
        json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.66.0.50/24", "gateway": "10.66.0.1" }] });
    let result = crate::lab::in_version(&result, &lab.version);
    lab.stub("cnf-ipam", &[("ADD".to_owned(), Act::reply(&result))].into())?;
    let call = lab.call("ADD", &container).edit(|config| config["ipam"] = json!({ "type": "cnf-ipam" }));
    let reply = lab.run(&call)?;
    if !lab.accepted(&reply, "ADD with an address management of another name") {
        return Ok(());
    }
    let seen = lab.verbs_seen("cnf-ipam");
    lab.check(seen == ["ADD"], Some(&reply), || {
        format!("ipam.type is cnf-ipam, which was executed for {seen:?}")
    });
    let got = addresses(&reply.document().unwrap_or_default());
    lab.check(got == ["10.66.0.50/24"], Some(&reply), || {
        format!("address management gave 10.66.0.50/24, and the result has {got:?}")
    });
    Ok(())
}

/// Go's decoder takes a key in any case, and so do configurations written for it.
pub(super) fn keys_in_upper_case(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    // What a first attachment leaves (a bridge, a directory) is no difference between the two that follow.
    effect(lab, &container, |_| {})?;
    let plain = effect(lab, &container, |_| {})?;
    let upper = effect(lab, &container, |config| {
        let Some(object) = config.as_object_mut() else { return };
        for key in object.keys().cloned().collect::<Vec<_>>() {
            // What a runtime reads itself before it calls a plugin is spelled right.
            if !["cniVersion", "name", "type"].contains(&key.as_str())
                && let Some(value) = object.remove(&key)
            {
                object.insert(key.to_uppercase(), value);
            }
        }
    });
    match upper {
        Err(Stop::Skip(why)) => lab.violated(format!("with keys in upper case, {why}"), None),
        upper => {
            let upper = upper?;
            lab.check(plain == upper, None, || {
                format!("keys in upper case make another network: {}", contrast(&plain, &upper))
            });
        }
    }
    Ok(())
}

/// What an ADD does to the world: how often each line of a difference comes, in words that are the same for every attachment.
pub(in crate::cases) type Effect = BTreeMap<String, usize>;

/// What is in one and not in the other, shortened.
pub(in crate::cases) fn contrast(one: &Effect, other: &Effect) -> String {
    let beyond = |a: &Effect, b: &Effect| -> Vec<String> {
        a.iter()
            .filter(|(line, count)| b.get(*line) != Some(count))
            .map(|(line, _)| line.clone())
            .take(4)
            .collect()
    };
    format!("{:?} instead of {:?}", beyond(other, one), beyond(one, other))
}

/// The effect of an ADD with a changed configuration, which is taken back at the end.
///
/// # Errors
/// Skips the case if ADD fails.
pub(in crate::cases) fn effect(
    lab: &mut Lab,
    container: &Container,
    change: impl FnOnce(&mut Value),
) -> Outcome<Effect> {
    let before = lab.snapshot()?;
    let call = lab.call("ADD", container).edit(change);
    let result = lab.must_add(&call)?;
    let difference = lab.all_changes(&before)?;
    lab.run(&call.verb("DEL").previous(&result))?;
    let words = words(&result);
    let mut lines = BTreeMap::new();
    for (key, line) in difference.lines {
        // Files are compared by name only: what a plugin notes down of a call may have the version in it.
        let line = if key.starts_with("file/") { &key } else { &line };
        *lines.entry(in_words(line, &words)).or_insert(0) += 1;
    }
    Ok(lines)
}

/// What is of this attachment alone: its names, hardware and network addresses, each with a word that stands for it.
fn words(result: &Value) -> Vec<(String, String)> {
    let mut words = Vec::new();
    for (index, interface) in result["interfaces"].as_array().into_iter().flatten().enumerate() {
        for key in ["name", "mac"] {
            if let Some(text) = interface[key].as_str() {
                words.push((text.to_owned(), format!("{key}{index}")));
            }
        }
    }
    for (index, address) in addresses(result).into_iter().enumerate() {
        let bare = address.split('/').next().unwrap_or_default().to_owned();
        words.push((bare, format!("address{index}")));
    }
    words
}

/// The line with each of `words` replaced, where it is not part of a longer name or number.
fn in_words(line: &str, words: &[(String, String)]) -> String {
    let mut out = line.to_owned();
    for (text, word) in words.iter().filter(|(text, _)| !text.is_empty()) {
        let mut done = String::new();
        let mut rest = out.as_str();
        while let Some(at) = rest.find(text.as_str()) {
            let (head, tail) = (&rest[..at], &rest[at + text.len()..]);
            let before = head.chars().next_back().or_else(|| done.chars().next_back());
            done.push_str(head);
            done.push_str(if continues(before, tail) { text } else { word });
            rest = tail;
        }
        done.push_str(rest);
        out = done;
    }
    out
}

/// Whether a name or number goes on before or after: `.` and `:` are part of it only where something follows.
fn continues(before: Option<char>, tail: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_".contains(c));
    let mut next = tail.chars();
    let first = next.next();
    part(before)
        || before.is_some_and(|c| ".:".contains(c))
        || part(first)
        || (first.is_some_and(|c| ".:".contains(c)) && part(next.next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_become_words_and_longer_ones_do_not() {
        let words = words(
            &json!({ "interfaces": [{ "name": "veth1", "mac": "02:00:00:00:00:01" }], "ips": [{ "address": "10.1.0.2/24" }] }),
        );
        assert_eq!(
            in_words(
                "~ veth1: veth12 02:00:00:00:00:01 10.1.0.2/24 10.1.0.255 \"10.1.0.2\" 10.1.0.2.3",
                &words
            ),
            "~ name0: veth12 mac0 address0/24 10.1.0.255 \"address0\" 10.1.0.2.3"
        );
    }
}
