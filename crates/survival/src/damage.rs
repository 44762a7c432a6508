//! Hosts whose state was damaged, lost or made read-only between two calls.
//!
//! What the conformance harness proves already is not repeated here: foreign leases and links in the way, DEL without namespace, result or
//! configuration (`conformance/README.md`).

mod clock;
mod firewall;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use testkit::tool;

use crate::job::{Event, Failure, Verb};
use crate::message;
use crate::world::{Guest, World};

/// The kinds of damage, and the networks that have them: what is done to files is done where there are all kinds of them.
pub(crate) const CASES: [(&str, &[&str]); 11] = [
    ("truncated", &["chain"]),
    ("empty", &["chain"]),
    ("garbage", &["chain"]),
    ("foreign", &["chain"]),
    ("symlinked", &["chain"]),
    ("read-only", &["chain"]),
    ("full disk", &["chain"]),
    ("clock steps", &["chain"]),
    ("reboot", &["chain", "dual", "iptables"]),
    ("firewall flush", &["chain", "dual", "iptables"]),
    ("firewalld reload", &["firewalld"]),
];

/// Where records and registers are.
const STATE: &str = "/run/ferrule";

/// Where leases are.
const LEASES: &str = "/var/lib/cni/networks";

/// What a link planted by somebody else points to.
const CANARY: &str = "/run/canary";

/// Damages hosts in one way, at every place where that can be done.
pub(crate) fn run(world: &World, case: &str, say: &mut impl FnMut(Event)) -> Result<(), Failure> {
    let before = World::look(&[]);
    let points = match case {
        "read-only" => read_only(world)?,
        "full disk" => full_disk(world)?,
        "reboot" => reboot(world)?,
        "clock steps" => clock::steps(world)?,
        "firewall flush" => firewall::flush(world)?,
        "firewalld reload" => firewall::reload(world)?,
        _ => files(world, case, say)?,
    };
    say(Event::Tried { point: case.to_owned(), points, missed: false, message: None, failure: None });
    let difference = before.difference(&World::look(&[]));
    if difference.is_empty() { Ok(()) } else { Err(differs("at the end", difference)) }
}

fn differs(when: &str, difference: Vec<String>) -> Failure {
    Failure::differing(&format!("{when}, the host is not as before"), difference)
}

fn io<T>(outcome: std::io::Result<T>) -> Result<T, Failure> {
    outcome.map_err(|error| Failure::new(format!("the damage could not be done: {error}")))
}

/// All files below a directory.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { all.extend(below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// One file after the other: ADD, damage, DEL, and the host is as it was; then the same container lives once more.
fn files(world: &World, case: &str, say: &mut impl FnMut(Event)) -> Result<usize, Failure> {
    let before = World::look(&[]);
    let mut tried = 0;
    for number in 0.. {
        let mut guest = world.guest(1);
        world.add(&mut guest, world.all())?;
        // Container and register names are the same each time.
        let Some(path) = below(Path::new(STATE)).into_iter().nth(number) else {
            world.del(&mut guest, world.all())?;
            break;
        };
        io(hurt(&path, case))?;
        let shown = path.display();
        let within = |mut failure: Failure| {
            failure.problem = format!("{shown} {case}: {}", failure.problem);
            failure
        };
        let outcome = world.del(&mut guest, world.all());
        if case == "symlinked" {
            planted(&path, &outcome)?;
            world.del(&mut guest, world.all()).map_err(within)?;
        } else {
            outcome.map_err(within)?;
        }
        let difference = before.difference(&World::look(&[]));
        if path.ends_with("note") && difference.iter().all(|line| line[1..].starts_with(" sysctl")) {
            // What a switch was before stood there alone.
            io(put_back(&difference))?;
        } else if !difference.is_empty() {
            return Err(within(differs("after DEL", difference)));
        }
        world.add(&mut guest, world.all()).map_err(within)?;
        world.check(&guest).map_err(within)?;
        world.del(&mut guest, world.all()).map_err(within)?;
        tried += 1;
    }
    say(Event::Note(format!("{tried} files of state, one at a time")));
    Ok(tried)
}

/// Somebody has put a link where a file of state was. It is not followed, and not removed either: whoever reads the message decides.
fn planted(path: &Path, outcome: &Result<(), Failure>) -> Result<(), Failure> {
    let shown = path.display().to_string();
    if fs::read(CANARY).ok().as_deref() != Some(b"canary\n") {
        return Err(Failure::new(format!("{shown}: what the link points to was changed")));
    }
    if let Err(failure) = outcome
        && !failure.problem.contains(&shown)
    {
        return Err(Failure::new(format!(
            "a link at {shown}: the message does not name it: {}",
            failure.problem
        )));
    }
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(CANARY);
    Ok(())
}

/// Sets switches to what they were: lines such as `- sysctl net/ipv4/ip_forward = 0`.
fn put_back(difference: &[String]) -> std::io::Result<()> {
    for line in difference {
        if let Some((key, value)) = line.strip_prefix("- sysctl ").and_then(|line| line.split_once(" = ")) {
            // Switches of all interfaces set those of each; the next line, or the next look, has them.
            fs::write(Path::new("/proc/sys").join(key), value)?;
        }
    }
    Ok(())
}

