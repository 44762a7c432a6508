//! Whole chains, run as runtimes run them: the double of [`crate::lab::runtime`] with the habits of each.
//!
//! An interface plugin is the first of a chain with the usual plugins behind it; one of those has the usual interface plugin before it. Which
//! of them take part depends on what is in the directory.

use serde_json::{Value, json};

use super::truth::{About, falsehoods, joined};
use super::{CALLED, Case, attach};
use crate::kernel::{Difference, Snapshot};
use crate::lab::runtime::{Attachment, CONTAINERD, CRIO, Chain, LIBCNI, List, Runtime};
use crate::lab::{Act, Lab, Script, world};
use crate::profile::{self, Kind, Profile, merge};
use crate::verdict::{Outcome, Stop};

/// The cases.
pub(super) const CASES: &[Case] = &[
    chain("CHN-11", "runtime-libcni", whole_life),
    chain("ENV-05", "runtime-gc-and-status", gc_and_status),
    chain("GC-09", "runtime-gc-of-nobody", gc_of_nobody),
    chain("GC-11", "runtime-gc-at-start", gc_at_start),
    chain("CHK-07", "runtime-crio", check_after_each_add),
    chain("ARG-03", "runtime-kubernetes-arguments", kubernetes_arguments),
    chain("CAP-06", "runtime-containerd-ports", go_names),
    chain("CAP-07", "runtime-containerd-extras", extras),
    chain("CON-02", "runtime-containerd", parallel_networks),
    chain("DEL-06", "runtime-kubelet", del_without_add),
    chain("ADD-10", "runtime-kubelet", failed_in_the_middle),
    chain("DEL-14", "runtime-stops-at-the-first-error", all_del_succeed),
];

const fn chain(item: &'static str, name: &'static str, run: fn(&mut Lab) -> Outcome) -> Case {
    Case::new(item, name, CALLED, run)
}

/// What distributions put behind an interface plugin in their default network, in that order.
const USUAL: &[&str] = &["portmap", "firewall", "tuning"];

/// The profiles of the chain in which the plugin under test is tried.
fn members(lab: &Lab) -> Outcome<Vec<Profile>> {
    let shipped = profile::shipped().map_err(Stop::Broken)?;
    let installed = |name: &str| {
        shipped.iter().find(|profile| profile.plugin == name && world::plugins().join(name).exists()).cloned()
    };
    Ok(match lab.profile.kind {
        Kind::Interface => {
            let rest = USUAL.iter().filter_map(|name| installed(name));
            std::iter::once(lab.profile.clone()).chain(rest).collect()
        }
        Kind::Meta => {
            let first = installed("bridge").ok_or_else(|| {
                Stop::Skip("needs a plugin that makes an interface (bridge) in the same directory".to_owned())
            })?;
            vec![first, lab.profile.clone()]
        }
        Kind::Loopback | Kind::Ipam => vec![lab.profile.clone()],
    })
}

/// The chain as a network configuration list, in the newest version that all of it supports. What its profiles exempt, the lab exempts too.
fn list(lab: &mut Lab, runtime: &Runtime, name: &str) -> Outcome<List> {
    let members = members(lab)?;
    let types: Vec<&str> = members.iter().map(|profile| profile.plugin.as_str()).collect();
    let version = runtime
        .common_version(lab, &types)?
        .ok_or_else(|| Stop::Skip(format!("{} have no version in common", types.join(", "))))?;
    version.clone_into(&mut lab.version);
    let mut list = List::of(name, &version, &members.iter().collect::<Vec<_>>());
    for plugin in &mut list.plugins {
        // One hardware address for all containers would be a mistake in any network.
        if plugin["type"] == "tuning" {
            merge(plugin, &json!({ "mac": "<remove>" }));
        }
    }
    for profile in members.into_iter().filter(|profile| profile.plugin != lab.profile.plugin) {
        lab.profile.remains.extend(profile.remains);
        lab.profile.shared.extend(profile.shared);
    }
    Ok(list)
}

/// What has changed on the host since `before`. What happens inside a container that is about to go is not a chain's concern.
fn on_the_host(lab: &Lab, before: &Snapshot) -> Outcome<Difference> {
    lab.lasting_changes(before, |mut difference| {
        difference.lines.retain(|(key, _)| key.starts_with("host/") || key.starts_with("file/"));
        difference
    })
}

