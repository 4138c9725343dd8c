//! What every training shares: reading and checking, the loop of Adam's steps, validation,
//! checkpoint, log and weights files. How a step's gradient comes about is in [`mod@super::pretrain`] and
//! [`mod@super::meta_train`].

use super::checkpoint::{self, Checkpoint, Score, State};
use super::inner_rates::{InnerRates, with_tail};
use super::log::{Judgement, Log, Report};
use super::muon::Muon;
use super::patches::{Feeder, Patches};
use super::photos::Photos;
use super::random::{Purpose, generator, normal};
use super::recipe::{Kernels, Meta, Recipe};
use super::validation::Judge;
use super::{meta_train, pretrain, through};
use crate::adapt::Rates;
use crate::engine::{AdamStep, Engine, Shape};
use crate::network::weights::{Blurs, Info, Weights};
use crate::network::{Architecture, Network, Passes};
use crate::{Error, Result};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The name of the best weights by validation, in the output folder.
pub const BEST: &str = "best.safetensors";
/// The name of the last validated weights, in the output folder.
pub const LAST: &str = "last.safetensors";
/// The last layer begins with its weights times this, so that the network begins close to its start.
const LAST_LAYER: f64 = 0.1;

/// What a recipe leaves to the one who runs it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the folders of photos are relative to; the current directory if empty.
    pub data: PathBuf,
    /// Whether to go on from the checkpoint in the output folder.
    pub resume: bool,
    /// Threads that make patches; 0 is 1.
    pub feeders: usize,
    /// When it becomes true, the training stops after the step at hand.
    pub stop: Arc<AtomicBool>,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were made.
    Finished,
    /// It was stopped after this step, with a checkpoint.
    Stopped(u64),
}

/// What happens during a training.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Something to know, in a line.
    Note(String),
    /// Steps begin; those before the range were made earlier.
    Begin(RangeInclusive<u64>),
    /// A step was made.
    Step(u64),
    /// A line of the log.
    Report(&'a Report),
    /// The weights were judged.
    Judged(&'a Judgement),
}

/// The tensors of a training.
struct Tensors<T> {
    params: T,
    first: T,
    second: T,
    ema: Option<T>,
    grad: T,
}

/// A training at work.
struct Trainer<'a, E: Engine<Elem = f32>> {
    network: Network<'a, E>,
    architecture: Architecture,
    recipe: &'a Recipe,
    text: &'a str,
    /// The parameters of the passes before those that are trained.
    before: Vec<f32>,
    tensors: Tensors<E::Tensor>,
    state: State,
    judge: Option<Judge>,
    /// For the end.
    last_judge: Option<Judge>,
}

