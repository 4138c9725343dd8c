//! Correlation with a kernel under half-sample symmetric edges.

use super::taps::mirror;
use crate::kernel::Kernel;
use crate::{Raster, Real};
use rayon::prelude::*;

/// The picture correlated with the kernel, at every pixel.
pub fn blur<T: Real>(image: &Raster<T>, kernel: &Kernel) -> Raster<T> {
    let rows: Vec<usize> = (0..image.height).collect();
    let columns: Vec<usize> = (0..image.width).collect();
    blur_at(image, kernel, &rows, &columns)
}

/// The picture correlated with the kernel, at the crossings of the given rows and columns only.
pub fn blur_at<T: Real>(image: &Raster<T>, kernel: &Kernel, rows: &[usize], columns: &[usize]) -> Raster<T> {
    let channels = image.channels;
    let mut out = Raster::new(rows.len(), columns.len(), channels);
    if out.data.is_empty() {
        return out;
    }
    let (above, left) = ((kernel.height / 2) as isize, (kernel.width / 2) as isize);
    let weight: Vec<T> = kernel.data.iter().map(|&w| T::of(w)).collect();
    // Column j of the kernel reads padded pixels x + j: every tap is one long multiply-add.
    let source: Vec<usize> =
        (0..image.width + kernel.width - 1).map(|x| mirror(x as isize - left, image.width) * channels).collect();
    let length = image.width * channels;
    out.data.par_chunks_mut(columns.len() * channels).enumerate().with_min_len(4).for_each_init(
        || (vec![T::zero(); source.len() * channels], vec![T::zero(); length]),
        |(padded, line), (i, out)| {
            line.fill(T::zero());
            for ky in 0..kernel.height {
                let row = image.row(mirror(rows[i] as isize + ky as isize - above, image.height));
                for (pixel, &from) in padded.chunks_exact_mut(channels).zip(&source) {
                    pixel.copy_from_slice(&row[from..from + channels]);
                }
                for kx in 0..kernel.width {
                    let w = weight[ky * kernel.width + kx];
                    if w != T::zero() {
                        let shifted = &padded[kx * channels..kx * channels + length];
                        line.iter_mut().zip(shifted).for_each(|(sum, &v)| *sum += w * v);
                    }
                }
            }
            for (pixel, &x) in out.chunks_exact_mut(channels).zip(columns) {
                pixel.copy_from_slice(&line[x * channels..(x + 1) * channels]);
            }
        },
    );
    out
}

/// The adjoint of [`blur_at`] from `height` × `width`: `low` is spread to the crossings of the given
/// rows and columns, and what falls beyond an edge is folded back over it.
pub fn blur_adjoint<T: Real>(
    low: &Raster<T>,
    kernel: &Kernel,
    rows: &[usize],
    columns: &[usize],
    height: usize,
    width: usize,
) -> Raster<T> {
    let channels = low.channels;
    let (above, left) = ((kernel.height / 2) as isize, (kernel.width / 2) as isize);
    let weight: Vec<T> = kernel.data.iter().map(|&w| T::of(w)).collect();
    let (padded_height, padded_width) = (height + kernel.height - 1, width + kernel.width - 1);
    // Row i of the spread picture, if there is one; rows may repeat at the end (real scales).
    let mut spread: Vec<Vec<usize>> = vec![Vec::new(); height];
    rows.iter().enumerate().for_each(|(i, &y)| spread[y].push(i));
    let columns_from: Vec<usize> = (0..padded_width).map(|x| mirror(x as isize - left, width) * channels).collect();
    // Each padded row, folded along the row; then the rows are folded.
    let mut folded = Raster::<T>::new(padded_height, width, channels);
    let length = width * channels;
    if length == 0 {
        return Raster::new(height, width, channels);
    }
    folded.data.par_chunks_mut(length).enumerate().with_min_len(4).for_each_init(
        || (vec![T::zero(); padded_width * channels], vec![T::zero(); length]),
        |(padded, line), (p, out)| {
            padded.fill(T::zero());
            for ky in 0..kernel.height.min(p + 1) {
                let Some(sources) = spread.get(p - ky).filter(|sources| !sources.is_empty()) else { continue };
                line.fill(T::zero());
                for &i in sources {
                    for (pixel, &x) in low.row(i).chunks_exact(channels).zip(columns) {
                        let to = &mut line[x * channels..(x + 1) * channels];
                        to.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v);
                    }
                }
                for kx in 0..kernel.width {
                    let w = weight[ky * kernel.width + kx];
                    if w != T::zero() {
                        let shifted = &mut padded[kx * channels..kx * channels + length];
                        shifted.iter_mut().zip(&*line).for_each(|(sum, &v)| *sum += w * v);
                    }
                }
            }
            for (pixel, &to) in padded.chunks_exact(channels).zip(&columns_from) {
                out[to..to + channels].iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v);
            }
        },
    );
    let mut out = Raster::new(height, width, channels);
    for p in 0..padded_height {
        let to = mirror(p as isize - above, height);
        out.row_mut(to).iter_mut().zip(folded.row(p)).for_each(|(sum, &v)| *sum += v);
    }
    out
}
