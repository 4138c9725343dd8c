//! TIFF: the writer, and the kinds that the decoder does not know.

use super::ifd::{Ifds, Tag, put_directory};
use super::metadata::Description;
use super::{Photo, Samples};
use rayon::prelude::*;
use std::io::{self, Write};

/// The tag of the ICC profile.
const ICC: u16 = 34675;
/// Bytes of a strip before compression, about.
const STRIP: usize = 1 << 18;

/// After decoding: EXIF out of the directories, colours that were multiplied by alpha.
pub(super) fn complete(photo: &mut Photo, bytes: &[u8]) {
    let Some(ifds) = Ifds::new(bytes) else { return };
    let Some(first) = ifds.first() else { return };
    photo.exif = Description::of(&ifds).and_then(Description::into_exif);
    // The profile's values have no type, which the decoder does not take.
    photo.icc = photo.icc.take().or_else(|| ifds.tags(first, |tag| tag == ICC).pop().map(|tag| tag.data));
    if ifds.link(first).and_then(|at| ifds.u32(at)).is_some_and(|next| next != 0) {
        photo.warn("of the pictures in this file the first is taken");
    }
    if photo.kind.alpha && ifds.one(first, 338) == Some(1) {
        divide_by_alpha(photo);
    }
}

fn divide_by_alpha(photo: &mut Photo) {
    let (c, max) = (photo.kind.channels(), u32::from(photo.max()));
    let divided = |v: u32, alpha: u32| if alpha == 0 { 0 } else { ((v * 2 * max + alpha) / (2 * alpha)).min(max) };
    match &mut photo.samples {
        Samples::Eight(data) => data.chunks_exact_mut(c).for_each(|pixel| {
            let alpha = u32::from(pixel[c - 1]);
            pixel[..c - 1].iter_mut().for_each(|v| *v = divided(u32::from(*v), alpha) as u8);
        }),
        Samples::Sixteen(data) => data.chunks_exact_mut(c).for_each(|pixel| {
            let alpha = u64::from(pixel[c - 1]);
            let wide = |v: u16| (u64::from(v) * 131_070 + alpha) / (2 * alpha);
            pixel[..c - 1].iter_mut().for_each(|v| *v = if alpha == 0 { 0 } else { wide(*v).min(65_535) as u16 });
        }),
    }
}

/// Writes a TIFF: little-endian, deflate with the horizontal predictor, alpha not multiplied in.
pub(super) fn write(photo: &Photo, exif: Option<&[u8]>, icc: Option<&[u8]>, out: &mut dyn Write) -> io::Result<()> {
    let kind = photo.kind;
    let row = photo.width * kind.pixel_bytes();
    let rows = (STRIP / row.max(1)).clamp(1, photo.height.max(1));
    let starts: Vec<usize> = (0..photo.height).step_by(rows).collect();
    // The first directory's place is told in the first eight bytes, so the strips' sizes must be
    // known before: they are compressed first, all of them.
    let strips: Vec<Vec<u8>> = starts
        .par_iter()
        .map(|&y| compressed(&predicted(photo, y, rows.min(photo.height - y))))
        .collect::<io::Result<_>>()?;
    let (mut at, mut places, mut sizes) = (8_u64, Vec::new(), Vec::new());
    let short = || io::Error::other("a TIFF cannot be larger than 4 GiB; write another format");
    for strip in &strips {
        places.push(u32::try_from(at).map_err(|_| short())?);
        sizes.push(strip.len() as u32);
        at += strip.len() as u64;
    }
    let mut tail = Vec::new();
    let description = exif.and_then(Ifds::new).and_then(|ifds| Description::of(&ifds));
    let mut tags = match description {
        Some(description) => description.put_inner(&mut tail, at).ok_or_else(short)?,
        None => Vec::new(),
    };
    let c = kind.channels();
    tags.push(Tag::longs(256, &[photo.width as u32]));
    tags.push(Tag::longs(257, &[photo.height as u32]));
    tags.push(Tag::shorts(258, &vec![if kind.sixteen { 16 } else { 8 }; c]));
    tags.push(Tag::shorts(259, &[8]));
    tags.push(Tag::shorts(262, &[if kind.grey { 1 } else { 2 }]));
    tags.push(Tag::longs(273, &places));
    tags.push(Tag::shorts(274, &[1]));
    tags.push(Tag::shorts(277, &[c as u16]));
    tags.push(Tag::longs(278, &[rows as u32]));
    tags.push(Tag::longs(279, &sizes));
    tags.push(Tag::shorts(284, &[1]));
    tags.push(Tag::shorts(317, &[2]));
    if kind.alpha {
        tags.push(Tag::shorts(338, &[2]));
    }
    if let Some(icc) = icc {
        tags.push(Tag { tag: ICC, kind: 7, count: icc.len() as u32, data: icc.to_vec() });
    }
    let first = put_directory(&mut tail, at, tags).ok_or_else(short)?;
    out.write_all(b"II\x2a\0")?;
    out.write_all(&first.to_le_bytes())?;
    strips.iter().try_for_each(|strip| out.write_all(strip))?;
    out.write_all(&tail)
}

/// Rows as bytes, each value less the one before it of its channel.
fn predicted(photo: &Photo, y: usize, rows: usize) -> Vec<u8> {
    let c = photo.kind.channels();
    let row = photo.width * c;
    let range = y * row..(y + rows) * row;
    let mut out = Vec::with_capacity(rows * photo.width * photo.kind.pixel_bytes());
    match &photo.samples {
        Samples::Eight(data) => {
            for row in data[range].chunks_exact(row) {
                let before = std::iter::repeat_n(&0, c).chain(row);
                out.extend(row.iter().zip(before).map(|(v, b)| v.wrapping_sub(*b)));
            }
        }
        Samples::Sixteen(data) => {
            for row in data[range].chunks_exact(row) {
                let before = std::iter::repeat_n(&0, c).chain(row);
                out.extend(row.iter().zip(before).flat_map(|(v, b)| v.wrapping_sub(*b).to_le_bytes()));
            }
        }
    }
    out
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}
