//! The fast CPU engine.
//!
//! Tensors are channels-last `f32` in aligned memory. A convolution is Winograd's
//! (`winograd`) where both sides have enough channels for it, else the direct sum (`direct`);
//! both rest on one small matrix product (`gemm`), and all of them are written once over the
//! vectors of `simd` and compiled for each [`Level`]. Work is cut into tasks by the tensors'
//! shapes alone, each result is computed by one task or summed over tasks in order, so the number
//! of threads changes no bit.

mod ahead;
mod buffer;
mod direct;
mod gemm;
mod level;
mod peak;
mod post;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

pub use level::Level;
pub use peak::measure_fma_peak;

use self::buffer::{Buffer, Pool};
use self::post::{Post, PostGate};
use self::simd::Kernel;
use self::winograd::Channels;
use super::{AdamStep, Engine, Gate, Layer, Shape, Window, placed};
use crate::{Error, Result};
use rayon::ThreadPool;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer channels than this on a side, and the direct sum is faster.
const WINOGRAD_CHANNELS: usize = 8;

/// The network's arithmetic on this machine's processor, in `f32`.
pub struct CpuEngine {
    level: Level,
    /// Absent for one thread, which is the caller's.
    threads: Option<ThreadPool>,
    memory: Arc<Pool>,
}

/// A tensor in main memory.
pub struct CpuTensor {
    shape: Shape,
    data: Buffer,
}

/// How a convolution runs over a layer.
#[derive(Clone, Copy)]
struct Pass {
    channels: Channels,
    /// Whether it is the input gradient.
    transposed: bool,
}

/// A flat view of mutable memory from which each task takes its own part.
struct Parts<'a> {
    values: *mut f32,
    length: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: `Parts::part` asks that parts in use at the same time do not overlap.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        Parts { values: values.as_mut_ptr(), length: values.len(), borrow: std::marker::PhantomData }
    }

    /// The values of a range.
    ///
    /// # Safety
    /// Ranges in use at the same time do not overlap.
    #[allow(clippy::mut_from_ref)] // The caller's promise.
    unsafe fn part(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: inside the memory, and nobody else's by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(range.start), range.len()) }
    }
}

/// Part `index` of `total` values in parts of `length`.
fn part(index: usize, length: usize, total: usize) -> Range<usize> {
    (index * length).min(total)..((index + 1) * length).min(total)
}

impl CpuEngine {
    /// The engine at the best level of this processor (see [`Level::detect`]) with so many
    /// threads, or one for each processor.
    pub fn new(threads: Option<usize>) -> Result<CpuEngine> {
        Self::with_level(Level::detect()?, threads)
    }

    /// The engine at a level of choice.
    pub fn with_level(level: Level, threads: Option<usize>) -> Result<CpuEngine> {
        if !level.is_available() {
            return Err(Error::Device(format!("this processor has no {}", level.name())));
        }
        let count = match threads {
            Some(0) => return Err(Error::input("the number of threads must be at least 1")),
            Some(count) => count,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let threads = match count {
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(count)
                    .thread_name(|index| format!("mzsr-cpu-{index}"))
                    .build()
                    .map_err(|error| Error::Device(format!("starting {count} threads: {error}")))?,
            ),
        };
        Ok(CpuEngine { level, threads, memory: Arc::default() })
    }

    /// The level in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.threads.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// A tensor that holds anything.
    fn tensor(&self, shape: Shape) -> CpuTensor {
        CpuTensor { shape, data: self.memory.take(shape.len()) }
    }

