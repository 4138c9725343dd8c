//! `mzsr eval`

use super::Outcome;
use super::options::{DeviceArgs, set_threads};
use crate::engine::{AnyEngine, Engine};
use crate::eval::{Event, Options, Suite, run};
use crate::{Error, Result};
use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  mzsr eval suites/kernels_x2.toml --data ../shared/data
  mzsr eval suites/kernels_x2.toml --data ../shared/data --resume --set BSD100
  mzsr eval suites/kernels_x2.toml --data ../shared/data --method Bicubic --method 'MZSR(10)'

A suite says which methods enlarge which sets of pictures after which degradations; its keys are
described in suites/README.md. A table is printed; SUITE.csv, .json, .md and .html (one file with
pictures) are written to the output folder, and every result to its folder cache/: with --resume
nothing that is there is computed again, after Ctrl-C or when the suite has grown.
Data sets are folders under --data: DATA/Set5/*.png; KAIR's, BasicSR's and EDSR's layouts are found
too. Set MZSR_CPU as for `mzsr bench`.";

/// `mzsr eval`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to evaluate (TOML)
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// Where reports and results go; made if need be
    #[arg(short, long, value_name = "DIR", default_value = "runs/eval")]
    output: PathBuf,
    /// The folder of the data sets
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Take what earlier runs computed as it is
    #[arg(long)]
    resume: bool,
    /// Another folder in which weights and ONNX files are looked for (repeatable)
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Only this set, also one that the suite leaves out, or any folder under --data (repeatable)
    #[arg(long, value_name = "NAME")]
    set: Vec<String>,
    /// Only this method, also where the suite leaves it out (repeatable)
    #[arg(long, value_name = "NAME")]
    method: Vec<String>,
    /// Only this degradation (repeatable)
    #[arg(long, value_name = "NAME")]
    degradation: Vec<String>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Say only what is wrong, and print the table
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs the command.
pub(super) fn run_suite(args: Args) -> Result<Outcome> {
    let suite = Suite::read(&args.suite)?;
    set_threads(args.threads)?;
    // A suite is many photos.
    let engine = AnyEngine::open(args.device.device, args.threads, f64::INFINITY)?;
    super::interruptible()?;
    let mut models = args.models;
    models.extend(args.suite.parent().map(PathBuf::from));
    models.push(args.data.clone());
    let options = Options {
        data: args.data,
        output: args.output,
        models,
        resume: args.resume,
        sets: args.set,
        methods: args.method,
        degradations: args.degradation,
    };
    let mut screen = Screen::new(args.quiet);
    screen.say(&format!("{}: {}", args.suite.display(), engine.name()));
    let made = run(&engine, &suite, &options, &mut |event| screen.show(&event));
    screen.bar.finish_and_clear();
    let results = made.map_err(|error| match error {
        Error::Input(text) => Error::file(&args.suite, text),
        other => other,
    })?;
    let paths = results.write(&options.output)?;
    super::print(&results.text())?;
    for path in paths {
        screen.say(&format!("written: {}", path.display()));
    }
    Ok(match results.failed() {
        (0, _) => Outcome::Done,
        (failed, all) if failed == all => Outcome::Failed,
        _ => Outcome::Partly,
    })
}

/// A bar on a terminal, plain lines in a pipe.
struct Screen {
    quiet: bool,
    bar: ProgressBar,
    cells: usize,
    made: usize,
    begun: Instant,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let draws = !quiet && std::io::stderr().is_terminal();
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        Screen { quiet, bar, cells: 0, made: 0, begun: Instant::now() }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("mzsr: {line}"));
        }
    }

    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Note(line) => self.say(&format!("note: {line}")),
            Event::Begin(cells) => {
                self.cells = *cells;
                self.bar.set_length(*cells as u64);
                self.begun = Instant::now();
            }
            Event::Working(name, share) => self.bar.set_message(format!("{name} {:.0} %", 100.0 * share)),
            Event::Done { name, cell, kept, left } => {
                self.next();
                let score = match cell.scores {
                    Some(scores) => scores.psnr.map_or_else(|| "identical".to_owned(), |psnr| format!("{psnr:.3} dB")),
                    None => format!("{:.3} levels off", cell.consistency),
                };
                let time = if *kept { "kept".to_owned() } else { format!("{:.2} s", cell.seconds) };
                let left = left.map_or_else(String::new, |left| {
                    let left = Duration::from_secs(left as u64);
                    format!("  ETA {}", FormattedDuration(left))
                });
                self.bar.set_message(format!("{name}{left}"));
                if self.bar.is_hidden() {
                    self.say(&format!("{}/{}  {name}  {score}  {time}{left}", self.made, self.cells));
                }
            }
            Event::Failed(name, error) => {
                self.next();
                self.bar.suspend(|| eprintln!("mzsr: {name}: {error}"));
            }
        }
    }

    fn next(&mut self) {
        self.made += 1;
        self.bar.set_position(self.made as u64);
    }
}