/// Trains as `recipe` (with its text) says. Everything is read and checked before the first step.
pub(super) fn train<E: Engine<Elem = f32>>(
    engine: &E,
    recipe: &Recipe,
    text: &str,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Ending> {
    recipe.check()?;
    let architecture = recipe.model.network()?;
    let folder = &recipe.output.folder;
    let earlier = earlier(recipe, folder, options.resume, observe)?;
    let makers = earlier_passes(recipe, &architecture)?;
    let before = if recipe.model.trains_all() { Vec::new() } else { makers.clone() };
    let first = match earlier {
        None => first_weights(recipe, &architecture, &before)?,
        Some(_) => Vec::new(),
    };
    let photos = Photos::read(&options.data, &recipe.data.photos, recipe.side())?;
    let judge_on = |everything: bool| {
        let wanted = recipe.validation.as_ref().filter(|validation| !everything || validation.final_on_all);
        wanted.map(|validation| Judge::read(&options.data, &recipe.model, validation, everything, &before)).transpose()
    };
    let (judge, last_judge) = (judge_on(false)?, judge_on(true)?);
    let fingerprint = photos.fingerprint();
    observe(Event::Note(format!(
        "{} photos, {:.1} megapixels; validation on {}",
        photos.len(),
        photos.pixels() as f64 / 1e6,
        judge.as_ref().map_or("nothing".to_owned(), |judge| format!("{} photos", judge.photos())),
    )));
    if earlier.as_ref().is_some_and(|checkpoint| checkpoint.state.photos != fingerprint) {
        return Err(Error::file(
            folder.join(checkpoint::FILE),
            "was made with other photos: give the same ones (--data), or another [output] folder",
        ));
    }
    let flat = Shape::flat(recipe.model.trained()?);
    let upload = |values: &[f32]| engine.upload(flat, values);
    let (state, tensors) = match earlier {
        Some(Checkpoint { state, params, first, second, ema, .. }) => {
            let tensors = Tensors {
                params: upload(&params)?,
                first: upload(&first)?,
                second: upload(&second)?,
                ema: ema.as_deref().map(upload).transpose()?,
                grad: engine.zeros(flat)?,
            };
            // The recipe may have changed where it is free to.
            (State { recipe: recipe.clone(), ..state }, tensors)
        }
        None => {
            let tensors = Tensors {
                params: upload(&first)?,
                first: engine.zeros(flat)?,
                second: engine.zeros(flat)?,
                ema: recipe.optimiser.ema.map(|_| upload(&first)).transpose()?,
                grad: engine.zeros(flat)?,
            };
            let state = State {
                step: 0,
                recipe: recipe.clone(),
                photos: fingerprint,
                best: None,
                history: Vec::new(),
                loss_sum: 0.0,
                loss_count: 0,
                rates: first_rates(recipe, &architecture)?,
            };
            (state, tensors)
        }
    };
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let patches = Patches::new(recipe, photos, &makers)?;
    let trainer = Trainer {
        network: Network::new(engine, &architecture),
        architecture,
        recipe,
        text,
        before,
        tensors,
        state,
        judge,
        last_judge,
    };
    trainer.run(Arc::new(patches), options, observe)
}

/// The checkpoint to go on from, if any.
fn earlier(
    recipe: &Recipe,
    folder: &Path,
    resume: bool,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Checkpoint>> {
    let path = folder.join(checkpoint::FILE);
    let Some(checkpoint) = Checkpoint::load(folder)? else {
        if resume {
            observe(Event::Note(format!("{}: no checkpoint there, beginning anew", path.display())));
        }
        return Ok(None);
    };
    let step = checkpoint.state.step;
    if !resume {
        return Err(Error::file(
            path,
            format!("is there, after step {step}: go on from it with --resume, or name another [output] folder"),
        ));
    }
    // Through JSON once, as the checkpoint's: numbers with many digits may lose the last bit there.
    let given = serde_json::to_string(recipe)
        .and_then(|text| serde_json::from_str::<Recipe>(&text))
        .map_err(|error| Error::Input(format!("the recipe cannot be compared with the checkpoint's: {error}")))?;
    for key in checkpoint.state.recipe.differences(&given) {
        // These do not change what a step does to the weights, or which of them is the best.
        let free = key.starts_with("output.") || key == "validation.every" || key == "validation.final_on_all";
        if key == "steps" {
            if recipe.steps < step {
                let what = format!("has made {step} steps, more than the recipe's {}: raise steps", recipe.steps);
                return Err(Error::file(path, what));
            }
            let (old, new) = (checkpoint.state.recipe.steps, recipe.steps);
            let rate = |steps| recipe.optimiser.rate_at(step + 1, steps);
            if rate(old) != rate(new) {
                let (was, is) = (rate(old), rate(new));
                observe(Event::Note(format!(
                    "steps changed from {old} to {new}: the learning rate now follows the new end, {is:.3e} here \
                     instead of {was:.3e}"
                )));
            }
        } else if !free {
            return Err(Error::file(
                path,
                format!(
                    "was made with another {key}, so that a resumed training would not equal a whole one: \
                     put the recipe back, or name another [output] folder"
                ),
            ));
        }
    }
    observe(Event::Note(format!("going on after step {step}")));
    Ok(Some(checkpoint))
}

/// The parameters of the passes that make what goes into a later one.
fn earlier_passes(recipe: &Recipe, architecture: &Architecture) -> Result<Vec<f32>> {
    let model = &recipe.model;
    let Some(path) = &model.earlier else { return Ok(Vec::new()) };
    let weights = Weights::load(path)?;
    let Weights { architecture: found, info, .. } = &weights;
    if found != architecture || info.passes + 1 < model.passes || info.start != model.start || info.fit != model.fit {
        let what = format!(
            "holds a network {found} with {} passes from the {} start; [model] earlier needs {architecture} with at least {} \
             from the {} start",
            info.passes,
            info.start,
            model.passes - 1,
            model.start
        );
        return Err(Error::file(path, what));
    }
    let count = weights.layout().count(model.passes - 1);
    let mut parameters = weights.parameters;
    parameters.truncate(count);
    Ok(parameters)
}

/// The weights that a training begins with: those of the recipe, or He's (2015) normal ones.
fn first_weights(recipe: &Recipe, architecture: &Architecture, before: &[f32]) -> Result<Vec<f32>> {
    let layout = recipe.model.layout()?;
    if let Some(path) = &recipe.model.initial {
        let weights = Weights::load(path)?;
        if weights.architecture != *architecture {
            let what = format!("holds a network {}, the recipe's is {architecture}", weights.architecture);
            return Err(Error::file(path, what));
        }
        // Of several passes the trained one, or the last.
        let pass = recipe.model.passes.min(weights.info.passes) - 1;
        let mut params = weights.layout().one(&weights.parameters, pass);
        // Parameters that are to follow the blur begin with not following it.
        params.resize(layout.each(), 0.0);
        if recipe.model.trains_all() {
            return Ok(all_passes(&weights, &layout, recipe.model.passes, &params));
        }
        if !before.is_empty() {
            params[..layout.shared()].copy_from_slice(&before[..layout.shared()]);
        }
        return Ok(params);
    }
    let mut params = vec![0.0; layout.each()];
    let layers = architecture.layers();
    for (l, layer) in layers.iter().enumerate() {
        let mut random = generator(recipe.seed, Purpose::Weights, 0, l as u64);
        let last = l + 1 == layers.len();
        // Half of what enters a layer was cut off by a ReLU, except for the picture itself.
        let gain = if l == 0 { 1.0 } else { 2.0 };
        let size = (gain / (9.0 * layer.input as f64)).sqrt() * if last { LAST_LAYER } else { 1.0 };
        params[layer.weight_range()].iter_mut().for_each(|v| *v = (size * normal(&mut random)) as f32);
    }
    if recipe.model.trains_all() {
        return Ok((1..recipe.model.passes).fold(params.clone(), |all, _| layout.join(&all, &params)));
    }
    Ok(params)
}

/// The rates that a meta-training begins with.
fn first_rates(recipe: &Recipe, architecture: &Architecture) -> Result<Option<InnerRates>> {
    let Some(meta) = &recipe.meta else { return Ok(None) };
    let layers = architecture.depth();
    match &recipe.model.initial {
        Some(path) if meta.initial_rates => {
            let info = Weights::load(path)?.info;
            let rates = Rates(info.rates);
            let updates = info.updates.unwrap_or(0);
            InnerRates::of_weights(meta, layers, &rates, updates).map(Some).ok_or_else(|| {
                let wanted = meta.updates;
                let what = format!(
                    "was trained for {updates} updates; [meta] initial_rates needs {wanted}: take lower updates, or \
                     leave it out"
                );
                Error::file(path, what)
            })
        }
        _ => Ok(Some(InnerRates::new(meta, layers))),
    }
}

/// The parameters of `passes` passes: those of `weights`, and `last` for each beyond them.
fn all_passes(weights: &Weights, layout: &Passes, passes: usize, last: &[f32]) -> Vec<f32> {
    (0..passes).fold(Vec::new(), |all, pass| {
        if pass + 1 < passes.min(weights.info.passes) {
            let mut one = weights.layout().one(&weights.parameters, pass);
            one.resize(layout.each(), 0.0);
            layout.join(&all, &one)
        } else {
            layout.join(&all, last)
        }
    })
}

impl<E: Engine<Elem = f32>> Trainer<'_, E> {
    /// The steps that are left.
    fn run(mut self, patches: Arc<Patches>, options: &Options, observe: &mut dyn FnMut(Event<'_>)) -> Result<Ending> {
        let recipe = self.recipe;
        let steps = self.state.step + 1..=recipe.steps;
        let mut log = Log::open(&recipe.output.folder, self.state.step)?;
        let feeder = Feeder::start(patches, steps.clone(), options.feeders)?;
        observe(Event::Begin(steps.clone()));
        let mut clock = Clock::start();
        let mut saved = self.state.step;
        for step in steps {
            let (loss, gradient) = self.step(step, &feeder, &mut clock)?;
            self.state.step = step;
            self.state.loss_sum += loss;
            self.state.loss_count += 1;
            observe(Event::Step(step));
            let last = step == recipe.steps;
            if last || step.is_multiple_of(recipe.output.log_every) {
                let report = self.report(gradient, &mut clock);
                log.report(&report)?;
                observe(Event::Report(&report));
            }
            let stopped = options.stop.load(Ordering::Relaxed);
            let judged = recipe.validation.as_ref().is_some_and(|v| last || step.is_multiple_of(v.every));
            if judged {
                self.validate(&mut log, observe)?;
                clock.restart();
            }
            if judged || last || stopped || step.is_multiple_of(recipe.output.checkpoint_every) {
                self.save()?;
                saved = step;
            }
            if stopped && !last {
                return Ok(Ending::Stopped(step));
            }
        }
        if saved != self.state.step {
            self.save()?;
        }
        self.finish(&mut log, observe)?;
        Ok(Ending::Finished)
    }

    /// One step; the loss before it and the norm of the gradient.
    fn step(&mut self, step: u64, feeder: &Feeder, clock: &mut Clock) -> Result<(f64, f64)> {
        let (engine, recipe) = (self.network.engine(), self.recipe);
        let optimiser = &recipe.optimiser;
        let batch = clock.waiting(|| feeder.next())?;

        let tensors = &mut self.tensors;
        let all = 0..engine.shape(&tensors.params).len();
        engine.scale(all.clone(), 0.0, &mut tensors.grad)?;
        let rate = optimiser.rate_at(step, recipe.steps);
        // A short memory at first, or the random weights would stay in it for long.
        let decay = optimiser.ema.map(|decay| decay.min((1.0 + step as f64) / (10.0 + step as f64)));
        let loss = match (&recipe.meta, &mut self.state.rates) {
            (Some(meta), Some(rates)) => {
                let grad = &mut tensors.grad;
                let made = meta_train::gradient(&self.network, &tensors.params, recipe, meta, rates, &batch, grad)?;
                if !made.rates.iter().flatten().all(|v| v.is_finite()) {
                    return Err(diverged(step, "gradient of the rates is"));
                }
                let own = meta.learn.unwrap_or(0.0) * rate / optimiser.rate;
                rates.learn(meta, &made.rates, own, optimiser.betas, step, decay);
                made.loss
            }
            _ if recipe.model.through => {
                through::of_batch(&self.network, &tensors.params, recipe, &batch, &mut tensors.grad)?
            }
            _ if recipe.model.fit => {
                pretrain::fitted_gradient(&self.network, &tensors.params, recipe, &batch, &mut tensors.grad)?
            }
            _ => pretrain::gradient(&self.network, &tensors.params, recipe, &batch, &mut tensors.grad)?,
        };
        let gradient = engine.dot(all.clone(), &tensors.grad, &tensors.grad)?.sqrt();
        if !(loss.is_finite() && gradient.is_finite()) {
            return Err(diverged(step, if loss.is_finite() { "gradient is" } else { "loss is" }));
        }
        if let Some(clip) = optimiser.clip.filter(|clip| gradient > *clip) {
            engine.scale(all.clone(), clip / gradient, &mut tensors.grad)?;
        }
        let [beta1, beta2] = optimiser.betas;
        let adam = AdamStep::new(rate, beta1, beta2, optimiser.epsilon, step);
        let before = optimiser.muon.then(|| engine.duplicate(&tensors.params)).transpose()?;
        engine.adam(adam, &tensors.grad, &mut tensors.first, &mut tensors.second, &mut tensors.params)?;
        if let Some(before) = before {
            let model = &recipe.model;
            let networks = if model.trains_all() && !model.fit { model.passes } else { 1 };
            let known = [&tensors.grad, &tensors.first, &before];
            Muon::new(self.network.layers(), networks).correct(engine, (rate, beta1), known, &mut tensors.params)?;
        }
        if let (Some(decay), Some(ema)) = (decay, &mut tensors.ema) {
            engine.scale(all.clone(), decay, ema)?;
            engine.axpy(all, 1.0 - decay, &tensors.params, ema)?;
        }
        clock.images += recipe.meta.as_ref().map_or(recipe.data.batch, Meta::patches);
        Ok((loss, gradient))
    }

    /// What the log says of the steps since its last line.
    fn report(&mut self, gradient: f64, clock: &mut Clock) -> Report {
        let (images_per_second, waiting) = clock.lap();
        let step = self.state.step;
        let loss = self.state.loss_sum / self.state.loss_count.max(1) as f64;
        (self.state.loss_sum, self.state.loss_count) = (0.0, 0);
        Report {
            step,
            loss,
            rate: self.recipe.optimiser.rate_at(step, self.recipe.steps),
            gradient,
            images_per_second,
            waiting,
        }
    }

    /// The weights that are judged and kept.
    fn kept(&self) -> &E::Tensor {
        self.tensors.ema.as_ref().unwrap_or(&self.tensors.params)
    }

    /// The rates that are judged and kept: those of the trained updates.
    fn kept_rates(&self) -> Vec<Vec<f64>> {
        match (&self.recipe.meta, &self.state.rates) {
            (Some(meta), Some(rates)) => rates.kept(meta, self.recipe.optimiser.ema.is_some()),
            _ => Vec::new(),
        }
    }

    /// The same with the updates beyond them.
    fn all_rates(&self) -> Rates {
        let tail = self.recipe.meta.as_ref().map_or(0.0, |meta| meta.tail);
        with_tail(&self.kept_rates(), tail)
    }

    /// Judges the weights, keeps them as the last, and as the best if they are.
    fn validate(&mut self, log: &mut Log, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let mut judgement = judge.judge(&self.network, self.kept(), &self.all_rates(), self.state.step)?;
        judgement.rates = self.kept_rates();
        let score = Score { step: self.state.step, psnr: judgement.validation };
        judgement.best = self.state.best.is_none_or(|best| score.psnr > best.psnr);
        let weights = self.weights(Some(&judgement))?;
        weights.save(&self.recipe.output.folder.join(LAST))?;
        if judgement.best {
            weights.save(&self.recipe.output.folder.join(BEST))?;
            self.state.best = Some(score);
        }
        self.state.history.push(score);
        log.judgement(&judgement)?;
        observe(Event::Judged(&judgement));
        Ok(())
    }

    /// The last judgement, on everything, of the best weights.
    fn finish(&mut self, log: &mut Log, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let folder = &self.recipe.output.folder;
        if self.judge.is_none() {
            return self.weights(None)?.save(&folder.join(LAST));
        }
        let (Some(best), Some(judge)) = (self.state.best, &self.last_judge) else { return Ok(()) };
        let weights = Weights::load(&folder.join(BEST))?;
        let own = if self.recipe.model.trains_all() {
            weights.parameters
        } else {
            weights.layout().one(&weights.parameters, self.recipe.model.passes - 1)
        };
        let params = self.network.engine().upload(Shape::flat(own.len()), &own)?;
        let rates = Rates(weights.info.rates);
        let mut judgement = judge.judge(&self.network, &params, &rates, best.step)?;
        judgement.last = true;
        judgement.best = true;
        // The log's lines are in the order of steps, which a resumption relies on.
        judgement.step = self.state.step;
        log.judgement(&judgement)?;
        observe(Event::Note(format!("final validation on {} photos, weights of step {}", judge.photos(), best.step)));
        observe(Event::Judged(&judgement));
        Ok(())
    }

    /// The weights as a file of ours.
    fn weights(&self, judgement: Option<&Judgement>) -> Result<Weights> {
        let recipe = self.recipe;
        let model = &recipe.model;
        let kernels = match recipe.degradation.kernels {
            Kernels::None => Blurs::Without,
            Kernels::Gaussian if recipe.degradation.none_share > 0.0 => Blurs::Both,
            Kernels::Gaussian => Blurs::With,
        };
        let mut info = Info::new(&model.name, model.scale_range(), model.downsample.into(), kernels);
        info.start = model.start;
        info.recipe = self.text.to_owned();
        let judged = judgement
            .map_or("not validated".to_owned(), |judgement| format!("validation {:.3} dB", judgement.validation));
        let (version, step) = (env!("CARGO_PKG_VERSION"), self.state.step);
        let command = match &recipe.meta {
            Some(meta) => {
                info.updates = Some(meta.updates);
                info.rates = self.all_rates().0;
                "meta-train"
            }
            None => "pretrain",
        };
        info.provenance = format!("mzsr {version} {command}, step {step} of {}, {judged}", recipe.steps);
        let parameters = model.layout()?.join(&self.before, &self.network.engine().download(self.kept())?);
        info.passes = model.passes;
        info.fit = model.fit;
        Ok(Weights { architecture: self.architecture.clone(), parameters, info })
    }

    /// Writes the checkpoint.
    fn save(&self) -> Result<()> {
        let engine = self.network.engine();
        let Tensors { params, first, second, ema, .. } = &self.tensors;
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            text: self.text.to_owned(),
            params: engine.download(params)?,
            first: engine.download(first)?,
            second: engine.download(second)?,
            ema: ema.as_ref().map(|ema| engine.download(ema)).transpose()?,
        };
        let Checkpoint { params, first, second, .. } = &checkpoint;
        if ![params, first, second].into_iter().flatten().all(|v| v.is_finite()) {
            return Err(diverged(self.state.step, "weights are"));
        }
        checkpoint.save(&self.recipe.output.folder)
    }
}

/// The error for what is no longer finite.
fn diverged(step: u64, what: &str) -> Error {
    Error::Numeric(format!(
        "step {step}: the {what} not finite, the training diverged; the last checkpoint is kept: begin anew with a \
         lower [optimiser] rate, a longer warm_up, or clip"
    ))
}

/// How fast it goes.
struct Clock {
    since: Instant,
    waited: Duration,
    images: usize,
}

impl Clock {
    fn start() -> Self {
        Clock { since: Instant::now(), waited: Duration::ZERO, images: 0 }
    }

    /// Forgets the time that went into something else than steps, and what was done before it.
    fn restart(&mut self) {
        *self = Clock::start();
    }

    /// Counts the time of `work` as waiting.
    fn waiting<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.waited += start.elapsed();
        result
    }

    /// Images a second and the share of waiting since the last lap.
    fn lap(&mut self) -> (f64, f64) {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let lap = (self.images as f64 / seconds, self.waited.as_secs_f64() / seconds);
        *self = Clock::start();
        lap
    }
}
