//! What happens to a sum before it is stored: bias, gate, residual.

use super::simd::Simd;

/// The gate of a convolution; see [`crate::engine::Gate`].
#[derive(Clone, Copy)]
pub(super) enum PostGate<'a> {
    Linear,
    Relu,
    Where(&'a [f32]),
}

/// gate(sum + bias) + residual, stored in `out`.
pub(super) struct Post<'a> {
    /// One for each channel, with zeros up to whole vectors of any level.
    pub(super) bias: Vec<f32>,
    /// Of the output's shape, as the residual.
    pub(super) gate: PostGate<'a>,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) out: Output<'a>,
}

/// A tensor that several threads write, each its own pixels.
pub(super) struct Output<'a> {
    values: *mut f32,
    length: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: `Post::finish` asks that no value is written twice at the same time.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Output { values: values.as_mut_ptr(), length: values.len(), borrow: std::marker::PhantomData }
    }
}

impl<'a> Post<'a> {
    /// `bias` has one value for each channel, or is absent.
    pub(super) fn new(
        channels: usize,
        bias: Option<&[f32]>,
        gate: PostGate<'a>,
        residual: Option<&'a [f32]>,
        out: &'a mut [f32],
    ) -> Self {
        let mut padded = vec![0.0; channels.next_multiple_of(16)];
        if let Some(bias) = bias {
            padded[..channels].copy_from_slice(bias);
        }
        let same = |other: &[f32]| assert_eq!(other.len(), out.len());
        if let PostGate::Where(gate) = gate {
            same(gate);
        }
        residual.inspect(|residual| same(residual));
        Post { bias: padded, gate, residual, out: Output::new(out) }
    }

    /// Stores a vector of sums for each of N neighbouring pixels, of which `pixel` is the first, from
    /// `channel` on; channels from `channels` on are left.
    ///
    /// # Safety
    /// As [`Simd`]; the pixels are inside the tensor, which has `channels` channels, `channel` is
    /// one of them and a multiple of the lanes, and no other thread writes the pixels' channels.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd, const N: usize>(
        &self,
        mut sums: [S::V; N],
        pixel: usize,
        channel: usize,
        channels: usize,
    ) {
        let at = |i: usize| (pixel + i) * channels + channel;
        let n = S::LANES.min(channels - channel);
        debug_assert!(at(N - 1) + n <= self.out.length && channel + S::LANES <= self.bias.len());
        // SAFETY: the caller's promise; the gate and the residual have the output's shape, and the
        // bias has whole vectors.
        unsafe {
            let bias = S::load(self.bias.as_ptr().add(channel));
            for sum in &mut sums {
                *sum = S::add(*sum, bias);
            }
            match self.gate {
                PostGate::Linear => {}
                PostGate::Relu => {
                    for sum in &mut sums {
                        *sum = S::relu(*sum);
                    }
                }
                PostGate::Where(gate) => {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = S::gate(*sum, S::load_part(gate.as_ptr().add(at(i)), n));
                    }
                }
            }
            if let Some(residual) = self.residual {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load_part(residual.as_ptr().add(at(i)), n));
                }
            }
            for (i, &sum) in sums.iter().enumerate() {
                S::store_part(self.out.values.add(at(i)), sum, n);
            }
        }
    }

    /// The tensors of the output's shape that [`Post::finish`] reads and writes; null for none.
    pub(super) fn tensors(&self) -> [*const f32; 3] {
        let gate = if let PostGate::Where(gate) = self.gate { gate.as_ptr() } else { std::ptr::null() };
        [self.out.values, gate, self.residual.map_or(std::ptr::null(), <[f32]>::as_ptr)]
    }
}
