//! The degradation D that makes a photo small: blur, then subsampling; and the cubic resizes.
//!
//! Every convention is stated in [`Degradation`], [`Taps`] and [`resize`]; positions and edges are
//! those of MATLAB's `imresize` unless a name says `aligned`.

mod axes;
mod blur;
mod features;
mod least_squares;
mod map;
mod noise;
mod photo;
mod start;
mod stencil;
pub(crate) mod sums;
mod taps;

use blur::Blur;
pub use blur::blur;
pub use features::FEATURES;
pub use least_squares::LeastSquares;
pub use map::Map;
pub use photo::{Noise, degrade_photo};
pub use start::Start;
pub use taps::Taps;

use crate::kernel::{Kernel, Phase};
use crate::{Error, Raster, Real, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The largest scale factor that anything here works with.
pub const MAX_SCALE: f64 = 4.0;

/// How pixels are dropped after the blur.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Downsample {
    /// Pixels (s·i, s·j) are kept: the upper-left ("corner") phase.
    Direct,
    /// `imresize` by 1/s: antialiased cubic.
    Bicubic,
}

impl fmt::Display for Downsample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Downsample::Direct => "direct",
            Downsample::Bicubic => "bicubic",
        })
    }
}

impl FromStr for Downsample {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "direct" => Ok(Downsample::Direct),
            "bicubic" => Ok(Downsample::Bicubic),
            other => Err(Error::input(format!("downsampling '{other}' is not known; use direct or bicubic"))),
        }
    }
}

/// D: correlation with a kernel (half-sample symmetric edges), then subsampling by a real scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Degradation {
    scale: f64,
    kernel: Option<Kernel>,
    downsample: Downsample,
    phase: Phase,
}

impl Degradation {
    /// Checks and makes D.
    ///
    /// # Errors
    /// A scale outside 1 … [`MAX_SCALE`], or direct downsampling without a kernel.
    pub fn new(scale: f64, kernel: Option<Kernel>, downsample: Downsample) -> Result<Self> {
        if !(1.0..=MAX_SCALE).contains(&scale) {
            return Err(Error::input(format!("scale {scale} is outside 1 to {MAX_SCALE}")));
        }
        if kernel.is_none() && downsample == Downsample::Direct {
            return Err(Error::input(
                "direct downsampling needs a kernel: give one (--kernel gaussian:2.0) or use --downsample bicubic",
            ));
        }
        Ok(Degradation { scale, kernel, downsample, phase: Phase::Corner })
    }

    /// The same with direct sampling at the cells' centres: LR pixel i shows HR s·i + (s − 1)/2, as
    /// with [`resize`]. `kernel` is then D's kernel displaced by (s − 1)/2, since D itself always
    /// keeps pixels (s·i, s·j). For bicubic downsampling, which is centred anyway, nothing changes.
    pub fn centred(mut self, kernel: Option<Kernel>) -> Self {
        if self.downsample == Downsample::Direct && kernel.is_some() {
            self.kernel = kernel;
            self.phase = Phase::Centre;
        }
        self
    }

    /// The same with a kernel `factor` times as wide ([`Kernel::narrowed`]).
    pub fn narrowed(&self, factor: f64) -> Self {
        let kernel = self.kernel.as_ref().map(|kernel| kernel.narrowed(factor));
        Degradation { kernel, ..self.clone() }
    }

    /// Whether LR pixel i shows HR s·i (and not the centre of its cell).
    pub fn samples_corners(&self) -> bool {
        self.downsample == Downsample::Direct && self.phase == Phase::Corner
    }

    /// What makes a turned photo small: the blur transposed first if so, then mirrored.
    ///
    /// Direct sampling of corners stays that; the result for a mirrored photo then lies s − 1
    /// pixels off. Centre sampling stays centred.
    ///
    /// # Errors
    /// A kernel that cannot be turned.
    pub fn turned(&self, transpose: bool, vertical: bool, horizontal: bool) -> Result<Self> {
        let Some(kernel) = &self.kernel else { return Ok(self.clone()) };
        let mut kernel = if transpose { kernel.transposed() } else { kernel.clone() };
        if vertical {
            kernel = kernel.flipped_vertical();
        }
        if horizontal {
            kernel = kernel.flipped_horizontal();
        }
        if self.downsample == Downsample::Direct && self.phase == Phase::Centre {
            // A mirrored displacement of (s − 1)/2 points the other way: s − 1 sets it right.
            let shift = self.scale - 1.0;
            kernel = kernel.displaced(shift * f64::from(u8::from(horizontal)), shift * f64::from(u8::from(vertical)));
        }
        Ok(Degradation { kernel: Some(kernel), ..self.clone() })
    }