    /// Calls `task` with 0 … `count` − 1, each once, on the threads; each has scratch memory of
    /// `scratch` values, which hold anything.
    fn each(&self, count: usize, scratch: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut memory = self.memory.take(scratch);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                task(index, &mut memory);
            }
        };
        match &self.threads {
            Some(threads) if count > 1 => {
                threads.broadcast(|_| work());
            }
            _ => work(),
        }
    }

    /// Runs a kernel at the engine's level.
    ///
    /// # Safety
    /// What the kernel asks for.
    unsafe fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        // SAFETY: `with_level` checked that the processor has the level.
        unsafe { simd::run(self.level, kernel) }
    }

    /// Channels of a pass from `input` to `output`.
    fn channels(&self, input: usize, output: usize) -> Channels {
        Channels { input, output, lanes: self.level.lanes() }
    }

    /// gate(Σ W ∗ x + b) + residual over (x, W).
    fn convolve(
        &self,
        pass: Pass,
        terms: &[(&CpuTensor, &[f32])],
        bias: Option<&[f32]>,
        gate: Gate<'_, CpuTensor>,
        residual: Option<&CpuTensor>,
    ) -> CpuTensor {
        let Pass { channels, transposed } = pass;
        let shape = terms.first().expect("a sum of at least one term").0.shape;
        assert!(terms.iter().all(|(x, _)| x.shape == shape.with_channels(channels.input)));
        let mut out = self.tensor(shape.with_channels(channels.output));
        let gate = match gate {
            Gate::Linear => PostGate::Linear,
            Gate::Relu => PostGate::Relu,
            Gate::Where(gate) => {
                assert_eq!(gate.shape, out.shape);
                PostGate::Where(&gate.data)
            }
        };
        let residual = residual.map(|residual| {
            assert_eq!(residual.shape, out.shape);
            &residual.data[..]
        });
        let post = Post::new(channels.output, bias, gate, residual, &mut out.data);
        let inputs: Vec<&[f32]> = terms.iter().map(|(x, _)| &x.data[..]).collect();
        let weights: Vec<&[f32]> = terms.iter().map(|&(_, weights)| weights).collect();
        if channels.input >= WINOGRAD_CHANNELS {
            let layout = winograd::FilterLayout { channels, terms: terms.len() };
            let mut filters = self.memory.take(channels.panels() * layout.panel_len());
            let parts = Parts::new(&mut filters);
            self.each(channels.panels(), 0, |panel, _| {
                // SAFETY: each panel is one part.
                unsafe {
                    let to = parts.part(part(panel, layout.panel_len(), usize::MAX));
                    self.run(winograd::TransformFilters { layout, weights: &weights, transposed, panel, to });
                }
            });
            let grid = winograd::Grid::new(shape);
            // Some blocks a task; fewer where the picture is small.
            let block = winograd::Convolve::block(layout);
            let task = block * (grid.tiles() / (block * 16)).clamp(1, 4);
            let scratch = winograd::Convolve::scratch_len(layout);
            self.each(grid.tiles().div_ceil(task), scratch, |index, scratch| {
                let tiles = part(index, task, grid.tiles());
                let (inputs, filters, post) = (&inputs, &filters, &post);
                // SAFETY: each tile is in one task, which writes its pixels alone.
                unsafe { self.run(winograd::Convolve { layout, grid, inputs, filters, post, tiles, scratch }) }
            });
        } else {
            let filters = direct::pack_filters(channels, &weights, transposed);
            // Some thousand pixels a task.
            let rows = 2048usize.div_ceil(shape.w.max(1)).clamp(1, shape.h.max(1));
            let tasks = shape.h.div_ceil(rows);
            let scratch = direct::Convolve::scratch_len(shape, terms.len(), rows);
            self.each(shape.n * tasks, scratch, |index, scratch| {
                let (picture, first) = (index / tasks, index % tasks * rows);
                let rows = first..(first + rows).min(shape.h);
                let (inputs, filters, post) = (&inputs, &filters, &post);
                // SAFETY: each row is in one task, which writes its pixels alone.
                unsafe {
                    self.run(direct::Convolve { channels, shape, inputs, filters, post, picture, rows, scratch });
                }
            });
        }
        drop(post);
        out
    }

    /// Adds the sum of corr(a, δ) to `grad` by Winograd's products, and to `bias` the sum of the δ
    /// of term `bias_of`.
    fn winograd_weight_grad(
        &self,
        channels: Channels,
        shape: Shape,
        terms: &[(&[f32], &[f32])],
        bias_of: Option<usize>,
        grad: &mut [f32],
    ) -> Vec<f32> {
        let grid = winograd::Grid::new(shape);
        // Chunks have accumulators of their own; enough of them for some threads, and more for
        // many, but few enough that adding them up is little work.
        let tiles = grid.tiles();
        let chunk = tiles.div_ceil(tiles.div_ceil(128).min(8).max(tiles.div_ceil(256).min(64)));
        let chunks = tiles.div_ceil(chunk);
        let layout = winograd::SumLayout(channels);
        let mut sums = self.memory.take(chunks * layout.len());
        let parts = Parts::new(&mut sums);
        self.each(chunks, winograd::SumTiles::scratch_len(channels, chunk), |index, scratch| {
            let tiles = part(index, chunk, tiles);
            // SAFETY: each chunk has sums of its own.
            unsafe {
                let sums = parts.part(part(index, layout.len(), usize::MAX));
                self.run(winograd::SumTiles { channels, grid, terms, bias_of, tiles, sums, scratch });
            }
        });
        let (sums, total) = (&sums[..], grad.len());
        let panel_len = channels.panel() * channels.input * 9;
        let parts = Parts::new(grad);
        self.each(channels.panels(), 0, |panel, _| {
            // SAFETY: each panel has output channels of its own.
            unsafe {
                let grad = parts.part(part(panel, panel_len, total));
                self.run(winograd::FinishSums { channels, sums, panel, grad });
            }
        });
        let mut bias = vec![0.0; channels.output];
        for chunk in sums.chunks_exact(layout.len()) {
            for (bias, value) in bias.iter_mut().zip(&chunk[layout.points_len()..]) {
                *bias += value;
            }
        }
        bias
    }

    /// Adds the sum of corr(a, δ) to `grad` by the direct sum.
    fn direct_weight_grad(&self, layer: Layer, shape: Shape, terms: &[(&[f32], &[f32])], grad: &mut [f32]) {
        let few_is_input = layer.input <= layer.output;
        let swapped: Vec<_> = terms.iter().map(|&(a, delta)| (delta, a)).collect();
        let (few, many, terms) = match few_is_input {
            true => (layer.input, layer.output, terms),
            false => (layer.output, layer.input, &swapped[..]),
        };
        let many = self.channels(few, many);
        let shape = shape.with_channels(few);
        let rows = shape.n * shape.h;
        let chunk = rows.div_ceil((rows * shape.w).div_ceil(1024).min(64));
        let chunks = rows.div_ceil(chunk);
        let length = direct::SumRows::sums_len(few, many);
        let mut sums = self.memory.take(chunks * length);
        let parts = Parts::new(&mut sums);
        self.each(chunks, direct::SumRows::scratch_len(shape, many), |index, scratch| {
            let rows = part(index, chunk, rows);
            // SAFETY: each chunk has sums of its own.
            unsafe {
                let sums = parts.part(part(index, length, usize::MAX));
                self.run(direct::SumRows { shape, terms, many, rows, sums, scratch });
            }
        });
        for chunk in sums.chunks_exact(length) {
            direct::add_sums(chunk, few, many, few_is_input, grad);
        }
    }

    /// The sum of a tensor over its pixels.
    fn sum_pixels(&self, tensor: &CpuTensor) -> Vec<f32> {
        let Shape { n, h, w, c } = tensor.shape;
        let pixels = n * h * w;
        let chunk = pixels.div_ceil(pixels.div_ceil(1024).min(64));
        let chunks = pixels.div_ceil(chunk);
        let mut sums = vec![0.0; chunks * c];
        let parts = Parts::new(&mut sums);
        self.each(chunks, 0, |index, _| {
            let values = &tensor.data[part(index, chunk * c, pixels * c)];
            // SAFETY: each chunk has sums of its own.
            unsafe { self.run(direct::SumPixels { values, sums: parts.part(part(index, c, usize::MAX)) }) }
        });
        let mut total = vec![0.0; c];
        for chunk in sums.chunks_exact(c) {
            for (total, value) in total.iter_mut().zip(chunk) {
                *total += value;
            }
        }
        total
    }
}

