//! The `portmap` plugin.

fn main() {}
