//! Asking for memory before it is needed.
//!
//! Between two products a thread asks for a few of the cache lines that the transforms after the
//! products will read or write: they arrive while the products keep the processor busy. Few at a
//! time, because a processor waits when too many are on their way.

use super::simd::Simd;
use super::winograd::Grid;
use std::ops::Range;

/// The pixels of some tiles of one tensor.
#[derive(Clone)]
pub(super) struct Pixels {
    pub(super) tensor: *const f32,
    /// Channels of the tensor.
    pub(super) channels: usize,
    /// Those that are needed.
    pub(super) needed: Range<usize>,
    /// How far down and right of the tile its new pixels are: 1 for inputs, of which the tiles
    /// above and to the left have had some already.
    pub(super) shift: usize,
    pub(super) tiles: Range<usize>,
}

/// Walks through the rows of the tiles of some tensors.
pub(super) struct Ahead<const N: usize> {
    grid: Grid,
    pixels: [Pixels; N],
    /// The tensor and the row in its first tile that come next.
    which: usize,
    row: usize,
    /// The first pixel of the row that came last.
    pixel: usize,
    /// Rows of tiles to ask for at `calls` calls, and those that were due before, times `calls`.
    rows: usize,
    calls: usize,
    due: usize,
}

impl<const N: usize> Ahead<N> {
    /// For as many calls of [`Ahead::step`].
    #[inline(always)]
    pub(super) fn new(grid: Grid, pixels: [Pixels; N], calls: usize) -> Self {
        let rows = pixels.iter().map(|pixels| pixels.tiles.len() * 4).sum();
        Ahead { grid, pixels, which: 0, row: 0, pixel: 0, rows, calls, due: 0 }
    }

    /// Asks for the next share.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(super) unsafe fn step<S: Simd>(&mut self) {
        self.due += self.rows;
        while self.due >= self.calls {
            self.due -= self.calls;
            while self.which < N && self.pixels[self.which].tiles.is_empty() {
                self.which += 1;
            }
            let Some(Pixels { tensor, channels, needed, shift, tiles }) = self.pixels.get_mut(self.which) else {
                return;
            };
            // To find a tile takes divisions, which are slow; the row below is a picture's width on.
            self.pixel =
                if self.row == 0 { self.grid.pixel(tiles.start, *shift) } else { self.pixel + self.grid.width() };
            for pixel in self.pixel..self.pixel + 4 {
                for c in needed.clone().step_by(16) {
                    // SAFETY: the caller's promise; any address may be asked for.
                    unsafe { S::prefetch(tensor.wrapping_add(pixel * *channels + c)) };
                }
            }
            self.row += 1;
            if self.row == 4 {
                self.row = 0;
                tiles.start += 1;
            }
        }
    }
}
