//! Photos: files in and out, in their own kind of pixels and with their metadata.
//!
//! PNG, JPEG, WebP, TIFF and BMP are read by their content and written by the name's extension.
//! Values are taken as they are stored: nothing here converts between colour spaces.

mod fill;
mod format;
mod ifd;
mod jpeg;
mod metadata;
pub mod paths;
mod read;
mod tiff;
mod tiff_kinds;
mod write;

pub use format::Format;
pub use jpeg::through_jpeg;
pub use write::WriteOptions;

use crate::{Raster, Real};
use rayon::prelude::*;
use std::fmt;

/// The most pixels that a file may have.
pub const MAX_PIXELS: u64 = 1 << 28;

/// What a pixel consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PixelKind {
    grey: bool,
    alpha: bool,
    sixteen: bool,
}

impl PixelKind {
    /// Grey or colour, with or without alpha, of 16 or 8 bits a value.
    pub const fn new(grey: bool, alpha: bool, sixteen: bool) -> Self {
        PixelKind { grey, alpha, sixteen }
    }

    /// All eight, the plainest first.
    pub fn all() -> impl Iterator<Item = PixelKind> {
        (0..8).map(|i| PixelKind::new(i & 2 == 0, i & 1 != 0, i & 4 != 0))
    }

    /// Values a pixel: 1 to 4.
    pub fn channels(self) -> usize {
        let colours = if self.grey { 1 } else { 3 };
        colours + usize::from(self.alpha)
    }

    /// Bytes a pixel: 1 to 8.
    pub fn pixel_bytes(self) -> usize {
        self.channels() * if self.sixteen { 2 } else { 1 }
    }

    /// Whether there is an alpha channel.
    pub fn has_alpha(self) -> bool {
        self.alpha
    }

    /// Whether there is one value of light instead of three.
    pub fn is_grey(self) -> bool {
        self.grey
    }

    /// Whether values have 16 bits instead of 8.
    pub fn is_sixteen(self) -> bool {
        self.sixteen
    }
}

/// The values, interleaved.
#[derive(Clone, PartialEq, Eq)]
enum Samples {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
}

/// A photo: pixels in the kind that they have in the file, and metadata.
#[derive(Clone)]
pub struct Photo {
    height: usize,
    width: usize,
    kind: PixelKind,
    samples: Samples,
    format: Format,
    warnings: Vec<String>,
    /// The mean step of the first quantisation table of a JPEG.
    quantised: Option<f64>,
    /// The ICC profile.
    pub icc: Option<Vec<u8>>,
    /// EXIF: a TIFF header and what follows it.
    pub exif: Option<Vec<u8>>,
}

impl fmt::Debug for Photo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Photo({} x {}, {:?}, {:?})", self.width, self.height, self.kind, self.format)
    }
}

impl Photo {
    /// A black photo (opaque, where it has alpha) without metadata, to be written as `format`
    /// where no name tells.
    pub fn new(kind: PixelKind, format: Format, height: usize, width: usize) -> Photo {
        let count = height * width * kind.channels();
        let mut samples = if kind.sixteen { Samples::Sixteen(vec![0; count]) } else { Samples::Eight(vec![0; count]) };
        if kind.alpha {
            let c = kind.channels();
            match &mut samples {
                Samples::Eight(data) => data.iter_mut().skip(c - 1).step_by(c).for_each(|v| *v = u8::MAX),
                Samples::Sixteen(data) => data.iter_mut().skip(c - 1).step_by(c).for_each(|v| *v = u16::MAX),
            }
        }
        Photo { height, width, kind, samples, format, warnings: Vec::new(), quantised: None, icc: None, exif: None }
    }

