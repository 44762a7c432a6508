//! Answers of `nf_tables` and of conntrack: tables, chains, rules, elements, connections, refusals.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ferrule_core::fuzzing::nf_tables(input));
