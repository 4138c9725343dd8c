//! A grid of pixels.

/// `height` × `width` pixels of `channels` values each, row by row, channels last (interleaved).
/// Row index y runs down, column index x runs right; (0, 0) is the top left.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster<T> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values a pixel.
    pub channels: usize,
    /// `height * width * channels` values.
    pub data: Vec<T>,
}

impl<T: Copy + Default> Raster<T> {
    /// All values at their default (zero).
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Raster { height, width, channels, data: vec![T::default(); height * width * channels] }
    }

    /// Takes `data` as it is.
    ///
    /// # Panics
    /// When the length is not `height * width * channels`.
    pub fn from_vec(height: usize, width: usize, channels: usize, data: Vec<T>) -> Self {
        assert_eq!(data.len(), height * width * channels, "raster of {height} x {width} x {channels}");
        Raster { height, width, channels, data }
    }

    /// The channels of pixel (y, x).
    #[inline]
    pub fn pixel(&self, y: usize, x: usize) -> &[T] {
        let at = (y * self.width + x) * self.channels;
        &self.data[at..at + self.channels]
    }

    /// Row y: `width * channels` values.
    #[inline]
    pub fn row(&self, y: usize) -> &[T] {
        let length = self.width * self.channels;
        &self.data[y * length..(y + 1) * length]
    }

    /// Row y, to be written.
    #[inline]
    pub fn row_mut(&mut self, y: usize) -> &mut [T] {
        let length = self.width * self.channels;
        &mut self.data[y * length..(y + 1) * length]
    }

    /// The `height` × `width` pixels from (y, x) on.
    ///
    /// # Panics
    /// When they do not lie inside.
    pub fn crop(&self, y: usize, x: usize, height: usize, width: usize) -> Self {
        assert!(y + height <= self.height && x + width <= self.width, "crop outside the raster");
        let mut data = Vec::with_capacity(height * width * self.channels);
        for row in y..y + height {
            let at = (row * self.width + x) * self.channels;
            data.extend_from_slice(&self.data[at..at + width * self.channels]);
        }
        Raster { height, width, channels: self.channels, data }
    }

    /// Every value passed through `f`.
    pub fn map<U>(&self, f: impl Fn(T) -> U) -> Raster<U> {
        Raster {
            height: self.height,
            width: self.width,
            channels: self.channels,
            data: self.data.iter().map(|&v| f(v)).collect(),
        }
    }

    /// Mirrored left to right.
    pub fn flip_horizontal(&self) -> Self {
        let mut out = self.clone();
        for y in 0..self.height {
            for x in 0..self.width {
                let at = (y * self.width + x) * self.channels;
                out.data[at..at + self.channels].copy_from_slice(self.pixel(y, self.width - 1 - x));
            }
        }
        out
    }

    /// Mirrored top to bottom.
    pub fn flip_vertical(&self) -> Self {
        let mut out = self.clone();
        for y in 0..self.height {
            out.row_mut(y).copy_from_slice(self.row(self.height - 1 - y));
        }
        out
    }

    /// Rows and columns exchanged.
    pub fn transpose(&self) -> Self {
        let mut data = Vec::with_capacity(self.data.len());
        for x in 0..self.width {
            for y in 0..self.height {
                data.extend_from_slice(self.pixel(y, x));
            }
        }
        Raster { height: self.width, width: self.height, channels: self.channels, data }
    }
}
