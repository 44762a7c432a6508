//! Making sure a test has a machine of its own before it changes anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Set by `tools/unshare-runner` to what `/proc/self/ns/net` and `/proc/self/ns/mnt` were outside, separated by a space.
const OUTSIDE_VARIABLE: &str = "FERRULE_OUTSIDE";

/// Panics unless this process is in a network and a mount namespace of its own.
pub(crate) fn require_private_namespaces() {
    let outside = std::env::var(OUTSIDE_VARIABLE).ok();
    for kind in ["net", "mnt"] {
        if let Err(why) = is_private(kind, outside.as_deref()) {
            panic!(
                "a Host changes links, firewall and mounts, and {why}: run tests with `make test`, `cargo nextest run` \
                 or `cargo test` inside the workspace, which start each in its own namespaces (tools/unshare-runner)"
            );
        }
    }
}

fn is_private(kind: &str, outside: Option<&str>) -> Result<(), String> {
    let ours = fs::read_link(format!("/proc/self/ns/{kind}")).expect("reading our own namespace from /proc");
    let ours = ours.to_string_lossy();
    let mut known = false;
    // Readable by root outside a user namespace only, which is exactly where a mistake would be worst.
    if let Ok(machine) = fs::read_link(format!("/proc/1/ns/{kind}")) {
        known = true;
        if machine.to_string_lossy() == ours {
            return Err(format!("this process shares the machine's {kind} namespace"));
        }
    }
    if let Some(outside) = outside {
        known = true;
        if outside.split_whitespace().any(|name| name == ours) {
            return Err(format!("this process shares the {kind} namespace it was started from"));
        }
    }
    if known { Ok(()) } else { Err(format!("nothing shows that the {kind} namespace is private")) }
}

/// Gives the test its own empty `path`. Where the machine does not have that directory, its parent is rebuilt on a
/// tmpfs with the same entries, so that nothing is created on the machine's disk.
pub(crate) fn empty_directory(path: &Path) {
    if !path.is_dir() {
        rebuild_on_tmpfs(path.parent().expect("a directory below the root"));
        fs::create_dir(path).unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
    }
    mount_tmpfs(path);
}

fn rebuild_on_tmpfs(directory: &Path) {
    // A place of our own on the private /run: entries are gathered there, then the whole is moved into place.
    let staging =
        Path::new("/run").join(format!("rebuilt-{}", directory.display().to_string().replace('/', "-")));
    fs::create_dir(&staging).unwrap_or_else(|e| panic!("making {}: {e}", staging.display()));
    mount_tmpfs(&staging);
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("reading {}: {e}", directory.display())) {
        let entry = entry.expect("an entry of a directory");
        let (from, to) = (entry.path(), staging.join(entry.file_name()));
        let kind = entry.file_type().expect("the type of a directory entry");
        if kind.is_symlink() {
            symlink(fs::read_link(&from).expect("reading a link"), &to).expect("making a link");
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to).expect("making a mount point");
        } else {
            fs::write(&to, "").expect("making a mount point");
        }
        // Recursive, because a user namespace may not look under mounts it inherited.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&from), &to, None::<&str>, flags, None::<&str>)
            .unwrap_or_else(|e| panic!("binding {}: {e}", from.display()));
    }
    mount(Some(&staging), directory, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .unwrap_or_else(|e| panic!("putting {} in place: {e}", directory.display()));
    umount2(&staging, MntFlags::MNT_DETACH).expect("taking the staging directory away");
    fs::remove_dir(&staging).expect("removing the staging directory");
}

/// Mounts an empty tmpfs on a directory that exists.
pub(crate) fn mount_tmpfs(path: &Path) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .unwrap_or_else(|e| panic!("mounting a tmpfs on {}: {e}", path.display()));
}

/// Shows this network namespace's devices under `/sys/class/net`. Refused where `/sys` is partly masked, as in some
/// containers; nothing in the suite relies on sysfs, so that is not an error.
pub(crate) fn own_sysfs() {
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::is_private;

    #[test]
    fn a_namespace_shared_with_the_outside_is_refused() {
        for kind in ["net", "mnt"] {
            let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            let ours = ours.to_string_lossy();
            let refusal = is_private(kind, Some(&format!("net:[1] {ours}"))).unwrap_err();
            assert_eq!(refusal, format!("this process shares the {kind} namespace it was started from"));
            assert_eq!(is_private(kind, Some("net:[1] mnt:[2]")), Ok(()));
        }
    }
}
