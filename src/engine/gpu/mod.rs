//! The network's arithmetic on a graphics processor, by compute shaders (Vulkan, Metal, DX12).
//!
//! Work is recorded and handed over in batches; tensors stay in the device's memory until they are
//! downloaded, and only losses and sums come back by themselves. `shaders` holds the arithmetic,
//! `device` the memory and the queue. Sums are made in a fixed order, so the same device gives the
//! same bits each time.

mod device;
mod shaders;
mod solve;
#[cfg(test)]
mod tests;
mod winograd;

pub use device::{Adapter, Kind, adapters, without_desktop};

use self::device::{Block, Device, Number, Work};
use self::shaders::{FEW, HEIGHT, NARROW_SIDE, QUADS, STRIDING, THREADS, WIDTH};
use self::solve::Solving;
use self::winograd::Ending;
use super::{AdamStep, Engine, Gate, Layer, Shape, Window, check_placed};
use crate::Result;
use crate::degrade::{Degradation, LeastSquares, Map};
use Number::{F, U};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Partial sums of a weight gradient over so many rows of pixels at least, and so many of them at most.
const ROWS: usize = 8;
const MAX_SPLITS: usize = 64;
/// As many of the smaller sums of a layer with few channels.
const MAX_FEW_SPLITS: usize = 256;
/// And those of a bias, over so many pixels at least.
const PIXELS: usize = 64;
const MAX_BIAS_SPLITS: usize = 1024;

/// The network's arithmetic on a graphics processor, in `f32`.
pub struct GpuEngine {
    device: Device,
    name: String,
    /// Something to bind where a shader's tensor is not used.
    nothing: Block,
    /// Tables of solves, the latest first.
    solving: Mutex<Vec<Arc<Solving>>>,
    /// So many tiles of 64 channels at a time, where Winograd's filtering is used.
    part: usize,
}

/// A tensor in the device's memory.
pub struct GpuTensor {
    shape: Shape,
    block: Block,
}

/// A loss in the device's memory: what its workgroups summed.
pub struct GpuLoss {
    sums: Block,
    groups: usize,
    count: usize,
}

/// Workgroups for shaders whose threads stride over `count` values.
fn striding(count: usize) -> [usize; 3] {
    [count.div_ceil(THREADS as usize).clamp(1, STRIDING as usize), 1, 1]
}

/// How many of `count` things make a part, of at least `least` and in at most `parts` parts.
fn cut(count: usize, least: usize, parts: usize) -> usize {
    count.div_ceil(count.div_ceil(least).clamp(1, parts))
}

impl GpuEngine {
    /// Opens an adapter.
    ///
    /// # Errors
    /// A device that does not open, or does not take the shaders.
    pub fn new(adapter: &Adapter) -> Result<Self> {
        let device = Device::open(adapter)?;
        let nothing = device.take(1)?;
        let name = format!("gpu, {}, {}", adapter.name, adapter.backend);
        Ok(GpuEngine { device, name, nothing, solving: Mutex::default(), part: winograd::PART })
    }

    fn tensor(&self, shape: Shape) -> Result<GpuTensor> {
        Ok(GpuTensor { shape, block: self.device.take(shape.len())? })
    }

    /// `source` shuffled (`back` = 1) or unshuffled to a tensor of shape `to`; the pictures have shape `of`.
    fn shuffled(&self, source: &GpuTensor, to: Shape, of: Shape, cell: usize, back: usize) -> Result<GpuTensor> {
        let out = self.tensor(to)?;
        if !to.is_empty() {
            let numbers = [of.n, of.h, of.w, of.c, cell, back, 0, 0].map(U);
            self.device.run(Work::Shuffle, &numbers, &[&source.block, &out.block], striding(to.len()))?;
        }
        Ok(out)
    }

