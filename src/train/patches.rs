//! Pairs of network input and HR target, made the same way whenever and wherever they are made.

use super::photos::{Photos, eight_bits, light};
use super::random::{Purpose, below, generator, uniform};
use super::recipe::{Degradations, Drawn, Meta, Model, Recipe, Saved, father};
use crate::adapt::geometry::Turn;
use crate::adapt::{Course, NoiseLevel, forward};
use crate::degrade::{Degradation, FEATURES, Noise};
use crate::engine::cpu::CpuEngine;
use crate::engine::{Engine, Shape, load, raster};
use crate::image::through_jpeg;
use crate::network::{Architecture, Network};
use crate::{Error, Raster, Result};
use rand::RngExt;
use rand_pcg::Pcg64;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that are made ahead.
const AHEAD: usize = 4;
/// How often a test patch that would show what its task learned from is drawn again. Photos may be too
/// few or too small for another place.
const MAX_DRAWS: usize = 20;

/// A step's patches: n × patch × patch × 3 values in [0, 1] (the input may leave it). Of
/// meta-training: the training patches of the first task, its test patches, those of the second, ….
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step that they are for.
    pub step: u64,
    /// Network input.
    pub input: Vec<f32>,
    /// HR.
    pub target: Vec<f32>,
    /// The pass that they are for, from 0.
    pub pass: usize,
    /// Of the blurs of the step, each of as many patches that follow each other.
    pub features: Vec<[f64; FEATURES]>,
    /// What made each patch small and its LR picture, where the gradient goes through all passes.
    pub cases: Vec<(Case, Raster<f32>)>,
}

/// Makes patches.
pub struct Patches {
    photos: Photos,
    seed: u64,
    patch: usize,
    batch: usize,
    /// Blurs of a step; each patch has its own if absent.
    blurs: Option<usize>,
    meta: Option<Meta>,
    model: Model,
    degradation: Degradations,
    /// The passes before the last.
    earlier: Option<Earlier>,
}

/// What makes a patch small.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Blur and downsampling, as they are told.
    pub degradation: Degradation,
    /// As they are, where the blur is told wrong.
    pub truly: Option<Degradation>,
    /// The JPEG that the LR picture is saved as.
    pub jpeg: Option<Saved>,
    /// What is added, and what the JPEG loses: as it is known of a photo.
    pub noise: NoiseLevel,
}

impl Case {
    /// How its LR picture goes through a model's network.
    pub fn course(&self, model: &Model) -> Course {
        model.course().with(self.noise)
    }
}

/// A square of a photo, turned.
#[derive(Clone, Copy)]
struct Place<'a> {
    photo: &'a Raster<u8>,
    y: usize,
    x: usize,
    /// Rows and columns.
    side: usize,
    turn: Turn,
    /// Whether its LR is the father of a son, instead of it being learned from itself.
    of_a_son: bool,
}

impl Place<'_> {
    /// Whether two squares share a pixel.
    fn meets(&self, other: &Place<'_>) -> bool {
        let near = |a: usize, b: usize| a < b + other.side && b < a + self.side;
        std::ptr::eq(self.photo, other.photo) && near(self.y, other.y) && near(self.x, other.x)
    }
}

/// Passes that are not trained any more.
struct Earlier {
    engine: CpuEngine,
    architecture: Architecture,
    /// One pass after the other.
    parameters: Vec<f32>,
}