/// A chain that must come to its end; its result.
fn done(lab: &mut Lab, chain: Chain, what: &str) -> Option<Value> {
    match chain {
        Chain::Done(result) => Some(result),
        Chain::Failed { plugin, why, reply } => {
            lab.violated(format!("{what}: {plugin} failed: {why}"), Some(&reply));
            None
        }
    }
}

/// The case ends here if a chain failed: that is what the finding says.
fn added(lab: &mut Lab, runtime: &mut Runtime, attachment: &Attachment) -> Outcome<Option<Value>> {
    let chain = runtime.add(lab, attachment)?;
    let what = format!("{}: ADD of the chain for {}", runtime.habits.name, attachment.container.id);
    Ok(done(lab, chain, &what))
}

/// One life as a plain libcni has it: every plugin sees the final result in CHECK and DEL, not its own.
fn whole_life(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(LIBCNI);
    let list = list(lab, &runtime, "cnfnet")?;
    let one = Attachment::new(&list, &lab.container("c1")?);
    let before = lab.snapshot()?;
    let chain = runtime.status(lab, &list)?;
    done(lab, chain, "STATUS of the chain");
    let Some(result) = added(lab, &mut runtime, &one)? else { return Ok(()) };
    if lab.profile.kind != Kind::Loopback {
        let mut wrong = falsehoods(lab, &one.container, &result)?;
        wrong.retain(|falsehood| matches!(falsehood.about, About::Interface | About::Address | About::Route));
        lab.check(wrong.is_empty(), None, || format!("the final result is not so: {}", joined(&wrong)));
    }
    if list.since("0.4.0") {
        let chain = runtime.check(lab, &one)?;
        done(lab, chain, "CHECK of the chain with its final result");
    }
    let chain = runtime.del(lab, &one)?;
    done(lab, chain, "DEL of the chain with its final result");
    let left = on_the_host(lab, &before)?;
    lab.check(left.is_empty(), None, || format!("a whole life of a chain left something: {left}"));
    Ok(())
}

/// GC and STATUS come with all six variables, of which the unneeded ones are empty, and with nothing of an attachment.
fn gc_and_status(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let mut runtime = Runtime::new(LIBCNI);
    let list = list(lab, &runtime, "cnfnet")?;
    if !list.since("1.1.0") {
        return Err(Stop::Skip("the chain has no version in common that has GC and STATUS".to_owned()));
    }
    let one = Attachment::new(&list, &lab.container("c1")?);
    if added(lab, &mut runtime, &one)?.is_none() {
        return Ok(());
    }
    let chain = runtime.status(lab, &list)?;
    done(lab, chain, "STATUS with empty variables");
    for failed in runtime.gc(lab, &list, std::slice::from_ref(&one), &[&one])? {
        done(lab, failed, "GC with empty variables");
    }
    if list.since("0.4.0") {
        let chain = runtime.check(lab, &one)?;
        done(lab, chain, "CHECK of what GC was told to keep");
    }
    Ok(())
}

/// The runtime lost its memory and its containers: a list that is `null`, and all of it must go.
fn gc_of_nobody(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let mut runtime = Runtime::new(LIBCNI);
    let list = list(lab, &runtime, "cnfnet")?;
    if !list.since("1.1.0") {
        return Err(Stop::Skip("the chain has no version in common that has GC".to_owned()));
    }
    let before = lab.snapshot()?;
    let containers = [lab.container("c1")?, lab.container("c2")?];
    for container in &containers {
        if added(lab, &mut runtime, &Attachment::new(&list, container))?.is_none() {
            return Ok(());
        }
    }
    for container in &containers {
        lab.destroy(container)?;
    }
    for failed in Runtime::new(LIBCNI).gc(lab, &list, &[], &[])? {
        done(lab, failed, "GC with `null` for the list of valid attachments");
    }
    let left = on_the_host(lab, &before)?;
    lab.check(left.is_empty(), None, || {
        format!("two containers are gone, GC was told that nobody is valid, and there is left: {left}")
    });
    Ok(())
}