    /// A black photo of another size with the kind, the format and the metadata of `other`.
    pub fn like(other: &Photo, height: usize, width: usize) -> Photo {
        let mut photo = Photo::new(other.kind, other.format, height, width);
        photo.icc.clone_from(&other.icc);
        photo.exif.clone_from(&other.exif);
        photo
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The standard deviation of the noise, of [0, 1], that costs a restoration as much as the losses of
    /// the JPEG that the photo comes from; 0 for other photos.
    ///
    /// σ = 0.9 √q of 255, with q the mean step of the JPEG's table for lightness: fitted to the λ that
    /// restored held-out photos best at qualities 95, 90 and 75 (docs/training.md).
    pub fn compression_noise(&self) -> f64 {
        self.quantised.map_or(0.0, |step| 0.9 * step.sqrt() / 255.0)
    }

    /// What a pixel consists of.
    pub fn kind(&self) -> PixelKind {
        self.kind
    }

    /// The format of the file that was read.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What reading the file could not keep: one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds a warning, once.
    fn warn(&mut self, warning: &str) {
        if !self.warnings.iter().any(|w| w == warning) {
            self.warnings.push(warning.into());
        }
    }

    /// The value at `index`, on the scale of 16 bits when the kind has them, else of 8.
    #[inline]
    fn value(&self, index: usize) -> u16 {
        match &self.samples {
            Samples::Eight(data) => u16::from(data[index]),
            Samples::Sixteen(data) => data[index],
        }
    }

    fn max(&self) -> u16 {
        if self.kind.sixteen { u16::MAX } else { u16::from(u8::MAX) }
    }

    /// Light in [0, 1], three values a pixel; grey is replicated. What hides under zero alpha is
    /// replaced by what is near it and seen.
    pub fn rgb<T: Real>(&self) -> Raster<T> {
        let table = self.table::<T>();
        let c = self.kind.channels();
        let data = match &self.samples {
            Samples::Eight(data) => light(data, self.kind, self.width, |v| table[usize::from(v)]),
            Samples::Sixteen(data) => light(data, self.kind, self.width, |v| table[usize::from(v)]),
        };
        let mut colours = Raster::from_vec(self.height, self.width, 3, data);
        if self.kind.alpha {
            fill::fill_hidden(&mut colours, |i| self.value(i * c + c - 1) != 0);
        }
        colours
    }

    /// `height` × `width` pixels from row `y` and column `x` on, of the same kind, without metadata.
    ///
    /// # Panics
    /// When they are not all inside.
    pub(crate) fn crop(&self, y: usize, x: usize, height: usize, width: usize) -> Photo {
        let c = self.kind.channels();
        fn rows<S: Copy>(data: &[S], [y, height, x, width, line]: [usize; 5]) -> Vec<S> {
            let row = |row: &[S]| row[x..x + width].to_vec();
            data[y * line..(y + height) * line].chunks_exact(line).flat_map(row).collect()
        }
        let place = [y, height, x * c, width * c, self.width * c];
        let samples = match &self.samples {
            Samples::Eight(data) => Samples::Eight(rows(data, place)),
            Samples::Sixteen(data) => Samples::Sixteen(rows(data, place)),
        };
        Photo { samples, ..Photo::new(self.kind, self.format, height, width) }
    }

    /// Alpha in [0, 1], one value a pixel, where the kind has it.
    pub fn alpha<T: Real>(&self) -> Option<Raster<T>> {
        let c = self.kind.channels();
        let table = self.table::<T>();
        let one = |i: usize| table[usize::from(self.value(i * c + c - 1))];
        self.kind
            .alpha
            .then(|| Raster::from_vec(self.height, self.width, 1, (0..self.height * self.width).map(one).collect()))
    }

    /// v / max of every value v, correctly rounded.
    fn table<T: Real>(&self) -> Vec<T> {
        let max = T::of(f64::from(self.max()));
        (0..=self.max()).map(|v| T::of(f64::from(v)) / max).collect()
    }

    /// The colours as 8 bits, three a pixel, alpha left out; 16 bits are rounded.
    pub fn rgb8(&self) -> Raster<u8> {
        let data = match &self.samples {
            Samples::Eight(data) => light(data, self.kind, self.width, |v| v),
            Samples::Sixteen(data) => light(data, self.kind, self.width, to_eight),
        };
        Raster::from_vec(self.height, self.width, 3, data)
    }

    /// Sets the rows from `y0` on: clipped to [0, 1], times the largest value, rounded half to
    /// even; grey is the mean of the three colours. Rows past the last are left out; without
    /// `alpha` the photo's own stays; a kind without alpha does not look at it.
    ///
    /// # Panics
    /// When a raster's width or channels are not those of the photo's rows.
    pub fn put_rows<T: Real>(&mut self, y0: usize, rgb: &Raster<T>, alpha: Option<&Raster<T>>) {
        assert!(rgb.width == self.width && rgb.channels == 3, "rows of another shape");
        let alpha = alpha.filter(|_| self.kind.alpha);
        if let Some(alpha) = alpha {
            let same = (alpha.height, alpha.width, alpha.channels) == (rgb.height, rgb.width, 1);
            assert!(same, "alpha of another shape");
        }
        let rows = rgb.height.min(self.height.saturating_sub(y0));
        let (c, max) = (self.kind.channels(), f64::from(self.max()));
        let range = y0.min(self.height) * self.width * c..(y0.min(self.height) + rows) * self.width * c;
        let alpha = alpha.map(|alpha| alpha.data.as_slice());
        // The cast makes NaN black.
        let quantised = move |v: f64| (v.clamp(0.0, 1.0) * max).round_ties_even();
        match &mut self.samples {
            Samples::Eight(data) => put(&mut data[range], self.kind, self.width, rgb, alpha, |v| quantised(v) as u8),
            Samples::Sixteen(data) => {
                put(&mut data[range], self.kind, self.width, rgb, alpha, |v| quantised(v) as u16);
            }
        }
    }
}

/// Three values a pixel out of rows of any kind, without alpha.
fn light<S: Copy + Sync, U: Copy + Default + Send>(
    data: &[S],
    kind: PixelKind,
    width: usize,
    convert: impl Fn(S) -> U + Sync,
) -> Vec<U> {
    let c = kind.channels();
    let mut out = vec![U::default(); data.len() / c * 3];
    out.par_chunks_mut((width * 3).max(1)).zip(data.par_chunks((width * c).max(1))).for_each(|(to, from)| {
        for (to, from) in to.chunks_exact_mut(3).zip(from.chunks_exact(c)) {
            for k in 0..3 {
                to[k] = convert(from[if kind.grey { 0 } else { k }]);
            }
        }
    });
    out
}

/// Rows of any kind out of colours and alpha.
fn put<S: Copy + Send, T: Real>(
    data: &mut [S],
    kind: PixelKind,
    width: usize,
    rgb: &Raster<T>,
    alpha: Option<&[T]>,
    quantised: impl Fn(f64) -> S + Sync,
) {
    let c = kind.channels();
    data.par_chunks_mut((width * c).max(1)).enumerate().for_each(|(y, to)| {
        for (x, (to, from)) in to.chunks_exact_mut(c).zip(rgb.row(y).chunks_exact(3)).enumerate() {
            if kind.grey {
                to[0] = quantised((from[0].wide() + from[1].wide() + from[2].wide()) / 3.0);
            } else {
                (0..3).for_each(|k| to[k] = quantised(from[k].wide()));
            }
            if let Some(alpha) = alpha {
                to[c - 1] = quantised(alpha[y * width + x].wide());
            }
        }
    });
}

/// 16 bits rounded to 8.
fn to_eight(v: u16) -> u8 {
    ((u32::from(v) * 255 + 32_767) / 65_535) as u8
}
