//! Routes, in results and in the kernel.

use serde_json::{Value, json};

use super::attach::{Attachment, addresses, attached, delegated, in_each_version, since, with_routes};
use super::truth::{About, Falsehood, Part, flaws, joined, list, route_text};
use super::{ALL, Case, INTERFACE, IPAM, META};
use crate::lab::Lab;
use crate::profile::{Kind, Profile, merge};
use crate::verdict::Outcome;

const fn delegates(profile: &Profile) -> bool {
    profile.delegates
}

/// Address management whose routes come from its configuration.
fn configures_routes(profile: &Profile) -> bool {
    profile.config.get("ipam").is_some_and(|ipam| ipam.get("routes").is_some())
}

/// The cases.
pub(super) const CASES: &[Case] = &[
    Case::new("RTE-01", "each-version", ALL, each_version),
    Case::new("RTE-01", "gateways", INTERFACE, gateways).when(delegates),
    Case::new("RTE-02", "from-delegate", INTERFACE, attributes).when(delegates),
    Case::new("RTE-02", "scope", INTERFACE, scope).when(delegates),
    Case::new("RTE-02", "from-configuration", IPAM, echoed).when(configures_routes),
    Case::new("RTE-03", "from-delegate", INTERFACE, zeros).when(delegates),
    Case::new("RTE-03", "from-configuration", IPAM, zeros_echoed).when(configures_routes),
    Case::new("RTE-03", "in-a-chain", META, zeros_in_chain),
    Case::new("RTE-04", "on-link", INTERFACE, on_link).when(delegates),
    Case::new("RTE-04", "unreachable-gateway", INTERFACE, unreachable).when(delegates),
    Case::new("RTE-04", "priority-zero", INTERFACE, priority_zero).when(delegates),
    Case::new("RTE-05", "each-version", &[Kind::Interface, Kind::Loopback], of_the_interface),
    Case::new("RTE-05", "families", ALL, families),
];

fn tell(lab: &mut Lab, attachment: &Attachment, abouts: &[About]) {
    let mut found: Vec<Falsehood> = attachment.world.falsehoods(&attachment.result);
    found.retain(|falsehood| abouts.contains(&falsehood.about));
    let version = &attachment.version;
    lab.check(found.is_empty(), Some(&attachment.reply), || format!("version {version}: {}", joined(&found)));
}

fn each_version(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            let mut found = flaws(&attachment.result, &attachment.version);
            found.retain(|flaw| flaw.part == Part::Route);
            lab.check(found.is_empty(), Some(&attachment.reply), || joined(&found));
            if lab.profile.kind != Kind::Ipam {
                tell(lab, attachment, &[About::Route]);
            }
            Ok(())
        },
    )
}

/// A route with a gateway of its own, and one that takes the address's.
fn gateways(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let routes = json!([
        { "dst": "10.250.0.0/16", "gw": "10.88.1.7" },
        { "dst": "10.251.0.0/16" },
        { "dst": "fd00:250::/32", "gw": "fd00:88:1::7" },
        { "dst": "fd00:251::/32" },
    ]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes.clone()))?;
    let attachment = attached(lab, &container, &call)?;
    tell(lab, &attachment, &[About::Route, About::RouteLink]);
    let result = &attachment.result;
    for route in routes.as_array().into_iter().flatten() {
        let told = list(result, "routes").any(|other| other["dst"] == route["dst"]);
        lab.check(told || !since(&lab.version, "0.3.0"), Some(&attachment.reply), || {
            format!("address management gave the route {route}, and the result does not have it")
        });
    }
    Ok(())
}

/// Routes with everything that 1.1.0 lets one say.
fn told() -> Value {
    json!([
        { "dst": "10.250.0.0/16", "gw": "10.88.1.1", "mtu": 1300, "advmss": 1200, "priority": 77 },
        { "dst": "10.251.0.0/16", "gw": "10.88.1.1", "table": 500, "priority": 78 },
        { "dst": "fd00:250::/32", "gw": "fd00:88:1::1", "mtu": 1300, "advmss": 1200, "priority": 79, "table": 501 },
    ])
}

/// Where a result's route differs from the one that was asked for.
fn tell_lost(lab: &mut Lab, attachment: &Attachment, asked: &Value) {
    for route in asked.as_array().into_iter().flatten() {
        let Some(told) = list(&attachment.result, "routes").find(|told| told["dst"] == route["dst"]) else {
            lab.violated(format!("the result has no route to {}", route["dst"]), Some(&attachment.reply));
            continue;
        };
        for key in ["mtu", "advmss", "priority", "table", "scope"] {
            lab.check(route.get(key) == told.get(key), Some(&attachment.reply), || {
                format!("of the route {route} the result says {told}: {key} differs")
            });
        }
    }
}

/// What was asked for is what the kernel has, whatever the result says.
fn tell_not_installed(lab: &mut Lab, attachment: &Attachment, asked: Value) {
    let mut wanted = attachment.result.clone();
    wanted["routes"] = asked;
    let mut found = attachment.world.falsehoods(&wanted);
    found.retain(|falsehood| [About::Route, About::RouteAttribute].contains(&falsehood.about));
    let text = joined(&found).replace("the result has", "address management gave");
    lab.check(found.is_empty(), Some(&attachment.reply), || text);
}

