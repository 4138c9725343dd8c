//! The small matrix product that everything rests on.
//!
//! C += A · B, a few rows and one or two vectors wide at a time, the sums in registers. Each sum
//! takes its steps in the same order with one fused multiply-add each, whatever the number of
//! rows: a result does not depend on the block in which it was computed.

use super::simd::Simd;

/// Where a matrix operand lies: element (i, k) of A at `i * row + k * k_step`; of B, row k (a
/// vector or two) at `k * k_step`.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) at: *const f32,
    pub(super) row: usize,
    pub(super) k_step: usize,
}

/// The steps of a product: `runs` times `length` of them. Those of B follow one another; A's next run
/// is `stride` values on.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) runs: usize,
    pub(super) length: usize,
    pub(super) stride: usize,
}

impl Steps {
    /// `length` steps without a gap.
    pub(super) fn one_run(length: usize) -> Self {
        Steps { runs: 1, length, stride: 0 }
    }
}

/// Adds R rows of A · B to `sums`.
///
/// # Safety
/// As [`Simd`]; the operands hold the steps `k` of R rows and of NV vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const R: usize, const NV: usize>(
    sums: &mut [[S::V; NV]; R],
    k: Steps,
    a: Operand,
    b: Operand,
) {
    // With one vector there are too few sums to hide the time that an addition takes: the odd
    // steps of a run have sums of their own.
    let pairs = if NV == 1 { k.length / 2 } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        if NV == 1 {
            let mut odd = [S::splat(0.0); R];
            for run in 0..k.runs {
                let (left_at, right_at) = (a.at.add(run * k.stride), b.at.add(run * k.length * b.k_step));
                for pair in 0..pairs {
                    let (even_at, odd_at) = (2 * pair, 2 * pair + 1);
                    let even_right = S::load(right_at.add(even_at * b.k_step));
                    let odd_right = S::load(right_at.add(odd_at * b.k_step));
                    for r in 0..R {
                        let left = S::splat(*left_at.add(r * a.row + even_at * a.k_step));
                        sums[r][0] = S::fma(left, even_right, sums[r][0]);
                        let left = S::splat(*left_at.add(r * a.row + odd_at * a.k_step));
                        odd[r] = S::fma(left, odd_right, odd[r]);
                    }
                }
            }
            for (sums, &odd) in sums.iter_mut().zip(&odd) {
                sums[0] = S::add(sums[0], odd);
            }
        }
        for run in 0..k.runs {
            let (left_at, right_at) = (a.at.add(run * k.stride), b.at.add(run * k.length * b.k_step));
            for step in 2 * pairs..k.length {
                let from = right_at.add(step * b.k_step);
                let mut right = [S::splat(0.0); NV];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = S::load(from.add(v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = S::splat(*left_at.add(r * a.row + step * a.k_step));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = S::fma(left, right, *sum);
                    }
                }
            }
        }
    }
}

/// R rows of C, contiguous, each NV vectors: C = A · B, or C += A · B with `add`.
///
/// # Safety
/// As [`accumulate`]; `c` holds R rows.
#[inline(always)]
unsafe fn rows<S: Simd, const R: usize, const NV: usize>(k: Steps, a: Operand, b: Operand, c: *mut f32, add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; R];
        if add {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(c.add((r * NV + v) * S::LANES));
                }
            }
        }
        accumulate::<S, R, NV>(&mut sums, k, a, b);
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                S::store(c.add((r * NV + v) * S::LANES), sum);
            }
        }
    }
}

/// How many blocks of rows [`product`] goes through for `count` rows.
#[inline(always)]
pub(super) fn steps<S: Simd, const NV: usize>(count: usize) -> usize {
    if S::MANY { count / 12 + (count % 12).div_ceil(6) } else { count.div_ceil(6) }
}

/// `count` rows of C, contiguous, each NV vectors: C = A · B, or C += A · B with `add`. Calls
/// `between` before every few rows, [`steps`] times.
///
/// # Safety
/// As [`Simd`]; the operands hold the steps `k` of `count` rows and of NV vectors, `c` holds `count` rows.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const NV: usize>(
    count: usize,
    k: Steps,
    a: Operand,
    b: Operand,
    c: *mut f32,
    add: bool,
    between: &mut impl FnMut(),
) {
    let mut r = 0;
    macro_rules! step {
        ($rows:literal) => {{
            between();
            let a = Operand { at: a.at.add(r * a.row), ..a };
            rows::<S, $rows, NV>(k, a, b, c.add(r * NV * S::LANES), add);
            r += $rows;
        }};
    }
    // SAFETY: the caller's promise; `r` plus the rows of a step is never more than `count`.
    unsafe {
        if S::MANY {
            while count - r >= 12 {
                step!(12);
            }
        }
        while count - r >= 6 {
            step!(6);
        }
        match count - r {
            5 => step!(5),
            4 => step!(4),
            3 => step!(3),
            2 => step!(2),
            1 => step!(1),
            _ => {}
        }
    }
    debug_assert_eq!(r, count);
}
