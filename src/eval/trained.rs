//! Networks that are trained on the small picture alone: ZSSR (Shocher, Cohen and Irani, CVPR
//! 2018), and the same from weights that know other pictures already.
//!
//! The small picture is the father, what the degradation makes of it the son. A father is turned
//! before it is degraded, so that every pair has the kernel in its own orientation and the sampling
//! in its own phase; the son is enlarged on the grid that the degradation samples, so that there is
//! no shift to learn and turned pictures stay in place.

use crate::adapt::back_project;
use crate::adapt::geometry::Turn;
use crate::degrade::{Degradation, high_size};
use crate::engine::{AdamStep, Engine, Shape, Window};
use crate::network::{Architecture, Network};
use crate::train::random::{Purpose, below, generator, normal};
use crate::{Error, Raster, Result};

/// The side of a crop of a pair.
const CROP: usize = 128;
/// Steps between two looks at how well the father is reconstructed.
const LOOK: usize = 50;
/// Steps between two decisions about the rate.
const DECIDE: usize = 60;
/// Steps at a rate before it may fall.
const LEAST: usize = 256;
/// Looks that the line is fitted to: those of about 256 steps.
const FITTED: usize = 5;
/// The line falls if this times its slope's size is above the slope's standard deviation.
const CONFIDENCE: f64 = 1.5;
/// The rate at which nothing more is learnt.
const LAST_RATE: f64 = 1e-6;
/// Back-projections of every output, and of their median.
const BACK_PROJECTIONS: usize = 10;
/// Smaller pictures cannot be fathers.
const SMALLEST: usize = 16;

/// How a network is trained on a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training<'a> {
    /// The network.
    pub architecture: &'a Architecture,
    /// Its first weights; random ones if none.
    pub initial: Option<&'a [f32]>,
    /// At most so many steps; from given weights exactly so many.
    pub steps: usize,
    /// Adam's first rate.
    pub rate: f64,
    /// Of the random weights and crops.
    pub seed: u64,
}

/// A father and its enlarged son, of the same size.
struct Pair {
    input: Raster<f32>,
    target: Raster<f32>,
}

impl Training<'_> {
    /// Trains on `low` (RGB in [0, 1]) and enlarges it: round(s · size) on each axis, in [0, 1].
    ///
    /// From random weights (ZSSR) the result is the median over the flips and rotations that leave
    /// the kernel as it is, back-projected; from given weights it is the network's output.
    ///
    /// # Errors
    /// A picture smaller than 16 × 16 or than the kernel, a loss that is not finite, a failing engine.
    pub fn enlarge<E: Engine<Elem = f32>>(
        &self,
        engine: &E,
        low: &Raster<f32>,
        degradation: &Degradation,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Raster<f32>> {
        if low.height.min(low.width) < SMALLEST {
            let (w, h) = (low.width, low.height);
            return Err(Error::input(format!(
                "{w} x {h} pixels are too few to learn from; {SMALLEST} a side are needed"
            )));
        }
        if let Some(kernel) = degradation.kernel() {
            kernel.check_fits(low.height, low.width)?;
        }
        let network = Network::new(engine, self.architecture);
        let params = self.train(&network, low, degradation, progress)?;
        let (height, width) = (high_size(low.height, degradation.scale()), high_size(low.width, degradation.scale()));
        let start = degradation.aligned_window(low, 0..height, 0..width);
        if self.initial.is_some() {
            return output(&network, &params, &start);
        }
        let mut outputs = Vec::new();
        for turn in Turn::all() {
            if fits(turn, degradation)? {
                let mut made = turn.undo(&output(&network, &params, &turn.apply(&start))?);
                for _ in 0..BACK_PROJECTIONS {
                    back_project(&mut made, low, degradation);
                }
                outputs.push(made);
            }
        }
        let mut result = median(&outputs);
        for _ in 0..BACK_PROJECTIONS {
            back_project(&mut result, low, degradation);
        }
        Ok(result)
    }

    fn train<E: Engine<Elem = f32>>(
        &self,
        network: &Network<'_, E>,
        low: &Raster<f32>,
        degradation: &Degradation,
        progress: &mut dyn FnMut(f64),
    ) -> Result<E::Tensor> {
        let engine = network.engine();
        let pairs: Vec<Pair> = Turn::all().map(|turn| pair(turn.apply(low), degradation)).collect();
        let flat = Shape::flat(self.architecture.parameter_count());
        let first = self.initial.map_or_else(|| random_weights(self.architecture, self.seed), <[f32]>::to_vec);
        let mut params = engine.upload(flat, &first)?;
        let (mut moment, mut second) = (engine.zeros(flat)?, engine.zeros(flat)?);
        let mut gradient = engine.zeros(flat)?;
        let (mut rate, mut changed) = (self.rate, 0);
        let mut looks: Vec<(f64, f64)> = Vec::new();
        for step in 1..=self.steps {
            let mut random = generator(self.seed, Purpose::Patch, step as u64, 0);
            let pair = &pairs[below(&mut random, pairs.len())];
            let (height, width) = (CROP.min(pair.target.height), CROP.min(pair.target.width));
            let y = below(&mut random, pair.target.height - height + 1);
            let x = below(&mut random, pair.target.width - width + 1);
            let shape = Shape::new(1, height, width, 3);
            let input = engine.upload(shape, &pair.input.crop(y, x, height, width).data)?;
            let target = engine.upload(shape, &pair.target.crop(y, x, height, width).data)?;
            engine.scale(0..flat.len(), 0.0, &mut gradient)?;
            let whole = Window { y: 0, x: 0, height, width };
            let loss = network.loss_and_gradient(&params, &input, &target, whole, shape.len(), &mut gradient)?;
            if !loss.is_finite() {
                return Err(Error::Numeric(format!("step {step}: the loss is not finite: the weights do not fit")));
            }
            let adam = AdamStep::new(rate, 0.9, 0.999, 1e-8, step as u64);
            engine.adam(adam, &gradient, &mut moment, &mut second, &mut params)?;
            progress(step as f64 / self.steps as f64);
            if step % LOOK == 0 {
                let made = output(network, &params, &pairs[0].input)?;
                looks.push((step as f64, squared_error(&made, &pairs[0].target)));
            }
            if step % DECIDE == 0 && step - changed > LEAST && stalls(&looks[looks.len().saturating_sub(FITTED)..]) {
                (rate, changed) = (rate / 10.0, step);
                // The literal 1e-6 is not exactly what three divisions leave of 1e-3.
                if rate < LAST_RATE * 1.5 && self.initial.is_none() {
                    break;
                }
            }
        }
        Ok(params)
    }
}

