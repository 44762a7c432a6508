//! Routes that ADD makes, and does not make.

use serde_json::json;

use crate::cases::attach::{addresses, attached, delegated, with_routes};
use crate::cases::truth::route_text;
use crate::kernel::Route;
use crate::lab::Lab;
use crate::verdict::Outcome;

/// Another network has given the container its default routes already.
pub(super) fn default_route_exists(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    lab.sh_in(
        &container,
        "ip link add cnfother type bridge && ip link set cnfother up && ip addr add 198.51.100.2/24 dev cnfother \
         && ip -6 addr add 2001:db8:5::2/64 dev cnfother nodad \
         && ip route add default via 198.51.100.1 && ip -6 route add default via 2001:db8:5::1",
    )?;
    let answer = with_routes(addresses(1), json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    let call = delegated(lab, &container, &answer)?;
    let reply = lab.run(&call)?;
    lab.accepted(&reply, "ADD with default routes, where another network's are installed");
    let view = lab.view(&container)?;
    for gateway in ["198.51.100.1", "2001:db8:5::1"] {
        let theirs = |route: &&Route| route.gateway.is_some_and(|ip| ip.to_string() == gateway);
        let defaults: Vec<&Route> =
            view.routes.iter().filter(|route| route.destination.prefix() == 0).collect();
        let Some(kept) = defaults.iter().copied().find(theirs) else {
            lab.violated(
                format!("ADD took away the other network's default route via {gateway}"),
                Some(&reply),
            );
            continue;
        };
        // Not skipped, and not refused: IPv4 takes the newer of the two from then on, IPv6 either of them, connection by connection.
        let joined = defaults.iter().find(|route| {
            !theirs(route) && route.priority == kept.priority && route.destination == kept.destination
        });
        if let Some(other) = joined {
            let (kept, other) = (route_text(kept, &view), route_text(other, &view));
            lab.inform(
                format!("there are two default routes of one metric now: {kept} and {other}"),
                Some(&reply),
            );
        }
    }
    Ok(())
}

/// IPv6 knows no metric 0: the kernel makes 1024 of it.
pub(super) fn metric_zero(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let routes = json!([{ "dst": "10.250.0.0/16" }, { "dst": "fd00:250::/32", "gw": "fd00:88:1::1" }]);
    let call = delegated(lab, &container, &with_routes(addresses(1), routes))?;
    let attachment = attached(lab, &container, &call)?;
    for (destination, metric) in [("10.250.0.0/16", 0), ("fd00:250::/32", 1024)] {
        let view = &attachment.world.inside;
        let route = view.routes.iter().find(|route| route.destination.to_string() == destination);
        let Some(route) = route else {
            lab.violated(format!("the route to {destination} is not there"), Some(&attachment.reply));
            continue;
        };
        lab.check(route.priority.unwrap_or(0) == metric, Some(&attachment.reply), || {
            format!("a route without priority has not metric {metric}: {}", route_text(route, view))
        });
    }
    Ok(())
}

/// A route that a plugin made on its own account is the plugin's to tell: it is in the result.
pub(super) fn gateway_is_no_route(lab: &mut Lab) -> Outcome {
    let container = lab.container("c1")?;
    let call = delegated(lab, &container, &addresses(1))?;
    let attachment = attached(lab, &container, &call)?;
    let view = &attachment.world.inside;
    let told: Vec<String> = attachment.result["routes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|route| Some(route["dst"].as_str()?.to_owned()))
        .collect();
    let routes: Vec<String> = view
        .routes
        .iter()
        .filter(|route| route.gateway.is_some() && !told.contains(&route.destination.to_string()))
        .map(|route| route_text(route, view))
        .collect();
    lab.check(routes.is_empty(), Some(&attachment.reply), || {
        format!(
            "address management gave gateways and no routes, and ADD made {}, which the result does not have",
            routes.join(" and ")
        )
    });
    Ok(())
}
