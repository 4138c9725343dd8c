//! Aligned memory that is used again.
//!
//! The pages of a fresh buffer are mapped one by one as they are first touched, which costs more
//! than computing a layer. So a buffer that is no longer needed goes to a free list, and the next
//! one of about its size comes from there. Live and free buffers together never hold more than
//! [`SLACK`] above what was live at the same time once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cache line, in bytes; the vectors of every level fit in one.
const ALIGN: usize = 64;
/// Values that free buffers may hold beyond the peak of the live ones: the sums of a weight gradient
/// (at most 64 of 36 × 64 × 64), which are never live at the peak, then do not drive activations out.
const SLACK: usize = 10 << 20;

/// Memory for some `f32` values, aligned to a cache line. Always initialised.
struct Block {
    values: NonNull<f32>,
    /// How many values there is room for; not 0.
    capacity: usize,
    /// What was allocated: `values` lie somewhere in it.
    memory: NonNull<u8>,
}

// SAFETY: a `Block` owns its memory and hands it out by the rules of borrowing alone.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Room for a cache line more, aligned as any allocation is. With more alignment asked for the
    /// standard library fills the memory with zeros itself, all of it, on one thread; so it comes
    /// from the system as zeros, and its pages are mapped by the threads that first use them.
    fn layout(capacity: usize) -> Layout {
        Layout::array::<f32>(capacity)
            .and_then(|layout| Layout::from_size_align(layout.size() + ALIGN, align_of::<f64>()))
            .expect("more memory than there are addresses")
    }

    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: at most `ALIGN` bytes further on, which are there.
        let values = unsafe { memory.add(memory.align_offset(ALIGN)) }.cast::<f32>();
        Block { values, capacity, memory }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this very layout.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// The free list.
#[derive(Default)]
struct Free {
    blocks: Vec<Block>,
    /// Values in `blocks`.
    free: usize,
    /// Values in buffers that are in use.
    live: usize,
    /// The most that `live` ever was.
    peak: usize,
}

/// Where buffers come from and go to.
#[derive(Default)]
pub(super) struct Pool(Mutex<Free>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while the list is changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `length` values, which hold anything.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let capacity = length.max(1).next_multiple_of(ALIGN / size_of::<f32>());
        let mut list = self.lock();
        let fits = |block: &Block| block.capacity >= capacity && block.capacity <= capacity + capacity / 4;
        // The one freed last is the likeliest to be in a cache.
        let block = match list.blocks.iter().rposition(fits) {
            Some(index) => {
                let block = list.blocks.remove(index);
                list.free -= block.capacity;
                list.live += block.capacity;
                list.peak = list.peak.max(list.live);
                block
            }
            None => {
                list.live += capacity;
                list.peak = list.peak.max(list.live);
                while list.live + list.free > list.peak + SLACK && !list.blocks.is_empty() {
                    list.free -= list.blocks.remove(0).capacity;
                }
                drop(list);
                Block::new(capacity)
            }
        };
        Buffer { block: Some(block), length, pool: Arc::clone(self) }
    }
}

/// `length` values aligned to a cache line; back to the pool when dropped.
pub(super) struct Buffer {
    /// There until dropped.
    block: Option<Block>,
    length: usize,
    pool: Arc<Pool>,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.block.as_ref().map_or(&[], |block| {
            // SAFETY: the block has room for `length` initialised values and is borrowed as `self` is.
            unsafe { std::slice::from_raw_parts(block.values.as_ptr(), self.length) }
        })
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.block.as_mut().map_or(&mut [], |block| {
            // SAFETY: as in `deref`; `self` is borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(block.values.as_ptr(), self.length) }
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let mut list = self.pool.lock();
            list.live -= block.capacity;
            list.free += block.capacity;
            list.blocks.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000);
        let place = first.as_ptr();
        assert_eq!(place.align_offset(ALIGN), 0);
        drop(first);
        let second = pool.take(1001);
        assert_eq!(second.as_ptr(), place);
        drop(second);
        // Another size takes the place of what was free, beyond some slack.
        let third = pool.take(900_000);
        assert_eq!((pool.lock().blocks.len(), third.len()), (1, 900_000));
        drop(pool.take(2 * SLACK));
        let large = pool.take(3 * SLACK / 2);
        assert_eq!((pool.lock().blocks.len(), large.len()), (0, 3 * SLACK / 2));
        let fourth = pool.take(500);
        let list = pool.lock();
        assert!(list.live + list.free <= list.peak + SLACK);
        drop(list);
        drop((third, fourth, large));
        assert_eq!(pool.lock().live, 0);
        assert!(pool.take(0).is_empty());
    }
}
