//! How large tiles may be under a memory budget.

use crate::{Error, Result};

/// What the engine holds for each pixel of a tile while a gradient is computed: seven activations
/// and two deltas of 64 channels (of a cell, where the network sees cells), and inputs, target, and an
/// eighth of a layer's scratch.
const GRADIENT_BYTES: (u64, u64) = (9 * 256, 96);
/// The same while a tile is enlarged: two activations of 64 channels, input and output.
const OUTPUT_BYTES: (u64, u64) = (2 * 256, 48);
/// The same while a least-squares problem is solved, in f64: the solution, a continued picture, what
/// is added to it, and the vectors of conjugate gradients.
const SOLVE_BYTES: u64 = 160;
/// Pixels of the largest son that a solve is made on as a whole.
pub(super) const MAX_SOLVE: usize = 1 << 20;
/// The program, its weights in every form, a thread's blocks, the encoder, and buffers that the
/// engine keeps for later.
const FIXED_BYTES: u64 = 98 << 20;
/// Tiles larger than this gain nothing: the halo's share is under 2 %.
const LARGEST_SIDE: usize = 1536;
/// An adaptation's tiles are kept smaller, since each pixel costs over 2 kB.
const LARGEST_GRADIENT_SIDE: usize = 768;
/// Smaller tiles would be mostly halo; where solves need a wide one, not under its width.
const SMALLEST_SIDE: usize = 64;
/// Pixels beyond a tile's core that its enlargement is computed on: eight layers see 8, but
/// Winograd's 4 × 4 blocks mix all pixels that they read, each layer moves what was cut off at
/// the tile's border by a block, and six of the layers are computed so. 28 pixels make the core
/// agree bit for bit with the whole picture.
pub const HALO: usize = 28;

/// Sides of tiles are multiples of it: Winograd's blocks of 4, of cells of up to 4 pixels a side.
const BLOCK: usize = 16;

/// The sides of tiles (multiples of 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Largest side of an adaptation tile's core.
    pub gradient_side: usize,
    /// Largest side of an enlargement tile's core.
    pub output_side: usize,
}

/// What a restoration works on, as far as memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Pixels of the LR photo.
    pub low: u64,
    /// Pixels of the result.
    pub high: u64,
    /// Bytes that a pixel of the photo file takes in its own kind (3 for 8-bit RGB).
    pub pixel_bytes: u64,
    /// Whether anything is adapted.
    pub adapts: bool,
    /// Whether the whole result is held in f32 (ensemble, back-projection).
    pub holds_result: bool,
    /// Whether least-squares problems are solved, on the photo's tiles and on its son.
    pub solves: bool,
    /// Whether a network works on the tiles.
    pub network: bool,
    /// Pixels around a tile of the result that are computed with it.
    pub halo: usize,
    /// The side of the cells of pixels that the network sees.
    pub cell: usize,
}

impl Job {
    /// What is held whatever the tiles are: the photo and the result in their own kinds, the
    /// encoded result, the photo and its son in f32.
    fn held(&self) -> u64 {
        let photo = self.low * (self.pixel_bytes + 12 + if self.adapts { 36 } else { 0 });
        let result = self.high * (self.pixel_bytes + self.pixel_bytes / 2 + if self.holds_result { 40 } else { 0 });
        let son = if self.solves && self.adapts { SOLVE_BYTES * self.low.min(MAX_SOLVE as u64) } else { 0 };
        FIXED_BYTES + photo + result + son
    }

    /// Bytes that a pixel takes whose cell and which itself take so many. (Cells are made of pixels and
    /// pixels of cells, so that the latter are there twice.)
    fn bytes(&self, (cell, pixel): (u64, u64)) -> u64 {
        let area = (self.cell * self.cell) as u64;
        cell.div_ceil(area) + if area > 1 { 2 * pixel } else { pixel }
    }

    /// Bytes that a pixel of a tile of the result takes.
    fn tile_bytes(&self) -> u64 {
        let solve = if self.solves { SOLVE_BYTES } else { 0 };
        if self.network { self.bytes(OUTPUT_BYTES).max(solve) + solve / 4 } else { solve.max(48) }
    }

    /// Smallest side of a tile of the result.
    fn smallest_output(&self) -> usize {
        SMALLEST_SIDE.max(self.halo.next_multiple_of(BLOCK))
    }

