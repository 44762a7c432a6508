//! A real firewalld, on a system bus of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::oracle::{have, nft_text, tool};
use crate::wait::eventually;

/// Where programs look for the system bus.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// A program that runs until this is dropped.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, arguments: &[&str], bus: &str) -> Self {
        let path = have(program).unwrap_or_else(|| panic!("{program} is not installed"));
        let child = Command::new(path)
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={bus}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|e| panic!("{program} cannot be started: {e}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A D-Bus daemon that lets everybody do everything. Needs the `/run` of a [`Host`](crate::Host).
#[derive(Debug)]
pub struct SystemBus(#[expect(dead_code, reason = "it runs as long as this is there")] Daemon);

impl SystemBus {
    /// Starts one that listens at a path.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(path: &str) -> Self {
        fs::create_dir_all("/run/dbus").expect("making /run/dbus");
        let configuration = format!(
            "<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>"
        );
        fs::write("/run/bus.conf", configuration).expect("writing /run/bus.conf");
        let daemon =
            Daemon::start("dbus-daemon", &["--config-file=/run/bus.conf", "--nofork", "--nopidfile"], path);
        eventually("the bus listens", || Path::new(path).exists().then_some(()));
        Self(daemon)
    }
}

/// firewalld with its default configuration, running, on a bus. Needs a [`Host`](crate::Host).
#[derive(Debug)]
pub struct RunningFirewalld {
    _firewalld: Daemon,
    _bus: SystemBus,
}

impl RunningFirewalld {
    /// Whether it can be started here.
    pub fn is_installed() -> bool {
        have("firewalld").is_some() && have("dbus-daemon").is_some() && Path::new("/etc/firewalld").is_dir()
    }

    /// Starts it on a bus of its own at a path, with lines of `firewalld.conf`, and waits until its rules are there.
    ///
    /// # Panics
    /// If they don't come.
    pub fn start(bus: &str, configuration: &str) -> Self {
        // It keeps a log and its configuration there.
        for directory in ["/var/log", "/etc/firewalld"] {
            tool("mount", &["-t", "tmpfs", "none", directory]);
        }
        fs::write("/etc/firewalld/firewalld.conf", configuration).expect("configuring firewalld");
        let system_bus = SystemBus::start(bus);
        let firewalld = Daemon::start("firewalld", &["--nofork", "--nopid"], bus);
        // The name comes before the ruleset.
        eventually("firewalld makes its rules", || nft_text().contains("FORWARD").then_some(()));
        Self { _firewalld: firewalld, _bus: system_bus }
    }
}