/// CRI-O starts again: every pod that it restored is valid, and nothing may change.
fn gc_at_start(lab: &mut Lab) -> Outcome {
    lab.need_verb("GC")?;
    let mut runtime = Runtime::new(CRIO);
    let list = list(lab, &runtime, "cnfnet")?;
    if !list.since("1.1.0") {
        return Err(Stop::Skip("the chain has no version in common that has GC".to_owned()));
    }
    let pods = [lab.container("c1")?, lab.container("c2")?].map(|pod| Attachment::new(&list, &pod));
    for pod in &pods {
        if added(lab, &mut runtime, pod)?.is_none() {
            return Ok(());
        }
    }
    let before = lab.snapshot()?;
    for failed in runtime.gc(lab, &list, &pods, &pods.iter().collect::<Vec<_>>())? {
        done(lab, failed, "GC at start, with every pod valid");
    }
    let changes = lab.changes(&before)?;
    lab.check(changes.is_empty(), None, || {
        format!("GC at start, with every pod valid, changed something: {changes}")
    });
    for pod in &pods {
        let chain = runtime.check(lab, pod)?;
        done(lab, chain, "CHECK after GC at start");
    }
    Ok(())
}

/// CRI-O asks for the address of a pod right after its ADD, by CHECK. Three pods, one after the other.
fn check_after_each_add(lab: &mut Lab) -> Outcome {
    lab.need_verb("CHECK")?;
    let mut runtime = Runtime::new(CRIO);
    let list = list(lab, &runtime, "cnfnet")?;
    let before = lab.snapshot()?;
    let mut pods = Vec::new();
    for name in ["c1", "c2", "c3"] {
        let pod = Attachment::new(&list, &lab.container(name)?);
        if added(lab, &mut runtime, &pod)?.is_some() {
            pods.push(pod);
        }
    }
    // The later ones must not have disturbed the earlier.
    for pod in &pods {
        let chain = runtime.check(lab, pod)?;
        done(lab, chain, "CHECK of a pod after others came");
    }
    for pod in &pods {
        let chain = runtime.del(lab, pod)?;
        done(lab, chain, "DEL of a pod");
        lab.destroy(&pod.container)?;
    }
    let left = on_the_host(lab, &before)?;
    lab.check(left.is_empty(), None, || format!("three pods came and went, and there is left: {left}"));
    Ok(())
}

/// The arguments of Kubernetes reach every plugin of the chain, also those that read none.
fn kubernetes_arguments(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(CRIO);
    runtime.habits.check_after_add = false;
    let list = list(lab, &runtime, "cnfnet")?;
    let pod = Attachment::new(&list, &lab.container("c1")?);
    if added(lab, &mut runtime, &pod)?.is_some() {
        let chain = runtime.del(lab, &pod)?;
        done(lab, chain, "DEL with the arguments of Kubernetes");
    }
    Ok(())
}

/// One mapping of a port, as the conventions have it.
fn ports() -> Value {
    json!([{ "hostPort": 18080, "containerPort": 8080, "protocol": "tcp", "hostIP": "" }])
}

/// What an attachment with these ports adds to the firewall of a fresh host, as the number of its lines: what they say differs by address.
fn firewall_lines(
    lab: &mut Lab,
    runtime: &mut Runtime,
    list: &List,
    name: &str,
    ports: Option<Value>,
) -> Outcome<Option<usize>> {
    let container = lab.container(name)?;
    let mut one = Attachment::new(list, &container);
    if let Some(ports) = ports {
        one = one.with("portMappings", ports);
    }
    let before = lab.snapshot()?;
    if added(lab, runtime, &one)?.is_none() {
        return Ok(None);
    }
    let firewall = |changes: Difference| {
        changes.lines.iter().filter(|(key, _)| key.contains("/nft/") || key.contains("tables-legacy")).count()
    };
    let number = firewall(lab.all_changes(&before)?);
    let chain = runtime.del(lab, &one)?;
    done(lab, chain, "DEL of a container with a published port");
    Ok(Some(number))
}

