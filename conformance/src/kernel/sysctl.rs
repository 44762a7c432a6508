//! The settings below `/proc/sys/net` of one network namespace.
//!
//! There are half a thousand, and they are looked at before and after each call of each case. Those of interfaces come from the list of links. The
//! others are read once, and again when somebody has written to one of them, which the kernel tells ([`Watch`]); [`untold`] finds what it did not tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::devconf;
use super::netlink::View;
use super::watch::Watch;

/// The kernel clears as much memory as the buffer is long, each time; a value that is longer is compared as far as it goes.
const LONGEST: usize = 512;

/// Files and directories that stay open, over all namespaces: far less than the 1024 descriptors that a process has as a rule.
const KEEP: usize = 700;

/// Of them, those that are left to directories: without them a namespace cannot be watched.
const FOR_DIRECTORIES: usize = 350;

/// Where the settings of links are, each in a directory with the link's name, beside `all` and `default`.
const OF_LINKS: [(&str, bool); 2] = [("net/ipv4/conf", true), ("net/ipv6/conf", false)];

/// A setting that every namespace has, by which one is seen to be there still.
const ALWAYS: &str = "net/ipv4/conf/all/forwarding";

/// Whoever reads it takes the lock that every change of a link holds, over grace periods even; while somebody else has it, the kernel tries again at
/// full speed. So it is read again only after a write to one of its kind.
const SPINNING: &str = "addr_gen_mode";

/// Name and value of each setting of a namespace as a whole: `net/ipv4/ip_forward` and `1`.
type Values = Arc<Vec<(Arc<str>, Arc<str>)>>;

/// The name of a setting that each link has, of IPv4 or not.
type OfEach = (bool, Arc<str>);

/// The settings of a namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    own: Values,
    /// Those of its links, by the link's name.
    links: BTreeMap<String, OfLink>,
}

/// The settings of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfLink {
    listed: devconf::Settings,
    /// Those that the list of links lacks.
    read: Vec<(Arc<str>, Arc<str>)>,
}

/// What is known from the looks before.
#[derive(Debug)]
struct Memory {
    /// By the namespace's inode.
    namespaces: HashMap<u64, Known>,
    /// `None` where the system gives none: then every look reads everything.
    watch: Option<Watch>,
    /// How many more files may stay open.
    room: usize,
}

/// What is known of a namespace.
#[derive(Debug, Default)]
struct Known {
    /// The file of [`ALWAYS`]: it refuses to be read when the namespace is gone, whose inode another one may have by then.
    here: Option<File>,
    /// The directories of `own`. While they are open, the kernel keeps what the watch hangs on.
    places: Vec<File>,
    /// A write to anything in `places` is told.
    watched: bool,
    own: Vec<Setting>,
    /// The values of `own` at the look before, unless something was written since.
    values: Option<Values>,
    /// The directories, by index in `places`, that were written to since.
    written: BTreeSet<usize>,
    names: Vec<OfEach>,
    /// Those of them that a list of links lacks, by how many it has.
    lacking: HashMap<(usize, usize), Vec<OfEach>>,
    /// Settings that the list of links lacks, by index and name of the link.
    links: HashMap<(u32, String), Vec<Setting>>,
}

/// A setting.
#[derive(Debug)]
struct Setting {
    name: Arc<str>,
    /// The index of its directory, and the length of the directory's name; none of a link's.
    place: Option<(usize, usize)>,
    /// A file of a namespace or a link that is gone refuses to be read, and is opened anew.
    file: Option<File>,
    /// Its value at the last look.
    known: Option<Arc<str>>,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

impl Settings {
    /// Reads those of the calling thread's namespace, whose links are in `view`.
    pub(super) fn read(view: &View) -> Self {
        Memory::with_this_namespace(|known, room| {
            let own = known.values.clone().unwrap_or_else(|| known.look(room));
            known.written.clear();
            known.values = known.watched.then(|| Arc::clone(&own));
            Self { own, links: known.look_at_links(view, room) }
        })
    }

    /// Each setting that differs between two looks: its name, its value before and its value now. Of links that came or went there is
    /// nothing to say that their own line does not.
    pub(super) fn difference(&self, later: &Self) -> Vec<(String, Option<String>, Option<String>)> {
        if self == later {
            return Vec::new();
        }
        let (old, new) = (self.beside(later), later.beside(self));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
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
            let read = settings.read.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            listed.chain(read)
        });
        own.chain(of_links).collect()
    }
}

/// The settings of the calling thread's namespace that are not what the looks before took them for, because they changed and no write was told: a
/// line each. Nothing, of a namespace that nobody has looked at; [`SPINNING`] is left out.
pub(crate) fn untold() -> Vec<String> {
    Memory::with_this_namespace(|known, room| {
        let Some(told) = known.values.take() else { return Vec::new() };
        let now: BTreeMap<_, _> = known.look(room).iter().cloned().collect();
        let untold = told.iter().filter(|(name, value)| now.get(name) != Some(value));
        let line = |(name, value): &(Arc<str>, Arc<str>)| {
            format!("{name}: {value} -> {}", now.get(name).map_or("gone", |now| now))
        };
        untold.map(line).collect()
    })
}

