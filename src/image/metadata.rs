//! EXIF and ICC: what the decoders leave to us.

use super::ifd::{Entry, Ifds, LONG, Tag, put_directory};
use super::{Format, Photo, tiff};
use ::image::metadata::Orientation;

const ORIENTATION: u16 = 0x112;
const EXIF_IFD: u16 = 0x8769;
const GPS_IFD: u16 = 0x8825;
const INTEROP_IFD: u16 = 0xa005;

/// Whether a tag of a file's first directory says something about the photo and not the file.
fn describes(tag: u16) -> bool {
    // Description, maker, model, resolution, software, date, artist, host, rating, copyright.
    matches!(tag, 270..=272 | 282 | 283 | 296 | 305 | 306 | 315 | 316 | 0x4746 | 0x4749 | 33432)
}

/// After decoding: finds what the decoder missed, and what must not be kept.
pub(super) fn complete(photo: &mut Photo, bytes: &[u8]) -> Result<(), String> {
    match photo.format {
        Format::Png => complete_png(photo, bytes),
        Format::Jpeg if !jpeg_ends(bytes) => {
            return Err("cannot be read as JPEG: it is cut off before the end of the picture".into());
        }
        Format::Jpeg => photo.quantised = quantisation(bytes),
        Format::WebP if animated_webp(bytes) => photo.warn("of the animation the first picture is taken"),
        Format::Tiff => tiff::complete(photo, bytes),
        Format::WebP | Format::Bmp => {}
    }
    photo.icc.take_if(|icc| icc.is_empty());
    if photo.icc.as_ref().is_some_and(|icc| icc.get(16..20) == Some(b"CMYK")) {
        photo.icc = None;
        photo.warn("CMYK is converted to RGB without its ICC profile");
    }
    if let Some(exif) = &mut photo.exif {
        if exif.starts_with(b"Exif\0\0") {
            exif.drain(..6);
        }
        if Ifds::new(exif).is_none() {
            photo.exif = None;
            photo.warn("the EXIF data are damaged and left out");
        }
    }
    Ok(())
}

/// The chunks that the decoder has not come to, because they follow the pixels.
fn complete_png(photo: &mut Photo, bytes: &[u8]) {
    let mut at = 8_usize;
    while let Some(head) = bytes.get(at..at.saturating_add(8)) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = (at + 8).checked_add(length) else { return };
        match &head[4..8] {
            b"eXIf" if photo.exif.is_none() => photo.exif = bytes.get(at + 8..end).map(<[u8]>::to_vec),
            b"acTL" => photo.warn("of the animation the first picture is taken"),
            b"IEND" => return,
            _ => {}
        }
        at = end.saturating_add(4);
    }
}

fn animated_webp(bytes: &[u8]) -> bool {
    bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0)
}

/// The mean step of a JPEG's first quantisation table, of 8 or 16 bits a step.
fn quantisation(bytes: &[u8]) -> Option<f64> {
    let table = bytes.get(jpeg_segment(bytes, 0xdb)? + 4..)?;
    let wide = table.first()? >> 4 != 0;
    let step = |bytes: &[u8]| bytes.iter().fold(0.0, |step, &byte| 256.0 * step + f64::from(byte));
    let width = if wide { 2 } else { 1 };
    Some(table.get(1..1 + 64 * width)?.chunks_exact(width).map(step).sum::<f64>() / 64.0)
}

/// Where a JPEG's first segment with this marker begins, among those before the first scan and with it.
fn jpeg_segment(bytes: &[u8], wanted: u8) -> Option<usize> {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            _ if marker == wanted => return Some(at),
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            0xda => break,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    None
}

/// Whether an end-of-image marker follows the first scan.
fn jpeg_ends(bytes: &[u8]) -> bool {
    // Where the segments are odd and the decoder did not mind, anywhere.
    bytes
        .get(jpeg_segment(bytes, 0xda).unwrap_or(2)..)
        .is_some_and(|scan| scan.windows(2).any(|two| two == [0xff, 0xd9]))
}

/// The orientation that EXIF asks for.
pub(super) fn orientation(exif: &[u8]) -> Option<Orientation> {
    let ifds = Ifds::new(exif)?;
    let value = ifds.one(ifds.first()?, ORIENTATION)?;
    Orientation::from_exif(u8::try_from(value).ok()?)
}