    /// Rows and columns of the cubic upscale of an LR picture on the grid that D samples: output j
    /// sits at input j/s where corners are sampled, at (j + ½)/s − ½ elsewhere.
    pub fn aligned_window<T: Real>(&self, low: &Raster<T>, rows: Range<usize>, columns: Range<usize>) -> Raster<T> {
        taps::resample(low, &self.aligned_taps(low.height, rows), &self.aligned_taps(low.width, columns))
    }

    /// The taps of these outputs of the aligned cubic upscale along an axis of `size` LR pixels.
    fn aligned_taps(&self, size: usize, outputs: Range<usize>) -> Taps {
        let grid = if self.samples_corners() { Downsample::Direct } else { Downsample::Bicubic };
        aligned_taps(size, self.scale, grid, outputs)
    }

    /// The scale s.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The blur, if there is one.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// How pixels are dropped.
    pub fn downsample(&self) -> Downsample {
        self.downsample
    }

    /// The size of D's output along an axis of `size` pixels.
    pub fn low_size(&self, size: usize) -> usize {
        low_size(size, self.scale)
    }

    /// The scale, if it is a whole number.
    fn whole_scale(&self) -> Option<usize> {
        (self.scale.fract() == 0.0).then_some(self.scale as usize)
    }

    /// Calls `pair` with the first value of each pixel that direct subsampling of `height` × `width`
    /// makes, and of the pixel that it keeps.
    fn kept(&self, height: usize, width: usize, channels: usize, mut pair: impl FnMut(usize, usize)) {
        let (rows, columns) = (direct_positions(height, self.scale), direct_positions(width, self.scale));
        for (i, &y) in rows.iter().enumerate() {
            for (j, &x) in columns.iter().enumerate() {
                pair((i * columns.len() + j) * channels, (y * width + x) * channels);
            }
        }
    }

    /// The pixels of `image` that direct subsampling keeps.
    fn keep<T: Real>(&self, image: &Raster<T>, out: &mut Raster<T>) {
        let channels = image.channels;
        self.kept(image.height, image.width, channels, |low, high| {
            out.data[low..low + channels].copy_from_slice(&image.data[high..high + channels]);
        });
    }

    /// D(image). Values are neither clipped nor rounded.
    pub fn apply<T: Real>(&self, image: &Raster<T>) -> Raster<T> {
        let (height, width) = (self.low_size(image.height), self.low_size(image.width));
        match (&self.kernel, self.downsample) {
            (Some(kernel), Downsample::Direct) => match self.whole_scale() {
                Some(step) => Blur::new(kernel, step, image.height, image.width, image.channels).apply(image),
                None => {
                    let mut out = Raster::new(height, width, image.channels);
                    self.keep(&blur(image, kernel), &mut out);
                    out
                }
            },
            (Some(kernel), Downsample::Bicubic) => resize(&blur(image, kernel), 1.0 / self.scale, height, width),
            (None, _) => resize(image, 1.0 / self.scale, height, width),
        }
    }
}

/// ceil(size / scale): the size of a degraded axis.
pub fn low_size(size: usize, scale: f64) -> usize {
    ((size as f64 / scale - 1e-9).ceil() as usize).max(1)
}

/// round(size · scale): the size of an enlarged axis.
pub fn high_size(size: usize, scale: f64) -> usize {
    ((size as f64 * scale).round() as usize).max(1)
}

/// The pixels that direct subsampling keeps along an axis: min(⌊s·i + ½⌋, size − 1).
pub fn direct_positions(size: usize, scale: f64) -> Vec<usize> {
    (0..low_size(size, scale)).map(|i| ((i as f64 * scale + 0.5).floor() as usize).min(size - 1)).collect()
}

/// Cubic resize to `height` × `width` (Keys, a = −0.5): output sample i sits at
/// u = (i + 0.5)/scale − 0.5; a scale below 1 widens the kernel (antialiasing); weights sum to 1;
/// half-sample symmetric edges. The size need not be scale × input: the rest is cut off.
pub fn resize<T: Real>(image: &Raster<T>, scale: f64, height: usize, width: usize) -> Raster<T> {
    resize_window(image, scale, 0..height, 0..width)
}

