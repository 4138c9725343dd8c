//! 3 × 3 convolution by Winograd's minimal filtering (Lavin and Gray, 2016).
//!
//! The picture is cut into tiles of 4 × 4 outputs. A tile's 6 × 6 inputs, transformed, meet the
//! transformed filter in 36 independent products over channels, which are matrix products over
//! the tiles: a quarter of the multiplications of the direct sum. The interpolation points are
//! 0, ±1, ±2 and ∞ for the outputs, F(4 × 4, 3 × 3), and for the weight gradient,
//! F(3 × 3, 4 × 4), where the 4 × 4 values of δ are the filter and both transforms of six values
//! are the same.
//!
//! Blocks of tiles are transformed, multiplied and transformed back while they are in the level-2
//! cache. The arithmetic of a tile depends on its own 36 inputs alone, not on its block or on
//! where it lies.

#![allow(clippy::needless_range_loop)] // Small matrices read best by their two indices.

use super::ahead::{Ahead, Pixels};
use super::gemm::{self, Operand, Steps};
use super::post::Post;
use super::simd::{Kernel, Simd};
use crate::engine::Shape;
use std::ops::Range;

/// Points at which polynomials are multiplied: 6 × 6.
const POINTS: usize = 36;

/// Values between the ends of one point's matrix and the next: without them the 36 matrices
/// would lie a power of two apart and push each other out of the cache.
const GAP: usize = 16;

/// Columns of a strip at most: about as many tiles as a block has.
const STRIP: usize = 18;

/// The pictures of a tensor cut into tiles of 4 × 4, in strips from left to right, each row by row.
/// In a strip the two rows of inputs that a tile shares with the one above it were read a block ago
/// and are still in the level-2 cache; in rows across a wide picture they would have to come from
/// further away.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    h: usize,
    w: usize,
    rows: usize,
    columns: usize,
    /// Columns of each strip but the last, which may have fewer.
    strip: usize,
    pictures: usize,
}

impl Grid {
    pub(super) fn new(shape: Shape) -> Self {
        let Shape { n, h, w, .. } = shape;
        let columns = w.div_ceil(4);
        let strip = columns.div_ceil(columns.div_ceil(STRIP).max(1));
        Grid { h, w, rows: h.div_ceil(4), columns, strip, pictures: n }
    }

    /// How many tiles there are.
    pub(super) fn tiles(&self) -> usize {
        self.pictures * self.rows * self.columns
    }

    /// The index of the pixel that is so far down and right of a tile's first pixel. It may be
    /// outside the tile's row or picture.
    #[inline(always)]
    pub(super) fn pixel(&self, tile: usize, shift: usize) -> usize {
        let (picture, y, x) = self.place(tile);
        (picture * self.h + y + shift) * self.w + x + shift
    }

    /// Pixels from one row of a picture to the next.
    #[inline(always)]
    pub(super) fn width(&self) -> usize {
        self.w
    }

    /// A tile's picture and first pixel: (picture, y, x).
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (picture, tile) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        let (strip, tile) = (tile / (self.rows * self.strip), tile % (self.rows * self.strip));
        let first = strip * self.strip;
        let width = self.strip.min(self.columns - first);
        (picture, tile / width * 4, (first + tile % width) * 4)
    }
}

/// A convolution's channels and how they are laid out in vectors. Outputs come in panels of two
/// vectors; the last one may have a single vector.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) lanes: usize,
}

impl Channels {
    /// Input channels in whole vectors.
    fn padded_input(&self) -> usize {
        self.input.next_multiple_of(self.lanes)
    }

    /// Output channels in whole vectors.
    pub(super) fn padded_output(&self) -> usize {
        self.output.next_multiple_of(self.lanes)
    }

    /// Output channels of a panel.
    pub(super) fn panel(&self) -> usize {
        2 * self.lanes
    }

    /// How many panels.
    pub(super) fn panels(&self) -> usize {
        self.output.div_ceil(self.panel())
    }

    /// Whether the panel has two vectors.
    #[inline(always)]
    fn is_full(&self, panel: usize) -> bool {
        self.padded_output() >= (panel + 1) * self.panel()
    }
}

/// How `N` values along an axis become six, at the points.
trait AtPoints<const N: usize> {
    /// # Safety
    /// As [`Simd`].
    unsafe fn at_points<S: Simd>(values: [S::V; N]) -> [S::V; 6];
}

