//! Weighted sums of values, for several instruction sets.

use crate::Real;
use multiversion::multiversion;

/// Values beyond the last one needed that [`accumulate`] may read.
pub(super) const SLACK: usize = 64;

/// Σ v², in f64.
pub(super) fn square<T: Real>(values: &[T]) -> f64 {
    products(values, values)
}

/// Σ a · b, in f64, in an order that does not depend on the instruction set.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn products<T: Real>(a: &[T], b: &[T]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i].wide() * b[i].wide();
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a.wide() * b.wide()).sum::<f64>()
}

/// out[i] += Σ weight · source[begin + i] over the taps (begin, weight). Products are rounded before
/// they are added, so that every instruction set gives the same bits. Quickest where `source`
/// reaches [`SLACK`] values beyond the last one that is needed.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub(crate) fn accumulate<T: Real>(out: &mut [T], source: &[T], taps: &[(usize, T)]) {
    let done = blocks::<T, SLACK>(out, source, taps);
    let (rest, source) = (&mut out[done..], &source[done..]);
    if rest.is_empty() {
        return;
    }
    let last_begin = taps.iter().map(|&(begin, _)| begin).max().unwrap_or(0);
    if source.len() < last_begin + SLACK {
        for &(begin, weight) in taps {
            rest.iter_mut().zip(&source[begin..]).for_each(|(sum, &v)| *sum += weight * v);
        }
        return;
    }
    match rest.len() {
        ..=16 => last::<T, 16>(rest, source, taps),
        17..=32 => last::<T, 32>(rest, source, taps),
        _ => last::<T, SLACK>(rest, source, taps),
    }
}

/// [`accumulate`] for less than a block: a whole one, of which what is beyond the end is left.
#[inline(always)]
fn last<T: Real, const N: usize>(out: &mut [T], source: &[T], taps: &[(usize, T)]) {
    let mut block = [T::zero(); N];
    block[..out.len()].copy_from_slice(out);
    blocks::<T, N>(&mut block, source, taps);
    out.copy_from_slice(&block[..out.len()]);
}

/// [`accumulate`] for as many whole blocks of `N` values as there are; returns how many values.
#[inline(always)]
fn blocks<T: Real, const N: usize>(out: &mut [T], source: &[T], taps: &[(usize, T)]) -> usize {
    let (blocks, _) = out.as_chunks_mut::<N>();
    for (b, block) in blocks.iter_mut().enumerate() {
        let mut sums = *block;
        for &(begin, weight) in taps {
            let from = &source[begin + b * N..][..N];
            for i in 0..N {
                sums[i] += weight * from[i];
            }
        }
        *block = sums;
    }
    blocks.len() * N
}
