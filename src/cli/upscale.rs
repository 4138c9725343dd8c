//! `mzsr upscale`

use super::Outcome;
use super::options::{Blur, DegradationArgs, DeviceArgs, TalkArgs, set_threads, warn};
use super::progress::Progress;
use crate::adapt::photo::{Adaptation, Method, Request, consistency, explains, upscale};
use crate::adapt::{ADAPT_PIXELS, DEFAULT_UPDATES, Event, Rates, Report};
use crate::degrade::{Degradation, high_size};
use crate::engine::{AnyEngine, Device, Engine};
use crate::image::{Photo, WriteOptions, paths};
use crate::network::weights::Weights;
use crate::network::weights::builtin;
use crate::{Error, Result};
use clap::ValueEnum;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mzsr upscale photo.jpg -o larger.png
  mzsr upscale photo.png -o larger.png --kernel gaussian:2.0 -v    a known blur
  mzsr upscale photo.png -o larger.png --kernel kernel.mat --phase centre
  mzsr upscale scans/ -o larger/ -s 3
  cat photo.png | mzsr upscale - -o - > larger.png

The kernel is the blur on the grid of the large picture: what a pixel of the photo saw of it.";

/// How to enlarge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum MethodFlag {
    /// The network, adapted to the photo
    Mzsr,
    /// Cubic, as MATLAB's imresize
    Bicubic,
    /// Cubic, on the grid that the degradation sampled
    Aligned,
    /// What explains the photo best and stays near the aligned cubic: no network
    LeastSquares,
}

/// `mzsr upscale`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Photos (PNG, JPEG, WebP, TIFF, BMP), folders of them, or - for standard input
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,
    /// The result: a file, a folder (for several photos), or - for standard output
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How many times larger, 1 to 4, any real number
    #[arg(short, long, default_value_t = 2.0, allow_negative_numbers = true)]
    scale: f64,
    #[command(flatten)]
    blur: DegradationArgs,
    /// Gradient steps on the photo [default: what the weights were trained for, else 10]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    updates: Option<usize>,
    /// How to enlarge
    #[arg(long, value_enum, default_value = "mzsr")]
    method: MethodFlag,
    /// Weights: a built-in name (see `mzsr weights list`) or a file [default: what fits best]
    #[arg(long, value_name = "NAME|FILE")]
    weights: Option<String>,
    /// Learning rates by update, the last one repeated [default: those of the weights]
    #[arg(long, value_name = "R,R,…", value_delimiter = ',', allow_negative_numbers = true)]
    rates: Option<Vec<f64>>,
    /// Put the residual LR − D(result) back N times
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    back_project: usize,
    /// How little the photo is trusted by the least-squares start [default: from its noise, 1e-3 if clean];
    /// if given, a kernel that is too wide for the photo is taken as it is
    #[arg(long, value_name = "L", allow_negative_numbers = true)]
    lambda: Option<f64>,
    /// Mean over the 8 flips and rotations: 8 times the work
    #[arg(long)]
    ensemble: bool,
    /// Adapt on at most N pixels: the most detailed parts of a larger photo [default: 750000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    adapt_pixels: Option<usize>,
    /// Memory to stay under, in GiB
    #[arg(long, value_name = "GiB", default_value_t = 2.0, allow_negative_numbers = true)]
    memory: f64,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Quality of a JPEG result, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    #[command(flatten)]
    talk: TalkArgs,
}

/// The fewest pixels that anything can be adapted on.
const LEAST_PIXELS: usize = 16;
/// More updates would take days, whatever the photo.
const MOST_UPDATES: usize = 1_000_000;

/// What holds for every photo.
struct Setup {
    blur: Blur,
    /// Nothing for the cubic methods.
    network: Option<NetworkSetup>,
}

struct NetworkSetup {
    weights: Weights,
    updates: usize,
    rates: Rates,
}

impl Args {
    fn adapt_pixels(&self) -> usize {
        self.adapt_pixels.unwrap_or(ADAPT_PIXELS)
    }

    fn setup(&self) -> Result<Setup> {
        if !(self.memory.is_finite() && self.memory > 0.0) {
            return Err(Error::input(format!("--memory {}: a positive number of GiB is needed", self.memory)));
        }
        if self.adapt_pixels() < LEAST_PIXELS {
            let given = self.adapt_pixels();
            let text = format!("--adapt-pixels {given}: at least {LEAST_PIXELS} are needed; -n 0 adapts nothing");
            return Err(Error::input(text));
        }
        if let Some(updates) = self.updates.filter(|updates| *updates > MOST_UPDATES) {
            return Err(Error::input(format!("-n {updates}: at most {MOST_UPDATES} updates; 1 to 10 are usual")));
        }
        if let Some(lambda) = self.lambda.filter(|lambda| !(lambda.is_finite() && *lambda > 0.0)) {
            return Err(Error::input(format!(
                "--lambda {lambda}: a number above 0 is needed (1e-3 for a clean photo)"
            )));
        }
        let given = [
            ("--weights", self.weights.is_some()),
            ("-n", self.updates.is_some_and(|updates| updates > 0)),
            ("--rates", self.rates.is_some()),
            ("--ensemble", self.ensemble),
            ("--adapt-pixels", self.adapt_pixels.is_some()),
        ];
        if self.method != MethodFlag::Mzsr
            && let Some((flag, _)) = given.into_iter().find(|(_, given)| *given)
        {
            return Err(Error::input(format!("{flag} is for --method mzsr: leave it out, or leave out --method")));
        }
        if self.lambda.is_some() && matches!(self.method, MethodFlag::Bicubic | MethodFlag::Aligned) {
            let what = "--lambda is for --method mzsr and least-squares: leave it out, or leave out --method";
            return Err(Error::input(what));
        }
        let blur = self.blur.blur(self.scale)?;
        let network = (self.method == MethodFlag::Mzsr).then(|| self.network(&blur.degradation)).transpose()?;
        Ok(Setup { blur, network })
    }

