//! The command line: one file a command; arguments in, library calls, lines out. No arithmetic.

/// A line on standard error, in the place of the standard library's macro, which panics where
/// nobody reads standard error any more (`mzsr … 2>&1 | head -1`): that must not stop the work, and
/// in the handler of Ctrl-C it would keep the process from ending.
macro_rules! eprintln {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}

mod bench;
mod degrade;
mod devices;
mod eval;
mod kernel;
mod meta_train;
mod options;
mod pretrain;
mod progress;
mod score;
mod training;
mod upscale;
mod weights;

use crate::image::paths::Pair;
use crate::{Error, Result, whole};
use clap::{Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

/// Exit status when every input failed, or nothing could be done.
const FAILED: u8 = 1;
/// Exit status when some inputs failed and the others were done.
const PARTLY: u8 = 3;
/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  mzsr upscale photo.jpg -o larger.png          twice the size
  mzsr upscale photo.png -o larger.png --kernel gaussian:2.0 -v
  mzsr degrade large.png -o small.png -s 2 --kernel gaussian:2.0
  mzsr score larger.png large.png -s 2";

/// Enlarge photos truthfully: a small network adapts to the photo itself and to its blur
/// (MZSR: meta-transfer learning for zero-shot super-resolution).
#[derive(Parser)]
#[command(name = "mzsr", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enlarge photos
    Upscale(upscale::Args),
    /// Make photos small: blur and drop pixels, as a camera or another program would have done
    Degrade(degrade::Args),
    /// Make and look at blur kernels
    Kernel(kernel::Args),
    /// How close pictures are to the true ones: PSNR and SSIM
    Score(score::Args),
    /// List, show and convert weights
    Weights(weights::Args),
    /// Train weights on many photos
    Pretrain(pretrain::Args),
    /// Evaluate methods on sets of pictures, with the paper's figures beside them
    Eval(eval::Args),
    /// Train weights that a few gradient steps on one photo make better
    MetaTrain(meta_train::Args),
    /// List the graphics processors that --device can name
    Devices,
    /// Measure how fast this machine runs the network, and check that it runs it right
    Bench(bench::Args),
}

/// What a command has to say at the end.
enum Outcome {
    Done,
    /// Some inputs failed; each was reported.
    Partly,
    /// All inputs failed; each was reported.
    Failed,
    /// Ctrl-C stopped the work in good order.
    Interrupted,
}

/// Runs the program on this process's arguments.
pub fn main() -> ExitCode {
    #[cfg(feature = "gpu")]
    crate::engine::gpu::without_desktop();
    let result = match Cli::parse().command {
        Command::Upscale(args) => upscale::run(args),
        Command::Degrade(args) => degrade::run(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Score(args) => score::run(args),
        Command::Weights(args) => weights::run(args),
        Command::Pretrain(args) => pretrain::run(&args),
        Command::MetaTrain(args) => meta_train::run(&args),
        Command::Eval(args) => eval::run_suite(args),
        Command::Devices => devices::run(),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partly) => ExitCode::from(PARTLY),
        Ok(Outcome::Failed) => ExitCode::from(FAILED),
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("mzsr: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Makes Ctrl-C end the process without a half-written file.
fn interruptible() -> Result<()> {
    ctrlc::set_handler(|| {
        whole::abandon();
        // Below the ^C or the bar of a terminal.
        let line = if std::io::stderr().is_terminal() { "\n" } else { "" };
        eprintln!("{line}mzsr: interrupted; no unfinished file is left");
        std::process::exit(INTERRUPTED.into());
    })
    .map_err(|error| Error::Device(format!("Ctrl-C could not be caught: {error}")))
}

/// Does `work`, and takes the folder `output` away again if there was none before and nothing is in it.
fn into(output: &Path, work: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let was_there = output.exists();
    let made = work();
    if !was_there && output.is_dir() {
        // Only an empty one.
        let _ = std::fs::remove_dir(output);
    }
    made
}

/// Does `work` for each input. A single input's error is the command's; of several, each failure is
/// reported as it happens and again at the end, and the rest goes on.
fn each(pairs: &[Pair], mut work: impl FnMut(&Pair) -> Result<()>) -> Result<Outcome> {
    let mut failed = Vec::new();
    for pair in pairs {
        if let Err(error) = work(pair) {
            if pairs.len() == 1 {
                return Err(error);
            }
            eprintln!("mzsr: {error}");
            failed.push(pair.input.display().to_string());
        }
    }
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    eprintln!("mzsr: {} of {} inputs failed: {}", failed.len(), pairs.len(), failed.join(", "));
    Ok(if failed.len() == pairs.len() { Outcome::Failed } else { Outcome::Partly })
}

/// An error that says which file it is about.
fn about(path: &Path, error: Error) -> Error {
    match error {
        Error::Input(text) | Error::Numeric(text) => Error::file(path, text),
        other => other,
    }
}

/// Text to standard output. A reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", error)),
        _ => Ok(()),
    }
}
