//! Degradations that act on the columns and on the rows one after the other: without a blur, or with one
//! whose weights are products, as those of a round Gaussian are. D Dᵀ then is a few taps along each axis of
//! the small picture, where in general every step of a solve goes through the large one.

use super::map::kernel_taps;
use super::taps::Taps;
use super::{Degradation, Downsample, direct_positions};
use crate::kernel::Kernel;

impl Degradation {
    /// D from `high` (rows, columns) as what it does down the columns and along the rows, or the kernel that
    /// keeps it from being that; of its result as much as fits into `low`, and zeros where that is larger.
    pub(super) fn axes(&self, high: (usize, usize), low: (usize, usize)) -> Result<[Taps; 2], &Kernel> {
        let [rows, columns] = match self.kernel() {
            None => [None, None],
            Some(kernel) => factors(kernel).ok_or(kernel)?.map(Some),
        };
        let axis = |size: usize, outputs: usize, factor: Option<Vec<f64>>| match (self.downsample(), factor) {
            (Downsample::Direct, factor) => {
                blurring(&factor.unwrap_or_else(|| vec![1.0]), &direct_positions(size, self.scale()), size).cut(outputs)
            }
            (Downsample::Bicubic, None) => self.shrinking(size).cut(outputs),
            (Downsample::Bicubic, Some(factor)) => {
                let every: Vec<usize> = (0..size).collect();
                self.shrinking(size).cut(outputs).after(&blurring(&factor, &every, size))
            }
        };
        Ok([axis(high.0, low.0, rows), axis(high.1, low.1, columns)])
    }

    /// The bicubic downsampling of an axis.
    pub(super) fn shrinking(&self, size: usize) -> Taps {
        Taps::resize(size, 1.0 / self.scale(), 0..self.low_size(size))
    }
}

/// Factors of the kernel's rows and of its columns whose products are its weights, up to rounding.
fn factors(kernel: &Kernel) -> Option<[Vec<f64>; 2]> {
    let at = |y: usize, x: usize| kernel.data[y * kernel.width + x];
    let largest = (0..kernel.data.len()).max_by(|&a, &b| kernel.data[a].abs().total_cmp(&kernel.data[b].abs()))?;
    let (top, left) = (largest / kernel.width, largest % kernel.width);
    let most = at(top, left);
    if most == 0.0 {
        return None;
    }
    let rows: Vec<f64> = (0..kernel.height).map(|y| at(y, left)).collect();
    let columns: Vec<f64> = (0..kernel.width).map(|x| at(top, x) / most).collect();
    let bound = 8.0 * f64::EPSILON * most.abs();
    let near = |i: usize| (kernel.data[i] - rows[i / kernel.width] * columns[i % kernel.width]).abs() <= bound;
    (0..kernel.data.len()).all(near).then_some([rows, columns])
}

/// The weights laid on these positions of an axis of `size` pixels.
fn blurring(weights: &[f64], positions: &[usize], size: usize) -> Taps {
    let laid = kernel_taps(positions, size, weights.len(), positions.len());
    Taps::each(laid.len(), |i| laid.of(i).map(|(j, k)| (j, weights[k])).filter(|(_, w)| *w != 0.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_told_from_what_is_none() {
        let round = Kernel::gaussian(2.0, 2.0, 0.0, 15);
        let [rows, columns] = factors(&round).unwrap();
        assert_eq!((rows.len(), columns.len()), (15, 15));
        assert!(factors(&Kernel::gaussian(4.0, 1.0, 0.0, 15).displaced(0.5, -0.25)).is_some());
        assert!(factors(&Kernel::gaussian(4.0, 1.0, -0.5, 15)).is_none());
        let mut spoiled = round.clone();
        spoiled.data[17] += 1e-9;
        assert!(factors(&spoiled).is_none());
        assert!(factors(&Kernel::new(2, 2, vec![0.0; 4]).unwrap()).is_none());
    }
}
