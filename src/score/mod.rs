//! How close a picture is to the true one: PSNR and SSIM.
//!
//! Two pictures are compared over their common top-left part, cropped to a multiple of the scale
//! and cut on each side by [`border`] pixels (PROTOCOL.md, "Scores").

use crate::{Error, Raster, Result};
use rayon::prelude::*;
use std::fmt;
use std::str::FromStr;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Preset {
    /// The paper's: Y of BT.601 in 16 … 235, rounded to integers.
    #[default]
    Mzsr,
    /// BasicSR's: the same Y, not rounded.
    Basicsr,
    /// The three channels: the mean squared error over all of them, the mean of their three SSIMs.
    Rgb,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Preset::Mzsr => "mzsr",
            Preset::Basicsr => "basicsr",
            Preset::Rgb => "rgb",
        })
    }
}

impl FromStr for Preset {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mzsr" => Ok(Preset::Mzsr),
            "basicsr" => Ok(Preset::Basicsr),
            "rgb" => Ok(Preset::Rgb),
            other => Err(Error::input(format!("preset '{other}' is not known; use mzsr, basicsr or rgb"))),
        }
    }
}

/// Both scores of a picture.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// 10 log₁₀(255² / mean squared error) in dB; infinite for identical pictures.
    pub psnr: f64,
    /// The structural similarity of Wang et al. (2004), 1 for identical pictures.
    pub ssim: f64,
}

/// The side of SSIM's window.
const WINDOW: usize = 11;
/// Rows of the SSIM map that are made at a time.
const STRIP: usize = 32;

/// Pixels cut on each side: ⌈scale⌉.
pub fn border(scale: f64) -> usize {
    (scale - 1e-9).ceil().max(0.0) as usize
}

/// The longest length of at most `size` that is a multiple of the scale: ⌊size / s⌋ · s. For a scale
/// that is not an integer, the integer part of that, since pictures have whole pixels.
pub fn cropped(size: usize, scale: f64) -> usize {
    let cells = (size as f64 / scale + 1e-9).floor();
    ((cells * scale + 1e-9).floor() as usize).min(size)
}

/// The scores of `sr` against the true picture `hr`, both RGB.
///
/// SSIM is the mean over all positions of an 11 × 11 Gaussian window (σ 1.5) that lies inside,
/// with K = (0.01, 0.03) and a range of 255.
///
/// # Errors
/// A scale that is not a finite number of at least 1, pictures that are not RGB, or of which fewer
/// than 11 × 11 pixels remain.
pub fn score(sr: &Raster<u8>, hr: &Raster<u8>, scale: f64, preset: Preset) -> Result<Score> {
    if !(scale.is_finite() && scale >= 1.0) {
        return Err(Error::input(format!("scale {scale}: a number of at least 1 is needed")));
    }
    if sr.channels != 3 || hr.channels != 3 {
        return Err(Error::input("scores need RGB pictures"));
    }
    let cut = border(scale);
    let height = cropped(sr.height.min(hr.height), scale).saturating_sub(2 * cut);
    let width = cropped(sr.width.min(hr.width), scale).saturating_sub(2 * cut);
    if height < WINDOW || width < WINDOW {
        return Err(Error::input(format!(
            "{width} x {height} pixels are left to compare after cutting {cut} on each side; {WINDOW} x {WINDOW} are needed"
        )));
    }
    let part = |image: &Raster<u8>| planes(image, cut, height, width, preset);
    let (sr, hr) = (part(sr), part(hr));
    let pairs = || sr.iter().zip(&hr);
    let error: f64 = pairs().map(|(a, b)| mean_squared_error(a, b)).sum::<f64>() / sr.len() as f64;
    let ssim = pairs().map(|(a, b)| ssim(a, b, height, width)).sum::<f64>() / sr.len() as f64;
    Ok(Score { psnr: 10.0 * (255.0 * 255.0 / error).log10(), ssim })
}

