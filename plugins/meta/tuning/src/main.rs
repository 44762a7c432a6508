//! The `tuning` plugin.

cni::main!(ferrule_tuning::Tuning);
