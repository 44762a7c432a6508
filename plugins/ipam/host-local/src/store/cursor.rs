//! `last_reserved_ip.N`: the address handed out last for the set with index N, where the next search begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of one set, read once and kept open to be written.
#[derive(Debug)]
pub(crate) struct Cursor {
    path: PathBuf,
    file: Option<File>,
    text: String,
}

impl Cursor {
    /// Reads the file of a set. What can't be read is no cursor: the search then begins at the start of the set.
    pub(super) fn read(store: &Path, set: usize) -> Self {
        let path = store.join(format!("last_reserved_ip.{set}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(&path).ok();
        let mut text = String::new();
        if let Some(open) = &mut file {
            let mut buffer = [0; 64];
            let length = open.read(&mut buffer).unwrap_or_default();
            let content: Vec<u8> = buffer.into_iter().take(length).collect();
            text = String::from_utf8(content).unwrap_or_default();
        }
        Self { path, file, text }
    }

    /// The address, if the file holds one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        cni::address::parse_ip(&self.text).ok()
    }

    /// Writes an address. If the process dies in between, a wrong or unreadable address costs nothing but the order.
    pub(super) fn write(&mut self, address: IpAddr) -> io::Result<()> {
        let text = address.to_string();
        if text == self.text {
            return Ok(());
        }
        let created = self.file.is_none();
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&self.path)?,
        };
        let mut written = file.write_all_at(text.as_bytes(), 0);
        if written.is_ok() && text.len() < self.text.len() {
            written = file.set_len(text.len() as u64);
        }
        if written.is_err() && created {
            let _ = fs::remove_file(&self.path);
        }
        self.file = Some(file);
        self.text = text;
        written
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
