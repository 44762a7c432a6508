//! The `host-local` plugin.

cni::main!(ferrule_host_local::HostLocal);
