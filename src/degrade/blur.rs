//! Correlation with a kernel under half-sample symmetric edges at every `step`-th pixel, and its
//! exact adjoint.
//!
//! With C the correlation of an image whose edges have been continued and E that continuation, the
//! blur is C E and its adjoint Eᵀ Cᵀ. A continued row is kept sorted by phase: pixels x ≡ 0 (mod
//! step) first, then x ≡ 1, …; every tap of the kernel is then one multiply-add of neighbours.

use super::sums::{SLACK, accumulate, square};
use super::taps::mirror;
use crate::kernel::Kernel;
use crate::{Raster, Real};
use rayon::prelude::*;

/// The picture correlated with the kernel, at every pixel.
pub fn blur<T: Real>(image: &Raster<T>, kernel: &Kernel) -> Raster<T> {
    Blur::new(kernel, 1, image.height, image.width, image.channels).apply(image)
}

/// Rows that a thread takes at least.
const LEAST_ROWS: usize = 4;

/// Correlation of a picture of a certain size with a kernel, at every `step`-th pixel.
pub(super) struct Blur<T> {
    step: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// Rows and columns of the result.
    low: (usize, usize),
    /// Rows and columns of the kernel, and its centre.
    size: (usize, usize),
    centre: (usize, usize),
    /// Pixels of one phase of a continued row.
    pitch: usize,
    /// By row of the kernel: where a tap begins in a continued row, and its weight.
    forward: Vec<Vec<(usize, T)>>,
    /// By row of the kernel and phase: where a tap begins in a row of the result with zeros on both
    /// sides, and its weight.
    backward: Vec<Vec<Vec<(usize, T)>>>,
    /// Zeros (pixels) before and after such a row.
    zeros: (usize, usize),
    /// For each column of a continued row: which column of the picture it shows (first value), and
    /// its first value in the continued row.
    columns: Vec<(usize, usize)>,
}

/// A picture with its edges continued, rows sorted by phase.
pub(super) struct Continued<T>(Vec<T>);

/// What [`Blur::normal`] works in. Large memory that is asked for and given back in every step of a solve
/// costs as much as the step.
pub(super) struct Scratch<T> {
    /// Rows of the result with zeros on both sides.
    lines: Vec<T>,
    spread: Continued<T>,
}

