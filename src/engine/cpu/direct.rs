//! 3 × 3 convolution by the direct sum, for layers with few channels on one side.
//!
//! The rows around an output row are copied with a zero at either end (and rows of zeros above
//! and below the picture), so that the nine taps of a pixel are three runs of 3 · channels
//! values, and every pixel takes the same sums in the same order wherever it lies.

use super::gemm::{self, Operand, Steps};
use super::post::Post;
use super::simd::{Kernel, Simd};
use super::winograd::Channels;
use crate::engine::Shape;
use std::ops::Range;

/// Copies row `y` of picture `n` with a zero pixel at either end; zeros for a row outside.
fn pad_row(x: &[f32], shape: Shape, n: usize, y: Option<usize>, to: &mut [f32]) {
    let Shape { h, w, c, .. } = shape;
    let Some(y) = y.filter(|&y| y < h) else { return to.fill(0.0) };
    to[..c].fill(0.0);
    to[c..(w + 1) * c].copy_from_slice(&x[(n * h + y) * w * c..][..w * c]);
    to[(w + 1) * c..].fill(0.0);
}

/// The weights of one panel as [`Convolve`] reads them: for each term, tap and input channel the
/// panel's output channels.
pub(super) fn pack_filters(channels: Channels, weights: &[&[f32]], transposed: bool) -> Vec<f32> {
    let Channels { input, output, .. } = channels;
    let depth = weights.len() * 9 * input;
    let mut packed = vec![0.0; depth * channels.padded_output()];
    for o in 0..output {
        let panel = o / channels.panel();
        let first = panel * channels.panel();
        let width = channels.panel().min(channels.padded_output() - first);
        for (term, weights) in weights.iter().enumerate() {
            for k in 0..input {
                let at = if transposed { k * output + o } else { o * input + k };
                for tap in 0..9 {
                    let row = (term * 9 + tap) * input + k;
                    let value = weights[at * 9 + if transposed { 8 - tap } else { tap }];
                    packed[first * depth + row * width + o - first] = value;
                }
            }
        }
    }
    packed
}

/// Convolves some rows of one picture.
pub(super) struct Convolve<'a> {
    pub(super) channels: Channels,
    /// The shape of the inputs.
    pub(super) shape: Shape,
    pub(super) inputs: &'a [&'a [f32]],
    /// As [`pack_filters`] leaves them.
    pub(super) filters: &'a [f32],
    pub(super) post: &'a Post<'a>,
    pub(super) picture: usize,
    pub(super) rows: Range<usize>,
    /// [`Convolve::scratch_len`] values.
    pub(super) scratch: &'a mut [f32],
}

impl Convolve<'_> {
    /// Values of scratch memory for `rows` rows of `terms` inputs.
    pub(super) fn scratch_len(shape: Shape, terms: usize, rows: usize) -> usize {
        terms * (rows + 2) * (shape.w + 2) * shape.c
    }
}

impl Kernel for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.shape.c {
                3 => self.rows::<S, 3>(),
                _ => self.rows::<S, 0>(),
            }
        }
    }
}

