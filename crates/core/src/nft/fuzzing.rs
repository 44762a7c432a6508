//! Answers of netfilter as a fuzz target sees them.

use super::element::{Element, RawElement, assemble};
use super::read::{read_chain, read_elements, read_rule, read_table};
use super::{DataType, Set, abi};
use crate::conntrack;
use crate::nfnetlink::{Answer, Attributes, Kind, Message, Received, messages, parse};

/// One of every kind that is used: single values, intervals over them, concatenations, verdicts.
const SETS: [Set; 6] = [
    Set::new("names", &[DataType::IfName, DataType::EtherAddr]),
    Set::new("addresses", &[DataType::Ipv4Addr]).interval(),
    Set::new("addresses6", &[DataType::Ipv6Addr]).interval(),
    Set::verdict_map("verdicts", &[DataType::Ipv6Addr]),
    Set::map(
        "ports",
        &[DataType::InetProto, DataType::InetService],
        &[DataType::Ipv4Addr, DataType::InetService],
    ),
    Set::new("pairs", &[DataType::Ipv4Addr, DataType::InetService]).interval(),
];

/// Reads a datagram as every list does; an element that is understood means the same when it is sent back.
pub fn nf_tables(bytes: &[u8]) {
    let mut request = Message::new(Kind { subsystem: 10, message: 6 }, 0, 1);
    request.attributes.string(1, "table").string(2, "chain").be32(3, 7);
    messages(bytes, |received| match received {
        Received::Data(answer) => answered(answer),
        Received::Refused(refusal) => {
            if let Some(detail) = refusal.detail(&request) {
                assert!(!detail.contains('\0'), "{detail:?}");
            }
        }
        Received::Done => {}
    });
    // Without the detour over headers, so that the readers behind them are reached soon.
    if let Some((family, attributes)) = bytes.split_first() {
        answered(Answer { family: *family, attributes });
    }
}

fn answered(answer: Answer<'_>) {
    conntrack::fuzzing(answer.attributes);
    if let Some(found) = read_table(answer) {
        assert!(!found.table.to_string().contains('\0'));
    }
    if let Some(found) = read_chain(answer) {
        assert!(!found.name.contains('\0'));
    }
    if let Some(found) = read_rule(answer) {
        assert!(found.expressions.len() <= answer.attributes.len());
    }
    for set in &SETS {
        let found = read_elements(set, answer).unwrap_or_default();
        for element in assemble(set, found) {
            comes_back(set, &element);
        }
    }
}

fn comes_back(set: &Set, element: &Element) {
    let mut encoded = Attributes::new();
    // A comment with quotes, say: nothing that could have been written here.
    if element.encode(set, false, &mut encoded).is_err() || !encoded.is_encodable() {
        return;
    }
    let raw = parse(encoded.as_bytes()).filter_map(|(kind, element)| {
        assert_eq!(kind, abi::list::ELEM);
        RawElement::decode(set, element)
    });
    assert_eq!(assemble(set, raw.collect()), std::slice::from_ref(element), "in {}", set.name());
}
