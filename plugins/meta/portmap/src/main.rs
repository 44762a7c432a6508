//! The `portmap` plugin.

cni::main!(ferrule_portmap::Portmap);
