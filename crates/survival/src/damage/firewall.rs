//! A firewall that somebody else empties, or sets up anew.

use testkit::tool;

use crate::job::{Failure, Verb};
use crate::message;
use crate::world::{Guest, World};

/// Somebody empties the firewall: CHECK says so, and GC repairs it, or the next ADD of the container. What is repaired outlives a GC, and DEL
/// finishes where everything is gone once more.
pub(super) fn flush(world: &World) -> Result<usize, Failure> {
    let empty = || tool("nft", &["flush", "ruleset"]);
    let (mut guest, mut other) = both(world)?;
    empty();
    for guest in [&guest, &other] {
        for kind in ["bridge", "portmap", "firewall"] {
            noticed(world, kind, guest, "the firewall was emptied")?;
        }
    }
    collected(world, &guest, &other)?;
    empty();
    repaired(world, &mut guest, &mut other)?;
    empty();
    gone(world, guest, other)?;
    world.settle();
    Ok(4)
}

/// firewalld sets up its rules anew, and with that forgets the sources that it was told while it ran. Tables of others it leaves alone.
pub(super) fn reload(world: &World) -> Result<usize, Failure> {
    const WAYS: [&str; 2] = ["--reload", "--complete-reload"];
    for how in WAYS {
        let (mut guest, mut other) = both(world)?;
        tool("firewall-cmd", &[how]);
        for guest in [&guest, &other] {
            noticed(world, "firewall", guest, "firewalld was reloaded")?;
            for kind in ["bridge", "portmap"] {
                world.check_one(world.index(kind), guest)?;
            }
        }
        collected(world, &guest, &other)?;
        tool("firewall-cmd", &[how]);
        repaired(world, &mut guest, &mut other)?;
        gone(world, guest, other)?;
        world.settle();
    }
    Ok(2 * WAYS.len())
}

/// Two containers that are well.
fn both(world: &World) -> Result<(Guest, Guest), Failure> {
    let (mut guest, mut other) = (world.guest(1), world.guest(2));
    for guest in [&mut other, &mut guest] {
        world.add(guest, world.all())?;
        world.check(guest)?;
    }
    Ok((guest, other))
}

/// CHECK of a plugin fails, and says what about.
fn noticed(world: &World, kind: &str, guest: &Guest, what: &str) -> Result<(), Failure> {
    let ended = world.execution(world.index(kind), Verb::Check, guest).run();
    if ended.succeeded() {
        return Err(Failure::new(format!("CHECK of {kind} does not notice that {what}")));
    }
    message::judge(&ended)
}

/// The GC of a runtime that knows both repairs both.
fn collected(world: &World, guest: &Guest, other: &Guest) -> Result<(), Failure> {
    world.gc(&[guest, other])?;
    world.check(guest)?;
    world.check(other)
}

/// A runtime that was told so by CHECK takes the container's network away and gives it anew.
fn repaired(world: &World, guest: &mut Guest, other: &mut Guest) -> Result<(), Failure> {
    world.del(guest, world.all())?;
    world.add(guest, world.all())?;
    world.check(guest)?;
    world.gc(&[guest, other])?;
    world.check(guest)?;
    world.del(other, world.all())?;
    world.add(other, world.all())?;
    world.check(other)?;
    world.check(guest)
}

fn gone(world: &World, mut guest: Guest, mut other: Guest) -> Result<(), Failure> {
    world.del(&mut guest, world.all())?;
    world.del(&mut other, world.all())
}
