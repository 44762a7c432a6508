//! What a network namespace path names, found out without entering it and without a system call library.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::environment::{Attachment, Environment, Parameters};
use crate::failure::{Code, Failure};
use crate::json::shorten;
use crate::request::{Request, Target};

/// What is at a path.
#[derive(Debug)]
pub(crate) enum NetnsState {
    /// A namespace other than ours, of the network kind as far as that shows from outside.
    Foreign,
    /// The namespace this process is in.
    Own,
    /// Nothing.
    Missing,
    /// Something else; says what.
    NotANamespace(&'static str),
    /// It can't be looked at.
    Unreadable(io::Error),
}

/// Looks at a path. All namespace files live on one kernel-internal file system (nsfs), so two of them share a device number;
/// device and inode together are the namespace's identity (`namespaces(7)`).
pub(crate) fn state(path: &Path) -> NetnsState {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return absent_or_unreadable(error),
    };
    // The thread's own entry: `/proc/self` is the main thread's.
    let own = match fs::metadata("/proc/thread-self/ns/net") {
        Ok(own) => own,
        Err(error) => return NetnsState::Unreadable(error),
    };
    if metadata.dev() != own.dev() {
        let kind = metadata.file_type();
        return NetnsState::NotANamespace(if kind.is_dir() {
            "a directory"
        } else if kind.is_file() {
            "a plain file"
        } else {
            "a special file"
        });
    }
    if metadata.ino() == own.ino() {
        return NetnsState::Own;
    }
    kind_of_namespace(path)
}

/// Tells a network namespace from a mount or user namespace where that costs nothing: an entry of `/proc/PID/ns` is a link to
/// `net:[4026531840]`. One that is bound to a path is none; what it is, entering it will tell.
fn kind_of_namespace(path: &Path) -> NetnsState {
    match fs::read_link(path) {
        Ok(name) if name.is_relative() && is_other_kind(name.as_os_str().as_bytes()) => {
            NetnsState::NotANamespace("a namespace of another kind")
        }
        _ => NetnsState::Foreign,
    }
}

/// Whether it is what an entry of `/proc/PID/ns` that is not of the network kind leads to.
fn is_other_kind(name: &[u8]) -> bool {
    name.ends_with(b"]") && name.contains(&b'[') && !name.starts_with(b"net:[")
}

fn absent_or_unreadable(error: io::Error) -> NetnsState {
    match error.raw_os_error() {
        // ENOENT, ENOTDIR, ESRCH (a /proc entry of a process that has ended).
        Some(2 | 20 | 3) => NetnsState::Missing,
        _ => NetnsState::Unreadable(error),
    }
}

/// `CNI_NETNS_OVERRIDE`: the administrator's word that the plugin's own namespace is meant.
fn overridden(environment: &Environment) -> bool {
    environment
        .get("CNI_NETNS_OVERRIDE")
        .and_then(|value| value.to_str())
        .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

fn shown(path: &Path) -> String {
    shorten(&path.display().to_string()).replace(char::is_control, "?")
}

/// The target of ADD and CHECK, its namespace checked before anything is changed.
pub(crate) fn target(environment: &Environment, parameters: Parameters) -> Result<Target, Failure> {
    let Parameters { attachment: Some(attachment), netns: Some(netns) } = parameters else {
        return Err(Failure::new(Code::Internal, "parameters were not validated"));
    };
    let refused = |reason: &str, hint: &str| {
        Err(Failure::new(Code::InvalidEnvironment, format!("CNI_NETNS {}: {reason}", shown(&netns)))
            .hint(hint))
    };
    if netns.to_str().is_none() {
        return refused("it is not UTF-8", "the result has to repeat this path in JSON; use another one");
    }
    match state(&netns) {
        NetnsState::Foreign => Ok(Target { attachment, netns }),
        NetnsState::Own if overridden(environment) => Ok(Target { attachment, netns }),
        NetnsState::Own => refused(
            "plugin's netns and netns from CNI_NETNS should not be the same",
            "give the container's namespace; CNI_NETNS_OVERRIDE=1 allows the plugin's own",
        ),
        NetnsState::Missing => {
            refused("there is nothing at this path", "create the network namespace before ADD")
        }
        NetnsState::NotANamespace(what) => refused(
            &format!("it is {what}, not a network namespace"),
            "a stale mount point looks so; create the namespace again",
        ),
        NetnsState::Unreadable(error) => {
            refused(&format!("can't look at it: {error}"), "check the path and its permissions")
        }
    }
}

/// Whose things a DEL removes.
pub(crate) struct Owner {
    pub(crate) attachment: Attachment,
    /// The namespace, if there is one to work in.
    pub(crate) netns: Option<PathBuf>,
    /// Whether the path leads to the plugin's own namespace.
    pub(crate) own: bool,
}

/// The owner of what a DEL removes. A namespace that can't be used is none: DEL releases everything else. It never fails over the
/// namespace, because libcni stops the DEL of a whole list at the first error and every plugin before this one would leak.
pub(crate) fn owner(request: &Request, parameters: Parameters) -> Result<Owner, Failure> {
    let Parameters { attachment: Some(attachment), netns } = parameters else {
        return Err(Failure::new(Code::Internal, "parameters were not validated"));
    };
    let Some(path) = netns else { return Ok(Owner { attachment, netns: None, own: false }) };
    let state = state(&path);
    let own = matches!(state, NetnsState::Own);
    if matches!(state, NetnsState::Foreign) || own && overridden(request.environment()) {
        return Ok(Owner { attachment, netns: Some(path), own: false });
    }
    let unusable = match state {
        NetnsState::Foreign | NetnsState::Own => "it is the plugin's own namespace".to_owned(),
        NetnsState::Missing => "it is gone".to_owned(),
        NetnsState::NotANamespace(what) => format!("it is {what}, not a network namespace"),
        NetnsState::Unreadable(error) => format!("can't look at it: {error}"),
    };
    request.note(format!("DEL: CNI_NETNS {}: {unusable}; releasing everything outside it", shown(&path)));
    Ok(Owner { attachment, netns: None, own })
}

#[cfg(test)]
mod tests;
