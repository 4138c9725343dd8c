//! 3 × 3 convolution by Winograd's F(4×4, 3×3) (Lavin and Gray, 2016): an output block of 4 × 4
//! pixels is Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A of the 6 × 6 pixels d that it sees. Summed over channels, the
//! products at each of the 36 places are one matrix product: 36 multiplications do the work of 144.
//!
//! Blocks lie on multiples of 4 from the top left, and a block's arithmetic is the same wherever
//! it lies, so that the same pixels give the same bits in any tile.

use super::super::{Gate, Layer, Shape};
use super::CpuTensor;
use super::simd::{Kernel, ROWS, Simd};

/// Blocks that are transformed and multiplied at a time; a multiple of [`ROWS`]. 24 blocks of 64
/// channels take 221 kB at 36 places: half of a usual second-level cache.
pub(super) const BLOCKS: usize = 24;
/// Places of a transformed block.
pub(super) const PLACES: usize = 36;
/// Values between the places of a transformed group of blocks, beyond the values themselves: keeps
/// the 36 places out of each other's cache sets.
const GAP: usize = 16;

/// Values between two places of `BLOCKS` blocks with `channels` values each.
pub(super) fn place_stride(channels: usize) -> usize {
    BLOCKS * channels + GAP
}

/// How a picture is divided into blocks.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub shape: Shape,
    rows: usize,
    columns: usize,
}

impl Grid {
    pub fn new(shape: Shape) -> Self {
        Grid { shape, rows: shape.h.div_ceil(4), columns: shape.w.div_ceil(4) }
    }

    /// Blocks in all.
    pub fn len(&self) -> usize {
        self.shape.n * self.rows * self.columns
    }

    /// Picture, first row and first column of block i.
    #[inline(always)]
    pub fn at(&self, i: usize) -> (usize, usize, usize) {
        (i / (self.rows * self.columns), 4 * (i / self.columns % self.rows), 4 * (i % self.columns))
    }
}

/// Bᵀ d along one axis; points 0, ±1, ±2, ∞.
#[inline(always)]
unsafe fn input_1d<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: registers only.
    unsafe {
        let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(5.0));
        let even = S::fnma(four, d[2], d[4]);
        let odd = S::fnma(four, d[1], d[3]);
        let (far, near) = (S::sub(d[4], d[2]), S::sub(d[3], d[1]));
        [
            S::fma(four, d[0], S::fnma(five, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            S::fma(two, near, far),
            S::fnma(two, near, far),
            S::fma(four, d[1], S::fnma(five, d[3], d[5])),
        ]
    }
}

/// Aᵀ m along one axis.
#[inline(always)]
unsafe fn output_1d<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: registers only.
    unsafe {
        let (plus, minus) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (plus2, minus2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], plus), plus2),
            S::fma(S::splat(2.0), minus2, minus),
            S::fma(S::splat(4.0), plus2, plus),
            S::add(S::fma(S::splat(8.0), minus2, minus), m[5]),
        ]
    }
}

/// Transforms one block's 6 × 6 pixels, `LANES` channels at a time: V[place][block][channel].
///
/// # Safety
/// `source(row, column)` must give pointers valid for `channels` values; `to` must be valid at
/// `place · stride + channel`.
#[inline(always)]
unsafe fn transform_input<S: Simd>(
    source: impl Fn(usize, usize) -> *const f32,
    channels: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut c = 0;
        while c < channels {
            let mut half = [[S::splat(0.0); 6]; 6];
            for x in 0..6 {
                let column = input_1d::<S>([
                    S::load(source(0, x).add(c)),
                    S::load(source(1, x).add(c)),
                    S::load(source(2, x).add(c)),
                    S::load(source(3, x).add(c)),
                    S::load(source(4, x).add(c)),
                    S::load(source(5, x).add(c)),
                ]);
                for y in 0..6 {
                    half[y][x] = column[y];
                }
            }
            for y in 0..6 {
                let row = input_1d::<S>(half[y]);
                for x in 0..6 {
                    S::store(to.add((y * 6 + x) * stride + c), row[x]);
                }
            }
            c += S::LANES;
        }
    }
}

