//! D on a photo file's pixels.

use super::Degradation;
use crate::image::Photo;
use crate::{Raster, Real, Result};
use rand::RngExt;
use rand_pcg::Pcg64;

/// White Gaussian noise on each value of a degraded photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation, on the scale of [0, 1]; 0 is none.
    pub sigma: f64,
    /// The same seed gives the same noise.
    pub seed: u64,
}

impl Noise {
    /// Adds the noise (Box and Muller, 1958).
    pub fn add<T: Real>(&self, image: &mut Raster<T>) {
        if self.sigma == 0.0 {
            return;
        }
        let mut random = Pcg64::new(u128::from(self.seed), 0xa02bdbf7bb3c0a7ac28fa16a64abf96);
        for pair in image.data.chunks_mut(2) {
            // 1 − [0, 1) keeps the logarithm finite.
            let radius = self.sigma * (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
            let (sine, cosine) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
            pair[0] += T::of(radius * cosine);
            if let Some(second) = pair.get_mut(1) {
                *second += T::of(radius * sine);
            }
        }
    }
}

/// D(photo) plus noise, in f64, rounded and clipped to the photo's own kind; alpha goes through
/// the same D, without noise. With `crop`, the photo is first cut at the right and bottom to whole
/// multiples of the scale, as evaluations do.
///
/// # Errors
/// A kernel larger than the photo.
pub fn degrade_photo(photo: &Photo, degradation: &Degradation, noise: Noise, crop: bool) -> Result<Photo> {
    if let Some(kernel) = degradation.kernel() {
        kernel.check_fits(photo.height(), photo.width())?;
    }
    let part = |whole: Raster<f64>| {
        if !crop {
            return whole;
        }
        let size = |size: usize| (degradation.scale() * (size as f64 / degradation.scale()).floor()) as usize;
        whole.crop(0, 0, size(whole.height).max(1), size(whole.width).max(1))
    };
    let mut small = degradation.apply(&part(photo.rgb()));
    noise.add(&mut small);
    let alpha = photo.alpha().map(|alpha| degradation.apply(&part(alpha)));
    let mut result = Photo::like(photo, small.height, small.width);
    result.put_rows(0, &small, alpha.as_ref());
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_moments_and_repeats() {
        let noise = Noise { sigma: 0.1, seed: 3 };
        let mut image = Raster::<f64>::new(101, 103, 3);
        noise.add(&mut image);
        let n = image.data.len() as f64;
        let mean = image.data.iter().sum::<f64>() / n;
        let variance = image.data.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 2e-3 && (variance.sqrt() - 0.1).abs() < 2e-3, "{mean} {variance}");
        let mut again = Raster::new(101, 103, 3);
        noise.add(&mut again);
        assert_eq!(image, again);
    }
}
