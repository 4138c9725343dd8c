//! Pairs of network input and HR target, made the same way whenever and wherever they are made.

use super::photos::{Photos, eight_bits, light};
use super::random::{Purpose, below, generator, uniform};
use super::recipe::{Degradations, Model, Recipe};
use crate::degrade::{self, Degradation};
use crate::{Error, Raster, Result};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that are made ahead.
const AHEAD: usize = 4;

/// One of the eight flips and rotations: transposed first, then mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Rows and columns exchanged.
    pub transpose: bool,
    /// Mirrored top to bottom.
    pub vertical: bool,
    /// Mirrored left to right.
    pub horizontal: bool,
}

impl Turn {
    /// Number `index` of the eight.
    pub fn number(index: usize) -> Self {
        Turn { transpose: index & 1 != 0, vertical: index & 2 != 0, horizontal: index & 4 != 0 }
    }

    /// The picture turned.
    pub fn apply<T: Copy + Default>(self, image: Raster<T>) -> Raster<T> {
        let image = if self.transpose { image.transpose() } else { image };
        let image = if self.vertical { image.flip_vertical() } else { image };
        if self.horizontal { image.flip_horizontal() } else { image }
    }
}

/// A step's patches: n × patch × patch × 3 values in [0, 1] (the input may leave it).
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step that they are for.
    pub step: u64,
    /// Network input.
    pub input: Vec<f32>,
    /// HR.
    pub target: Vec<f32>,
}

/// Makes patches.
pub struct Patches {
    photos: Photos,
    seed: u64,
    patch: usize,
    batch: usize,
    model: Model,
    degradation: Degradations,
}

/// HR pixels around a patch that its LR, or the upscale of that, depends on, and one scale more.
fn margin(scale: f64, degradation: &Degradations) -> usize {
    // The upscale reads two LR pixels on each side; imresize reads two more, the blur half a kernel.
    (4.0 * scale).ceil() as usize + scale.ceil() as usize + degradation.size.div_ceil(2)
}

/// The network input for LR pixels: what the output is added to. Rows and columns from (`y`, `x`)
/// on, `size` of each, of the HR picture.
fn network_input(low: &Raster<f32>, degradation: &Degradation, y: usize, x: usize, size: usize) -> Raster<f32> {
    degrade::resize_window(low, degradation.scale(), y..y + size, x..x + size)
}

/// Input and target for the square of `patch` pixels at (y, x) of `photo`, turned before the
/// degradation.
///
/// The patch is degraded with the `margin` of pixels around it that the photo has, as if that were
/// the whole photo: its LR is a cut of the photo's where the cut begins on a multiple of the scale,
/// and otherwise of a photo that begins a few pixels later.
pub fn pair(
    photo: &Raster<u8>,
    (y, x): (usize, usize),
    patch: usize,
    margin: usize,
    turn: Turn,
    degradation: &Degradation,
    round: bool,
) -> (Raster<f32>, Raster<f32>) {
    let (top, left) = (y.saturating_sub(margin), x.saturating_sub(margin));
    let (bottom, right) = ((y + patch + margin).min(photo.height), (x + patch + margin).min(photo.width));
    let context = turn.apply(photo.crop(top, left, bottom - top, right - left));
    let (mut y, mut x) = (y - top, x - left);
    if turn.transpose {
        std::mem::swap(&mut y, &mut x);
    }
    if turn.vertical {
        y = context.height - patch - y;
    }
    if turn.horizontal {
        x = context.width - patch - x;
    }
    let context = light::<f32>(&context);
    let mut low = degradation.apply(&context);
    if round {
        low = light(&eight_bits(&low));
    }
    (network_input(&low, degradation, y, x, patch), context.crop(y, x, patch, patch))
}

impl Patches {
    /// Patches as the recipe says, of these photos.
    pub fn new(recipe: &Recipe, photos: Photos) -> Self {
        Patches {
            photos,
            seed: recipe.seed,
            patch: recipe.data.patch,
            batch: recipe.data.batch,
            model: recipe.model.clone(),
            degradation: recipe.degradation.clone(),
        }
    }

    /// The patches of step `step`.
    ///
    /// # Errors
    /// A degradation that the recipe's check should have refused.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let length = self.batch * self.patch * self.patch * 3;
        let mut batch = Batch { step, input: Vec::with_capacity(length), target: Vec::with_capacity(length) };
        for index in 0..self.batch {
            let mut random = generator(self.seed, Purpose::Patch, step, index as u64);
            let (photo, y, x) = self.photos.pick(&mut random, self.patch);
            let turn = Turn::number(below(&mut random, 8));
            let scale = self.model.scale[below(&mut random, self.model.scale.len())];
            let kernel = self.degradation.draw(scale, || uniform(&mut random));
            let degradation = Degradation::new(scale, kernel, self.model.downsample.into())?;
            let margin = margin(scale, &self.degradation);
            let (input, target) = pair(photo, (y, x), self.patch, margin, turn, &degradation, self.degradation.round);
            batch.input.extend_from_slice(&input.data);
            batch.target.extend_from_slice(&target.data);
        }
        Ok(batch)
    }
}

/// A thread that makes batches ahead of the training.
pub struct Feeder {
    // In this order: without a receiver the thread's next send fails, and it ends.
    batches: Receiver<Result<Batch>>,
    _thread: rayon::ThreadPool,
}

impl Feeder {
    /// Makes the batches of `steps`, in order.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(patches: Arc<Patches>, steps: std::ops::RangeInclusive<u64>) -> Result<Self> {
        // A pool of one: the parallel loops of the degradation run in this thread itself instead of
        // waking the network's.
        let thread =
            rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "patches".to_owned()).build().map_err(
                |error| Error::Device(format!("the thread that makes patches could not be started: {error}")),
            )?;
        let (sender, batches) = sync_channel(AHEAD);
        thread.spawn(move || {
            for step in steps {
                let batch = patches.batch(step);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        Ok(Feeder { batches, _thread: thread })
    }

    /// The next batch.
    ///
    /// # Errors
    /// One that could not be made.
    pub fn next(&self) -> Result<Batch> {
        match self.batches.recv() {
            Ok(batch) => batch,
            Err(_) => Err(Error::Device("the thread that makes patches ended early".to_owned())),
        }
    }
}
