//! Training on many photos: supervised, on the mean absolute error.

use super::patches::Batch;
use super::recipe::Recipe;
use super::trainer::{Ending, Event, Options, train};
use crate::engine::{Engine, Shape, Window};
use crate::network::Network;
use crate::{Error, Result};

/// Trains as `recipe` (with its text) says. Everything is read and checked before the first step.
///
/// The output folder receives the checkpoint, the log, and with a validation the last and the best
/// weights. A training that goes on from a checkpoint equals one that was never interrupted, bit
/// for bit.
///
/// # Errors
/// A recipe for meta-training, photos, weights or a checkpoint that cannot be used, a checkpoint
/// where none was expected, a file that cannot be written, or a loss that is not finite; the last
/// checkpoint then stays.
pub fn pretrain<E: Engine<Elem = f32>>(
    engine: &E,
    recipe: &Recipe,
    text: &str,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Ending> {
    if recipe.meta.is_some() {
        return Err(Error::input("the recipe has [meta]: it is for `mzsr meta-train`"));
    }
    train(engine, recipe, text, options, observe)
}

/// The loss of a batch; its gradient is added to `grad` (flat).
pub(super) fn gradient<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    recipe: &Recipe,
    batch: &Batch,
    grad: &mut E::Tensor,
) -> Result<f64> {
    let (engine, side) = (network.engine(), recipe.data.patch);
    let shape = Shape::new(recipe.data.batch, side, side, 3);
    let x = engine.upload(shape, &batch.input)?;
    let y = engine.upload(shape, &batch.target)?;
    let whole = Window { y: 0, x: 0, height: side, width: side };
    network.loss_and_gradient(params, &x, &y, whole, shape.len(), grad)
}
