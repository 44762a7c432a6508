//! A private world for one case: user, network and mount namespaces, and file trees of its own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::direct;

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

/// A tree of files whose changes are kept apart from the host's, on an overlay; and the part of it that is hidden behind an empty file system,
/// so that plugins do not see what earlier containers of the host left.
struct Tree {
    root: &'static str,
    hidden: &'static str,
}

const TREES: &[Tree] =
    &[Tree { root: "/etc", hidden: "/etc/cni" }, Tree { root: "/var", hidden: "/var/lib" }];

/// The trees of files that a snapshot covers: where to read, and what to call it.
pub fn watched() -> Vec<(PathBuf, &'static str)> {
    let mut trees = vec![(PathBuf::from("/run"), "/run"), (PathBuf::from("/tmp"), "/tmp")];
    for tree in TREES {
        let upper = upper(tree.root);
        if upper.is_dir() {
            trees.push((upper, tree.root));
        }
        // An empty file system of its own, which the overlay does not show.
        let hidden = Path::new(tree.hidden);
        if device(hidden).is_some() && device(hidden) != device(Path::new(tree.root)) {
            trees.push((hidden.to_owned(), tree.hidden));
        }
    }
    trees
}

fn device(place: &Path) -> Option<u64> {
    fs::metadata(place).map(|metadata| metadata.dev()).ok()
}

fn changes(tree: &str) -> PathBuf {
    Path::new(HOME).join(format!("changes{tree}"))
}

fn upper(tree: &str) -> PathBuf {
    changes(tree).join("upper")
}

/// Which namespaces a world consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// User, network and mount namespaces: whatever a plugin does, it is no root outside.
    User,
    /// Network and mount namespaces, which root may make where user namespaces are refused.
    Root,
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
/// network namespace. Returns what this place refuses to isolate, a sentence each; apart from that nothing outside can be changed from then on.
///
/// # Errors
/// The first step that the system refuses.
pub fn enter(binaries: &Path, harness: &Path, isolation: Isolation) -> Result<Vec<String>, Refused> {
    let mut exposed = Vec::new();
    let (uid, gid) = (geteuid(), getegid());
    let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    match isolation {
        Isolation::User => {
            step("create user, network and mount namespaces", unshare(apart | CloneFlags::CLONE_NEWUSER))?;
            step("refuse setgroups", fs::write("/proc/self/setgroups", "deny"))?;
            step("map the user", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
            step("map the group", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))?;
        }
        Isolation::Root => {
            step("create network and mount namespaces", unshare(apart))?;
            exposed.push(
                "user namespaces are refused: the plugins run as the host's root and could change sysctls that belong to no network namespace"
                    .to_owned(),
            );
        }
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
    for tree in TREES {
        let refused = overlay(tree).err();
        let hidden = hide(tree)?;
        exposed.extend(refused.map(|refused| {
            let part =
                if hidden { format!("of {} only {}", tree.root, tree.hidden) } else { "nothing".to_owned() };
            format!("{refused}: {part} is isolated")
        }));
    }
    step("create /var/lib/cni", fs::create_dir_all("/var/lib/cni"))?;
    // sysfs shows the interfaces of the namespace that mounted it.
    if let Err(error) = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none) {
        exposed.push(format!("cannot mount sysfs ({error}): plugins see the host's interfaces in /sys"));
    }
    step("create /run/netns", fs::create_dir_all("/run/netns"))?;
    step("bring lo up", direct::raise_loopback())?;
    Ok(exposed)
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

fn overlay(tree: &Tree) -> Result<(), Refused> {
    let (root, changes) = (tree.root, changes(tree.root));
    for part in ["upper", "work"] {
        let directory = changes.join(part);
        step(format!("create {}", directory.display()), fs::create_dir_all(&directory))?;
    }
    let options = format!(
        "lowerdir={root},upperdir={}/upper,workdir={}/work,userxattr",
        changes.display(),
        changes.display()
    );
    let mounted = mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if mounted.is_err() {
        // Its absence is how `watched` knows.
        let _ = fs::remove_dir_all(&changes);
    }
    step(format!("mount an overlay on {root}"), mounted)
}

/// Puts an empty file system over the hidden part, where there is such a directory. (What root left there, a user could not remove, through an
/// overlay neither; and `/var/lib/cni` itself must be removable, for the cases of a new host.)
fn hide(tree: &Tree) -> Result<bool, Refused> {
    if !Path::new(tree.hidden).is_dir() {
        return Ok(false);
    }
    tmpfs(tree.hidden).map(|()| true)
}
