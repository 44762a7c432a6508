//! Results of other plugins: read in any version, written in every other, and read again.
#![no_main]

use cni::{AddResult, SpecVersion, json};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

/// Older than these the shape is another, and one address a family is all that it can say.
const ONE_ADDRESS: [SpecVersion; 2] = [SpecVersion::V0_1_0, SpecVersion::V0_2_0];

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((selector, text)) = input.split_first() else { return Corpus::Reject };
    let Ok(document) = json::parse(text) else { return Corpus::Reject };
    let assumed = SpecVersion::ALL[usize::from(*selector) % SpecVersion::ALL.len()];
    let Ok(result) = AddResult::read(&document, assumed) else { return Corpus::Keep };
    for version in SpecVersion::ALL.iter().copied() {
        let Ok(written) = result.write(version) else {
            assert!(ONE_ADDRESS.contains(&version) && result.ips.is_empty(), "{version} can say that");
            continue;
        };
        assert_eq!(written["cniVersion"], version.as_str());
        let again = read(&written);
        assert_eq!(again.write(version).as_ref(), Ok(&written), "written again in {version}");
        // By text, as it goes from process to process. serde_json reads a number that is no integer to within its last digit, not exactly.
        let text = serde_json::to_vec(&written).expect("JSON has a text");
        let read = json::parse(&text).expect("what was written is JSON");
        assert!(read == written || has_fractions(&written), "{read} for {written}");
        over_a_richer_version(&result, version, &written);
    }
    indexes_are_right(&result);
    Corpus::Keep
});

fn read(document: &Value) -> AddResult {
    AddResult::read(document, SpecVersion::NEWEST).expect("what was written can be read")
}

/// Through any newer version and back nothing is lost.
fn over_a_richer_version(result: &AddResult, version: SpecVersion, direct: &Value) {
    for richer in SpecVersion::ALL.iter().copied().filter(|richer| *richer >= version) {
        let Ok(through) = result.write(richer) else { continue };
        assert_eq!(read(&through).write(version).as_ref(), Ok(direct), "{version} through {richer}");
    }
}

fn indexes_are_right(result: &AddResult) {
    let earlier = result.clone();
    let both = result.clone().behind(earlier);
    assert_eq!(both.interfaces.len(), 2 * result.interfaces.len());
    let behind = &both.ips[result.ips.len()..];
    for (own, moved) in result.ips.iter().zip(behind) {
        assert_eq!(own.interface.map(|index| index + result.interfaces.len()), moved.interface);
    }
    for interface in &result.interfaces {
        assert!(result.ips_of(&interface.name).count() <= result.ips.len());
    }
}

fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fractions),
        Value::Object(object) => object.values().any(has_fractions),
        _ => false,
    }
}