fn hurt(path: &Path, case: &str) -> std::io::Result<()> {
    let content = fs::read(path)?;
    match case {
        "truncated" => fs::write(path, &content[..content.len() / 2]),
        "empty" => fs::write(path, ""),
        "garbage" => fs::write(path, [0xff, 0, b'{', 0xfe, b'\n', b'"'].repeat(40)),
        "foreign" => fs::write(path, "{\"format\": 99, \"made\": [1, 2, 3]}\n"),
        _ => {
            fs::write(CANARY, "canary\n")?;
            fs::remove_file(path)?;
            symlink(CANARY, path)
        }
    }
}

/// An ADD that fails leaves everything as it is.
fn refused(world: &World, guest: &mut Guest, what: &str) -> Result<(), Failure> {
    let before = World::look(&[guest]);
    for plugin in world.all() {
        let ended = world.execution(plugin, Verb::Add, guest).run();
        if ended.succeeded() {
            world.keep(plugin, guest, &ended)?;
            continue;
        }
        message::judge(&ended)?;
        world.del(guest, world.all())?;
        let difference = before.difference(&World::look(&[guest]));
        return if difference.is_empty() { Ok(()) } else { Err(differs(what, difference)) };
    }
    Err(Failure::new(format!("{what}: ADD succeeded")))
}

fn read_only(world: &World) -> Result<usize, Failure> {
    let mut tried = 0;
    for directory in [STATE, LEASES] {
        io(fs::create_dir_all(directory))?;
        bound(directory, MsFlags::MS_BIND, None)?;
        bound(directory, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None)?;
        let outcome = refused(world, &mut world.guest(1), &format!("{directory} read-only"));
        umount2(directory, MntFlags::MNT_DETACH).expect("unmounting what was mounted here");
        let _ = fs::remove_dir(directory);
        outcome?;
        tried += 1;
    }
    Ok(tried)
}

fn bound(directory: &str, flags: MsFlags, options: Option<&str>) -> Result<(), Failure> {
    let kind = if options.is_some() { "tmpfs" } else { directory };
    let file_system = options.map(|_| "tmpfs");
    mount(Some(kind), directory, file_system, flags, options)
        .map_err(|error| Failure::new(format!("{directory} can't be mounted: {error}")))
}

/// A file system with room for one more file each time, until ADD succeeds: the disk is full at every place where that can happen.
fn full_disk(world: &World) -> Result<usize, Failure> {
    let mut tried = 0;
    for directory in [STATE, LEASES] {
        for inodes in 1.. {
            io(fs::create_dir_all(directory))?;
            bound(directory, MsFlags::empty(), Some(&format!("size=4m,nr_inodes={inodes},mode=0755")))?;
            let mut guest = world.guest(1);
            let before = World::look(&[&guest]);
            let added = added(world, &mut guest);
            let removed = world.del(&mut guest, world.all());
            let difference = before.difference(&World::look(&[&guest]));
            drop(guest);
            umount2(directory, MntFlags::MNT_DETACH).expect("unmounting what was mounted here");
            let _ = fs::remove_dir(directory);
            tried += 1;
            removed?;
            if !difference.is_empty() {
                return Err(differs(
                    &format!("{directory} with room for {inodes} files: after DEL"),
                    difference,
                ));
            }
            if added? {
                break;
            }
            if inodes > 400 {
                return Err(Failure::new(format!("{directory}: ADD needs more than {inodes} files")));
            }
        }
    }
    Ok(tried)
}

/// Whether all ADDs succeed; a message of one that does not has to name something.
fn added(world: &World, guest: &mut Guest) -> Result<bool, Failure> {
    for plugin in world.all() {
        let ended = world.execution(plugin, Verb::Add, guest).run();
        if !ended.succeeded() {
            return message::judge(&ended).map(|()| false);
        }
        world.keep(plugin, guest, &ended)?;
    }
    Ok(true)
}

/// The machine restarts: kernel state, records and containers are gone, leases are there.
fn reboot(world: &World) -> Result<usize, Failure> {
    let before = World::look(&[]);
    let mut guests: Vec<Guest> = (1..4).map(|number| world.guest(number)).collect();
    for guest in &mut guests {
        world.add(guest, world.all())?;
    }
    drop(guests);
    for directory in ["/run/ferrule", "/run/cni"] {
        let _ = fs::remove_dir_all(directory);
    }
    tool("nft", &["flush", "ruleset"]);
    tool("ip", &["link", "del", "cni-net0"]);
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        io(fs::write(Path::new("/proc/sys/net").join(switch), "0"))?;
    }
    // The kubelet starts its pods again under new names; what was there is for GC.
    let mut fresh = world.guest(9);
    world.add(&mut fresh, world.all())?;
    world.check(&fresh)?;
    world.gc(&[&fresh])?;
    world.check(&fresh)?;
    world.del(&mut fresh, world.all())?;
    world.settle();
    let difference = before.difference(&World::look(&[]));
    if difference.is_empty() { Ok(3) } else { Err(differs("after GC and DEL", difference)) }
}
