//! The fast CPU engine: Winograd convolutions over the widest instruction set that the machine has,
//! on as many threads as asked for. Results are the same bits whatever the number of threads.

mod direct;
mod gradient;
mod pool;
mod simd;
mod winograd;

pub use simd::{Level, VARIABLE};

use super::plain::PlainEngine;
use super::{AdamStep, Engine, Gate, Layer, Shape, Window};
use crate::{Error, Result};
use direct::{Cross, Narrow, THIN, Widen};
use pool::{Buffer, Pool};
use simd::dispatch;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use winograd::{BLOCKS, Forward, Grid, PLACES, SendPointer};

/// Channels up to which the kernels have zeros to read beyond a picture's border.
const MOST_CHANNELS: usize = 1024;
/// The weight gradient's blocks are summed in so many parts at most, whatever the threads.
const PARTS: usize = 8;
/// A part has at least so many blocks.
const PART_BLOCKS: usize = 4 * BLOCKS;
/// Values of a vector operation or a loss that one task works on.
const CHUNK: usize = 1 << 15;

/// The engine.
pub struct CpuEngine {
    level: Level,
    threads: usize,
    workers: Option<rayon::ThreadPool>,
    pool: Pool,
    zeros: Vec<f32>,
}

/// Values, channels last, in the engine's memory.
pub struct CpuTensor {
    shape: Shape,
    data: Buffer,
}

impl std::fmt::Debug for CpuTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuTensor({:?})", self.shape)
    }
}

impl Level {
    /// Output channels that the level's kernels compute at a time.
    fn panel(self) -> usize {
        match self {
            Level::Portable => 8,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => 64,
        }
    }
}

/// How a convolution from `from` to `to` channels is done.
enum Way {
    Winograd(Level),
    Widen(Level),
    Narrow(Level),
    Plain,
}

