//! The gradient steps.

use super::course::cut;
use super::son::{SEEN, Son, with_halo};
use super::{Event, Rates};
use crate::engine::{Engine, Shape, Window};
use crate::network::{Network, Seen};
use crate::{Error, Result};

/// How often a rate is halved before an update is given up.
const MAX_HALVINGS: usize = 6;

/// One update as it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The son's loss before the update.
    pub loss: f64,
    /// What its rate was multiplied by: 1, or less where the update raised the loss.
    pub factor: f64,
}

/// Sons, tile by tile, and the loss over them.
pub struct Descent<'a, E: Engine> {
    network: &'a Network<'a, E>,
    tiles: Vec<Tile<'a, E::Tensor>>,
    count: usize,
}

struct Tile<'a, T> {
    input: Seen<'a, T>,
    target: Seen<'a, T>,
    core: Window,
}

impl<'a, E: Engine> Descent<'a, E> {
    /// The mean loss over all cores of `sons`.
    ///
    /// # Errors
    /// A failing engine.
    pub fn new(network: &'a Network<'a, E>, sons: &'a [Son<E::Tensor>]) -> Result<Self> {
        let engine = network.engine();
        let mut loaded = Vec::new();
        let mut count = 0;
        for son in sons {
            let shape = engine.shape(&son.target);
            for &core in &son.cores {
                let seen = with_halo(core, SEEN * network.cell(), shape.h, shape.w);
                count += core.height * core.width * shape.c;
                let part = |whole| {
                    if (seen.height, seen.width) == (shape.h, shape.w) {
                        return Ok(Seen::Whole(whole));
                    }
                    cut(engine, whole, seen).map(Seen::Made)
                };
                loaded.push(Tile {
                    input: part(&son.input)?,
                    target: part(&son.target)?,
                    core: Window { y: core.y - seen.y, x: core.x - seen.x, ..core },
                });
            }
        }
        Ok(Descent { network, tiles: loaded, count })
    }

    /// The number of pixels that are computed for one loss, halos included.
    pub fn pixels(&self) -> usize {
        self.tiles.iter().map(|tile| self.network.engine().shape(&tile.input).len() / 3).sum()
    }

    /// Loss and gradient at `params`.
    fn gradient(&self, params: &E::Tensor) -> Result<(f64, E::Tensor)> {
        let mut grad = self.network.engine().zeros(Shape::flat(self.network.parameter_count()))?;
        let mut loss = 0.0;
        for tile in &self.tiles {
            loss +=
                self.network.loss_and_gradient(params, &tile.input, &tile.target, tile.core, self.count, &mut grad)?;
        }
        Ok((loss, grad))
    }

    /// The loss at `params`.
    pub fn loss(&self, params: &E::Tensor) -> Result<f64> {
        let mut loss = 0.0;
        for tile in &self.tiles {
            loss += self.network.loss(params, &tile.input, &tile.target, tile.core, self.count)?;
        }
        Ok(loss)
    }

    /// params − factor · rates ⊙ gradient.
    fn stepped(
        &self,
        params: &E::Tensor,
        gradient: &E::Tensor,
        rates: &Rates,
        update: usize,
        factor: f64,
    ) -> Result<E::Tensor> {
        let engine = self.network.engine();
        let mut next = engine.duplicate(params)?;
        for (l, layer) in self.network.layers().iter().enumerate() {
            let places = layer.weight..layer.bias_range().end;
            engine.axpy(places, -factor * rates.of(update, l), gradient, &mut next)?;
        }
        Ok(next)
    }

    /// Makes `updates` steps of plain gradient descent on `params`; returns what each did, and the
    /// loss after the last.
    ///
    /// With `guard`, an update that raises the loss is undone and made again at half its rate (at
    /// most six times, then left out), and the rates of those that follow are halved with it.
    ///
    /// # Errors
    /// When a loss is not finite and no smaller rate helps.
    pub fn run(
        &self,
        params: &mut E::Tensor,
        rates: &Rates,
        updates: usize,
        guard: bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<(Vec<Update>, f64)> {
        let mut made = Vec::new();
        if updates == 0 {
            return Ok((made, self.loss(params)?));
        }
        let (mut loss, mut gradient) = self.gradient(params)?;
        check(loss)?;
        let mut factor = 1.0;
        for update in 0..updates {
            events(Event::Updated { update: update + 1, loss });
            let last = update + 1 == updates;
            let mut halvings = 0;
            let (next, after, next_gradient) = loop {
                let next = self.stepped(params, &gradient, rates, update, factor)?;
                // The loss after this update comes with the gradient for the next one.
                let (after, next_gradient) = if last {
                    (self.loss(&next)?, None)
                } else {
                    let (after, gradient) = self.gradient(&next)?;
                    (after, Some(gradient))
                };
                let worse = after > loss || !after.is_finite();
                if !guard || !worse {
                    break (Some(next), after, next_gradient);
                }
                factor *= 0.5;
                halvings += 1;
                events(Event::Halved { update: update + 1, before: loss, after, factor });
                if halvings == MAX_HALVINGS {
                    break (None, loss, None);
                }
            };
            made.push(Update { loss, factor: if next.is_some() { factor } else { 0.0 } });
            check(after)?;
            match next {
                Some(next) => *params = next,
                // Not even a small step helps: the son has nothing more to teach.
                None => break,
            }
            loss = after;
            if let Some(next_gradient) = next_gradient {
                gradient = next_gradient;
            }
        }
        Ok((made, loss))
    }
}

fn check(loss: f64) -> Result<()> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(Error::Numeric("the adaptation's loss is not finite: the weights or the rates do not fit; try -n 0".into()))
}