/// The father with its son, enlarged.
fn pair(father: Raster<f32>, degradation: &Degradation) -> Pair {
    let son = degradation.apply(&father).map(|v| v.clamp(0.0, 1.0));
    let input = degradation.aligned_window(&son, 0..father.height, 0..father.width);
    Pair { input, target: father }
}

/// Whether a turned picture has the same blur: only then has the network learnt to undo it.
fn fits(turn: Turn, degradation: &Degradation) -> Result<bool> {
    let turned = degradation.turned(turn.transpose, turn.vertical, turn.horizontal)?;
    Ok(match (degradation.kernel(), turned.kernel()) {
        (Some(a), Some(b)) => {
            (a.height, a.width) == (b.height, b.width) && a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-6)
        }
        (a, b) => a.is_none() && b.is_none(),
    })
}

/// x + f(x), clipped to [0, 1].
fn output<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    input: &Raster<f32>,
) -> Result<Raster<f32>> {
    let engine = network.engine();
    let shape = Shape::new(1, input.height, input.width, 3);
    let made = engine.download(&network.output(params, &engine.upload(shape, &input.data)?)?)?;
    if made.iter().any(|v| !v.is_finite()) {
        return Err(Error::Numeric("the trained network's output is not finite".into()));
    }
    Ok(Raster::from_vec(input.height, input.width, 3, made).map(|v| v.clamp(0.0, 1.0)))
}

/// He's (2015) normal weights, the last layer's a tenth, so that the network begins near its input.
fn random_weights(architecture: &Architecture, seed: u64) -> Vec<f32> {
    let layers = architecture.layers();
    let mut params = vec![0.0; architecture.parameter_count()];
    for (l, layer) in layers.iter().enumerate() {
        let mut random = generator(seed, Purpose::Weights, 0, l as u64);
        let gain = if l == 0 { 1.0 } else { 2.0 };
        let last = if l + 1 == layers.len() { 0.1 } else { 1.0 };
        let size = last * (gain / (9.0 * layer.input as f64)).sqrt();
        params[layer.weight_range()].iter_mut().for_each(|v| *v = (size * normal(&mut random)) as f32);
    }
    params
}

fn squared_error(a: &Raster<f32>, b: &Raster<f32>) -> f64 {
    let sum: f64 = a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    sum / a.data.len() as f64
}

