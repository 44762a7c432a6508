//! Answers of rtnetlink: links, addresses, routes, neighbours, nexthops, refusals.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ferrule_core::fuzzing::rtnetlink(input));
