//! Objects that attachments share: a bridge, its gateway address, a forwarding switch, a firewall table.
//!
//! Nobody owns them alone, so each has a register, `/run/ferrule/shared/KIND/NAME`: a directory of users, and a note of what was there
//! before the first of them came. Who finds a shared object missing writes that down and makes it; who leaves last removes it again, but
//! only if it was made by us. That the directory of users is empty is found by rmdir(2), which is atomic and takes the same time for one
//! user and for ten thousand.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni::NetworkName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::owner::{Owner, hex_digest};
use crate::state::{self, LockedFile, StateError};

/// The register of one shared object.
#[derive(Debug)]
pub struct Shared {
    directory: PathBuf,
}

/// What is to be remembered of a shared object while it has users. Nobody else enters or leaves meanwhile.
#[derive(Debug)]
pub struct Note<'a, N> {
    file: &'a mut LockedFile,
    value: Option<N>,
    users: &'a Path,
    user: &'a User,
}

impl<N: Serialize> Note<'_, N> {
    /// What an earlier user has written, if it is still so.
    pub fn get(&self) -> Option<&N> {
        self.value.as_ref()
    }

    /// Whether nobody else is entered. A note is then that of a removal that failed or was cut short.
    pub fn is_first(&self) -> Result<bool, StateError> {
        Shared::is_alone(self.users, self.user)
    }

    /// Writes it down. To be called before the object is changed: whoever is killed in between has left what the last user needs.
    pub fn set(&mut self, value: N) -> Result<(), StateError> {
        self.file.append(&encode(&value))?;
        self.value = Some(value);
        Ok(())
    }
}

impl Shared {
    /// The register of an object: its kind, and what names it. The name may contain anything.
    pub fn new(kind: &str, name: &str) -> Self {
        Self { directory: state::path(["shared", kind, &file_name(name)]) }
    }

    /// Enters a user, then makes sure of the object. What is to be known when the last user leaves is written into the note first.
    pub fn acquire<N, E>(
        &self,
        user: &User,
        ensure: impl FnOnce(&mut Note<'_, N>) -> Result<(), E>,
    ) -> Result<(), E>
    where
        N: Serialize + DeserializeOwned,
        E: From<StateError>,
    {
        let mut file = LockedFile::create(&self.directory.join("note"))?;
        let users = self.directory.join("users");
        state::write_private(&users.join(&user.file), &user.owner)?;
        let value = decode(&file.read()?);
        ensure(&mut Note { file: &mut file, value, users: &users, user })
    }

    /// Enters a user of an object whose name says that it is ours, so that there is nothing to remember.
    pub fn enter<E: From<StateError>>(
        &self,
        user: &User,
        ensure: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.acquire(user, |_: &mut Note<'_, ()>| ensure())
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
        let mut note = match LockedFile::open(&self.directory.join("note"))? {
            Some(note) => note,
            // Somebody has removed the note.
            None if self.has(user) => LockedFile::create(&self.directory.join("note"))?,
            None => {
                // Who was killed while entering or leaving may have left empty directories.
                state::prune(&self.directory);
                return Ok(());
            }
        };
        let users = self.directory.join("users");
        let entry = users.join(&user.file);
        match fs::remove_file(&entry) {
            Err(error) if !state::missing(&error) => {
                return Err(StateError::file("remove", &entry)(error).into());
            }
            _ => {}
        }
        if !emptied(&users)? {
            return Ok(());
        }
        dispose(decode(&note.read()?))?;
        note.remove()?;
        Ok(())
    }

    /// As [`Shared::release`], for what was entered by [`Shared::enter`].
    pub fn leave<E: From<StateError>>(
        &self,
        user: &User,
        dispose: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.release(user, |_: Option<()>| dispose())
    }

    /// Whether a user is entered and nobody else. Who is about to enter may change that at once.
    pub fn has_only(&self, user: &User) -> bool {
        self.has(user) && Self::is_alone(&self.directory.join("users"), user).unwrap_or(false)
    }

    /// Whether nobody but the user is entered. The first other name ends the search, however many there are.
    fn is_alone(users: &Path, user: &User) -> Result<bool, StateError> {
        let mut entries = state::entries(users).map_err(StateError::file("list", users))?;
        Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == user.file.as_str())))
    }

    /// Asks `dispose` if nobody is entered, even if there is no register: the state directory may be lost, and the object still there. It
    /// has to see for itself that nobody uses it.
    pub fn sweep<E: From<StateError>>(&self, dispose: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let note = LockedFile::create(&self.directory.join("note"))?;
        if !emptied(&self.directory.join("users"))? {
            return Ok(());
        }
        dispose()?;
        note.remove()?;
        Ok(())
    }

    /// Looks at the object while nobody enters or leaves, and so while nobody makes or removes it; not at all if nobody is entered.
    pub fn look<E: From<StateError>>(&self, look: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let Some(_note) = LockedFile::open(&self.directory.join("note"))? else { return Ok(()) };
        if self.is_used() { look() } else { Ok(()) }
    }

    /// Whether anybody is entered.
    pub fn is_used(&self) -> bool {
        state::entries(&self.directory.join("users")).is_ok_and(|mut users| users.next().is_some())
    }

    /// Whether the user is entered.
    pub fn has(&self, user: &User) -> bool {
        self.directory.join("users").join(&user.file).exists()
    }

    /// The names of the objects of a kind that a user is entered for: where it has no record to say so.
    pub fn entered(kind: &str, user: &User) -> Result<Vec<String>, StateError> {
        let directory = state::path(["shared", kind]);
        let files = state::names(&directory)?.into_iter();
        let entered = files.filter(|file| directory.join(file).join("users").join(&user.file).exists());
        Ok(entered.filter_map(|file| name_of_file(&file)).collect())
    }

    /// Removes the empty directories that calls left which were killed while they entered or left, or whose rmdir(2) the kernel refused.
    pub fn tidy() -> Result<(), StateError> {
        let root = state::path(["shared"]);
        for kind in state::names(&root)? {
            for object in state::names(&root.join(&kind))? {
                // Fails where there is a note, and whoever is about to write one makes the directory again.
                state::prune(&root.join(&kind).join(object));
            }
            state::prune(&root.join(&kind));
        }
        state::prune(&root);
        Ok(())
    }

    /// The attachments to a network that are entered anywhere as users of a plugin.
    pub fn owners(plugin: &str, network: &NetworkName) -> Result<Vec<Owner>, StateError> {
        let root = state::path(["shared"]);
        let mut owners: Vec<Owner> = Vec::new();
        for kind in state::names(&root)? {
            for object in state::names(&root.join(&kind))? {
                owners.extend(owners_in(&root.join(&kind).join(object).join("users"), plugin, network)?);
            }
        }
        owners.sort();
        owners.dedup();
        Ok(owners)
    }
}

