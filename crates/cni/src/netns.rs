//! What a network namespace path names, found out without entering it.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, gettid};

use crate::environment::{Attachment, Environment, Parameters};
use crate::failure::{Code, Failure};
use crate::json::shorten;
use crate::request::{Request, Target};

/// The network namespace of a call as it was found to be one, open: who works in this one works in the one that was checked, and need not open it
/// again. It exists as long as this does.
#[derive(Debug, Clone)]
pub struct OpenNetns {
    /// The path it was opened by.
    pub path: PathBuf,
    /// The namespace.
    pub file: Arc<File>,
    /// Device and inode of it, which together are its identity (`namespaces(7)`).
    pub id: (u64, u64),
    /// The namespace of the thread that has looked.
    pub own: Arc<File>,
    /// That thread, by the kernel's number: the standard library's own would be the first to ask the C library for memory.
    pub thread: Pid,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum NetnsState {
    /// A namespace other than ours, of the network kind as far as that shows from outside.
    Foreign(OpenNetns),
    /// The namespace this process is in.
    Own(OpenNetns),
    /// Nothing.
    Missing,
    /// Something else; says what.
    NotANamespace(&'static str),
    /// It can't be looked at.
    Unreadable(io::Error),
}

/// Looks at a path. All namespace files live on one kernel-internal file system (nsfs), so two of them share a device number.
pub(crate) fn state(path: &Path) -> NetnsState {
    // Whatever it is: a pipe does not let this wait, and no terminal becomes ours.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let looked = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match looked {
        Ok(looked) => looked,
        Err(error) => return not_opened(path, error),
    };
    // The thread's own entry: `/proc/self` is the main thread's.
    let looked = File::open("/proc/thread-self/ns/net").and_then(|own| Ok((own.metadata()?, own)));
    let (own_metadata, own) = match looked {
        Ok(looked) => looked,
        Err(error) => return NetnsState::Unreadable(error),
    };
    if metadata.dev() != own_metadata.dev() {
        return NetnsState::NotANamespace(kind_of_file(metadata.file_type()));
    }
    if is_of_another_kind(path) {
        return NetnsState::NotANamespace("a namespace of another kind");
    }
    let netns = OpenNetns {
        path: path.to_owned(),
        file: Arc::new(file),
        id: (metadata.dev(), metadata.ino()),
        own: Arc::new(own),
        thread: gettid(),
    };
    if metadata.ino() == own_metadata.ino() { NetnsState::Own(netns) } else { NetnsState::Foreign(netns) }
}

/// What is at a path that can't be opened: it need not be readable to be no namespace, and a socket never is.
fn not_opened(path: &Path, error: io::Error) -> NetnsState {
    match fs::metadata(path).map(|metadata| metadata.file_type()) {
        // Where all namespaces are plain files, this may be one.
        Ok(kind) if kind.is_file() => NetnsState::Unreadable(error),
        Ok(kind) => NetnsState::NotANamespace(kind_of_file(kind)),
        Err(error) => match error.raw_os_error() {
            // ENOENT, ENOTDIR, ESRCH (a /proc entry of a process that has ended).
            Some(2 | 20 | 3) => NetnsState::Missing,
            _ => NetnsState::Unreadable(error),
        },
    }
}

fn kind_of_file(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a plain file"
    } else {
        "a special file"
    }
}

/// Tells a network namespace from a mount or user namespace where that costs nothing: an entry of `/proc/PID/ns` is a link to
/// `net:[4026531840]`, and an open one has such a link in `/proc/PID/fd`. One that is bound to a path is none; what it is, entering it will tell.
fn is_of_another_kind(path: &Path) -> bool {
    let directory = path.parent().and_then(Path::file_name);
    if !directory.is_some_and(|name| name == "ns" || name == "fd") {
        return false;
    }
    fs::read_link(path).is_ok_and(|link| {
        let name = link.as_os_str().as_bytes();
        link.is_relative() && name.ends_with(b"]") && name.contains(&b'[') && !name.starts_with(b"net:[")
    })
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
pub(crate) fn target(request: &Request, parameters: Parameters) -> Result<Target, Failure> {
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
        NetnsState::Foreign(opened) => {
            request.keep_open(opened);
            Ok(Target { attachment, netns })
        }
        NetnsState::Own(opened) if overridden(request.environment()) => {
            request.keep_open(opened);
            Ok(Target { attachment, netns })
        }
        NetnsState::Own(_) => refused(
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
    // A delegate that is asked in this process after the plugin that delegates.
    if request.open_netns(&path).is_some() {
        return Ok(Owner { attachment, netns: Some(path), own: false });
    }
    let mut own = false;
    let unusable = match state(&path) {
        NetnsState::Foreign(opened) => {
            request.keep_open(opened);
            return Ok(Owner { attachment, netns: Some(path), own });
        }
        NetnsState::Own(opened) if overridden(request.environment()) => {
            request.keep_open(opened);
            return Ok(Owner { attachment, netns: Some(path), own });
        }
        NetnsState::Own(_) => {
            own = true;
            "it is the plugin's own namespace".to_owned()
        }
        NetnsState::Missing => "it is gone".to_owned(),
        NetnsState::NotANamespace(what) => format!("it is {what}, not a network namespace"),
        NetnsState::Unreadable(error) => format!("can't look at it: {error}"),
    };
    request.note(format!("DEL: CNI_NETNS {}: {unusable}; releasing everything outside it", shown(&path)));
    Ok(Owner { attachment, netns: None, own })
}

#[cfg(test)]
mod tests;