    /// gate(Σ W ∗ x + b) + residual, or with `transposed` gate(Σ Wᵀ ∗ δ).
    fn convolve(
        &self,
        layer: Layer,
        transposed: bool,
        terms: &[(&GpuTensor, &GpuTensor)],
        bias: Option<&GpuTensor>,
        gate: Gate<'_, GpuTensor>,
        residual: Option<&GpuTensor>,
    ) -> Result<GpuTensor> {
        let (input, output) = if transposed { (layer.output, layer.input) } else { (layer.input, layer.output) };
        let shape = terms.first().expect("a sum of at least one term").0.shape;
        assert!(terms.iter().all(|(x, _)| x.shape == shape.with_channels(input)));
        let out = self.tensor(shape.with_channels(output))?;
        let (code, mask) = match gate {
            Gate::Linear => (0, None),
            Gate::Relu => (1, None),
            Gate::Where(mask) => (2, Some(mask)),
        };
        assert!(mask.iter().chain(&residual).all(|tensor| tensor.shape == out.shape));
        if out.shape.is_empty() {
            return Ok(out);
        }
        if winograd::fits(layer) {
            self.convolve_by_points(layer, transposed, terms, &Ending { bias, code, mask, residual }, &out)?;
            return Ok(out);
        }
        let blocks = output.div_ceil(4 * QUADS);
        let (work, groups) = if output <= FEW {
            (Work::Narrow, [shape.w.div_ceil(NARROW_SIDE), shape.h.div_ceil(NARROW_SIDE), shape.n])
        } else {
            let work = if output.is_multiple_of(4) { Work::Wide } else { Work::WideOdd };
            (work, [shape.w.div_ceil(WIDTH), shape.h.div_ceil(HEIGHT), shape.n * blocks])
        };
        let packed_len = 9 * input * output.next_multiple_of(4);
        for (index, (x, params)) in terms.iter().enumerate() {
            let packed = self.device.take(packed_len)?;
            let numbers = [U(layer.weight), U(layer.input), U(layer.output), U(usize::from(transposed))];
            self.device.run(Work::Pack, &numbers, &[&params.block, &packed], striding(packed_len))?;
            let numbers = [
                U(shape.h),
                U(shape.w),
                U(input),
                U(output),
                U(blocks),
                U(layer.bias),
                U(usize::from(bias.is_some())),
                U(usize::from(index == 0)),
                U(usize::from(index + 1 == terms.len())),
                U(code),
                U(usize::from(residual.is_some())),
            ];
            let tensors = [
                &x.block,
                &packed,
                bias.map_or(&self.nothing, |tensor| &tensor.block),
                mask.map_or(&self.nothing, |tensor| &tensor.block),
                residual.map_or(&self.nothing, |tensor| &tensor.block),
                &out.block,
            ];
            self.device.run(work, &numbers, &tensors, groups)?;
        }
        Ok(out)
    }

    /// Adds the sums of `delta` to the bias of `grad`.
    fn bias_grad(&self, layer: Layer, delta: &GpuTensor, grad: &GpuTensor) -> Result<()> {
        let Shape { n, h, w, c } = delta.shape;
        let pixels = n * h * w;
        let each = cut(pixels, PIXELS, MAX_BIAS_SPLITS);
        let splits = pixels.div_ceil(each);
        let sums = self.device.take(splits * c)?;
        let numbers = [U(pixels), U(each), U(c), U(c.next_power_of_two().min(THREADS as usize))];
        self.device.run(Work::BiasSums, &numbers, &[&delta.block, &sums], [splits, 1, 1])?;
        let numbers = [U(splits), U(c), U(layer.bias)];
        self.device.run(Work::BiasGradient, &numbers, &[&sums, &grad.block], [c, 1, 1])
    }

    /// The sum of the partial sums that `work` leaves.
    fn summed(&self, sums: &Block, groups: usize) -> Result<f64> {
        Ok(self.device.read(sums, groups)?.into_iter().map(f64::from).sum())
    }
}

impl Engine for GpuEngine {
    type Elem = f32;
    type Tensor = GpuTensor;
    type Loss = GpuLoss;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn largest(&self) -> usize {
        usize::try_from(self.device.largest / 4).unwrap_or(usize::MAX)
    }

    fn finish(&self) -> Result<()> {
        self.device.wait()
    }

    fn upload(&self, shape: Shape, data: &[f32]) -> Result<GpuTensor> {
        assert_eq!(data.len(), shape.len(), "values of {shape:?}");
        let tensor = self.tensor(shape)?;
        self.device.write(&tensor.block, data)?;
        Ok(tensor)
    }

    fn zeros(&self, shape: Shape) -> Result<GpuTensor> {
        let tensor = self.tensor(shape)?;
        self.device.clear(&tensor.block)?;
        Ok(tensor)
    }

