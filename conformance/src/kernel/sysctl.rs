//! The settings below `/proc/sys/net` of one network namespace.
//!
//! There are half a thousand, and they are read before and after each call of each case: what a look costs is the number of its system calls.
//! So those of interfaces come from the list of links; the others' directories are listed once, and the first few hundred files stay open from
//! one look to the next.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::devconf;
use super::netlink::View;

/// The kernel clears as much memory as the buffer is long, each time; a value that is longer is compared as far as it goes.
const LONGEST: usize = 512;

/// Files that stay open, over all namespaces: far less than the 1024 descriptors that a process has as a rule.
const KEEP: usize = 700;

/// Where the settings of links are, each in a directory with the link's name, beside `all` and `default`.
const OF_LINKS: [(&str, bool); 2] = [("net/ipv4/conf", true), ("net/ipv6/conf", false)];

/// The settings of a namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Those of the namespace as a whole: `net/ipv4/ip_forward` and its value.
    own: Vec<(Arc<str>, Arc<str>)>,
    /// Those of its links, by the link's name.
    links: BTreeMap<String, OfLink>,
}

/// The settings of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfLink {
    listed: devconf::Settings,
    /// Those that the list of links lacks.
    read: Vec<(String, String)>,
}

/// What is known of a namespace from the look before.
#[derive(Debug)]
struct Known {
    own: Vec<Setting>,
    /// Names of the settings that each link has, of IPv4 or not.
    of_links: Vec<(bool, Arc<str>)>,
}

/// A setting of the namespace as a whole.
#[derive(Debug)]
struct Setting {
    name: Arc<str>,
    /// A file of a namespace that is gone refuses to be read, and is opened anew.
    file: Option<File>,
    value: Arc<str>,
}

/// By the namespace's inode.
static KNOWN: Mutex<Option<HashMap<u64, Known>>> = Mutex::new(None);

impl Settings {
    /// Reads those of the calling thread's namespace, whose links are in `view`.
    pub(super) fn read(view: &View) -> Self {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let open =
            known.values().flat_map(|known| &known.own).filter(|setting| setting.file.is_some()).count();
        let known = known.entry(namespace).or_insert_with(Known::list);
        let mut room = KEEP.saturating_sub(open);
        let own = known.own.iter_mut().filter_map(|setting| setting.look(&mut room)).collect();
        let links = view.links.iter().map(|link| {
            let lacking =
                known.of_links.iter().filter(|(ipv4, name)| link.settings.value(*ipv4, name).is_none());
            let read = lacking.filter_map(|(ipv4, name)| {
                let setting = of_link(*ipv4, &link.name, name);
                let value = value_of(&open_setting(&setting).ok()?).ok()?;
                Some((setting, value))
            });
            let read = read.collect();
            (link.name.clone(), OfLink { listed: link.settings.clone(), read })
        });
        Self { own, links: links.collect() }
    }

    /// Each setting that differs between two looks: its name, its value before and its value now. Of links that came or went there is
    /// nothing to say that their own line does not.
    pub(super) fn difference(&self, later: &Self) -> Vec<(String, Option<String>, Option<String>)> {
        if self == later {
            return Vec::new();
        }
        let (old, new) = (self.beside(later), later.beside(self));
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let values =
            names.into_iter().map(|name| (name.clone(), old.get(name).cloned(), new.get(name).cloned()));
        values.filter(|(_, before, now)| before != now).collect()
    }

    /// Name and value of each, but for links that `other` does not have.
    fn beside(&self, other: &Self) -> BTreeMap<String, String> {
        let own = self.own.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let links = self.links.iter().filter(|(link, _)| other.links.contains_key(*link));
        let of_links = links.flat_map(|(link, settings)| {
            let listed = settings
                .listed
                .named()
                .map(move |(ipv4, name, value)| (of_link(ipv4, link, name), value.to_string()));
            listed.chain(settings.read.iter().cloned())
        });
        own.chain(of_links).collect()
    }
}

impl Known {
    fn list() -> Self {
        let mut own = Vec::new();
        for root in ["net/core", "net/ipv4", "net/ipv6", "net/netfilter", "net/bridge"] {
            list(root, &mut own);
        }
        let mut of_links = Vec::new();
        for (directory, ipv4) in OF_LINKS {
            let mut names = Vec::new();
            list(&format!("{directory}/default"), &mut names);
            let names = names.iter().filter_map(|setting| setting.name.rsplit('/').next());
            of_links.extend(names.map(|name| (ipv4, Arc::from(name))));
        }
        Self { own, of_links }
    }
}

