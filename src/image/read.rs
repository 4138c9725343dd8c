//! A file in.

use super::{Format, MAX_PIXELS, Photo, PixelKind, Samples, metadata, paths, tiff_kinds};
use crate::{Error, Result};
use ::image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use ::image::{ColorType, ImageDecoder, ImageError, Limits, metadata::Orientation};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 32;
/// A byte of a JPEG cannot stand for more pixels than this: every 8 x 8 block of values takes a bit,
/// and there are at most 32 x 32 pixels to 18 blocks.
const JPEG_PIXELS: u64 = 1024;
/// Memory that a decoder may take for metadata and rows, beside the picture.
const MAX_SCRATCH: u64 = 1 << 28;

impl Photo {
    /// Reads a PNG, JPEG, WebP, TIFF or BMP, whatever its name; `-` is stdin. Palettes and few-bit
    /// greys become 8 bits, CMYK becomes RGB, floats become 16 bits; the orientation that EXIF asks
    /// for is applied. Of several pictures in a file the first is taken.
    ///
    /// # Errors
    /// What cannot be opened, is none of these, is damaged or has more than [`MAX_PIXELS`].
    pub fn read(path: &Path) -> Result<Photo> {
        let mut bytes = Vec::new();
        let name = if paths::is_stdio(path) { Path::new("standard input") } else { path };
        let read = if paths::is_stdio(path) {
            std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
        } else if path.is_dir() {
            return Err(Error::file(path, "is a folder, not a photo"));
        } else {
            File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        };
        read.map_err(|e| Error::io(name, e))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::file(name, "is larger than 4 GiB"));
        }
        Photo::decode(&bytes).map_err(|message| Error::file(name, message))
    }

    /// Reads what [`Photo::read`] reads from memory; the error is one line.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Photo, String> {
        if bytes.is_empty() {
            return Err("is empty".into());
        }
        let format = Format::of_content(bytes)
            .ok_or("is not a PNG, JPEG, WebP, TIFF or BMP picture; convert it to one of these")?;
        let made = match format {
            Format::Png => {
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(MAX_SCRATCH);
                PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(line).and_then(|d| decoded(d, format))
            }
            Format::Jpeg => JpegDecoder::new(Cursor::new(bytes)).map_err(line).and_then(|d| {
                let (width, height) = d.dimensions();
                if u64::from(width) * u64::from(height) > bytes.len() as u64 * JPEG_PIXELS {
                    return Err(format!("it is too short for {width} x {height} pixels"));
                }
                decoded(d, format)
            }),
            Format::WebP => WebPDecoder::new(Cursor::new(bytes)).map_err(line).and_then(|d| decoded(d, format)),
            Format::Tiff => {
                let plain = tiff_kinds::rewritten(bytes);
                let source = plain.as_ref().map_or(bytes, |plain| &plain.bytes);
                let made = TiffDecoder::new(Cursor::new(source)).map_err(line).and_then(|d| decoded(d, format));
                made.map(|(mut photo, orientation)| {
                    if let Some(plain) = plain {
                        plain.undo(&mut photo);
                    }
                    (photo, orientation)
                })
            }
            Format::Bmp => {
                let made = BmpDecoder::new(Cursor::new(bytes)).map_err(line).and_then(|d| decoded(d, format));
                made.map(|(mut photo, orientation)| {
                    if grey_palette(bytes) {
                        photo.drop_colour();
                    }
                    (photo, orientation)
                })
            }
        };
        let (mut photo, orientation) = made.map_err(|e| format!("cannot be read as {}: {e}", format.name()))?;
        metadata::complete(&mut photo, bytes)?;
        let asked = match format {
            Format::Tiff => orientation,
            _ => photo.exif.as_deref().and_then(metadata::orientation).unwrap_or(Orientation::NoTransforms),
        };
        if let Some(exif) = &mut photo.exif {
            metadata::reset_orientation(exif);
        }
        photo.orient(asked);
        Ok(photo)
    }

    /// Of 8-bit RGB whose three values are equal everywhere, grey.
    fn drop_colour(&mut self) {
        if let Samples::Eight(data) = &self.samples
            && self.kind == PixelKind::new(false, false, false)
        {
            self.samples = Samples::Eight(data.iter().step_by(3).copied().collect());
            self.kind = PixelKind::new(true, false, false);
        }
    }

    /// Turns the pixels the way that `orientation` asks for.
    fn orient(&mut self, orientation: Orientation) {
        if orientation == Orientation::NoTransforms {
            return;
        }
        let (h, w, c) = (self.height, self.width, self.kind.channels());
        self.samples = match &self.samples {
            Samples::Eight(data) => Samples::Eight(turned(data, h, w, c, orientation)),
            Samples::Sixteen(data) => Samples::Sixteen(turned(data, h, w, c, orientation)),
        };
        if orientation.to_exif() >= 5 {
            (self.height, self.width) = (w, h);
        }
    }
}

