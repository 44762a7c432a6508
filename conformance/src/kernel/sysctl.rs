//! The settings below `/proc/sys/net` of one network namespace.
//!
//! There are half a thousand, and they are read before and after each call of each case: what a look costs is the number of its system calls.
//! So those of interfaces come from the list of links, files are opened from their own directory, and the first few hundred stay open from
//! one look to the next.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::netlink::View;

/// How a directory is opened to be read.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// The kernel clears as much memory as the buffer is long, each time; a value that is longer is compared as far as it goes.
const LONGEST: usize = 512;

/// Files that stay open, by the namespace and the setting. A file of a namespace that is gone refuses to be read, and is opened anew.
static KEPT: Mutex<Option<HashMap<(u64, String), File>>> = Mutex::new(None);

/// How many: far less than the 1024 descriptors that a process has as a rule.
const KEEP: usize = 700;

/// Gives `put` every setting of the calling thread's namespace, as `net/ipv4/ip_forward` and its value.
pub(super) fn read(view: &View, put: &mut dyn FnMut(&str, String)) {
    let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino());
    for root in ["net/core", "net/ipv4", "net/ipv6", "net/netfilter", "net/bridge"] {
        if let Ok(directory) = Dir::open(&Path::new("/proc/sys").join(root), DIRECTORY, Mode::empty()) {
            walk(namespace, root, directory, view, put);
        }
    }
}

fn walk(namespace: u64, place: &str, mut directory: Dir, view: &View, put: &mut dyn FnMut(&str, String)) {
    let entries = directory.iter().flatten().map(|entry| {
        (entry.file_name().to_string_lossy().into_owned(), entry.file_type() == Some(Type::Directory))
    });
    let (directories, settings): (Vec<_>, Vec<_>) = entries.partition(|(_, is_directory)| *is_directory);
    let link = place.rsplit_once("/conf/").and_then(|(family, name)| {
        Some((view.link(name)?, family.ends_with("ipv4"))) // `all` and `default` are no links
    });
    for (name, _) in settings.into_iter().filter(|(name, _)| !is_volatile(name)) {
        let setting = format!("{place}/{name}");
        let value = match link {
            Some((link, ipv4)) => match link.settings.value(ipv4, &name) {
                Some(value) => Some(value.to_string()),
                None => open(&directory, &name).and_then(|file| text(|bytes| (&file).read(bytes))).ok(),
            },
            None => kept(namespace, &setting, || open(&directory, &name)).ok(),
        };
        if let Some(value) = value {
            put(&setting, value);
        }
    }
    for (name, _) in directories {
        if !["neigh", ".", ".."].contains(&name.as_str())
            && let Ok(below) = Dir::openat(&directory, name.as_str(), DIRECTORY, Mode::empty())
        {
            walk(namespace, &format!("{place}/{name}"), below, view, put);
        }
    }
}

/// Written by the kernel as time goes by, not by anybody who configures.
fn is_volatile(name: &str) -> bool {
    ["nf_conntrack_count", "stable_secret", "fib_notify_on_flag_change", "max_map_count"].contains(&name)
        || name.ends_with("_mem")
}

fn open(directory: &Dir, name: &str) -> io::Result<File> {
    Ok(openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into())
}

/// The value of a setting, from the file that is open for it, or that is opened now.
fn kept(namespace: u64, setting: &str, open: impl FnOnce() -> io::Result<File>) -> io::Result<String> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    let key = (namespace, setting.to_owned());
    if let Some(file) = kept.get(&key)
        && let Ok(value) = text(|bytes| file.read_at(bytes, 0))
    {
        return Ok(value);
    }
    let file = open()?;
    let value = text(|bytes| file.read_at(bytes, 0))?;
    if kept.len() < KEEP || kept.contains_key(&key) {
        kept.insert(key, file);
    }
    Ok(value)
}

/// A file of `/proc/sys` gives all it has to one read.
fn text(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<String> {
    let mut bytes = [0; LONGEST];
    let length = read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all() -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        read(&View::read().unwrap(), &mut |name, value| {
            assert!(settings.insert(name.to_owned(), value).is_none(), "{name} came twice");
        });
        settings
    }

    #[test]
    fn a_second_look_sees_what_has_changed() {
        let before = all();
        assert!(before.len() > 300, "{}", before.len());
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/lo/log_martians", "1").unwrap();
        let after = all();
        let changed: Vec<_> = before.iter().filter(|(name, value)| after.get(*name) != Some(value)).collect();
        let changed: Vec<_> = changed.into_iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(changed, ["net/ipv4/conf/all/log_martians", "net/ipv4/conf/lo/log_martians"]);
    }

    #[test]
    fn a_namespace_is_not_taken_for_another() {
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        assert_eq!(all()["net/ipv4/conf/all/log_martians"], "1");
        let elsewhere = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            all()
        });
        assert_eq!(elsewhere.join().unwrap()["net/ipv4/conf/all/log_martians"], "0");
    }
}