impl Convolve<'_> {
    /// For inputs of C channels, or of any number for 0. With a number that the compiler knows, the
    /// pixels of a step are at fixed distances, and their sums stay in the registers.
    ///
    /// # Safety
    /// As [`Simd`] and [`Post::finish`].
    #[inline(always)]
    unsafe fn rows<S: Simd, const C: usize>(self) {
        let Convolve { channels, shape, inputs, filters, post, picture, rows, scratch } = self;
        let c = if C > 0 { C } else { shape.c };
        let stride = (shape.w + 2) * c;
        let padded_rows = rows.len() + 2;
        let depth = inputs.len() * 9 * c;
        assert!(rows.end <= shape.h && picture < shape.n && channels.lanes == S::LANES && c == shape.c);
        assert_eq!(filters.len(), depth * channels.padded_output());
        for (input, padded) in inputs.iter().zip(scratch.chunks_exact_mut(padded_rows * stride)) {
            for (i, to) in padded.chunks_exact_mut(stride).enumerate() {
                pad_row(input, shape, picture, (rows.start + i).checked_sub(1), to);
            }
        }
        let rest = |x: usize| shape.w - x;
        for y in 0..rows.len() {
            let first = (picture * shape.h + rows.start + y) * shape.w;
            let mut x = 0;
            while x < shape.w {
                macro_rules! step {
                    ($rows:literal) => {{
                        for start in (0..channels.padded_output()).step_by(channels.panel()) {
                            // SAFETY: the pixels x .. x + rows are in the row, which no other task
                            // writes; the padded rows have two pixels more.
                            unsafe {
                                let from = scratch.as_ptr().add(y * stride + x * c);
                                let filters = filters.as_ptr().add(start * depth);
                                let place = Place { pixel: first + x, channel: start, channels: channels.output };
                                let input = Input { from, c, stride, term: padded_rows * stride };
                                if channels.padded_output() - start >= channels.panel() {
                                    pixels::<S, $rows, 2>(inputs.len(), input, filters, post, place);
                                } else {
                                    pixels::<S, $rows, 1>(inputs.len(), input, filters, post, place);
                                }
                            }
                        }
                        x += $rows;
                    }};
                }
                match rest(x) {
                    12.. if S::MANY => step!(12),
                    6.. => step!(6),
                    3..=5 => step!(3),
                    _ => step!(1),
                }
            }
        }
    }
}

/// Padded rows of the inputs: the first value of the first row that is read, channels, and values
/// from row to row and from term to term.
#[derive(Clone, Copy)]
struct Input {
    from: *const f32,
    c: usize,
    stride: usize,
    term: usize,
}

/// Where the results go: from which pixel and channel on, in a tensor of how many channels.
#[derive(Clone, Copy)]
struct Place {
    pixel: usize,
    channel: usize,
    channels: usize,
}

/// R pixels in a row, NV vectors of channels each.
///
/// # Safety
/// As [`Simd`], for three rows of R + 2 pixels of each term, and [`Post::finish`].
#[inline(always)]
unsafe fn pixels<S: Simd, const R: usize, const NV: usize>(
    terms: usize,
    input: Input,
    filters: *const f32,
    post: &Post<'_>,
    place: Place,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; R];
        let run = 3 * input.c;
        let k_step = NV * S::LANES;
        for i in 0..terms * 3 {
            let (term, y) = (i / 3, i % 3);
            let a = Operand { at: input.from.add(term * input.term + y * input.stride), row: input.c, k_step: 1 };
            let b = Operand { at: filters.add(i * run * k_step), row: 1, k_step };
            gemm::accumulate::<S, R, NV>(&mut sums, Steps::one_run(run), a, b);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                post.finish::<S, 1>([sum], place.pixel + r, place.channel + v * S::LANES, place.channels);
            }
        }
    }
}

/// Sums the weight gradient over some rows: for each tap and channel of `few` (the side with
/// fewer channels, which is shifted) and each channel of `many` the sum of their products.
pub(super) struct SumRows<'a> {
    /// The shape of `few`, and of `many` but for its channels.
    pub(super) shape: Shape,
    /// (few, many) of each term.
    pub(super) terms: &'a [(&'a [f32], &'a [f32])],
    /// Channels of `many`.
    pub(super) many: Channels,
    /// Rows, counted through all pictures.
    pub(super) rows: Range<usize>,
    /// [`SumRows::sums_len`] values, to be overwritten: panels of `many` of 9 · few rows.
    pub(super) sums: &'a mut [f32],
    /// [`SumRows::scratch_len`] values.
    pub(super) scratch: &'a mut [f32],
}

/// Pixels of a row that are summed at a time; they stay in the level-1 cache.
const RUN: usize = 64;