/// A port is published with the conventions' names, and then with those of Go: the same must come of it.
fn go_names(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(LIBCNI);
    let list = list(lab, &runtime, "cnfnet")?;
    if !list.plugins.iter().any(|plugin| plugin["capabilities"]["portMappings"] == true) {
        return Err(Stop::Skip("no plugin of the chain publishes ports".to_owned()));
    }
    let warm = firewall_lines(lab, &mut runtime, &list, "c0", Some(ports()))?;
    let none = firewall_lines(lab, &mut runtime, &list, "c1", None)?;
    let conventions = firewall_lines(lab, &mut runtime, &list, "c2", Some(ports()))?;
    let mut containerd = Runtime::new(CONTAINERD);
    let go = firewall_lines(lab, &mut containerd, &list, "c3", Some(ports()))?;
    let (Some(_), Some(none), Some(conventions), Some(go)) = (warm, none, conventions, go) else {
        return Ok(());
    };
    lab.check(conventions > none, None, || {
        format!("a published port adds {conventions} lines to the firewall, and no port {none}")
    });
    lab.check(go == conventions, None, || {
        format!(
            "a port published with the keys of containerd (HostPort, ContainerPort) adds {go} lines to the firewall, with those of the conventions {conventions}"
        )
    });
    Ok(())
}

