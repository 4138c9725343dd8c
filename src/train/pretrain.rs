//! Training on many photos: supervised, on the mean absolute error.

use super::patches::Batch;
use super::recipe::Recipe;
use super::trainer::{Ending, Event, Options, train};
use crate::degrade::FEATURES;
use crate::engine::{Engine, Shape, Window};
use crate::network::{Fit, Network, Passes};
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

/// The same for parameters that follow the blur: each blur of the batch has a network of its own.
pub(super) fn fitted_gradient<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    recipe: &Recipe,
    batch: &Batch,
    grad: &mut E::Tensor,
) -> Result<f64> {
    let (engine, side) = (network.engine(), recipe.data.patch);
    let each = recipe.data.batch / batch.features.len();
    let shape = Shape::new(each, side, side, 3);
    let whole = Window { y: 0, x: 0, height: side, width: side };
    let part = |values: &[f32], blur: usize| engine.upload(shape, &values[blur * shape.len()..][..shape.len()]);
    let mut loss = 0.0;
    with_blurs(network, params, recipe, batch.pass, &batch.features, grad, &mut |blur, fitted, own| {
        let (x, y) = (part(&batch.input, blur)?, part(&batch.target, blur)?);
        loss += network.loss_and_gradient(fitted, &x, &y, whole, batch.target.len(), own)?;
        Ok(())
    })?;
    Ok(loss)
}

/// What makes something of the parameters of blur number … and adds its gradient with respect to them.
type OfBlur<'a, T> = dyn FnMut(usize, &T, &mut T) -> Result<()> + 'a;

/// Calls `of` for each blur with the network's parameters for it in pass `pass`, and takes the
/// gradients back to those that they follow from, in `grad`.
pub(super) fn with_blurs<E: Engine<Elem = f32>>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    recipe: &Recipe,
    pass: usize,
    blurs: &[[f64; FEATURES]],
    grad: &mut E::Tensor,
    of: &mut OfBlur<'_, E::Tensor>,
) -> Result<()> {
    let engine = network.engine();
    let fit = Fit::new(network.layers());
    let layout = Passes::new(network.layers(), true);
    // The trained pass's: all that there is, or one of several.
    let pass = if recipe.model.together { pass } else { 0 };
    let parameters = layout.one(&engine.download(params)?, pass);
    let mut sum = vec![0.0; parameters.len()];
    let flat = Shape::flat(network.parameter_count());
    for (number, features) in blurs.iter().enumerate() {
        let fitted = engine.upload(flat, &fit.fitted(&parameters, features))?;
        let mut own = engine.zeros(flat)?;
        of(number, &fitted, &mut own)?;
        fit.pull_back(&parameters, features, &engine.download(&own)?, &mut sum);
    }
    let mut all = vec![0.0; engine.shape(grad).len()];
    layout.put(&mut all, pass, &sum);
    let all = engine.upload(Shape::flat(all.len()), &all)?;
    engine.axpy(0..engine.shape(grad).len(), 1.0, &all, grad)?;
    if recipe.model.passes > 1 && !recipe.model.together {
        // Later passes share the network's own parameters with the first.
        engine.scale(0..network.parameter_count(), 0.0, grad)?;
    }
    Ok(())
}
