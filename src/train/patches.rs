//! Pairs of network input and HR target, made the same way whenever and wherever they are made.

use super::photos::{Photos, eight_bits, light};
use super::random::{Purpose, below, generator, uniform};
use super::recipe::{Degradations, Model, Recipe};
use crate::adapt::forward;
use crate::adapt::geometry::Turn;
use crate::degrade::Degradation;
use crate::engine::cpu::CpuEngine;
use crate::engine::{Engine, Shape};
use crate::network::{Architecture, Network};
use crate::{Error, Raster, Result};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that are made ahead.
const AHEAD: usize = 4;

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
    /// The passes before the trained one.
    earlier: Option<Earlier>,
}

/// Passes that are not trained any more.
struct Earlier {
    engine: CpuEngine,
    architecture: Architecture,
    parameters: Vec<<CpuEngine as Engine>::Tensor>,
}

impl Earlier {
    fn new(model: &Model, parameters: &[f32]) -> Result<Self> {
        // In the feeder's thread.
        let (engine, architecture) = (CpuEngine::new(Some(1))?, model.network()?);
        let count = architecture.parameter_count();
        let parameters = parameters.chunks_exact(count);
        let parameters = parameters.map(|part| engine.upload(Shape::flat(count), part)).collect::<Result<_>>()?;
        Ok(Earlier { engine, architecture, parameters })
    }
}

/// Number `index` of the eight flips and rotations.
fn turn(index: usize) -> Turn {
    Turn { transpose: index & 1 != 0, vertical: index & 2 != 0, horizontal: index & 4 != 0 }
}

/// HR pixels around a patch that its LR, or the upscale of that, depends on, and one scale more.
fn margin(scale: f64, degradation: &Degradations) -> usize {
    // The upscale reads two LR pixels on each side; imresize reads two more, the blur half a kernel.
    (4.0 * scale).ceil() as usize + scale.ceil() as usize + degradation.size.div_ceil(2)
}

/// The square of `patch` pixels at (y, x) of `photo` with the `margin` of pixels around it that the
/// photo has, turned; and where the square lies in it.
///
/// It is degraded as if that were the whole photo: its LR is a cut of the photo's where the cut begins
/// on a multiple of the scale, and otherwise of a photo that begins a few pixels later.
fn surroundings(
    photo: &Raster<u8>,
    (y, x): (usize, usize),
    patch: usize,
    margin: usize,
    turn: Turn,
) -> (Raster<f32>, (usize, usize)) {
    let (top, left) = (y.saturating_sub(margin), x.saturating_sub(margin));
    let (bottom, right) = ((y + patch + margin).min(photo.height), (x + patch + margin).min(photo.width));
    let context = turn.apply(&photo.crop(top, left, bottom - top, right - left));
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
    (light(&context), (y, x))
}

/// The LR pixels of `context`.
fn degraded(context: &Raster<f32>, degradation: &Degradation, round: bool) -> Raster<f32> {
    let low = degradation.apply(context);
    if round { light(&eight_bits(&low)) } else { low }
}

impl Patches {
    /// Patches as the recipe says, of these photos; `earlier` are the parameters of the passes before
    /// the trained one.
    ///
    /// # Errors
    /// An engine for those that cannot be started.
    pub fn new(recipe: &Recipe, photos: Photos, earlier: &[f32]) -> Result<Self> {
        let earlier = (!earlier.is_empty()).then(|| Earlier::new(&recipe.model, earlier)).transpose()?;
        Ok(Patches {
            earlier,
            photos,
            seed: recipe.seed,
            patch: recipe.data.patch,
            batch: recipe.data.batch,
            model: recipe.model.clone(),
            degradation: recipe.degradation.clone(),
        })
    }

