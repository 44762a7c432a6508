//! Processes that a case needs beside the plugin: one that lives in a container, one that holds a lock.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::{Container, Lab, Step, quote};
use crate::verdict::Outcome;

/// The processes that were started on purpose, so that they are not taken for what a plugin left running.
static KEPT: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// What the journal says of a process that was started, before its number.
pub const STARTED: &str = "running, process ";

/// A process that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Background(Child);

impl Background {
    /// Starts `sh -c script`, which should `exec` what it runs.
    pub(super) fn start(script: &str) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Held over the start, so that nobody looks at the children in between.
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        kept.push(child.id());
        Ok(Self(child))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).retain(|pid| *pid != self.0.id());
    }
}

impl Lab {
    /// Starts a line of shell on the fake host that goes on running beside the case, to its end at most. Returns its process id; the line
    /// should be `exec …`, so that the id is that of the program.
    pub fn start(&mut self, script: &str) -> Outcome<u32> {
        let process = Background::start(script)?;
        let pid = process.pid();
        self.background.push(process);
        self.journal.push(Step {
            shell: format!("sh -c {} &", quote(script)),
            outcome: format!("{STARTED}{pid}"),
            stdout: String::new(),
            stderr: String::new(),
            together: false,
        });
        Ok(pid)
    }

    /// [`Lab::start`] in a container's network namespace. The process is in there when this returns.
    pub fn start_in(&mut self, container: &Container, command: &str) -> Outcome<u32> {
        let pid = self.start(&format!("exec ip netns exec {} {command}", container.name))?;
        self.sh(&format!(
            "for i in $(seq 200); do [ /proc/{pid}/ns/net -ef {} ] && exit; sleep 0.01; done; exit 1",
            container.netns
        ))?;
        Ok(pid)
    }

    /// Ends what [`Lab::start`] and [`Lab::start_in`] started.
    pub fn stop(&mut self) {
        for process in self.background.drain(..) {
            self.journal.push(Step {
                shell: format!("kill {}", process.pid()),
                outcome: String::new(),
                stdout: String::new(),
                stderr: String::new(),
                together: false,
            });
        }
    }
}

/// Whether a child was started on purpose.
pub(super) fn is_kept(pid: u32) -> bool {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}
