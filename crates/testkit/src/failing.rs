//! Plugins of which a system call fails, by strace(1).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::oracle::have;
use crate::plugin::{Plugin, plugin_dir};

/// A plugin that runs under strace with options such as `-e inject=flock:error=ENOLCK`. Needs the `/run` of a [`Host`](crate::Host), and
/// that this process [may trace](crate::may_trace).
///
/// # Panics
/// If strace is not installed.
pub fn failing(name: &str, options: &[&str]) -> Plugin {
    let strace = have("strace").expect("strace is not installed: run tools/install-deps");
    let program = format!("/run/failing/{name}");
    let script = format!(
        "#!/bin/sh\nexec {} -f -qq -o /dev/null {} {}\n",
        strace.display(),
        options.join(" "),
        plugin_dir().join(name).display()
    );
    fs::create_dir_all("/run/failing").expect("making /run/failing");
    fs::write(&program, script).expect("writing a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("making a script executable");
    Plugin::at(program)
}
