//! Meta-gradients: how the loss after a few updates changes with the weights before them
//! (MAML; Finn, Abbeel and Levine, ICML 2017), exactly to second order.

use crate::Result;
use crate::engine::{Engine, Shape, Window};
use crate::network::{Network, Trace};

/// Values of activations and deltas (1 GiB in f32) that are kept for the Hessian-vector products of
/// a task; beyond, they are computed again.
const MAX_KEPT: usize = 1 << 28;

/// A task: pairs to learn from and pairs to be judged by, each n × h × w × 3.
pub struct Task<T> {
    /// What the updates see, as network input.
    pub x_train: T,
    /// What the updates aim at.
    pub y_train: T,
    /// What the outer loss sees.
    pub x_test: T,
    /// What the outer loss compares with.
    pub y_test: T,
}

/// How a meta-gradient is taken.
pub struct Inner<'a> {
    /// The rate of each layer in each update: `rates[k][l]`.
    pub rates: &'a [Vec<f64>],
    /// The weight of the outer loss after each update (as many as updates).
    pub weights: &'a [f64],
    /// The weight of the outer loss before any.
    pub before: f64,
    /// Whether the Hessian term is kept (exact), or left out (first order).
    pub second_order: bool,
}

/// A meta-gradient and what came with it.
pub struct MetaGradient<T> {
    /// Σ weight_k · L_test(θ_k), k = 0 … K, where weight₀ is [`Inner::before`].
    pub loss: f64,
    /// The losses on the training pairs before each update.
    pub inner_losses: Vec<f64>,
    /// The losses on the test pairs before any update and after each; only where the weight is not 0.
    pub outer_losses: Vec<Option<f64>>,
    /// With respect to the parameters before the first update (flat).
    pub gradient: T,
    /// With respect to the rates: `rates[k][l]`. (Along the trajectory as it was; exact in either
    /// case.)
    pub rate_gradient: Vec<Vec<f64>>,
    /// The parameters after the last update.
    pub adapted: T,
}

/// Loss and gradient over whole pictures.
fn gradient<E: Engine>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    x: &E::Tensor,
    y: &E::Tensor,
) -> Result<(f64, E::Tensor)> {
    let engine = network.engine();
    let shape = engine.shape(x);
    let whole = Window { y: 0, x: 0, height: shape.h, width: shape.w };
    let mut grad = engine.zeros(Shape::flat(network.parameter_count()))?;
    let loss = network.loss_and_gradient(params, x, y, whole, shape.len(), &mut grad)?;
    Ok((loss, grad))
}

