//! The `loopback` plugin.

cni::main!(ferrule_loopback::Loopback);