/// The given rows and columns of [`resize`], bit for bit.
pub fn resize_window<T: Real>(image: &Raster<T>, scale: f64, rows: Range<usize>, columns: Range<usize>) -> Raster<T> {
    taps::resample(image, &Taps::resize(image.height, scale, rows), &Taps::resize(image.width, scale, columns))
}

/// The given rows and columns of the cubic upscale on the grid that the degradation samples:
/// output j sits at input j/scale for direct downsampling, at (j + ½)/scale − ½ for bicubic.
pub fn aligned_window<T: Real>(
    image: &Raster<T>,
    scale: f64,
    downsample: Downsample,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Raster<T> {
    let axis = |size, outputs| aligned_taps(size, scale, downsample, outputs);
    taps::resample(image, &axis(image.height, rows), &axis(image.width, columns))
}

/// The taps of [`aligned_window`] along an axis of `size` pixels.
fn aligned_taps(size: usize, scale: f64, downsample: Downsample, outputs: Range<usize>) -> Taps {
    match downsample {
        Downsample::Bicubic => Taps::resize(size, scale, outputs),
        Downsample::Direct => Taps::aligned(size, scale, outputs),
    }
}

/// The whole [`aligned_window`].
pub fn aligned<T: Real>(
    image: &Raster<T>,
    scale: f64,
    downsample: Downsample,
    height: usize,
    width: usize,
) -> Raster<T> {
    aligned_window(image, scale, downsample, 0..height, 0..width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(height: usize, width: usize) -> Raster<f64> {
        let mut state = 1u64;
        let data = (0..height * width * 3)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 11) as f64 / (1u64 << 53) as f64
            })
            .collect();
        Raster::from_vec(height, width, 3, data)
    }

    #[test]
    fn constants_stay_constant() {
        let flat = Raster::from_vec(9, 7, 1, vec![0.3f64; 63]);
        let kernel = Kernel::gaussian(4.0, 1.0, -0.5, 15);
        for downsample in [Downsample::Direct, Downsample::Bicubic] {
            for scale in [1.0, 1.7, 2.0, 4.0] {
                let d = Degradation::new(scale, Some(kernel.clone()), downsample).unwrap();
                assert!(d.apply(&flat).data.iter().all(|v| (v - 0.3).abs() < 1e-12));
                let up = aligned(&flat, scale, downsample, 20, 13);
                assert!(up.data.iter().all(|v| (v - 0.3).abs() < 1e-12));
            }
        }
    }

    #[test]
    fn windows_are_cuts_of_the_whole() {
        let image = noise(11, 14);
        for scale in [0.5, 1.0, 2.0, 2.7] {
            let whole = resize(&image, scale, 20, 25);
            assert_eq!(resize_window(&image, scale, 3..17, 5..25), whole.crop(3, 5, 14, 20));
        }
        let whole = aligned(&image, 2.3, Downsample::Direct, 20, 25);
        assert_eq!(aligned_window(&image, 2.3, Downsample::Direct, 1..4, 2..9), whole.crop(1, 2, 3, 7));
    }

    #[test]
    fn direct_keeps_the_corner_and_unit_kernels_keep_the_picture() {
        let image = noise(9, 6);
        let mut delta = Kernel::gaussian(1.0, 1.0, 0.0, 5);
        delta.data.fill(0.0);
        delta.data[12] = 1.0;
        let low = Degradation::new(2.0, Some(delta), Downsample::Direct).unwrap().apply(&image);
        assert_eq!((low.height, low.width), (5, 3));
        for y in 0..5 {
            for x in 0..3 {
                assert_eq!(low.pixel(y, x), image.pixel(2 * y, 2 * x));
            }
        }
        assert_eq!(resize(&image, 1.0, 9, 6).map(|v| (v * 1e9).round()), image.map(|v| (v * 1e9).round()));
    }

    #[test]
    fn impossible_degradations_are_refused() {
        assert!(Degradation::new(2.0, None, Downsample::Direct).is_err());
        assert!(Degradation::new(0.5, None, Downsample::Bicubic).is_err());
        assert!(Degradation::new(f64::NAN, None, Downsample::Bicubic).is_err());
    }

    #[test]
    fn single_precision_agrees() {
        let image = noise(23, 18);
        let d = Degradation::new(2.0, Some(Kernel::gaussian(2.0, 1.0, 0.4, 15)), Downsample::Direct).unwrap();
        let (wide, narrow) = (d.apply(&image), d.apply(&image.map(|v| v as f32)));
        assert!(wide.data.iter().zip(&narrow.data).all(|(a, &b)| (a - f64::from(b)).abs() < 1e-6));
    }
}