impl CpuEngine {
    /// An engine at the machine's best level (see [`VARIABLE`]) on `threads` threads, or one for
    /// each core.
    ///
    /// # Errors
    /// A level that is not known, or threads that cannot be started.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        Self::with_level(Level::detect()?, threads)
    }

    /// An engine at a level that [`Level::available`] gave.
    ///
    /// # Errors
    /// A level that the machine does not have, or threads that cannot be started.
    pub fn with_level(level: Level, threads: Option<usize>) -> Result<Self> {
        if !Level::available().contains(&level) {
            return Err(Error::Device(format!("this machine has no {level}")));
        }
        let threads = threads.unwrap_or_else(rayon::current_num_threads).max(1);
        let workers = (threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build())
            .transpose()
            .map_err(|error| Error::Device(format!("{threads} threads could not be started: {error}")))?;
        Ok(CpuEngine { level, threads, workers, pool: Pool::default(), zeros: vec![0.0; MOST_CHANNELS] })
    }

    /// The level in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn tensor(&self, shape: Shape) -> CpuTensor {
        CpuTensor { shape, data: self.pool.take(shape.len()) }
    }

    /// Does jobs 0 … `jobs` − 1 on all threads; each worker has a scratch of its own.
    fn parallel(&self, jobs: usize, scratch: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut scratch = self.pool.take(scratch);
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= jobs {
                    break;
                }
                work(job, &mut scratch);
            }
        };
        match &self.workers {
            Some(workers) if jobs > 1 => {
                workers.broadcast(|_| worker());
            }
            _ => worker(),
        }
    }

    /// Runs `work` over chunks of a vector of `length` values.
    fn chunks(&self, length: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        self.parallel(length.div_ceil(CHUNK), 0, &|job, _| work(job * CHUNK..((job + 1) * CHUNK).min(length)));
    }

    fn way(&self, from: usize, to: usize) -> Way {
        // A narrower level where the channels do not fill the panels of a wider one.
        let fitting = |wide: usize| {
            Level::available()
                .into_iter()
                .filter(|level| *level <= self.level && wide <= MOST_CHANNELS && wide % level.panel() == 0)
                .max()
        };
        match (from, to) {
            (THIN, wide) => fitting(wide).map_or(Way::Plain, Way::Widen),
            (wide, THIN) => fitting(wide).map_or(Way::Plain, Way::Narrow),
            (from, to) => match (fitting(from), fitting(to)) {
                (Some(a), Some(b)) => Way::Winograd(a.min(b)),
                _ => Way::Plain,
            },
        }
    }

    /// Σ of a layer's convolutions, or of their adjoints, gated.
    fn convolve(
        &self,
        layer: Layer,
        transposed: bool,
        terms: &[(&CpuTensor, &CpuTensor)],
        bias: Option<&CpuTensor>,
        gate: Gate<'_, CpuTensor>,
        residual: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        let (from, to) = if transposed { (layer.output, layer.input) } else { (layer.input, layer.output) };
        let shape = terms[0].0.shape;
        assert!(terms.iter().all(|(x, _)| x.shape == shape && shape.c == from), "inputs of {shape:?}");
        if let Gate::Where(mask) = &gate {
            assert_eq!(mask.shape, shape.with_channels(to), "the mask");
        }
        if let Some(residual) = residual {
            assert_eq!(residual.shape, shape.with_channels(to), "the residual");
        }
        let inputs: Vec<&CpuTensor> = terms.iter().map(|(x, _)| *x).collect();
        let params: Vec<&[f32]> = terms.iter().map(|(_, params)| &*params.data).collect();
        let bias = bias.map(|params| &params.data[layer.bias_range()]);
        let way = self.way(from, to);
        if matches!(way, Way::Plain) {
            return self.plainly(layer, transposed, terms, bias.is_some(), &gate, residual);
        }
        let mut out = self.tensor(shape.with_channels(to));
        let output = SendPointer(out.data.as_mut_ptr());
        let (gate, inputs) = (&gate, &inputs[..]);
        match way {
            Way::Plain => {}
            Way::Winograd(level) => {
                let depth = from * terms.len();
                let mut filters = self.pool.take(to * PLACES * depth);
                winograd::transform_filters(layer, &params, transposed, level.panel(), &mut filters, &|jobs, work| {
                    self.parallel(jobs, 0, &|job, _| work(job));
                });
                let grid = Grid::new(shape);
                let blocks = grid.len();
                let scratch = winograd::scratch_length(depth, level.panel());
                self.parallel(blocks.div_ceil(BLOCKS), scratch, &|job, scratch| {
                    let first = job * BLOCKS;
                    let count = BLOCKS.min(blocks - first);
                    let (filters, zeros) = (&filters[..], &self.zeros[..]);
                    dispatch(
                        level,
                        Forward {
                            grid,
                            inputs,
                            filters,
                            bias,
                            gate,
                            residual,
                            output,
                            to,
                            first,
                            count,
                            scratch,
                            zeros,
                        },
                    );
                });
            }
            Way::Widen(level) => {
                let panel = level.panel();
                let mut filters = self.pool.take(to * 9 * THIN * terms.len());
                for (at, value) in filters.iter_mut().enumerate() {
                    let (lane, rest) = (at % panel, at / panel);
                    let (i, tap, rest) = (rest % THIN, rest / THIN % 9, rest / THIN / 9);
                    let (term, o) = (rest % terms.len(), rest / terms.len() * panel + lane);
                    *value = tap_of(layer, params[term], transposed, o, i, tap);
                }
                let scratch = direct::widen_scratch(shape.w, terms.len());
                self.parallel(shape.n * shape.h, scratch, &|line, scratch| {
                    let (thin, filters, wide) = (inputs, &filters[..], to);
                    dispatch(level, Widen { thin, filters, bias, gate, residual, output, wide, line, scratch });
                });
            }
            Way::Narrow(level) => {
                let mut filters = self.pool.take(9 * THIN * from * terms.len());
                for (at, value) in filters.iter_mut().enumerate() {
                    let (i, rest) = (at % from, at / from);
                    let (o, tap, term) = (rest % THIN, rest / THIN % 9, rest / THIN / 9);
                    *value = tap_of(layer, params[term], transposed, o, i, tap);
                }
                self.parallel(shape.n * shape.h, 0, &|line, _| {
                    let (wide, filters, zeros) = (inputs, &filters[..], &self.zeros[..]);
                    dispatch(level, Narrow { wide, filters, bias, gate, residual, output, line, zeros });
                });
            }
        }
        Ok(out)
    }

    /// By the plain engine: for channels that no kernel is made for.
    fn plainly(
        &self,
        layer: Layer,
        transposed: bool,
        terms: &[(&CpuTensor, &CpuTensor)],
        bias: bool,
        gate: &Gate<'_, CpuTensor>,
        residual: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        let plain = PlainEngine::<f32>::new();
        let copy = |tensor: &CpuTensor| plain.upload(tensor.shape, &tensor.data);
        let copies = terms.iter().map(|(x, params)| Ok((copy(x)?, copy(params)?))).collect::<Result<Vec<_>>>()?;
        let terms: Vec<_> = copies.iter().map(|(x, params)| (x, params)).collect();
        let mask = if let Gate::Where(mask) = gate { Some(copy(mask)?) } else { None };
        let gate = match (gate, &mask) {
            (Gate::Relu, _) => Gate::Relu,
            (_, Some(mask)) => Gate::Where(mask),
            _ => Gate::Linear,
        };
        let out = if transposed {
            plain.conv_input_grad(layer, &terms, gate)?
        } else {
            let residual = residual.map(copy).transpose()?;
            plain.conv(layer, &terms, bias.then_some(terms[0].1), gate, residual.as_ref())?
        };
        self.upload(plain.shape(&out), &plain.download(&out)?)
    }

    /// `grad[bias] += Σ over pixels`, in fixed parts.
    fn bias_gradient(&self, layer: Layer, of: &CpuTensor, grad: &mut CpuTensor) {
        let channels = layer.output;
        let pixels = of.data.len() / channels;
        let part = pixels.div_ceil(64).max(256);
        let parts = pixels.div_ceil(part);
        let mut sums = self.pool.zeros(parts * channels);
        let pointer = SendPointer(sums.as_mut_ptr());
        self.parallel(parts, 0, &|job, _| {
            let pointer = &pointer;
            // SAFETY: each job has its own channels of the sums, which live until all are done.
            let sums = unsafe { std::slice::from_raw_parts_mut(pointer.0.add(job * channels), channels) };
            for pixel in
                of.data[job * part * channels..((job + 1) * part).min(pixels) * channels].chunks_exact(channels)
            {
                sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v);
            }
        });
        for part in sums.chunks_exact(channels) {
            grad.data[layer.bias_range()].iter_mut().zip(part).for_each(|(sum, &v)| *sum += v);
        }
    }

    /// The weight gradient of many to many channels.
    fn winograd_gradient(&self, level: Level, layer: Layer, terms: &[(&CpuTensor, &CpuTensor)], grad: &mut CpuTensor) {
        let blocks = Grid::new(terms[0].0.shape).len();
        let parts = (blocks / PART_BLOCKS).clamp(1, PARTS);
        let part = blocks.div_ceil(parts);
        let length = gradient::sums_length(layer).next_multiple_of(16);
        let mut sums = self.pool.take(parts * length);
        let pointer = SendPointer(sums.as_mut_ptr());
        self.parallel(parts, gradient::scratch_length(layer), &|job, scratch| {
            let pointer = &pointer;
            // SAFETY: each job has its own part of the sums, which live until all are done.
            let sums = unsafe { std::slice::from_raw_parts_mut(pointer.0.add(job * length), length) };
            sums.fill(0.0);
            let (first, last) = ((job * part).min(blocks), ((job + 1) * part).min(blocks));
            for (a, delta) in terms {
                let zeros = &self.zeros[..];
                let (sums, scratch) = (&mut *sums, &mut *scratch);
                dispatch(level, gradient::Accumulate { layer, a, delta, first, last, sums, scratch, zeros });
            }
        });
        // The parts in their order, then back from the 36 places to 3 × 3.
        let (total, others) = sums.split_at_mut(length);
        let pointer = SendPointer(total.as_mut_ptr());
        self.chunks(length, &|places| {
            let pointer = &pointer;
            // SAFETY: chunks do not overlap, and `total` lives until all are done.
            let total = unsafe { std::slice::from_raw_parts_mut(pointer.0.add(places.start), places.len()) };
            for other in others.chunks_exact(length) {
                total.iter_mut().zip(&other[places.clone()]).for_each(|(sum, &v)| *sum += v);
            }
        });
        let weight = SendPointer(grad.data[layer.weight_range()].as_mut_ptr());
        let total = &*total;
        self.parallel(layer.input, 0, &|i, _| {
            let weight = &weight;
            // SAFETY: input channel i's weights are added to by this job alone, all below the
            // weight's length.
            gradient::finish(layer, total, i, |at, value| unsafe { *weight.0.add(at) += value });
        });
    }

    /// The weight gradient where one side has three channels.
    fn thin_gradient(&self, level: Level, layer: Layer, terms: &[(&CpuTensor, &CpuTensor)], grad: &mut CpuTensor) {
        // corr(a, δ): where the input is wide, δ is the thin picture and the taps turn round.
        let widens = layer.input == THIN;
        let wide = if widens { layer.output } else { layer.input };
        let shape = terms[0].0.shape;
        let lines = shape.n * shape.h;
        let part = lines.div_ceil(16).max(8);
        let parts = lines.div_ceil(part);
        let length = direct::cross_sums(wide);
        let mut sums = self.pool.zeros(parts * length);
        let pointer = SendPointer(sums.as_mut_ptr());
        self.parallel(parts, direct::cross_scratch(shape.w), &|job, scratch| {
            let pointer = &pointer;
            // SAFETY: each job has its own part of the sums, which live until all are done.
            let sums = unsafe { std::slice::from_raw_parts_mut(pointer.0.add(job * length), length) };
            let (first, last) = (job * part, ((job + 1) * part).min(lines));
            for (a, delta) in terms {
                let (thin, wide) = if widens { (*a, *delta) } else { (*delta, *a) };
                let (sums, scratch) = (&mut *sums, &mut *scratch);
                dispatch(level, Cross { thin, wide, first, last, sums, scratch });
            }
        });
        let grad = &mut grad.data[layer.weight_range()];
        for sums in sums.chunks_exact(length) {
            for t in 0..THIN {
                for tap in 0..9 {
                    let seen = if widens { tap } else { 8 - tap };
                    let row = &sums[direct::cross_at(seen / 3, seen % 3, t, wide)..][..wide];
                    for (c, &value) in row.iter().enumerate() {
                        let at = if widens { c * THIN + t } else { t * wide + c };
                        grad[at * 9 + tap] += value;
                    }
                }
            }
        }
    }
}

