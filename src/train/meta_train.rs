//! Meta-transfer training: towards weights (and rates) of which a few updates on one photo make
//! the best (MZSR, Algorithm 1; the exact gradient is in [`super::meta`]).

use super::inner_rates::InnerRates;
use super::meta::{Inner, Task, meta_gradient};
use super::patches::Batch;
use super::pretrain::with_blurs;
use super::recipe::{Meta, Recipe};
use super::trainer::{Ending, Event, Options, train};
use crate::engine::{Engine, Shape};
use crate::network::Network;
use crate::{Error, Result};

/// Trains as the [`Recipe::meta`] of `recipe` (with its text) says; everything else is as in
/// [`super::pretrain()`]. The weights files hold the rates, trained ones first and the tail after
/// them, and the number of updates trained for.
///
/// # Errors
/// A recipe without `[meta]`, or as [`super::pretrain()`].
pub fn meta_train<E: Engine<Elem = f32>>(
    engine: &E,
    recipe: &Recipe,
    text: &str,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Ending> {
    if recipe.meta.is_none() {
        return Err(Error::input("the recipe has no [meta]: add one, or use `mzsr pretrain`"));
    }
    train(engine, recipe, text, options, observe)
}

/// What a step's tasks say, in the mean over them.
pub(super) struct Made {
    /// The weighted loss after the updates.
    pub loss: f64,
    /// Its gradient with respect to the rates: a row an update, a value a layer.
    pub rates: Vec<Vec<f64>>,
}

/// The mean meta-gradient over the tasks of a batch is added to `grad` (flat).
pub(super) fn gradient<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    recipe: &Recipe,
    meta: &Meta,
    rates: &InnerRates,
    batch: &Batch,
    grad: &mut E::Tensor,
) -> Result<Made> {
    let engine = network.engine();
    let rates = rates.now(meta);
    let weights = meta.weights_at(batch.step);
    let inner = Inner { rates: &rates, weights: &weights, before: meta.before, second_order: meta.order == 2 };
    let share = 1.0 / meta.tasks as f64;
    let mut made = Made { loss: 0.0, rates: rates.iter().map(|row| vec![0.0; row.len()]).collect() };
    let side = recipe.data.patch;
    let values = side * side * 3;
    let upload = |values: &[f32]| engine.upload(Shape::new(values.len() / (side * side * 3), side, side, 3), values);
    let each = values * (meta.train + meta.test);
    let split = values * meta.train;
    let mut of = |number: usize, params: &E::Tensor, grad: &mut E::Tensor| -> Result<()> {
        let [input, target] = [&batch.input, &batch.target].map(|values| &values[number * each..][..each]);
        let task = Task {
            x_train: upload(&input[..split])?,
            y_train: upload(&target[..split])?,
            x_test: upload(&input[split..])?,
            y_test: upload(&target[split..])?,
        };
        let one = meta_gradient(network, params, &task, &inner)?;
        engine.axpy(0..network.parameter_count(), share, &one.gradient, grad)?;
        made.loss += share * one.loss;
        for (sum, value) in made.rates.iter_mut().flatten().zip(one.rate_gradient.iter().flatten()) {
            *sum += share * value;
        }
        Ok(())
    };
    if recipe.model.fit {
        // A task has one blur.
        let blurs: Vec<_> = batch.features.iter().step_by(meta.train + meta.test).copied().collect();
        with_blurs(network, params, recipe, batch.pass, &blurs, grad, &mut of)?;
    } else {
        (0..meta.tasks).try_for_each(|number| of(number, params, grad))?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::FEATURES;
    use crate::engine::plain::PlainEngine;
    use crate::network::{Architecture, Passes};

    fn noise(length: usize, seed: u64, size: f64) -> Vec<f32> {
        crate::train::meta::tests::noise(length, seed, size).into_iter().map(|v| v as f32).collect()
    }

    /// Of parameters that follow the blur, in the second of two passes, with a loss before any update too.
    #[test]
    fn the_gradient_goes_through_what_follows_the_blur() {
        let recipe = Recipe::parse(
            "steps = 9\n[model]\nname = \"x\"\nscale = 2\nstart = \"least-squares\"\narchitecture = \"3-4-3\"\n\
             passes = 2\nearlier = \"e\"\nfit = true\ntogether = true\n[data]\nphotos = [\"a\"]\npatch = 8\n\
             [degradation]\nkernels = \"gaussian\"\n[optimiser]\nrate = 1e-3\n[output]\nfolder = \"o\"\n\
             [meta]\ntasks = 2\ntrain = 1\ntest = 2\nupdates = 2\nrate = 1e-2\nweights = [0.4, 0.6]\nbefore = 0.7\n",
        )
        .unwrap();
        let meta = recipe.meta.clone().unwrap();
        let engine = PlainEngine::<f32>::new();
        let architecture = Architecture::new(vec![3, 4, 3]).unwrap();
        let network = Network::new(&engine, &architecture);
        let layout = Passes::new(network.layers(), true);
        let rates = InnerRates::new(&meta, 2);
        let values = 6 * 8 * 8 * 3;
        let feature = |i: usize| std::array::from_fn::<f64, FEATURES, _>(|j| ((i / 3 + 1) * (j + 1)) as f64 * 0.05);
        let batch = Batch {
            step: 2,
            input: noise(values, 1, 1.0),
            // So far off that no difference changes its sign.
            target: noise(values, 2, 1.0).iter().map(|v| v + 9.0).collect(),
            pass: 1,
            features: (0..6).map(feature).collect(),
            cases: Vec::new(),
        };
        let params = noise(layout.count(2), 3, 0.4);
        let flat = Shape::flat(params.len());
        let run = |params: &[f32]| {
            let params = engine.upload(flat, params).unwrap();
            let mut grad = engine.zeros(flat).unwrap();
            let made = gradient(&network, &params, &recipe, &meta, &rates, &batch, &mut grad).unwrap();
            (made.loss, engine.download(&grad).unwrap())
        };
        let (_, gradient) = run(&params);
        // The first pass's own are not asked.
        assert!(gradient[layout.shared()..layout.count(1)].iter().all(|&g| g == 0.0));
        for seed in 10..14 {
            let direction = noise(params.len(), seed, 1.0);
            let at = |step: f32| {
                let moved: Vec<f32> = params.iter().zip(&direction).map(|(p, d)| p + step * d).collect();
                run(&moved).0
            };
            let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
            let exact: f64 = gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
            assert!((slope - exact).abs() < 1e-2 * (1.0 + exact.abs()), "{slope} {exact}");
        }
    }
}
