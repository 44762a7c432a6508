//! Life cycles by the number: what grows a little with each shows after many.

use std::fs;
use std::path::Path;

use nix::sys::statfs::statfs;

use crate::job::{Event, Failure, Verb};
use crate::trace;
use crate::world::{Guest, World};

/// How many life cycles a job has; a full run has several jobs.
pub(crate) const CYCLES_A_JOB: usize = 500;

/// By how much the most memory that a plugin has differs from one time to the next, in KiB: pages that the kernel maps ahead. (280 were seen.)
const MEMORY_VARIES: u64 = 512;

/// How many lives are measured; the least of them counts.
const MEASURED: usize = 3;

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
    /// The most memory that each plugin had for an ADD, in KiB.
    memory: Vec<u64>,
}

impl Size {
    /// Whether it is more than `earlier`, so many lives before. Connections that the kernel makes by itself (its multicast reports) come and go;
    /// what a life leaves is there for each.
    fn has_grown(&self, earlier: &Self, lives: usize) -> bool {
        let least = (lives / 4).max(8);
        let counted = |size: &Self| (size.bytes.clone(), size.files.clone(), size.descriptors);
        let mut memory = self.memory.iter().zip(&earlier.memory);
        counted(self) != counted(earlier)
            || self.connections >= earlier.connections + least
            || memory.any(|(now, then)| *now > then + MEMORY_VARIES)
    }

    fn measure(memory: Vec<u64>) -> Self {
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
            memory,
        }
    }
}

/// Lives in which each ADD's memory is measured.
fn measured(world: &World, guest: &mut Guest) -> Result<Vec<u64>, Failure> {
    let mut memory = vec![u64::MAX; world.all().len()];
    for _ in 0..MEASURED {
        for plugin in world.all() {
            let traced = trace::run(&world.execution(plugin, Verb::Add, guest), None);
            world.keep(plugin, guest, &traced.ended)?;
            memory[plugin] = memory[plugin].min(traced.peak);
        }
        world.del(guest, world.all())?;
    }
    Ok(memory)
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
            first = Some(Size::measure(measured(world, &mut guest)?));
        }
    }
    let last = Size::measure(measured(world, &mut guest)?);
    say(Event::Note(format!("at most {} KiB of memory for each plugin's ADD", list(&last.memory))));
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

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_each_life_leaves_is_told_from_one_of_the_kernel() {
        let size = |connections, files| Size {
            bytes: vec![0],
            files: vec![files],
            connections,
            descriptors: 6,
            memory: vec![3000, 2900],
        };
        assert!(!size(2, 8).has_grown(&size(1, 8), 90));
        assert!(size(91, 8).has_grown(&size(1, 8), 90));
        assert!(size(1, 9).has_grown(&size(1, 8), 90), "a file");
        assert!(!Size { memory: vec![3100, 2900], ..size(1, 8) }.has_grown(&size(1, 8), 90), "pages");
        assert!(Size { memory: vec![3000, 3900], ..size(1, 8) }.has_grown(&size(1, 8), 90), "memory");
    }
}