/// Bᵀ d: six values of an input.
struct Input;

impl AtPoints<6> for Input {
    #[inline(always)]
    unsafe fn at_points<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: as `Simd`.
        unsafe {
            let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(5.0));
            let even = S::fnma(four, d[2], d[4]);
            let odd = S::fnma(four, d[1], d[3]);
            let even2 = S::sub(d[4], d[2]);
            let odd2 = S::sub(d[3], d[1]);
            [
                S::fma(four, d[0], S::fnma(five, d[2], d[4])),
                S::add(even, odd),
                S::sub(even, odd),
                S::fma(two, odd2, even2),
                S::fnma(two, odd2, even2),
                S::fma(four, d[1], S::fnma(five, d[3], d[5])),
            ]
        }
    }
}

/// G g: three values of a filter.
struct Filter;

impl AtPoints<3> for Filter {
    #[inline(always)]
    unsafe fn at_points<S: Simd>(g: [S::V; 3]) -> [S::V; 6] {
        // SAFETY: as `Simd`.
        unsafe {
            let ends = S::mul(S::add(g[0], g[2]), S::splat(-1.0 / 6.0));
            let middle = S::mul(g[1], S::splat(-1.0 / 6.0));
            let ends2 = S::mul(S::fma(S::splat(4.0), g[2], g[0]), S::splat(1.0 / 24.0));
            let middle2 = S::mul(g[1], S::splat(1.0 / 12.0));
            [
                S::mul(g[0], S::splat(0.25)),
                S::add(ends, middle),
                S::sub(ends, middle),
                S::add(ends2, middle2),
                S::sub(ends2, middle2),
                g[2],
            ]
        }
    }
}

/// Four values of δ, without the factors of [`SCALE`].
struct Delta;

impl AtPoints<4> for Delta {
    #[inline(always)]
    unsafe fn at_points<S: Simd>(g: [S::V; 4]) -> [S::V; 6] {
        // SAFETY: as `Simd`.
        unsafe {
            let (two, four) = (S::splat(2.0), S::splat(4.0));
            let even = S::add(g[0], g[2]);
            let odd = S::add(g[1], g[3]);
            let even2 = S::fma(four, g[2], g[0]);
            let odd2 = S::fma(four, g[3], g[1]);
            [g[0], S::add(even, odd), S::sub(even, odd), S::fma(two, odd2, even2), S::fnma(two, odd2, even2), g[3]]
        }
    }
}

/// The factors that [`Delta`] leaves out, one for each point.
const SCALE: [f32; 6] = [0.25, -1.0 / 6.0, -1.0 / 6.0, 1.0 / 24.0, 1.0 / 24.0, 1.0];

/// The point at which [`Delta`], both ways, is the plain sum.
const SUM_POINT: usize = 7;

/// Aᵀ m for four outputs.
#[inline(always)]
unsafe fn outputs4<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: as `Simd`.
    unsafe {
        let even = S::add(m[1], m[2]);
        let odd = S::sub(m[1], m[2]);
        let even2 = S::add(m[3], m[4]);
        let odd2 = S::sub(m[3], m[4]);
        [
            S::add(m[0], S::add(even, even2)),
            S::fma(S::splat(2.0), odd2, odd),
            S::fma(S::splat(4.0), even2, even),
            S::add(S::fma(S::splat(8.0), odd2, odd), m[5]),
        ]
    }
}

/// Aᵀ m for three outputs.
#[inline(always)]
unsafe fn outputs3<S: Simd>(m: [S::V; 6]) -> [S::V; 3] {
    // SAFETY: as `Simd`.
    unsafe {
        let even = S::add(m[1], m[2]);
        let odd = S::sub(m[1], m[2]);
        let even2 = S::add(m[3], m[4]);
        let odd2 = S::sub(m[3], m[4]);
        [
            S::add(m[0], S::add(even, even2)),
            S::fma(S::splat(2.0), odd2, odd),
            S::add(S::fma(S::splat(4.0), even2, even), m[5]),
        ]
    }
}

