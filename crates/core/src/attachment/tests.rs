use super::*;
use crate::resource::VethPair;

fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

crate::resources! {
    enum Resource { VethPair, Lease }
}

const HEADER: &str =
    r#"{"format":1,"owner":{"network":"n","containerId":"c","ifname":"eth0"},"plugin":"bridge"}"#;
const LEASE: &str = r#"{"resource":"lease","kind":"host-local"}"#;

#[test]
fn what_is_shared_is_removed_in_the_reverse_of_the_order_it_is_made_in() {
    crate::resources! {
        enum Shared { Bridge, VethPair, Forwarding, Gateway }
    }
    let names: Vec<_> = Shared::registers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gateway", "forwarding", "bridge"]);
}

#[test]
fn what_is_written_is_read() {
    let pair = VethPair { host: name("veth0"), container: name("eth0"), mtu: Some(1400), mac: None };
    let resources: [Resource; 2] = [Lease { kind: "host-local".to_owned() }.into(), pair.into()];
    let mut bytes = format!("{HEADER}\n").into_bytes();
    for resource in &resources {
        bytes.extend(line(resource).unwrap());
    }
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(LEASE) && text.contains(r#"{"resource":"veth-pair","host":"veth0","#), "{text}");
    assert_eq!(Record::<Resource>::parse(&bytes).unwrap().resources, resources);
}

#[test]
fn a_kind_that_a_plugin_does_not_make_counts_as_damage() {
    let text = format!("{HEADER}\n{{\"resource\":\"forwarding\",\"ipv4\":true}}\n{LEASE}\n");
    let record = Record::<Resource>::parse(text.as_bytes()).unwrap();
    assert_eq!((record.resources.len(), record.damaged), (1, true));
}

#[test]
fn a_record_cut_short_keeps_its_whole_lines() {
    let text = format!("{HEADER}\n{LEASE}\n{}", &LEASE[..20]);
    let record = Record::<Resource>::parse(text.as_bytes()).unwrap();
    assert_eq!(record.resources, [Resource::Lease(Lease { kind: "host-local".to_owned() })]);
    assert!(record.damaged, "what the half line names may have been made");
    let whole = Record::<Resource>::parse(format!("{HEADER}\n{LEASE}\n").as_bytes()).unwrap();
    assert_eq!((whole.resources.len(), whole.damaged), (1, false));
}

#[test]
fn a_line_that_is_damaged_does_not_hide_those_after_it() {
    let text = format!("{HEADER}\n{{\"resource\":\"teleport\"}}\n{LEASE}\n");
    let record = Record::<Resource>::parse(text.as_bytes()).unwrap();
    assert_eq!((record.resources.len(), record.damaged), (1, true));
}

#[test]
fn a_record_without_a_whole_header_is_none() {
    assert!(Record::<Resource>::parse(b"").is_none());
    assert!(
        Record::<Resource>::parse(HEADER.as_bytes()).is_none(),
        "the line end is missing, so the line may be incomplete"
    );
    assert!(Record::<Resource>::parse(b"garbage\n").is_none());
}

#[test]
fn a_record_of_a_later_format_is_not_guessed_at() {
    let text = format!("{}\n{LEASE}\n", HEADER.replace("\"format\":1", "\"format\":2"));
    assert!(Record::<Resource>::parse(text.as_bytes()).is_none());
}
