//! How noisy a photo is.

use super::features::Transfer;
use super::taps::cubic;
use super::{Degradation, Downsample};
use crate::{Raster, Real};
use std::f64::consts::PI;

/// Rows and columns of the squares that are looked at.
const SIDE: usize = 16;
/// The share of squares that are smoother than the one that is believed.
const QUANTILE: f64 = 0.1;

/// The standard deviation of a photo's noise, on the scale of its values, from its smoothest parts.
///
/// In each square of 16 × 16 pixels the standard deviation of what the mask
/// [1 −2 1; −2 4 −2; 1 −2 1] leaves, divided by the mask's norm 6 (Immerkær, *Fast noise variance
/// estimation*, 1996): it is blind to planes and edges along the axes. Texture passes it, so that the
/// lowest tenth of the squares is believed, on the channel with the least. Squares with a value at 0
/// or 1 are left out, since clipping hides noise. 0 where nothing can be said.
pub fn estimate_noise<T: Real>(photo: &Raster<T>) -> f64 {
    let mut least: Option<f64> = None;
    for channel in 0..photo.channels {
        let mut found: Vec<f64> = Vec::new();
        for y in (0..(photo.height + 1).saturating_sub(SIDE)).step_by(SIDE) {
            for x in (0..(photo.width + 1).saturating_sub(SIDE)).step_by(SIDE) {
                found.extend(square(photo, y, x, channel));
            }
        }
        if found.is_empty() {
            continue;
        }
        found.sort_by(f64::total_cmp);
        let sigma = found[((found.len() as f64 * QUANTILE) as usize).min(found.len() - 1)];
        least = Some(least.map_or(sigma, |least| least.min(sigma)));
    }
    least.unwrap_or(0.0)
}

/// Frequencies along an axis that [`Degradation::texture`] looks at, of one sign.
const FREQUENCIES: usize = 24;
/// What texture leaves of an estimate, of 255, over what a spectrum of 1 / f² leaves: chosen on small
/// pieces of held-out photos (docs/training.md).
const TEXTURE: f64 = 2.0;

impl Degradation {
    /// What [`estimate_noise`] may take for noise, on the scale of [0, 1], in a small picture without any
    /// that has no smooth parts: the texture that this degradation lets through, aliases among it.
    ///
    /// 2 τ of 255, where τ² is what the estimate's mask M leaves of a picture with the power spectrum
    /// 1 / |f|², as photos have it, after the transfer function H of blur and resampling: the mean over all
    /// frequencies f of the large picture of |H(f)|² M(s f)² / (36 |f|²), with f in cycles a pixel.
    pub fn texture(&self) -> f64 {
        let spacing = 0.5 / FREQUENCIES as f64;
        let frequency = |i: usize| (i as f64 + 0.5) * spacing;
        // Along one axis: the mask's response squared, times that of the cubic if there is one.
        let along: Vec<f64> = (0..FREQUENCIES)
            .map(|i| {
                let mask = 2.0 - 2.0 * (2.0 * PI * frequency(i) * self.scale).cos();
                mask * mask * self.resampling(frequency(i))
            })
            .collect();
        let mut sum = 0.0;
        for (i, &across) in along.iter().enumerate() {
            let u = frequency(i);
            let blur = self.kernel.as_ref().map(|kernel| Transfer::along(kernel, 2.0 * PI * u));
            for (j, &down) in along.iter().enumerate() {
                let (v, wave) = (frequency(j), 2.0 * PI * frequency(j));
                // The other two quadrants are the mirror images of these two.
                let left = blur.as_ref().map_or(1.0, |blur| 0.5 * (blur.at(wave).powi(2) + blur.at(-wave).powi(2)));
                sum += down * across * left / (36.0 * (u * u + v * v));
            }
        }
        TEXTURE / 255.0 * (sum / (FREQUENCIES * FREQUENCIES) as f64).sqrt()
    }

    /// What is left of an estimate `sigma` when the part of [`Degradation::texture`] above one level of 255
    /// is not believed; the further the estimate is above it, the less of it is texture.
    pub fn beyond_texture(&self, sigma: f64) -> f64 {
        let (texture, level) = (self.texture(), 1.0 / 255.0);
        let doubt = (texture / sigma).powi(2).min(1.0) * (texture * texture - level * level).max(0.0);
        (sigma * sigma - doubt).max(0.0).sqrt()
    }

    /// The power that downsampling by itself leaves of a wave of `frequency` cycles a pixel along an axis.
    fn resampling(&self, frequency: f64) -> f64 {
        if self.downsample == Downsample::Direct {
            return 1.0;
        }
        let (reach, phase) = ((2.0 * self.scale).ceil() as isize, (self.scale - 1.0) / 2.0);
        let (mut re, mut im, mut sum) = (0.0, 0.0, 0.0);
        for x in -reach..=reach + 1 {
            let x = x as f64 - phase.fract();
            let weight = cubic(x / self.scale);
            let (sin, cos) = (2.0 * PI * frequency * x).sin_cos();
            (re, im, sum) = (re + weight * cos, im + weight * sin, sum + weight);
        }
        (re * re + im * im) / (sum * sum)
    }
}

