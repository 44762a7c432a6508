//! The `loopback` plugin.

fn main() {}
