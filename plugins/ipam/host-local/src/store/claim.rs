//! Taking addresses: all of a call or none, whatever happens in between.
//!
//! The owner is written into a draft outside the store, and every lease is made as a hard link to the draft: `link(2)` fails if the name
//! exists, as the Go plugin's `O_EXCL` does, and a lease is never seen empty. The draft is removed when all leases are made; that is the
//! commit. If the process dies before, whoever reads the store next finds the draft, and by its inode the leases it must take back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::index::create_directory;
use super::lease::Owner;

/// The content of leases about to be made.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    owner: &'a Owner,
    /// The file to link; `None` where there is none: then leases are created and written in place, as the Go plugin does.
    file: Option<PathBuf>,
}

impl<'a> Draft<'a> {
    /// Writes a draft into a directory. That it can't be created is no failure: the store's own directory may be the only one we may write
    /// to. That it can't be written (a full disk) is.
    pub(super) fn write(directory: &Path, owner: &'a Owner) -> io::Result<Self> {
        let path = directory.join("claim");
        let file = match create_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_directory(directory).and_then(|()| create_file(&path))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Of a process that died before it linked anything; had it, the index would not have been believed and `recover` run.
                fs::remove_file(&path).and_then(|()| create_file(&path))
            }
            other => other,
        };
        let Ok(mut file) = file else { return Ok(Self { owner, file: None }) };
        if let Err(error) = file.write_all(owner.as_bytes()) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { owner, file: Some(path) })
    }

    /// Makes a lease. `AlreadyExists` if the address is taken.
    pub(super) fn place(&self, lease: &Path) -> io::Result<()> {
        let Some(draft) = &self.file else { return self.create(lease) };
        match fs::hard_link(draft, lease) {
            Err(error) if cannot_link(&error) => self.create(lease),
            other => other,
        }
    }

    fn create(&self, lease: &Path) -> io::Result<()> {
        let mut file = create_file(lease)?;
        let written = file.write_all(self.owner.as_bytes());
        if written.is_err() {
            let _ = fs::remove_file(lease);
        }
        written
    }

    /// Makes the leases final.
    pub(super) fn commit(self) -> io::Result<()> {
        self.file.map_or(Ok(()), fs::remove_file)
    }
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// File systems without hard links (FAT, some network and FUSE ones), and a store that is a mount of its own.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EXDEV | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)
    )
}

/// Takes back what a process left that died while claiming: its leases, then its draft. Returns how many leases.
pub(super) fn recover(directory: &Path, store: &Path) -> io::Result<usize> {
    let claim = directory.join("claim");
    let draft = match fs::symlink_metadata(&claim) {
        Ok(draft) => draft,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut leases = 0;
    if draft.nlink() > 1 {
        for entry in fs::read_dir(store)? {
            let path = entry?.path();
            // Asked of the file: what a directory says of inodes is not the same everywhere (overlayfs).
            let lease = fs::symlink_metadata(&path)?;
            if (lease.dev(), lease.ino()) == (draft.dev(), draft.ino()) {
                fs::remove_file(&path)?;
                leases += 1;
            }
        }
    }
    fs::remove_file(&claim)?;
    Ok(leases)
}
