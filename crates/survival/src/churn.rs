//! Life cycles by the number: what grows a little with each shows after many.

use std::fs;
use std::path::Path;

use nix::sys::statfs::statfs;

use crate::job::{Event, Failure};
use crate::world::World;

/// How many life cycles a job has; a full run has several jobs.
pub(crate) const CYCLES_A_JOB: usize = 500;

/// What must not grow.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    /// Bytes of the file systems that state is on.
    bytes: Vec<i64>,
    /// Files on them.
    files: Vec<u64>,
    /// Tracked connections.
    connections: String,
    /// Open descriptors of this process.
    descriptors: usize,
}

impl Size {
    fn measure() -> Self {
        let systems: Vec<_> =
            ["/run", "/var/lib/cni"].iter().filter_map(|path| statfs(Path::new(path)).ok()).collect();
        Self {
            bytes: systems
                .iter()
                .map(|system| {
                    i64::try_from(system.blocks() - system.blocks_free()).unwrap_or(0) * system.block_size()
                })
                .collect(),
            files: systems.iter().map(|system| system.files() - system.files_free()).collect(),
            connections: fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or_default(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }
}

/// ADD and DEL of all plugins, with a CHECK every tenth time; a second container is there every other time, so that the shared objects come
/// and go as well as stay.
pub(crate) fn run(world: &World, cycles: usize, say: &mut impl FnMut(Event)) -> Result<(), Failure> {
    let before = World::look(&[]);
    let (mut guest, mut other) = (world.guest(1), world.guest(2));
    let mut first = None;
    for cycle in 0..cycles {
        if cycle % 2 == 0 {
            world.add(&mut other, world.all())?;
        }
        world.add(&mut guest, world.all())?;
        if cycle % 10 == 0 {
            world.check(&guest)?;
        }
        world.del(&mut guest, world.all())?;
        if cycle % 2 == 0 {
            world.del(&mut other, world.all())?;
        }
        // By then every file is there that stays, by the format of leases.
        if cycle == cycles / 10 {
            first = Some(Size::measure());
        }
    }
    let last = Size::measure();
    say(Event::Tried {
        point: "churn".to_owned(),
        points: cycles,
        missed: false,
        message: None,
        failure: None,
    });
    let difference = before.difference(&World::look(&[]));
    if !difference.is_empty() {
        return Err(Failure::differing("after many lives, the host is not as before", difference));
    }
    match first {
        Some(first) if first != last => {
            Err(Failure::new(format!("something grew: {first:?} after a tenth, {last:?} at the end")))
        }
        _ => Ok(()),
    }
}