/// Removes a directory of users if nobody is in it; false if somebody is.
fn emptied(users: &Path) -> Result<bool, StateError> {
    match fs::remove_dir(users) {
        Ok(()) => Ok(true),
        Err(error) if state::missing(&error) => Ok(true),
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(StateError::file("remove directory", users)(error)),
    }
}

fn owners_in(users: &Path, plugin: &str, network: &NetworkName) -> Result<Vec<Owner>, StateError> {
    let of_plugin = |file: &String| file.rsplit_once('.').is_some_and(|(_, suffix)| suffix == plugin);
    let files = state::names(users)?.into_iter().filter(of_plugin);
    // One that can't be read has left meanwhile.
    let owners = files.filter_map(|file| fs::read(users.join(file)).ok()).filter_map(|bytes| decode(&bytes));
    Ok(owners.filter(|owner: &Owner| owner.network == *network).collect())
}

/// The longest file name; the file system's limit is 255 bytes.
const NAME_LIMIT: usize = 200;

/// A name as a file name that can be read, and turned back: what is not plain is written as `%` and two hexadecimal digits. A very long
/// one becomes two `%` and a digest, which can't be.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        // A leading dot is not plain: `.` and `..` are no names of files.
        let plain =
            byte.is_ascii_alphanumeric() || b"-_:".contains(&byte) || (byte == b'.' && !file.is_empty());
        if plain {
            file.push(char::from(byte));
        } else {
            file.push('%');
            file.extend([byte >> 4, byte & 15].map(hex_digit));
        }
    }
    if file.len() <= NAME_LIMIT { file } else { format!("%%{}", hex_digest(name, 32)) }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn name_of_file(file: &str) -> Option<String> {
    let mut pieces = file.split('%');
    let mut bytes: Vec<u8> = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        bytes.extend(piece.get(2..)?.as_bytes());
    }
    let name = String::from_utf8(bytes).ok()?;
    (file_name(&name) == file).then_some(name)
}

/// A user of a shared object: one attachment's part of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    file: String,
    owner: Vec<u8>,
}

impl User {
    /// The user that an owner and a plugin are.
    pub fn new(owner: &Owner, plugin: &str) -> Self {
        Self { file: format!("{}.{plugin}", hex_digest(&owner.to_string(), 40)), owner: encode(owner) }
    }
}

fn encode<N: Serialize>(value: &N) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The last whole line. A note that can't be read is none: then the object counts as somebody else's, and is left alone.
fn decode<N: DeserializeOwned>(bytes: &[u8]) -> Option<N> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    serde_json::from_slice(lines.next_back()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_again_in_its_file_name() {
        for (name, file) in [
            ("cni0", "cni0"),
            ("cni0.100", "cni0.100"),
            ("cni0 10.88.0.1/16", "cni0%2010.88.0.1%2f16"),
            ("cni0 fd00::1/64", "cni0%20fd00::1%2f64"),
            ("..", "%2e."),
            ("a%2fb", "a%252fb"),
            ("br-ü", "br-%c3%bc"),
        ] {
            assert_eq!(file_name(name), file);
            assert_eq!(name_of_file(file).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_long_name_becomes_a_digest() {
        let file = file_name(&"x".repeat(300));
        assert_eq!(file.len(), 34);
        assert_eq!(name_of_file(&file), None);
    }

    #[test]
    fn the_last_whole_line_of_a_note_counts() {
        assert_eq!(decode::<u32>(b""), None);
        assert_eq!(decode::<u32>(b"1\n"), Some(1));
        assert_eq!(decode::<u32>(b"1\n2\n"), Some(2));
        assert_eq!(decode::<u32>(b"1\n2"), Some(1), "2 is the beginning of 23, perhaps");
        assert_eq!(decode::<u32>(b"1\nx\n"), None);
    }
}