fn square<T: Real>(photo: &Raster<T>, top: usize, left: usize, channel: usize) -> Option<f64> {
    let at = |y: usize, x: usize| photo.pixel(top + y, left + x)[channel].wide();
    let clipped = (0..SIDE * SIDE).any(|i| !(1e-9..=1.0 - 1e-9).contains(&at(i / SIDE, i % SIDE)));
    if clipped {
        return None;
    }
    let mut sum = 0.0;
    for y in 1..SIDE - 1 {
        for x in 1..SIDE - 1 {
            let row = |y: usize| at(y, x - 1) - 2.0 * at(y, x) + at(y, x + 1);
            sum += (row(y - 1) - 2.0 * row(y) + row(y + 1)).powi(2);
        }
    }
    Some((sum / ((SIDE - 2) * (SIDE - 2)) as f64).sqrt() / 6.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::{LeastSquares, Noise};
    use crate::kernel::Kernel;

    /// A photo with smooth and busy parts.
    fn photo() -> Raster<f64> {
        let mut photo = Raster::new(256, 192, 3);
        for y in 0..256 {
            for x in 0..192 {
                let busy = if y > 100 { 0.2 * (((x * 7919 + y * 104_729) % 97) as f64 / 97.0 - 0.5) } else { 0.0 };
                let smooth = 0.5 + 0.2 * (y as f64 / 60.0).sin() * (x as f64 / 45.0).cos();
                (0..3).for_each(|c| photo.data[(y * 192 + x) * 3 + c] = smooth + busy);
            }
        }
        photo
    }

    #[test]
    fn noise_is_found_among_texture() {
        assert!(estimate_noise(&photo()) < 0.2 / 255.0);
        for sigma in [1.0, 2.0, 5.0, 15.0] {
            let mut noisy = photo();
            Noise { sigma: sigma / 255.0, seed: 1 }.add(&mut noisy);
            let found = 255.0 * estimate_noise(&noisy);
            assert!((found / sigma - 1.0).abs() < 0.15, "{found} of {sigma}");
        }
        assert_eq!(estimate_noise(&Raster::<f32>::new(9, 9, 3)), 0.0);
        assert_eq!(estimate_noise(&Raster::<f32>::new(64, 64, 3)), 0.0);
    }

    fn by(kernel: Option<Kernel>, scale: f64, downsample: Downsample) -> Degradation {
        Degradation::new(scale, kernel, downsample).unwrap()
    }

    #[test]
    fn texture_is_what_the_degradation_lets_through() {
        let gaussian = |a, b, angle| Some(Kernel::gaussian(a, b, angle, 15));
        // By a fast Fourier transform on 256 × 256 frequencies (NumPy), of 255: 2 τ.
        for (degradation, wanted) in [
            (by(None, 2.0, Downsample::Bicubic), 2.416),
            (by(None, 4.0, Downsample::Bicubic), 2.448),
            (by(gaussian(0.2, 0.2, 0.0), 2.0, Downsample::Direct), 4.582),
            (by(gaussian(2.0, 2.0, 0.0), 2.0, Downsample::Direct), 0.488),
            (by(gaussian(2.0, 2.0, 0.0), 4.0, Downsample::Direct), 2.344),
            (by(gaussian(4.0, 1.0, -0.5), 2.0, Downsample::Direct), 0.674),
            (by(gaussian(1.3, 1.3, 0.0), 2.0, Downsample::Bicubic), 0.654),
        ] {
            let found = 255.0 * degradation.texture();
            assert!((found / wanted - 1.0).abs() < 0.02, "{found} and not {wanted}: {degradation:?}");
        }
    }

    #[test]
    fn texture_that_a_sharp_degradation_lets_through_is_no_noise() {
        let sharp = by(None, 2.0, Downsample::Bicubic);
        let blurred = by(Some(Kernel::gaussian(2.0, 2.0, 0.0, 15)), 2.0, Downsample::Direct);
        let level = 1.0 / 255.0;
        assert_eq!(LeastSquares::lambda_for(sharp.beyond_texture(2.0 * level)), 1e-3);
        // A blurred photo has no such texture: all is noise.
        assert_eq!(blurred.beyond_texture(2.0 * level), 2.0 * level);
        let much = sharp.beyond_texture(8.0 * level) / level;
        assert!((7.9..8.0).contains(&much), "{much}");
        assert_eq!(sharp.beyond_texture(0.0), 0.0);
    }
}
