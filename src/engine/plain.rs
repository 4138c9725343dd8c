//! The readable truth: every operation as its formula says, in `f32` or `f64`, on all threads of
//! the current rayon pool. Slow on purpose where speed would cost a reader anything.

use super::{AdamStep, Engine, Gate, Layer, Shape, Window, placed};
use crate::{Real, Result};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// The plain engine over `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainEngine<T>(PhantomData<T>);

impl<T: Real> PlainEngine<T> {
    /// An engine.
    pub const fn new() -> Self {
        PlainEngine(PhantomData)
    }
}

/// Values, channels last.
#[derive(Clone, Debug)]
pub struct PlainTensor<T> {
    shape: Shape,
    data: Vec<T>,
}

/// Weights as [ky][kx][from][to], so that the innermost loop runs over neighbouring values.
/// `transposed` exchanges the channels and turns the taps by 180°: the layer's adjoint.
fn arranged<T: Real>(layer: Layer, params: &PlainTensor<T>, transposed: bool) -> Vec<T> {
    let weight = &params.data[layer.weight_range()];
    let (from, to) = if transposed { (layer.output, layer.input) } else { (layer.input, layer.output) };
    let mut out = vec![T::zero(); weight.len()];
    for o in 0..layer.output {
        for i in 0..layer.input {
            for tap in 0..9 {
                let value = weight[(o * layer.input + i) * 9 + tap];
                let at = if transposed { ((8 - tap) * from + o) * to + i } else { (tap * from + i) * to + o };
                out[at] = value;
            }
        }
    }
    out
}

/// The pixel of `shape` at (y + ky − 1, x + kx − 1) of the picture, if there is one.
fn neighbour(shape: Shape, y: usize, x: usize, tap: usize) -> Option<(usize, usize)> {
    let (y, x) = ((y + tap / 3).checked_sub(1)?, (x + tap % 3).checked_sub(1)?);
    (y < shape.h && x < shape.w).then_some((y, x))
}

/// Σ over the terms of a convolution with arranged weights; `begin` sets each pixel's first value,
/// `end` finishes it.
fn convolve<T: Real>(
    to: usize,
    terms: &[(&PlainTensor<T>, Vec<T>)],
    begin: impl Fn(&mut [T]) + Sync,
    end: impl Fn(usize, &mut [T]) + Sync,
) -> PlainTensor<T> {
    let shape = terms[0].0.shape;
    let mut out = PlainTensor { shape: shape.with_channels(to), data: vec![T::zero(); shape.with_channels(to).len()] };
    out.data.par_chunks_mut(shape.w * to).enumerate().for_each(|(line, row)| {
        let (n, y) = (line / shape.h, line % shape.h);
        for (x, pixel) in row.chunks_exact_mut(to).enumerate() {
            begin(pixel);
            for (input, weight) in terms {
                for tap in 0..9 {
                    let Some((sy, sx)) = neighbour(shape, y, x, tap) else { continue };
                    let from = shape.c;
                    let at = ((n * shape.h + sy) * shape.w + sx) * from;
                    for (i, &value) in input.data[at..at + from].iter().enumerate() {
                        let weight = &weight[(tap * from + i) * to..(tap * from + i + 1) * to];
                        pixel.iter_mut().zip(weight).for_each(|(sum, &w)| *sum += value * w);
                    }
                }
            }
            end((line * shape.w + x) * to, pixel);
        }
    });
    out
}

/// Applies the gate to values that begin at `at` in the tensor.
fn pass<T: Real>(gate: &Gate<'_, PlainTensor<T>>, at: usize, values: &mut [T]) {
    match gate {
        Gate::Linear => {}
        Gate::Relu => values.iter_mut().filter(|v| **v < T::zero()).for_each(|v| *v = T::zero()),
        Gate::Where(mask) => values.iter_mut().zip(&mask.data[at..]).for_each(|(v, &m)| {
            if m <= T::zero() {
                *v = T::zero();
            }
        }),
    }
}

impl<T: Real> Engine for PlainEngine<T> {
    type Elem = T;
    type Tensor = PlainTensor<T>;
    type Loss = f64;

    fn name(&self) -> String {
        format!("plain, f{}", 8 * size_of::<T>())
    }

    fn upload(&self, shape: Shape, data: &[T]) -> Result<PlainTensor<T>> {
        assert_eq!(data.len(), shape.len(), "values of {shape:?}");
        Ok(PlainTensor { shape, data: data.to_vec() })
    }

    fn zeros(&self, shape: Shape) -> Result<PlainTensor<T>> {
        Ok(PlainTensor { shape, data: vec![T::zero(); shape.len()] })
    }

    fn duplicate(&self, tensor: &PlainTensor<T>) -> Result<PlainTensor<T>> {
        Ok(tensor.clone())
    }

    fn download(&self, tensor: &PlainTensor<T>) -> Result<Vec<T>> {
        Ok(tensor.data.clone())
    }

    fn shape(&self, tensor: &PlainTensor<T>) -> Shape {
        tensor.shape
    }

