//! What a network is told of a degradation.

use super::Degradation;
use crate::kernel::Kernel;
use std::f64::consts::PI;

/// The number of [`Degradation::features`].
pub const FEATURES: usize = 10;

/// How much of each wave is left, for waves of so many radians a pixel along rows and columns: the
/// kernel's modulation transfer function |Σ k(x, y) exp(−i (u x + v y))| / Σ k. Sums along the rows come
/// first, so that many frequencies along columns cost little each.
pub(super) struct Transfer {
    sums: Vec<(f64, f64)>,
    all: f64,
}

impl Transfer {
    /// For waves of `u` along rows.
    pub fn along(kernel: &Kernel, u: f64) -> Self {
        let waves: Vec<(f64, f64)> = (0..kernel.width).map(|x| (u * x as f64).sin_cos()).collect();
        let sums = kernel.data.chunks_exact(kernel.width).map(|row| {
            row.iter().zip(&waves).fold((0.0, 0.0), |(re, im), (k, (sin, cos))| (re + k * cos, im - k * sin))
        });
        Transfer { sums: sums.collect(), all: kernel.data.iter().sum() }
    }

    /// And of `v` along columns.
    pub fn at(&self, v: f64) -> f64 {
        let (re, im) = self.sums.iter().enumerate().fold((0.0, 0.0), |(re, im), (y, (a, b))| {
            let (sin, cos) = (v * y as f64).sin_cos();
            (re + a * cos + b * sin, im + b * cos - a * sin)
        });
        f64::hypot(re, im) / self.all
    }
}

impl Degradation {
    /// The features of blur, scale and noise that a network's parameters may follow, each around 0 and
    /// of the size of 1: the kernel's modulation transfer function, less ½, at half the highest
    /// frequency that the small photo can hold and at that frequency, in four directions each; the
    /// scale s as (s − 2) / 2; and log₁₀(λ / 1e-3) / 2, where λ goes with the noise of the photo
    /// ([`super::LeastSquares::lambda_for`]).
    pub fn features(&self, lambda: f64) -> [f64; FEATURES] {
        let mut features = [0.0; FEATURES];
        for (i, share) in [0.5, 1.0].into_iter().enumerate() {
            for direction in 0..4 {
                let (sin, cos) = (f64::from(direction) * PI / 4.0).sin_cos();
                let frequency = share * PI / self.scale();
                let left = |kernel| Transfer::along(kernel, frequency * cos).at(frequency * sin);
                let left = self.kernel().map_or(1.0, left);
                features[4 * i + direction as usize] = left - 0.5;
            }
        }
        features[8] = (self.scale() - 2.0) / 2.0;
        features[9] = (lambda / 1e-3).log10() / 2.0;
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Downsample;

    #[test]
    fn a_gaussian_leaves_a_gaussian() {
        let kernel = Kernel::gaussian(2.0, 1.0, 0.0, 15);
        let features = Degradation::new(2.0, Some(kernel), Downsample::Direct).unwrap().features(1e-3);
        // exp(−½ ωᵀ Σ ω): λ1 lies along x, which is direction 0.
        let wanted = |share: f64, direction: usize| {
            let (sin, cos) = (direction as f64 * PI / 4.0).sin_cos();
            let w = share * PI / 2.0;
            (-0.5 * w * w * (2.0 * cos * cos + sin * sin)).exp() - 0.5
        };
        for direction in 0..4 {
            assert!((features[direction] - wanted(0.5, direction)).abs() < 1e-4, "{features:?}");
            assert!((features[4 + direction] - wanted(1.0, direction)).abs() < 1e-4, "{features:?}");
        }
        assert_eq!(features[8..], [0.0, 0.0]);
        // A displaced kernel blurs as much.
        let moved = Kernel::gaussian(2.0, 1.0, 0.0, 15).displaced(1.0, 2.0);
        let moved = Degradation::new(2.0, Some(moved), Downsample::Direct).unwrap().features(1e-3);
        assert!(features.iter().zip(&moved).all(|(a, b)| (a - b).abs() < 1e-4), "{features:?} {moved:?}");
    }

    #[test]
    fn without_blur_all_is_left() {
        let features = Degradation::new(4.0, None, Downsample::Bicubic).unwrap().features(1e-1);
        assert_eq!(features, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]);
    }
}
