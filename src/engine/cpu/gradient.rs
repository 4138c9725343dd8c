//! The weight gradient by Winograd's F(3×3, 4×4): the 3 × 3 correlations of 6 × 6 inputs with 4 × 4
//! blocks of δ, in the same 36 places as the convolution. Summed over blocks, each place is a
//! matrix product of the transformed inputs with the transformed δ.

use super::super::{Layer, Shape};
use super::CpuTensor;
use super::simd::{Kernel, ROWS, Simd};
use super::winograd::{BLOCKS, Grid, PLACES, place_stride, transform_blocks};

/// G of a 4-tap filter along one axis; points 0, ±1, ±2, ∞.
#[inline(always)]
unsafe fn delta_1d<S: Simd>(g: [S::V; 4]) -> [S::V; 6] {
    // SAFETY: registers only.
    unsafe {
        let (sixth, third) = (S::splat(-1.0 / 6.0), S::splat(1.0 / 3.0));
        let (even, odd) = (S::add(g[0], g[2]), S::add(g[1], g[3]));
        // 1/24 [1 ±2 4 ±8]
        let far = S::mul(S::fma(S::splat(4.0), g[2], g[0]), S::splat(1.0 / 24.0));
        let farther = S::fma(third, g[3], S::mul(S::splat(1.0 / 12.0), g[1]));
        [
            S::mul(S::splat(0.25), g[0]),
            S::mul(sixth, S::add(even, odd)),
            S::mul(sixth, S::sub(even, odd)),
            S::add(far, farther),
            S::sub(far, farther),
            g[3],
        ]
    }
}

/// Aᵀ of three outputs along one axis.
fn weight_1d(m: [f32; 6]) -> [f32; 3] {
    [
        m[0] + (m[1] + m[2]) + (m[3] + m[4]),
        (m[1] - m[2]) + 2.0 * (m[3] - m[4]),
        (m[1] + m[2]) + 4.0 * (m[3] + m[4]) + m[5],
    ]
}

/// Rows of the sums: input channels, up to a multiple of [`ROWS`].
fn padded(input: usize) -> usize {
    input.div_ceil(ROWS) * ROWS
}

/// Values of a worker's sums: 36 places of (padded) input × output channels.
pub(super) fn sums_length(layer: Layer) -> usize {
    PLACES * padded(layer.input) * layer.output
}

/// Values of a worker's transformed blocks. The last place's rows are read a little beyond their
/// end, where padded input channels would be.
pub(super) fn scratch_length(layer: Layer) -> usize {
    PLACES * (place_stride(layer.input) + place_stride(layer.output)) + ROWS
}

/// Sums the products of blocks `first .. last` of one term.
pub(super) struct Accumulate<'a> {
    pub layer: Layer,
    pub a: &'a CpuTensor,
    pub delta: &'a CpuTensor,
    pub first: usize,
    pub last: usize,
    pub sums: &'a mut [f32],
    pub scratch: &'a mut [f32],
    pub zeros: &'a [f32],
}

impl Kernel for Accumulate<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (input, output) = (self.layer.input, self.layer.output);
        let (v_stride, d_stride) = (place_stride(input), place_stride(output));
        let rows = padded(input);
        assert!(self.sums.len() >= sums_length(self.layer) && self.scratch.len() >= scratch_length(self.layer));
        assert!(self.zeros.len() >= input && output % S::PANEL == 0);
        let grid = Grid::new(self.a.shape);
        let mut first = self.first;
        // SAFETY: the scratch holds 36 places of both transforms (asserted), and the few values
        // beyond a row's input channels that padded rows read; the pictures have the grid's size.
        unsafe {
            let d = self.scratch.as_mut_ptr();
            let v = d.add(PLACES * d_stride);
            let sums = self.sums.as_mut_ptr();
            while first < self.last {
                let count = BLOCKS.min(self.last - first);
                let (data, zeros) = (self.a.data.as_ptr(), self.zeros.as_ptr());
                transform_blocks::<S>(&grid, data, zeros, first, count, v, input, v_stride);
                for t in 0..count {
                    self.transform_delta::<S>(&grid, first + t, d.add(t * output), d_stride);
                }
                for place in 0..PLACES {
                    for i in (0..rows).step_by(ROWS) {
                        let a = v.add(place * v_stride + i);
                        for o in (0..output).step_by(S::PANEL) {
                            let c = sums.add((place * rows + i) * output + o);
                            let b = d.add(place * d_stride + o);
                            S::product::<true>(a, 1, input, count, b, output, c, output);
                        }
                    }
                }
                first += count;
            }
        }
    }
}

impl Accumulate<'_> {
    /// D[place][block][channel] of one block of δ; pixels beyond the picture are zero.
    ///
    /// # Safety
    /// `to` is valid at `place · stride + channel`.
    #[inline(always)]
    unsafe fn transform_delta<S: Simd>(&self, grid: &Grid, block: usize, to: *mut f32, stride: usize) {
        let channels = self.layer.output;
        let Shape { h, w, .. } = grid.shape;
        let (n, y, x) = grid.at(block);
        let picture = self.delta.data.as_ptr();
        // SAFETY: pixels are read only inside the picture; the caller's contract for `to`.
        unsafe {
            let mut c = 0;
            while c < channels {
                let mut half = [[S::splat(0.0); 4]; 6];
                for j in 0..4 {
                    let mut column = [S::splat(0.0); 4];
                    for i in 0..4 {
                        if y + i < h && x + j < w {
                            column[i] = S::load(picture.add(((n * h + y + i) * w + x + j) * channels + c));
                        }
                    }
                    let column = delta_1d::<S>(column);
                    for i in 0..6 {
                        half[i][j] = column[i];
                    }
                }
                for i in 0..6 {
                    let row = delta_1d::<S>(half[i]);
                    for j in 0..6 {
                        S::store(to.add((i * 6 + j) * stride + c), row[j]);
                    }
                }
                c += S::LANES;
            }
        }
    }
}

/// Adds the weight gradient that the sums hold to `grad` (the layer's OIHW weight), for input
/// channels `inputs`.
pub(super) fn finish(layer: Layer, sums: &[f32], i: usize, mut add: impl FnMut(usize, f32)) {
    let rows = padded(layer.input);
    for o in 0..layer.output {
        let mut half = [[0.0f32; 6]; 3];
        for x in 0..6 {
            let column = weight_1d(std::array::from_fn(|y| sums[((y * 6 + x) * rows + i) * layer.output + o]));
            for y in 0..3 {
                half[y][x] = column[y];
            }
        }
        for (y, row) in half.iter().enumerate() {
            for (x, value) in weight_1d(*row).into_iter().enumerate() {
                add((o * layer.input + i) * 9 + y * 3 + x, value);
            }
        }
    }
}
