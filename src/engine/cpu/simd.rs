//! Instruction sets: what the machine has, and the few vector operations that kernels are written in.

use crate::{Error, Result};
use std::fmt;

/// An instruction set, from the one that every machine has to the widest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Four lanes, whatever the compiler makes of them.
    Portable,
    /// AArch64's Advanced SIMD: four lanes, fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA: eight lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F: sixteen lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The environment variable that lowers the level.
pub const VARIABLE: &str = "MZSR_CPU";

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Level {
    /// Its name, as [`VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "baseline",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// The levels that this machine has, lowest first.
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            levels.push(Level::Neon);
        }
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Level::Avx2);
            }
            if avx2 && std::arch::is_x86_feature_detected!("avx512f") {
                levels.push(Level::Avx512);
            }
        }
        levels
    }

    /// The highest level of this machine, or a lower one that [`VARIABLE`] asks for.
    ///
    /// # Errors
    /// A name that is not a level.
    pub fn detect() -> Result<Level> {
        Self::choose(std::env::var(VARIABLE).ok().as_deref())
    }

    fn choose(asked: Option<&str>) -> Result<Level> {
        let available = Self::available();
        let highest = available.iter().copied().max().unwrap_or(Level::Portable);
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(highest) };
        if let Some(level) = available.iter().find(|level| level.name() == asked) {
            return Ok(*level);
        }
        // A level that exists elsewhere asks for more than there is: the highest here is used.
        if ["avx512", "avx2", "neon"].contains(&asked) {
            return Ok(highest);
        }
        Err(Error::input(format!("{VARIABLE}={asked} is not known; use avx512, avx2, neon or baseline")))
    }
}

/// Vectors of `f32`. All functions are `#[inline(always)]`, so that they become part of a caller
/// that was compiled for the instruction set.
///
/// # Safety
/// Every function may only run on a machine that has the instruction set; [`dispatch`] sees to it.
/// Pointers must be valid for `LANES` values.
pub(super) trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Values a vector.
    const LANES: usize;
    /// Output channels that one call of [`Simd::product`] computes.
    const PANEL: usize;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn splat(v: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a · b
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// v where mask > 0, else 0.
    unsafe fn keep_positive(mask: Self::V, v: Self::V) -> Self::V;
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(v: Self::V) -> f32;

    /// c[r][j] = Σ_k a[r · row + k · step] · b[k · PANEL + j] (added to what c holds if
    /// `ADD`) for [`ROWS`] rows r and PANEL columns j; rows of c are `stride` apart.
    ///
    /// # Safety
    /// a, b and c must be valid for these places.
    #[allow(clippy::too_many_arguments)]
    unsafe fn product<const ADD: bool>(
        a: *const f32,
        row: usize,
        step: usize,
        depth: usize,
        b: *const f32,
        b_step: usize,
        c: *mut f32,
        stride: usize,
    );
}

/// Rows that one call of [`Simd::product`] computes, at every level.
pub(super) const ROWS: usize = 6;

/// The body of [`Simd::product`] with `VECTORS` vectors a row, all sums in registers.
///
/// # Safety
/// As for [`Simd::product`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn product<S: Simd, const VECTORS: usize, const ADD: bool>(
    mut a: *const f32,
    row: usize,
    step: usize,
    depth: usize,
    mut b: *const f32,
    b_step: usize,
    c: *mut f32,
    stride: usize,
) {
    // SAFETY: every place read or written is one that the caller vouches for.
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        if ADD {
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    sums[r][v] = S::load(c.add(r * stride + v * S::LANES));
                }
            }
        }
        for _ in 0..depth {
            let mut columns = [S::splat(0.0); VECTORS];
            for v in 0..VECTORS {
                columns[v] = S::load(b.add(v * S::LANES));
            }
            for r in 0..ROWS {
                let value = S::splat(*a.add(r * row));
                for v in 0..VECTORS {
                    sums[r][v] = S::fma(value, columns[v], sums[r][v]);
                }
            }
            a = a.add(step);
            b = b.add(b_step);
        }
        for r in 0..ROWS {
            for v in 0..VECTORS {
                S::store(c.add(r * stride + v * S::LANES), sums[r][v]);
            }
        }
    }
}

