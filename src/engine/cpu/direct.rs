//! The first and the last layer, directly: three channels on one side ("thin"), many on the other
//! ("wide"). Every pixel's sum runs over rows, columns and channels in the same order, and what
//! lies beyond the picture is multiplied as zeros, so that the same pixels give the same bits.

use super::super::{Gate, Shape};
use super::CpuTensor;
use super::simd::{Kernel, ROWS, Simd};
use super::winograd::{SendPointer, gated};

/// Channels of a thin picture.
pub(super) const THIN: usize = 3;

/// A thin picture's rows with a pixel of zeros on the left and some on the right, for
/// [`Widen`]'s reading in groups of [`ROWS`] pixels.
pub(super) fn padded_width(width: usize) -> usize {
    width.div_ceil(ROWS) * ROWS + 2
}

/// Copies row `y` (from −1 to h) of picture n into `line`, with zeros around and beyond.
fn pad_row(thin: &CpuTensor, n: usize, y: usize, line: &mut [f32]) {
    let Shape { h, w, .. } = thin.shape;
    line.fill(0.0);
    if (1..=h).contains(&y) {
        let at = (n * h + y - 1) * w * THIN;
        line[THIN..THIN + w * THIN].copy_from_slice(&thin.data[at..at + w * THIN]);
    }
}

/// One output row of a convolution from thin to wide.
pub(super) struct Widen<'a> {
    pub thin: &'a [&'a CpuTensor],
    /// [panel][term][ky][kx][thin][PANEL]
    pub filters: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub gate: &'a Gate<'a, CpuTensor>,
    pub residual: Option<&'a CpuTensor>,
    pub output: SendPointer,
    pub wide: usize,
    /// Picture · h + row.
    pub line: usize,
    /// Three padded rows a term, and a group's sums.
    pub scratch: &'a mut [f32],
}

/// Values of [`Widen`]'s scratch.
pub(super) fn widen_scratch(width: usize, terms: usize) -> usize {
    terms * 3 * padded_width(width) * THIN + ROWS * 64
}

impl Kernel for Widen<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Shape { h, w, .. } = self.thin[0].shape;
        let (n, y) = (self.line / h, self.line % h);
        let row = padded_width(w) * THIN;
        assert!(self.scratch.len() >= widen_scratch(w, self.thin.len()) && S::PANEL <= 64);
        let (lines, sums) = self.scratch.split_at_mut(self.thin.len() * 3 * row);
        for (term, thin) in self.thin.iter().enumerate() {
            for ky in 0..3 {
                pad_row(thin, n, y + ky, &mut lines[(term * 3 + ky) * row..][..row]);
            }
        }
        let depth = 3 * THIN;
        // SAFETY: a group of 6 pixels reads 8 padded pixels, which the padded row holds; only this
        // call writes the output row, and only its w pixels.
        unsafe {
            let sums = sums.as_mut_ptr();
            for panel in 0..self.wide / S::PANEL {
                for x in (0..w).step_by(ROWS) {
                    for pass in 0..self.thin.len() * 3 {
                        let a = lines.as_ptr().add(pass * row + x * THIN);
                        let b = self.filters.as_ptr().add((panel * self.thin.len() * 3 + pass) * depth * S::PANEL);
                        if pass == 0 {
                            S::product::<false>(a, THIN, 1, depth, b, S::PANEL, sums, S::PANEL);
                        } else {
                            S::product::<true>(a, THIN, 1, depth, b, S::PANEL, sums, S::PANEL);
                        }
                    }
                    for r in 0..ROWS.min(w - x) {
                        let mut c = 0;
                        while c < S::PANEL {
                            let channel = panel * S::PANEL + c;
                            let at = (self.line * w + x + r) * self.wide + channel;
                            let mut value = S::load(sums.add(r * S::PANEL + c));
                            if let Some(bias) = self.bias {
                                value = S::add(value, S::load(bias.as_ptr().add(channel)));
                            }
                            value = gated::<S>(value, self.gate, at);
                            if let Some(residual) = self.residual {
                                value = S::add(value, S::load(residual.data.as_ptr().add(at)));
                            }
                            S::store(self.output.0.add(at), value);
                            c += S::LANES;
                        }
                    }
                }
            }
        }
    }
}

/// One output row of a convolution from wide to thin.
pub(super) struct Narrow<'a> {
    pub wide: &'a [&'a CpuTensor],
    /// [term][ky][kx][thin][wide]
    pub filters: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub gate: &'a Gate<'a, CpuTensor>,
    pub residual: Option<&'a CpuTensor>,
    pub output: SendPointer,
    pub line: usize,
    pub zeros: &'a [f32],
}

/// Pixels of a row that [`Narrow`] computes together.
const TOGETHER: usize = 4;

