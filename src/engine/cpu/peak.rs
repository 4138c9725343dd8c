//! The processor's peak, for comparison.

use super::level::Level;
use super::simd::{self, Kernel, Simd};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Multiply-adds that do not depend on each other, from registers alone.
struct Chains {
    steps: usize,
}

impl Kernel for Chains {
    /// Floating-point operations done, and a value that depends on all of them.
    type Output = (f64, f32);

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (f64, f32) {
        // SAFETY: the caller's promise.
        unsafe { if S::MANY { chains::<S, 24>(self.steps) } else { chains::<S, 12>(self.steps) } }
    }
}

/// `steps` multiply-adds in each of N vectors.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn chains<S: Simd, const N: usize>(steps: usize) -> (f64, f32) {
    // SAFETY: the caller's promise; 16 values hold a vector of any level.
    unsafe {
        let (factor, term) = (S::splat(black_box(0.5)), S::splat(black_box(0.25)));
        let mut sums = [S::splat(black_box(0.0)); N];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = S::fma(*sum, factor, term);
            }
        }
        let mut total = sums[0];
        for &sum in &sums[1..] {
            total = S::add(total, sum);
        }
        let mut lanes = [0.0f32; 16];
        S::store(lanes.as_mut_ptr(), total);
        ((2 * N * S::LANES * steps) as f64, lanes.iter().sum())
    }
}

/// The rate of independent multiply-adds of `level` on `threads` threads at once, in GFLOP/s: the
/// best of several short runs. 0 when the processor does not have the level.
pub fn measure_fma_peak(level: Level, threads: usize) -> f64 {
    if !level.is_available() {
        return 0.0;
    }
    const RUNS: usize = 20;
    let barrier = Barrier::new(threads);
    let work = || {
        let mut best = 0.0f64;
        for _ in 0..RUNS {
            barrier.wait();
            let start = Instant::now();
            // SAFETY: the level is available.
            let (operations, value) = unsafe { simd::run(level, Chains { steps: 200_000 }) };
            black_box(value);
            best = best.max(operations / start.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        own + others.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>()
    }) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_peak() {
        for level in Level::available() {
            assert!(measure_fma_peak(level, 2) > 0.1, "{level:?}");
        }
    }
}
