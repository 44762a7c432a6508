//! Lease files: named by the address, holding the owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cni::Attachment;

use crate::error::{Error, Result};

/// Between container id and interface name. The Go plugin writes it on every system, and compares it.
const LINE_BREAK: &str = "\r\n";

/// Who holds a lease, as it is written into the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner(String);

impl Owner {
    /// The owner this plugin and the Go plugin since 0.8 write.
    pub(crate) fn of(attachment: &Attachment) -> Self {
        Self::named(attachment.container_id.as_str(), attachment.ifname.as_str())
    }

    /// A container's interface.
    pub(crate) fn named(container_id: &str, ifname: &str) -> Self {
        Self(format!("{container_id}{LINE_BREAK}{ifname}"))
    }

    /// The owner that versions before 0.8 wrote: the container alone.
    pub(crate) fn legacy(container_id: &str) -> Self {
        Self(container_id.to_owned())
    }

    /// The container's id.
    pub(crate) fn container(&self) -> &str {
        self.0.split_once(LINE_BREAK).map_or(&self.0, |(container, _)| container)
    }

    /// The interface's name; `None` for an owner of old.
    pub(crate) fn interface(&self) -> Option<&str> {
        self.0.split_once(LINE_BREAK).map(|(_, ifname)| ifname)
    }

    /// As the file has it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// For people: `container/interface`.
    pub(crate) fn describe(&self) -> String {
        self.0.replace(LINE_BREAK, "/")
    }

    /// Reads the content of a file. White space around the lines does not count (the Go plugin trims, and editors change line ends).
    /// `None` if there is no text: what a process left that died between creating and writing the file. File systems that replay a
    /// journal may leave NUL bytes instead of nothing.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(content);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim_matches(|c: char| c.is_whitespace() || c == '\0'))
            .filter(|line| !line.is_empty())
            .collect();
        (!lines.is_empty()).then(|| Self(lines.join(LINE_BREAK)))
    }
}

/// What an address's file says.
#[derive(Debug)]
pub(super) enum Content {
    /// It is leased.
    Owner(Owner),
    /// Nothing: the creator died before it wrote.
    Empty,
}

/// Reads a lease file; `None` if there is none. Symbolic links are not followed: the store is not the place they could
/// lead out of; and nobody waits for what is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Content>> {
    let file =
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
    let content = contents(&file)?;
    Ok(Some(Owner::parse(&content).map_or(Content::Empty, Content::Owner)))
}

/// The content of a small file, in one system call in the ordinary case.
fn contents(mut file: &File) -> io::Result<Vec<u8>> {
    const LIMIT: usize = 64 << 10;
    let mut content = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        content.extend(buffer.iter().take(read));
        if read < buffer.len() || content.len() > LIMIT {
            return Ok(content);
        }
    }
}

/// An entry of the store's directory whose name is an address.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) address: IpAddr,
    /// The owner; the error if it can't be read; `None` if the entry is no file, so nobody's lease, but in the way of one.
    pub(super) owner: io::Result<Option<Owner>>,
}

/// Reads the whole store: every file is opened, as the Go plugin does at every call. Empty files are removed if `repair`, which
/// needs the lock: creators hold it until they have written. Their addresses go to `recovered`.
pub(super) fn walk(directory: &Path, repair: bool, recovered: &mut Vec<IpAddr>) -> Result<Vec<Listed>> {
    let mut leases = Vec::new();
    let entries = loop {
        // Unlike the other functions of the library, this one does not try again when a signal interrupts it.
        match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other.map_err(Error::io("read", directory))?,
        }
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", directory))?;
        let name = entry.file_name();
        let Some(address) = name.to_str().and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
        // Another spelling of an address is nobody's lease: neither plugin would look for it.
        if name.to_str() != Some(address.to_string().as_str()) {
            continue;
        }
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            leases.push(Listed { address, owner: Ok(None) });
            continue;
        }
        match read(&entry.path()) {
            Ok(None) => {}
            Ok(Some(Content::Owner(owner))) => leases.push(Listed { address, owner: Ok(Some(owner)) }),
            Ok(Some(Content::Empty)) => {
                if repair && fs::remove_file(entry.path()).is_ok() {
                    recovered.push(address);
                } else {
                    leases.push(Listed { address, owner: Ok(None) });
                }
            }
            Err(error) => leases.push(Listed { address, owner: Err(error) }),
        }
    }
    Ok(leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_container_cr_lf_interface() {
        assert_eq!(Owner::named("abc", "eth0").as_bytes(), b"abc\r\neth0");
    }

    #[test]
    fn white_space_and_line_ends_do_not_count() {
        for content in ["abc\r\neth0", " abc\r\neth0\r\n\n", "abc\neth0\n", "\tabc \r\n eth0 "] {
            assert_eq!(Owner::parse(content.as_bytes()), Some(Owner::named("abc", "eth0")), "{content:?}");
        }
        assert_eq!(Owner::parse(b" abc \n"), Some(Owner::legacy("abc")));
    }

    #[test]
    fn nothing_and_zeros_are_debris() {
        assert_eq!(Owner::parse(b""), None);
        assert_eq!(Owner::parse(b"\r\n "), None);
        assert_eq!(Owner::parse(&[0; 40]), None);
    }
}