impl Setting {
    /// Name and value; `None` where nobody may read it. Its file stays open while there is room.
    fn look(&mut self, room: &mut usize) -> Option<(Arc<str>, Arc<str>)> {
        let kept = self.file.as_ref().and_then(|file| value_of(file).ok());
        let value = if let Some(value) = kept {
            value
        } else {
            self.file = None;
            let file = open_setting(&self.name).ok()?;
            let value = value_of(&file).ok()?;
            if let Some(left) = room.checked_sub(1) {
                *room = left;
                self.file = Some(file);
            }
            value
        };
        // Most are what they were, and two looks share the text.
        if *self.value != *value {
            self.value = value.into();
        }
        Some((Arc::clone(&self.name), Arc::clone(&self.value)))
    }
}

/// Adds the settings in a directory and those below it, but for links' and what the kernel counts.
fn list(place: &str, settings: &mut Vec<Setting>) {
    let Ok(entries) = fs::read_dir(Path::new("/proc/sys").join(place)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{place}/{name}");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let is_link = OF_LINKS.iter().any(|(links, _)| place == *links)
                && !["all", "default"].contains(&name.as_str());
            if name != "neigh" && !is_link {
                list(&path, settings);
            }
        } else if !is_volatile(&name) {
            settings.push(Setting { name: path.into(), file: None, value: "".into() });
        }
    }
}

/// `net/ipv4/conf/eth0/forwarding`
fn of_link(ipv4: bool, link: &str, name: &str) -> String {
    format!("net/{}/conf/{link}/{name}", if ipv4 { "ipv4" } else { "ipv6" })
}

/// Written by the kernel as time goes by, not by anybody who configures.
fn is_volatile(name: &str) -> bool {
    ["nf_conntrack_count", "stable_secret", "fib_notify_on_flag_change", "max_map_count"].contains(&name)
        || name.ends_with("_mem")
}

fn open_setting(name: &str) -> io::Result<File> {
    File::open(Path::new("/proc/sys").join(name))
}

/// A file of `/proc/sys` gives all it has to one read.
fn value_of(file: &File) -> io::Result<String> {
    let mut bytes = [0; LONGEST];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Settings {
        Settings::read(&View::read().unwrap())
    }

    fn changed(before: &Settings, after: &Settings) -> Vec<String> {
        before.difference(after).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn a_second_look_sees_what_has_changed() {
        let before = look();
        assert!(before.own.len() > 300, "{}", before.own.len());
        assert_eq!(changed(&before, &look()), Vec::<String>::new());
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/lo/log_martians", "1").unwrap();
        assert_eq!(
            changed(&before, &look()),
            ["net/ipv4/conf/all/log_martians", "net/ipv4/conf/lo/log_martians"]
        );
    }

    /// What `sysctl` of procps finds is found, but for the settings that say nothing about configuration.
    #[test]
    fn nothing_is_overlooked() {
        let settings = look();
        let found = settings.beside(&settings);
        let mut missing = Vec::new();
        let mut below = vec![Path::new("/proc/sys/net").to_owned()];
        while let Some(directory) = below.pop() {
            for entry in fs::read_dir(&directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    below.push(path);
                } else if fs::read(&path).is_ok() {
                    let name = path.strip_prefix("/proc/sys").unwrap().to_str().unwrap().to_owned();
                    missing.extend((!found.contains_key(&name)).then_some(name));
                }
            }
        }
        let elsewhere =
            ["/neigh/", "net/mptcp/", "net/unix/", "net/vsock/", "net/sctp/", "net/mpls/", "_mem"];
        missing.retain(|name| {
            !elsewhere.iter().any(|part| name.contains(part))
                && !name.rsplit('/').next().is_some_and(is_volatile)
        });
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn a_namespace_is_not_taken_for_another() {
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        let here = look();
        let elsewhere = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            look()
        });
        let there = elsewhere.join().unwrap();
        assert!(changed(&here, &there).contains(&"net/ipv4/conf/all/log_martians".to_owned()));
        assert_eq!(here, look());
    }
}
