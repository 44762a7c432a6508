//! Many calls at once: what two of them do to the same bridge, table, store or record.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::job::{Failure, Verb};
use crate::world::{Chain, Guest, World};

/// The storms, and by how much each is smaller than the first.
pub(crate) const STORMS: [(&str, usize); 5] =
    [("first use", 1), ("mixed", 4), ("same container", 4), ("two networks", 2), ("gives up", 2)];

/// Lets a storm of so many containers loose; how many calls that was.
pub(crate) fn run(world: &World, name: &str, size: usize) -> Result<usize, Failure> {
    let before = World::look(&[]);
    let guests: Vec<Guest> = (0..size).map(|number| world.guest(number)).collect();
    let calls = match name {
        "first use" => first_use(world, guests),
        "mixed" => mixed(world, guests),
        "same container" => same_container(world, guests),
        "two networks" => two_networks(world, guests),
        _ => gives_up(world, guests),
    }?;
    let difference = before.difference(&World::look(&[]));
    if difference.is_empty() {
        return Ok(calls);
    }
    Err(Failure::differing("after the storm, the host is not as before", difference))
}

/// Does something for all at once; the first failure of all.
fn all_at_once(
    guests: &mut [Guest],
    work: impl Fn(usize, &mut Guest) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let outcomes: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = guests
            .iter_mut()
            .enumerate()
            .map(|(number, guest)| scope.spawn(move || work(number, guest)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of a storm")).collect()
    });
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    outcomes.into_iter().find_map(Result::err).map_or(Ok(()), |mut failure| {
        failure.problem = format!("{failed} of {} failed; one: {}", guests.len(), failure.problem);
        Err(failure)
    })
}

/// Nobody has an address that somebody else has.
fn distinct(guests: &[Guest]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for address in guests.iter().flat_map(Guest::addresses) {
        if !seen.insert(address.clone()) {
            return Err(Failure::new(format!("{address} was given to two containers")));
        }
    }
    if seen.len() < guests.len() {
        return Err(Failure::new(format!("{} addresses for {} containers", seen.len(), guests.len())));
    }
    Ok(())
}

/// ADDs on an empty host: the bridge, the tables and the store are made by whoever comes first.
fn first_use(world: &World, mut guests: Vec<Guest>) -> Result<usize, Failure> {
    all_at_once(&mut guests, |_, guest| world.add(guest, world.all()))?;
    distinct(&guests)?;
    all_at_once(&mut guests, |_, guest| world.check(guest))?;
    all_at_once(&mut guests, |_, guest| world.del(guest, world.all()))?;
    Ok(guests.len() * world.all().len() * 3)
}

/// Lives of containers side by side, with GC all the time, which has them all on its list.
fn mixed(world: &World, mut guests: Vec<Guest>) -> Result<usize, Failure> {
    const LIVES: usize = 4;
    let over = AtomicBool::new(false);
    // GC is told of containers by name; these stand for those that are at work.
    let named: Vec<Guest> = guests.iter().map(Guest::name_only).collect();
    let valid: Vec<&Guest> = named.iter().collect();
    let (lives, collections) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                world.gc(&valid)?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let outcome = all_at_once(&mut guests, |_, guest| {
            for _ in 0..LIVES {
                world.add(guest, world.all())?;
                world.check(guest)?;
                world.del(guest, world.all())?;
            }
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        (outcome, collector.join().expect("the thread of GC"))
    });
    lives?;
    let rounds: usize = collections?;
    Ok((guests.len() * LIVES * 3 + rounds) * world.all().len())
}

/// Two ADDs of the same container at the same time, as two sync loops of a runtime may have it. Whichever of them fails: after a DEL nothing
/// is left, and the next ADD works.
fn same_container(world: &World, mut guests: Vec<Guest>) -> Result<usize, Failure> {
    all_at_once(&mut guests, |_, guest| {
        let again = &mut guest.name_only();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| world.add_one(0, again));
            let second = world.add_one(0, guest);
            let first = first.join().expect("a thread of a storm");
            if first.is_err() && second.is_err() { first } else { Ok(()) }
        })?;
        guest.forget();
        world.del(guest, world.all())?;
        world.add(guest, world.all())?;
        world.check(guest)
    })?;
    distinct(&guests)?;
    all_at_once(&mut guests, |_, guest| world.del(guest, world.all()))?;
    Ok(guests.len() * (2 + 4 * world.all().len()))
}

/// Two networks share a bridge: what one of them leaves, the other still needs.
fn two_networks(world: &World, mut guests: Vec<Guest>) -> Result<usize, Failure> {
    let mut other = world.network.clone();
    other.list["name"] = json!("other");
    other.list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "fd00:99::/64" }]]);
    let other = world.with(other);
    let chain = |number: usize| -> &Chain { if number.is_multiple_of(2) { world } else { &other } };
    all_at_once(&mut guests, |number, guest| chain(number).add(guest, world.all()))?;
    distinct(&guests)?;
    // The first network goes while the second one is looked at.
    all_at_once(&mut guests, |number, guest| {
        if number.is_multiple_of(2) { world.del(guest, world.all()) } else { other.check(guest) }
    })?;
    all_at_once(&mut guests, |number, guest| {
        if number.is_multiple_of(2) {
            return Ok(());
        }
        other.check(guest)?;
        other.del(guest, other.all())
    })?;
    Ok(guests.len() * world.all().len() * 5 / 2)
}

/// A runtime that loses patience, kills what it started, and tries again at once.
fn gives_up(world: &World, mut guests: Vec<Guest>) -> Result<usize, Failure> {
    const TIMES: usize = 3;
    all_at_once(&mut guests, |number, guest| {
        for time in 0..TIMES {
            let plugin = (number + time) % world.all().len();
            world.add(guest, 0..plugin)?;
            let mut child = world.execution(plugin, Verb::Add, guest).start();
            // Another moment for each: from the start of the process to its last call.
            let moment = (number * 7 + time * 13) % 40;
            std::thread::sleep(Duration::from_millis(u64::try_from(moment).unwrap_or(0)));
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            guest.forget();
            world.del(guest, world.all())?;
        }
        world.add(guest, world.all())?;
        world.check(guest)
    })?;
    distinct(&guests)?;
    all_at_once(&mut guests, |_, guest| world.del(guest, world.all()))?;
    Ok(guests.len() * (TIMES * (world.all().len() + 2) + 3 * world.all().len()))
}
