//! A clock that is set while containers live.
//!
//! Nobody here may set the machine's clock. What plugins can notice of it is in the times of files: those from before lie in the future, or
//! further in the past than they should, and who changes something now writes the new time. One plugin looks at them: `host-local` believes
//! its index only while the directory of leases bears a time that no clock gives. So files get the times they would have.

use std::fs::{self, File, FileTimes};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{LEASES, STATE, below, differs, io};
use crate::job::{Failure, Verb};
use crate::message;
use crate::world::{Guest, World};

/// By how many seconds the clock is set.
const STEPS: [(&str, i64); 5] = [
    ("two seconds back", -2),
    ("an hour back", -3600),
    ("a month back", -30 * 86_400),
    ("a day on", 86_400),
    ("to 1970", i64::MIN),
];

/// Lives across each step of the clock, with somebody else at work on the leases after it.
pub(super) fn steps(world: &World) -> Result<usize, Failure> {
    for (name, step) in STEPS {
        across(world, step).map_err(|mut failure| {
            failure.problem = format!("the clock is set {name}: {}", failure.problem);
            failure
        })?;
    }
    Ok(STEPS.len())
}

fn across(world: &World, step: i64) -> Result<(), Failure> {
    let before = World::look(&[]);
    let store = Path::new(LEASES).join("net");
    let [mut first, mut second, mut third] = [1, 2, 3].map(|number| world.guest(number));
    world.add(&mut first, world.all())?;
    world.add(&mut second, world.all())?;
    // When the plugin has last written what it compares.
    let stamped = io(fs::metadata(&store))?.ctime();
    for path in [STATE, "/var/lib/cni"].into_iter().flat_map(|root| below(Path::new(root))) {
        // By the new clock, what is there is as much newer as that was set back.
        io(bear(&path, later(stamped, step.saturating_neg())))?;
    }
    world.check(&first)?;
    world.check(&second)?;

    // The Go suite gives the next address to a container; ours is asked to take it back.
    let lost = address(&first)?;
    let taken = Ipv4Addr::from(u32::from(address(&second)?) + 1);
    let lease = store.join(taken.to_string());
    let mut stranger = world.guest(4);
    let now = || later(stamped, step);
    io(fs::write(&lease, format!("{}\r\neth0", stranger.id)).and_then(|()| bear(&store, now())))?;
    world.del_one(0, &mut stranger)?;
    if lease.exists() {
        return Err(Failure::new("DEL leaves the lease of a container that another suite connected"));
    }
    // It gives the address again, and somebody takes the first one's away.
    io(fs::write(&lease, format!("{}\r\neth0", stranger.id)))?;
    io(fs::remove_file(store.join(lost.to_string())).and_then(|()| bear(&store, now())))?;
    let ended = world.execution(0, Verb::Check, &first).run();
    if ended.succeeded() {
        return Err(Failure::new("CHECK does not notice that the lease is gone"));
    }
    message::judge(&ended)?;
    world.add(&mut third, world.all())?;
    let given = address(&third)?;
    if given == taken || given == address(&second)? {
        return Err(Failure::new(format!("{given} was given to two containers")));
    }
    world.check(&second)?;
    world.check(&third)?;
    world.gc(&[&first, &second, &third])?;
    if lease.exists() {
        return Err(Failure::new("GC leaves the lease of a container that is gone"));
    }
    for guest in [&mut first, &mut second, &mut third] {
        world.del(guest, world.all())?;
    }
    let difference = before.difference(&World::look(&[]));
    if difference.is_empty() { Ok(()) } else { Err(differs("after DEL", difference)) }
}

fn address(guest: &Guest) -> Result<Ipv4Addr, Failure> {
    let address = guest.addresses().pop().and_then(|address| address.parse().ok());
    address.ok_or_else(|| Failure::new("ADD returned no address"))
}

/// A time so many seconds later, but not before 1970, on a file system that keeps whole seconds: there, times are alike most easily.
fn later(time: i64, seconds: i64) -> SystemTime {
    let then = time.saturating_add(seconds).clamp(0, time * 2);
    SystemTime::UNIX_EPOCH + Duration::from_secs(then.unsigned_abs())
}

fn bear(path: &Path, time: SystemTime) -> std::io::Result<()> {
    File::open(path)?.set_times(FileTimes::new().set_modified(time).set_accessed(time))
}