/// Where the P × P pixels of a tile are read: the address of the first, and values from row to
/// row and from pixel to pixel. Inside the picture that is the tensor itself; a tile that hangs
/// over the edge, or whose channels are not whole vectors, is copied to `patch` with zeros around.
///
/// # Safety
/// `x` is a tensor of `grid` with `channels` channels, and `patch` has room for P × P pixels of
/// whole vectors.
#[inline(always)]
unsafe fn pixels<S: Simd, const P: usize>(
    grid: &Grid,
    x: &[f32],
    channels: usize,
    tile: usize,
    halo: usize,
    patch: *mut f32,
) -> (*const f32, usize, usize) {
    let (picture, top, left) = grid.place(tile);
    let (h, w) = (grid.h, grid.w);
    let whole = channels.is_multiple_of(S::LANES);
    debug_assert_eq!(x.len(), grid.pictures * h * w * channels);
    if whole && top >= halo && left >= halo && top - halo + P <= h && left - halo + P <= w {
        let first = ((picture * h + top - halo) * w + left - halo) * channels;
        // SAFETY: the last pixel of the patch is inside the picture.
        return (unsafe { x.as_ptr().add(first) }, w * channels, channels);
    }
    let padded = channels.next_multiple_of(S::LANES);
    for i in 0..P {
        for j in 0..P {
            // Above or left of the picture wraps around to a huge number.
            let (y, x_at) = ((top + i).wrapping_sub(halo), (left + j).wrapping_sub(halo));
            // SAFETY: P × P pixels of `padded` values fit in the patch, and `y`, `x_at` are
            // checked before they are used.
            unsafe {
                let to = patch.add((i * P + j) * padded);
                let known = if y < h && x_at < w { channels } else { 0 };
                if known > 0 {
                    let from = x.as_ptr().add(((picture * h + y) * w + x_at) * channels);
                    std::ptr::copy_nonoverlapping(from, to, known);
                }
                to.add(known).write_bytes(0, padded - known);
            }
        }
    }
    (patch, P * padded, padded)
}

/// Transforms one vector of channels of `N` × `N` values, along both axes as `A` says.
///
/// # Safety
/// As [`Simd`], for the `N`² values, `row` and `pixel` from one to the next, and the 36 places.
#[inline(always)]
unsafe fn transform<S: Simd, A: AtPoints<N>, const N: usize>(
    from: *const f32,
    row: usize,
    pixel: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut half = [[S::splat(0.0); N]; 6];
        for x in 0..N {
            let mut column = [S::splat(0.0); N];
            for (y, value) in column.iter_mut().enumerate() {
                *value = S::load(from.add(y * row + x * pixel));
            }
            let column = A::at_points::<S>(column);
            for y in 0..6 {
                half[y][x] = column[y];
            }
        }
        for (y, line) in half.into_iter().enumerate() {
            for (x, value) in A::at_points::<S>(line).into_iter().enumerate() {
                S::store(to.add((y * 6 + x) * stride), value);
            }
        }
    }
}

/// The layout of the transformed filters of a convolution over `terms` terms: for each panel and
/// point a matrix of input channels (those of the second term after those of the first) by the
/// panel's output channels.
#[derive(Clone, Copy)]
pub(super) struct FilterLayout {
    pub(super) channels: Channels,
    pub(super) terms: usize,
}

impl FilterLayout {
    /// Rows of a matrix.
    #[inline(always)]
    fn depth(&self) -> usize {
        self.terms * self.channels.padded_input()
    }

    #[inline(always)]
    fn point_stride(&self) -> usize {
        self.depth() * self.channels.panel() + GAP
    }

    /// Values of a panel.
    pub(super) fn panel_len(&self) -> usize {
        POINTS * self.point_stride()
    }
}

/// Transforms the filters of one panel.
pub(super) struct TransformFilters<'a> {
    pub(super) layout: FilterLayout,
    /// The weights of each term, in the layer's order.
    pub(super) weights: &'a [&'a [f32]],
    /// Whether the convolution is the layer's transpose: the weights are input × output of
    /// `layout`, and the taps are in reverse.
    pub(super) transposed: bool,
    pub(super) panel: usize,
    /// [`FilterLayout::panel_len`] values.
    pub(super) to: &'a mut [f32],
}

