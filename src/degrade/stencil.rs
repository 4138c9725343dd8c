//! D Dᵀ for a blur that is no product of two axes, on the small picture: at a whole scale it is the same few
//! weights around every pixel, except near the edges, where strips go through the large picture.

use super::least_squares::{Normal, dot};
use super::sums::{SLACK, accumulate};
use super::{Degradation, Downsample};
use crate::kernel::Kernel;
use crate::{Raster, Real};
use rayon::prelude::*;

/// The weights of D Dᵀ around a pixel that is far from all edges.
struct Stencil {
    /// Rows and columns of it to each side of its centre.
    reach: usize,
    /// By row; (column, weight) of those that are not zero.
    rows: Vec<Vec<(usize, f64)>>,
}

/// A part of the picture along an edge, through the large one.
struct Strip<'a, T> {
    /// Top and left of what it sees.
    at: (usize, usize),
    /// Rows and columns of it that hold: those near enough to the edge.
    keeps: [std::ops::Range<usize>; 2],
    sees: Raster<T>,
    makes: Raster<T>,
    normal: Normal<'a, T>,
}

impl Degradation {
    /// Whether [`Degradation::normal_small`] is less work than [`Degradation::normal_through`], by the products
    /// for a pixel of the small picture.
    pub(super) fn small_is_less(&self, kernel: &Kernel, height: usize, width: usize) -> bool {
        let Some(step) = self.whole_scale() else { return false };
        let blurs = 2 * kernel.data.iter().filter(|w| **w != 0.0).count();
        let (cubic, through) = match self.downsample() {
            Downsample::Direct => (0, blurs),
            Downsample::Bicubic => (4 * step, blurs * step * step),
        };
        let reach = |length: usize| (length - 1 + cubic) / step;
        let inside = (2 * reach(kernel.height) + 1) * (2 * reach(kernel.width) + 1);
        let along_edges = |size: usize| 4.0 * self.margin(kernel, step) as f64 / self.low_size(size) as f64;
        (inside as f64) < through as f64 * (1.0 - along_edges(height) - along_edges(width))
    }

    /// Within so many LR pixels of an edge D Dᵀ may be another: D reads pixels there that continue the picture,
    /// or that Dᵀ laid such pixels on. The kernel's size decides and not how far D Dᵀ reaches, which is little
    /// where all weights lie together, but far from the centre.
    fn margin(&self, kernel: &Kernel, step: usize) -> usize {
        let cubic = if self.downsample() == Downsample::Bicubic { 4 * step } else { 0 };
        (kernel.height.max(kernel.width) + cubic).div_ceil(step) + 1
    }

    /// D(Dᵀ(·)) and ⟨·, D(Dᵀ(·))⟩ of degraded pictures of `height` × `width`, where the scale is a whole number
    /// and there is room for strips.
    pub(super) fn normal_small<'a, T: Real>(
        &'a self,
        kernel: &Kernel,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Option<Normal<'a, T>> {
        let step = self.whole_scale()?;
        let (rows, columns) = (self.low_size(height), self.low_size(width));
        // A strip is twice as wide, for its inner edge not to be seen.
        let margin = self.margin(kernel, step);
        let wide = 2 * margin;
        if rows.min(columns) < 2 * wide {
            return None;
        }
        let stencil = self.stencil(kernel, step, margin);
        let strip = |top: usize, left: usize, (h, w): (usize, usize), keeps| {
            let high = (height.min(step * (top + h)) - step * top, width.min(step * (left + w)) - step * left);
            let empty = Raster::new(h, w, channels);
            let fits = (self.low_size(high.0), self.low_size(high.1)) == (h, w);
            let normal = self.normal_through(kernel, high.0, high.1, channels);
            fits.then(|| Strip { at: (top, left), keeps, sees: empty.clone(), makes: empty, normal })
        };
        let mut strips = vec![
            strip(0, 0, (wide, columns), [0..margin, 0..columns])?,
            strip(rows - wide, 0, (wide, columns), [margin..wide, 0..columns])?,
            strip(0, 0, (rows, wide), [0..rows, 0..margin])?,
            strip(0, columns - wide, (rows, wide), [0..rows, margin..wide])?,
        ];
        let line = (columns + 2 * stencil.reach) * channels;
        let mut lines = vec![T::zero(); line * rows + SLACK];
        let taps: Vec<Vec<(usize, T)>> =
            stencil.rows.iter().map(|row| row.iter().map(|&(x, w)| (x * channels, T::of(w))).collect()).collect();
        let reach = stencil.reach;
        Some(Box::new(move |seen, out| {
            for (line, row) in lines.chunks_exact_mut(line).zip(seen.data.chunks_exact(columns * channels)) {
                line[reach * channels..][..row.len()].copy_from_slice(row);
            }
            out.data.par_chunks_mut(columns * channels).enumerate().with_min_len(4).for_each(|(y, out)| {
                out.fill(T::zero());
                for (dy, taps) in taps.iter().enumerate() {
                    if let Some(from) = (y + dy).checked_sub(reach).filter(|from| *from < rows) {
                        accumulate(out, &lines[from * line..], taps);
                    }
                }
            });
            for strip in &mut strips {
                strip.apply(seen, out);
            }
            dot(&seen.data, &out.data)
        }))
    }

    /// What D Dᵀ makes of a single pixel with nothing near it.
    fn stencil(&self, kernel: &Kernel, step: usize, margin: usize) -> Stencil {
        // Far enough from the edges for neither Dᵀ nor D to see them.
        let centre = 2 * margin;
        let size = 2 * centre + 1;
        let (mut one, mut out) = (Raster::<f64>::new(size, size, 1), Raster::new(size, size, 1));
        one.data[centre * size + centre] = 1.0;
        self.normal_through(kernel, size * step, size * step, 1)(&one, &mut out);
        let largest = out.data.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        // What is below is lost in the sums' rounding.
        let counts = |v: f64| v.abs() > 1e-17 * largest;
        let reach = (0..out.data.len())
            .filter(|&i| counts(out.data[i]))
            .map(|i| (i / size).abs_diff(centre).max((i % size).abs_diff(centre)))
            .max()
            .unwrap_or(0);
        let inside = centre - reach..=centre + reach;
        let row = |y: usize| {
            let of = |x: usize| Some((x - (centre - reach), out.data[y * size + x])).filter(|(_, v)| counts(*v));
            inside.clone().filter_map(of).collect()
        };
        Stencil { reach, rows: inside.clone().map(row).collect() }
    }
}

impl<T: Real> Strip<'_, T> {
    fn apply(&mut self, seen: &Raster<T>, out: &mut Raster<T>) {
        let (channels, (top, left)) = (seen.channels, self.at);
        let length = self.sees.width * channels;
        for y in 0..self.sees.height {
            self.sees.row_mut(y).copy_from_slice(&seen.row(top + y)[left * channels..][..length]);
        }
        (self.normal)(&self.sees, &mut self.makes);
        let [rows, columns] = self.keeps.clone();
        let kept = columns.start * channels..columns.end * channels;
        for y in rows {
            out.row_mut(top + y)[left * channels..][kept.clone()].copy_from_slice(&self.makes.row(y)[kept.clone()]);
        }
    }
}
