//! A file out.

use super::{Format, Photo, PixelKind, Samples, metadata, paths, tiff, to_eight};
use crate::{Error, Result, whole};
use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ::image::codecs::{bmp::BmpEncoder, jpeg::JpegEncoder, webp::WebPEncoder};
use ::image::{ExtendedColorType, ImageEncoder, ImageError, ImageResult};
use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How files are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// 1 (small) to 100 (good).
    pub jpeg_quality: u8,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions { jpeg_quality: 95 }
    }
}

impl Photo {
    /// Whether a file of this name can be made: a known extension, in a folder that can be written.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check_output(path: &Path) -> Result<()> {
        if paths::is_stdio(path) {
            return Ok(());
        }
        format_of(path)?;
        if path.is_dir() {
            return Err(Error::file(path, "is a folder; name a file"));
        }
        if path.exists() && !path.is_file() {
            return Ok(());
        }
        whole::check(path).map_err(|e| Error::io(path, e))
    }

    /// Whether a photo of `height` x `width` fits the format that `path` names; stdout takes
    /// `format`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_size(path: &Path, format: Format, height: usize, width: usize) -> Result<()> {
        let stdio = paths::is_stdio(path);
        let (format, name) = if stdio { (format, Path::new("standard output")) } else { (format_of(path)?, path) };
        fits(format, height, width).map_err(|message| Error::file(name, message))
    }

    /// Writes the photo in the format that the extension names, and says in one line each what
    /// that cannot hold; `-` is stdout, in the format that was read. The file appears whole or
    /// not at all.
    ///
    /// # Errors
    /// A name or a size that the format does not allow, or what the system says.
    pub fn write(&self, path: &Path, options: &WriteOptions) -> Result<Vec<String>> {
        let name = if paths::is_stdio(path) { Path::new("standard output") } else { path };
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Other => Error::file(name, e.to_string()),
            _ => Error::io(name, e),
        };
        if paths::is_stdio(path) {
            return self.encode_buffered(self.format, options, &mut io::stdout().lock()).map_err(failed);
        }
        let format = format_of(path)?;
        whole::write(path, |file| self.encode_buffered(format, options, file)).map_err(failed)
    }

    fn encode_buffered(&self, format: Format, options: &WriteOptions, out: &mut dyn Write) -> io::Result<Vec<String>> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let warnings = self.encode(format, options, &mut out)?;
        out.flush()?;
        Ok(warnings)
    }

    /// Writes the photo as `format` to `out`; gives what [`Photo::write`] gives.
    ///
    /// # Errors
    /// A size that the format does not allow, or what `out` says.
    pub fn encode(&self, format: Format, options: &WriteOptions, out: &mut dyn Write) -> io::Result<Vec<String>> {
        fits(format, self.height, self.width).map_err(|m| io::Error::new(io::ErrorKind::InvalidInput, m))?;
        let mut warnings = Vec::new();
        let photo = self.for_format(format, &mut warnings);
        let (mut icc, mut exif) = (self.icc.clone(), self.exif.clone());
        if let Some(exif) = &mut exif {
            metadata::reset_orientation(exif);
            metadata::set_size(exif, self.height, self.width);
        }
        drop_what_cannot_be_kept(format, photo.kind, &mut icc, &mut exif, &mut warnings);
        if format == Format::Tiff {
            tiff::write(&photo, exif.as_deref(), icc.as_deref(), out)?;
            return Ok(warnings);
        }
        let (height, width) = (photo.height as u32, photo.width as u32);
        let data: &[u8] = match &photo.samples {
            Samples::Eight(data) => data,
            Samples::Sixteen(data) => bytemuck::cast_slice(data),
        };
        let colour = colour_type(photo.kind);
        let made = match format {
            Format::Png => {
                let encoder = PngEncoder::new_with_quality(out, CompressionType::Default, FilterType::Adaptive);
                finish(encoder, icc, exif, data, width, height, colour)
            }
            Format::Jpeg => {
                // The crate's encoder does not subsample colour.
                let encoder = JpegEncoder::new_with_quality(out, options.jpeg_quality.clamp(1, 100));
                finish(encoder, icc, exif, data, width, height, colour)
            }
            Format::WebP => finish(WebPEncoder::new_lossless(out), icc, exif, data, width, height, colour),
            Format::Bmp | Format::Tiff => {
                let mut out = out;
                finish(BmpEncoder::new(&mut out), None, None, data, width, height, colour)
            }
        };
        match made {
            Ok(()) => Ok(warnings),
            Err(ImageError::IoError(e)) => Err(e),
            Err(e) => Err(io::Error::other(e.to_string().split_whitespace().collect::<Vec<_>>().join(" "))),
        }
    }

    /// The photo in the nearest kind that the format holds.
    fn for_format(&self, format: Format, warnings: &mut Vec<String>) -> Cow<'_, Photo> {
        let kind = format.holds(self.kind);
        if kind == self.kind {
            return Cow::Borrowed(self);
        }
        let name = format.name();
        if self.kind.sixteen && !kind.sixteen {
            warnings.push(format!("{name} holds 8 bits a value; the 16 are rounded"));
        }
        if self.kind.alpha && !kind.alpha {
            warnings.push(format!("{name} holds no alpha; the photo is laid over white"));
        }
        let eight = |i: usize| match &self.samples {
            Samples::Eight(data) => data[i],
            Samples::Sixteen(data) => to_eight(data[i]),
        };
        let (c, count) = (self.kind.channels(), self.height * self.width);
        let mut data = Vec::with_capacity(count * kind.channels());
        for at in (0..count * c).step_by(c) {
            let alpha = if self.kind.alpha { u32::from(eight(at + c - 1)) } else { 255 };
            for k in 0..if kind.grey { 1 } else { 3 } {
                let v = eight(if self.kind.grey { at } else { at + k });
                let over_white = (u32::from(v) * alpha + 255 * (255 - alpha) + 127) / 255;
                data.push(if kind.alpha { v } else { over_white as u8 });
            }
            if kind.alpha {
                data.push(alpha as u8);
            }
        }
        let samples = Samples::Eight(data);
        let (height, width) = (self.height, self.width);
        let (icc, exif, warnings) = (None, None, Vec::new());
        Cow::Owned(Photo { height, width, kind, samples, format, warnings, quantised: None, icc, exif })
    }
}