impl Kernel for TransformFilters<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let FilterLayout { channels, .. } = self.layout;
        let padded = channels.padded_input();
        let stride = self.layout.point_stride();
        let first = self.panel * channels.panel();
        let vectors = if channels.is_full(self.panel) { 2 } else { 1 };
        assert_eq!(self.to.len(), self.layout.panel_len());
        for (term, weights) in self.weights.iter().enumerate() {
            assert_eq!(weights.len(), channels.input * channels.output * 9);
            for k in 0..padded {
                for v in 0..vectors {
                    let mut taps = [[0.0f32; 16]; 9];
                    if k < channels.input {
                        let start = first + v * S::LANES;
                        for lane in 0..S::LANES.min(channels.output - start) {
                            let o = start + lane;
                            let at = if self.transposed { k * channels.output + o } else { o * channels.input + k };
                            let filter = &weights[at * 9..][..9];
                            for tap in 0..9 {
                                taps[tap][lane] = filter[if self.transposed { 8 - tap } else { tap }];
                            }
                        }
                    }
                    // SAFETY: each of the `taps` holds 16 values, at least a vector; a point's matrix has
                    // depth × panel values, and row and vector are inside.
                    unsafe {
                        let to = self.to.as_mut_ptr().add(((term * padded + k) * vectors + v) * S::LANES);
                        transform::<S, Filter, 3>(taps.as_ptr().cast(), 3 * 16, 16, to, stride);
                    }
                }
            }
        }
    }
}

/// Convolves some tiles, block by block.
pub(super) struct Convolve<'a> {
    pub(super) layout: FilterLayout,
    pub(super) grid: Grid,
    /// The input of each term.
    pub(super) inputs: &'a [&'a [f32]],
    /// All panels, as [`TransformFilters`] leaves them.
    pub(super) filters: &'a [f32],
    pub(super) post: &'a Post<'a>,
    pub(super) tiles: Range<usize>,
    /// [`Convolve::scratch_len`] values.
    pub(super) scratch: &'a mut [f32],
}

/// The matrices of a block, one after the other for the 36 points. In `v` lie the transformed inputs:
/// for each vector of input channels those of `block` tiles. So the tiles of a product are a vector
/// apart, whatever the number of channels: at distances that the compiler knows, it keeps the sums of
/// twelve tiles in registers, which it does not otherwise. In `m` lie the products: for each tile a
/// panel's outputs.
#[derive(Clone, Copy)]
struct Matrices {
    block: usize,
    v: *mut f32,
    v_stride: usize,
    m: *mut f32,
    m_stride: usize,
}

impl Convolve<'_> {
    /// Tiles in a block: as many as fit in the level-2 cache with their transforms and the inputs
    /// of the next block.
    pub(super) fn block(layout: FilterLayout) -> usize {
        let fits = 42_000 / (POINTS * layout.depth());
        (fits / 6 * 6).clamp(12, 72)
    }

    /// Values of scratch memory.
    pub(super) fn scratch_len(layout: FilterLayout) -> usize {
        let FilterLayout { channels, .. } = layout;
        let width = layout.depth() + channels.panel();
        POINTS * (Self::block(layout) * width + 2 * GAP + channels.padded_input())
    }
}

impl Kernel for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let FilterLayout { channels, .. } = self.layout;
        let (block, depth) = (Self::block(self.layout), self.layout.depth());
        let padded = channels.padded_input();
        let (v_stride, m_stride) = (block * depth + GAP, block * channels.panel() + GAP);
        assert_eq!(channels.lanes, S::LANES);
        assert!(self.scratch.len() >= Self::scratch_len(self.layout));
        assert_eq!(self.filters.len(), channels.panels() * self.layout.panel_len());
        assert_eq!(self.inputs.len(), self.layout.terms);
        assert!(self.tiles.end <= self.grid.tiles());
        // SAFETY: the scratch memory holds the transformed inputs, the products and a patch, one
        // after the other, as `scratch_len` says; the filters are those of the layout.
        unsafe {
            let v = self.scratch.as_mut_ptr();
            let m = v.add(POINTS * v_stride);
            let patch = m.add(POINTS * m_stride);
            let matrices = Matrices { block, v, v_stride, m, m_stride };
            for start in self.tiles.clone().step_by(block) {
                let tiles = start..(start + block).min(self.tiles.end);
                for (i, tile) in tiles.clone().enumerate() {
                    for (term, input) in self.inputs.iter().enumerate() {
                        let (from, row, pixel) = pixels::<S, 6>(&self.grid, input, channels.input, tile, 1, patch);
                        for c in (0..padded).step_by(S::LANES) {
                            let to = v.add((term * padded + c) * block + i * S::LANES);
                            transform::<S, Input, 6>(from.add(c), row, pixel, to, v_stride);
                        }
                    }
                }
                for panel in 0..channels.panels() {
                    if channels.is_full(panel) {
                        self.panel::<S, 2>(panel, tiles.clone(), matrices);
                    } else {
                        self.panel::<S, 1>(panel, tiles.clone(), matrices);
                    }
                }
            }
        }
    }
}

