//! What the training commands share: their flags, and their lines on the terminal.

use super::Outcome;
use super::options::DeviceArgs;
use crate::engine::{AnyEngine, Engine};
use crate::train::log::{Judgement, Report};
use crate::train::{Ending, Event, Options, Recipe};
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A training of the library.
pub type Train = fn(&AnyEngine, &Recipe, &str, &Options, &mut dyn FnMut(Event<'_>)) -> Result<Ending>;

/// What every training takes.
#[derive(clap::Args)]
pub struct Args {
    /// What to train, on what, and how (TOML)
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Go on from the checkpoint in the output folder: the result is that of an uninterrupted run
    #[arg(long)]
    resume: bool,
    /// The folder that the recipe's folders of photos are relative to [default: the current one]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The output folder, instead of the recipe's
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The number of steps, instead of the recipe's
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Threads of the network [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Threads that make patches beside them; more help where the log says that much of the time is
    /// spent waiting
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    feeders: u16,
    #[command(flatten)]
    device: DeviceArgs,
    /// Say only what is wrong
    #[arg(short, long)]
    quiet: bool,
}

/// A training command on `args`; `train` is the library's function.
pub fn run(args: &Args, train: Train) -> Result<Outcome> {
    let (mut recipe, text) = Recipe::read(&args.recipe)?;
    if let Some(steps) = args.steps {
        recipe.steps = steps;
    }
    if let Some(output) = &args.output {
        recipe.output.folder.clone_from(output);
    }
    recipe.check().map_err(|error| Error::file(&args.recipe, format!("with the flags given: {error}")))?;
    if args.threads == Some(0) {
        return Err(Error::input("--threads 0: at least one thread is needed"));
    }
    // A training is always large.
    let engine = AnyEngine::open(args.device.device, args.threads, f64::INFINITY)?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    // The first Ctrl-C waits for the step and its checkpoint; a second one does not.
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Error::Device(format!("Ctrl-C could not be caught: {error}")))?;
    let (data, feeders) = (args.data.clone().unwrap_or_default(), args.feeders.into());
    let options = Options { data, resume: args.resume, feeders, stop };
    let mut screen = Screen::new(args.quiet, recipe.steps);
    screen.say(&format!("{}: {} steps into {}", args.recipe.display(), recipe.steps, recipe.output.folder.display()));
    screen.say(&engine.name());
    let ending = train(&engine, &recipe, &text, &options, &mut |event| screen.show(&event));
    screen.bar.finish_and_clear();
    match ending? {
        Ending::Finished => Ok(Outcome::Done),
        Ending::Stopped(step) => {
            eprintln!("mzsr: stopped after step {step}; the same command with --resume goes on from there");
            Ok(Outcome::Interrupted)
        }
    }
}

/// A bar on a terminal, plain lines in a pipe.
struct Screen {
    quiet: bool,
    steps: u64,
    bar: ProgressBar,
    /// When the steps of this run began, and how many had been made before.
    begun: (Instant, u64),
}

impl Screen {
    fn new(quiet: bool, steps: u64) -> Self {
        let draws = !quiet && std::io::stderr().is_terminal();
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}  {elapsed} / ETA {eta}") {
            bar.set_style(style);
        }
        Screen { quiet, steps, bar, begun: (Instant::now(), 0) }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Note(line) => self.say(line),
            Event::Begin(steps) => {
                let before = steps.start().saturating_sub(1);
                self.begun = (Instant::now(), before);
                self.bar.set_position(before);
                self.bar.reset_eta();
            }
            Event::Step(step) => self.bar.set_position(*step),
            Event::Report(report) if self.bar.is_hidden() => self.say(&self.line(report)),
            Event::Report(report) => self.bar.set_message(format!("loss {:.5}", report.loss)),
            Event::Judged(judgement) => self.say(&judged(judgement)),
        }
    }

    fn line(&self, report: &Report) -> String {
        let Report { step, loss, rate, gradient, images_per_second, waiting } = report;
        let (begun, before) = self.begun;
        let each = begun.elapsed().as_secs_f64() / step.saturating_sub(before).max(1) as f64;
        let left = Duration::from_secs((each * self.steps.saturating_sub(*step) as f64) as u64);
        format!(
            "step {step}/{}  loss {loss:.5}  rate {rate:.2e}  gradient {gradient:.3}  {images_per_second:.1} patches/s  \
             waiting {:.1} %  ETA {}",
            self.steps,
            100.0 * waiting,
            indicatif::FormattedDuration(left)
        )
    }
}

fn judged(judgement: &Judgement) -> String {
    let Judgement { step, validation, means, cases, best, .. } = judgement;
    let mut line =
        format!("step {step}: validation {validation:.3} dB{}", if *best { ", the best so far" } else { "" });
    if means.len() > 1 {
        let each: Vec<String> = means.iter().map(|(n, score)| format!("{n} updates {score:.3}")).collect();
        line += &format!(" ({})", each.join(", "));
    } else if cases.len() > 1 {
        let each: Vec<String> = cases.iter().map(|(name, score)| format!("{name} {score:.3}")).collect();
        line += &format!(" ({})", each.join(", "));
    }
    line
}
