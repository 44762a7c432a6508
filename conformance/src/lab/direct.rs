//! What `ip netns add`, `ip link set lo up` and `sh -c` do, without a program for each of the thousands of times.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::rtnetlink::Rtnetlink;

/// Makes a network namespace that `path` keeps alive, as `ip netns add` does.
pub(super) fn add(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    // A thread goes into the new namespace and ends there: the others stay where they are.
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    made.map_err(io::Error::from)
}

/// Takes away what [`add`] has made, as `ip netns del` does.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    umount2(path, MntFlags::MNT_DETACH)?;
    std::fs::remove_file(path)
}

/// Brings up `lo` in the calling thread's network namespace.
pub(super) fn raise_loopback() -> io::Result<()> {
    Rtnetlink::open()?.raise(1) // the first interface of every namespace
}

/// Runs this line of shell: without the shell, and with one program for several, where it is nothing but calls of `ip`, each after the success
/// of the one before.
pub(super) fn run(script: &str) -> io::Result<Output> {
    let Some(batches) = batches(script) else { return Command::new("sh").args(["-c", script]).output() };
    let mut last = None;
    for (options, lines) in batches {
        let output = match lines.as_slice() {
            [one] => Command::new("ip").args(&options).args(one.split_whitespace()).output()?,
            several => batch(&options, several)?,
        };
        if !output.status.success() {
            return Ok(output);
        }
        last = Some(output);
    }
    last.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// `ip -batch -`, which ends at the first line that fails.
fn batch(options: &[&str], lines: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("ip");
    command.args(options).args(["-batch", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended at a line before does not read the rest.
        let _ = stdin.write_all(format!("{}\n", lines.join("\n")).as_bytes());
    }
    child.wait_with_output()
}

/// Options of `ip`, and lines that go with them.
type Batch<'s> = (Vec<&'s str>, Vec<&'s str>);

/// The calls of `ip` that a line of shell consists of, neighbours with the same options together; `None` if it has anything else.
fn batches(script: &str) -> Option<Vec<Batch<'_>>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@+, ".contains(c);
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for call in script.split("&&") {
        let mut rest = call.trim().strip_prefix("ip ")?.trim_start();
        if !rest.chars().all(plain) {
            return None;
        }
        let mut options = Vec::new();
        while rest.starts_with('-') {
            let (option, behind) = rest.split_once(' ')?;
            // Others have a value, which would be taken for the object.
            if !["-4", "-6", "-j", "-d"].contains(&option) {
                return None;
            }
            options.push(option);
            rest = behind.trim_start();
        }
        match batches.last_mut().filter(|(before, _)| *before == options) {
            Some((_, lines)) => lines.push(rest),
            None => batches.push((options, vec![rest])),
        }
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_would_not_change_goes_without_one() {
        for script in [
            "ip link del $IFNAME",
            "ip link del a; ip link del b",
            "ip link del a || ip link del b",
            "ip link show 2>/dev/null",
            "ip -n c1 link show",
            "ip link show && echo plain",
            "echo plain",
        ] {
            assert_eq!(batches(script), None, "{script}");
        }
        assert_eq!(
            batches(
                "ip link set lo up && ip addr add fd00::2/64 dev eth0 && ip -6 route add default via fd00::1"
            ),
            Some(vec![
                (vec![], vec!["link set lo up", "addr add fd00::2/64 dev eth0"]),
                (vec!["-6"], vec!["route add default via fd00::1"]),
            ])
        );
    }

    #[test]
    fn what_fails_ends_the_line() {
        let output = run("ip link show lo && ip link show cnf-none && ip link show lo").unwrap();
        assert!(!output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout).matches("LOOPBACK").count(), 1);
        assert!(String::from_utf8_lossy(&output.stderr).contains("cnf-none"));
    }
}