    /// The trained pass's input of `height` × `width` pixels for LR pixels.
    fn input(&self, degradation: &Degradation, low: &Raster<f32>, height: usize, width: usize) -> Result<Raster<f32>> {
        let course = self.model.course();
        let mut estimate = course.begin::<f32, _>(degradation, low, height, width);
        if let Some(Earlier { engine, architecture, parameters }) = &self.earlier {
            let network = Network::new(engine, architecture);
            for params in parameters {
                let made = forward(&network, params, &estimate, usize::MAX)?;
                estimate = course.between(degradation, low, made);
            }
        }
        Ok(estimate)
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
            let turn = turn(below(&mut random, 8));
            let scale = self.model.scale[below(&mut random, self.model.scale.len())];
            let kernel = self.degradation.draw(scale, || uniform(&mut random));
            let degradation = Degradation::new(scale, kernel, self.model.downsample.into())?;
            let margin = margin(scale, &self.degradation);
            let (context, (y, x)) = surroundings(photo, (y, x), self.patch, margin, turn);
            let low = degraded(&context, &degradation, self.degradation.round);
            let input = self.input(&degradation, &low, context.height, context.width)?;
            let (input, target) =
                (input.crop(y, x, self.patch, self.patch), context.crop(y, x, self.patch, self.patch));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade;
    use crate::degrade::Downsample;
    use crate::kernel::Kernel;

    fn photo(height: usize, width: usize) -> Raster<u8> {
        let mut state = 7u64;
        let data = (0..height * width * 3)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        Raster::from_vec(height, width, 3, data)
    }

    fn recipe(more: &str) -> Recipe {
        Recipe::parse(&format!(
            "steps = 9\nseed = 3\n[model]\nname = \"x\"\nscale = [2, 3, 2.5]\n[data]\nphotos = [\"a\"]\npatch = 24\n\
             batch = 6\n[optimiser]\nrate = 1e-3\n[output]\nfolder = \"o\"\n{more}"
        ))
        .unwrap()
    }

    /// The pair made of a patch with its margin is a cut of the pair made of the whole turned photo.
    #[test]
    fn a_patch_is_a_cut_of_the_whole_photo() {
        let whole = photo(120, 132);
        let degradations = recipe("").degradation;
        let kernel = || Some(Kernel::gaussian(4.0, 1.0, -0.5, 15));
        for (scale, kernel, downsample) in [
            (2.0, None, Downsample::Bicubic),
            (3.0, kernel(), Downsample::Bicubic),
            (2.0, kernel(), Downsample::Direct),
            (4.0, kernel(), Downsample::Direct),
        ] {
            let degradation = Degradation::new(scale, kernel, downsample).unwrap();
            let patch = 24;
            // The margin, and with it the cut, on a multiple of every scale here.
            let margin = margin(scale, &degradations).next_multiple_of(12);
            for number in 0..8 {
                let turn = turn(number);
                let turned = turn.apply(&whole);
                let low = light::<f32>(&eight_bits(&degradation.apply(&light::<f32>(&turned))));
                let up = degrade::resize(&low, scale, turned.height, turned.width);
                // Near a corner of the photo, and well inside.
                for (y, x) in [(0, 12), (48, 60)] {
                    let (context, at) = surroundings(&whole, (y, x), patch, margin, turn);
                    let target = context.crop(at.0, at.1, patch, patch);
                    let input = degraded(&context, &degradation, true);
                    let input = degrade::resize(&input, scale, context.height, context.width);
                    let input = input.crop(at.0, at.1, patch, patch);
                    // Where the patch lies in the turned photo.
                    let (mut ty, mut tx) = if turn.transpose { (x, y) } else { (y, x) };
                    if turn.vertical {
                        ty = turned.height - patch - ty;
                    }
                    if turn.horizontal {
                        tx = turned.width - patch - tx;
                    }
                    let hr = light::<f32>(&turned).crop(ty, tx, patch, patch);
                    assert_eq!(target, hr, "{scale} {downsample} {turn:?} {y} {x}");
                    let cut = up.crop(ty, tx, patch, patch);
                    let worst = input.data.iter().zip(&cut.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    // Where the arithmetic rounds a tie otherwise, one LR value moves by 1/255.
                    let off = input.data.iter().zip(&cut.data).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
                    assert!(worst < 2.0 / 255.0 && off * 50 < input.data.len(), "{scale} {turn:?} {worst} {off}");
                }
            }
        }
    }

    #[test]
    fn batches_depend_on_seed_and_step_alone() {
        let gaussian = "[degradation]\nkernels = \"gaussian\"\nsmall_share = 0.2\n";
        let make = |recipe: &Recipe| {
            Patches::new(recipe, Photos::new(vec![photo(40, 50), photo(90, 30)], &[1.0, 2.0]), &[]).unwrap()
        };
        let recipe = recipe(gaussian);
        let patches = Arc::new(make(&recipe));
        let direct: Vec<Batch> = (1..=9).map(|step| patches.batch(step).unwrap()).collect();
        assert!(direct.windows(2).all(|w| w[0].input != w[1].input));
        assert_eq!(direct[0].input.len(), 6 * 24 * 24 * 3);
        // In another order, through the feeder, from the middle.
        let feeder = Feeder::start(patches, 4..=9).unwrap();
        for wanted in &direct[3..] {
            assert_eq!(feeder.next().unwrap(), *wanted);
        }
        assert!(feeder.next().is_err());
        let other = Recipe { seed: 4, ..recipe };
        assert_ne!(make(&other).batch(1).unwrap(), direct[0]);
    }

    #[test]
    fn photos_are_seen_by_weighted_area() {
        let photos = Photos::new(vec![photo(30, 30), photo(30, 60)], &[3.0, 1.0]);
        let mut seen = 0;
        for index in 0..2000 {
            let (photo, y, x) = photos.pick(&mut generator(0, Purpose::Patch, 0, index), 24);
            assert!(y + 24 <= photo.height && x + 24 <= photo.width);
            seen += usize::from(photo.width == 30);
        }
        let share = f64::from(seen as u32) / 2000.0;
        assert!((share - 0.6).abs() < 0.04, "{share}");
    }

    #[test]
    fn a_feeder_that_is_not_read_ends() {
        let patches = Arc::new(Patches::new(&recipe(""), Photos::new(vec![photo(40, 40)], &[1.0]), &[]).unwrap());
        let weak = Arc::downgrade(&patches);
        drop(Feeder::start(patches, 1..=u64::MAX).unwrap());
        for _ in 0..200 {
            if weak.upgrade().is_none() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the thread goes on");
    }
}
