//! The `firewall` plugin.

cni::main!(ferrule_firewall::FirewallPlugin);
