//! Whether what is timed is right.

use crate::engine::plain::PlainEngine;
use crate::engine::{Engine, Shape, Window};
use crate::network::{Architecture, Network};
use crate::{Error, Result};
use serde::Serialize;

/// How far an output may be from the plain engine's, and a gradient; relative, as a whole. A
/// gradient's bound is wide because a value near zero may fall on the other side of a ReLU.
const OUTPUT_BOUND: f64 = 2e-5;
const GRADIENT_BOUND: f64 = 2e-3;
/// Pixels that the eight layers see beyond their own.
const SEEN: usize = 8;

/// A result beside the plain engine's in f64.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// ‖result − truth‖ / ‖truth‖.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Check {
    /// A comparison, or the error that it fails with.
    fn new(what: String, result: &[f64], truth: &[f64], bound: f64) -> Result<Self> {
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let error =
            (square(&mut result.iter().zip(truth).map(|(a, b)| a - b)) / square(&mut truth.iter().copied())).sqrt();
        if error <= bound && result.len() == truth.len() {
            return Ok(Check { what, error, bound });
        }
        Err(Error::Numeric(format!(
            "{what} is {error:.1e} from the plain engine's, more than {bound:.0e}: what this device computes is \
             wrong, and no rates are reported (MZSR_CPU=baseline avoids a processor's vector instructions, --device \
             cpu a GPU)"
        )))
    }
}

/// What is timed: the network and its input and target on the engine, and the same as values.
pub struct Subject<'a, E: Engine> {
    pub network: &'a Network<'a, E>,
    pub shape: Shape,
    pub parameters: &'a [f32],
    pub input: &'a [f32],
    pub target: &'a [f32],
}

impl<E: Engine<Elem = f32>> Subject<'_, E> {
    /// Compares the last corner of the output, and the gradient of the loss over that corner.
    pub fn check(&self, params: &E::Tensor, x: &E::Tensor, y: &E::Tensor) -> Result<[Check; 2]> {
        let Shape { n, h, w, c } = self.shape;
        let engine = self.network.engine();
        // Fewer pixels of more pictures: the plain engine is slow.
        let side = 16 / n.isqrt();
        let core = Window { y: h - side, x: w - side, height: side, width: side };
        let seen = Window { y: core.y - SEEN, x: core.x - SEEN, height: side + SEEN, width: side + SEEN };

        let truth = Truth::new(self, seen)?;
        let inner = Window { y: SEEN, x: SEEN, ..core };
        let small = Shape::new(n, seen.height, seen.width, c);
        let batch = format!("{n} × {h} × {w}");
        let output = wide(&engine.download(&self.network.output(params, x)?)?);
        let output = Check::new(
            format!("output of {batch}"),
            &crop(&output, self.shape, core),
            &crop(&truth.output, small, inner),
            OUTPUT_BOUND,
        )?;

        let count = n * side * side * c;
        let mut grad = engine.zeros(Shape::flat(self.parameters.len()))?;
        self.network.loss_and_gradient(params, x, y, core, count, &mut grad)?;
        let grad = wide(&engine.download(&grad)?);
        let gradient =
            Check::new(format!("gradient of {batch}"), &grad, &truth.gradient(inner, count)?, GRADIENT_BOUND)?;
        Ok([output, gradient])
    }
}

/// The plain engine's view of a part of the pictures.
struct Truth {
    shape: Shape,
    parameters: Vec<f64>,
    input: Vec<f64>,
    target: Vec<f64>,
    output: Vec<f64>,
}

const PLAIN: PlainEngine<f64> = PlainEngine::new();

impl Truth {
    fn new<E: Engine>(subject: &Subject<'_, E>, seen: Window) -> Result<Self> {
        let shape = Shape { h: seen.height, w: seen.width, ..subject.shape };
        let part = |values: &[f32]| crop(&wide(values), subject.shape, seen);
        let mut truth = Truth {
            shape,
            parameters: wide(subject.parameters),
            input: part(subject.input),
            target: part(subject.target),
            output: Vec::new(),
        };
        let architecture = Architecture::mzsr();
        let network = Network::new(&PLAIN, &architecture);
        let params = PLAIN.upload(Shape::flat(truth.parameters.len()), &truth.parameters)?;
        truth.output = PLAIN.download(&network.output(&params, &PLAIN.upload(shape, &truth.input)?)?)?;
        Ok(truth)
    }

    fn gradient(&self, core: Window, count: usize) -> Result<Vec<f64>> {
        let architecture = Architecture::mzsr();
        let network = Network::new(&PLAIN, &architecture);
        let flat = Shape::flat(self.parameters.len());
        let params = PLAIN.upload(flat, &self.parameters)?;
        let [x, y] = [&self.input, &self.target].map(|values| PLAIN.upload(self.shape, values));
        let mut grad = PLAIN.zeros(flat)?;
        network.loss_and_gradient(&params, &x?, &y?, core, count, &mut grad)?;
        PLAIN.download(&grad)
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The pixels of a window in each picture.
fn crop(values: &[f64], shape: Shape, window: Window) -> Vec<f64> {
    let Shape { n, h, w, c } = shape;
    let rows = (0..n).flat_map(|i| (window.y..window.y + window.height).map(move |y| i * h + y));
    rows.flat_map(|row| &values[(row * w + window.x) * c..][..window.width * c]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_an_error() {
        let check = |result: &[f64]| Check::new("sum".into(), result, &[3.0, 4.0], 0.1);
        assert!((check(&[3.0, 4.3]).unwrap().error - 0.06).abs() < 1e-12);
        for wrong in [&[3.0, 5.0][..], &[f64::NAN, 4.0], &[3.0]] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(error.contains("sum") && error.contains("MZSR_CPU=baseline"), "{error}");
        }
    }

    #[test]
    fn windows_of_each_picture() {
        let shape = Shape::new(2, 2, 3, 1);
        let values: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(crop(&values, shape, Window { y: 1, x: 1, height: 1, width: 2 }), [4.0, 5.0, 10.0, 11.0]);
    }
}