/// The planes that `preset` compares, of the part at (cut, cut).
fn planes(image: &Raster<u8>, cut: usize, height: usize, width: usize, preset: Preset) -> Vec<Vec<f64>> {
    let plane = |value: &dyn Fn(&[u8]) -> f64| -> Vec<f64> {
        let mut out = Vec::with_capacity(height * width);
        for y in cut..cut + height {
            let row = &image.row(y)[3 * cut..3 * (cut + width)];
            out.extend(row.chunks_exact(3).map(value));
        }
        out
    };
    match preset {
        Preset::Mzsr => vec![plane(&|rgb| luma(rgb).round_ties_even())],
        Preset::Basicsr => vec![plane(&luma)],
        Preset::Rgb => (0..3).map(|channel| plane(&|rgb| f64::from(rgb[channel]))).collect(),
    }
}

/// Y of BT.601, 16 … 235.
fn luma(rgb: &[u8]) -> f64 {
    let [r, g, b] = [0, 1, 2].map(|channel| f64::from(rgb[channel]));
    65.481 / 255.0 * r + 128.553 / 255.0 * g + 24.966 / 255.0 * b + 16.0
}

fn mean_squared_error(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64
}

/// The mean of the SSIM map. Strips of it are made in parallel and summed in order.
fn ssim(a: &[f64], b: &[f64], height: usize, width: usize) -> f64 {
    let window = gaussian();
    let (rows, columns) = (height - (WINDOW - 1), width - (WINDOW - 1));
    let starts: Vec<usize> = (0..rows).step_by(STRIP).collect();
    let sums: Vec<f64> = starts
        .par_iter()
        .map(|&from| (from..rows.min(from + STRIP)).map(|y| ssim_row(a, b, y, width, &window)).sum())
        .collect();
    sums.iter().sum::<f64>() / (rows * columns) as f64
}

/// The sum of a row of the SSIM map: down the columns first, then along the row.
fn ssim_row(a: &[f64], b: &[f64], y: usize, width: usize, window: &[f64; WINDOW]) -> f64 {
    // Weighted sums of a, b, a², b², ab.
    let mut sums: [Vec<f64>; 5] = std::array::from_fn(|_| vec![0.0; width]);
    for (k, weight) in window.iter().enumerate() {
        let [a, b] = [a, b].map(|plane| &plane[(y + k) * width..(y + k + 1) * width]);
        let [sa, sb, saa, sbb, sab] = &mut sums;
        for x in 0..width {
            let (va, vb) = (a[x], b[x]);
            sa[x] += weight * va;
            sb[x] += weight * vb;
            saa[x] += weight * (va * va);
            sbb[x] += weight * (vb * vb);
            sab[x] += weight * (va * vb);
        }
    }
    let along = |sums: &[f64]| {
        let mut out = vec![0.0; width - (WINDOW - 1)];
        for (k, weight) in window.iter().enumerate() {
            out.iter_mut().zip(&sums[k..]).for_each(|(out, value)| *out += weight * value);
        }
        out
    };
    let [ma, mb, maa, mbb, mab] = sums.each_ref().map(|sums| along(sums));
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    (0..ma.len())
        .map(|x| {
            let (a, b) = (ma[x], mb[x]);
            let (va, vb, covariance) = (maa[x] - a * a, mbb[x] - b * b, mab[x] - a * b);
            let similar = (2.0 * a * b + c1) * (2.0 * covariance + c2);
            similar / ((a * a + b * b + c1) * (va + vb + c2))
        })
        .sum()
}