fn need_attributes(lab: &mut Lab) -> Outcome {
    lab.need_version("1.1.0")
}

fn attributes(lab: &mut Lab) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let call = delegated(lab, &container, &with_routes(addresses(1), told()))?;
    let attachment = attached(lab, &container, &call)?;
    tell_not_installed(lab, &attachment, told());
    tell_lost(lab, &attachment, &told());
    Ok(())
}

/// Scope link, of an address without gateway.
fn scope(lab: &mut Lab) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "10.252.0.0/16", "scope": 253 }]);
    let answer = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.88.1.5/24" }], "routes": routes });
    let call = delegated(lab, &container, &answer)?;
    let attachment = attached(lab, &container, &call)?;
    tell_not_installed(lab, &attachment, routes.clone());
    tell_lost(lab, &attachment, &routes);
    Ok(())
}

fn from_configuration(lab: &mut Lab, routes: &Value) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let patch = json!({ "ipam": { "routes": routes } });
    let call = lab.call("ADD", &container).edit(|config| merge(config, &patch));
    let attachment = attached(lab, &container, &call)?;
    tell_lost(lab, &attachment, routes);
    Ok(())
}

fn echoed(lab: &mut Lab) -> Outcome {
    from_configuration(lab, &told())
}

/// 0 is a value: scope 0 is global, table 0 is what the kernel takes for none.
fn zero() -> Value {
    json!([
        { "dst": "10.250.0.0/16", "gw": "10.88.1.1", "scope": 0 },
        { "dst": "10.251.0.0/16", "gw": "10.88.1.1", "table": 0 },
        { "dst": "10.252.0.0/16", "gw": "10.88.1.1" },
    ])
}

fn zeros(lab: &mut Lab) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let call = delegated(lab, &container, &with_routes(addresses(1), zero()))?;
    let attachment = attached(lab, &container, &call)?;
    tell_not_installed(lab, &attachment, zero());
    tell_lost(lab, &attachment, &zero());
    Ok(())
}

fn zeros_echoed(lab: &mut Lab) -> Outcome {
    from_configuration(lab, &zero())
}

fn zeros_in_chain(lab: &mut Lab) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let mut base = lab.beneath(&container)?;
    base["routes"] = zero();
    let call = lab.call("ADD", &container).previous(&base);
    let attachment = attached(lab, &container, &call)?;
    tell_lost(lab, &attachment, &zero());
    Ok(())
}

/// Scope link says that the destination is on the link, although the address has a gateway.
fn on_link(lab: &mut Lab) -> Outcome {
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "10.252.0.0/16", "scope": 253 }]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes))?;
    let reply = lab.run(&call)?;
    if !lab
        .accepted(&reply, "ADD with a route of scope link, without gateway, beside an address that has one")
    {
        return Ok(());
    }
    let view = lab.view(&container)?;
    let route = view.routes.iter().find(|route| route.destination.to_string() == "10.252.0.0/16");
    lab.check(route.is_some_and(|route| route.gateway.is_none()), Some(&reply), || {
        let there = route.map_or_else(|| "nothing".to_owned(), |route| route_text(route, &view));
        format!("a route of scope link without gateway became {there}")
    });
    Ok(())
}

fn unreachable(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "10.250.0.0/16", "gw": "203.0.113.1" }]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes))?;
    let reply = lab.run(&call)?;
    if lab.refused(&reply, None, "ADD with a route whose gateway cannot be reached") {
        let message = reply.message();
        lab.check(message.contains("203.0.113.1"), Some(&reply), || {
            format!("the error does not name the gateway that cannot be reached: {message:?}")
        });
    }
    Ok(())
}

fn priority_zero(lab: &mut Lab) -> Outcome {
    const KERNEL: u32 = 1024;
    need_attributes(lab)?;
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "fd00:250::/32", "gw": "fd00:88:1::1", "priority": 0 }]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes))?;
    let attachment = attached(lab, &container, &call)?;
    let view = &attachment.world.inside;
    let route = view.routes.iter().find(|route| route.destination.to_string() == "fd00:250::/32");
    lab.check(route.is_some_and(|route| route.priority == Some(KERNEL)), Some(&attachment.reply), || {
        let there = route.map_or_else(|| "nothing".to_owned(), |route| route_text(route, view));
        format!("an IPv6 route of priority 0 became {there}")
    });
    Ok(())
}

fn of_the_interface(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            tell(lab, attachment, &[About::RouteLink]);
            Ok(())
        },
    )
}

fn families(lab: &mut Lab) -> Outcome {
    in_each_version(
        lab,
        |_| true,
        |lab, attachment| {
            let mut found = flaws(&attachment.result, &attachment.version);
            found.retain(|flaw| flaw.part == Part::Route && flaw.text.contains("family"));
            lab.check(found.is_empty(), Some(&attachment.reply), || joined(&found));
            Ok(())
        },
    )
}
