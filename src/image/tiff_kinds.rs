//! TIFF kinds that the decoder refuses: grey with alpha, and palettes. The first directory is
//! rewritten, in a copy, to one of plain grey; afterwards the values are put right.

use super::ifd::Ifds;
use super::metadata::{number, set};
use super::{Photo, PixelKind, Samples};

/// A rewritten file, and how to undo that in the pixels.
pub(super) struct Rewritten {
    pub bytes: Vec<u8>,
    undo: Undo,
}

enum Undo {
    /// Red, green and blue of each index; whether indices are single bits.
    Palette(Vec<[u8; 3]>, bool),
    /// Two values a pixel were read as two pixels.
    GreyAlpha { white_is_zero: bool, differences: bool, run: Option<usize> },
}

/// The file as one of plain grey, when it is of one of these kinds.
pub(super) fn rewritten(bytes: &[u8]) -> Option<Rewritten> {
    let ifds = Ifds::new(bytes)?;
    let first = ifds.first()?;
    let one = |tag, default| ifds.one(first, tag).unwrap_or(default);
    let (photometric, bits, samples) = (one(262, 1), one(258, 1), one(277, 1));
    let mut patches = vec![(262, 1)];
    let undo = if photometric == 3 && samples == 1 && (bits == 8 || bits == 1) {
        let map = ifds.find(first, 320)?;
        let colour = |i: usize, n: usize| Some((ifds.number(&map, i + n)? >> 8) as u8);
        let n = 1_usize << bits;
        let entry = |i| Some([colour(i, 0)?, colour(i, n)?, colour(i, 2 * n)?]);
        Undo::Palette((0..n).map(entry).collect::<Option<_>>()?, bits == 1)
    } else if photometric <= 1
        && samples == 2
        && (bits == 8 || bits == 16)
        && one(284, 1) == 1
        && one(339, 1) == 1
        && matches!(one(259, 1), 1 | 5 | 8 | 32946 | 32773)
    {
        let width = one(256, 0).checked_mul(2)?;
        let tile = ifds.one(first, 322).map(|w| w.checked_mul(2)).map_or(Some(None), |w| w.map(Some))?;
        patches.extend([(256, width), (258, bits), (277, 1), (317, 1), (339, 1)]);
        patches.extend(tile.map(|w| (322, w)));
        let run = tile.map(|w| w as usize).filter(|&w| w > 0);
        Undo::GreyAlpha { white_is_zero: photometric == 0, differences: one(317, 1) == 2, run }
    } else {
        return None;
    };
    let mut copy = bytes.to_vec();
    for (tag, v) in patches {
        if let Some(entry) = ifds.find(first, tag) {
            set(&mut copy, entry, number(&ifds, v));
        }
    }
    // What says that a value is alpha gets a tag that nobody knows.
    if let Some(tag) = ifds.find(first, 338).and_then(|entry| copy.get_mut(entry.at..entry.at + 2)) {
        tag.copy_from_slice(&ifds.short(65_000));
    }
    Some(Rewritten { bytes: copy, undo })
}

impl Rewritten {
    /// Puts right the pixels that were read from the rewritten file.
    pub fn undo(&self, photo: &mut Photo) {
        if !photo.kind.grey || photo.kind.alpha {
            return;
        }
        match &self.undo {
            Undo::Palette(colours, single) => {
                let Samples::Eight(data) = &photo.samples else { return };
                let index = |v: u8| usize::from(if *single { v & 1 } else { v });
                let colours: Vec<u8> = data.iter().flat_map(|&v| colours[index(v)]).collect();
                photo.samples = Samples::Eight(colours);
                photo.kind = PixelKind::new(false, false, false);
            }
            Undo::GreyAlpha { white_is_zero, differences, run } => {
                if !photo.width.is_multiple_of(2) {
                    return;
                }
                let (row, run) = (photo.width, run.unwrap_or(photo.width));
                match &mut photo.samples {
                    Samples::Eight(data) => {
                        if *differences {
                            sum(data, row, run, u8::wrapping_add);
                        }
                        if *white_is_zero {
                            data.iter_mut().step_by(2).for_each(|v| *v = !*v);
                        }
                    }
                    Samples::Sixteen(data) => {
                        if *differences {
                            sum(data, row, run, u16::wrapping_add);
                        }
                        if *white_is_zero {
                            data.iter_mut().step_by(2).for_each(|v| *v = !*v);
                        }
                    }
                }
                photo.width /= 2;
                photo.kind = PixelKind::new(true, true, photo.kind.sixteen);
            }
        }
    }
}

/// Undoes the horizontal predictor of two interleaved channels, in runs of each row.
fn sum<S: Copy + Default>(data: &mut [S], row: usize, run: usize, add: impl Fn(S, S) -> S) {
    for run in data.chunks_exact_mut(row).flat_map(|row| row.chunks_mut(run)) {
        let mut before = [S::default(); 2];
        for pixel in run.chunks_exact_mut(2) {
            pixel.iter_mut().zip(&mut before).for_each(|(v, b)| {
                *v = add(*v, *b);
                *b = *v;
            });
        }
    }
}
