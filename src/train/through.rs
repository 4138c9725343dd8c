//! The gradient through all passes of a course and the data steps between them.

use super::patches::{Batch, Case};
use super::recipe::Recipe;
use crate::Result;
use crate::adapt::Course;
use crate::degrade::Degradation;
use crate::engine::{Engine, Shape, Window, load};
use crate::network::{Fit, Network};

/// The weight of the loss after each pass but the last, whose weight is 1: without it the passes in
/// between would be free to make anything, and a course could not be cut short.
const EARLY: f64 = 0.15;

/// What is learned from: an LR picture, what its HR picture is, and what the first pass begins with.
pub(super) struct Pair<'a, T> {
    /// What made the HR picture small.
    pub degradation: &'a Degradation,
    /// 1 × h × w × 3.
    pub low: T,
    /// Of the HR picture's size, as the target.
    pub start: T,
    /// The HR picture.
    pub target: T,
}

/// The sum of the absolute errors after each pass and its data step, those before the last 0.15 times; the
/// gradient with respect to the parameters of pass p, `params[p]`, is added to `grads[p]`. (Sums and no
/// means: conjugate gradients stop at what is next to nothing.)
///
/// A data step is x = (DᵀD + μ)⁻¹ (Dᵀ y + μ x₁), so what has the gradient g with respect to x has
/// μ (DᵀD + μ)⁻¹ g with respect to x₁: the data step of g itself with y = 0. (Both by the same few steps of
/// conjugate gradients, which are not linear; what they leave is small.)
///
/// # Errors
/// A failing engine.
pub(super) fn gradient<E: Engine>(
    network: &Network<'_, E>,
    course: &Course,
    params: &[E::Tensor],
    pair: &Pair<'_, E::Tensor>,
    grads: &mut [E::Tensor],
) -> Result<f64> {
    let (engine, Pair { degradation, low, start, target }) = (network.engine(), pair);
    let shape = engine.shape(target);
    let whole = Window { y: 0, x: 0, height: shape.h, width: shape.w };
    let weight = |pass: usize| if pass + 1 == params.len() { 1.0 } else { EARLY };
    let (mut traces, mut inputs, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut x, mut z) = (engine.duplicate(start)?, None);
    for params in params {
        let (made, activations) = network.output_and_activations(params, &x)?;
        traces.push(activations);
        inputs.push(x);
        x = course.data_step(engine, degradation, low, made, &mut z)?;
        losses.push(engine.l1(&x, target, whole, 1)?);
    }
    let nothing = engine.zeros(engine.shape(low))?;
    let all = 0..shape.len();
    let mut sum = 0.0;
    // The gradient with respect to what the pass at hand makes, after its data step.
    let mut gradient = engine.zeros(shape)?;
    for pass in (0..params.len()).rev() {
        let (Some((loss, delta)), Some(activations), Some(input)) = (losses.pop(), traces.pop(), inputs.pop()) else {
            break;
        };
        engine.axpy(all.clone(), weight(pass), &delta, &mut gradient)?;
        let made = course.data_step(engine, degradation, &nothing, gradient, &mut None)?;
        gradient = network.pull_back(&params[pass], &input, activations, made, &mut grads[pass])?;
        sum += weight(pass) * engine.loss(loss)?;
    }
    Ok(sum)
}