impl SumRows<'_> {
    /// Values of the sums.
    pub(super) fn sums_len(few: usize, many: Channels) -> usize {
        9 * few * many.padded_output()
    }

    /// Values of scratch memory.
    pub(super) fn scratch_len(shape: Shape, many: Channels) -> usize {
        3 * (shape.w + 2) * shape.c + shape.w * many.padded_output()
    }
}

impl Kernel for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let SumRows { shape, terms, many, rows, sums, scratch } = self;
        let Shape { h, w, c, .. } = shape;
        let stride = (w + 2) * c;
        assert!(rows.end <= shape.n * h && many.lanes == S::LANES);
        assert_eq!(sums.len(), Self::sums_len(c, many));
        assert!(scratch.len() >= Self::scratch_len(shape, many));
        sums.fill(0.0);
        let (few_rows, copy) = scratch.split_at_mut(3 * stride);
        let width = many.padded_output();
        for row in rows {
            let (n, y) = (row / h, row % h);
            for &(few, values) in terms {
                for (i, to) in few_rows.chunks_exact_mut(stride).enumerate() {
                    pad_row(few, shape, n, (y + i).checked_sub(1), to);
                }
                let values = &values[row * w * many.output..][..w * many.output];
                let values = if width == many.output {
                    values
                } else {
                    // Channels that are not whole vectors get zeros.
                    for (to, from) in copy.chunks_exact_mut(width).zip(values.chunks_exact(many.output)) {
                        to[..many.output].copy_from_slice(from);
                        to[many.output..].fill(0.0);
                    }
                    &copy[..w * width]
                };
                for x in (0..w).step_by(RUN) {
                    let count = RUN.min(w - x);
                    for start in (0..width).step_by(many.panel()) {
                        for tap_row in 0..3 {
                            // SAFETY: the pixels x .. x + count are in the row, whose padded copy
                            // has two pixels more: 3 · c values from each on are inside. The sums
                            // hold 3 · c rows of the panel for each row of taps.
                            unsafe {
                                let at = few_rows.as_ptr().add(tap_row * stride + x * c);
                                let a = Operand { at, row: 1, k_step: c };
                                let b = Operand { at: values.as_ptr().add(x * width + start), row: 1, k_step: width };
                                let to = sums.as_mut_ptr().add(start * 9 * c);
                                let k = Steps::one_run(count);
                                if width - start >= many.panel() {
                                    let to = to.add(tap_row * 3 * c * 2 * S::LANES);
                                    gemm::product::<S, 2>(3 * c, k, a, b, to, true, &mut || {});
                                } else {
                                    let to = to.add(tap_row * 3 * c * S::LANES);
                                    gemm::product::<S, 1>(3 * c, k, a, b, to, true, &mut || {});
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Adds the sums of [`SumRows`] to the weight gradient. `few_is_input`: `few` is the layer's
/// input a, else its δ, whose shift is the opposite.
pub(super) fn add_sums(sums: &[f32], few: usize, many: Channels, few_is_input: bool, grad: &mut [f32]) {
    for j in 0..many.output {
        let start = j / many.panel() * many.panel();
        let width = many.panel().min(many.padded_output() - start);
        for i in 0..few {
            for tap in 0..9 {
                let sum = sums[start * 9 * few + (tap * few + i) * width + j - start];
                let place = if few_is_input { (j * few + i) * 9 + tap } else { (i * many.output + j) * 9 + 8 - tap };
                grad[place] += sum;
            }
        }
    }
}

/// Sums a tensor of some pixels over its pixels, into `sums` of one value for each channel.
pub(super) struct SumPixels<'a> {
    pub(super) values: &'a [f32],
    pub(super) sums: &'a mut [f32],
}

impl Kernel for SumPixels<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.sums.fill(0.0);
        for pixel in self.values.chunks_exact(self.sums.len()) {
            for (sum, value) in self.sums.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
    }
}
