//! What a training is made of, as a TOML file; everything is checked before any work starts.
//!
//! ```toml
//! steps = 27000                   # required
//! seed = 1                        # default 0
//!
//! [model]
//! name = "bicubic-x2"             # required: what to call the weights
//! scale = 2                       # one scale from 1 to 4, or a list to draw from
//! downsample = "bicubic"          # or "direct", which needs kernels
//! start = "bicubic"               # what the network's output is added to
//! architecture = "3-64-64-64-64-64-64-64-3"
//! initial = "weights.safetensors" # default: random weights, drawn from the seed
//! passes = 2                      # through the network; default 1. The last one is trained,
//! earlier = "first.safetensors"   # those before it stay as they are in this file, whose later passes
//!                                 # are left aside
//! fit = true                      # the parameters follow the blur; default false. Later passes then
//!                                 # share the network's own with the first, and only how they follow
//!                                 # is trained
//! together = true                 # all passes are trained, each step one of them in turn; what goes into
//!                                 # a later one is still made by those in `earlier`; default false
//! through = true                  # all passes are trained in each step, on the loss after the last one's
//!                                 # data step (and 0.15 of that after the others'), with the gradient
//!                                 # through passes and data steps; without `earlier`; default false
//!
//! [data]
//! photos = ["train/a", { folder = "train/b", weight = 2, shrink = 1.5 }]
//! patch = 48                      # HR pixels on each side; required
//! batch = 8                       # patches a step; required, but not with [meta]
//! blurs = 4                       # of a step, each for as many patches; default: each patch has its own.
//!                                 # With `fit` each is a network of its own
//!
//! [degradation]
//! kernels = "none"                # or "gaussian": the paper's distribution
//! size = 15                       # of a kernel
//! lambda1 = [1.0, 5.0]            # variances in px²; default 1 to 2.5 times the scale
//! lambda2_from = 1.0              # the second variance is uniform from here to the first
//! small_share = 0.2               # of small kernels, default 0: variances uniform in `small`,
//! small = [0.2, 1.0]              #
//! small_isotropic = 0.5           # this share of them round
//! disk_share = 0.1                # of lenses out of focus, default 0: radii uniform in `disk`,
//! disk = [0.5, 2.5]               # in px
//! motion_share = 0.1              # of moving cameras, default 0: lengths uniform in `motion`,
//! motion = [1.0, 9.0]             # in px, any angle
//! noise_share = 0.1               # of photos with noise, default 0: its standard deviation uniform
//! noise = [1.0, 8.0]              # in `noise`, of 255; λ of the start follows it
//! jpeg_share = 0.1                # of photos that were saved as JPEG, default 0: their quality uniform
//! jpeg = [60, 95]                 # in `jpeg`, half of them with colour at half the size; λ follows it
//! wrong_share = 0.1               # of patches whose blur is told wrong, default 0: too wide by a factor
//! wrong = [0.8, 1.25]             # uniform in `wrong`
//! none_share = 0.2                # of patches without blur, default 0 (with bicubic downsampling)
//! round = true                    # LR values to 8 bits
//!
//! [optimiser]                     # Adam on the mean absolute error
//! rate = 1e-3                     # required
//! schedule = "cosine"             # or "constant", "trapezoid" with `fall`, "steps" with `drops`
//! final_rate = 0.0                # where cosine and trapezoid end
//! fall = 0.3                      # share of the steps at the end over which a trapezoid falls
//! warm_up = 500                   # steps over which the rate rises from 0
//! drops = [10000, 20000]          # after these steps the rate is multiplied by
//! factor = 0.5
//! betas = [0.9, 0.999]
//! epsilon = 1e-8
//! muon = true                     # layers' weights by orthogonal momentum instead (Muon), which takes
//!                                 # fewer steps; with the first of `betas` at 0.95; default: false
//! clip = 1.0                      # largest norm of the gradient; default: none
//! ema = 0.999                     # decay of an average of the weights that is validated and
//!                                 # kept in their place; default: none
//!
//! [meta]                          # for `mzsr meta-train`: what is trained is what a few updates
//!                                 # make of the weights, on tasks of one kernel and scale each
//! tasks = 2                       # a step; required
//! train = 4                       # patches that a task's updates learn from; required
//! test = 4                        # patches, of other places, that judge them; required
//! sons = true                     # the updates learn from LR patches and their sons, as they do from
//!                                 # a photo; by default from HR patches and their LR, as in the paper
//! updates = 5                     # required
//! rate = 1e-2                     # of the updates, or a list with one for each; required
//! learn = 0.02                    # the rates are learned, one for each layer and update: this is the
//!                                 # rate of Adam on their logarithms, which follows the optimiser's
//!                                 # schedule; default: they stay as they are
//! least_rate = 1e-3               # no learned rate falls below; default 1e-8
//! initial_rates = true            # they begin with those of [model] initial, which was meta-trained for
//!                                 # as many updates at least; default: with rate
//! order = 2                       # exact meta-gradients; 1 leaves the Hessian out
//! weights = "annealed"            # of the loss after each update: the paper's, all equal at first, or a
//!                                 # list of them that sums to 1
//! before = 0.5                    # of the loss before any update, beside them; default 0
//! anneal = 3333.3                 # steps in which an annealed weight would fall to 0
//! tail = 0.5                      # rates of updates beyond these: each is the last one times this
//!
//! [validation]
//! photos = ["valid"]
//! every = 1000                    # steps
//! limit = 8                       # photos, evenly chosen; default: all
//! crop = 256                      # the middle of each; default: whole
//! kernels = ["none"]              # SPECs as for `mzsr degrade`
//! scales = [2]                    # default: the smallest and the largest of the model
//! updates = [0, 1, 5, 10]         # numbers of updates that are judged, for [meta]; default [0]
//! score = [1, 10]                 # those whose mean is the score; default: all of them
//! final_on_all = true             # at the end once more on all photos, whole
//!
//! [output]
//! folder = "runs/bicubic-x2"
//! checkpoint_every = 500          # steps
//! log_every = 100                 # steps
//! ```
//!
//! Paths are relative to the current directory, those of photos to `--data` if it is given.

use crate::adapt::Course;
use crate::degrade::{self, Downsample, Start};
use crate::kernel::Kernel;
use crate::network::weights::{MAX_PASSES, MAX_UPDATES};
use crate::network::{Architecture, Passes};
use crate::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// The most values in the input of one step (batch × patch × patch × 3).
const MAX_VALUES: usize = 1 << 26;
/// The largest kernel that a recipe may ask for.
const MAX_KERNEL: usize = 63;
/// The most updates of a task: each keeps a set of weights in memory.
const MAX_META_UPDATES: usize = 100;

/// A whole recipe; see the [module](self) for the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Steps of the optimiser.
    pub steps: u64,
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: u64,
    /// What is trained.
    pub model: Model,
    /// What it is trained on.
    pub data: Data,
    /// What makes the photos small.
    #[serde(default)]
    pub degradation: Degradations,
    /// How it is trained.
    pub optimiser: Optimiser,
    /// The tasks of meta-training; absent for supervised training.
    pub meta: Option<Meta>,
    /// How it is judged; without this nothing is.
    pub validation: Option<Validation>,
    /// Where it goes.
    pub output: Output,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What to call the weights.
    pub name: String,
    /// Scales to draw from.
    #[serde(deserialize_with = "one_or_many")]
    pub scale: Vec<f64>,
    /// How pixels are dropped.
    #[serde(default)]
    pub downsample: Dropping,
    /// What the network's output is added to.
    #[serde(default)]
    pub start: Start,
    /// Channels from layer to layer.
    #[serde(default = "Model::default_architecture")]
    pub architecture: String,
    /// Weights to begin with; random ones otherwise.
    pub initial: Option<PathBuf>,
    /// How often a photo goes through the network; the last pass is trained.
    #[serde(default = "Model::default_passes")]
    pub passes: usize,
    /// The weights of the passes before it.
    pub earlier: Option<PathBuf>,
    /// Whether the parameters follow the blur ([`crate::network::Fit`]).
    #[serde(default)]
    pub fit: bool,
    /// Whether all passes are trained, each step one of them in turn.
    #[serde(default)]
    pub together: bool,
    /// Whether all passes are trained on what the last one makes, with the gradient through all of them.
    #[serde(default)]
    pub through: bool,
}

