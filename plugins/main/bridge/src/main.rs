//! The `bridge` plugin.

fn main() {}