impl Convolve<'_> {
    /// The products of one panel with NV vectors, and its outputs.
    ///
    /// # Safety
    /// As [`Simd`]; the matrices lie as in `run`.
    #[inline(always)]
    unsafe fn panel<S: Simd, const NV: usize>(&self, panel: usize, tiles: Range<usize>, matrices: Matrices) {
        let FilterLayout { channels, .. } = self.layout;
        let Matrices { block, v, v_stride, m, m_stride } = matrices;
        let (count, depth) = (tiles.len(), self.layout.depth());
        let mut ahead = self.ahead(panel, &tiles, POINTS * gemm::steps::<S, NV>(count));
        // SAFETY: the caller's promise; the outputs of a tile are inside the tensor, and no other
        // task writes them.
        unsafe {
            let k = Steps { runs: depth / S::LANES, length: S::LANES, stride: block * S::LANES };
            for point in 0..POINTS {
                let a = Operand { at: v.add(point * v_stride), row: S::LANES, k_step: 1 };
                let at =
                    self.filters.as_ptr().add(panel * self.layout.panel_len() + point * self.layout.point_stride());
                let b = Operand { at, row: 1, k_step: NV * S::LANES };
                let to = m.add(point * m_stride);
                gemm::product::<S, NV>(count, k, a, b, to, false, &mut || ahead.step::<S>());
            }
            for (i, tile) in tiles.enumerate() {
                let (picture, top, left) = self.grid.place(tile);
                let (height, width) = ((self.grid.h - top).min(4), (self.grid.w - left).min(4));
                let first = (picture * self.grid.h + top) * self.grid.w + left;
                for vector in 0..NV {
                    let channel = panel * channels.panel() + vector * S::LANES;
                    let from = m.add((i * NV + vector) * S::LANES);
                    let mut half = [[S::splat(0.0); 6]; 4];
                    for x in 0..6 {
                        let mut column = [S::splat(0.0); 6];
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::load(from.add((y * 6 + x) * m_stride));
                        }
                        let column = outputs4::<S>(column);
                        for y in 0..4 {
                            half[y][x] = column[y];
                        }
                    }
                    for y in 0..height {
                        let line = outputs4::<S>(half[y]);
                        let pixel = first + y * self.grid.w;
                        if width == 4 {
                            self.post.finish::<S, 4>(line, pixel, channel, channels.output);
                        } else {
                            for x in 0..width {
                                self.post.finish::<S, 1>([line[x]], pixel + x, channel, channels.output);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The memory that is needed after the products of a panel: where its outputs go, and the
    /// panel's share of the inputs of the next block.
    #[inline(always)]
    fn ahead(&self, panel: usize, tiles: &Range<usize>, calls: usize) -> Ahead<5> {
        let FilterLayout { channels, terms } = self.layout;
        let panels = channels.panels();
        let share = |part: usize| (tiles.end + tiles.len() * part / panels).min(self.tiles.end);
        let next = share(panel)..share(panel + 1);
        let first = panel * channels.panel();
        let pixels = |tensor: *const f32| {
            let tiles = if tensor.is_null() { 0..0 } else { tiles.clone() };
            let needed = first..(first + channels.panel()).min(channels.output);
            Pixels { tensor, channels: channels.output, needed, shift: 0, tiles }
        };
        let input = |term: usize| {
            let tiles = if term < terms { next.clone() } else { 0..0 };
            let tensor = self.inputs[term.min(terms - 1)].as_ptr();
            Pixels { tensor, channels: channels.input, needed: 0..channels.input, shift: 1, tiles }
        };
        let [out, gate, residual] = self.post.tensors();
        Ahead::new(self.grid, [pixels(out), pixels(gate), pixels(residual), input(0), input(1)], calls)
    }
}

/// The layout of the sums of a weight gradient: for each point and panel a matrix of input
/// channels by the panel's output channels; after the 36 points the sums of δ.
#[derive(Clone, Copy)]
pub(super) struct SumLayout(pub(super) Channels);

impl SumLayout {
    #[inline(always)]
    fn point_stride(&self) -> usize {
        self.0.input * self.0.padded_output() + GAP
    }

    #[inline(always)]
    fn panel_stride(&self) -> usize {
        self.0.input * self.0.panel()
    }

    /// Values of all points.
    pub(super) fn points_len(&self) -> usize {
        POINTS * self.point_stride()
    }

    /// All values.
    pub(super) fn len(&self) -> usize {
        self.points_len() + self.0.padded_output().next_multiple_of(16)
    }
}

/// Sums the products of a chunk of tiles for the weight gradient. Nothing is asked for ahead here: the
/// sums themselves come from the level-2 cache, and would wait for what is on its way from further off.
pub(super) struct SumTiles<'a> {
    pub(super) channels: Channels,
    pub(super) grid: Grid,
    /// (a, δ) of each term.
    pub(super) terms: &'a [(&'a [f32], &'a [f32])],
    /// The term whose δ is summed for the bias.
    pub(super) bias_of: Option<usize>,
    pub(super) tiles: Range<usize>,
    /// [`SumLayout::len`] values, to be overwritten.
    pub(super) sums: &'a mut [f32],
    /// [`SumTiles::scratch_len`] values.
    pub(super) scratch: &'a mut [f32],
}

impl SumTiles<'_> {
    /// Tiles in a block of a chunk of `tiles`. The sums pass through the level-1 cache once a
    /// block, which costs more than transforms that do not all stay in the level-2 cache.
    fn block(channels: Channels, tiles: usize) -> usize {
        tiles.div_ceil(tiles.div_ceil(Self::most(channels)).max(1))
    }

    /// Tiles in a block at most.
    fn most(channels: Channels) -> usize {
        (190_000 / (POINTS * (channels.padded_input() + channels.padded_output()))).clamp(8, 72)
    }

    /// Values of scratch memory for any chunk of up to `tiles`. A smaller chunk may be cut into
    /// larger blocks than a larger one.
    pub(super) fn scratch_len(channels: Channels, tiles: usize) -> usize {
        let width = channels.padded_input() + channels.padded_output();
        POINTS * (Self::most(channels).min(tiles) * width + 2 * GAP) + POINTS * width
    }
}

impl Kernel for SumTiles<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.channels;
        let layout = SumLayout(channels);
        let block = Self::block(channels, self.tiles.len());
        let (padded, padded_output) = (channels.padded_input(), channels.padded_output());
        let (v_stride, d_stride) = (block * padded + GAP, block * padded_output + GAP);
        assert_eq!(channels.lanes, S::LANES);
        assert!(self.scratch.len() >= Self::scratch_len(channels, self.tiles.len()));
        assert_eq!(self.sums.len(), layout.len());
        assert!(self.tiles.end <= self.grid.tiles());
        let (sums, bias) = self.sums.split_at_mut(layout.points_len());
        bias.fill(0.0);
        let mut add = false;
        // SAFETY: the scratch memory holds the transforms of `block` tiles of a and of δ and a
        // patch, one after the other; the sums lie as `SumLayout` says.
        unsafe {
            let v = self.scratch.as_mut_ptr();
            let d = v.add(POINTS * v_stride);
            let patch = d.add(POINTS * d_stride);
            for (term, (a, delta)) in self.terms.iter().enumerate() {
                for start in self.tiles.clone().step_by(block) {
                    let count = block.min(self.tiles.end - start);
                    for i in 0..count {
                        let (from, row, pixel) = pixels::<S, 6>(&self.grid, a, channels.input, start + i, 1, patch);
                        for c in (0..padded).step_by(S::LANES) {
                            transform::<S, Input, 6>(from.add(c), row, pixel, v.add(i * padded + c), v_stride);
                        }
                        let (from, row, pixel) =
                            pixels::<S, 4>(&self.grid, delta, channels.output, start + i, 0, patch);
                        for c in (0..padded_output).step_by(S::LANES) {
                            let panel = c / channels.panel();
                            let vectors = if channels.is_full(panel) { 2 } else { 1 };
                            let within = (i * vectors) * S::LANES + c % channels.panel();
                            let to = d.add(panel * channels.panel() * block + within);
                            transform::<S, Delta, 4>(from.add(c), row, pixel, to, d_stride);
                            if self.bias_of == Some(term) {
                                let sum = bias.as_mut_ptr().add(c);
                                S::store(sum, S::add(S::load(sum), S::load(to.add(SUM_POINT * d_stride))));
                            }
                        }
                    }
                    for point in 0..POINTS {
                        let k = Steps::one_run(count);
                        for panel in 0..channels.panels() {
                            let left = Operand { at: v.add(point * v_stride), row: 1, k_step: padded };
                            let at = d.add(point * d_stride + panel * channels.panel() * block);
                            let to = point * layout.point_stride() + panel * layout.panel_stride();
                            let to = sums.as_mut_ptr().add(to);
                            if channels.is_full(panel) {
                                let right = Operand { at, row: 1, k_step: 2 * S::LANES };
                                gemm::product::<S, 2>(channels.input, k, left, right, to, add, &mut || {});
                            } else {
                                let right = Operand { at, row: 1, k_step: S::LANES };
                                gemm::product::<S, 1>(channels.input, k, left, right, to, add, &mut || {});
                            }
                        }
                    }
                    add = true;
                }
            }
        }
    }
}

/// Adds up the chunks of one panel in order and transforms them to the weight gradient.
pub(super) struct FinishSums<'a> {
    pub(super) channels: Channels,
    /// [`SumLayout::len`] values for each chunk.
    pub(super) sums: &'a [f32],
    pub(super) panel: usize,
    /// The weight gradient of the panel's output channels, added to.
    pub(super) grad: &'a mut [f32],
}

