//! GFLOP/s of the engine.

use super::check::{Check, Subject};
use super::{Spread, random, repeat, time};
use crate::Result;
use crate::engine::cpu::measure_fma_peak;
use crate::engine::{AnyEngine, AnyTensor, Engine, Shape, Window};
use crate::network::{Architecture, Network};
use serde::Serialize;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Phase {
    /// The output.
    #[serde(rename = "forward")]
    Forward,
    /// The loss and its gradient with respect to all parameters.
    #[serde(rename = "forward+backward")]
    ForwardBackward,
}

/// How fast one of the phases is.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// What was timed.
    pub phase: Phase,
    /// Pictures, rows, columns.
    pub batch: [usize; 3],
    /// GFLOP/s, counted as direct convolution.
    pub gflops: Spread,
    /// The median rate over the median peak; absent for a GPU, whose peak is not measured.
    pub ratio: Option<f64>,
    /// The best rate over the best peak.
    pub best_ratio: Option<f64>,
}

/// A batch on the engine.
struct Batch {
    shape: Shape,
    x: AnyTensor,
    y: AnyTensor,
}

const BATCHES: [(usize, usize); 2] = [(1, 256), (16, 64)];
const PHASES: [Phase; 2] = [Phase::Forward, Phase::ForwardBackward];

/// Peak, rates, and the checks made before them. Phases, batches and the peak take turns, so that
/// what else the machine does meets them alike.
pub fn measure(
    engine: &AnyEngine,
    parameters: &[f32],
    seconds: f64,
) -> Result<(Option<Spread>, Vec<Rate>, Vec<Check>)> {
    let network = Network::new(engine, &Architecture::mzsr());
    let flat = Shape::flat(parameters.len());
    let params = engine.upload(flat, parameters)?;
    let (mut batches, mut checks) = (Vec::new(), Vec::new());
    for (n, side) in BATCHES {
        let shape = Shape::new(n, side, side, 3);
        let input: Vec<f32> = random(1, shape.len()).map(|v| v as f32).collect();
        // Far from any output, so that rounding does not change the sign of a difference.
        let target: Vec<f32> = random(2, shape.len()).map(|v| if v < 0.5 { -50.0 } else { 50.0 }).collect();
        let (x, y) = (engine.upload(shape, &input)?, engine.upload(shape, &target)?);
        let subject = Subject { network: &network, shape, parameters, input: &input, target: &target };
        checks.extend(subject.check(&params, &x, &y)?);
        batches.push(Batch { shape, x, y });
    }
    let mut jobs: Vec<(&Batch, Phase, Vec<f64>)> =
        batches.iter().flat_map(|batch| PHASES.map(|phase| (batch, phase, Vec::new()))).collect();
    let (mut peaks, mut grad) = (Vec::new(), engine.zeros(flat)?);
    repeat(seconds * jobs.len() as f64, || {
        for (batch, phase, rates) in &mut jobs {
            if let Some(engine) = engine.cpu() {
                peaks.push(measure_fma_peak(engine.level(), engine.threads()));
            }
            let taken = time(|| {
                work(&network, &params, batch, *phase, &mut grad)?;
                engine.finish()
            })?;
            rates.push(operations(&network, batch.shape, *phase) / taken / 1e9);
        }
        Ok(())
    })?;
    let peak = (!peaks.is_empty()).then(|| Spread::of_rates(&peaks));
    let rates = jobs.iter().map(|(batch, phase, rates)| {
        let gflops = Spread::of_rates(rates);
        let Shape { n, h, w, .. } = batch.shape;
        let (ratio, best_ratio) = (peak.map(|p| gflops.median / p.median), peak.map(|p| gflops.best / p.best));
        Rate { phase: *phase, batch: [n, h, w], gflops, ratio, best_ratio }
    });
    Ok((peak, rates.collect(), checks))
}

fn work(
    network: &Network<'_, AnyEngine>,
    params: &AnyTensor,
    batch: &Batch,
    phase: Phase,
    grad: &mut AnyTensor,
) -> Result<()> {
    let Batch { shape, x, y } = batch;
    match phase {
        Phase::Forward => network.output(params, x).map(drop),
        Phase::ForwardBackward => {
            let whole = Window { y: 0, x: 0, height: shape.h, width: shape.w };
            network.loss_and_gradient(params, x, y, whole, shape.len(), grad).map(drop)
        }
    }
}

/// The operations of a phase, were each convolution summed directly. Backward is two more
/// convolutions a layer; the input of the first needs no gradient.
fn operations(network: &Network<'_, AnyEngine>, shape: Shape, phase: Phase) -> f64 {
    let pixels = (shape.n * shape.h * shape.w) as f64;
    let layers = network.layers().iter().map(|layer| (18 * layer.input * layer.output) as f64 * pixels);
    let (forward, first) = (layers.clone().sum::<f64>(), layers.clone().next().unwrap_or(0.0));
    match phase {
        Phase::Forward => forward,
        Phase::ForwardBackward => 3.0 * forward - first,
    }
}
