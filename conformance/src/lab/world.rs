//! A private world for one case: user, network and mount namespaces, and file trees of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// The harness's own corner of the private file system: executables, stubs, the changed files of `/etc` and `/var`.
pub const HOME: &str = "/mnt";

/// Where the plugins under test are, in the private world.
pub fn plugins() -> PathBuf {
    Path::new(HOME).join("bin")
}

/// Where stub delegates are, before the plugins in `CNI_PATH`.
pub fn stubs() -> PathBuf {
    Path::new(HOME).join("stubs")
}

/// The file trees whose changes are kept apart from the host's, on an overlay: the tree and where its changes are.
const OVERLAID: &[&str] = &["/etc", "/var"];

/// The trees of files that a snapshot covers: where to read, and what to call it.
pub fn watched() -> Vec<(PathBuf, &'static str)> {
    let mut trees = vec![(PathBuf::from("/run"), "/run"), (PathBuf::from("/tmp"), "/tmp")];
    for tree in OVERLAID {
        trees.push((upper(tree), tree));
    }
    trees
}

fn upper(tree: &str) -> PathBuf {
    Path::new(HOME).join(format!("changes{tree}/upper"))
}

/// What cannot be had in this place, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {error}")]
pub struct Refused {
    /// The step.
    pub what: String,
    /// The system's answer.
    pub error: io::Error,
}

fn step<T, E: Into<io::Error>>(what: impl Into<String>, result: Result<T, E>) -> Result<T, Refused> {
    result.map_err(|error| Refused { what: what.into(), error: error.into() })
}

/// Moves the calling process, which must have one thread, into namespaces of its own and lays out its files:
/// the plugins of `binaries` at [`plugins`], fresh `/run` and `/tmp`, `/etc` and `/var` whose changes go elsewhere, `/sys` of the new
/// network namespace. Nothing outside can be changed from then on.
///
/// # Errors
/// The first step that the system refuses.
pub fn enter(binaries: &Path, harness: &Path) -> Result<(), Refused> {
    let (uid, gid) = (geteuid(), getegid());
    let apart = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if unshare(apart).is_ok() {
        step("refuse setgroups", fs::write("/proc/self/setgroups", "deny"))?;
        step("map the user", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
        step("map the group", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))?;
    } else {
        // Where users may not make user namespaces, root may still make the others.
        step(
            "create namespaces (user namespaces are refused here, and so are network namespaces without them; run it as root)",
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS),
        )?;
    }
    let none: Option<&str> = None;
    step("make mounts private", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    // What is bound must be opened before tmpfs hides where it came from.
    let binaries = step(format!("open {}", binaries.display()), fs::File::open(binaries))?;
    let harness = step(format!("open {}", harness.display()), fs::File::open(harness))?;
    tmpfs(HOME)?;
    for directory in [plugins(), stubs()] {
        step(format!("create {}", directory.display()), fs::create_dir_all(&directory))?;
    }
    bind(&descriptor(&binaries), &plugins())?;
    let program = Path::new(HOME).join("cni-conformance");
    step("create the harness's mount point", fs::write(&program, ""))?;
    bind(&descriptor(&harness), &program)?;
    tmpfs("/run")?;
    tmpfs("/tmp")?;
    for tree in OVERLAID {
        overlay(tree)?;
    }
    // sysfs shows the interfaces of the namespace that mounted it. Without it plugins that read /sys see the host's.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
    step("create /run/netns", fs::create_dir_all("/run/netns"))?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).output();
    let up = step("run `ip` (package iproute2)", up)?;
    if up.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&up.stderr).trim().to_owned();
        Err(Refused { what: "bring lo up".to_owned(), error: io::Error::other(said) })
    }
}

fn descriptor(file: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn tmpfs(place: &str) -> Result<(), Refused> {
    let options = Some("mode=755");
    step(
        format!("mount a tmpfs on {place}"),
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), options),
    )
}

fn bind(source: &Path, target: &Path) -> Result<(), Refused> {
    let none: Option<&str> = None;
    step(
        format!("bind {} to {}", source.display(), target.display()),
        mount(Some(source), target, none, MsFlags::MS_BIND, none),
    )
}

fn overlay(tree: &str) -> Result<(), Refused> {
    let changes = Path::new(HOME).join(format!("changes{tree}"));
    for part in ["upper", "work"] {
        let directory = changes.join(part);
        step(format!("create {}", directory.display()), fs::create_dir_all(&directory))?;
    }
    let options = format!(
        "lowerdir={tree},upperdir={}/upper,workdir={}/work,userxattr",
        changes.display(),
        changes.display()
    );
    step(
        format!("mount an overlay on {tree}"),
        mount(Some("overlay"), tree, Some("overlay"), MsFlags::empty(), Some(options.as_str())),
    )?;
    // What earlier containers of the host left must not be seen by the plugins under test.
    if tree == "/var" {
        let _ = fs::remove_dir_all("/var/lib/cni");
        step("create /var/lib/cni", fs::create_dir_all("/var/lib/cni"))?;
    } else {
        let _ = fs::remove_dir_all("/etc/cni");
    }
    Ok(())
}
