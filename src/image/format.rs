//! The file formats, and what each can hold.

use super::PixelKind;
use std::path::Path;

/// A file format that is read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// PNG: everything.
    Png,
    /// JPEG: 8 bits, no alpha.
    Jpeg,
    /// WebP, lossless: 8 bits.
    WebP,
    /// TIFF: everything.
    Tiff,
    /// BMP: 8 bits, no metadata.
    Bmp,
}

impl Format {
    /// By the name's extension, in either case.
    pub fn of_path(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "png" => Some(Format::Png),
            "jpg" | "jpeg" => Some(Format::Jpeg),
            "webp" => Some(Format::WebP),
            "tif" | "tiff" => Some(Format::Tiff),
            "bmp" => Some(Format::Bmp),
            _ => None,
        }
    }

    /// By the first bytes of a file.
    pub(super) fn of_content(bytes: &[u8]) -> Option<Format> {
        let riff = bytes.get(..4) == Some(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
        match bytes {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Format::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Format::Tiff),
            [b'B', b'M', ..] => Some(Format::Bmp),
            _ if riff => Some(Format::WebP),
            _ => None,
        }
    }

    /// The name, as it is written in messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
            Format::Tiff => "TIFF",
            Format::Bmp => "BMP",
        }
    }

    /// The largest height and width.
    pub(super) fn max_side(self) -> usize {
        match self {
            Format::Jpeg => 65_535,
            Format::WebP => 16_384,
            Format::Png | Format::Tiff | Format::Bmp => i32::MAX as usize,
        }
    }

    /// The kind that pixels of `kind` become in this format.
    pub(super) fn holds(self, kind: PixelKind) -> PixelKind {
        let (grey, alpha) = (kind.is_grey(), kind.has_alpha());
        match self {
            Format::Png | Format::Tiff => kind,
            Format::Jpeg => PixelKind::new(grey, false, false),
            // Files of these two are read back as colour; BMP has no grey with alpha.
            Format::WebP => PixelKind::new(false, alpha, false),
            Format::Bmp => PixelKind::new(grey && !alpha, alpha, false),
        }
    }

    /// Whether an ICC profile and EXIF can be kept.
    pub(super) fn holds_metadata(self) -> bool {
        self != Format::Bmp
    }
}