fn format_of(path: &Path) -> Result<Format> {
    Format::of_path(path)
        .ok_or_else(|| Error::file(path, "the name must end in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp"))
}

fn fits(format: Format, height: usize, width: usize) -> std::result::Result<(), String> {
    let (name, max) = (format.name(), format.max_side());
    if height == 0 || width == 0 {
        return Err("a photo without pixels cannot be written".into());
    }
    if height > max || width > max {
        return Err(format!("{name} holds at most {max} pixels a side, not {width} x {height}; use .png or .tif"));
    }
    Ok(())
}

fn drop_what_cannot_be_kept(
    format: Format,
    kind: PixelKind,
    icc: &mut Option<Vec<u8>>,
    exif: &mut Option<Vec<u8>>,
    warnings: &mut Vec<String>,
) {
    let name = format.name();
    if !format.holds_metadata() {
        if icc.take().is_some() {
            warnings.push(format!("{name} holds no ICC profile; colours may look different"));
        }
        if exif.take().is_some() {
            warnings.push(format!("{name} holds no EXIF; it is left out"));
        }
    }
    if !kind.grey && icc.take_if(|icc| icc.get(16..20) == Some(b"GRAY")).is_some() {
        warnings.push(format!("{name} is written in colour; the grey ICC profile is left out"));
    }
    if format == Format::Jpeg {
        if exif.take_if(|exif| exif.len() > 65_533 - 6).is_some() {
            warnings.push("the EXIF data are too large for JPEG and left out".into());
        }
        if icc.take_if(|icc| icc.len() > 255 * (65_533 - 14)).is_some() {
            warnings.push("the ICC profile is too large for JPEG and left out".into());
        }
    }
}

fn finish<E: ImageEncoder>(
    mut encoder: E,
    icc: Option<Vec<u8>>,
    exif: Option<Vec<u8>>,
    data: &[u8],
    width: u32,
    height: u32,
    colour: ExtendedColorType,
) -> ImageResult<()> {
    if let Some(icc) = icc {
        encoder.set_icc_profile(icc).map_err(ImageError::Unsupported)?;
    }
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).map_err(ImageError::Unsupported)?;
    }
    encoder.write_image(data, width, height, colour)
}

fn colour_type(kind: PixelKind) -> ExtendedColorType {
    match (kind.grey, kind.alpha, kind.sixteen) {
        (true, false, false) => ExtendedColorType::L8,
        (true, true, false) => ExtendedColorType::La8,
        (false, false, false) => ExtendedColorType::Rgb8,
        (false, true, false) => ExtendedColorType::Rgba8,
        (true, false, true) => ExtendedColorType::L16,
        (true, true, true) => ExtendedColorType::La16,
        (false, false, true) => ExtendedColorType::Rgb16,
        (false, true, true) => ExtendedColorType::Rgba16,
    }
}