/// Transforms the inputs of blocks `first .. first + count` of a picture into V.
///
/// # Safety
/// `data` holds the grid's picture, `zeros` at least `channels` zeros, and `to` is valid at
/// `place · stride + block · step + channel`.
#[inline(always)]
pub(super) unsafe fn transform_blocks<S: Simd>(
    grid: &Grid,
    data: *const f32,
    zeros: *const f32,
    first: usize,
    count: usize,
    to: *mut f32,
    step: usize,
    stride: usize,
) {
    let Shape { h, w, c: channels, .. } = grid.shape;
    for t in 0..count {
        let (n, y, x) = grid.at(first + t);
        // SAFETY: inside pixels are inside the picture, the others read zeros.
        unsafe {
            let to = to.add(t * step);
            if y >= 1 && x >= 1 && y + 5 <= h && x + 5 <= w {
                let corner = data.add(((n * h + y - 1) * w + x - 1) * channels);
                transform_input::<S>(|i, j| corner.add((i * w + j) * channels), channels, to, stride);
            } else {
                let picture = data.add(n * h * w * channels);
                let source = |i: usize, j: usize| {
                    let (i, j) = (y + i, x + j);
                    if (1..=h).contains(&i) && (1..=w).contains(&j) {
                        picture.add(((i - 1) * w + j - 1) * channels)
                    } else {
                        zeros
                    }
                };
                transform_input::<S>(source, channels, to, stride);
            }
        }
    }
}

/// G along one axis of a 3-tap filter.
fn filter_1d(g: [f32; 3]) -> [f32; 6] {
    let (sum, far) = ((g[0] + g[2]) / 6.0, g[0] / 24.0 + g[2] / 6.0);
    [g[0] / 4.0, -sum - g[1] / 6.0, -sum + g[1] / 6.0, far + g[1] / 12.0, far - g[1] / 12.0, g[2]]
}

/// The filters of one or two terms, transformed: U[panel][place][term, input channel][PANEL].
/// `transposed`: those of the layer's adjoint (channels exchanged, taps turned by 180°).
pub(super) fn transform_filters(
    layer: Layer,
    params: &[&[f32]],
    transposed: bool,
    panel: usize,
    u: &mut [f32],
    run: &dyn Fn(usize, &(dyn Fn(usize) + Sync)),
) {
    let (from, to) = if transposed { (layer.output, layer.input) } else { (layer.input, layer.output) };
    let depth = from * params.len();
    let places = SendPointer(u.as_mut_ptr());
    assert_eq!(u.len(), to * PLACES * depth);
    // One task a panel of output channels.
    run(to / panel, &|p| {
        let places = &places;
        for (term, params) in params.iter().enumerate() {
            let weight = &params[layer.weight_range()];
            for i in 0..from {
                for lane in 0..panel {
                    let o = p * panel + lane;
                    let tap = |k: usize| {
                        if transposed {
                            weight[(i * layer.input + o) * 9 + 8 - k]
                        } else {
                            weight[(o * layer.input + i) * 9 + k]
                        }
                    };
                    let mut half = [[0.0f32; 3]; 6];
                    for x in 0..3 {
                        let column = filter_1d([tap(x), tap(3 + x), tap(6 + x)]);
                        for y in 0..6 {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, row) in half.iter().enumerate() {
                        for (x, value) in filter_1d(*row).into_iter().enumerate() {
                            let at = ((p * PLACES + y * 6 + x) * depth + term * from + i) * panel + lane;
                            // SAFETY: `at` is below the asserted length, and only this task writes
                            // panel p.
                            unsafe { *places.0.add(at) = value };
                        }
                    }
                }
            }
        }
    });
}

/// A pointer that tasks share which write disjoint places.
#[derive(Clone, Copy)]
pub(super) struct SendPointer(pub *mut f32);
// SAFETY: whoever shares one sees to it that no place is written by two tasks.
unsafe impl Send for SendPointer {}
// SAFETY: as above.
unsafe impl Sync for SendPointer {}

/// What a worker needs for [`Forward`]: V and one panel of M.
pub(super) fn scratch_length(depth: usize, panel: usize) -> usize {
    PLACES * (place_stride(depth) + place_stride(panel))
}

/// One group of blocks through input transform, products, output transform.
pub(super) struct Forward<'a> {
    pub grid: Grid,
    /// Input pictures, all of the grid's shape.
    pub inputs: &'a [&'a CpuTensor],
    pub filters: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub gate: &'a Gate<'a, CpuTensor>,
    pub residual: Option<&'a CpuTensor>,
    pub output: SendPointer,
    /// Output channels, a multiple of the level's panel.
    pub to: usize,
    /// First block, and how many (at most [`BLOCKS`]).
    pub first: usize,
    pub count: usize,
    pub scratch: &'a mut [f32],
    pub zeros: &'a [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let from = self.grid.shape.c;
        let depth = from * self.inputs.len();
        let (v_stride, m_stride) = (place_stride(depth), place_stride(S::PANEL));
        assert!(self.scratch.len() >= scratch_length(depth, S::PANEL) && self.zeros.len() >= from);
        // SAFETY: the scratch holds 36 places of V and of M at their strides (asserted); the
        // inputs hold the grid's picture; the engine gives each group of blocks to one worker, so
        // that output pixels are written once. Rows beyond `count` are computed from whatever the
        // scratch holds and never stored.
        unsafe {
            let v = self.scratch.as_mut_ptr();
            let m = v.add(PLACES * v_stride);
            for (term, input) in self.inputs.iter().enumerate() {
                let to = v.add(term * from);
                transform_blocks::<S>(
                    &self.grid,
                    input.data.as_ptr(),
                    self.zeros.as_ptr(),
                    self.first,
                    self.count,
                    to,
                    depth,
                    v_stride,
                );
            }
            for panel in 0..self.to / S::PANEL {
                let filters = self.filters.as_ptr().add(panel * PLACES * depth * S::PANEL);
                for place in 0..PLACES {
                    let u = filters.add(place * depth * S::PANEL);
                    let mut t = 0;
                    while t < self.count {
                        let a = v.add(place * v_stride + t * depth);
                        let c = m.add(place * m_stride + t * S::PANEL);
                        S::product::<false>(a, depth, 1, depth, u, S::PANEL, c, S::PANEL);
                        t += ROWS;
                    }
                }
                for t in 0..self.count {
                    self.finish::<S>(m.add(t * S::PANEL), m_stride, self.first + t, panel * S::PANEL);
                }
            }
        }
    }
}

