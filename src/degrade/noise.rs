//! How noisy a photo is.

use super::features::Transfer;
use super::taps::cubic;
use super::{Degradation, Downsample};
use crate::{Raster, Real};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Rows and columns of the squares that are looked at, and how far one lies from the next.
const SIDE: usize = 8;
const APART: usize = SIDE / 2;
/// Pixels that both masks see around a pixel, along an axis.
const REACH: usize = 6;
/// The share of squares that are believed: those with the least in the finest detail.
const SHARE: f64 = 0.2;
/// What makes up for that choice: chosen on pieces of held-out photos (docs/training.md).
const LEAST: f64 = 1.29;
/// Bands of squares that are looked at, at most.
const BANDS: usize = 256;
/// Frequencies along an axis that [`Degradation::coarser`] looks at, of one sign.
const FREQUENCIES: usize = 24;

/// Of a square, the mean squares of what the masks leave, each divided by what white noise leaves in the
/// finest detail: of the finest detail, and of that of the picture of twice the size a pixel.
type Detail = [f64; 2];

impl Degradation {
    /// The standard deviation of the noise of a photo that this degradation made, on the scale of its
    /// values; 0 where nothing can be said.
    ///
    /// The mask M = [1 −2 1; −2 4 −2; 1 −2 1] / 6 is blind to planes and to edges along the axes
    /// (Immerkær, *Fast noise variance estimation*, 1996). Of white noise of variance σ² it leaves F = σ², and,
    /// with a mask of twice the size, G = σ²/4 of the means of 2 × 2 pixels. Texture it does not leave out; but
    /// of that there is κ times as much at the coarser scale, as blur and resampling have it, so that
    /// σ² = (κ F − G) / (κ − ¼). F and G are means over the fifth of all squares of 8 × 8 pixels that has the
    /// least F, on the channel with the least σ. Squares with a value at 0 or 1 are left out, since clipping
    /// hides noise.
    pub fn noise<T: Real>(&self, photo: &Raster<T>) -> f64 {
        let coarser = self.coarser().max(1.0);
        let found = squares(photo).into_iter().filter_map(|mut squares: Vec<Detail>| {
            squares.sort_by(|a, b| a[0].total_cmp(&b[0]));
            squares.truncate((squares.len() as f64 * SHARE).ceil() as usize);
            let mean = |scale: usize| squares.iter().map(|of| of[scale]).sum::<f64>() / squares.len() as f64;
            (!squares.is_empty()).then(|| (coarser * mean(0) - mean(1)) / (coarser - 0.25))
        });
        LEAST * found.min_by(f64::total_cmp).unwrap_or(0.0).max(0.0).sqrt()
    }