/// The weight from input i to output o at `tap`, of the layer or of its adjoint.
fn tap_of(layer: Layer, params: &[f32], transposed: bool, o: usize, i: usize, tap: usize) -> f32 {
    let weight = &params[layer.weight_range()];
    if transposed { weight[(i * layer.input + o) * 9 + 8 - tap] } else { weight[(o * layer.input + i) * 9 + tap] }
}

impl Engine for CpuEngine {
    type Elem = f32;
    type Tensor = CpuTensor;

    fn name(&self) -> String {
        let s = if self.threads == 1 { "" } else { "s" };
        format!("cpu, {}, {} thread{s}", self.level, self.threads)
    }

    fn upload(&self, shape: Shape, data: &[f32]) -> Result<CpuTensor> {
        assert_eq!(data.len(), shape.len(), "values of {shape:?}");
        let mut tensor = self.tensor(shape);
        tensor.data.copy_from_slice(data);
        Ok(tensor)
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        Ok(CpuTensor { shape, data: self.pool.zeros(shape.len()) })
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
        self.convolve(layer, false, terms, bias, gate, residual)
    }

    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&CpuTensor, &CpuTensor)],
        gate: Gate<'_, CpuTensor>,
    ) -> Result<CpuTensor> {
        self.convolve(layer, true, terms, None, gate, None)
    }

    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&CpuTensor, &CpuTensor)],
        bias_of: &CpuTensor,
        grad: &mut CpuTensor,
    ) -> Result<()> {
        for (a, delta) in terms {
            assert_eq!((a.shape.c, delta.shape), (layer.input, a.shape.with_channels(layer.output)));
        }
        match self.way(layer.input, layer.output) {
            Way::Winograd(level) => self.winograd_gradient(level, layer, terms, grad),
            Way::Widen(level) | Way::Narrow(level) => self.thin_gradient(level, layer, terms, grad),
            Way::Plain => {
                let plain = PlainEngine::<f32>::new();
                let copy = |tensor: &CpuTensor| plain.upload(tensor.shape, &tensor.data);
                let copies = terms.iter().map(|(a, d)| Ok((copy(a)?, copy(d)?))).collect::<Result<Vec<_>>>()?;
                let terms: Vec<_> = copies.iter().map(|(a, delta)| (a, delta)).collect();
                let mut sum = copy(grad)?;
                plain.conv_weight_grad(layer, &terms, &copy(bias_of)?, &mut sum)?;
                grad.data.copy_from_slice(&plain.download(&sum)?);
                return Ok(());
            }
        }
        self.bias_gradient(layer, bias_of, grad);
        Ok(())
    }

    fn l1(&self, output: &CpuTensor, target: &CpuTensor, core: Window, count: usize) -> Result<(f64, CpuTensor)> {
        let shape = output.shape;
        assert_eq!(shape, target.shape, "output and target");
        let mut delta = self.tensor(shape);
        let step = 1.0 / count as f32;
        let row = shape.w * shape.c;
        let pointer = SendPointer(delta.data.as_mut_ptr());
        let mut sums = vec![0.0f64; shape.n * shape.h];
        let sum_pointer = sums.as_mut_ptr() as usize;
        let inside = core.x * shape.c..(core.x + core.width) * shape.c;
        self.parallel(shape.n * shape.h, 0, &|line, _| {
            let pointer = &pointer;
            // SAFETY: each job has its own row of δ and its own sum; both live until all are done.
            let delta = unsafe { std::slice::from_raw_parts_mut(pointer.0.add(line * row), row) };
            delta.fill(0.0);
            if !(core.y..core.y + core.height).contains(&(line % shape.h)) {
                return;
            }
            let (output, target) = (&output.data[line * row..][..row], &target.data[line * row..][..row]);
            let mut sum = 0.0f64;
            for i in inside.clone() {
                let difference = output[i] - target[i];
                sum += f64::from(difference.abs());
                delta[i] = if difference > 0.0 {
                    step
                } else if difference < 0.0 {
                    -step
                } else {
                    0.0
                };
            }
            // SAFETY: as above.
            unsafe { *(sum_pointer as *mut f64).add(line) = sum };
        });
        Ok((sums.iter().sum::<f64>() / count as f64, delta))
    }

    fn axpy(&self, places: Range<usize>, alpha: f64, x: &CpuTensor, y: &mut CpuTensor) -> Result<()> {
        let alpha = alpha as f32;
        y.data[places.clone()].iter_mut().zip(&x.data[places]).for_each(|(y, &x)| *y += alpha * x);
        Ok(())
    }

    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut CpuTensor) -> Result<()> {
        let alpha = alpha as f32;
        y.data[places].iter_mut().for_each(|y| *y *= alpha);
        Ok(())
    }

    fn dot(&self, places: Range<usize>, x: &CpuTensor, y: &CpuTensor) -> Result<f64> {
        Ok(x.data[places.clone()].iter().zip(&y.data[places]).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum())
    }

    fn adam(
        &self,
        step: AdamStep,
        grad: &CpuTensor,
        first: &mut CpuTensor,
        second: &mut CpuTensor,
        params: &mut CpuTensor,
    ) -> Result<()> {
        let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
        let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let (rate, epsilon) = (step.rate as f32, step.epsilon as f32);
        let moments = first.data.iter_mut().zip(second.data.iter_mut());
        for ((param, &g), (m, v)) in params.data.iter_mut().zip(grad.data.iter()).zip(moments) {
            *m = b1 * *m + rest1 * g;
            *v = b2 * *v + rest2 * g * g;
            *param -= rate * *m / (v.sqrt() + epsilon);
        }
        Ok(())
    }
}
