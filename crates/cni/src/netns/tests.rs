use std::path::{Path, PathBuf};

use super::{NetnsState, state};

fn kind(path: impl AsRef<Path>) -> &'static str {
    match state(path.as_ref()) {
        NetnsState::Foreign(_) => "foreign",
        NetnsState::Own(_) => "own",
        NetnsState::Missing => "missing",
        NetnsState::NotANamespace(what) => what,
        NetnsState::Unreadable(_) => "unreadable",
    }
}

#[test]
fn every_way_to_our_own_namespace_is_our_own() {
    let link = std::env::temp_dir().join(format!("ferrule-cni-netns-{}", std::process::id()));
    std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
    let numbered = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    for path in [Path::new("/proc/self/ns/net"), Path::new("/proc/thread-self/ns/net"), &numbered, &link] {
        assert_eq!(kind(path), "own", "{}", path.display());
    }
    std::fs::remove_file(&link).unwrap();
}

#[test]
fn what_is_no_network_namespace_is_said() {
    assert_eq!(kind("/proc/self/ns/mnt"), "a namespace of another kind");
    assert_eq!(kind("/proc/self/ns/user"), "a namespace of another kind");
    assert_eq!(kind("/"), "a directory");
    assert_eq!(kind("/dev/null"), "a special file");
    assert_eq!(kind(std::env::current_exe().unwrap()), "a plain file");
    assert_eq!(kind("/nonexistent"), "missing");
    assert_eq!(kind("/dev/null/x"), "missing");
    assert_eq!(kind("/proc/self/fd/999"), "missing");
    assert_eq!(kind("/proc/self/\0/net"), "unreadable");
    assert_eq!(kind("x".repeat(5000)), "unreadable");
}

/// Nobody waits for a writer, and what can't be opened is told by what it is.
#[test]
fn pipes_and_sockets_are_special_files() {
    let _host = testkit::Host::new();
    testkit::tool("mkfifo", &["/run/pipe"]);
    assert_eq!(kind("/run/pipe"), "a special file");
    let _socket = std::os::unix::net::UnixListener::bind("/run/socket").unwrap();
    assert_eq!(kind("/run/socket"), "a special file");
}

#[test]
fn a_namespace_of_another_kind_is_told_by_its_link() {
    let file = std::fs::File::open("/proc/self/ns/mnt").unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(kind(link), "a namespace of another kind");
    let file = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(kind(link), "own");
}

#[test]
fn other_namespaces_are_foreign_however_they_are_named() {
    let host = testkit::Host::new();
    let container = host.container("blue");
    assert_eq!(kind(container.path()), "foreign");
    let link = Path::new("/run/link");
    std::os::unix::fs::symlink(container.path(), link).unwrap();
    assert_eq!(kind(link), "foreign");
    let path = container.path().to_owned();
    container.enter(|| assert_eq!(kind(&path), "own", "seen from a thread inside"));
    container.destroy();
    assert_eq!(kind(&path), "missing");
    // What is left where a namespace was unmounted but its file stayed.
    std::fs::write(&path, "").unwrap();
    assert_eq!(kind(&path), "a plain file");
}
