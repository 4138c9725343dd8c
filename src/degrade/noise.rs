//! How noisy a photo is.

use crate::{Raster, Real};

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
    use crate::degrade::Noise;

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
}
