//! Objects that attachments share: a bridge, its gateway address, a forwarding switch, a firewall table.
//!
//! Nobody owns them alone, so each has a register of its users: a directory with one empty file a user. Who finds a shared object missing
//! makes it and notes what was there before; who leaves last removes it again, but only if it was made by us. That the directory of users
//! is empty is found by rmdir(2), which is atomic and takes the same time for one user and for ten thousand.

use std::fs;
use std::path::PathBuf;

use cni::ContainerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::owner::{Owner, hex_digest};
use crate::state::{self, LockedFile, StateError};

/// The register of one shared object.
#[derive(Debug)]
pub struct Shared {
    directory: PathBuf,
}

/// What can fail: the register, or the work done under its lock.
pub type Outcome<E> = Result<(), E>;

impl Shared {
    /// The register of an object: its kind, and what names it. The name may contain anything.
    pub fn new(kind: &str, name: &str) -> Self {
        // A short plain name is kept for people to read; others become a digest.
        let plain = name.len() <= 60 && ContainerId::new(name).is_ok();
        let file = if plain { name.to_owned() } else { format!("_{}", hex_digest(name, 32)) };
        Self { directory: state::path(["shared", kind, &file]) }
    }

    /// Enters a user, then makes sure of the object: `ensure` gets the note of who made it (`None` if nobody of us did) and returns the
    /// note to keep. Nobody else enters or leaves meanwhile.
    pub fn acquire<N, E>(
        &self,
        user: &User,
        ensure: impl FnOnce(Option<N>) -> Result<Option<N>, E>,
    ) -> Result<(), E>
    where
        N: Serialize + DeserializeOwned + PartialEq + Clone,
        E: From<StateError>,
    {
        let mut note = self.lock()?;
        let users = self.directory.join("users");
        state::make_directory(&users)?;
        let file = users.join(&user.0);
        fs::write(&file, b"").map_err(StateError::file("write", &file))?;
        let before: Option<N> = decode(&note.read()?);
        let after = ensure(before.clone())?;
        if after != before {
            note.clear()?;
            note.append(&encode(after.as_ref()))?;
        }
        Ok(())
    }

    /// Removes a user. If it was the last, `dispose` gets the note and removes the object; if that fails, the note stays, and the next
    /// [`Shared::release`] tries again.
    pub fn release<N, E>(
        &self,
        user: &User,
        dispose: impl FnOnce(Option<N>) -> Result<(), E>,
    ) -> Result<(), E>
    where
        N: DeserializeOwned,
        E: From<StateError>,
    {
        let Some(mut note) = self.lock_existing()? else { return Ok(()) };
        let users = self.directory.join("users");
        let file = users.join(&user.0);
        match fs::remove_file(&file) {
            Err(error) if !state::missing(&error) => {
                return Err(StateError::file("remove", &file)(error).into());
            }
            _ => {}
        }
        match fs::remove_dir(&users) {
            Err(error) if !state::missing(&error) => return Ok(()),
            _ => {}
        }
        dispose(decode(&note.read()?))?;
        note.remove()?;
        Ok(())
    }

    /// Whether anybody is entered.
    pub fn is_used(&self) -> bool {
        fs::read_dir(self.directory.join("users")).is_ok_and(|mut users| users.next().is_some())
    }

    /// Whether the user is entered.
    pub fn has(&self, user: &User) -> bool {
        self.directory.join("users").join(&user.0).exists()
    }

    fn lock(&self) -> Result<LockedFile, StateError> {
        LockedFile::create(&self.directory.join("note"))
    }

    fn lock_existing(&self) -> Result<Option<LockedFile>, StateError> {
        LockedFile::open(&self.directory.join("note"))
    }
}

/// A user of a shared object: one attachment's part of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(String);

impl User {
    /// The user that an owner and a plugin are.
    pub fn new(owner: &Owner, plugin: &str) -> Self {
        Self(format!("{}.{plugin}", hex_digest(&owner.to_string(), 40)))
    }
}

fn encode<N: Serialize>(note: Option<&N>) -> Vec<u8> {
    note.and_then(|note| serde_json::to_vec(note).ok()).unwrap_or_default()
}

/// A note that can't be read is none: then the object counts as somebody else's, and is left alone.
fn decode<N: DeserializeOwned>(bytes: &[u8]) -> Option<N> {
    serde_json::from_slice(bytes).ok()
}
