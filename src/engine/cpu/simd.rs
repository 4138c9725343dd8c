//! Vectors of `f32`: every kernel is written once over [`Simd`] and compiled for each [`Level`].

use super::level::Level;

/// The vector instructions of one level.
///
/// # Safety
/// Every function may only be called on a processor that has the level (see [`run`]); pointers
/// must be valid for [`Simd::LANES`] values (or `n` values), with any alignment.
pub(super) trait Simd: Copy + 'static {
    /// [`Simd::LANES`] values.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Whether there are 32 registers (for 24 sums at a time) or 16 (for 12).
    const MANY: bool;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a · b.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// max(0, v); NaN where v is, so that what overflowed does not pass for black.
    unsafe fn relu(v: Self::V) -> Self::V;
    /// v where gate > 0, else 0.
    unsafe fn gate(v: Self::V, gate: Self::V) -> Self::V;

    /// Asks for the cache line at an address, which may be any. Does nothing where there is no
    /// such instruction.
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}

    /// The first `n` ≤ LANES values, then zeros.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller's promise; 16 values hold a vector of any level.
        unsafe {
            if n == Self::LANES {
                return Self::load(from);
            }
            let mut lanes = [0.0f32; 16];
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }

    /// Stores the first `n` ≤ LANES values.
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, v: Self::V, n: usize) {
        // SAFETY: as in `load_part`.
        unsafe {
            if n == Self::LANES {
                return Self::store(to, v);
            }
            let mut lanes = [0.0f32; 16];
            Self::store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n);
        }
    }
}

/// Something to compute with the vectors of any level.
pub(super) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, and so must everything that it calls with vectors: only then
    /// is it compiled with the level's instructions.
    ///
    /// # Safety
    /// The processor has the level of `S`, and what the kernel itself asks for.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs a kernel with the instructions of `level`.
///
/// # Safety
/// The processor has `level`, and what the kernel itself asks for.
pub(super) unsafe fn run<K: Kernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the promise of `run`.
        unsafe { kernel.run::<Avx2>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the promise of `run`.
        unsafe { kernel.run::<Avx512>() }
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    unsafe fn neon<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the promise of `run`.
        unsafe { kernel.run::<Neon>() }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match level {
            Level::Portable => kernel.run::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(kernel),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon(kernel),
        }
    }
}

/// Four lanes in plain Rust. Every target has vectors of that size, and the compiler finds them.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Applies a function to each lane.
#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; 4] {
    [f(0), f(1), f(2), f(3)]
}

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MANY: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] * b[i])
    }
    // Rounded twice: `mul_add` without the instruction is a slow library call.
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn fnma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        lanes(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn relu(v: [f32; 4]) -> [f32; 4] {
        lanes(|i| if v[i] < 0.0 { 0.0 } else { v[i] })
    }
    #[inline(always)]
    unsafe fn gate(v: [f32; 4], gate: [f32; 4]) -> [f32; 4] {
        lanes(|i| if gate[i] > 0.0 { v[i] } else { 0.0 })
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    // SAFETY (all of the functions): the caller promises the instructions and the pointers.
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const MANY: bool = false;

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(to, v) }
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
        unsafe fn relu(v: __m256) -> __m256 {
            // Of a NaN and a number, the second operand.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn gate(v: __m256, gate: __m256) -> __m256 {
            unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps())) }
        }
    }

    /// AVX-512 (its foundation is enough).
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    // SAFETY (all of the functions): the caller promises the instructions and the pointers.
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const MANY: bool = true;

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(to, v) }
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
        unsafe fn relu(v: __m512) -> __m512 {
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn gate(v: __m512, gate: __m512) -> __m512 {
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), v) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Simd;
    use std::arch::aarch64::*;

    /// Advanced SIMD.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Neon;

    // SAFETY (all of the functions): the caller promises the instructions and the pointers.
    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        const MANY: bool = true;

        #[inline(always)]
        unsafe fn splat(value: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: float32x4_t) {
            unsafe { vst1q_f32(to, v) }
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
        unsafe fn relu(v: float32x4_t) -> float32x4_t {
            unsafe { vmaxq_f32(v, vdupq_n_f32(0.0)) }
        }
        #[inline(always)]
        unsafe fn gate(v: float32x4_t, gate: float32x4_t) -> float32x4_t {
            unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vcgtzq_f32(gate))) }
        }
    }
}