/// How pixels are dropped, as written in a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dropping {
    /// Every s-th pixel is kept.
    Direct,
    /// `imresize`.
    #[default]
    Bicubic,
}

impl From<Dropping> for Downsample {
    fn from(dropping: Dropping) -> Self {
        match dropping {
            Dropping::Direct => Downsample::Direct,
            Dropping::Bicubic => Downsample::Bicubic,
        }
    }
}

/// What the network is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Folders of photos.
    pub photos: Vec<Folder>,
    /// Rows and columns of an HR patch.
    pub patch: usize,
    /// Patches a step; 0 with [`Recipe::meta`], which says it by tasks.
    #[serde(default)]
    pub batch: usize,
    /// Blurs of a step, each for as many patches; each patch has its own if absent.
    pub blurs: Option<usize>,
}

/// A folder of photos: `"folder"` or `{ folder = "…", weight = 2, shrink = 1.5 }`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Folder {
    /// Where.
    pub folder: PathBuf,
    /// How much likelier one of its pixels is seen.
    pub weight: f64,
    /// Photos are made smaller by this factor (cubic, antialiased) as they are read, which takes
    /// the traces of JPEG and of sharpening away.
    pub shrink: f64,
}

/// Which kernels blur the photos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Degradations {
    /// None, or a distribution.
    pub kernels: Kernels,
    /// Rows and columns of a kernel.
    pub size: usize,
    /// The range of the first variance in px²; 1 to 2.5 s if absent.
    pub lambda1: Option<[f64; 2]>,
    /// The second variance lies between this and the first.
    pub lambda2_from: f64,
    /// The share of small kernels.
    pub small_share: f64,
    /// Their range of variances.
    pub small: [f64; 2],
    /// The share of round ones among them.
    pub small_isotropic: f64,
    /// The share of disks.
    pub disk_share: f64,
    /// Their range of radii in px.
    pub disk: [f64; 2],
    /// The share of motion in a straight line.
    pub motion_share: f64,
    /// Its range of lengths in px.
    pub motion: [f64; 2],
    /// The share with noise.
    pub noise_share: f64,
    /// The range of its standard deviation, of 255.
    pub noise: [f64; 2],
    /// The share of photos that were saved as JPEG.
    pub jpeg_share: f64,
    /// The range of its quality, from 1 to 100.
    pub jpeg: [f64; 2],
    /// The share of patches whose blur is told wrong.
    pub wrong_share: f64,
    /// The range of the factor by which it is told too wide.
    pub wrong: [f64; 2],
    /// The share of patches without blur.
    pub none_share: f64,
    /// Whether LR values are rounded to 8 bits.
    pub round: bool,
}

/// A family of kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// No blur.
    #[default]
    None,
    /// Gaussians of random size, shape and angle.
    Gaussian,
}

/// How the weights are moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// The highest learning rate.
    pub rate: f64,
    /// How it changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where cosine and trapezoid end.
    #[serde(default)]
    pub final_rate: f64,
    /// For [`Schedule::Trapezoid`]: the share of the steps at the end over which the rate falls.
    #[serde(default = "Optimiser::default_fall")]
    pub fall: f64,
    /// Steps over which the rate rises from 0.
    #[serde(default)]
    pub warm_up: u64,
    /// For [`Schedule::Steps`]: after these steps …
    #[serde(default)]
    pub drops: Vec<u64>,
    /// … the rate is multiplied by this.
    #[serde(default = "Optimiser::default_factor")]
    pub factor: f64,
    /// Adam's decays.
    #[serde(default = "Optimiser::default_betas")]
    pub betas: [f64; 2],
    /// Adam's ε.
    #[serde(default = "Optimiser::default_epsilon")]
    pub epsilon: f64,
    /// Whether layers' weights go by orthogonal momentum (Jordan et al., Muon, 2024) and only the rest by Adam.
    #[serde(default)]
    pub muon: bool,
    /// The largest norm of a gradient; longer ones are shortened to it.
    pub clip: Option<f64>,
    /// The decay of the average of the weights.
    pub ema: Option<f64>,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// Half a cosine from `rate` to `final_rate`.
    #[default]
    Cosine,
    /// Not until the last part of the steps, then in a straight line to `final_rate`. More steps
    /// can be added to a training that has not come that far, as if they had always been meant.
    Trapezoid,
    /// By `factor` after each of `drops`.
    Steps,
}

/// What meta-training trains for: the loss after a few updates, on tasks of one kernel and scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Tasks a step.
    pub tasks: usize,
    /// Patches that a task's updates learn from.
    pub train: usize,
    /// Patches, of other places, that judge what they made.
    pub test: usize,
    /// Whether the updates learn from LR patches and their sons instead of HR patches and their LR.
    #[serde(default)]
    pub sons: bool,
    /// Updates of a task.
    pub updates: usize,
    /// Their rates: one for all or one for each. Learned ones begin with them.
    #[serde(deserialize_with = "one_or_many")]
    pub rate: Vec<f64>,
    /// The rate of Adam on the logarithms of the rates; they are fixed if absent.
    pub learn: Option<f64>,
    /// No learned rate falls below it.
    #[serde(default = "Meta::default_least_rate")]
    pub least_rate: f64,
    /// Whether learned rates begin with those of [`Model::initial`].
    #[serde(default)]
    pub initial_rates: bool,
    /// 2 for exact meta-gradients, 1 without the Hessian.
    #[serde(default = "Meta::default_order")]
    pub order: u8,
    /// What the loss after each update counts.
    #[serde(default)]
    pub weights: OuterWeights,
    /// What the loss before any update counts, beside them.
    #[serde(default)]
    pub before: f64,
    /// Steps in which the annealed weight of an update but the last would fall from its first
    /// value to 0.
    #[serde(default = "Meta::default_anneal")]
    pub anneal: f64,
    /// What the last update's rates are multiplied by for each update beyond it.
    #[serde(default = "Meta::default_tail")]
    pub tail: f64,
}

/// What the loss after each update counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OuterWeights {
    /// The paper's: all 1 / K at first, all but the last falling to 0.03 / K.
    #[default]
    Annealed,
    /// Always the same.
    Fixed(Vec<f64>),
}

/// How the weights are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Folders of photos.
    pub photos: Vec<PathBuf>,
    /// Steps between two validations.
    pub every: u64,
    /// How many photos, evenly chosen; all if absent.
    pub limit: Option<usize>,
    /// Rows and columns of the middle that is used; all if absent.
    pub crop: Option<usize>,
    /// Kernel SPECs.
    #[serde(default = "Validation::default_kernels")]
    pub kernels: Vec<String>,
    /// Scales; the smallest and the largest of the model if absent.
    pub scales: Option<Vec<f64>>,
    /// Numbers of updates.
    #[serde(default = "Validation::default_updates")]
    pub updates: Vec<usize>,
    /// Those of them whose mean is the score; all if absent.
    pub score: Option<Vec<usize>>,
    /// Whether the end is also judged on all photos, whole.
    #[serde(default)]
    pub final_on_all: bool,
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The folder for the checkpoint, the weights and the logs.
    pub folder: PathBuf,
    /// Steps between two checkpoints.
    #[serde(default = "Output::default_checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps between two lines of the log.
    #[serde(default = "Output::default_log_every")]
    pub log_every: u64,
}

