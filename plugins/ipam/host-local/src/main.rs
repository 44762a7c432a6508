//! The `host-local` plugin.

fn main() {}
