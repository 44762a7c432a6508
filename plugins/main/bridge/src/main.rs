//! The `bridge` plugin.

cni::main!(ferrule_bridge::BridgePlugin);
