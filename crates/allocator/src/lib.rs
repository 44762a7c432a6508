//! The memory allocator of a plugin's program: a process of milliseconds, which takes and gives back a thousand blocks.
//!
//! It is `dlmalloc`, which keeps what is given back, where musl's returns each page to the kernel at once and asks for it again; behind a lock of its own: that of
//! the crate is the C library's mutex, half of what a block costs (`docs/adr/0013-musl.md`).
#![expect(unsafe_code, reason = "an allocator is; every block says why it is sound")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dlmalloc::Dlmalloc;

/// The value for a `#[global_allocator]`.
pub struct Allocator {
    is_taken: AtomicBool,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: the heap is reached through `with` only, which lets one thread in at a time.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// One that has no memory yet.
    pub const fn new() -> Self {
        Self { is_taken: AtomicBool::new(false), heap: UnsafeCell::new(Dlmalloc::new()) }
    }

    /// A plugin has one thread nearly always, so nobody waits; and a thread that has the heap gives it back within microseconds.
    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        while self.is_taken.swap(true, Ordering::Acquire) {
            thread::yield_now();
        }
        // SAFETY: who has found `is_taken` false and made it true is alone until it is false again; `work` is one call of the heap's and does not come
        // back here.
        let result = work(unsafe { &mut *self.heap.get() });
        self.is_taken.store(false, Ordering::Release);
        result
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").finish_non_exhaustive()
    }
}

// SAFETY: the caller of each function promises what the heap's function of the same meaning asks for, and the heap's blocks are as large and as aligned as
// the layout says.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.realloc(block, layout.size(), layout.align(), size) })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::Allocator;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator::new();

    /// Blocks of all sizes, each of one byte's value, taken, grown and given back by four threads at once.
    #[test]
    fn threads_share_it_and_keep_what_they_have() {
        let work = |thread: usize| {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            for round in 0..2000 {
                let value = u8::try_from((round + thread) % 251).unwrap();
                let mut block = vec![value; (round * 37 + thread * 101) % 5000];
                block.extend(std::iter::repeat_n(value, round % 97));
                kept.push(block);
                if round % 3 == 0 {
                    drop(kept.swap_remove(round * 31 % kept.len()));
                }
            }
            kept
        };
        let kept: Vec<Vec<Vec<u8>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let whole = |block: &Vec<u8>| block.iter().all(|byte| Some(byte) == block.first());
        assert!(kept.iter().flatten().all(whole), "a block has another's bytes");
    }

    #[test]
    fn zeroed_memory_is_zero_though_it_was_used_before() {
        for size in [1, 24, 4096, 100_000, 1 << 20] {
            drop(vec![0xa5_u8; size]);
            assert!(vec![0_u8; size].iter().all(|byte| *byte == 0), "{size}");
        }
    }
}