/// The loss of a batch, in means; its gradient is added to `grad` (flat, of all passes).
pub(super) fn of_batch<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    recipe: &Recipe,
    batch: &Batch,
    grad: &mut E::Tensor,
) -> Result<f64> {
    let (engine, model, side) = (network.engine(), &recipe.model, recipe.data.patch);
    let (layout, fit) = (model.layout()?, Fit::new(network.layers()));
    let parameters = engine.download(params)?;
    let flat = Shape::flat(network.parameter_count());
    let shape = Shape::new(1, side, side, 3);
    let (mut sum, mut loss) = (vec![0.0; parameters.len()], 0.0);
    for (number, (case, low)) in batch.cases.iter().enumerate() {
        let (Case { degradation, .. }, course) = (case, case.course(model));
        let features = degradation.features(course.lambda);
        let fitted = layout.fitted(&parameters, model.passes, &features);
        let params = fitted.iter().map(|values| engine.upload(flat, values)).collect::<Result<Vec<_>>>()?;
        let mut grads = params.iter().map(|_| engine.zeros(flat)).collect::<Result<Vec<_>>>()?;
        let part = |values: &[f32]| engine.upload(shape, &values[number * shape.len()..][..shape.len()]);
        let (start, target) = (part(&batch.input)?, part(&batch.target)?);
        let pair = Pair { degradation, low: load(engine, low)?, start, target };
        loss += gradient(network, &course, &params, &pair, &mut grads)?;
        for (pass, own) in grads.iter().enumerate() {
            let mut own = engine.download(own)?;
            if model.fit {
                let one = layout.one(&parameters, pass);
                let mut back = vec![0.0; one.len()];
                fit.pull_back(&one, &features, &own, &mut back);
                own = back;
            }
            layout.add(&mut sum, pass, &own);
        }
    }
    let all = engine.upload(Shape::flat(sum.len()), &sum)?;
    let scale = 1.0 / batch.target.len() as f64;
    engine.axpy(0..sum.len(), scale, &all, grad)?;
    Ok(scale * loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Raster;
    use crate::degrade::{Downsample, LeastSquares, Start};
    use crate::engine::plain::{PlainEngine, PlainTensor};
    use crate::engine::{Shape, load};
    use crate::kernel::Kernel;
    use crate::network::Architecture;
    use crate::train::meta::tests::noise;

    const ENGINE: PlainEngine<f64> = PlainEngine::new();

    fn flat(values: &[f64]) -> PlainTensor<f64> {
        ENGINE.upload(Shape::flat(values.len()), values).unwrap()
    }

    /// Against differences of the loss, over one and three passes, on pixels and on cells of them.
    #[test]
    fn the_gradient_goes_through_passes_and_data_steps() {
        let kernel = Kernel::gaussian(0.5, 0.3, 0.4, 5);
        let degradation = Degradation::new(2.0, Some(kernel), Downsample::Direct).unwrap();
        let high = Raster::from_vec(12, 10, 3, noise(360, 3, 0.5));
        let low = degradation.apply(&high);
        for (ends, passes) in [(3, 1), (3, 3), (12, 2)] {
            let architecture = Architecture::new(vec![ends, 4, 4, ends]).unwrap();
            let network = Network::new(&ENGINE, &architecture);
            // So much that eight steps are as good as all.
            let course = Course { start: Start::LeastSquares, passes, fit: false, lambda: 0.3, mu_over_lambda: 3.0 };
            let rule = LeastSquares { lambda: 0.3, ..LeastSquares::default() };
            let start = rule.upscale_in::<f64, f64>(&degradation, &low, 12, 10);
            let load = |raster: &Raster<f64>| load(&ENGINE, raster).unwrap();
            let pair = Pair { degradation: &degradation, low: load(&low), start: load(&start), target: load(&high) };
            let count = architecture.parameter_count();
            let values: Vec<Vec<f64>> = (0..passes as u64).map(|pass| noise(count, 10 + pass, 0.3)).collect();
            let at = |values: &[Vec<f64>]| {
                let params: Vec<_> = values.iter().map(|values| flat(values)).collect();
                let mut grads: Vec<_> = values.iter().map(|values| flat(&vec![0.0; values.len()])).collect();
                let loss = gradient(&network, &course, &params, &pair, &mut grads).unwrap();
                (loss, grads.iter().flat_map(|grad| ENGINE.download(grad).unwrap()).collect::<Vec<_>>())
            };
            let (loss, made) = at(&values);
            assert!(loss.is_finite() && loss > 0.0);
            for seed in 20..24 {
                let direction = noise(count * passes, seed, 1.0);
                let moved = |step: f64| {
                    let moved = values.iter().flatten().zip(&direction).map(|(v, d)| v + step * d).collect::<Vec<_>>();
                    at(&moved.chunks(count).map(<[f64]>::to_vec).collect::<Vec<_>>()).0
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let exact: f64 = made.iter().zip(&direction).map(|(g, d)| g * d).sum();
                assert!((slope - exact).abs() < 2e-4 * exact.abs().max(1e-2), "{ends} {passes}: {slope} {exact}");
            }
        }
    }
}