/// Sets the orientation to 1 where there is one; a thumbnail, which would need turning as well, is
/// unlinked then.
pub(super) fn reset_orientation(exif: &mut [u8]) {
    let Some(ifds) = Ifds::new(exif) else { return };
    let Some(first) = ifds.first() else { return };
    let Some(entry) = ifds.find(first, ORIENTATION) else { return };
    if ifds.number(&entry, 0) == Some(1) {
        return;
    }
    let (patch, link) = (number(&ifds, 1), ifds.link(first));
    set(exif, entry, patch);
    if let Some(next) = link.and_then(|at| exif.get_mut(at..at.checked_add(4)?)) {
        next.fill(0);
    }
}

/// Sets the sizes in pixels that EXIF states, where it does.
pub(super) fn set_size(exif: &mut [u8], height: usize, width: usize) {
    let (height, width) = (height as u32, width as u32);
    let Some(ifds) = Ifds::new(exif) else { return };
    let Some(first) = ifds.first() else { return };
    let mut wanted = vec![(ifds.find(first, 0x100), width), (ifds.find(first, 0x101), height)];
    if let Some(inner) = ifds.one(first, EXIF_IFD) {
        wanted.push((ifds.find(inner as usize, 0xa002), width));
        wanted.push((ifds.find(inner as usize, 0xa003), height));
    }
    let patches: Vec<_> = wanted.into_iter().filter_map(|(entry, v)| Some((entry?, number(&ifds, v)))).collect();
    patches.into_iter().for_each(|(entry, patch)| set(exif, entry, patch));
}

/// Ten bytes that follow a tag and say: one number, `v`, as a SHORT where it fits.
pub(super) fn number(ifds: &Ifds<'_>, v: u32) -> [u8; 10] {
    let mut patch = [0; 10];
    patch[2..6].copy_from_slice(&ifds.long(1));
    match u16::try_from(v) {
        Ok(v) => {
            patch[..2].copy_from_slice(&ifds.short(super::ifd::SHORT));
            patch[6..8].copy_from_slice(&ifds.short(v));
        }
        Err(_) => {
            patch[..2].copy_from_slice(&ifds.short(LONG));
            patch[6..].copy_from_slice(&ifds.long(v));
        }
    }
    patch
}

pub(super) fn set(exif: &mut [u8], entry: Entry, patch: [u8; 10]) {
    if let Some(bytes) = exif.get_mut(entry.at + 2..entry.at + 12) {
        bytes.copy_from_slice(&patch);
    }
}

/// What a TIFF structure, a file or EXIF, says about the photo: tags of the first directory, of
/// EXIF's and of GPS's.
pub(super) struct Description {
    pub first: Vec<Tag>,
    pub exif: Vec<Tag>,
    pub gps: Vec<Tag>,
}

impl Description {
    /// Collects it.
    pub fn of(ifds: &Ifds<'_>) -> Option<Description> {
        let first = ifds.first()?;
        let inner = |tag| ifds.one(first, tag).map_or_else(Vec::new, |at| ifds.tags(at as usize, |t| t != INTEROP_IFD));
        Some(Description { first: ifds.tags(first, describes), exif: inner(EXIF_IFD), gps: inner(GPS_IFD) })
    }

    /// Appends the inner directories to `out` and their places to the first one's tags, which it
    /// gives back.
    pub fn put_inner(self, out: &mut Vec<u8>, base: u64) -> Option<Vec<Tag>> {
        let mut first = self.first;
        for (tag, tags) in [(EXIF_IFD, self.exif), (GPS_IFD, self.gps)] {
            if !tags.is_empty() {
                let at = put_directory(out, base, tags)?;
                first.push(Tag::longs(tag, &[at]));
            }
        }
        Some(first)
    }

    /// As EXIF of its own.
    pub fn into_exif(self) -> Option<Vec<u8>> {
        if self.first.is_empty() && self.exif.is_empty() && self.gps.is_empty() {
            return None;
        }
        let mut out = b"II\x2a\0\0\0\0\0".to_vec();
        let mut first = self.put_inner(&mut out, 0)?;
        first.push(Tag::shorts(ORIENTATION, &[1]));
        let at = put_directory(&mut out, 0, first)?;
        out[4..8].copy_from_slice(&at.to_le_bytes());
        Some(out)
    }
}
