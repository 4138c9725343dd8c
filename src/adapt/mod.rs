//! MZSR on one photo (the paper's Algorithm 2): make the son, learn in a few gradient steps to
//! undo what made it, apply the result to the photo.
//!
//! The son is D(LR), clipped to [0, 1]; its cubic upscale is the training input, the LR photo the
//! target. Photos of any size work in tiles: [`plan`] says how large they may be.

mod course;
mod descent;
pub(crate) mod geometry;
pub mod photo;
pub mod plan;
mod restore;
pub(crate) mod son;
mod tiling;

pub(crate) use course::forward;
pub use course::{Course, NoiseLevel};
pub use descent::{Descent, Update};
pub use plan::Plan;
pub(crate) use restore::back_project;
pub use restore::{Report, Restorer};

/// The most LR pixels that are adapted on, if nobody says otherwise.
pub const ADAPT_PIXELS: usize = 750_000;
/// Updates from weights that do not say how many they were trained for.
pub const DEFAULT_UPDATES: usize = 10;
pub use son::{Son, most_detailed};

/// Learning rates of plain gradient descent: one row an update, each with one value for the whole
/// network or one for each layer. Updates beyond the last row repeat it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates(pub Vec<Vec<f64>>);

impl Rates {
    /// One rate an update for all layers.
    pub fn by_update(rates: &[f64]) -> Self {
        Rates(rates.iter().map(|&rate| vec![rate]).collect())
    }

    /// The rate of layer `layer` (from 0) in update `update` (from 0).
    pub fn of(&self, update: usize, layer: usize) -> f64 {
        let row = match self.0.get(update).or(self.0.last()) {
            Some(row) => row,
            None => return 0.0,
        };
        row.get(layer).or(row.last()).copied().unwrap_or(0.0)
    }
}

/// What is happening, for a progress bar or a verbose log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Work done so far, as a share of everything to be done (0 to 1).
    Progress(f64),
    /// An update was made: its number (from 1), the loss before it, and the factor on its rate.
    Updated {
        /// From 1.
        update: usize,
        /// The son's loss before it.
        loss: f64,
    },
    /// An update raised the son's loss; it was undone and is made again at half its rate.
    Halved {
        /// From 1.
        update: usize,
        /// The son's loss before it.
        before: f64,
        /// The son's loss that it led to.
        after: f64,
        /// The factor on its rate from now on.
        factor: f64,
    },
}
