//! Life cycles by the number: what grows a little with each shows after many.

use std::fs;
use std::path::Path;

use nix::sys::statfs::statfs;

use crate::job::{Event, Failure};
use crate::world::World;

/// How many life cycles a job has; a full run has several jobs.
pub(crate) const CYCLES_A_JOB: usize = 500;

/// What must not grow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Size {
    /// Bytes of the file systems that state is on.
    bytes: Vec<i64>,
    /// Files on them.
    files: Vec<u64>,
    /// Tracked connections.
    connections: usize,
    /// Open descriptors of this process.
    descriptors: usize,
}

impl Size {
    /// Whether it is more than `earlier`, so many lives before. Connections that the kernel makes by itself (its multicast reports) come and go;
    /// what a life leaves is there for each.
    fn has_grown(&self, earlier: &Self, lives: usize) -> bool {
        let least = (lives / 4).max(8);
        let same = Self { connections: earlier.connections, ..self.clone() } == *earlier;
        !same || self.connections >= earlier.connections + least
    }

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
            connections: fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
                .ok()
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(0),
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
        Some(first) if last.has_grown(&first, cycles - cycles / 10) => {
            Err(Failure::new(format!("something grew: {first:?} after a tenth, {last:?} at the end")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_each_life_leaves_is_told_from_one_of_the_kernel() {
        let size =
            |connections, files| Size { bytes: vec![0], files: vec![files], connections, descriptors: 6 };
        assert!(!size(2, 8).has_grown(&size(1, 8), 90));
        assert!(size(91, 8).has_grown(&size(1, 8), 90));
        assert!(size(1, 9).has_grown(&size(1, 8), 90), "a file");
    }
}