impl Kernel for Narrow<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Shape { h, w, c: channels, .. } = self.wide[0].shape;
        let (n, y) = (self.line / h, self.line % h);
        assert!(self.zeros.len() >= channels);
        let zeros = self.zeros.as_ptr();
        // SAFETY: pixels beyond the picture read zeros; filters hold 9 · 3 · channels values a
        // term; only this call writes the output row.
        unsafe {
            for x in (0..w).step_by(TOGETHER) {
                let mut sums = [[S::splat(0.0); THIN]; TOGETHER];
                for (term, wide) in self.wide.iter().enumerate() {
                    for ky in 0..3 {
                        // Pixels x − 1 … x + TOGETHER of this row.
                        let mut pixels = [zeros; TOGETHER + 2];
                        if (1..=h).contains(&(y + ky)) {
                            let row = wide.data.as_ptr().add((n * h + y + ky - 1) * w * channels);
                            for (i, pixel) in pixels.iter_mut().enumerate() {
                                if (1..=w).contains(&(x + i)) {
                                    *pixel = row.add((x + i - 1) * channels);
                                }
                            }
                        }
                        for kx in 0..3 {
                            let filter = self.filters.as_ptr().add(((term * 3 + ky) * 3 + kx) * THIN * channels);
                            let mut c = 0;
                            while c < channels {
                                let mut weights = [S::splat(0.0); THIN];
                                for o in 0..THIN {
                                    weights[o] = S::load(filter.add(o * channels + c));
                                }
                                for i in 0..TOGETHER {
                                    let value = S::load(pixels[i + kx].add(c));
                                    for o in 0..THIN {
                                        sums[i][o] = S::fma(value, weights[o], sums[i][o]);
                                    }
                                }
                                c += S::LANES;
                            }
                        }
                    }
                }
                for i in 0..TOGETHER.min(w - x) {
                    for o in 0..THIN {
                        let at = (self.line * w + x + i) * THIN + o;
                        let mut value = S::sum(sums[i][o]) + self.bias.map_or(0.0, |bias| bias[o]);
                        value = match self.gate {
                            Gate::Linear => value,
                            Gate::Relu => value.max(0.0),
                            Gate::Where(mask) => {
                                if mask.data[at] > 0.0 {
                                    value
                                } else {
                                    0.0
                                }
                            }
                        };
                        if let Some(residual) = self.residual {
                            value += residual.data[at];
                        }
                        *self.output.0.add(at) = value;
                    }
                }
            }
        }
    }
}

/// sums[ky][kx · 3 + t][wide] += Σ over the pixels (y, x) of rows `first .. last` of
/// thin(y + ky − 1, x + kx − 1, t) · wide(y, x, ·): nine rows and the wide channels each.
pub(super) struct Cross<'a> {
    pub thin: &'a CpuTensor,
    pub wide: &'a CpuTensor,
    pub first: usize,
    pub last: usize,
    pub sums: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

/// Rows of sums for one ky: 9, up to a multiple of [`ROWS`].
const CROSS_ROWS: usize = 12;

/// Values of [`Cross`]'s sums.
pub(super) fn cross_sums(wide: usize) -> usize {
    3 * CROSS_ROWS * wide
}

/// Values of [`Cross`]'s scratch: a padded row, and what padded rows of sums read beyond it.
pub(super) fn cross_scratch(width: usize) -> usize {
    padded_width(width) * THIN + CROSS_ROWS
}

/// Where in the sums tap (ky, kx) of thin channel t lies, without the wide channel.
pub(super) fn cross_at(ky: usize, kx: usize, t: usize, wide: usize) -> usize {
    (ky * CROSS_ROWS + kx * THIN + t) * wide
}

impl Kernel for Cross<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Shape { h, w, c: wide, .. } = self.wide.shape;
        assert!(self.sums.len() >= cross_sums(wide) && self.scratch.len() >= cross_scratch(w));
        self.scratch.fill(0.0);
        for line in self.first..self.last {
            let (n, y) = (line / h, line % h);
            for ky in 0..3 {
                pad_row(self.thin, n, y + ky, &mut self.scratch[..padded_width(w) * THIN]);
                for i in (0..CROSS_ROWS).step_by(ROWS) {
                    for o in (0..wide).step_by(S::PANEL) {
                        // SAFETY: row r of the sums reads the padded row from value i + r on, three
                        // values a pixel: w pixels and CROSS_ROWS values, which the scratch holds.
                        unsafe {
                            let a = self.scratch.as_ptr().add(i);
                            let b = self.wide.data.as_ptr().add(line * w * wide + o);
                            let c = self.sums.as_mut_ptr().add((ky * CROSS_ROWS + i) * wide + o);
                            S::product::<true>(a, 1, THIN, w, b, wide, c, wide);
                        }
                    }
                }
            }
        }
    }
}
