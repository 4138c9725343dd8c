//! Parts of a photo that are enlarged one after the other.

use super::son::{tiles, with_halo};
use crate::degrade::high_size;
use crate::engine::Window;
use crate::{Error, Raster, Real, Result};

/// A part of an LR photo, and where its upscale lies in the photo's.
pub(super) struct Part {
    pub low: Window,
    pub high: Window,
}

impl Part {
    /// The part whose upscale by `scale` covers `core` with `halo` pixels around it, of a photo of
    /// `low` (rows, columns) whose upscale has `high`. It begins with a cell of `cell` × `cell` pixels.
    pub fn around(
        core: Window,
        halo: usize,
        scale: f64,
        cell: usize,
        low: (usize, usize),
        high: (usize, usize),
    ) -> Self {
        let seen = with_halo(core, halo, high.0, high.1);
        let axis = |from: usize, length: usize, low: usize, high: usize| {
            let (low_from, high_from) = common_origin(from, scale, cell);
            // Where a part ends nothing has to line up, but at the end of the photo.
            let low_to = (((from + length) as f64 / scale).ceil() as usize).min(low);
            let high_to =
                if low_to == low { high } else { (high_from + high_size(low_to - low_from, scale)).min(high) };
            (low_from, low_to - low_from, high_from, high_to - high_from)
        };
        let (low_y, low_height, y, height) = axis(seen.y, seen.height, low.0, high.0);
        let (low_x, low_width, x, width) = axis(seen.x, seen.width, low.1, high.1);
        Part {
            low: Window { y: low_y, x: low_x, height: low_height, width: low_width },
            high: Window { y, x, height, width },
        }
    }
}

/// The last LR pixel whose place lies on the first HR pixel of a cell at or before `high`, and that pixel:
/// where a part may begin so that its grid is the photo's.
fn common_origin(high: usize, scale: f64, cell: usize) -> (usize, usize) {
    let at = |low: usize| low as f64 * scale;
    let on_grid = |low: &usize| {
        let place = at(*low);
        (place - place.round()).abs() < 1e-6 && (place.round() as usize).is_multiple_of(cell)
    };
    let low = (0..=(high as f64 / scale) as usize).rev().find(on_grid).unwrap_or(0);
    (low, at(low).round() as usize)
}

/// Makes a picture of `height` × `width` in tiles of at most `side`: `make` gives what covers a core,
/// and where that lies; bands of whole rows, clipped to [0, 1], go to `sink` with their first row.
pub(super) fn in_bands<T: Real>(
    height: usize,
    width: usize,
    side: usize,
    make: &mut dyn FnMut(Window) -> Result<(Window, Raster<T>)>,
    sink: &mut dyn FnMut(usize, Raster<T>) -> Result<()>,
) -> Result<()> {
    let mut band = Raster::new(0, width, 3);
    for core in tiles(height, width, side) {
        let (seen, mut made) = make(core)?;
        if seen == core && core.width == width {
            clip(&mut made.data)?;
            sink(core.y, made)?;
            continue;
        }
        if core.x == 0 {
            band = Raster::new(core.height, width, 3);
        }
        for y in 0..core.height {
            let from = ((core.y - seen.y + y) * seen.width + core.x - seen.x) * 3;
            let to = (y * width + core.x) * 3;
            let row = &mut band.data[to..to + core.width * 3];
            row.copy_from_slice(&made.data[from..from + core.width * 3]);
            clip(row)?;
        }
        if core.x + core.width == width {
            sink(core.y, std::mem::replace(&mut band, Raster::new(0, width, 3)))?;
        }
    }
    Ok(())
}

/// Clips to [0, 1].
///
/// # Errors
/// Values that are not finite.
fn clip<T: Real>(values: &mut [T]) -> Result<()> {
    // No way out of the loop, so that it works on many values at a time.
    let mut finite = true;
    for value in &mut *values {
        finite &= value.is_finite();
        *value = value.max(T::zero()).min(T::one());
    }
    if finite {
        return Ok(());
    }
    Err(Error::Numeric(
        "the result is not finite, nothing was written: the weights or the rates do not fit; try -n 0".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_their_cores_on_the_grid_of_the_whole() {
        for (scale, cell) in [(1.0, 1), (1.5, 1), (2.0, 1), (2.7, 1), (4.0, 1), (2.0, 2), (1.5, 2), (2.5, 4)] {
            let low = (301, 257);
            let high = (high_size(low.0, scale), high_size(low.1, scale));
            for core in tiles(high.0, high.1, 64) {
                let Part { low: l, high: h } = Part::around(core, 20, scale, cell, low, high);
                assert!(h.y <= core.y.saturating_sub(20) && h.x <= core.x.saturating_sub(20), "{scale} {core:?} {h:?}");
                assert!(h.y + h.height >= (core.y + core.height + 20).min(high.0), "{scale} {core:?} {h:?}");
                assert!(h.x + h.width >= (core.x + core.width + 20).min(high.1));
                assert!(h.y % cell == 0 && h.x % cell == 0);
                assert!(l.y + l.height <= low.0 && l.x + l.width <= low.1);
                assert!(
                    (l.y as f64 * scale - h.y as f64).abs() < 1e-6 && (l.x as f64 * scale - h.x as f64).abs() < 1e-6
                );
            }
        }
    }
}