    fn duplicate(&self, tensor: &GpuTensor) -> Result<GpuTensor> {
        let copy = self.tensor(tensor.shape)?;
        self.device.copy(&tensor.block, &copy.block, tensor.shape.len())?;
        Ok(copy)
    }

    fn download(&self, tensor: &GpuTensor) -> Result<Vec<f32>> {
        self.device.read(&tensor.block, tensor.shape.len())
    }

    fn shape(&self, tensor: &GpuTensor) -> Shape {
        tensor.shape
    }

    fn conv(
        &self,
        layer: Layer,
        terms: &[(&GpuTensor, &GpuTensor)],
        bias: Option<&GpuTensor>,
        gate: Gate<'_, GpuTensor>,
        residual: Option<&GpuTensor>,
    ) -> Result<GpuTensor> {
        self.convolve(layer, false, terms, bias, gate, residual)
    }

    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&GpuTensor, &GpuTensor)],
        gate: Gate<'_, GpuTensor>,
    ) -> Result<GpuTensor> {
        self.convolve(layer, true, terms, None, gate, None)
    }

    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&GpuTensor, &GpuTensor)],
        bias_of: &GpuTensor,
        grad: &mut GpuTensor,
    ) -> Result<()> {
        let (input, output) = (layer.input, layer.output);
        assert!(terms.iter().all(|(a, delta)| a.shape.c == input && delta.shape == a.shape.with_channels(output)));
        if winograd::fits(layer) {
            // The sums of a term's own δ come with its weight gradient.
            let of_term = terms.iter().position(|(_, delta)| std::ptr::eq(*delta, bias_of));
            self.weight_grad_by_points(layer, terms, of_term, grad)?;
            return if of_term.is_some() { Ok(()) } else { self.bias_grad(layer, bias_of, grad) };
        }
        let few = input.min(output) <= FEW;
        let lines = |shape: Shape| shape.n * shape.h;
        let each = |shape: Shape| {
            if few { cut(lines(shape), 1, MAX_FEW_SPLITS) } else { cut(lines(shape), ROWS, MAX_SPLITS) }
        };
        let splits: Vec<usize> = terms.iter().map(|(a, _)| lines(a.shape).div_ceil(each(a.shape))).collect();
        let total: usize = splits.iter().sum();
        let sums = self.device.take(total * 9 * input * output)?;
        let mut before = 0;
        for ((a, delta), &splits) in terms.iter().zip(&splits) {
            let Shape { h, w, .. } = a.shape;
            let (lines, each) = (lines(a.shape), each(a.shape));
            if few {
                let from_few = input <= FEW;
                let ((many, channels), (few, few_channels)) =
                    if from_few { ((delta, output), (a, input)) } else { ((a, input), (delta, output)) };
                let numbers = [lines, h, w, channels, few_channels, each, before, usize::from(from_few)].map(U);
                let groups = [splits, channels.div_ceil(64), 1];
                self.device.run(Work::FewSums, &numbers, &[&many.block, &few.block, &sums], groups)?;
            } else {
                let numbers = [lines, h, w, input, output, each, before, output.div_ceil(64)].map(U);
                let groups = [splits, 9, input.div_ceil(64) * output.div_ceil(64)];
                self.device.run(Work::WeightSums, &numbers, &[&a.block, &delta.block, &sums], groups)?;
            }
            before += splits;
        }
        let numbers = [U(total), U(input), U(output), U(layer.weight)];
        let groups = [(9 * input * output).div_ceil(32).min(1 << 15), 1, 1];
        self.device.run(Work::WeightGradient, &numbers, &[&sums, &grad.block], groups)?;
        self.bias_grad(layer, bias_of, grad)
    }

    fn l1(&self, output: &GpuTensor, target: &GpuTensor, core: Window, count: usize) -> Result<(GpuLoss, GpuTensor)> {
        let shape = output.shape;
        assert_eq!(target.shape, shape);
        let delta = self.tensor(shape)?;
        let groups = striding(shape.len());
        let sums = self.device.take(groups[0])?;
        let numbers = [
            U(shape.len()),
            U(shape.h),
            U(shape.w),
            U(shape.c),
            U(core.y),
            U(core.x),
            U(core.height),
            U(core.width),
            F(1.0 / count as f64),
        ];
        self.device.run(Work::L1, &numbers, &[&output.block, &target.block, &delta.block, &sums], groups)?;
        Ok((GpuLoss { sums, groups: groups[0], count }, delta))
    }

    fn loss(&self, GpuLoss { sums, groups, count }: GpuLoss) -> Result<f64> {
        Ok(self.summed(&sums, groups)? / count as f64)
    }

    fn axpy(&self, places: Range<usize>, alpha: f64, x: &GpuTensor, y: &mut GpuTensor) -> Result<()> {
        assert!(places.end <= x.shape.len().min(y.shape.len()));
        let numbers = [U(places.start), U(places.end), F(alpha)];
        self.device.run(Work::Axpy, &numbers, &[&x.block, &y.block], striding(places.len()))
    }

    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut GpuTensor) -> Result<()> {
        assert!(places.end <= y.shape.len());
        let numbers = [U(places.start), U(places.end), F(alpha)];
        self.device.run(Work::Scale, &numbers, &[&y.block], striding(places.len()))
    }

    fn dot(&self, places: Range<usize>, x: &GpuTensor, y: &GpuTensor) -> Result<f64> {
        assert!(places.end <= x.shape.len().min(y.shape.len()));
        let groups = striding(places.len());
        let sums = self.device.take(groups[0])?;
        let numbers = [U(places.start), U(places.end)];
        self.device.run(Work::Dot, &numbers, &[&x.block, &y.block, &sums], groups)?;
        self.summed(&sums, groups[0])
    }

    fn adam(
        &self,
        step: AdamStep,
        grad: &GpuTensor,
        first: &mut GpuTensor,
        second: &mut GpuTensor,
        params: &mut GpuTensor,
    ) -> Result<()> {
        let numbers = [
            U(grad.shape.len()),
            F(step.rate),
            F(step.beta1),
            F(step.beta2),
            F(1.0 - step.beta1),
            F(1.0 - step.beta2),
            F(step.epsilon),
        ];
        let tensors = [&grad.block, &first.block, &second.block, &params.block];
        self.device.run(Work::Adam, &numbers, &tensors, striding(grad.shape.len()))
    }

    fn place(&self, from: &GpuTensor, window: Window, to: &mut GpuTensor, y: usize, x: usize) -> Result<()> {
        check_placed(from.shape, window, to.shape, y, x);
        let (n, c) = (from.shape.n, from.shape.c);
        let side = |shape: Shape, y: usize, x: usize| [U(shape.h), U(shape.w * c), U(y), U(x * c)];
        let size = [U(n), U(window.height), U(window.width * c), U(0)];
        let numbers = [size, side(from.shape, window.y, window.x), side(to.shape, y, x)].concat();
        let count = n * window.height * window.width * c;
        self.device.run(Work::Place, &numbers, &[&from.block, &to.block], striding(count))
    }

    fn unshuffle(&self, x: &GpuTensor, cell: usize) -> Result<GpuTensor> {
        let from = x.shape;
        let to = Shape { h: from.h.div_ceil(cell), w: from.w.div_ceil(cell), c: from.c * cell * cell, ..from };
        self.shuffled(x, to, from, cell, 0)
    }

    fn shuffle(&self, cells: &GpuTensor, cell: usize, height: usize, width: usize) -> Result<GpuTensor> {
        let to = Shape { h: height, w: width, c: cells.shape.c / (cell * cell), ..cells.shape };
        self.shuffled(cells, to, to, cell, 1)
    }

    fn map(&self, map: &Map, image: &GpuTensor) -> Result<GpuTensor> {
        Ok(self.through(&self.table(map, image.shape.w)?, image)?.0)
    }

    fn least_squares(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &GpuTensor,
        height: usize,
        width: usize,
    ) -> Result<GpuTensor> {
        let prior = self.aligned(degradation, low, height, width)?;
        self.conjugate_gradients(rule, false, degradation, low, prior, &mut None)
    }

    fn solve(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &GpuTensor,
        prior: GpuTensor,
        z: &mut Option<GpuTensor>,
    ) -> Result<GpuTensor> {
        self.conjugate_gradients(rule, true, degradation, low, prior, z)
    }
}