    /// κ: how much more texture the mask of [`Degradation::noise`] finds at the coarser scale than at the
    /// finest, in a picture that had the power spectrum 1 / |f|², as photos have it, before blur and
    /// resampling with the transfer function H: the sum over all frequencies f of the large picture of
    /// |H(f)|² |M(s f)|² / |f|² for the one mask over that for the other; aliases are among them.
    fn coarser(&self) -> f64 {
        let spacing = 0.5 / FREQUENCIES as f64;
        let frequency = |i: usize| (i as f64 + 0.5) * spacing;
        // Along one axis: the masks' responses squared, times that of the cubic if there is one.
        let along: Vec<Detail> = (0..FREQUENCIES)
            .map(|i| {
                let (f, left) = (2.0 * PI * self.scale * frequency(i), self.resampling(frequency(i)));
                let (fine, coarse) = (2.0 - 2.0 * f.cos(), (2.0 - 2.0 * (2.0 * f).cos()) * (0.5 * f).cos());
                [fine * fine * left, coarse * coarse * left]
            })
            .collect();
        let mut sums = [0.0; 2];
        for (i, across) in along.iter().enumerate() {
            let u = frequency(i);
            let blur = self.kernel.as_ref().map(|kernel| Transfer::along(kernel, 2.0 * PI * u));
            for (j, down) in along.iter().enumerate() {
                let (v, wave) = (frequency(j), 2.0 * PI * frequency(j));
                // The other two quadrants are the mirror images of these two.
                let left = blur.as_ref().map_or(1.0, |blur| 0.5 * (blur.at(wave).powi(2) + blur.at(-wave).powi(2)));
                for (sum, (a, b)) in sums.iter_mut().zip(across.iter().zip(down)) {
                    *sum += a * b * left / (u * u + v * v);
                }
            }
        }
        sums[1] / sums[0]
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

/// Of each channel, the detail in its squares; of a large photo in some of them, evenly chosen.
fn squares<T: Real>(photo: &Raster<T>) -> Vec<Vec<Detail>> {
    let tops: Vec<usize> = (0..(photo.height + 1).saturating_sub(SIDE + REACH - 1)).step_by(APART).collect();
    let bands: Vec<usize> = tops.iter().copied().step_by(tops.len().div_ceil(BANDS).max(1)).collect();
    let bands: Vec<Vec<Vec<Detail>>> = bands.par_iter().map(|&top| band(photo, top)).collect();
    (0..photo.channels).map(|c| bands.iter().flat_map(|band| band[c].iter().copied()).collect()).collect()
}

/// The same of the squares whose uppermost row of pixels is `top`.
fn band<T: Real>(photo: &Raster<T>, top: usize) -> Vec<Vec<Detail>> {
    let channels = photo.channels;
    let columns = (photo.width + 1).saturating_sub(REACH);
    // What the masks leave along the rows, by row; then down the columns.
    let rows: Vec<[Vec<f64>; 2]> = (top..top + SIDE + REACH - 1)
        .map(|y| {
            // What a clipped value goes into is no number, and left out at the end.
            let value = |v: &T| if (1e-9..=1.0 - 1e-9).contains(&v.wide()) { v.wide() } else { f64::NAN };
            let row: Vec<f64> = photo.row(y).iter().map(value).collect();
            let at = |i: usize, pixel: usize| row[i + pixel * channels];
            let fine = |i| at(i, 1) - 2.0 * at(i, 2) + at(i, 3);
            let coarse = |i| at(i, 0) + at(i, 1) - 2.0 * (at(i, 2) + at(i, 3)) + at(i, 4) + at(i, 5);
            let all = 0..columns * channels;
            [all.clone().map(fine).collect(), all.map(coarse).collect()]
        })
        .collect();
    let part = APART * channels;
    let parts = columns / APART;
    // By part of a row, four columns wide, and by channel.
    let mut sums = vec![[0.0; 2]; parts * channels];
    for y in 0..SIDE {
        let line = |row: usize, scale: usize| &rows[y + row][scale];
        for i in 0..parts * part {
            let fine = line(1, 0)[i] - 2.0 * line(2, 0)[i] + line(3, 0)[i];
            let coarse =
                line(0, 1)[i] + line(1, 1)[i] - 2.0 * (line(2, 1)[i] + line(3, 1)[i]) + line(4, 1)[i] + line(5, 1)[i];
            let sum: &mut Detail = &mut sums[i / part * channels + i % channels];
            sum[0] += fine * fine;
            sum[1] += coarse * coarse;
        }
    }
    let mean = (SIDE * SIDE * 36) as f64;
    let square = |left: usize, channel: usize| {
        let [a, b] = [left, left + 1].map(|part| sums[part * channels + channel]);
        // A mean over 2 × 2 pixels is a quarter of their sum.
        [(a[0] + b[0]) / mean, (a[1] + b[1]) / (16.0 * mean)]
    };
    (0..channels)
        .map(|channel| {
            (0..parts.saturating_sub(1))
                .map(|left| square(left, channel))
                .filter(|detail| detail.iter().all(|of| of.is_finite()))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Noise;
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
        let d = by(Some(Kernel::gaussian(2.0, 2.0, 0.0, 15)), 2.0, Downsample::Direct);
        assert!(d.noise(&photo()) < 0.2 / 255.0);
        for sigma in [1.0, 2.0, 5.0, 15.0] {
            let mut noisy = photo();
            Noise { sigma: sigma / 255.0, seed: 1 }.add(&mut noisy);
            let found = 255.0 * d.noise(&noisy);
            assert!((found / sigma - 1.0).abs() < 0.15, "{found} of {sigma}");
        }
        assert_eq!(d.noise(&Raster::<f32>::new(9, 9, 3)), 0.0);
        assert_eq!(d.noise(&Raster::<f32>::new(64, 64, 3)), 0.0);
    }

    fn by(kernel: Option<Kernel>, scale: f64, downsample: Downsample) -> Degradation {
        Degradation::new(scale, kernel, downsample).unwrap()
    }

    #[test]
    fn texture_grows_with_scale_as_the_degradation_has_it() {
        let gaussian = |a, b, angle| Some(Kernel::gaussian(a, b, angle, 15));
        // By a fast Fourier transform on 256 × 256 frequencies (NumPy).
        for (degradation, wanted) in [
            (by(None, 2.0, Downsample::Bicubic), 1.643),
            (by(gaussian(0.2, 0.2, 0.0), 2.0, Downsample::Direct), 0.570),
            (by(gaussian(2.0, 2.0, 0.0), 2.0, Downsample::Direct), 10.665),
            (by(gaussian(2.0, 2.0, 0.0), 4.0, Downsample::Direct), 1.381),
        ] {
            let found = degradation.coarser();
            assert!((found / wanted - 1.0).abs() < 0.02, "{found} and not {wanted}: {degradation:?}");
        }
    }

    /// Texture of a spectrum of 1 / f² all over, without and with noise.
    #[test]
    fn texture_is_no_noise() {
        let mut random = Raster::<f64>::new(256, 256, 3);
        Noise { sigma: 1.0, seed: 3 }.add(&mut random);
        let mut large = Raster::<f64>::new(256, 256, 3);
        for octave in 0..7 {
            // Blocks of 2^octave pixels, each octave as strong as the next.
            for y in 0..256 {
                for x in 0..256 {
                    let from = random.pixel(((y >> octave) + 17 * octave) & 255, ((x >> octave) + 31 * octave) & 255);
                    (0..3).for_each(|c| large.data[(y * 256 + x) * 3 + c] += 0.04 * from[c]);
                }
            }
        }
        large.data.iter_mut().for_each(|v| *v = (0.5 + 0.5 * *v).clamp(0.1, 0.9));
        let d = by(Some(Kernel::gaussian(2.0, 2.0, 0.0, 15)), 4.0, Downsample::Direct);
        let low = d.apply(&large);
        let texture = 255.0 * d.noise(&low);
        let mut noisy = low.clone();
        Noise { sigma: 5.0 / 255.0, seed: 1 }.add(&mut noisy);
        let found = 255.0 * d.noise(&noisy);
        assert!(texture < 1.5 && (3.5..6.0).contains(&found), "{texture} and {found}");
    }
}
