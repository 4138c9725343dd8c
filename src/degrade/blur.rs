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