fn gaussian() -> [f64; WINDOW] {
    let mut window = std::array::from_fn(|index| {
        let x = index as f64 - (WINDOW / 2) as f64;
        (-x * x / (2.0 * 1.5 * 1.5)).exp()
    });
    let sum: f64 = window.iter().sum();
    window.iter_mut().for_each(|weight| *weight /= sum);
    window
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pictures of tests/fixtures/make_scores.py.
    fn pictures(height: usize, width: usize) -> [Raster<u8>; 2] {
        let mut state = 1u64;
        let (mut sr, mut hr) = (Raster::new(height, width, 3), Raster::new(height, width, 3));
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    state = (state * 1103515245 + 12345) % (1 << 31);
                    let noise = ((state >> 16) % 41) as i64 - 20;
                    let value = ((x * (7 + c) + y * 5 + 40 * c + ((x * y) >> 3)) % 256) as i64;
                    let at = (y * width + x) * 3 + c;
                    hr.data[at] = value as u8;
                    sr.data[at] = (value + noise).clamp(0, 255) as u8;
                }
            }
        }
        [sr, hr]
    }

    #[derive(serde::Deserialize)]
    struct Case {
        height: usize,
        width: usize,
        scale: f64,
        preset: String,
        psnr: f64,
        ssim: f64,
    }

    #[test]
    fn scores_equal_the_references() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/fixtures/scores.json")).unwrap();
        assert!(cases.len() >= 9);
        for case in cases {
            let [sr, hr] = pictures(case.height, case.width);
            let score = score(&sr, &hr, case.scale, case.preset.parse().unwrap()).unwrap();
            assert!((score.psnr - case.psnr).abs() < 1e-9, "{} {}", score.psnr, case.psnr);
            assert!((score.ssim - case.ssim).abs() < 1e-9, "{} {}", score.ssim, case.ssim);
        }
    }

    #[test]
    fn identical_pictures_are_infinitely_close() {
        let [picture, _] = pictures(30, 20);
        for preset in [Preset::Mzsr, Preset::Basicsr, Preset::Rgb] {
            let score = score(&picture, &picture, 2.0, preset).unwrap();
            assert_eq!((score.psnr, score.ssim), (f64::INFINITY, 1.0));
        }
    }

    #[test]
    fn only_the_common_part_counts() {
        let [sr, hr] = pictures(41, 35);
        let larger = |image: &Raster<u8>| {
            let mut out = Raster::new(image.height + 1, image.width + 3, 3);
            for y in 0..image.height {
                out.row_mut(y)[..3 * image.width].copy_from_slice(image.row(y));
            }
            out
        };
        let expected = score(&sr, &hr, 2.0, Preset::Mzsr).unwrap();
        assert_eq!(score(&larger(&sr), &hr, 2.0, Preset::Mzsr).unwrap(), expected);
        assert_eq!(score(&sr, &larger(&hr), 2.0, Preset::Mzsr).unwrap(), expected);
        // 41 x 35 at scale 2 is 40 x 34.
        assert_eq!(score(&sr.crop(0, 0, 40, 34), &hr, 2.0, Preset::Mzsr).unwrap(), expected);
    }

    #[test]
    fn sizes_and_borders() {
        assert_eq!([1.0, 2.0, 2.2, 4.0].map(border), [1, 2, 3, 4]);
        assert_eq!((cropped(41, 2.0), cropped(42, 2.0), cropped(10, 4.0), cropped(3, 4.0)), (40, 42, 8, 0));
        // 100 / 2.2 = 45.45…: 45 cells of 2.2 are 99 pixels; 16 of 1.7 are 27.2, so 27.
        assert_eq!((cropped(100, 2.2), cropped(28, 1.7), cropped(99, 2.2)), (99, 27, 99));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let [sr, hr] = pictures(30, 30);
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.5, 1e300] {
            assert!(score(&sr, &hr, scale, Preset::Mzsr).is_err(), "{scale}");
        }
        assert!(score(&sr.crop(0, 0, 14, 30), &hr, 2.0, Preset::Mzsr).is_err());
        assert!(score(&sr.crop(0, 0, 15, 30), &hr, 2.0, Preset::Mzsr).is_err());
        assert!(score(&sr.crop(0, 0, 16, 30), &hr, 2.0, Preset::Mzsr).is_ok());
        assert!(score(&Raster::new(30, 30, 1), &hr, 2.0, Preset::Mzsr).is_err());
        assert!("psnr".parse::<Preset>().is_err());
        for preset in [Preset::Mzsr, Preset::Basicsr, Preset::Rgb] {
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
    }
}
