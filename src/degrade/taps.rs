//! One-dimensional resampling: each output value is a short weighted sum of input values.

use super::sums::accumulate;
use crate::{Raster, Real};
use rayon::prelude::*;
use std::ops::Range;

/// A linear map along one axis: output i is Σ weight · input over its taps. (`W` is something else
/// where an axis alone has no weights: see [`super::Map`].)
#[derive(Clone, Debug)]
pub struct Taps<W = f64> {
    /// (first tap, number of taps) of each output.
    spans: Vec<(usize, usize)>,
    index: Vec<usize>,
    weight: Vec<W>,
}

/// Keys' cubic with a = −0.5.
pub(super) fn cubic(x: f64) -> f64 {
    let a = x.abs();
    if a <= 1.0 {
        (1.5 * a - 2.5) * a * a + 1.0
    } else if a < 2.0 {
        ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    } else {
        0.0
    }
}

/// The pixel that a half-sample symmetric edge (… c b a | a b c …) shows at `position`.
pub(super) fn mirror(position: isize, size: usize) -> usize {
    let size = size as isize;
    let at = position.rem_euclid(2 * size);
    (if at < size { at } else { 2 * size - 1 - at }) as usize
}

impl Taps {
    /// Outputs `outputs` of the cubic resize of `size` samples by `scale`.
    pub fn resize(size: usize, scale: f64, outputs: Range<usize>) -> Self {
        let stretch = scale.min(1.0);
        let width = 4.0 / stretch;
        Self::build(size, outputs, |i| {
            let u = (i as f64 + 0.5) / scale - 0.5;
            let low = (u - width / 2.0).floor() as isize;
            (low..low + width.ceil() as isize + 3)
                .map(move |j| (j, stretch * cubic(stretch * (u - j as f64))))
                .collect()
        })
    }

    /// Outputs `outputs` of the cubic upscale that puts output j at input j / `scale`.
    pub fn aligned(size: usize, scale: f64, outputs: Range<usize>) -> Self {
        Self::build(size, outputs, |i| {
            let u = i as f64 / scale;
            let low = u.floor() as isize - 2;
            (low..low + 6).map(move |j| (j, cubic(u - j as f64))).collect()
        })
    }

    /// These, of what `first` makes.
    pub(super) fn after(&self, first: &Taps) -> Self {
        Self::each(self.len(), |i| {
            let reached = || self.of(i).flat_map(|(j, w)| first.of(j).map(move |(k, v)| (k, w * v)));
            let (Some(begin), Some(end)) = (reached().map(|(k, _)| k).min(), reached().map(|(k, _)| k).max()) else {
                return Vec::new();
            };
            let mut sums = vec![None; end + 1 - begin];
            reached().for_each(|(k, product)| *sums[k - begin].get_or_insert(0.0) += product);
            sums.into_iter().enumerate().filter_map(|(k, sum)| Some((begin + k, sum?))).collect()
        })
    }

    /// The outputs in the middle that have the same weights, each on inputs one further than the one before.
    fn alike(&self) -> Range<usize> {
        let middle = self.len() / 2;
        if self.is_empty() {
            return 0..0;
        }
        let alike = |i: &usize| {
            self.spans[*i].1 == self.spans[middle].1
                && self.of(*i).zip(self.of(middle)).all(|((j, w), (k, v))| j + middle == k + i && w == v)
        };
        let before = (0..middle).rev().take_while(alike).count();
        middle - before..middle + (middle..self.len()).take_while(alike).count()
    }

    fn build(size: usize, outputs: Range<usize>, taps: impl Fn(usize) -> Vec<(isize, f64)>) -> Self {
        let mut map = Taps { spans: Vec::with_capacity(outputs.len()), index: Vec::new(), weight: Vec::new() };
        for i in outputs {
            let taps = taps(i);
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            let first = map.index.len();
            for (j, w) in taps {
                if w != 0.0 {
                    map.index.push(mirror(j, size));
                    map.weight.push(w / sum);
                }
            }
            map.spans.push((first, map.index.len() - first));
        }
        map
    }
}

impl<W: Copy> Taps<W> {
    /// Outputs made of the inputs and weights that `taps` gives for each, in that order.
    pub(super) fn each(outputs: usize, mut taps: impl FnMut(usize) -> Vec<(usize, W)>) -> Self {
        let mut map = Taps { spans: Vec::with_capacity(outputs), index: Vec::new(), weight: Vec::new() };
        for i in 0..outputs {
            let taps = taps(i);
            map.spans.push((map.index.len(), taps.len()));
            for (j, w) in taps {
                map.index.push(j);
                map.weight.push(w);
            }
        }
        map
    }