impl Earlier {
    fn new(model: &Model, parameters: &[f32]) -> Result<Self> {
        // In the feeder's thread.
        Ok(Earlier {
            engine: CpuEngine::new(Some(1))?,
            architecture: model.network()?,
            parameters: parameters.to_vec(),
        })
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

/// What [`crate::image::Photo::compression_noise`] says of a JPEG of this quality.
fn compression_noise(quality: u8) -> Result<f64> {
    let nothing = Raster::from_vec(1, 1, 3, vec![0; 3]);
    Ok(through_jpeg(&nothing, quality, false)?.1)
}

/// The LR pixels of `context`; `seed` is of the noise.
fn degraded(context: &Raster<f32>, case: &Case, seed: u64, round: bool) -> Result<Raster<f32>> {
    let mut low = case.truly.as_ref().unwrap_or(&case.degradation).apply(context);
    Noise { sigma: case.noise.white, seed }.add(&mut low);
    Ok(match case.jpeg {
        Some(Saved { quality, halved }) => light(&through_jpeg(&eight_bits(&low), quality, halved)?.0),
        None if round => light(&eight_bits(&low)),
        None => low,
    })
}

impl Patches {
    /// Patches as the recipe says, of these photos; `earlier` are the parameters of the passes before
    /// the last.
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
            blurs: recipe.data.blurs,
            meta: recipe.meta.clone(),
            model: recipe.model.clone(),
            degradation: recipe.degradation.clone(),
        })
    }

    /// The input of pass `pass`, of `height` × `width` pixels, for LR pixels.
    fn input(
        &self,
        case: &Case,
        low: &Raster<f32>,
        (height, width): (usize, usize),
        pass: usize,
    ) -> Result<Raster<f32>> {
        let degradation = &case.degradation;
        let course = case.course(&self.model);
        let start = course.begin_patch(degradation, low, height, width);
        let Some(Earlier { engine, architecture, parameters }) = &self.earlier else { return Ok(start) };
        let network = Network::new(engine, architecture);
        let before = Course { passes: course.passes - 1, ..course };
        let (low, mut estimate, mut z) = (load(engine, low)?, load(engine, &start)?, None);
        for params in before.parameters(parameters, network.layers(), degradation).into_iter().take(pass) {
            let params = engine.upload(Shape::flat(params.len()), &params)?;
            let made = forward(&network, &params, &estimate, usize::MAX)?;
            estimate = course.data_step(engine, degradation, &low, made, &mut z)?;
        }
        raster(engine, &estimate)
    }

    /// A scale, a blur, noise and a JPEG of the recipe's distribution.
    fn draw(&self, random: &mut Pcg64) -> Result<Case> {
        let scale = self.model.scale[below(random, self.model.scale.len())];
        let Drawn { kernel, told, sigma, jpeg } = self.degradation.draw(scale, || uniform(random));
        let degradation = |kernel| Degradation::new(scale, kernel, self.model.downsample.into());
        let truly = if kernel == told { None } else { Some(degradation(kernel)?) };
        // As for a photo whose noise is known, and whose file is the JPEG.
        let lost = jpeg.map_or(Ok(0.0), |Saved { quality, .. }| compression_noise(quality))?;
        let noise = NoiseLevel { white: sigma, jpeg: lost };
        Ok(Case { degradation: degradation(told)?, truly, jpeg, noise })
    }

    /// A place for a patch, or, at a scale, for its father.
    fn place(&self, random: &mut Pcg64, son_at: Option<f64>) -> Place<'_> {
        let side = son_at.map_or(self.patch, |scale| father(self.patch, scale));
        let (photo, y, x) = self.photos.pick(random, side);
        Place { photo, y, x, side, turn: turn(below(random, 8)), of_a_son: son_at.is_some() }
    }

    /// The places and degradations of the patches of step `step`.
    fn plan(&self, step: u64) -> Result<Vec<(Place<'_>, Case)>> {
        let Some(meta) = &self.meta else {
            return (0..self.batch as u64)
                .map(|index| {
                    let mut random = generator(self.seed, Purpose::Patch, step, index);
                    let place = self.place(&mut random, None);
                    let case = match self.blurs {
                        None => self.draw(&mut random)?,
                        Some(blurs) => {
                            let blur = index / (self.batch / blurs) as u64;
                            self.draw(&mut generator(self.seed, Purpose::Task, step, blur))?
                        }
                    };
                    Ok((place, case))
                })
                .collect();
        };
        let task_patches = meta.train + meta.test;
        let mut plan: Vec<(Place<'_>, Case)> = Vec::with_capacity(meta.patches());
        for task in 0..meta.tasks {
            let case = self.draw(&mut generator(self.seed, Purpose::Task, step, task as u64))?;
            for index in task * task_patches..(task + 1) * task_patches {
                let mut random = generator(self.seed, Purpose::Patch, step, index as u64);
                let learns = index - task * task_patches < meta.train;
                let son_at = (learns && meta.sons).then(|| case.degradation.scale());
                let mut place = self.place(&mut random, son_at);
                // A son and its father, the LR photo, give nothing of the HR photo away.
                if !learns && !meta.sons {
                    let learned = &plan[task * task_patches..][..meta.train];
                    for _ in 0..MAX_DRAWS {
                        if !learned.iter().any(|(other, _)| place.meets(other)) {
                            break;
                        }
                        place = self.place(&mut random, son_at);
                    }
                }
                plan.push((place, case.clone()));
            }
        }
        Ok(plan)
    }

    /// Network input and HR target of a place, and the LR picture that the input is made of; of a father's,
    /// those of the adaptation to its LR photo: what is made of its son, and itself.
    fn pair(&self, place: Place<'_>, case: &Case, seed: u64, pass: usize) -> Result<[Raster<f32>; 3]> {
        let Place { photo, y, x, side, turn, of_a_son } = place;
        let scale = case.degradation.scale();
        // A father's margin is as wide in its own pixels.
        let margin = margin(scale, &self.degradation);
        let around = match (of_a_son, self.model.through) {
            (true, _) => margin + (scale * margin as f64).ceil() as usize,
            // A patch that goes through all passes is a photo of its own.
            (_, true) => 0,
            _ => margin,
        };
        let (context, (y, x)) = surroundings(photo, (y, x), side, around, turn);
        let low = degraded(&context, case, seed, self.degradation.round)?;
        let (low, target, (y, x)) = if of_a_son {
            let inside = |at: usize, size: usize| ((at as f64 / scale).ceil() as usize).min(size - self.patch);
            let at = (inside(y, low.height), inside(x, low.width));
            // As `Son` makes it.
            (case.degradation.apply(&low).map(|v| v.clamp(0.0, 1.0)), low, at)
        } else {
            (low, context, (y, x))
        };
        let input = self.input(case, &low, (target.height, target.width), pass)?;
        let [input, target] = [input, target].map(|whole| whole.crop(y, x, self.patch, self.patch));
        Ok([input, target, low])
    }

    /// The patches of step `step`, made on the threads of the pool that this is called in.
    ///
    /// # Errors
    /// A degradation that the recipe's check should have refused.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let plan = self.plan(step)?;
        let pass = self.model.pass(step);
        let make = |(index, (place, case)): (usize, &(Place<'_>, Case))| {
            let seed = generator(self.seed, Purpose::Noise, step, index as u64).random();
            self.pair(*place, case, seed, pass)
        };
        let pairs: Vec<[Raster<f32>; 3]> = plan.par_iter().enumerate().map(make).collect::<Result<_>>()?;
        let length = pairs.len() * self.patch * self.patch * 3;
        let each = plan.len() / self.blurs.unwrap_or(plan.len());
        let features =
            plan.iter().step_by(each).map(|(_, case)| case.degradation.features(case.noise.lambda())).collect();
        let [input, target] = [(); 2].map(|()| Vec::with_capacity(length));
        let mut batch = Batch { step, input, target, pass, features, cases: Vec::new() };
        for ([input, target, low], (_, case)) in pairs.into_iter().zip(plan) {
            batch.input.extend_from_slice(&input.data);
            batch.target.extend_from_slice(&target.data);
            if self.model.through {
                batch.cases.push((case, low));
            }
        }
        Ok(batch)
    }
}

