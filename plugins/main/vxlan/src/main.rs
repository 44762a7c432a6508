//! The `vxlan` plugin.

cni::main!(ferrule_vxlan::VxlanPlugin);
