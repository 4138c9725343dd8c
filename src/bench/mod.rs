//! How fast this machine runs the network, in one run: the processor's peak of multiply-adds, the
//! rates of the engine beside it, and the time of a whole restoration and of a task of a meta-step.
//! Nothing is reported unless the very tensors that are timed give the plain engine's results.

mod check;
mod rates;

pub use check::Check;
pub use rates::{Phase, Rate};

use crate::adapt::{Course, Plan, Rates, Restorer};
use crate::degrade::{Degradation, Downsample};
use crate::engine::{AnyEngine, Device, Engine, Shape};
use crate::network::{Architecture, Network};
use crate::train::meta::{Inner, Task, meta_gradient};
use crate::{Raster, Result};
use rand::RngExt;
use rand_pcg::Pcg64;
use serde::Serialize;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Where; `auto` is the processor here.
    pub device: Device,
    /// Threads; one a core if not given.
    pub threads: Option<usize>,
    /// About how long each of the measurements takes; each is made at least once.
    pub seconds: f64,
    /// Whether restorations and meta-training are timed too.
    pub whole: bool,
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the measurements are below it.
    pub median: f64,
    /// The best: the highest rate, the shortest time.
    pub best: f64,
    /// How many there are.
    pub runs: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// Engine, level and threads, for people.
    pub engine: String,
    /// The processor's instruction set in use; absent for a GPU, as what follows.
    pub level: Option<&'static str>,
    /// Threads.
    pub threads: Option<usize>,
    /// The peak of multiply-adds, GFLOP/s; measured before each of the rates.
    pub peak: Option<Spread>,
    /// The engine's rates.
    pub rates: Vec<Rate>,
    /// Seconds of one update on 256 × 256 pixels and their enlargement to 512 × 512, files left out.
    pub upscale_once: Option<Spread>,
    /// The same of ten updates.
    pub upscale: Option<Spread>,
    /// Seconds of a task of a meta-step as the paper has it: 8 patches of 64 × 64 to learn from in five
    /// updates and 8 to be judged by after each, exact second order, tensors on the device.
    pub meta: Option<Spread>,
    /// How far results are from the plain engine's.
    pub checks: Vec<Check>,
}

/// Measures.
///
/// # Errors
/// Results that are wrong, an unknown `MZSR_CPU`, or no threads.
pub fn run(request: Request) -> Result<Report> {
    let engine = AnyEngine::open(request.device, request.threads, 0.0)?;
    let cpu = engine.cpu().map(|engine| (engine.level().name(), engine.threads()));
    let parameters = parameters(&Architecture::mzsr());
    let (peak, rates, checks) = rates::measure(&engine, &parameters, request.seconds)?;
    let upscale = |updates| upscale(&engine, &parameters, updates, request.seconds);
    let [upscale_once, upscale, meta] = match request.whole {
        true => [Some(upscale(1)?), Some(upscale(10)?), Some(meta(&engine, &parameters, request.seconds)?)],
        false => [None; 3],
    };
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        engine: engine.name(),
        level: cpu.map(|(level, _)| level),
        threads: cpu.map(|(_, threads)| threads),
        peak,
        rates,
        upscale_once,
        upscale,
        meta,
        checks,
    })
}

/// The time of a restoration with random weights: what is computed does not depend on their values.
fn upscale(engine: &AnyEngine, parameters: &[f32], updates: usize, seconds: f64) -> Result<Spread> {
    const SIDE: usize = 256;
    let degradation = Degradation::new(2.0, None, Downsample::Bicubic)?;
    let network = Network::new(engine, &Architecture::mzsr());
    let photo = Raster::from_vec(SIDE, SIDE, 3, random(3, SIDE * SIDE * 3).map(|v| v as f32).collect());
    let restorer = Restorer {
        network: &network,
        parameters,
        course: Course::default(),
        degradation: &degradation,
        rates: &Rates::by_update(&[1e-6]),
        updates,
        // An update made again would count twice.
        guard: false,
        adapt_pixels: SIDE * SIDE,
        plan: Plan::unlimited(),
        ensemble: false,
        back_project: 0,
    };
    let mut times = Vec::new();
    repeat(seconds, || {
        times.push(time(|| restorer.restore(&photo, &mut |_| {}, &mut |_, _| Ok(())).map(drop))?);
        Ok(())
    })?;
    Ok(Spread::of_times(&times))
}