/// Threads that make batches ahead of the training.
pub struct Feeder {
    // In this order: without a receiver the next send fails, and the work ends.
    batches: Receiver<Result<Batch>>,
    _threads: rayon::ThreadPool,
}

impl Feeder {
    /// Makes the batches of `steps`, in order, on `threads` threads, which change no bit.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn start(patches: Arc<Patches>, steps: std::ops::RangeInclusive<u64>, threads: usize) -> Result<Self> {
        // A pool of its own: the parallel loops of patches and degradation run in it instead of waking
        // the network's threads.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).thread_name(|_| "patches".to_owned());
        let threads = pool
            .build()
            .map_err(|error| Error::Device(format!("threads that make patches could not be started: {error}")))?;
        let (sender, batches) = sync_channel(AHEAD);
        threads.spawn(move || {
            for step in steps {
                let batch = patches.batch(step);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        Ok(Feeder { batches, _threads: threads })
    }

    /// The next batch.
    ///
    /// # Errors
    /// One that could not be made.
    pub fn next(&self) -> Result<Batch> {
        match self.batches.recv() {
            Ok(batch) => batch,
            Err(_) => Err(Error::Device("the threads that make patches ended early".to_owned())),
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
            let case = Case { degradation: degradation.clone(), truly: None, jpeg: None, noise: NoiseLevel::default() };
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
                    let input = degraded(&context, &case, 0, true).unwrap();
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
        let feeder = Feeder::start(patches, 4..=9, 3).unwrap();
        for wanted in &direct[3..] {
            assert_eq!(feeder.next().unwrap(), *wanted);
        }
        assert!(feeder.next().is_err());
        let other = Recipe { seed: 4, ..recipe };
        assert_ne!(make(&other).batch(1).unwrap(), direct[0]);
    }

    /// Photos whose every pixel tells where it is, so that patches can be found again.
    #[test]
    fn a_task_has_one_kernel_and_is_judged_in_other_places() {
        let text = "steps = 9\n[model]\nname = \"x\"\nscale = [2, 3]\n[data]\nphotos = [\"a\"]\npatch = 16\n\
                    [degradation]\nkernels = \"gaussian\"\n[optimiser]\nrate = 1e-3\n[output]\nfolder = \"o\"\n\
                    [meta]\ntasks = 3\ntrain = 2\ntest = 2\nupdates = 1\nrate = 0.1\n";
        let recipe = Recipe::parse(text).unwrap();
        // So small that patches would often overlap.
        let patches = Patches::new(&recipe, Photos::new(vec![photo(80, 90)], &[1.0]), &[]).unwrap();
        let mut kernels = Vec::new();
        for step in 1..=20 {
            let plan = patches.plan(step).unwrap();
            assert_eq!(plan.len(), 12);
            for task in plan.chunks(4) {
                assert!(task.iter().all(|(_, case)| case.degradation.kernel() == task[0].1.degradation.kernel()));
                let meets = |a: usize, b: usize| task[a].0.meets(&task[b].0);
                assert!(![(0, 2), (0, 3), (1, 2), (1, 3)].into_iter().any(|(a, b)| meets(a, b)));
                kernels.push(task[0].1.degradation.kernel().cloned());
            }
        }
        assert!((1..kernels.len()).all(|i| kernels[i] != kernels[i - 1]));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| patches.batch(3).unwrap()), patches.batch(3).unwrap());
        assert_eq!(patches.batch(3).unwrap().input.len(), 12 * 16 * 16 * 3);
    }

    /// The LR picture is made by the blur as it is, and what the network begins with by the blur as it is told.
    #[test]
    fn a_wrong_blur_and_a_jpeg_are_in_the_lr_picture_alone() {
        let text = "steps = 9\n[model]\nname = \"x\"\nscale = 2\ndownsample = \"direct\"\nstart = \"least-squares\"\n\
                    [data]\nphotos = [\"a\"]\npatch = 24\nbatch = 6\n[optimiser]\nrate = 1e-3\n[output]\nfolder = \"o\"\n\
                    [degradation]\nkernels = \"gaussian\"\nwrong_share = 1.0\njpeg_share = 0.5\njpeg = [50, 70]\n";
        let recipe = Recipe::parse(text).unwrap();
        let whole = photo(24, 24);
        let patches = Patches::new(&recipe, Photos::new(vec![whole.clone()], &[1.0]), &[]).unwrap();
        let mut saved = 0;
        for step in 1..=3 {
            for (place, case) in patches.plan(step).unwrap() {
                let truly = case.truly.clone().unwrap();
                assert_ne!(truly.kernel(), case.degradation.kernel());
                let [input, target, low] = patches.pair(place, &case, 0, 0).unwrap();
                assert_eq!(target, light(&place.turn.apply(&whole)));
                let clean = eight_bits(&truly.apply(&target));
                let wanted = match case.jpeg {
                    Some(Saved { quality, halved }) => through_jpeg(&clean, quality, halved).unwrap().0,
                    None => clean.clone(),
                };
                assert_eq!(low, light(&wanted));
                assert_eq!(case.jpeg.is_some(), wanted != clean);
                assert_eq!(case.noise.lambda() > 1e-3, case.jpeg.is_some());
                saved += usize::from(case.jpeg.is_some());
                let course = case.course(&recipe.model);
                assert_eq!(input, course.begin_patch(&case.degradation, &low, 24, 24));
            }
        }
        assert!((3..=15).contains(&saved), "{saved}");
    }

    /// The updates of a task learn what a photo's adaptation would: from its LR pixels and their son.
    #[test]
    fn a_task_learns_from_sons() {
        for scale in [1.0, 2.0, 2.5, 3.0] {
            let text = format!(
                "steps = 9\n[model]\nname = \"x\"\nscale = {scale}\n[data]\nphotos = [\"a\"]\npatch = 16\n\
                 [degradation]\nkernels = \"gaussian\"\n[optimiser]\nrate = 1e-3\n[output]\nfolder = \"o\"\n\
                 [meta]\ntasks = 1\ntrain = 3\ntest = 1\nupdates = 1\nrate = 0.1\nsons = true\n"
            );
            let recipe = Recipe::parse(&text).unwrap();
            assert_eq!(recipe.side(), father(16, scale));
            let whole = photo(recipe.side(), recipe.side());
            let patches = Patches::new(&recipe, Photos::new(vec![whole.clone()], &[1.0]), &[]).unwrap();
            let batch = patches.batch(1).unwrap();
            let plan = patches.plan(1).unwrap();
            let size = 16 * 16 * 3;
            for (index, (place, case)) in plan.iter().enumerate() {
                let turned = light::<f32>(&place.turn.apply(&whole));
                let low: Raster<f32> = light(&eight_bits(&case.degradation.apply(&turned)));
                let target = &batch.target[index * size..][..size];
                if index == 3 {
                    assert_eq!(place.side, 16);
                    continue;
                }
                // The only place of so small a photo.
                assert_eq!((place.y, place.x, place.side), (0, 0, recipe.side()));
                assert_eq!(target, low.crop(0, 0, 16, 16).data);
                let course = case.course(&recipe.model);
                let engine = crate::engine::plain::PlainEngine::<f32>::new();
                let son = crate::adapt::son::Son::of(&engine, &low, &case.degradation, &course, Vec::new()).unwrap();
                let input = raster(&engine, &son.input).unwrap().crop(0, 0, 16, 16);
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
                assert!(batch.input[index * size..][..size].iter().zip(&input.data).all(near), "{scale} {index}");
            }
        }
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
        drop(Feeder::start(patches, 1..=u64::MAX, 1).unwrap());
        for _ in 0..200 {
            if weak.upgrade().is_none() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the thread goes on");
    }
}
