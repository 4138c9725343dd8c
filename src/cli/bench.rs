//! `mzsr bench`

use super::Outcome;
use super::options::{DeviceArgs, set_threads};
use crate::bench::{self, Phase, Report, Request};
use crate::{Error, Result};
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  mzsr bench
  mzsr bench --seconds 10 --json > rates.json

Rates are counted as direct convolution, whatever the engine computes. The peak
is that of multiply-adds from registers, measured again before each of the rates;
`x peak` of the medians compares medians, of the best the best. Results are
checked first: wrong ones are an error.
MZSR_CPU=avx512|avx2|neon|baseline lowers the instruction set.";

/// `mzsr bench`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// About how long each of the seven measurements takes; each is made at least once
    #[arg(long, value_name = "S", default_value_t = 4.0)]
    seconds: f64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Leave out the whole restorations and the meta-training
    #[arg(long)]
    rates_only: bool,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    if !(0.0..=3600.0).contains(&args.seconds) {
        return Err(Error::input(format!("--seconds {}: a number from 0 to 3600 is needed", args.seconds)));
    }
    set_threads(args.threads)?;
    let report = bench::run(Request {
        device: args.device.device,
        threads: args.threads,
        seconds: args.seconds,
        whole: !args.rates_only,
    })?;
    super::print(&if args.json { json(&report)? } else { text(&report) })?;
    Ok(Outcome::Done)
}

fn json(report: &Report) -> Result<String> {
    let text = serde_json::to_string(report).map_err(|error| Error::Numeric(error.to_string()))?;
    Ok(format!("{text}\n"))
}

/// A GPU takes milliseconds.
fn seconds(time: f64) -> String {
    if time < 1.0 { format!("{:.1} ms", 1e3 * time) } else { format!("{time:.2} s") }
}

fn text(report: &Report) -> String {
    let mut out = format!("mzsr {}: {}\n\n", report.version, report.engine);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:16}  {:>14}  {:>7}  {:>6}  {:>7}  {:>6}", "", "", "median", "", "best", "");
    let _ = writeln!(
        out,
        "{:16}  {:>14}  {:>7}  {:>6}  {:>7}  {:>6}",
        "phase", "batch", "GFLOP/s", "x peak", "GFLOP/s", "x peak"
    );
    if let Some(peak) = report.peak {
        let _ = writeln!(
            out,
            "{:16}  {:>14}  {:>7.1}  {:>6.2}  {:>7.1}  {:>6.2}",
            "peak", "", peak.median, 1.0, peak.best, 1.0
        );
    }
    let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    for rate in &report.rates {
        let phase = match rate.phase {
            Phase::Forward => "forward",
            Phase::ForwardBackward => "forward+backward",
        };
        let [n, h, w] = rate.batch;
        let (batch, median, best) = (format!("{n} x {h} x {w}"), rate.gflops.median, rate.gflops.best);
        let _ = writeln!(
            out,
            "{phase:16}  {batch:>14}  {median:>7.1}  {:>6}  {best:>7.1}  {:>6}",
            times(rate.ratio),
            times(rate.best_ratio)
        );
    }
    for (updates, time) in [("one update", report.upscale_once), ("ten updates", report.upscale)] {
        let Some(time) = time else { continue };
        let _ = writeln!(
            out,
            "\n{updates} on 256 x 256 and the enlargement to 512 x 512: {} (best {} of {})",
            seconds(time.median),
            seconds(time.best),
            time.runs
        );
    }
    if let Some(time) = report.meta {
        let _ = writeln!(
            out,
            "\na task of a meta-step, 8 + 8 patches of 64 x 64, five updates, second order: {} (best {} of {})",
            seconds(time.median),
            seconds(time.best),
            time.runs
        );
    }
    let _ = writeln!(out, "\nchecked against the plain engine in f64:");
    for check in &report.checks {
        let _ = writeln!(out, "  {:26}  {:.1e} (at most {:.0e})", check.what, check.error, check.bound);
    }
    out
}
