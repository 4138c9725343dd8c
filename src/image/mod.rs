//! Photos: files in and out, in their own kind of pixels and with their metadata.
//!
//! PNG, JPEG, WebP, TIFF and BMP are read by their content and written by the name's extension.
//! Values are taken as they are stored: nothing here converts between colour spaces.

mod fill;
mod format;
mod ifd;
mod metadata;
pub mod paths;
mod read;
mod tiff;
mod tiff_kinds;
mod write;

pub use format::Format;
pub use write::WriteOptions;

use crate::{Raster, Real};
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
        Photo { height, width, kind, samples, format, warnings: Vec::new(), icc: None, exif: None }
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
        let (c, grey) = (self.kind.channels(), self.kind.grey);
        let mut data = Vec::with_capacity(self.height * self.width * 3);
        for at in (0..self.height * self.width * c).step_by(c) {
            for k in 0..3 {
                data.push(table[usize::from(self.value(if grey { at } else { at + k }))]);
            }
        }
        let mut colours = Raster::from_vec(self.height, self.width, 3, data);
        if self.kind.alpha {
            fill::fill_hidden(&mut colours, |i| self.value(i * c + c - 1) != 0);
        }
        colours
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
        let (c, grey) = (self.kind.channels(), self.kind.grey);
        let mut data = Vec::with_capacity(self.height * self.width * 3);
        for at in (0..self.height * self.width * c).step_by(c) {
            for k in 0..3 {
                let index = if grey { at } else { at + k };
                data.push(match &self.samples {
                    Samples::Eight(data) => data[index],
                    Samples::Sixteen(data) => to_eight(data[index]),
                });
            }
        }
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
        let (count, c, max) = (rows * self.width, self.kind.channels(), f64::from(self.max()));
        let start = y0 * self.width * c;
        let grey = self.kind.grey;
        let put = |set: &mut dyn FnMut(usize, f64)| {
            for i in 0..count {
                let pixel = &rgb.data[i * 3..i * 3 + 3];
                let at = start + i * c;
                if grey {
                    set(at, (pixel[0].wide() + pixel[1].wide() + pixel[2].wide()) / 3.0);
                } else {
                    (0..3).for_each(|k| set(at + k, pixel[k].wide()));
                }
                if let Some(alpha) = alpha {
                    set(at + c - 1, alpha.data[i].wide());
                }
            }
        };
        // `max(0)` first: it makes NaN black.
        let quantised = |v: f64| (v.max(0.0).min(1.0) * max).round_ties_even();
        match &mut self.samples {
            Samples::Eight(data) => put(&mut |at, v| data[at] = quantised(v) as u8),
            Samples::Sixteen(data) => put(&mut |at, v| data[at] = quantised(v) as u16),
        }
    }
}

/// 16 bits rounded to 8.
fn to_eight(v: u16) -> u8 {
    ((u32::from(v) * 255 + 32_767) / 65_535) as u8
}
