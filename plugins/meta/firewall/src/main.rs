//! The `firewall` plugin.

fn main() {}