/// Whether a BMP's pixels are numbers of greys, which is how BMP holds grey.
fn grey_palette(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let bits = bytes.get(28..30).map(|b| u16::from_le_bytes([b[0], b[1]]));
    // The header of Windows 3 and those that begin with it.
    let (Some(header @ 40..), Some(bits @ (1 | 4 | 8)), Some(colours)) = (word(14), bits, word(46)) else {
        return false;
    };
    let count = if colours == 0 { 1 << bits } else { colours.min(256) as usize };
    let start = 14 + header as usize;
    let palette = bytes.get(start..start + 4 * count);
    palette.is_some_and(|palette| palette.chunks_exact(4).all(|c| c[0] == c[1] && c[1] == c[2]))
}

/// One line of what a decoder said.
fn line(error: ImageError) -> String {
    let hint = match &error {
        ImageError::Unsupported(_) => "; save it with 8 or 16 bits a value, as grey or RGB",
        _ => "",
    };
    let text = error.to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned();
    text + hint
}

/// The decoder's pixels and what it knows of the metadata.
fn decoded<D: ImageDecoder>(mut decoder: D, format: Format) -> std::result::Result<(Photo, Orientation), String> {
    let (width, height) = decoder.dimensions();
    let count = u64::from(width) * u64::from(height);
    if count == 0 {
        return Err("it has no pixels".into());
    }
    if count > MAX_PIXELS {
        return Err(format!("{width} x {height} pixels are more than the {MAX_PIXELS} that are read"));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(decoder.total_bytes().saturating_mul(2).saturating_add(MAX_SCRATCH));
    decoder.set_limits(limits).map_err(line)?;
    let mut warnings = Vec::new();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let icc = decoder.icc_profile().unwrap_or_else(|e| {
        warnings.push(format!("the ICC profile is damaged and left out: {}", line(e)));
        None
    });
    let exif = decoder.exif_metadata().unwrap_or_else(|e| {
        warnings.push(format!("the EXIF data are damaged and left out: {}", line(e)));
        None
    });
    let (grey, alpha, sixteen) = match decoder.color_type() {
        ColorType::L8 => (true, false, false),
        ColorType::La8 => (true, true, false),
        ColorType::Rgb8 => (false, false, false),
        ColorType::Rgba8 => (false, true, false),
        ColorType::L16 => (true, false, true),
        ColorType::La16 => (true, true, true),
        ColorType::Rgb16 | ColorType::Rgb32F => (false, false, true),
        ColorType::Rgba16 | ColorType::Rgba32F => (false, true, true),
        other => return Err(format!("pixels of the kind {other:?} are not supported")),
    };
    let kind = PixelKind::new(grey, alpha, sixteen);
    let count = usize::try_from(count).map_err(|e| e.to_string())? * kind.channels();
    let samples = if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        warnings.push("floating-point values are clipped to [0, 1] and kept as 16 bits".into());
        let mut data: Vec<f32> = room(count)?;
        decoder.read_image(bytemuck::cast_slice_mut(&mut data)).map_err(line)?;
        let quantised = |v: f32| (f64::from(v).clamp(0.0, 1.0) * 65535.0).round_ties_even() as u16;
        Samples::Sixteen(data.into_iter().map(quantised).collect())
    } else if sixteen {
        let mut data: Vec<u16> = room(count)?;
        decoder.read_image(bytemuck::cast_slice_mut(&mut data)).map_err(line)?;
        Samples::Sixteen(data)
    } else {
        let mut data: Vec<u8> = room(count)?;
        decoder.read_image(&mut data).map_err(line)?;
        Samples::Eight(data)
    };
    let photo = Photo {
        height: height as usize,
        width: width as usize,
        kind,
        samples,
        format,
        warnings,
        quantised: None,
        icc,
        exif,
    };
    Ok((photo, orientation))
}

/// `count` zeros, or what to say when memory is short.
fn room<S: Clone + Default>(count: usize) -> std::result::Result<Vec<S>, String> {
    let mut data = Vec::new();
    data.try_reserve_exact(count).map_err(|_| "there is not enough memory for its pixels")?;
    data.resize(count, S::default());
    Ok(data)
}

/// The pixels of a `height` x `width` picture after `orientation`.
fn turned<S: Copy>(data: &[S], height: usize, width: usize, channels: usize, orientation: Orientation) -> Vec<S> {
    let (h, w) = if orientation.to_exif() >= 5 { (width, height) } else { (height, width) };
    let mut out = Vec::with_capacity(data.len());
    for y in 0..h {
        for x in 0..w {
            let (v, u) = match orientation {
                Orientation::NoTransforms => (y, x),
                Orientation::FlipHorizontal => (y, w - 1 - x),
                Orientation::Rotate180 => (h - 1 - y, w - 1 - x),
                Orientation::FlipVertical => (h - 1 - y, x),
                Orientation::Rotate90FlipH => (x, y),
                Orientation::Rotate90 => (w - 1 - x, y),
                Orientation::Rotate270FlipH => (w - 1 - x, h - 1 - y),
                Orientation::Rotate270 => (x, h - 1 - y),
            };
            let at = (v * width + u) * channels;
            out.extend_from_slice(&data[at..at + channels]);
        }
    }
    out
}