/// What containerd passes besides, if it is declared: annotations, a cgroup, port 0 dropped and therefore an empty list, name service.
fn extras(lab: &mut Lab) -> Outcome {
    const DECLARED: &[&str] =
        &["portMappings", "bandwidth", "dns", "cgroupPath", "io.kubernetes.cri.pod-annotations"];
    let mut runtime = Runtime::new(CONTAINERD);
    let mut list = list(lab, &runtime, "cnfnet")?;
    for plugin in &mut list.plugins {
        for key in DECLARED {
            // A plugin that shapes traffic would do so.
            if *key != "bandwidth" || plugin["type"] != "bandwidth" {
                plugin["capabilities"][*key] = json!(true);
            }
        }
    }
    let one = Attachment::new(&list, &lab.container("c1")?)
        .with("portMappings", json!([]))
        .with(
            "bandwidth",
            json!({ "ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 0, "egressBurst": 0 }),
        )
        .with(
            "dns",
            json!({ "servers": ["192.0.2.53"], "searches": ["example.org"], "options": ["ndots:5"] }),
        )
        .with("cgroupPath", json!("/kubepods/pod1"))
        .with("io.kubernetes.cri.pod-annotations", json!({ "example.org/a": "b", "c": "" }));
    if added(lab, &mut runtime, &one)?.is_some() {
        let chain = runtime.del(lab, &one)?;
        done(lab, chain, "DEL with what containerd passes besides");
    }
    Ok(())
}

/// containerd attaches all networks of a container at once: `lo` by a list of version 0.3.1, and two networks more.
fn parallel_networks(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(CONTAINERD);
    let first = list(lab, &runtime, "cnfnet")?;
    let pod = lab.container("c1")?;
    let mut networks = vec![Attachment::new(&first, &pod)];
    if lab.profile.kind == Kind::Interface && lab.profile.facts.contains_key("other_network") {
        let mut second = first.clone();
        "cnfother".clone_into(&mut second.name);
        let patch = lab.profile.facts.get("other_network").cloned().unwrap_or(Value::Null);
        if let Some(plugin) = second.plugins.first_mut() {
            merge(plugin, &patch);
            // There is one default route in a container.
            merge(plugin, &json!({ "ipam": { "routes": [] } }));
        }
        networks.push(Attachment::new(&second, &pod.interface("eth1")));
    }
    if world::plugins().join("loopback").exists() && lab.profile.kind != Kind::Loopback {
        let lo = List {
            name: "cni-loopback".to_owned(),
            version: "0.3.1".to_owned(),
            plugins: vec![json!({ "type": "loopback" })],
        };
        networks.push(Attachment::new(&lo, &pod.interface("lo")));
    }
    let before = lab.snapshot()?;
    let chains = runtime.attach(lab, &networks)?;
    let mut whole = true;
    for (chain, network) in chains.into_iter().zip(&networks) {
        let what =
            format!("containerd: network {}, beside the others of the same container", network.list.name);
        whole &= done(lab, chain, &what).is_some();
    }
    if whole && attach::since(&lab.version, "0.4.0") {
        let chain = runtime.check(lab, &networks[0])?;
        done(lab, chain, "CHECK of a network that was attached beside others");
    }
    // go-cni detaches one after the other, in the same order.
    for network in &networks {
        let chain = runtime.del(lab, network)?;
        done(lab, chain, "DEL of a network that was attached beside others");
    }
    let left = on_the_host(lab, &before)?;
    lab.check(left.is_empty(), None, || {
        format!("networks that were attached side by side left something: {left}")
    });
    Ok(())
}

/// kubelet stops a sandbox that never got a network, and stops it again.
fn del_without_add(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(CONTAINERD);
    let list = list(lab, &runtime, "cnfnet")?;
    let pod = lab.container("c1")?;
    let one = Attachment::new(&list, &pod);
    let before = lab.snapshot()?;
    for time in ["first", "second"] {
        let chain = runtime.del(lab, &one)?;
        done(lab, chain, &format!("the {time} DEL of a sandbox that never had an ADD"));
    }
    lab.destroy(&pod)?;
    let chain = runtime.del(lab, &one)?;
    done(lab, chain, "DEL of a sandbox that never had an ADD, and whose namespace is gone");
    let left = on_the_host(lab, &before)?;
    let left =
        Difference { lines: left.lines.into_iter().filter(|(key, _)| !key.starts_with("c1/")).collect() };
    lab.check(left.is_empty(), None, || format!("DELs without any ADD changed something: {left}"));
    Ok(())
}

/// The last plugin of the chain fails. Nobody undoes the others but the DEL of kubelet, twice; then it tries again with a new sandbox.
fn failed_in_the_middle(lab: &mut Lab) -> Outcome {
    const LAST: &str = "cnf-last";
    let mut runtime = Runtime::new(CONTAINERD);
    let good = list(lab, &runtime, "cnfnet")?;
    let mut bad = good.clone();
    bad.plugins.push(json!({ "type": LAST }));
    let script: Script = [("ADD".to_owned(), Act::error(123, "cnf: not today"))].into();
    lab.stub(LAST, &script)?;
    let before = lab.snapshot()?;
    let sandbox = lab.container("c1")?;
    let one = Attachment::new(&bad, &sandbox);
    match runtime.add(lab, &one)? {
        Chain::Failed { plugin, .. } if plugin == LAST => {}
        other => {
            if let Chain::Failed { plugin, why, .. } = other {
                return Err(Stop::Skip(format!(
                    "needs a chain that works up to its end (see ADD-02): {plugin}: {why}"
                )));
            }
            return Err(Stop::Broken("the stub was to fail".to_owned()));
        }
    }
    for time in ["first", "second"] {
        let chain = runtime.del(lab, &one)?;
        done(lab, chain, &format!("the {time} DEL after an ADD that a later plugin failed"));
    }
    lab.destroy(&sandbox)?;
    let left = on_the_host(lab, &before)?;
    lab.check(left.is_empty(), None, || {
        format!("after an ADD that a later plugin failed, and its DELs, there is left: {left}")
    });
    let again = Attachment::new(&good, &lab.container("c2")?);
    if added(lab, &mut runtime, &again)?.is_some() {
        let chain = runtime.del(lab, &again)?;
        done(lab, chain, "DEL of the sandbox that worked");
    }
    Ok(())
}

/// libcni gives up a chain's DEL at the first error. So when everything is gone that can be gone, all must succeed all the same.
fn all_del_succeed(lab: &mut Lab) -> Outcome {
    let mut runtime = Runtime::new(LIBCNI);
    let list = list(lab, &runtime, "cnfnet")?;
    let before = lab.snapshot()?;
    let pod = lab.container("c1")?;
    let one = Attachment::new(&list, &pod);
    if added(lab, &mut runtime, &one)?.is_none() {
        return Ok(());
    }
    lab.destroy(&pod)?;
    lab.flush_firewall()?;
    let chain = runtime.del(lab, &one)?;
    done(lab, chain, "DEL of a chain whose container and firewall rules are gone");
    let left = lab.lasting_changes(&before, Difference::added)?;
    lab.check(left.is_empty(), None, || {
        format!("DEL of a chain whose container and firewall rules are gone left: {left}")
    });
    Ok(())
}