    fn conv(
        &self,
        layer: Layer,
        terms: &[(&PlainTensor<T>, &PlainTensor<T>)],
        bias: Option<&PlainTensor<T>>,
        gate: Gate<'_, PlainTensor<T>>,
        residual: Option<&PlainTensor<T>>,
    ) -> Result<PlainTensor<T>> {
        let terms: Vec<_> = terms.iter().map(|&(x, params)| (x, arranged(layer, params, false))).collect();
        let bias = bias.map(|params| &params.data[layer.bias_range()]);
        Ok(convolve(
            layer.output,
            &terms,
            |pixel| {
                if let Some(bias) = bias {
                    pixel.copy_from_slice(bias);
                }
            },
            |at, pixel| {
                pass(&gate, at, pixel);
                if let Some(residual) = residual {
                    pixel.iter_mut().zip(&residual.data[at..]).for_each(|(v, &r)| *v += r);
                }
            },
        ))
    }

    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&PlainTensor<T>, &PlainTensor<T>)],
        gate: Gate<'_, PlainTensor<T>>,
    ) -> Result<PlainTensor<T>> {
        let terms: Vec<_> = terms.iter().map(|&(delta, params)| (delta, arranged(layer, params, true))).collect();
        Ok(convolve(layer.input, &terms, |_| {}, |at, pixel| pass(&gate, at, pixel)))
    }

    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&PlainTensor<T>, &PlainTensor<T>)],
        bias_of: &PlainTensor<T>,
        grad: &mut PlainTensor<T>,
    ) -> Result<()> {
        let (input, output) = (layer.input, layer.output);
        // One task a tap and input channel: each sums over all pixels in order.
        let sums: Vec<Vec<T>> = (0..9 * input)
            .into_par_iter()
            .map(|task| {
                let (tap, i) = (task / input, task % input);
                let mut sum = vec![T::zero(); output];
                for (a, delta) in terms {
                    let shape = a.shape;
                    for n in 0..shape.n {
                        for y in 0..shape.h {
                            for x in 0..shape.w {
                                let Some((sy, sx)) = neighbour(shape, y, x, tap) else { continue };
                                let value = a.data[((n * shape.h + sy) * shape.w + sx) * input + i];
                                let at = ((n * shape.h + y) * shape.w + x) * output;
                                let delta = &delta.data[at..at + output];
                                sum.iter_mut().zip(delta).for_each(|(sum, &d)| *sum += value * d);
                            }
                        }
                    }
                }
                sum
            })
            .collect();
        for (task, sum) in sums.iter().enumerate() {
            let (tap, i) = (task / input, task % input);
            for (o, &sum) in sum.iter().enumerate() {
                grad.data[layer.weight + (o * input + i) * 9 + tap] += sum;
            }
        }
        for pixel in bias_of.data.chunks_exact(output) {
            grad.data[layer.bias_range()].iter_mut().zip(pixel).for_each(|(sum, &d)| *sum += d);
        }
        Ok(())
    }

    fn l1(
        &self,
        output: &PlainTensor<T>,
        target: &PlainTensor<T>,
        core: Window,
        count: usize,
    ) -> Result<(f64, PlainTensor<T>)> {
        let shape = output.shape;
        let mut delta = self.zeros(shape)?;
        let step = T::of(1.0 / count as f64);
        let mut sum = 0.0;
        for n in 0..shape.n {
            for y in core.y..core.y + core.height {
                let at = ((n * shape.h + y) * shape.w + core.x) * shape.c;
                for i in at..at + core.width * shape.c {
                    let difference = output.data[i] - target.data[i];
                    sum += difference.wide().abs();
                    delta.data[i] = if difference > T::zero() {
                        step
                    } else if difference < T::zero() {
                        -step
                    } else {
                        T::zero()
                    };
                }
            }
        }
        Ok((sum / count as f64, delta))
    }

    fn loss(&self, loss: f64) -> Result<f64> {
        Ok(loss)
    }

    fn axpy(&self, places: Range<usize>, alpha: f64, x: &PlainTensor<T>, y: &mut PlainTensor<T>) -> Result<()> {
        let alpha = T::of(alpha);
        y.data[places.clone()].iter_mut().zip(&x.data[places]).for_each(|(y, &x)| *y += alpha * x);
        Ok(())
    }

    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut PlainTensor<T>) -> Result<()> {
        let alpha = T::of(alpha);
        y.data[places].iter_mut().for_each(|y| *y *= alpha);
        Ok(())
    }

    fn dot(&self, places: Range<usize>, x: &PlainTensor<T>, y: &PlainTensor<T>) -> Result<f64> {
        Ok(x.data[places.clone()].iter().zip(&y.data[places]).map(|(x, y)| x.wide() * y.wide()).sum())
    }

    fn adam(
        &self,
        step: AdamStep,
        grad: &PlainTensor<T>,
        first: &mut PlainTensor<T>,
        second: &mut PlainTensor<T>,
        params: &mut PlainTensor<T>,
    ) -> Result<()> {
        let (b1, b2) = (T::of(step.beta1), T::of(step.beta2));
        let (rest1, rest2) = (T::of(1.0 - step.beta1), T::of(1.0 - step.beta2));
        let (rate, epsilon) = (T::of(step.rate), T::of(step.epsilon));
        for (i, &g) in grad.data.iter().enumerate() {
            first.data[i] = b1 * first.data[i] + rest1 * g;
            second.data[i] = b2 * second.data[i] + rest2 * g * g;
            params.data[i] -= rate * first.data[i] / (second.data[i].sqrt() + epsilon);
        }
        Ok(())
    }

    fn place(&self, from: &PlainTensor<T>, window: Window, to: &mut PlainTensor<T>, y: usize, x: usize) -> Result<()> {
        let length = window.width * from.shape.c;
        for (from_at, to_at) in placed(from.shape, window, to.shape, y, x) {
            to.data[to_at..to_at + length].copy_from_slice(&from.data[from_at..from_at + length]);
        }
        Ok(())
    }
}
