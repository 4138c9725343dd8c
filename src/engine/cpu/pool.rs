//! Memory that is used again: a fresh mapping's page faults cost more than a layer's arithmetic.

use std::sync::{Arc, Mutex, PoisonError};

/// A cache line of values: what buffers are made of, so that they are aligned to 64 bytes.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Buffers that nobody uses at the moment.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<Line>>>>);

impl Pool {
    /// A buffer of `length` values, of which nothing is known.
    pub fn take(&self, length: usize) -> Buffer {
        let lines = length.div_ceil(16);
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that fits; one much too large is left to those who need it.
        let fitting = idle
            .iter()
            .enumerate()
            .filter(|(_, buffer)| (lines..=4 * lines + 64).contains(&buffer.len()))
            .min_by_key(|(_, buffer)| buffer.len())
            .map(|(i, _)| i);
        let buffer = match fitting {
            Some(i) => idle.swap_remove(i),
            None => {
                // Sizes have changed: what lies idle is handed back, so that it does not add up.
                let mut kept = 0;
                idle.retain(|buffer| {
                    kept += buffer.len();
                    kept <= lines
                });
                vec![Line::default(); lines]
            }
        };
        Buffer { lines: buffer, length, pool: self.clone() }
    }

    /// A buffer of zeros.
    pub fn zeros(&self, length: usize) -> Buffer {
        let mut buffer = self.take(length);
        buffer.fill(0.0);
        buffer
    }
}

/// Values that go back to the pool when they are dropped.
pub(super) struct Buffer {
    lines: Vec<Line>,
    length: usize,
    pool: Pool,
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_do_not_add_up() {
        let pool = Pool::default();
        let first = pool.take(1000).as_ptr();
        assert_eq!(pool.take(990).as_ptr(), first);
        drop((pool.take(1000), pool.take(1000), pool.take(1000)));
        assert_eq!(pool.0.lock().unwrap().len(), 3);
        drop(pool.take(1 << 20));
        let idle: usize = pool.0.lock().unwrap().iter().map(Vec::len).sum();
        assert!(idle <= 2 * (1 << 16), "{idle}");
        assert!(pool.zeros(77).iter().all(|&v| v == 0.0));
        assert_eq!(pool.take(1).as_ptr() as usize % 64, 0);
    }
}
