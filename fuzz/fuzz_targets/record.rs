//! The record of an attachment, whole or damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ferrule_core::fuzzing::record(input));
