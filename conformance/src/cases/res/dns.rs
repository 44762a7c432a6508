//! DNS: told to the runtime, never acted upon.

use serde_json::{Value, json};

use crate::cases::attach::{addresses, attached, delegated};
use crate::lab::Lab;
use crate::profile::merge;
use crate::verdict::Outcome;

fn settings() -> Value {
    json!({
        "nameservers": ["192.0.2.53", "192.0.2.9", "2001:db8::53"],
        "domain": "example.net",
        "search": ["b.example.net", "a.example.net"],
        "options": ["ndots:3", "rotate"],
    })
}

fn others() -> Value {
    json!({ "nameservers": ["198.51.100.53"], "domain": "example.org" })
}

pub(super) fn from_configuration(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let call = lab.call("ADD", &container).edit(|config| config["dns"] = settings());
    let attachment = attached(lab, &container, &call)?;
    let dns = &attachment.result["dns"];
    lab.check(*dns == settings(), Some(&attachment.reply), || {
        format!("the configuration's dns is {}, the result's {dns}", settings())
    });
    Ok(())
}

pub(super) fn from_delegate(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let mut answer = addresses(1);
    answer["dns"] = settings();
    let call = delegated(lab, &container, &answer)?;
    let attachment = attached(lab, &container, &call)?;
    let dns = &attachment.result["dns"];
    lab.check(*dns == settings(), Some(&attachment.reply), || {
        format!("address management gave the dns {}, the result has {dns}", settings())
    });
    Ok(())
}

/// A file as resolv.conf(5) describes it, which address management reads where the profile says how to name it.
pub(super) fn from_file(lab: &mut Lab) -> Outcome {
    let key = lab.profile.facts.get("resolver").and_then(Value::as_str).unwrap_or_default().to_owned();
    lab.sh(
        "printf 'nameserver 192.0.2.53\\nnameserver 192.0.2.9\\nnameserver 2001:db8::53\\ndomain example.net\\n\
         search b.example.net a.example.net\\noptions ndots:3 rotate\\n' >/tmp/cnf-resolv.conf",
    )?;
    let container = lab.container("c1")?;
    let patch = json!({ "ipam": { key: "/tmp/cnf-resolv.conf" } });
    let call = lab.call("ADD", &container).edit(|config| merge(config, &patch));
    let attachment = attached(lab, &container, &call)?;
    let dns = &attachment.result["dns"];
    lab.check(*dns == settings(), Some(&attachment.reply), || {
        format!("the file says {}, the result {dns}", settings())
    });
    Ok(())
}

pub(super) fn configuration_first(lab: &mut Lab) -> Outcome {
    for (container, own, expected) in
        [("c1", settings(), settings()), ("c2", json!({}), others()), ("c3", Value::Null, others())]
    {
        let container = lab.container(container)?;
        let mut answer = addresses(1);
        answer["dns"] = others();
        let call = delegated(lab, &container, &answer)?.edit(|config| {
            if !own.is_null() {
                config["dns"] = own.clone();
            }
        });
        let attachment = attached(lab, &container, &call)?;
        let dns = &attachment.result["dns"];
        lab.check(*dns == expected, Some(&attachment.reply), || {
            format!(
                "dns of the configuration {own}, of address management {}: the result has {dns}",
                others()
            )
        });
        lab.run(&attachment.call("DEL"))?;
    }
    Ok(())
}

pub(super) fn no_file(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let before = lab.snapshot()?;
    let call = lab.call("ADD", &container).edit(|config| config["dns"] = settings());
    let attachment = attached(lab, &container, &call)?;
    let written = lab.all_changes(&before)?.only("file/etc/*");
    lab.check(written.is_empty(), Some(&attachment.reply), || format!("ADD with dns wrote files: {written}"));
    Ok(())
}