    fn network(&self, degradation: &Degradation) -> Result<NetworkSetup> {
        let choice = match &self.weights {
            Some(name) => builtin::fit(Weights::open(name)?, degradation),
            None => builtin::choose(degradation)?,
        };
        if let Some(warning) = &choice.warning {
            // Weights that do not know the blur cannot undo it; least squares can, without any.
            let hint = if degradation.kernel().is_some() { " (--method least-squares needs no weights)" } else { "" };
            warn(&format!("{warning}{hint}"));
        }
        let weights = choice.weights;
        let rates = match &self.rates {
            Some(rates) if rates.iter().any(|rate| !(rate.is_finite() && *rate >= 0.0)) => {
                return Err(Error::input("--rates: each rate must be a number of at least 0"));
            }
            Some(rates) => Rates::by_update(rates),
            None => Rates(weights.info.rates.clone()),
        };
        let updates = self.updates.or(weights.info.updates).unwrap_or(DEFAULT_UPDATES);
        if !self.talk.quiet {
            let name = &weights.info.name;
            if self.lambda.is_some() && !weights.info.solves() {
                warn(&format!("--lambda has no effect: weights {name} begin with the bicubic upscale"));
            }
            let unused = [("--rates", self.rates.is_some()), ("--adapt-pixels", self.adapt_pixels.is_some())];
            for (flag, _) in unused.into_iter().filter(|(_, given)| *given && updates == 0) {
                warn(&format!("{flag} has no effect without updates: give -n"));
            }
        }
        Ok(NetworkSetup { weights, updates, rates })
    }
}

impl NetworkSetup {
    fn adaptation(&self, args: &Args) -> Adaptation<'_> {
        Adaptation {
            weights: &self.weights,
            updates: self.updates,
            rates: &self.rates,
            adapt_pixels: args.adapt_pixels(),
            ensemble: args.ensemble,
            lambda: args.lambda,
        }
    }
}

impl Setup {
    /// The line that says what is assumed.
    fn assumptions(&self, args: &Args) -> String {
        let how = match (&self.network, args.method) {
            (Some(NetworkSetup { weights, updates: 0, .. }), _) => {
                format!("weights {}, 0 updates: nothing adapted", weights.info.name)
            }
            (Some(NetworkSetup { weights, updates: count, .. }), _) => {
                format!("weights {}, {}", weights.info.name, updates(*count))
            }
            (None, MethodFlag::Aligned) => "aligned cubic, nothing adapted".to_owned(),
            (None, MethodFlag::LeastSquares) => "least squares, nothing adapted".to_owned(),
            (None, _) => "bicubic, nothing adapted".to_owned(),
        };
        format!("×{}: {}; {how}", args.scale, self.blur.description)
    }

    /// About how many operations a photo takes.
    fn operations(&self, args: &Args, photo: &Photo) -> f64 {
        let Some(network) = &self.network else { return 0.0 };
        let low = photo.width() as f64 * photo.height() as f64;
        let adapted = low.min(args.adapt_pixels() as f64) * 3.0 * network.updates as f64;
        let turns = if args.ensemble { 8.0 } else { 1.0 };
        let architecture = &network.weights.architecture;
        let each = 2.0 * architecture.parameter_count() as f64 / architecture.cell().pow(2) as f64
            * network.weights.info.passes as f64;
        turns * each * (low * args.scale * args.scale + adapted)
    }

    /// Says once what holds for all photos.
    fn introduce(&self, args: &Args, engine: &AnyEngine) {
        if !args.talk.quiet {
            eprintln!("mzsr: {}", self.assumptions(args));
        }
        if args.talk.verbose {
            if let Some(details) = &self.blur.details {
                eprintln!("mzsr: kernel: {details}");
            }
            eprintln!("mzsr: {}", engine.name());
        }
    }
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    super::into(&args.output, || all(&args))
}

