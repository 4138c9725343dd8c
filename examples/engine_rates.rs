//! How fast the CPU engine runs the network: GFLOP/s, counted as direct convolution, and their
//! ratio to the processor's peak of multiply-adds, measured back to back.
//!
//! `cargo run --release --example engine_rates [-- SECONDS]`

use mzsr::Result;
use mzsr::engine::cpu::{CpuEngine, CpuTensor, Level, measure_fma_peak};
use mzsr::engine::{Engine, Gate, Layer, Shape, Window};
use std::time::{Duration, Instant};

/// The eight layers and the number of parameters.
fn layers() -> (Vec<Layer>, usize) {
    let mut next = 0;
    let layers = (0..8)
        .map(|i| {
            let (input, output) = (if i == 0 { 3 } else { 64 }, if i == 7 { 3 } else { 64 });
            let layer = Layer { input, output, weight: next, bias: next + 9 * input * output };
            next = layer.bias + output;
            layer
        })
        .collect();
    (layers, next)
}

/// The activations of all layers, the input first.
fn forward(engine: &CpuEngine, layers: &[Layer], params: &CpuTensor, x: &CpuTensor) -> Result<Vec<CpuTensor>> {
    let mut a: Vec<CpuTensor> = Vec::new();
    for (i, &layer) in layers.iter().enumerate() {
        let last = i + 1 == layers.len();
        let gate = if last { Gate::Linear } else { Gate::Relu };
        a.push(engine.conv(layer, &[(a.last().unwrap_or(x), params)], Some(params), gate, last.then_some(x))?);
    }
    Ok(a)
}

/// Only the output, each activation dropped as soon as it is used.
fn output(engine: &CpuEngine, layers: &[Layer], params: &CpuTensor, x: &CpuTensor) -> Result<CpuTensor> {
    let mut a = None;
    for (i, &layer) in layers.iter().enumerate() {
        let last = i + 1 == layers.len();
        let gate = if last { Gate::Linear } else { Gate::Relu };
        let input = a.as_ref().unwrap_or(x);
        a = Some(engine.conv(layer, &[(input, params)], Some(params), gate, last.then_some(x))?);
    }
    Ok(a.expect("eight layers"))
}

fn gradient(
    engine: &CpuEngine,
    layers: &[Layer],
    params: &CpuTensor,
    x: &CpuTensor,
    y: &CpuTensor,
    grad: &mut CpuTensor,
) -> Result<()> {
    let a = forward(engine, layers, params, x)?;
    let shape = engine.shape(y);
    let core = Window { y: 0, x: 0, height: shape.h, width: shape.w };
    let (_, mut delta) = engine.l1(&a[7], y, core, shape.len())?;
    for i in (0..layers.len()).rev() {
        let input = if i == 0 { x } else { &a[i - 1] };
        engine.conv_weight_grad(layers[i], &[(input, &delta)], &delta, grad)?;
        if i > 0 {
            delta = engine.conv_input_grad(layers[i], &[(&delta, params)], Gate::Where(input))?;
        }
    }
    Ok(())
}

/// The shortest time of `work` in some seconds of repetition.
fn best(limit: Duration, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed() < limit {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn main() -> Result<()> {
    let seconds: f64 = std::env::args().nth(1).and_then(|value| value.parse().ok()).unwrap_or(3.0);
    let limit = Duration::from_secs_f64(seconds);
    let level = Level::detect()?;
    let (layers, count) = layers();
    let params: Vec<f32> = (0..count).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.08).collect();
    for threads in [1, 2] {
        let engine = CpuEngine::with_level(level, Some(threads))?;
        for shape in [Shape::new(1, 256, 256, 3), Shape::new(16, 64, 64, 3), Shape::new(1, 64, 64, 3)] {
            let data: Vec<f32> = (0..shape.len()).map(|i| (i * 31 % 257) as f32 / 256.0).collect();
            let x = engine.upload(shape, &data)?;
            let y = engine.upload(shape, &data.iter().map(|value| value * 0.9 + 0.05).collect::<Vec<_>>())?;
            let params = engine.upload(Shape::flat(count), &params)?;
            let mut grad = engine.zeros(Shape::flat(count))?;
            let pixels = (shape.n * shape.h * shape.w) as f64;
            let pass: f64 = layers.iter().map(|layer| (18 * layer.input * layer.output) as f64 * pixels).sum();
            let first = (18 * layers[0].input * layers[0].output) as f64 * pixels;
            let mut peak = measure_fma_peak(level, threads);
            let only_forward = pass / best(limit, || output(&engine, &layers, &params, &x).map(drop))? / 1e9;
            peak = peak.max(measure_fma_peak(level, threads));
            let time = best(limit, || gradient(&engine, &layers, &params, &x, &y, &mut grad))?;
            let both = (3.0 * pass - first) / time / 1e9;
            peak = peak.max(measure_fma_peak(level, threads));
            println!(
                "{}, {} x {} x {}: peak {peak:.0}, forward {only_forward:.0} ({:.2}), forward + backward {both:.0} ({:.2})",
                engine.name(),
                shape.n,
                shape.h,
                shape.w,
                only_forward / peak,
                both / peak
            );
        }
    }
    Ok(())
}