impl Kernel for FinishSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.channels;
        let layout = SumLayout(channels);
        let vectors = if channels.is_full(self.panel) { 2 } else { 1 };
        let outputs = self.grad.len() / (channels.input * 9);
        assert!(self.sums.len().is_multiple_of(layout.len()) && outputs <= channels.panel());
        for i in 0..channels.input {
            for v in 0..vectors {
                let mut taps = [[0.0f32; 16]; 9];
                // SAFETY: the place is inside a chunk's sums; a tap holds at least a vector.
                unsafe {
                    let at = self.panel * layout.panel_stride() + (i * vectors + v) * S::LANES;
                    let mut half = [[S::splat(0.0); 6]; 3];
                    for x in 0..6 {
                        let mut column = [S::splat(0.0); 6];
                        for chunk in self.sums.chunks_exact(layout.len()) {
                            let from = chunk.as_ptr().add(at);
                            for (y, value) in column.iter_mut().enumerate() {
                                *value = S::add(*value, S::load(from.add((y * 6 + x) * layout.point_stride())));
                            }
                        }
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::mul(*value, S::splat(SCALE[x] * SCALE[y]));
                        }
                        let column = outputs3::<S>(column);
                        for y in 0..3 {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, line) in half.into_iter().enumerate() {
                        for (x, value) in outputs3::<S>(line).into_iter().enumerate() {
                            S::store(taps[y * 3 + x].as_mut_ptr(), value);
                        }
                    }
                }
                for lane in 0..S::LANES.min(outputs.saturating_sub(v * S::LANES)) {
                    let o = v * S::LANES + lane;
                    let filter = &mut self.grad[(o * channels.input + i) * 9..][..9];
                    for (value, tap) in filter.iter_mut().zip(&taps) {
                        *value += tap[lane];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_hold_every_tile_once() {
        for (n, h, w) in [(1, 1, 1), (2, 9, 70), (1, 30, 77), (3, 64, 64), (1, 5, 73), (1, 17, 1000)] {
            let grid = Grid::new(Shape::new(n, h, w, 8));
            let mut places: Vec<_> = (0..grid.tiles()).map(|tile| grid.place(tile)).collect();
            places.sort_unstable();
            let rows = |picture| (0..h).step_by(4).map(move |y| (picture, y));
            let all = (0..n).flat_map(rows).flat_map(|(p, y)| (0..w).step_by(4).map(move |x| (p, y, x)));
            assert!(places.into_iter().eq(all), "{n} x {h} x {w}");
        }
    }
}