/// The layer's weights in a flat vector of parameters.
fn weights(layer: Layer, params: &CpuTensor) -> &[f32] {
    &params.data[layer.weight_range()]
}

impl Engine for CpuEngine {
    type Elem = f32;
    type Tensor = CpuTensor;
    type Loss = f64;

    fn name(&self) -> String {
        let threads = self.threads();
        format!("cpu, {}, {threads} thread{}", self.level.name(), if threads == 1 { "" } else { "s" })
    }

    fn upload(&self, shape: Shape, data: &[f32]) -> Result<CpuTensor> {
        let mut tensor = self.tensor(shape);
        tensor.data.copy_from_slice(data);
        Ok(tensor)
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        let mut tensor = self.tensor(shape);
        tensor.data.fill(0.0);
        Ok(tensor)
    }

    fn duplicate(&self, tensor: &CpuTensor) -> Result<CpuTensor> {
        self.upload(tensor.shape, &tensor.data)
    }

    fn download(&self, tensor: &CpuTensor) -> Result<Vec<f32>> {
        Ok(tensor.data.to_vec())
    }

    fn shape(&self, tensor: &CpuTensor) -> Shape {
        tensor.shape
    }

    fn conv(
        &self,
        layer: Layer,
        terms: &[(&CpuTensor, &CpuTensor)],
        bias: Option<&CpuTensor>,
        gate: Gate<'_, CpuTensor>,
        residual: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        let terms: Vec<_> = terms.iter().map(|&(x, params)| (x, weights(layer, params))).collect();
        let bias = bias.map(|params| &params.data[layer.bias_range()]);
        let pass = Pass { channels: self.channels(layer.input, layer.output), transposed: false };
        Ok(self.convolve(pass, &terms, bias, gate, residual))
    }

    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&CpuTensor, &CpuTensor)],
        gate: Gate<'_, CpuTensor>,
    ) -> Result<CpuTensor> {
        let terms: Vec<_> = terms.iter().map(|&(delta, params)| (delta, weights(layer, params))).collect();
        let pass = Pass { channels: self.channels(layer.output, layer.input), transposed: true };
        Ok(self.convolve(pass, &terms, None, gate, None))
    }

    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&CpuTensor, &CpuTensor)],
        bias_of: &CpuTensor,
        grad: &mut CpuTensor,
    ) -> Result<()> {
        let shape = bias_of.shape;
        assert_eq!(shape.c, layer.output);
        for (a, delta) in terms {
            assert_eq!((a.shape, delta.shape), (shape.with_channels(layer.input), shape));
        }
        if shape.is_empty() {
            return Ok(());
        }
        let bias_term = terms.iter().position(|&(_, delta)| std::ptr::eq(delta, bias_of));
        let terms: Vec<_> = terms.iter().map(|(a, delta)| (&a.data[..], &delta.data[..])).collect();
        let grad_weight = &mut grad.data[layer.weight_range()];
        let mut bias = Vec::new();
        if terms.is_empty() {
            // Only the bias has a gradient.
        } else if layer.input.min(layer.output) >= WINOGRAD_CHANNELS {
            let channels = self.channels(layer.input, layer.output);
            bias = self.winograd_weight_grad(channels, shape, &terms, bias_term, grad_weight);
        } else {
            self.direct_weight_grad(layer, shape, &terms, grad_weight);
        }
        if bias_term.is_none() || layer.input.min(layer.output) < WINOGRAD_CHANNELS {
            bias = self.sum_pixels(bias_of);
        }
        for (grad, value) in grad.data[layer.bias_range()].iter_mut().zip(bias) {
            *grad += value;
        }
        Ok(())
    }

    fn l1(&self, output: &CpuTensor, target: &CpuTensor, core: Window, count: usize) -> Result<(f64, CpuTensor)> {
        let shape = output.shape;
        let Shape { n, h, w, c } = shape;
        assert_eq!(shape, target.shape);
        assert!(core.y + core.height <= h && core.x + core.width <= w, "{core:?} is not inside {shape:?}");
        let mut grad = self.tensor(shape);
        let mut sums = vec![0.0f64; n * h];
        let unit = (1.0 / count as f64) as f32;
        for (row, sum) in sums.iter_mut().enumerate() {
            let places = row * w * c..(row + 1) * w * c;
            let grad = &mut grad.data[places.clone()];
            grad.fill(0.0);
            if !(core.y..core.y + core.height).contains(&(row % h)) {
                continue;
            }
            let inside = core.x * c..(core.x + core.width) * c;
            let pairs = output.data[places.clone()][inside.clone()].iter().zip(&target.data[places][inside.clone()]);
            for ((output, target), grad) in pairs.zip(&mut grad[inside]) {
                let difference = output - target;
                *sum += f64::from(difference.abs());
                // Without branches, which noise would send either way.
                *grad = unit * (f32::from(u8::from(difference > 0.0)) - f32::from(u8::from(difference < 0.0)));
            }
        }
        Ok((sums.iter().sum::<f64>() / count as f64, grad))
    }

    fn loss(&self, loss: f64) -> Result<f64> {
        Ok(loss)
    }

    fn axpy(&self, places: Range<usize>, alpha: f64, x: &CpuTensor, y: &mut CpuTensor) -> Result<()> {
        let alpha = alpha as f32;
        for (y, x) in y.data[places.clone()].iter_mut().zip(&x.data[places]) {
            *y += alpha * x;
        }
        Ok(())
    }

    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut CpuTensor) -> Result<()> {
        let alpha = alpha as f32;
        for y in &mut y.data[places] {
            *y *= alpha;
        }
        Ok(())
    }

    fn dot(&self, places: Range<usize>, x: &CpuTensor, y: &CpuTensor) -> Result<f64> {
        let pairs = x.data[places.clone()].iter().zip(&y.data[places]);
        Ok(pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum())
    }

    fn adam(
        &self,
        step: AdamStep,
        grad: &CpuTensor,
        first: &mut CpuTensor,
        second: &mut CpuTensor,
        params: &mut CpuTensor,
    ) -> Result<()> {
        let AdamStep { rate, beta1, beta2, epsilon } = step;
        // 1 − β is rounded once, from f64.
        let (rest1, rest2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (rate, beta1, beta2, epsilon) = (rate as f32, beta1 as f32, beta2 as f32, epsilon as f32);
        let moments = first.data.iter_mut().zip(second.data.iter_mut());
        for ((grad, (m, v)), param) in grad.data.iter().zip(moments).zip(params.data.iter_mut()) {
            *m = beta1 * *m + rest1 * grad;
            *v = beta2 * *v + rest2 * grad * grad;
            *param -= rate * *m / (v.sqrt() + epsilon);
        }
        Ok(())
    }

    fn place(&self, from: &CpuTensor, window: Window, to: &mut CpuTensor, y: usize, x: usize) -> Result<()> {
        let length = window.width * from.shape.c;
        for (from_at, to_at) in placed(from.shape, window, to.shape, y, x) {
            to.data[to_at..to_at + length].copy_from_slice(&from.data[from_at..from_at + length]);
        }
        Ok(())
    }
}