/// Whether a line through (step, error) does not fall clearly: its slope is not below zero by
/// more than its standard deviation over [`CONFIDENCE`].
fn stalls(looks: &[(f64, f64)]) -> bool {
    let n = looks.len() as f64;
    if looks.len() < 3 {
        return false;
    }
    let (mx, my) = (looks.iter().map(|p| p.0).sum::<f64>() / n, looks.iter().map(|p| p.1).sum::<f64>() / n);
    let sxx: f64 = looks.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let slope = looks.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / sxx;
    let left: f64 = looks.iter().map(|p| (p.1 - my - slope * (p.0 - mx)).powi(2)).sum();
    let deviation = (left / (n - 2.0) / sxx).sqrt();
    -CONFIDENCE * slope < deviation
}

/// Value by value; the mean of the middle two of an even number.
fn median(pictures: &[Raster<f32>]) -> Raster<f32> {
    let mut result = pictures[0].clone();
    let mut values = vec![0.0f32; pictures.len()];
    for (i, out) in result.data.iter_mut().enumerate() {
        values.iter_mut().zip(pictures).for_each(|(value, picture)| *value = picture.data[i]);
        values.sort_by(f32::total_cmp);
        let middle = values.len() / 2;
        *out = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Downsample;
    use crate::engine::cpu::CpuEngine;
    use crate::kernel::Kernel;

    fn blur(l1: f64, l2: f64, theta: f64) -> Degradation {
        Degradation::new(2.0, Some(Kernel::gaussian(l1, l2, theta, 9)), Downsample::Direct).unwrap()
    }

    #[test]
    fn only_turns_that_keep_the_kernel_are_taken() {
        let count = |d: &Degradation| Turn::all().filter(|&turn| fits(turn, d).unwrap()).count();
        assert_eq!(count(&blur(2.0, 2.0, 0.0)), 8);
        assert_eq!(count(&blur(4.0, 1.0, -0.5)), 2);
        assert_eq!(count(&blur(4.0, 1.0, 0.0)), 4);
        assert_eq!(count(&Degradation::new(2.0, None, Downsample::Bicubic).unwrap()), 8);
    }

    #[test]
    fn a_falling_error_does_not_stall_and_a_flat_one_does() {
        let looks = |f: fn(f64) -> f64| (1..=5).map(|i| (50.0 * f64::from(i), f(f64::from(i)))).collect::<Vec<_>>();
        assert!(!stalls(&looks(|i| 1.0 - 0.1 * i)));
        assert!(stalls(&looks(|i| 1.0 + 0.1 * i)));
        assert!(stalls(&looks(|i| if i < 2.0 || i == 3.0 || i == 5.0 { 1.0 } else { 1.1 })));
        assert!(!stalls(&[(1.0, 1.0)]));
    }

    #[test]
    fn medians() {
        let one = |v: f32| Raster::from_vec(1, 1, 1, vec![v]);
        assert_eq!(median(&[one(3.0), one(1.0), one(2.0)]).data, [2.0]);
        assert_eq!(median(&[one(3.0), one(1.0), one(2.0), one(9.0)]).data, [2.5]);
    }

    /// A small network on a drawn picture comes nearer to the truth than its start, and two runs
    /// are the same.
    #[test]
    fn a_network_learns_from_the_small_picture_alone() {
        let truth = super::super::sets::draw(96).map(|v| f32::from(v) / 255.0);
        let degradation = blur(1.0, 1.0, 0.0);
        let low = degradation.apply(&truth);
        let architecture = Architecture::new(vec![3, 16, 16, 3]).unwrap();
        let engine = CpuEngine::new(Some(1)).unwrap();
        let training = Training { architecture: &architecture, initial: None, steps: 150, rate: 1e-3, seed: 1 };
        let mut share = 0.0;
        let made = training.enlarge(&engine, &low, &degradation, &mut |s| share = s).unwrap();
        let start = degradation.aligned_window(&low, 0..96, 0..96);
        let (before, after) = (squared_error(&start, &truth), squared_error(&made, &truth));
        assert!(after < 0.7 * before && share == 1.0, "{before} {after}");
        assert_eq!(training.enlarge(&engine, &low, &degradation, &mut |_| {}).unwrap(), made);
        let tiny = low.crop(0, 0, 8, 8);
        assert!(training.enlarge(&engine, &tiny, &degradation, &mut |_| {}).is_err());
    }
}