impl Memory {
    /// Calls `work` with what is known of the calling thread's namespace, and the number of files that may still stay open.
    fn with_this_namespace<T>(work: impl FnOnce(&mut Known, &mut usize) -> T) -> T {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino());
        let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memory.get_or_insert_with(|| Self {
            namespaces: HashMap::new(),
            watch: Watch::new(),
            room: KEEP,
        });
        if let Some(watch) = &mut memory.watch {
            for written in watch.written() {
                match written {
                    Some((namespace, place)) => {
                        memory.namespaces.get_mut(&namespace).map(|known| known.told(place..place + 1))
                    }
                    None => {
                        memory.namespaces.values_mut().map(|known| known.told(0..known.places.len())).last()
                    }
                };
            }
        }
        if memory.namespaces.get(&namespace).is_some_and(|known| !known.is_here()) {
            memory.forget(namespace);
        }
        let (watch, room) = (&mut memory.watch, &mut memory.room);
        let known = memory.namespaces.entry(namespace).or_insert_with(|| Known::list(namespace, watch, room));
        work(known, room)
    }

    fn forget(&mut self, namespace: u64) {
        if let Some(watch) = &mut self.watch {
            watch.forget(namespace);
        }
        if let Some(known) = self.namespaces.remove(&namespace) {
            let settings = known.own.iter().chain(known.links.values().flatten());
            self.room += known.places.len() + settings.filter(|setting| setting.file.is_some()).count();
        }
    }
}

impl Known {
    fn list(namespace: u64, watch: &mut Option<Watch>, room: &mut usize) -> Self {
        let mut known = Self { here: open_setting(ALWAYS).ok(), ..Self::default() };
        for root in ["net/core", "net/ipv4", "net/ipv6", "net/netfilter", "net/bridge"] {
            known.add(root);
        }
        for (directory, ipv4) in OF_LINKS {
            let names = entries(&format!("{directory}/default")).into_iter();
            known.names.extend(
                names.filter(|(name, _)| !is_volatile(name)).map(|(name, _)| (ipv4, Arc::from(name))),
            );
        }
        if let Some(left) = room.checked_sub(known.places.len()) {
            known.watched = watch.as_mut().is_some_and(|watch| watch.add(namespace, &known.places));
            *room = left;
        } else {
            known.own.iter_mut().for_each(|setting| setting.place = None);
            known.places.clear();
        }
        known
    }

    /// Adds the settings in a directory and those below it, but for links' and what the kernel counts.
    fn add(&mut self, place: &str) {
        let Ok(directory) = open_setting(place) else { return };
        let index = self.places.len();
        self.places.push(directory);
        for (name, is_directory) in entries(place) {
            let path = format!("{place}/{name}");
            if is_directory {
                let is_link = OF_LINKS.iter().any(|(links, _)| place == *links)
                    && !["all", "default"].contains(&name.as_str());
                if name != "neigh" && !is_link {
                    self.add(&path);
                }
            } else if !is_volatile(&name) {
                self.own.push(Setting::new(path.into(), Some((index, place.len()))));
            }
        }
    }

    fn is_here(&self) -> bool {
        self.here.as_ref().is_some_and(|file| value_of(file).is_ok())
    }

    /// Somebody wrote to a setting in these directories.
    fn told(&mut self, places: std::ops::Range<usize>) {
        self.values = None;
        self.written.extend(places);
    }

    fn look(&mut self, room: &mut usize) -> Values {
        let written =
            |setting: &Setting| setting.place.is_none_or(|(place, _)| self.written.contains(&place));
        let spin = !self.watched || self.own.iter().any(|setting| setting.spins() && written(setting));
        let places = &self.places;
        let look = |setting: &mut Setting| match &setting.known {
            Some(value) if !spin && setting.spins() => Some((Arc::clone(&setting.name), Arc::clone(value))),
            _ => setting.look(places, room),
        };
        Arc::new(self.own.iter_mut().filter_map(look).collect())
    }

    fn look_at_links(&mut self, view: &View, room: &mut usize) -> BTreeMap<String, OfLink> {
        let mut before = std::mem::take(&mut self.links);
        let mut links = BTreeMap::new();
        for link in &view.links {
            let key = (link.index, link.name.clone());
            let mut settings = before.remove(&key).unwrap_or_else(|| self.lacking(link));
            let read = settings.iter_mut().filter_map(|setting| setting.look(&[], room)).collect();
            self.links.insert(key, settings);
            links.insert(link.name.clone(), OfLink { listed: link.settings.clone(), read });
        }
        *room += before.values().flatten().filter(|setting| setting.file.is_some()).count();
        links
    }