impl Model {
    fn default_architecture() -> String {
        Architecture::mzsr().to_string()
    }

    fn default_passes() -> usize {
        1
    }

    /// How a photo goes through the network.
    pub fn course(&self) -> Course {
        Course { start: self.start, passes: self.passes, fit: self.fit, ..Course::default() }
    }

    /// The pass that step `step` trains (from 0).
    pub fn pass(&self, step: u64) -> usize {
        match (self.through, self.together) {
            (true, _) => 0,
            (_, true) => (step % self.passes as u64) as usize,
            _ => self.passes - 1,
        }
    }

    /// Whether the parameters of all passes are trained.
    pub fn trains_all(&self) -> bool {
        self.together || self.through
    }

    /// The number of parameters that are trained.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn trained(&self) -> Result<usize> {
        let layout = self.layout()?;
        Ok(if self.trains_all() { layout.count(self.passes) } else { layout.each() })
    }

    /// The network; [`Recipe::check`] has made sure that it is one.
    ///
    /// # Errors
    /// Not a chain of channels from 3 to 3.
    pub fn network(&self) -> Result<Architecture> {
        let architecture: Architecture = self.architecture.parse()?;
        if !architecture.takes_colours() {
            return Err(Error::input(
                "its first and last number of channels must be 3 (red, green, blue), or 12 or 48 for cells of 2 x 2 or 4 x 4 pixels",
            ));
        }
        Ok(architecture)
    }

    /// Where the parameters of each pass lie.
    ///
    /// # Errors
    /// As [`Model::network`].
    pub fn layout(&self) -> Result<Passes> {
        Ok(Passes::new(&self.network()?.layers(), self.fit))
    }

    /// The smallest and the largest scale.
    pub fn scale_range(&self) -> [f64; 2] {
        let pick = |best: fn(f64, f64) -> f64| self.scale.iter().copied().reduce(best).unwrap_or(2.0);
        [pick(f64::min), pick(f64::max)]
    }
}

impl Optimiser {
    fn default_factor() -> f64 {
        0.5
    }
    fn default_fall() -> f64 {
        0.3
    }
    fn default_betas() -> [f64; 2] {
        [0.9, 0.999]
    }
    fn default_epsilon() -> f64 {
        1e-8
    }

    /// The learning rate of step `step` (from 1) of `steps`.
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        if step <= self.warm_up {
            return self.rate * step as f64 / self.warm_up as f64;
        }
        match self.schedule {
            Schedule::Constant => self.rate,
            Schedule::Cosine => {
                let share = (step - self.warm_up) as f64 / (steps - self.warm_up).max(1) as f64;
                let fall = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
                self.final_rate + (self.rate - self.final_rate) * fall
            }
            Schedule::Trapezoid => {
                let left = (steps - step.min(steps)) as f64 / (self.fall * steps as f64);
                self.final_rate + (self.rate - self.final_rate) * left.min(1.0)
            }
            Schedule::Steps => {
                let passed = self.drops.iter().filter(|&&drop| step > drop).count();
                self.rate * self.factor.powi(passed as i32)
            }
        }
    }
}

/// Where the annealed weight of an early update ends, as a share of its first value.
const ANNEALED: f64 = 0.03;

impl Meta {
    fn default_order() -> u8 {
        2
    }
    fn default_anneal() -> f64 {
        10_000.0 / 3.0
    }
    fn default_least_rate() -> f64 {
        1e-8
    }
    fn default_tail() -> f64 {
        0.5
    }

    /// The patches of a step.
    pub fn patches(&self) -> usize {
        self.tasks * (self.train + self.test)
    }

    /// The rate of update `update` (from 0) as the recipe gives it.
    pub fn first_rate(&self, update: usize) -> f64 {
        self.rate.get(update).or(self.rate.last()).copied().unwrap_or(0.0)
    }

    /// What the loss after each update counts in step `step` (from 1).
    pub fn weights_at(&self, step: u64) -> Vec<f64> {
        match &self.weights {
            OuterWeights::Fixed(weights) => weights.clone(),
            OuterWeights::Annealed => {
                let whole = 1.0 / self.updates as f64;
                let early = whole * (1.0 - step.saturating_sub(1) as f64 / self.anneal).max(ANNEALED);
                let mut weights = vec![early; self.updates];
                if let Some(last) = weights.last_mut() {
                    *last = 1.0 - early * (self.updates - 1) as f64;
                }
                weights
            }
        }
    }
}

impl Validation {
    fn default_updates() -> Vec<usize> {
        vec![0]
    }
    fn default_kernels() -> Vec<String> {
        vec!["none".to_owned()]
    }
}

impl Output {
    fn default_checkpoint_every() -> u64 {
        500
    }
    fn default_log_every() -> u64 {
        100
    }
}

impl Default for Degradations {
    fn default() -> Self {
        Degradations {
            kernels: Kernels::None,
            size: 15,
            lambda1: None,
            lambda2_from: 1.0,
            small_share: 0.0,
            small: [0.2, 1.0],
            small_isotropic: 1.0,
            disk_share: 0.0,
            disk: [0.5, 2.5],
            motion_share: 0.0,
            motion: [1.0, 9.0],
            noise_share: 0.0,
            noise: [1.0, 8.0],
            jpeg_share: 0.0,
            jpeg: [60.0, 95.0],
            wrong_share: 0.0,
            wrong: [0.8, 1.25],
            none_share: 0.0,
            round: true,
        }
    }
}

/// What makes a photo small; see [`Degradations::draw`].
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The blur.
    pub kernel: Option<Kernel>,
    /// What the blur is said to be.
    pub told: Option<Kernel>,
    /// The standard deviation of the noise, of [0, 1].
    pub sigma: f64,
    /// The JPEG that it is saved as at last.
    pub jpeg: Option<Saved>,
}

/// How a JPEG is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// 1 to 100.
    pub quality: u8,
    /// Whether colour differences are kept at half the size.
    pub halved: bool,
}

/// The number at `share` of the way.
fn between([from, to]: [f64; 2], share: f64) -> f64 {
    from + (to - from) * share
}

impl Degradations {
    /// The range of the first variance at scale `scale`.
    fn lambda1_at(&self, scale: f64) -> [f64; 2] {
        self.lambda1.unwrap_or([1.0, 2.5 * scale])
    }

    /// What makes a photo smaller by `scale`; `uniform` gives numbers in [0, 1). The same number of them is
    /// taken whatever comes out.
    pub fn draw(&self, scale: f64, mut uniform: impl FnMut() -> f64) -> Drawn {
        let [kind, first, second, angle, round, noisy, sigma] = std::array::from_fn(|_| uniform());
        let [saved, quality, halved, wrong, wider] = std::array::from_fn(|_| uniform());
        let numbers = [kind, first, second, angle, round];
        let kernel = self.kernel(scale, numbers, 1.0);
        let told = if wrong < self.wrong_share {
            self.kernel(scale, numbers, between(self.wrong, wider))
        } else {
            kernel.clone()
        };
        Drawn {
            kernel,
            told,
            sigma: if noisy < self.noise_share { between(self.noise, sigma) / 255.0 } else { 0.0 },
            jpeg: (saved < self.jpeg_share)
                .then(|| Saved { quality: between(self.jpeg, quality).round() as u8, halved: halved < 0.5 }),
        }
    }