impl<T: Real> Blur<T> {
    pub fn new(kernel: &Kernel, step: usize, height: usize, width: usize, channels: usize) -> Self {
        let (size, centre) = ((kernel.height, kernel.width), (kernel.height / 2, kernel.width / 2));
        let padded = width + size.1 - 1;
        let pitch = padded.div_ceil(step);
        let reach = (size.1 - 1) / step;
        let taps = |ky: usize| {
            let row = &kernel.data[ky * size.1..(ky + 1) * size.1];
            row.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(kx, &w)| (kx, T::of(w)))
        };
        let forward = (0..size.0)
            .map(|ky| taps(ky).map(|(kx, w)| ((kx % step * pitch + kx / step) * channels, w)).collect())
            .collect();
        let backward = (0..size.0)
            .map(|ky| {
                let phase = |p| taps(ky).filter(move |(kx, _)| kx % step == p);
                (0..step).map(|p| phase(p).map(|(kx, w)| ((reach - kx / step) * channels, w)).collect()).collect()
            })
            .collect();
        let columns = (0..padded)
            .map(|x| {
                let shows = mirror(x as isize - centre.1 as isize, width) * channels;
                (shows, (x % step * pitch + x / step) * channels)
            })
            .collect();
        let low = (height.div_ceil(step), width.div_ceil(step));
        let zeros = (reach, pitch + reach - low.1.min(pitch));
        Blur { step, height, width, channels, low, size, centre, pitch, forward, backward, zeros, columns }
    }

    fn row_length(&self) -> usize {
        self.step * self.pitch * self.channels
    }

    /// The picture's row that row `padded` of the continued picture shows.
    fn shows(&self, padded: usize) -> usize {
        mirror(padded as isize - self.centre.0 as isize, self.height)
    }

    /// C E image.
    pub fn apply(&self, image: &Raster<T>) -> Raster<T> {
        self.correlate(&self.extend(image))
    }

    /// Eᵀ Cᵀ low.
    pub fn adjoint(&self, low: &Raster<T>) -> Raster<T> {
        let mut scratch = self.scratch();
        self.spread(low, &mut scratch);
        self.fold(&scratch.spread)
    }

    /// What [`Blur::normal`] works in.
    pub fn scratch(&self) -> Scratch<T> {
        let line = (self.zeros.0 + self.low.1 + self.zeros.1) * self.channels;
        Scratch { lines: vec![T::zero(); line * self.low.0 + SLACK], spread: Continued(self.continued().0) }
    }

    /// C E Eᵀ Cᵀ low into `out`, whatever it shows; ‖Eᵀ Cᵀ low‖².
    pub fn normal(&self, low: &Raster<T>, scratch: &mut Scratch<T>, out: &mut Raster<T>) -> f64 {
        self.spread(low, scratch);
        let size = self.fold_and_extend(&mut scratch.spread);
        self.correlate_into(&scratch.spread, out);
        size
    }

    /// An empty continued picture with the slack that [`accumulate`] reads, and its length without.
    fn continued(&self) -> (Vec<T>, usize) {
        let length = (self.height + self.size.0 - 1) * self.row_length();
        (vec![T::zero(); length + SLACK], length)
    }

    /// E image.
    fn extend(&self, image: &Raster<T>) -> Continued<T> {
        let (mut out, length) = self.continued();
        let channels = self.channels;
        out[..length].par_chunks_mut(self.row_length()).enumerate().with_min_len(LEAST_ROWS).for_each(|(y, out)| {
            let row = image.row(self.shows(y));
            match channels {
                3 => {
                    for &(from, to) in &self.columns {
                        out[to..to + 3].copy_from_slice(&row[from..from + 3]);
                    }
                }
                _ => {
                    for &(from, to) in &self.columns {
                        out[to..to + channels].copy_from_slice(&row[from..from + channels]);
                    }
                }
            }
        });
        Continued(out)
    }

    /// C padded.
    fn correlate(&self, padded: &Continued<T>) -> Raster<T> {
        let mut out = Raster::new(self.low.0, self.low.1, self.channels);
        self.correlate_into(padded, &mut out);
        out
    }

    /// The same into a picture of the result's size, whatever it shows.
    fn correlate_into(&self, padded: &Continued<T>, out: &mut Raster<T>) {
        assert_eq!((out.height, out.width, out.channels), (self.low.0, self.low.1, self.channels), "the blurred size");
        let length = self.row_length();
        out.data.par_chunks_mut(self.low.1 * self.channels).enumerate().with_min_len(LEAST_ROWS).for_each(
            |(i, out)| {
                out.fill(T::zero());
                for (ky, taps) in self.forward.iter().enumerate() {
                    let y = self.step * i + ky;
                    accumulate(out, &padded.0[y * length..], taps);
                }
            },
        );
    }

    /// Cᵀ low.
    fn spread(&self, low: &Raster<T>, scratch: &mut Scratch<T>) {
        assert_eq!((low.height, low.width, low.channels), (self.low.0, self.low.1, self.channels), "the blurred size");
        let channels = self.channels;
        let (before, line) = (self.zeros.0 * channels, (self.zeros.0 + self.low.1 + self.zeros.1) * channels);
        let Scratch { lines, spread: Continued(out) } = scratch;
        for (i, out) in lines.chunks_exact_mut(line).take(self.low.0).enumerate() {
            out[before..before + self.low.1 * channels].copy_from_slice(low.row(i));
        }
        let (lines, length) = (&*lines, out.len() - SLACK);
        out[..length].par_chunks_mut(self.row_length()).enumerate().with_min_len(LEAST_ROWS).for_each(|(y, out)| {
            out.fill(T::zero());
            // Row y is read by row i of the result through row ky = y − step · i of the kernel.
            for ky in (y % self.step..self.size.0.min(y + 1)).step_by(self.step) {
                let i = (y - ky) / self.step;
                if i < self.low.0 {
                    let source = &lines[i * line..];
                    for (phase, taps) in out.chunks_exact_mut(self.pitch * channels).zip(&self.backward[ky]) {
                        accumulate(phase, source, taps);
                    }
                }
            }
        });
    }

    /// Eᵀ padded.
    fn fold(&self, padded: &Continued<T>) -> Raster<T> {
        let mut out = Raster::new(self.height, self.width, self.channels);
        let (length, channels) = (self.row_length(), self.channels);
        let shown = self.rows_by_what_they_show();
        out.data.par_chunks_mut(self.width * channels).zip(shown).with_min_len(LEAST_ROWS).for_each(|(out, rows)| {
            for y in rows {
                let row = &padded.0[y * length..(y + 1) * length];
                for &(to, from) in &self.columns {
                    out[to..to + channels].iter_mut().zip(&row[from..from + channels]).for_each(|(sum, &v)| *sum += v);
                }
            }
        });
        out
    }

    fn rows_by_what_they_show(&self) -> Vec<Vec<usize>> {
        let mut rows = vec![Vec::new(); self.height];
        (0..self.height + self.size.0 - 1).for_each(|y| rows[self.shows(y)].push(y));
        rows
    }

    /// E Eᵀ padded: what the continued rows and columns hold is added to those that they show, and
    /// then shown again. Returns ‖Eᵀ padded‖².
    fn fold_and_extend(&self, padded: &mut Continued<T>) -> f64 {
        let length = self.row_length();
        let inside = self.centre.0..self.centre.0 + self.height;
        let outside = (0..self.height + self.size.0 - 1).filter(|y| !inside.contains(y));
        for y in outside.clone() {
            let to = self.centre.0 + self.shows(y);
            let (to, from) = two_rows(&mut padded.0, length, to, y);
            to.iter_mut().zip(from).for_each(|(sum, &mut v)| *sum += v);
        }
        let margin = |x: &usize| *x < self.centre.1 || *x >= self.centre.1 + self.width;
        let places: Vec<(usize, usize)> = (0..self.columns.len())
            .filter(margin)
            .map(|x| {
                let (shows, at) = self.columns[x];
                (self.columns[self.centre.1 + shows / self.channels].1, at)
            })
            .collect();
        let rows = padded.0[inside.start * length..inside.end * length].par_chunks_mut(length);
        let sizes: Vec<f64> = rows
            .with_min_len(LEAST_ROWS)
            .map(|row| {
                for &(inner, outer) in &places {
                    (0..self.channels).for_each(|c| row[inner + c] += row[outer + c]);
                }
                for &(_, outer) in &places {
                    row[outer..outer + self.channels].fill(T::zero());
                }
                let size = square(row);
                for &(inner, outer) in &places {
                    (0..self.channels).for_each(|c| row[outer + c] = row[inner + c]);
                }
                size
            })
            .collect();
        for y in outside {
            let from = self.centre.0 + self.shows(y);
            let (from, to) = two_rows(&mut padded.0, length, from, y);
            to.copy_from_slice(from);
        }
        sizes.iter().sum()
    }
}

/// Rows `a` and `b`, which differ.
fn two_rows<T>(data: &mut [T], length: usize, a: usize, b: usize) -> (&mut [T], &mut [T]) {
    let (first, second) = (a.min(b), a.max(b));
    let (head, tail) = data.split_at_mut(second * length);
    let (first, second) = (&mut head[first * length..(first + 1) * length], &mut tail[..length]);
    if a < b { (first, second) } else { (second, first) }
}