/// The gradient of Σ_k w_k L_test(θ_k) with respect to θ₀ and to the rates, where
/// θ_{k+1} = θ_k − α_k ⊙ g_train(θ_k), k = 0 … K−1.
///
/// Backwards: u = w_K ∇L_test(θ_K); for k = K−1 … 0: ∂/∂α_k = −⟨g_k, u⟩ layer by layer, then
/// u ← u − H_train(θ_k)(α_k ⊙ u) + w_k ∇L_test(θ_k).
pub fn meta_gradient<E: Engine>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    task: &Task<E::Tensor>,
    inner: &Inner<'_>,
) -> Result<MetaGradient<E::Tensor>> {
    let engine = network.engine();
    let flat = Shape::flat(network.parameter_count());
    let places: Vec<_> = network.layers().iter().map(|layer| layer.weight..layer.bias_range().end).collect();

    let shape = engine.shape(&task.x_train);
    let kept = shape.n * shape.h * shape.w * network.trace_channels() * inner.rates.len();
    let keeps = inner.second_order && kept <= MAX_KEPT;

    let mut trajectory = vec![engine.duplicate(params)?];
    let (mut gradients, mut inner_losses) = (Vec::new(), Vec::new());
    let mut traces: Vec<Option<Trace<E::Tensor>>> = Vec::new();
    for rates in inner.rates {
        let here = &trajectory[trajectory.len() - 1];
        let (loss, gradient) = if keeps {
            let mut grad = engine.zeros(flat)?;
            let (loss, trace) = network.trace(here, &task.x_train, &task.y_train, Some(&mut grad))?;
            traces.push(Some(trace));
            (loss, grad)
        } else {
            traces.push(None);
            gradient(network, here, &task.x_train, &task.y_train)?
        };
        let mut next = engine.duplicate(here)?;
        for (places, rate) in places.iter().zip(rates) {
            engine.axpy(places.clone(), -rate, &gradient, &mut next)?;
        }
        inner_losses.push(loss);
        gradients.push(gradient);
        trajectory.push(next);
    }

    let mut outer_losses = vec![None; inner.rates.len() + 1];
    let mut sum = 0.0;
    let mut outer = |k: usize| -> Result<Option<(f64, E::Tensor)>> {
        // Weight k − 1 belongs to the parameters after k updates.
        let weight = k.checked_sub(1).map_or(inner.before, |k| inner.weights.get(k).copied().unwrap_or(0.0));
        if weight == 0.0 {
            return Ok(None);
        }
        let (loss, gradient) = gradient(network, &trajectory[k], &task.x_test, &task.y_test)?;
        sum += weight * loss;
        outer_losses[k] = Some(loss);
        Ok(Some((weight, gradient)))
    };
    let mut u = engine.zeros(flat)?;
    let mut rate_gradient = vec![Vec::new(); inner.rates.len()];
    for k in (0..=inner.rates.len()).rev() {
        if k < inner.rates.len() {
            let rates = &inner.rates[k];
            for places in &places {
                rate_gradient[k].push(-engine.dot(places.clone(), &gradients[k], &u)?);
            }
            if inner.second_order {
                let mut direction = engine.duplicate(&u)?;
                for (places, &rate) in places.iter().zip(rates) {
                    engine.scale(places.clone(), rate, &mut direction)?;
                }
                let mut product = engine.zeros(flat)?;
                match traces[k].take() {
                    Some(trace) => {
                        network.hessian_vector_along(
                            &trace,
                            &trajectory[k],
                            &direction,
                            &task.x_train,
                            &mut product,
                        )?;
                    }
                    None => {
                        network.hessian_vector(
                            &trajectory[k],
                            &direction,
                            &task.x_train,
                            &task.y_train,
                            &mut product,
                        )?;
                    }
                }
                engine.axpy(0..flat.len(), -1.0, &product, &mut u)?;
            }
        }
        if let Some((weight, gradient)) = outer(k)? {
            engine.axpy(0..flat.len(), weight, &gradient, &mut u)?;
        }
    }
    let adapted = match trajectory.pop() {
        Some(last) => last,
        None => engine.duplicate(params)?,
    };
    Ok(MetaGradient { loss: sum, inner_losses, outer_losses, gradient: u, rate_gradient, adapted })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::plain::PlainEngine;
    use crate::network::Architecture;

    pub fn noise(length: usize, seed: u64, size: f64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                size * (2.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 1.0)
            })
            .collect()
    }

    /// The meta-gradient against finite differences, along random directions of weights and rates.
    #[test]
    fn meta_gradient_is_the_derivative_of_the_outer_loss() {
        let engine = PlainEngine::<f64>::new();
        let architecture = Architecture::new(vec![3, 4, 4, 3]).unwrap();
        let network = Network::new(&engine, &architecture);
        let shape = Shape::new(2, 5, 4, 3);
        let picture = |seed| engine.upload(shape, &noise(shape.len(), seed, 1.0)).unwrap();
        let task = Task { x_train: picture(1), y_train: picture(2), x_test: picture(3), y_test: picture(4) };
        let params = noise(architecture.parameter_count(), 5, 0.4);
        let rates = vec![vec![0.05, 0.02, 0.03], vec![0.01, 0.04, 0.02]];
        let run = |params: &[f64], rates: &[Vec<f64>], second_order| {
            let params = engine.upload(Shape::flat(params.len()), params).unwrap();
            let inner = Inner { rates, weights: &[0.3, 0.7], before: 0.4, second_order };
            meta_gradient(&network, &params, &task, &inner).unwrap()
        };
        let made = run(&params, &rates, true);
        let gradient = engine.download(&made.gradient).unwrap();
        for seed in 30..34 {
            let direction = noise(params.len(), seed, 1.0);
            let at = |step: f64| {
                let moved: Vec<f64> = params.iter().zip(&direction).map(|(p, d)| p + step * d).collect();
                run(&moved, &rates, true).loss
            };
            let slope = (at(1e-7) - at(-1e-7)) / 2e-7;
            let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            assert!((slope - exact).abs() < 1e-6 * (1.0 + exact.abs()), "{slope} {exact}");
        }
        for (k, l) in [(0, 0), (0, 2), (1, 1)] {
            let at = |step: f64| {
                let mut moved = rates.clone();
                moved[k][l] += step;
                run(&params, &moved, true).loss
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - made.rate_gradient[k][l]).abs() < 1e-6, "{slope} {:?}", made.rate_gradient);
        }
        let first = engine.download(&run(&params, &rates, false).gradient).unwrap();
        assert!(first.iter().zip(&gradient).any(|(a, b)| (a - b).abs() > 1e-6));
    }
}