fn all(args: &Args) -> Result<Outcome> {
    set_threads(args.threads)?;
    let setup = args.setup()?;
    let pairs = paths::pair(&args.inputs, &args.output)?;
    for pair in &pairs {
        Photo::check_output(&pair.output)?;
    }
    if !args.talk.quiet {
        setup.blur.warnings.iter().for_each(|warning| warn(warning));
    }
    super::interruptible()?;
    let mut engine: Option<AnyEngine> = None;
    super::each(&pairs, |pair| {
        let photo = Photo::read(&pair.input)?;
        let scale = setup.blur.degradation.scale();
        let (height, width) = (high_size(photo.height(), scale), high_size(photo.width(), scale));
        Photo::check_size(&pair.output, photo.format(), height, width)?;
        let work = match engine.take() {
            Some(engine) => engine,
            None => {
                let operations = setup.operations(args, &photo) * pairs.len() as f64;
                let opened = AnyEngine::open(args.device.device, args.threads, operations)?;
                setup.introduce(args, &opened);
                opened
            }
        };
        let made = one(args, &setup, &work, pair, &photo);
        let work = engine.insert(work);
        match made {
            Err(Error::Device(text) | Error::Memory(text)) if args.device.device == Device::Auto && work.is_gpu() => {
                warn(&format!("{}: {text}; going on without the GPU", pair.input.display()));
                *work = AnyEngine::open(Device::Cpu, args.threads, 0.0)?;
                one(args, &setup, work, pair, &photo)
            }
            made => made,
        }
    })
}

fn one(args: &Args, setup: &Setup, engine: &AnyEngine, pair: &paths::Pair, photo: &Photo) -> Result<()> {
    let name = pair.input.display().to_string();
    let mut progress = Progress::new(args.talk.progress, &name);
    let method = match &setup.network {
        Some(network) => Method::Mzsr(network.adaptation(args)),
        None if args.method == MethodFlag::Aligned => Method::Aligned,
        None if args.method == MethodFlag::LeastSquares => Method::LeastSquares(args.lambda),
        None => Method::Bicubic,
    };
    let request = Request {
        degradation: &setup.blur.degradation,
        method,
        back_project: args.back_project,
        memory: (args.memory * f64::from(1 << 30)) as u64,
    };
    let made = upscale(engine, photo, &request, &mut |event| match event {
        Event::Progress(share) => progress.set(share),
        Event::Updated { update, loss } if args.talk.verbose => {
            progress.say(&format!("mzsr: {name}: update {update}: the son's loss was {loss:.6}"));
        }
        Event::Halved { update, before, after, factor } if args.talk.verbose => progress.say(&format!(
            "mzsr: {name}: update {update} raised the son's loss from {before:.6} to {after:.6}: \
             undone, its rate is now {factor} of what was asked"
        )),
        Event::Updated { .. } | Event::Halved { .. } => {}
    });
    progress.finish();
    let (result, report) = made.map_err(|error| super::about(&pair.input, error))?;
    if !report.updates.is_empty() && report.made() == 0 {
        warn(&format!("{name}: no update lowered the son's loss, so nothing was adapted; smaller --rates may help"));
    }
    let warnings = result.write(&pair.output, &WriteOptions { jpeg_quality: args.quality })?;
    if !args.talk.quiet {
        photo.warnings().iter().chain(&warnings).for_each(|warning| warn(&format!("{name}: {warning}")));
    }
    if let (Some(factor), false) = (report.narrowed, args.talk.quiet) {
        warn(&format!(
            "{name}: sharper than the given blur allows: restored with that {factor:.2} times as wide; \
             a narrower --kernel may do better (--lambda 1e-3 keeps this one)"
        ));
    }
    if args.talk.verbose {
        let degradation = setup.blur.degradation.narrowed(report.narrowed.unwrap_or(1.0));
        let off = consistency(photo, &result, &degradation);
        eprintln!("mzsr: {name}: {}", verdict(photo, &result, &report, off));
        if report.caution.is_some() || !explains(off, report.noise) {
            warn(&format!(
                "{name}: the assumed blur does not explain this photo, which is sharper than it allows: \
                 try a narrower --kernel, or another --downsample"
            ));
        }
    }
    Ok(())
}

fn updates(count: usize) -> String {
    format!("{count} update{}", if count == 1 { "" } else { "s" })
}

/// What was done, what the photo's noise is taken for, and whether the kernel explains the photo.
fn verdict(photo: &Photo, result: &Photo, report: &Report, off: f64) -> String {
    let mut text = format!("{} × {} to {} × {}", photo.width(), photo.height(), result.width(), result.height());
    text += &match report.losses {
        None => ", nothing adapted".to_owned(),
        Some((before, after)) => format!(
            ", {} on {} pixels, the son's loss {before:.6} to {after:.6}",
            updates(report.made()),
            report.adapted_pixels
        ),
    };
    if let Some(lambda) = report.lambda {
        text += &format!(", noise about {:.2} of 255, lambda {lambda:.2e}", 255.0 * report.noise);
    }
    if let Some(factor) = report.narrowed {
        text += &format!(", the blur {factor:.2} times as wide");
    }
    if let Some(caution) = report.caution {
        text += &format!(" ({caution:.0} times what the noise asks for)");
    }
    text + &format!(", D(result) is {:.2} of 255 off the photo", 255.0 * off)
}