    /// The kernel of these numbers, `wider` times as wide as they say.
    fn kernel(&self, scale: f64, [kind, first, second, angle, round]: [f64; 5], wider: f64) -> Option<Kernel> {
        if self.kernels == Kernels::None || kind >= 1.0 - self.none_share {
            return None;
        }
        let others = kind - self.small_share;
        if (0.0..self.disk_share).contains(&others) {
            return Some(Kernel::disk(wider * between(self.disk, first), self.size));
        }
        if (self.disk_share..self.disk_share + self.motion_share).contains(&others) {
            let length = wider * between(self.motion, first);
            return Some(Kernel::motion(length, std::f64::consts::PI * angle, self.size));
        }
        let (lambda1, lambda2) = if kind < self.small_share {
            let lambda1 = between(self.small, first);
            let round = round < self.small_isotropic;
            (lambda1, if round { lambda1 } else { between([self.small[0], lambda1], second) })
        } else {
            let lambda1 = between(self.lambda1_at(scale), first);
            (lambda1, between([self.lambda2_from, lambda1], second))
        };
        // Variances.
        let [lambda1, lambda2] = [lambda1, lambda2].map(|lambda| lambda * wider * wider);
        Some(Kernel::gaussian(lambda1, lambda2, std::f64::consts::PI * angle, self.size))
    }
}