    /// The adjoint: from these outputs back to `size` inputs.
    pub fn transposed(&self, size: usize) -> Self {
        let mut back = vec![Vec::new(); size];
        for i in 0..self.len() {
            self.of(i).for_each(|(j, w)| back[j].push((i, w)));
        }
        Self::each(size, |j| std::mem::take(&mut back[j]))
    }

    /// As many outputs of these, in order, and then some without taps.
    pub(super) fn cut(&self, outputs: usize) -> Self {
        Self::each(outputs, |i| if i < self.len() { self.of(i).collect() } else { Vec::new() })
    }

    /// The number of outputs.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The inputs and weights of output i.
    pub fn of(&self, i: usize) -> impl Iterator<Item = (usize, W)> + '_ {
        let (first, count) = self.spans[i];
        self.index[first..first + count].iter().copied().zip(self.weight[first..first + count].iter().copied())
    }
}

/// `rows` down the columns, then `columns` along the rows.
pub(super) fn resample<T: Real>(image: &Raster<T>, rows: &Taps, columns: &Taps) -> Raster<T> {
    let mut out = Raster::new(rows.len(), columns.len(), image.channels);
    resample_into(image, rows, columns, &mut out);
    out
}

/// The same into a picture of the result's size, whatever it shows.
pub(super) fn resample_into<T: Real>(image: &Raster<T>, rows: &Taps, columns: &Taps, out: &mut Raster<T>) {
    assert_eq!((out.height, out.width, out.channels), (rows.len(), columns.len(), image.channels), "the size");
    let (length, channels) = (out.width * out.channels, image.channels);
    if out.data.is_empty() {
        return;
    }
    let weight: Vec<T> = columns.weight.iter().map(|&w| T::of(w)).collect();
    let alike = columns.alike();
    let shifts: Vec<(usize, T)> =
        columns.of(alike.start).map(|(j, w)| (j * channels, T::of(w))).filter(|_| !alike.is_empty()).collect();
    out.data.par_chunks_mut(length).enumerate().with_min_len(8).for_each_init(
        || vec![T::zero(); image.width * channels],
        |line, (y, out)| {
            line.fill(T::zero());
            let taps: Vec<(usize, T)> = rows.of(y).map(|(j, w)| (j * line.len(), T::of(w))).collect();
            accumulate(line, &image.data, &taps);
            let (first, rest) = out.split_at_mut(alike.start * channels);
            let (middle, last) = rest.split_at_mut(alike.len() * channels);
            along(line, columns, 0, &weight, channels, first);
            middle.fill(T::zero());
            accumulate(middle, line, &shifts);
            along(line, columns, alike.end, &weight, channels, last);
        },
    );
}

/// The outputs of `columns` from number `first` on, of a line of pixels.
fn along<T: Real>(line: &[T], columns: &Taps, first: usize, weight: &[T], channels: usize, out: &mut [T]) {
    match channels {
        3 => along_of::<T, 3>(line, &columns.spans[first..], &columns.index, weight, out),
        1 => along_of::<T, 1>(line, &columns.spans[first..], &columns.index, weight, out),
        _ => {
            for (i, pixel) in out.chunks_exact_mut(channels).enumerate() {
                pixel.fill(T::zero());
                for (j, w) in columns.of(first + i) {
                    let w = T::of(w);
                    let from = &line[j * channels..(j + 1) * channels];
                    pixel.iter_mut().zip(from).for_each(|(sum, &v)| *sum += w * v);
                }
            }
        }
    }
}

/// The same for a number of channels known to the compiler.
fn along_of<T: Real, const C: usize>(
    line: &[T],
    spans: &[(usize, usize)],
    index: &[usize],
    weight: &[T],
    out: &mut [T],
) {
    for (pixel, &(first, count)) in out.chunks_exact_mut(C).zip(spans) {
        let mut sum = [T::zero(); C];
        for (&j, &w) in index[first..first + count].iter().zip(&weight[first..first + count]) {
            for (sum, &v) in sum.iter_mut().zip(&line[j * C..j * C + C]) {
                *sum += w * v;
            }
        }
        pixel.copy_from_slice(&sum);
    }
}