impl Forward<'_> {
    /// Output transform, bias, gate and residual of one block and panel.
    ///
    /// # Safety
    /// `m` holds the panel's sums at all places; only this call writes the block's pixels.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, m: *const f32, stride: usize, block: usize, channel: usize) {
        let Shape { h, w, .. } = self.grid.shape;
        let (n, y, x) = self.grid.at(block);
        let (rows, columns) = (4.min(h - y), 4.min(w - x));
        // SAFETY: the caller's contract; rows and columns end with the picture.
        unsafe {
            let mut c = 0;
            while c < S::PANEL {
                let bias = match self.bias {
                    Some(bias) => S::load(bias.as_ptr().add(channel + c)),
                    None => S::splat(0.0),
                };
                let mut half = [[S::splat(0.0); 6]; 4];
                for j in 0..6 {
                    let column = output_1d::<S>([
                        S::load(m.add(j * stride + c)),
                        S::load(m.add((6 + j) * stride + c)),
                        S::load(m.add((12 + j) * stride + c)),
                        S::load(m.add((18 + j) * stride + c)),
                        S::load(m.add((24 + j) * stride + c)),
                        S::load(m.add((30 + j) * stride + c)),
                    ]);
                    for i in 0..4 {
                        half[i][j] = column[i];
                    }
                }
                for i in 0..rows {
                    let row = output_1d::<S>(half[i]);
                    for j in 0..columns {
                        let at = ((n * h + y + i) * w + x + j) * self.to + channel + c;
                        let value = gated::<S>(S::add(row[j], bias), self.gate, at);
                        let value = match self.residual {
                            Some(residual) => S::add(value, S::load(residual.data.as_ptr().add(at))),
                            None => value,
                        };
                        S::store(self.output.0.add(at), value);
                    }
                }
                c += S::LANES;
            }
        }
    }
}

/// The gate on the values that lie at `at` in the output.
///
/// # Safety
/// A mask has the output's shape, and `at` is valid there.
#[inline(always)]
pub(super) unsafe fn gated<S: Simd>(value: S::V, gate: &Gate<'_, CpuTensor>, at: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        match gate {
            Gate::Linear => value,
            Gate::Relu => S::max(value, S::splat(0.0)),
            Gate::Where(mask) => S::keep_positive(S::load(mask.data.as_ptr().add(at)), value),
        }
    }
}