impl<'de> Deserialize<'de> for Folder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            folder: PathBuf,
            #[serde(default = "one")]
            weight: f64,
            #[serde(default = "one")]
            shrink: f64,
        }
        fn one() -> f64 {
            1.0
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Folder;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder, or a table { folder = \"…\", weight = 1, shrink = 1 }")
            }
            fn visit_str<E: de::Error>(self, folder: &str) -> std::result::Result<Folder, E> {
                Ok(Folder { folder: folder.into(), weight: 1.0, shrink: 1.0 })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Folder, A::Error> {
                let Table { folder, weight, shrink } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Folder { folder, weight, shrink })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for OuterWeights {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            OuterWeights::Annealed => "annealed".serialize(out),
            OuterWeights::Fixed(weights) => weights.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for OuterWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OuterWeights;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"annealed\", or a list with one weight an update")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> std::result::Result<OuterWeights, E> {
                match word {
                    "annealed" => Ok(OuterWeights::Annealed),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<OuterWeights, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(OuterWeights::Fixed(values))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number, or a list of numbers.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<f64>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Vec<f64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, or a list of numbers")
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Vec<f64>, E> {
            Ok(vec![value])
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Vec<f64>, E> {
            Ok(vec![value as f64])
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Vec<f64>, E> {
            Ok(vec![value as f64])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<f64>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(Either)
}

/// HR pixels on each side whose LR photo holds a patch of `patch` pixels.
pub(super) fn father(patch: usize, scale: f64) -> usize {
    (patch as f64 * scale).ceil() as usize
}

impl Recipe {
    /// The rows and columns that a photo must have.
    pub fn side(&self) -> usize {
        let scale = self.model.scale.iter().copied().fold(1.0, f64::max);
        let sons = self.meta.as_ref().is_some_and(|meta| meta.sons);
        if sons { father(self.data.patch, scale) } else { self.data.patch }
    }

    /// Reads and checks a recipe; returns it with its text.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key or a wrong type (with its line), or a value that
    /// makes no sense (with the remedy).
    pub fn read(path: &Path) -> Result<(Self, String)> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::file(path, "is not a text file; a recipe is TOML"),
            _ => Error::io(path, error),
        })?;
        let recipe = Self::parse(&text).map_err(|error| Error::file(path, error.to_string()))?;
        Ok((recipe, text))
    }

    /// The same from text.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let recipe: Recipe = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            // The message of a syntax error may have several lines.
            Error::input(format!("line {line}: {}", error.message().lines().collect::<Vec<_>>().join("; ")))
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether every value makes sense.
    ///
    /// # Errors
    /// The first that does not, and the remedy.
    pub fn check(&self) -> Result<()> {
        let no = |key: &str, why: String| Err(Error::input(format!("{key} {why}")));
        let finite = |v: f64| v.is_finite();
        if self.steps == 0 || self.steps > 1_000_000_000 {
            return no("steps", format!("= {}: use 1 to 1000000000", self.steps));
        }

        let model = &self.model;
        if model.name.is_empty() || model.name.chars().any(|c| c.is_control() || "/\\".contains(c)) {
            return no("[model] name", "must be a plain word, such as \"bicubic-x2\"".to_owned());
        }
        let maximum = degrade::MAX_SCALE;
        if model.scale.is_empty() {
            return no("[model] scale", "is an empty list: name at least one, such as 2".to_owned());
        }
        if let Some(wrong) = model.scale.iter().find(|s| !(1.0..=maximum).contains(*s)) {
            return no("[model] scale", format!("= {wrong}: use 1 to {maximum}"));
        }
        if !(1..=MAX_PASSES).contains(&model.passes) {
            return no("[model] passes", format!("= {}: use 1 to {MAX_PASSES}", model.passes));
        }
        if (model.passes > 1 && !model.through) != model.earlier.is_some() {
            let what = match model.earlier {
                None => "is missing: name the weights of the passes before, or train all with through = true",
                Some(_) if model.through => "is given, but through = true trains all passes: use initial",
                Some(_) => "is given, but passes = 1: leave it out",
            };
            return no("[model] earlier", what.to_owned());
        }
        if model.through && (model.together || self.meta.is_some() || !model.course().solves()) {
            let what =
                "is for start = \"least-squares\" or several passes, and neither for together = true nor for [meta]";
            return no("[model] through", what.to_owned());
        }
        if model.together && !(model.passes > 1 && model.fit) {
            let what = "is for passes = 2 or more and fit = true: leave it out";
            return no("[model] together", what.to_owned());
        }
        if let Err(error) = model.network() {
            return no("[model] architecture", format!("= \"{}\": {error}", model.architecture));
        }
        if model.downsample == Dropping::Direct && self.degradation.kernels == Kernels::None {
            return no(
                "[model] downsample",
                "= \"direct\" needs a blur: set [degradation] kernels = \"gaussian\", or use \"bicubic\"".to_owned(),
            );
        }

        let data = &self.data;
        if data.photos.is_empty() {
            return no("[data] photos", "names no folder: name at least one".to_owned());
        }
        for Folder { folder, weight, shrink } in &data.photos {
            let folder = folder.display();
            if !(finite(*weight) && *weight > 0.0) {
                return no("[data] photos", format!("weight {weight} of \"{folder}\": use a number above 0"));
            }
            if !(1.0..=maximum).contains(shrink) {
                return no(
                    "[data] photos",
                    format!("shrink {shrink} of \"{folder}\": use 1 (not at all) to {maximum}"),
                );
            }
        }
        if !(8..=4096).contains(&data.patch) {
            return no("[data] patch", format!("= {}: use 8 to 4096 pixels (48 is usual)", data.patch));
        }
        let cell = model.network()?.cell();
        if !data.patch.is_multiple_of(cell) {
            let what = format!("= {}: the network sees cells, use a multiple of {cell}", data.patch);
            return no("[data] patch", what);
        }
        if let Some(blurs) = data.blurs {
            if self.meta.is_some() {
                return no(
                    "[data] blurs",
                    "is for training without [meta], whose tasks have a blur each: leave it out".to_owned(),
                );
            }
            if blurs == 0 || !data.batch.is_multiple_of(blurs) {
                return no("[data] blurs", format!("= {blurs}: use a divisor of batch = {}", data.batch));
            }
        }
        let (patches, key) = match &self.meta {
            None if data.batch == 0 => {
                return no("[data] batch", "is missing or 0: use at least 1 (8 is usual)".to_owned());
            }
            None => (Some(data.batch), "[data] batch"),
            Some(_) if data.batch != 0 => {
                return no("[data] batch", "is for training without [meta]: leave it out".to_owned());
            }
            Some(meta) => {
                meta.check()?;
                if meta.initial_rates && model.initial.is_none() {
                    return no("[meta] initial_rates", "need [model] initial: add it, or leave them out".to_owned());
                }
                let task = meta.train.checked_add(meta.test);
                (task.and_then(|task| task.checked_mul(meta.tasks)), "[meta] tasks")
            }
        };
        match data.patch.checked_pow(2).and_then(|v| v.checked_mul(3)).and_then(|v| v.checked_mul(patches?)) {
            Some(values) if values <= MAX_VALUES => {}
            _ => {
                let most = MAX_VALUES / (3 * data.patch * data.patch);
                return no(key, format!("make too many patches a step: at most {most} of {} fit", data.patch));
            }
        }

        self.degradation.check(model)?;
        self.optimiser.check(self.steps)?;

        if let Some(validation) = &self.validation {
            validation.check(model)?;
            if self.meta.is_none() && validation.updates != [0] {
                return no("[validation] updates", "need the rates of [meta]: leave them out".to_owned());
            }
        }
        let output = &self.output;
        if output.folder.as_os_str().is_empty() {
            return no("[output] folder", "is empty: name a folder, such as \"runs/first\"".to_owned());
        }
        if output.checkpoint_every == 0 || output.log_every == 0 {
            return no("[output] checkpoint_every and log_every", "are steps: use at least 1".to_owned());
        }
        Ok(())
    }

    /// The keys whose values differ between two recipes: `optimiser.rate`, …
    pub fn differences(&self, other: &Recipe) -> Vec<String> {
        fn walk(path: &str, a: &serde_json::Value, b: &serde_json::Value, found: &mut Vec<String>) {
            match (a, b) {
                (serde_json::Value::Object(x), serde_json::Value::Object(y)) => {
                    for key in x.keys().chain(y.keys().filter(|key| !x.contains_key(*key))) {
                        let null = serde_json::Value::Null;
                        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        walk(&path, x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null), found);
                    }
                }
                _ if a == b => {}
                _ => found.push(path.to_owned()),
            }
        }
        let mut found = Vec::new();
        match (serde_json::to_value(self), serde_json::to_value(other)) {
            (Ok(a), Ok(b)) => walk("", &a, &b, &mut found),
            _ => found.push("recipe".to_owned()),
        }
        found
    }
}

impl Degradations {
    fn check(&self, model: &Model) -> Result<()> {
        let no = |key: &str, why: String| Err(Error::input(format!("[degradation] {key} {why}")));
        if self.kernels == Kernels::None {
            let plain = Degradations { round: self.round, ..Degradations::default() };
            if *self != plain {
                return no("kernels", "= \"none\", so nothing else can be set there: use \"gaussian\"".to_owned());
            }
            return Ok(());
        }
        if !(1..=MAX_KERNEL).contains(&self.size) || self.size.is_multiple_of(2) {
            return no("size", format!("= {}: use an odd number up to {MAX_KERNEL} (15 is usual)", self.size));
        }
        let range = |[from, to]: [f64; 2]| from.is_finite() && to.is_finite() && from > 0.0 && from <= to;
        for &scale in &model.scale {
            let [from, to] = self.lambda1_at(scale);
            if !range([from, to]) {
                return no("lambda1", format!("= [{from}, {to}]: use two numbers above 0, the smaller first"));
            }
            if !(self.lambda2_from > 0.0 && self.lambda2_from <= from) {
                let given = self.lambda2_from;
                return no("lambda2_from", format!("= {given}: use a number above 0, up to lambda1's first ({from})"));
            }
        }
        for (key, given) in [
            ("small", self.small),
            ("disk", self.disk),
            ("motion", self.motion),
            ("noise", self.noise),
            ("jpeg", self.jpeg),
            ("wrong", self.wrong),
        ] {
            if !range(given) {
                return no(key, format!("= {given:?}: use two numbers above 0, the smaller first"));
            }
        }
        if !(1.0..=100.0).contains(&self.jpeg[0]) || self.jpeg[1] > 100.0 {
            return no("jpeg", format!("= {:?}: use two qualities from 1 to 100", self.jpeg));
        }
        let wider = if self.wrong_share > 0.0 { self.wrong[1].max(1.0) } else { 1.0 };
        let largest = (self.size - 2) as f64;
        for (key, share, [_, extent]) in [
            ("disk", self.disk_share, self.disk.map(|radius| 2.0 * radius)),
            ("motion", self.motion_share, self.motion),
        ] {
            if share > 0.0 && wider * extent > largest {
                return no(key, format!("does not fit a kernel of size = {}: use less, or a larger size", self.size));
            }
        }
        for (key, share) in [
            ("small_share", self.small_share),
            ("small_isotropic", self.small_isotropic),
            ("disk_share", self.disk_share),
            ("motion_share", self.motion_share),
            ("noise_share", self.noise_share),
            ("jpeg_share", self.jpeg_share),
            ("wrong_share", self.wrong_share),
            ("none_share", self.none_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return no(key, format!("= {share}: use a share from 0 to 1"));
            }
        }
        if self.small_share + self.disk_share + self.motion_share + self.none_share > 1.0 {
            return no(
                "small_share, disk_share, motion_share and none_share",
                "are more than 1 together: use less".to_owned(),
            );
        }
        if self.none_share > 0.0 && model.downsample == Dropping::Direct {
            return no("none_share", "is for bicubic downsampling; direct needs a blur: leave it out".to_owned());
        }
        Ok(())
    }
}

impl Meta {
    fn check(&self) -> Result<()> {
        let no = |key: &str, why: String| Err(Error::input(format!("[meta] {key} {why}")));
        for (key, count) in [("tasks", self.tasks), ("train", self.train), ("test", self.test)] {
            if count == 0 {
                return no(key, "= 0: use at least 1".to_owned());
            }
        }
        if !(1..=MAX_META_UPDATES).contains(&self.updates) {
            return no("updates", format!("= {}: use 1 to {MAX_META_UPDATES} (5 is usual)", self.updates));
        }
        if self.rate.len() != 1 && self.rate.len() != self.updates {
            let given = self.rate.len();
            return no("rate", format!("holds {given}: give one, or one for each of the {} updates", self.updates));
        }
        if let Some(wrong) = self.rate.iter().find(|rate| !(rate.is_finite() && **rate > 0.0)) {
            return no("rate", format!("= {wrong}: use numbers above 0 (1e-2 is usual)"));
        }
        if let Some(learn) = self.learn.filter(|learn| !(learn.is_finite() && *learn > 0.0)) {
            return no("learn", format!("= {learn}: use a number above 0 (0.02 is usual), or leave it out"));
        }
        let above = |rate: &f64| self.least_rate <= *rate;
        if self.learn.is_some() && !(self.least_rate > 0.0 && self.rate.iter().all(above)) {
            return no("least_rate", format!("= {}: use a number above 0, up to rate", self.least_rate));
        }
        if self.initial_rates && self.learn.is_none() {
            return no("initial_rates", "are for rates that are learned: add learn, or leave it out".to_owned());
        }
        if !(1..=2).contains(&self.order) {
            return no("order", format!("= {}: use 2 (exact), or 1 (without the Hessian)", self.order));
        }
        if let OuterWeights::Fixed(weights) = &self.weights {
            let sum: f64 = weights.iter().sum();
            let good = weights.len() == self.updates
                && weights.iter().all(|weight| *weight >= 0.0)
                && (sum - 1.0).abs() < 1e-6
                && weights.last() != Some(&0.0);
            if !good {
                let count = self.updates;
                return no(
                    "weights",
                    format!("= {weights:?}: use {count} numbers of at least 0 (the last one above) that sum to 1"),
                );
            }
        }
        if !(self.before.is_finite() && self.before >= 0.0) {
            return no("before", format!("= {}: use a number of at least 0", self.before));
        }
        if !(self.anneal.is_finite() && self.anneal > 0.0) {
            return no("anneal", format!("= {}: use a number of steps above 0", self.anneal));
        }
        if !(0.0..=1.0).contains(&self.tail) {
            return no("tail", format!("= {}: use 0 to 1 (0.5 is usual)", self.tail));
        }
        Ok(())
    }
}

impl Optimiser {
    fn check(&self, steps: u64) -> Result<()> {
        let no = |key: &str, why: String| Err(Error::input(format!("[optimiser] {key} {why}")));
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return no("rate", format!("= {}: use a number above 0 (1e-3 is usual)", self.rate));
        }
        if !(0.0..=self.rate).contains(&self.final_rate) {
            return no("final_rate", format!("= {}: use 0 up to the rate ({})", self.final_rate, self.rate));
        }
        if self.warm_up >= steps {
            return no("warm_up", format!("= {}: use fewer than the {steps} steps", self.warm_up));
        }
        if (self.schedule == Schedule::Steps) == self.drops.is_empty() {
            return no("drops", "and schedule = \"steps\" need each other: give both or neither".to_owned());
        }
        if !self.drops.is_sorted() {
            return no("drops", "are steps in rising order".to_owned());
        }
        if !(self.fall > 0.0 && self.fall <= 1.0) {
            return no("fall", format!("= {}: use a share of the steps above 0, up to 1", self.fall));
        }
        if !(self.factor > 0.0 && self.factor <= 1.0) {
            return no("factor", format!("= {}: use a number above 0, up to 1", self.factor));
        }
        if let Some(beta) = self.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            return no("betas", format!("hold {beta}: use numbers from 0 to below 1 ([0.9, 0.999] is usual)"));
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return no("epsilon", format!("= {}: use a number above 0 (1e-8 is usual)", self.epsilon));
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
            return no("clip", format!("= {clip}: use a number above 0, or leave it out"));
        }
        if let Some(ema) = self.ema.filter(|ema| !(*ema > 0.0 && *ema < 1.0)) {
            return no("ema", format!("= {ema}: use a number between 0 and 1 (0.999 is usual), or leave it out"));
        }
        Ok(())
    }
}

