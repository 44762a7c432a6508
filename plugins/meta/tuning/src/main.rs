//! The `tuning` plugin.

fn main() {}