    /// The settings of a link that its message lacks.
    fn lacking(&mut self, link: &super::Link) -> Vec<Setting> {
        let names = &self.names;
        let lacking = self.lacking.entry(link.settings.lengths()).or_insert_with(|| {
            let lacks = |(ipv4, name): &&OfEach| link.settings.value(*ipv4, name).is_none();
            names.iter().filter(lacks).cloned().collect()
        });
        let setting = |(ipv4, name): &OfEach| Setting::new(of_link(*ipv4, &link.name, name).into(), None);
        lacking.iter().map(setting).collect()
    }
}

impl Setting {
    fn new(name: Arc<str>, place: Option<(usize, usize)>) -> Self {
        Self { name, place, file: None, known: None }
    }

    fn spins(&self) -> bool {
        self.name.ends_with(SPINNING)
    }

    /// Name and value; `None` where nobody may read it. Its file stays open while there is room.
    fn look(&mut self, places: &[File], room: &mut usize) -> Option<(Arc<str>, Arc<str>)> {
        let kept = self.file.as_ref().and_then(|file| value_of(file).ok());
        let value = if let Some(value) = kept {
            value
        } else {
            *room += usize::from(self.file.take().is_some());
            let file = self.open(places).ok()?;
            let value = value_of(&file).ok()?;
            if *room > FOR_DIRECTORIES {
                *room -= 1;
                self.file = Some(file);
            }
            value
        };
        // Most are what they were, and two looks share the text.
        let known = self.known.take().filter(|known| **known == *value);
        let value = known.unwrap_or_else(|| value.into());
        self.known = Some(Arc::clone(&value));
        Some((Arc::clone(&self.name), value))
    }

    fn open(&self, places: &[File]) -> io::Result<File> {
        let Some((index, length)) = self.place else { return open_setting(&self.name) };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(openat(&places[index], &self.name[length + 1..], flags, Mode::empty())?.into())
    }
}

/// The names in a directory of settings, and whether each is a directory.
fn entries(place: &str) -> Vec<(String, bool)> {
    let entries = fs::read_dir(Path::new("/proc/sys").join(place)).into_iter().flatten().flatten();
    let entry = |entry: fs::DirEntry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        (entry.file_name().to_string_lossy().into_owned(), is_directory)
    };
    entries.map(entry).collect()
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

    /// Each is written by itself, with the value that it has, and the next look must read.
    #[test]
    fn every_write_is_told() {
        let mut written = 0;
        for (name, value) in look().own.iter() {
            if fs::write(Path::new("/proc/sys").join(&**name), value.as_bytes()).is_ok() {
                let told = Memory::with_this_namespace(|known, _| known.values.is_none());
                assert!(told, "{name}");
                written += 1;
            }
            look();
            assert!(Memory::with_this_namespace(|known, _| known.values.is_some()), "{name}");
        }
        assert!(written > 200, "{written}");
    }

    #[test]
    fn what_is_not_told_is_found() {
        look();
        assert_eq!(untold(), Vec::<String>::new());
        look();
        let namespace = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        MEMORY.lock().unwrap().as_mut().unwrap().watch.as_mut().unwrap().forget(namespace);
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        // The kernel tells of the watch that is gone, and everything is read; of the next write nobody tells.
        look();
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "0").unwrap();
        look();
        assert_eq!(untold(), ["net/ipv4/conf/all/log_martians: 1 -> 0"]);
    }

    /// The kernel gives the inode of a namespace that is gone to the next one.
    #[test]
    fn a_new_namespace_is_not_taken_for_one_that_is_gone() {
        let value = |settings: &Settings| {
            let setting = settings.own.iter().find(|(name, _)| &**name == "net/ipv4/conf/all/log_martians");
            setting.map(|(_, value)| value.to_string())
        };
        let mut inodes = BTreeSet::new();
        // It takes them away when it comes to it.
        for _ in 0..300 {
            let there = std::thread::spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                assert_eq!(value(&look()).as_deref(), Some("0"));
                fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
                assert_eq!(value(&look()).as_deref(), Some("1"));
                fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
            });
            if !inodes.insert(there.join().unwrap()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the kernel gave no inode twice");
    }

    #[test]
    fn what_is_read_seldom_is_read_when_it_is_written() {
        let before = look();
        let all = "net/ipv6/conf/all/addr_gen_mode";
        // A write elsewhere is no reason.
        fs::write("/proc/sys/net/ipv4/conf/all/log_martians", "1").unwrap();
        assert_eq!(changed(&before, &look()), ["net/ipv4/conf/all/log_martians"]);
        fs::write(format!("/proc/sys/{all}"), "1").unwrap();
        assert!(changed(&before, &look()).iter().any(|name| name == all));
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