macro_rules! product {
    ($vectors:literal) => {
        #[inline(always)]
        unsafe fn product<const ADD: bool>(
            a: *const f32,
            row: usize,
            step: usize,
            depth: usize,
            b: *const f32,
            b_step: usize,
            c: *mut f32,
            stride: usize,
        ) {
            // SAFETY: handed on.
            unsafe { product::<Self, $vectors, ADD>(a, row, step, depth, b, b_step, c, stride) }
        }
    };
}

/// Work written over [`Simd`].
pub(super) trait Kernel {
    /// Does it. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// Only on a machine with S's instruction set.
    unsafe fn run<S: Simd>(self);
}

/// Runs `kernel` compiled for `level`.
pub(super) fn dispatch<K: Kernel>(level: Level, kernel: K) {
    // SAFETY: a level is only ever made by `Level::available`, which asks the machine.
    unsafe {
        match level {
            Level::Portable => kernel.run::<Portable>(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => aarch64::run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86_64::run_avx2(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86_64::run_avx512(kernel),
        }
    }
}

/// Four lanes in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const PANEL: usize = 8;
    product!(2);
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller's pointer is valid for four values.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's pointer is valid for four values.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> [f32; 4] {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn fnma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn keep_positive(mask: [f32; 4], v: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if mask[i] > 0.0 { v[i] } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn sum(v: [f32; 4]) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Kernel, Simd, product};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) {
        // SAFETY: this function's caller vouches for AVX2 and FMA.
        unsafe { kernel.run::<Avx2>() }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) {
        // SAFETY: this function's caller vouches for AVX-512 F.
        unsafe { kernel.run::<Avx512>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2;

    // SAFETY of every body: the trait's contract (instruction set, valid pointers).
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const PANEL: usize = 16;
        product!(2);
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> __m256 {
            unsafe { _mm256_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn keep_positive(mask: __m256, v: __m256) -> __m256 {
            unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(mask, _mm256_setzero_ps()), v) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m256) -> f32 {
            unsafe {
                let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512;

    // SAFETY of every body: the trait's contract (instruction set, valid pointers).
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const PANEL: usize = 64;
        product!(4);
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> __m512 {
            unsafe { _mm512_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn keep_positive(mask: __m512, v: __m512) -> __m512 {
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps()), v) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(v) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Kernel, Simd, product};
    use std::arch::aarch64::*;

    #[target_feature(enable = "neon")]
    pub(super) unsafe fn run<K: Kernel>(kernel: K) {
        // SAFETY: this function's caller vouches for Advanced SIMD.
        unsafe { kernel.run::<Neon>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Neon;

    // SAFETY of every body: the trait's contract (instruction set, valid pointers).
    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        const PANEL: usize = 16;
        product!(4);
        #[inline(always)]
        unsafe fn load(p: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: float32x4_t) {
            unsafe { vst1q_f32(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(v) }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmsq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmaxq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn keep_positive(mask: float32x4_t, v: float32x4_t) -> float32x4_t {
            unsafe {
                let keep = vcgtq_f32(mask, vdupq_n_f32(0.0));
                vreinterpretq_f32_u32(vandq_u32(keep, vreinterpretq_u32_f32(v)))
            }
        }
        #[inline(always)]
        unsafe fn sum(v: float32x4_t) -> f32 {
            unsafe { vaddvq_f32(v) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        assert_eq!(Level::choose(Some("baseline")).unwrap(), Level::Portable);
        let highest = Level::available().into_iter().max().unwrap();
        assert_eq!(Level::choose(None).unwrap(), highest);
        assert_eq!(Level::choose(Some("")).unwrap(), highest);
        for level in Level::available() {
            assert_eq!(Level::choose(Some(level.name())).unwrap(), level);
        }
        for asked in ["avx512", "avx2", "neon"] {
            assert!(Level::choose(Some(asked)).unwrap() <= highest);
        }
        assert!(Level::choose(Some("sse9")).unwrap_err().to_string().contains("baseline"));
    }
}
