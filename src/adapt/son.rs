//! The training pair that a photo gives of itself.

use super::Course;
use crate::degrade::{Degradation, resize};
use crate::engine::{Engine, Window, load};
use crate::{Raster, Real, Result};

/// Pixels (or cells of pixels) that eight 3 × 3 layers see beyond their own: what a tile needs around its core for
/// exact values and gradients.
pub const SEEN: usize = 8;

/// Input and target of the adaptation, both of the LR photo's size, in an engine's memory.
pub struct Son<T> {
    /// D(LR), clipped to [0, 1] but not rounded, for the data steps; none where there are none.
    pub small: Option<T>,
    /// What is made of that at the LR photo's size: the input of a pass.
    pub input: T,
    /// The LR photo, or a part of it.
    pub target: T,
    /// The parts of it that are learned from.
    pub cores: Vec<Window>,
}

/// D(photo), clipped to [0, 1].
fn small<T: Real>(photo: &Raster<T>, degradation: &Degradation) -> Raster<T> {
    degradation.apply(photo).map(|v| v.max(T::zero()).min(T::one()))
}

impl<T> Son<T> {
    /// The son of `photo` (RGB in [0, 1]), enlarged again as a `course` begins.
    ///
    /// # Errors
    /// A failing engine.
    pub fn of<E: Engine<Tensor = T>>(
        engine: &E,
        photo: &Raster<E::Elem>,
        degradation: &Degradation,
        course: &Course,
        cores: Vec<Window>,
    ) -> Result<Self> {
        let small = load(engine, &small(photo, degradation))?;
        let input = course.begin(engine, degradation, &small, photo.height, photo.width)?;
        Ok(Son { small: Some(small), input, target: load(engine, photo)?, cores })
    }

    /// The sons of the surroundings of each core, as far as a network sees that sees cells of `cell` ×
    /// `cell` pixels, whose input is the cubic upscale of D(`photo`).
    ///
    /// # Errors
    /// A failing engine.
    pub(super) fn cubic<E: Engine<Tensor = T>>(
        engine: &E,
        photo: &Raster<E::Elem>,
        degradation: &Degradation,
        cores: Vec<Window>,
        cell: usize,
    ) -> Result<Vec<Self>> {
        let (height, width) = (photo.height, photo.width);
        let input = resize(&small(photo, degradation), degradation.scale(), height, width);
        let part = |core| {
            let seen = with_halo(core, SEEN * cell, height, width);
            let part = |of: &Raster<E::Elem>| load(engine, &of.crop(seen.y, seen.x, seen.height, seen.width));
            let core = Window { y: core.y - seen.y, x: core.x - seen.x, ..core };
            Ok(Son { small: None, input: part(&input)?, target: part(photo)?, cores: vec![core] })
        };
        cores.into_iter().map(part).collect()
    }
}

/// Cuts a picture of `height` × `width` into tiles of at most `side` × `side` pixels, whose
/// origins are multiples of `side` (itself a multiple of 4), row by row.
pub(super) fn tiles(height: usize, width: usize, side: usize) -> Vec<Window> {
    let mut tiles = Vec::new();
    for y in (0..height).step_by(side) {
        for x in (0..width).step_by(side) {
            tiles.push(Window { y, x, height: side.min(height - y), width: side.min(width - x) });
        }
    }
    tiles
}

/// Those of the tiles that show the most detail, up to `pixels` in all (at least one), in their
/// order in the picture. Detail is the mean absolute difference between neighbouring pixels; equal
/// tiles keep their order, so that the choice is always the same.
pub fn most_detailed<T: Real>(photo: &Raster<T>, tiles: Vec<Window>, pixels: usize) -> Vec<Window> {
    let mut ranked: Vec<(f64, usize)> = tiles.iter().enumerate().map(|(i, tile)| (detail(photo, *tile), i)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (mut chosen, mut sum) = (Vec::new(), 0);
    for (_, i) in ranked {
        let size = tiles[i].height * tiles[i].width;
        if chosen.is_empty() || sum + size <= pixels {
            chosen.push(i);
            sum += size;
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|i| tiles[i]).collect()
}

fn detail<T: Real>(photo: &Raster<T>, tile: Window) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    let c = photo.channels;
    for y in tile.y..tile.y + tile.height {
        let row = &photo.row(y)[tile.x * c..(tile.x + tile.width) * c];
        for i in c..row.len() {
            sum += (row[i] - row[i - c]).wide().abs();
        }
        count += row.len() - c;
        if y > tile.y {
            let above = &photo.row(y - 1)[tile.x * c..(tile.x + tile.width) * c];
            sum += row.iter().zip(above).map(|(&a, &b)| (a - b).wide().abs()).sum::<f64>();
            count += row.len();
        }
    }
    sum / count.max(1) as f64
}

/// `core` with `halo` more pixels on each side, as far as the picture goes.
pub(super) fn with_halo(core: Window, halo: usize, height: usize, width: usize) -> Window {
    let (y, x) = (core.y.saturating_sub(halo), core.x.saturating_sub(halo));
    Window {
        y,
        x,
        height: (core.y + core.height + halo).min(height) - y,
        width: (core.x + core.width + halo).min(width) - x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_picture_once() {
        let mut seen = vec![0; 23 * 41];
        for tile in tiles(23, 41, 16) {
            for y in tile.y..tile.y + tile.height {
                for x in tile.x..tile.x + tile.width {
                    seen[y * 41 + x] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
    }

    #[test]
    fn the_busiest_tiles_are_chosen() {
        let mut photo = Raster::<f32>::new(32, 64, 3);
        for y in 0..16 {
            for x in 16..32 {
                photo.data[(y * 64 + x) * 3] = ((x + y) % 2) as f32;
            }
        }
        for y in 16..32 {
            for x in 48..64 {
                photo.data[(y * 64 + x) * 3] = 0.5 * ((x + y) % 2) as f32;
            }
        }
        let tiles = tiles(32, 64, 16);
        let chosen =
            |pixels| most_detailed(&photo, tiles.clone(), pixels).iter().map(|t| (t.y, t.x)).collect::<Vec<_>>();
        assert_eq!(chosen(256), [(0, 16)]);
        assert_eq!(chosen(1), [(0, 16)]);
        assert_eq!(chosen(512), [(0, 16), (16, 48)]);
        assert_eq!(chosen(1 << 20).len(), 8);
    }

    #[test]
    fn halos_end_at_the_border() {
        let core = Window { y: 4, x: 16, height: 4, width: 8 };
        assert_eq!(with_halo(core, 8, 20, 26), Window { y: 0, x: 8, height: 16, width: 18 });
    }
}
