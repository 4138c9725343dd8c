//! Meta-transfer training: towards weights (and rates) of which a few updates on one photo make
//! the best (MZSR, Algorithm 1; the exact gradient is in [`super::meta`]).

use super::inner_rates::InnerRates;
use super::meta::{Inner, Task, meta_gradient};
use super::patches::Batch;
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
    meta: &Meta,
    rates: &InnerRates,
    batch: &Batch,
    grad: &mut E::Tensor,
) -> Result<Made> {
    let engine = network.engine();
    let rates = rates.now(meta);
    let weights = meta.weights_at(batch.step);
    let inner = Inner { rates: &rates, weights: &weights, second_order: meta.order == 2 };
    let share = 1.0 / meta.tasks as f64;
    let mut made = Made { loss: 0.0, rates: rates.iter().map(|row| vec![0.0; row.len()]).collect() };
    let values = batch.input.len() / meta.patches();
    // A patch is square.
    let side = (values / 3).isqrt();
    let upload = |values: &[f32]| engine.upload(Shape::new(values.len() / (side * side * 3), side, side, 3), values);
    let tasks = values * (meta.train + meta.test);
    let split = values * meta.train;
    for (input, target) in batch.input.chunks_exact(tasks).zip(batch.target.chunks_exact(tasks)) {
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
    }
    Ok(made)
}