impl Validation {
    fn check(&self, model: &Model) -> Result<()> {
        let no = |key: &str, why: String| Err(Error::input(format!("[validation] {key} {why}")));
        if self.photos.is_empty() {
            return no("photos", "names no folder: name one, or leave [validation] out".to_owned());
        }
        if self.every == 0 {
            return no("every", "= 0: use at least 1 step (1000 is usual)".to_owned());
        }
        if self.limit == Some(0) {
            return no("limit", "= 0: use at least 1 photo, or leave it out for all".to_owned());
        }
        if let Some(crop) = self.crop.filter(|crop| *crop < 32) {
            return no("crop", format!("= {crop}: use at least 32 pixels, or leave it out for whole photos"));
        }
        if self.kernels.is_empty() {
            return no("kernels", "is an empty list: use [\"none\"] for no blur".to_owned());
        }
        if model.downsample == Dropping::Direct && self.kernels.iter().any(|kernel| kernel == "none") {
            return no("kernels", "hold \"none\", but direct downsampling needs a blur: name some".to_owned());
        }
        if self.updates.is_empty() || self.updates.iter().any(|updates| *updates > MAX_UPDATES) {
            return no("updates", format!("= {:?}: name numbers up to {MAX_UPDATES}, such as [0, 1, 5]", self.updates));
        }
        if let Some(score) = &self.score
            && (score.is_empty() || !score.iter().all(|updates| self.updates.contains(updates)))
        {
            return no("score", format!("= {score:?}: name some of updates {:?}, or leave it out", self.updates));
        }
        let [from, to] = model.scale_range();
        match &self.scales {
            Some(scales) if scales.is_empty() => no("scales", "is an empty list: leave it out".to_owned()),
            Some(scales) => match scales.iter().find(|scale| !(from..=to).contains(*scale)) {
                Some(wrong) => no("scales", format!("hold {wrong}: use what the model is trained for, {from} to {to}")),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "\
steps = 100

[model]
name = \"x\"
scale = 2

[data]
photos = [\"a\", { folder = \"b\", weight = 2 }]
patch = 48
batch = 8

[optimiser]
rate = 1e-3

[validation]
photos = [\"v\"]
every = 10

[output]
folder = \"o\"
";

    /// `BASE` with `from` replaced by `to`.
    fn with(from: &str, to: &str) -> String {
        assert!(BASE.contains(from), "{from}");
        BASE.replace(from, to)
    }

    #[test]
    fn a_recipe_and_its_defaults() {
        let recipe = Recipe::parse(BASE).unwrap();
        assert_eq!(recipe.model.scale, [2.0]);
        assert_eq!(recipe.data.photos[1], Folder { folder: "b".into(), weight: 2.0, shrink: 1.0 });
        assert_eq!(recipe.optimiser.betas, [0.9, 0.999]);
        assert_eq!(recipe.degradation.kernels, Kernels::None);
        assert_eq!(recipe.model.network().unwrap(), Architecture::mzsr());
        let several = Recipe::parse(&with("scale = 2", "scale = [1.5, 2, 4]")).unwrap();
        assert_eq!(several.model.scale_range(), [1.5, 4.0]);
    }

    #[test]
    fn the_shipped_recipes_are_good() {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")).unwrap() {
            Recipe::read(&entry.unwrap().path()).unwrap();
        }
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_key_and_line() {
        for (from, to, wanted) in [
            ("rate = 1e-3", "rat = 1e-3", ["line 13", "`rat`"]),
            ("batch = 8", "batch = 8\nbtach = 9", ["line 11", "`btach`"]),
            ("batch = 8", "batch = -8", ["line 10", "-8"]),
            ("steps = 100", "steps = \"many\"", ["line 1:", "many"]),
            ("weight = 2", "wieght = 2", ["line 8", "`wieght`"]),
            ("scale = 2", "scale = \"two\"", ["line 5", "a number"]),
            ("name = \"x\"", "name = \"x", ["line 4", ""]),
            ("rate = 1e-3", "rate = 1e-3\nschedule = \"cosinus\"", ["line 14", "cosinus"]),
            ("[output]\nfolder = \"o\"\n", "", ["line ", "output"]),
        ] {
            let error = Recipe::parse(&with(from, to)).unwrap_err().to_string();
            assert!(wanted.iter().all(|w| error.contains(w)) && !error.contains('\n'), "{to}: {error}");
        }
    }

    #[test]
    fn impossible_values_name_the_key() {
        let gaussian = |more: &str| format!("{BASE}\n[degradation]\nkernels = \"gaussian\"\n{more}");
        let meta = |without: &str, more: &str| {
            let base = BASE.replace(without, "");
            format!("{base}\n[meta]\ntasks = 2\ntrain = 4\ntest = 3\nupdates = 3\nrate = 0.01\n{more}\n")
        };
        for (text, wanted) in [
            (with("steps = 100", "steps = 0"), "steps"),
            (with("scale = 2", "scale = 5"), "scale"),
            (with("scale = 2", "scale = nan"), "scale"),
            (with("scale = 2", "scale = []"), "scale"),
            (with("scale = 2", "scale = 2\ndownsample = \"direct\""), "downsample"),
            (with("scale = 2", "scale = 2\npasses = 2"), "[model] earlier"),
            (with("scale = 2", "scale = 2\nfit = true\ntogether = true"), "[model] together"),
            (with("scale = 2", "scale = 2\nthrough = true"), "[model] through"),
            (with("scale = 2", "scale = 2\npasses = 2\nthrough = true\nearlier = \"a\""), "[model] earlier"),
            (
                with("scale = 2", "scale = 2\narchitecture = \"12-64-12\"").replace("patch = 48", "patch = 47"),
                "[data] patch",
            ),
            (with("scale = 2", "scale = 2\narchitecture = \"3-64-4\""), "architecture"),
            (with("scale = 2", "scale = 2\narchitecture = \"1-64-1\""), "architecture"),
            (with("name = \"x\"", "name = \"a/b\""), "name"),
            (with("[\"a\", { folder = \"b\", weight = 2 }]", "[]"), "photos"),
            (with("weight = 2", "weight = 0"), "weight"),
            (with("weight = 2", "shrink = 0.5"), "shrink"),
            (with("patch = 48", "patch = 4"), "patch"),
            (with("patch = 48", "patch = 5000"), "patch"),
            (with("batch = 8", "batch = 0"), "batch"),
            (with("batch = 8", "batch = 99999999999"), "batch"),
            (with("rate = 1e-3", "rate = 0"), "rate"),
            (with("rate = 1e-3", "rate = inf"), "rate"),
            (with("rate = 1e-3", "rate = 1e-3\nfinal_rate = 1"), "final_rate"),
            (with("rate = 1e-3", "rate = 1e-3\nwarm_up = 100"), "warm_up"),
            (with("rate = 1e-3", "rate = 1e-3\nschedule = \"steps\""), "drops"),
            (with("rate = 1e-3", "rate = 1e-3\ndrops = [5]"), "drops"),
            (with("rate = 1e-3", "rate = 1e-3\nschedule = \"steps\"\ndrops = [5, 3]"), "drops"),
            (with("rate = 1e-3", "rate = 1e-3\nfall = 0"), "fall"),
            (with("rate = 1e-3", "rate = 1e-3\nbetas = [0.9, 1]"), "betas"),
            (with("rate = 1e-3", "rate = 1e-3\nepsilon = 0"), "epsilon"),
            (with("rate = 1e-3", "rate = 1e-3\nclip = 0"), "clip"),
            (with("rate = 1e-3", "rate = 1e-3\nema = 1"), "ema"),
            (with("every = 10", "every = 0"), "every"),
            (with("every = 10", "every = 10\ncrop = 8"), "crop"),
            (with("every = 10", "every = 10\nlimit = 0"), "limit"),
            (with("every = 10", "every = 10\nscales = [3]"), "scales"),
            (with("every = 10", "every = 10\nkernels = []"), "kernels"),
            (with("folder = \"o\"", "folder = \"\""), "folder"),
            (with("folder = \"o\"", "folder = \"o\"\ncheckpoint_every = 0"), "checkpoint_every"),
            (format!("{BASE}\n[degradation]\nsize = 21\n"), "kernels"),
            (with("every = 10", "every = 10\nupdates = [0, 1]"), "[validation] updates"),
            (with("every = 10", "every = 10\nscore = [1]"), "[validation] score"),
            (meta("?", ""), "[data] batch"),
            (meta("batch = 8\n", "").replace("tasks = 2", "tasks = 0"), "[meta] tasks"),
            (meta("batch = 8\n", "").replace("tasks = 2", "tasks = 9999999999"), "[meta] tasks"),
            (meta("batch = 8\n", "").replace("train = 4", "train = 0"), "[meta] train"),
            (meta("batch = 8\n", "").replace("test = 3", "test = 0"), "[meta] test"),
            (meta("batch = 8\n", "").replace("updates = 3", "updates = 0"), "[meta] updates"),
            (meta("batch = 8\n", "").replace("rate = 0.01", "rate = -1"), "[meta] rate"),
            (meta("batch = 8\n", "").replace("rate = 0.01", "rate = [0.1, 0.1]"), "[meta] rate"),
            (meta("batch = 8\n", "learn = 0"), "[meta] learn"),
            (meta("batch = 8\n", "learn = 0.1\nleast_rate = 0"), "[meta] least_rate"),
            (meta("batch = 8\n", "learn = 0.1\nleast_rate = 0.2"), "[meta] least_rate"),
            (meta("batch = 8\n", "initial_rates = true"), "[meta] initial_rates"),
            (meta("batch = 8\n", "learn = 0.1\ninitial_rates = true"), "[meta] initial_rates"),
            (meta("batch = 8\n", "order = 3"), "[meta] order"),
            (meta("batch = 8\n", "weights = [1.0]"), "[meta] weights"),
            (meta("batch = 8\n", "weights = [0.5, 0.5, 0.0]"), "[meta] weights"),
            (meta("batch = 8\n", "weights = [0.5, 0.0, 0.6]"), "[meta] weights"),
            (meta("batch = 8\n", "weights = \"annelaed\""), "annealed"),
            (meta("batch = 8\n", "before = -1"), "[meta] before"),
            (meta("batch = 8\n", "anneal = 0"), "[meta] anneal"),
            (meta("batch = 8\n", "tail = 2"), "[meta] tail"),
            (gaussian("size = 14\n"), "size"),
            (gaussian("lambda1 = [0, 5]\n"), "lambda1"),
            (gaussian("lambda1 = [5, 1]\n"), "lambda1"),
            (gaussian("lambda2_from = 2\n"), "lambda2_from"),
            (gaussian("small_share = 2\n"), "small_share"),
            (gaussian("jpeg_share = -1\n"), "jpeg_share"),
            (gaussian("jpeg = [0.5, 90]\n"), "jpeg"),
            (gaussian("jpeg = [90, 101]\n"), "jpeg"),
            (gaussian("wrong_share = 1.5\n"), "wrong_share"),
            (gaussian("wrong = [1.2, 0.8]\n"), "wrong"),
            (gaussian("motion_share = 0.1\nmotion = [1, 12]\nwrong_share = 0.1\n"), "motion"),
            (gaussian("small_share = 0.6\nnone_share = 0.6\n"), "none_share"),
        ] {
            let error = Recipe::parse(&text).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains('\n'), "{wanted}: {error}");
        }
        Recipe::parse(&gaussian("small_share = 0.2\n")).unwrap();
    }

    #[test]
    fn outer_weights_fall_as_the_papers() {
        let text = BASE.replace("batch = 8\n", "");
        let text = format!("{text}\n[meta]\ntasks = 5\ntrain = 8\ntest = 8\nupdates = 5\nrate = 0.01\n");
        let recipe = Recipe::parse(&text).unwrap();
        let meta = recipe.meta.clone().unwrap();
        assert_eq!((meta.patches(), meta.first_rate(4)), (80, 0.01));
        let near = |step, wanted: [f64; 2]| {
            let weights = meta.weights_at(step);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!((weights[0] - wanted[0]).abs() < 1e-9 && (weights[4] - wanted[1]).abs() < 1e-9, "{weights:?}");
        };
        near(1, [0.2, 0.2]);
        near(1001, [0.2 - 0.2 * 0.3, 0.2 + 0.8 * 0.3]);
        near(90_000, [0.006, 1.0 - 4.0 * 0.006]);
        // Through JSON, as a checkpoint's.
        let fixed = Recipe::parse(&format!("{text}weights = [0.5, 0, 0, 0, 0.5]\n")).unwrap();
        for recipe in [recipe, fixed] {
            let json = serde_json::to_string(&recipe).unwrap();
            assert!(serde_json::from_str::<Recipe>(&json).unwrap().differences(&recipe).is_empty());
        }
    }

    #[test]
    fn schedules() {
        let mut optimiser = Recipe::parse(BASE).unwrap().optimiser;
        (optimiser.warm_up, optimiser.final_rate) = (10, 1e-5);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(optimiser.rate_at(5, 110), 5e-4);
        near(optimiser.rate_at(10, 110), 1e-3);
        near(optimiser.rate_at(60, 110), (1e-3 + 1e-5) / 2.0);
        near(optimiser.rate_at(110, 110), 1e-5);
        optimiser.schedule = Schedule::Trapezoid;
        optimiser.fall = 0.5;
        near(optimiser.rate_at(50, 100), 1e-3);
        near(optimiser.rate_at(75, 100), (1e-3 + 1e-5) / 2.0);
        near(optimiser.rate_at(100, 100), 1e-5);
        // More steps change nothing before the fall.
        assert_eq!(optimiser.rate_at(40, 100), optimiser.rate_at(40, 200));
        optimiser.schedule = Schedule::Steps;
        optimiser.drops = vec![20, 30];
        near(optimiser.rate_at(20, 100), 1e-3);
        near(optimiser.rate_at(21, 100), 5e-4);
        near(optimiser.rate_at(31, 100), 2.5e-4);
    }

    #[test]
    fn differences_are_named() {
        let recipe = Recipe::parse(BASE).unwrap();
        assert!(recipe.differences(&recipe).is_empty());
        let other = Recipe::parse(&with("rate = 1e-3", "rate = 2e-3\nema = 0.9")).unwrap();
        assert_eq!(recipe.differences(&other), ["optimiser.ema", "optimiser.rate"]);
        let none = Recipe { validation: None, ..recipe.clone() };
        assert_eq!(recipe.differences(&none), ["validation"]);
    }

    #[test]
    fn shares_are_what_they_say() {
        let more = "disk_share = 0.2\nmotion_share = 0.3\nsmall_share = 0.1\nnoise_share = 0.25\nnoise = [2.0, 4.0]\n";
        let recipe = Recipe::parse(&format!("{BASE}\n[degradation]\nkernels = \"gaussian\"\n{more}")).unwrap();
        let mut random = super::super::random::generator(1, super::super::random::Purpose::Patch, 0, 0);
        let (mut disks, mut lines, mut noisy) = (0, 0, 0);
        for _ in 0..2000 {
            let mut drawn = || super::super::random::uniform(&mut random);
            let Drawn { kernel, told, sigma, jpeg } = recipe.degradation.draw(2.0, &mut drawn);
            assert_eq!((&kernel, jpeg), (&told, None));
            let kernel = kernel.unwrap();
            let middle = kernel.data[15 * 7 + 7];
            // A disk is flat around its middle, or ends beside it; a line is narrow. A Gaussian is neither.
            let m = kernel.moments();
            let (long, short, _) = m.axes();
            let flat = (kernel.data[15 * 7 + 8] - middle).abs() < 1e-3 * middle && (long - short).abs() < 1e-9;
            disks += usize::from(flat && long > 0.3);
            lines += usize::from(short < 0.26 && long > 0.5);
            noisy += usize::from((2.0 / 255.0..4.0 / 255.0).contains(&sigma));
            assert!(sigma == 0.0 || (2.0 / 255.0..4.0 / 255.0).contains(&sigma), "{sigma}");
        }
        // Radii below 1.5 px are not flat as far as the next pixel: half of the disks.
        assert!((disks as f64 / 2000.0 - 0.1).abs() < 0.04, "{disks}");
        assert!((lines as f64 / 2000.0 - 0.25).abs() < 0.06, "{lines}");
        assert!((noisy as f64 / 2000.0 - 0.25).abs() < 0.04, "{noisy}");
    }

    #[test]
    fn some_are_saved_as_jpeg_and_some_blurs_told_wrong() {
        let more = "jpeg_share = 0.3\njpeg = [70, 90]\nwrong_share = 0.2\n";
        let recipe = Recipe::parse(&format!("{BASE}\n[degradation]\nkernels = \"gaussian\"\n{more}")).unwrap();
        let mut random = super::super::random::generator(1, super::super::random::Purpose::Patch, 0, 0);
        let (mut saved, mut halved, mut wrong, mut wider) = (0, 0, 0, 0);
        for _ in 0..2000 {
            let mut drawn = || super::super::random::uniform(&mut random);
            let Drawn { kernel, told, jpeg, .. } = recipe.degradation.draw(2.0, &mut drawn);
            let spread = |kernel: &Option<Kernel>| {
                let (long, short, _) = kernel.as_ref().unwrap().moments().axes();
                long + short
            };
            let ratio = spread(&told) / spread(&kernel);
            assert!((0.6..1.6).contains(&ratio), "{ratio}");
            wrong += usize::from(told != kernel);
            wider += usize::from(ratio > 1.0);
            saved += usize::from(jpeg.is_some());
            if let Some(Saved { quality, halved: colour }) = jpeg {
                assert!((70..=90).contains(&quality));
                halved += usize::from(colour);
            }
        }
        let share = |count: usize| count as f64 / 2000.0;
        assert!((share(saved) - 0.3).abs() < 0.04 && (share(halved) - 0.15).abs() < 0.03, "{saved} {halved}");
        assert!((share(wrong) - 0.2).abs() < 0.04 && (share(wider) - 0.11).abs() < 0.03, "{wrong} {wider}");
    }

    #[test]
    fn kernels_follow_the_distribution() {
        let mut recipe = Recipe::parse(&format!("{BASE}\n[degradation]\nkernels = \"gaussian\"\n")).unwrap();
        let mut random = super::super::random::generator(1, super::super::random::Purpose::Patch, 0, 0);
        for small in [false, true] {
            recipe.degradation.small_share = f64::from(u8::from(small));
            let mut sums = [0.0; 3];
            for _ in 0..300 {
                let mut drawn = || super::super::random::uniform(&mut random);
                let kernel = recipe.degradation.draw(2.0, &mut drawn).kernel.unwrap();
                let m = kernel.moments();
                let mean = (m.xx + m.yy) / 2.0;
                assert!(if small { mean < 1.05 } else { (0.95..5.05).contains(&mean) }, "{mean}");
                sums[0] += mean / 300.0;
                sums[1] += (m.xx - m.yy) / 300.0;
                sums[2] += m.xy / 300.0;
            }
            // E λ1 = 3, E λ2 = 2; no direction is preferred.
            let wanted = if small { 0.6 } else { 2.5 };
            assert!((sums[0] - wanted).abs() < 0.2 && sums[1].abs() < 0.25 && sums[2].abs() < 0.15, "{sums:?}");
        }
    }
}