/// The time of the meta-gradient of a task.
fn meta(engine: &AnyEngine, parameters: &[f32], seconds: f64) -> Result<Spread> {
    const UPDATES: usize = 5;
    let network = Network::new(engine, &Architecture::mzsr());
    let params = engine.upload(Shape::flat(parameters.len()), parameters)?;
    let shape = Shape::new(8, 64, 64, 3);
    let patches = |seed| engine.upload(shape, &random(seed, shape.len()).map(|v| v as f32).collect::<Vec<_>>());
    let task = Task { x_train: patches(4)?, y_train: patches(5)?, x_test: patches(6)?, y_test: patches(7)? };
    // Rates that change nothing of what is computed but leave the numbers as they are.
    let rates = vec![vec![1e-6; network.layers().len()]; UPDATES];
    let weights = [1.0 / UPDATES as f64; UPDATES];
    let inner = Inner { rates: &rates, weights: &weights, before: 0.0, second_order: true };
    let mut times = Vec::new();
    repeat(seconds, || {
        let taken = time(|| {
            meta_gradient(&network, &params, &task, &inner)?;
            engine.finish()
        })?;
        times.push(taken);
        Ok(())
    })?;
    Ok(Spread::of_times(&times))
}

/// Weights that keep the size of what passes through them (He et al., 2015), but for the last
/// layer, whose output is small as that of trained ones.
fn parameters(architecture: &Architecture) -> Vec<f32> {
    let mut values = vec![0.0; architecture.parameter_count()];
    let layers = architecture.layers();
    for (l, layer) in layers.iter().enumerate() {
        let size = (6.0 / (9 * layer.input) as f64).sqrt() * if l + 1 == layers.len() { 0.1 } else { 1.0 };
        let places = layer.weight_range();
        for (value, v) in values[places.clone()].iter_mut().zip(random(l as u64, places.len())) {
            *value = ((2.0 * v - 1.0) * size) as f32;
        }
    }
    values
}

/// Uniform in [0, 1), the same each time.
fn random(seed: u64, count: usize) -> impl Iterator<Item = f64> {
    let mut generator = Pcg64::new(u128::from(seed) << 64 | 0x1234_5678_9abc_def0, 0x0a02_bdbf_7bb3_c0a7);
    (0..count).map(move |_| generator.random::<f64>())
}

/// Calls `work` once, and again until so many seconds have passed.
fn repeat(seconds: f64, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        work()?;
        if begin.elapsed().as_secs_f64() >= seconds {
            return Ok(());
        }
    }
}

/// The seconds that `work` takes.
fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

impl Spread {
    /// Of times: the shortest is the best.
    fn of_times(values: &[f64]) -> Self {
        Spread { best: values.iter().copied().fold(f64::INFINITY, f64::min), ..Self::of_rates(values) }
    }

    /// Of rates: the highest is the best.
    fn of_rates(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Spread { median: (at(low) + at(high)) / 2.0, best: at(sorted.len().wrapping_sub(1)), runs: sorted.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_bests() {
        let odd = [3.0, 1.0, 2.0];
        assert_eq!(Spread::of_rates(&odd), Spread { median: 2.0, best: 3.0, runs: 3 });
        assert_eq!(Spread::of_times(&odd), Spread { median: 2.0, best: 1.0, runs: 3 });
        assert_eq!(Spread::of_rates(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of_rates(&[5.0]).median, 5.0);
    }
}
