//! A network configuration as every plugin reads it. The input is the configuration, and behind a NUL byte `CNI_ARGS`.
#![no_main]

use cni::{
    Code, Config, Environment, Failure, LinkName, NetworkName, Request, SpecVersion, ValidAttachments,
};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let (bytes, args) = match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    let Ok(args) = std::str::from_utf8(args) else { return Corpus::Reject };
    let config = match Config::read(bytes.to_vec(), SpecVersion::ALL) {
        Ok(config) => config,
        Err(failure) => {
            explained(&failure);
            return Corpus::Keep;
        }
    };
    is_a_file_name(config.name().as_str());
    assert_eq!(NetworkName::new(config.name().as_str()).as_ref(), Ok(config.name()));
    let pairs = [("CNI_PATH", "/nonexistent"), ("CNI_ARGS", args)];
    let request = Request::new(config, Environment::from_pairs(pairs));
    what_all_plugins_read(&request);
    what_each_plugin_reads(&request);
    Corpus::Keep
});

fn what_all_plugins_read(request: &Request) {
    let config = request.config();
    if let Some(kind) = checked(config.ipam_type()).flatten() {
        let failure = request.delegate(&kind).expect_err("there is no plugin in /nonexistent");
        explained(&failure);
        let is_name = !kind.contains(['/', '\0']) && kind != "." && kind != "..";
        let refused = failure.code() == Code::InvalidConfig;
        assert!(is_name || refused, "{kind:?} would be looked for: {}", failure.message());
    }
    if let Some(Some(valid)) = checked(ValidAttachments::read(config)) {
        assert!(valid.iter().all(|(container, ifname)| !container.is_empty() && !ifname.is_empty()));
        assert!(valid.iter().all(|(container, ifname)| valid.contains(container, ifname)));
    }
    checked(config.prev_result());
    // What a plugin gives to its delegates is the same configuration with one key changed.
    let changed = request.with_key("dns", serde_json::json!({}));
    let again = Config::read(changed.config().bytes().to_vec(), SpecVersion::ALL).expect("it was one before");
    assert_eq!(
        (again.name(), again.version(), again.kind()),
        (config.name(), config.version(), config.kind())
    );
}

fn what_each_plugin_reads(request: &Request) {
    let config = request.config();
    if let Some(bridge) = checked(ferrule_bridge::config::Config::load(request)) {
        is_a_link_name(&bridge.bridge);
        assert!(bridge.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
    }
    if let Some(portmap) = checked(ferrule_portmap::config::Config::load(config)) {
        assert!(portmap.mappings.iter().all(|mapping| mapping.host_port != 0 && mapping.container_port != 0));
        is_one_word(portmap.external_mark_chain.as_deref().unwrap_or_default());
    }
    if let Some(firewall) = checked(ferrule_firewall::config::Config::load(config)) {
        is_one_word(&firewall.admin_chain);
    }
    let ifname = LinkName::new("eth0").expect("a name");
    if let Some(tuning) = checked(ferrule_tuning::config::Config::load(request, &ifname)) {
        for sysctl in &tuning.sysctls {
            let key = sysctl.key.to_string();
            let good = key.starts_with("net/")
                && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            assert!(good, "{:?} leads to {key:?}", sysctl.name);
            assert!(ferrule_core::sysctl::Key::new(&key).is_ok(), "{key:?} is refused when it is too late");
        }
    }
    checked(ferrule_vxlan::config::Config::load(request));
    checked(ferrule_host_local::fuzzing::configuration(request));
}

fn checked<T>(outcome: Result<T, Failure>) -> Option<T> {
    outcome.inspect_err(explained).ok()
}

/// What a runtime can act on, and shows on one line.
fn explained(failure: &Failure) {
    let document = failure.document(SpecVersion::NEWEST);
    let message = document["msg"].as_str().expect("a message");
    assert!(document["code"] != 0 && !message.is_empty());
    assert!(!message.contains(|c: char| c.is_control()), "it would spread in a log: {message:?}");
    assert!(message.chars().count() < 1010, "{} characters: {message}", message.chars().count());
}

fn is_a_file_name(name: &str) {
    assert!(!name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']), "{name:?}");
}

fn is_a_link_name(name: &LinkName) {
    let name = name.as_str();
    let good = name.len() <= 15 && name != "." && name != ".." && !name.contains(['/', '\0', '%']);
    assert!(good && !name.is_empty(), "{name:?}");
}

/// What is written into a line for `iptables-restore` stays one word of it.
fn is_one_word(name: &str) {
    assert!(
        !name.starts_with('-') && !name.contains(|c: char| c.is_whitespace() || c.is_control()),
        "{name:?}"
    );
}