    /// The tiles for `memory` bytes.
    ///
    /// # Errors
    /// When not even the smallest tiles fit; the message names the figure that would do.
    pub fn plan(&self, memory: u64) -> Result<Plan> {
        let smallest = self.smallest_output();
        // No tile has more pixels than the picture.
        let side = |left: u64, bytes: u64, halo: usize, largest: usize, picture: u64| {
            if picture <= left / bytes {
                return largest;
            }
            let whole = ((left / bytes) as f64).sqrt() as usize;
            (whole.saturating_sub(2 * halo) / BLOCK * BLOCK).min(largest)
        };
        let left = memory.saturating_sub(self.held());
        let (gradient_bytes, seen) = (self.bytes(GRADIENT_BYTES), super::son::SEEN * self.cell);
        let plan = Plan {
            gradient_side: side(left, gradient_bytes, seen, LARGEST_GRADIENT_SIDE, self.low),
            output_side: side(left, self.tile_bytes(), self.halo, LARGEST_SIDE, self.high),
        };
        let short = plan.output_side < smallest || (self.adapts && plan.gradient_side < SMALLEST_SIDE);
        if short {
            let square = |side: usize, halo: usize| ((side + 2 * halo + BLOCK) as u64).pow(2);
            let gradient = if self.adapts { square(SMALLEST_SIDE, seen).min(self.low) * gradient_bytes } else { 0 };
            let needed = self.held() + gradient.max(square(smallest, self.halo).min(self.high) * self.tile_bytes());
            let gib = (needed as f64 / (1u64 << 30) as f64 * 100.0).ceil() / 100.0;
            return Err(Error::input(format!(
                "this needs about {gib} GiB, more than --memory allows ({:.3} GiB); try --memory {gib}",
                memory as f64 / (1u64 << 30) as f64
            )));
        }
        Ok(plan)
    }
}

impl Plan {
    /// The same with tiles that have at most `pixels` pixels with the `halo` of a tile of the result.
    pub(super) fn within(self, pixels: usize, halo: usize) -> Self {
        let side = |halo: usize| (pixels.isqrt().saturating_sub(2 * halo) / BLOCK * BLOCK).max(SMALLEST_SIDE);
        Plan {
            gradient_side: self.gradient_side.min(side(super::son::SEEN)),
            output_side: self.output_side.min(side(halo)),
        }
    }

    /// The same with tiles of half the sides, as long as they are not the smallest.
    pub(super) fn halved(self) -> Self {
        let half = |side: usize| (side / 2 / BLOCK * BLOCK).max(SMALLEST_SIDE.min(side));
        Plan { gradient_side: half(self.gradient_side), output_side: half(self.output_side) }
    }

    /// Tiles as large as anything can use: for pictures that surely fit.
    pub fn unlimited() -> Self {
        Plan { gradient_side: 1 << 20, output_side: 1 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job = Job {
        low: 12_000_000,
        high: 48_000_000,
        pixel_bytes: 3,
        adapts: true,
        holds_result: false,
        solves: false,
        network: true,
        halo: HALO,
        cell: 1,
    };

    #[test]
    fn twelve_megapixels_fit_two_gibibytes() {
        let plan = JOB.plan(2 << 30).unwrap();
        assert!(plan.gradient_side >= 256 && plan.output_side >= 512, "{plan:?}");
        assert_eq!((plan.gradient_side % BLOCK, plan.output_side % BLOCK), (0, 0));
    }

    #[test]
    fn tiles_fit_a_device() {
        let plan = Plan { gradient_side: 768, output_side: 1536 };
        // 128 MiB for 64 channels.
        let within = plan.within((128 << 20) / 256, 74);
        assert!((within.output_side + 148).pow(2) * 256 <= 128 << 20, "{within:?}");
        assert!((within.gradient_side + 16).pow(2) * 256 <= 128 << 20, "{within:?}");
        assert_eq!(plan.within(usize::MAX, 74), plan);
        let mut halved = plan;
        while halved.halved() != halved {
            halved = halved.halved();
            assert!(halved.output_side.is_multiple_of(BLOCK) && halved.gradient_side.is_multiple_of(BLOCK));
        }
        assert_eq!(halved, Plan { gradient_side: 64, output_side: 64 });
    }

    #[test]
    fn the_figure_in_the_refusal_would_do() {
        let Err(error) = JOB.plan(1 << 29) else { panic!("fits half a gibibyte") };
        let text = error.to_string();
        let gib: f64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        JOB.plan((gib * (1u64 << 30) as f64) as u64).unwrap();
        // With the wide halo of solves, tiles are not mostly that; and a small picture is one tile.
        let solves = Job { solves: true, adapts: false, halo: 194, ..JOB };
        for job in [solves, Job { low: 390_000, high: 1_570_000, ..solves }, Job { low: 9_600, high: 38_400, ..solves }]
        {
            let text = job.plan(1 << 26).unwrap_err().to_string();
            let gib: f64 = text.rsplit(' ').next().unwrap().parse().unwrap();
            let plan = job.plan((gib * (1u64 << 30) as f64) as u64).unwrap();
            assert!(plan.output_side >= 194, "{plan:?} {gib}");
            assert!(job.high > 1 << 20 || gib < 0.13, "{gib}");
        }
    }
}
