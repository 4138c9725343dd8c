//! `mzsr degrade`

use super::Outcome;
use super::options::{DegradationArgs, TalkArgs, warn};
use crate::degrade::{Noise, degrade_photo};
use crate::image::{Photo, WriteOptions, paths};
use crate::{Error, Result};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mzsr degrade large.png -o small.png -s 2                          bicubic
  mzsr degrade large.png -o small.png -s 2 --kernel gaussian:2.0    blur, then every
                                                                    second pixel
  mzsr degrade photos/ -o small/ -s 4 --kernel kernel.npy --noise 5 --seed 1";

/// `mzsr degrade`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Photos (PNG, JPEG, WebP, TIFF, BMP), folders of them, or - for standard input
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,
    /// The result: a file, a folder (for several photos), or - for standard output
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How many times smaller, 1 to 4, any real number
    #[arg(short, long, allow_negative_numbers = true)]
    scale: f64,
    #[command(flatten)]
    blur: DegradationArgs,
    /// Standard deviation of Gaussian noise added to the result, of 255
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, allow_negative_numbers = true)]
    noise: f64,
    /// Where the noise begins
    #[arg(long, default_value_t = 0, requires = "noise")]
    seed: u64,
    /// Cut the photo to whole multiples of the scale first, as evaluations do
    #[arg(long)]
    crop: bool,
    /// Quality of a JPEG result, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    #[command(flatten)]
    talk: TalkArgs,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    super::into(&args.output, || all(&args))
}

fn all(args: &Args) -> Result<Outcome> {
    let blur = args.blur.blur(args.scale)?;
    if !(args.noise.is_finite() && args.noise >= 0.0) {
        return Err(Error::input(format!("--noise {}: a number of at least 0 is needed", args.noise)));
    }
    let noise = Noise { sigma: args.noise / 255.0, seed: args.seed };
    let pairs = paths::pair(&args.inputs, &args.output)?;
    for pair in &pairs {
        Photo::check_output(&pair.output)?;
    }
    super::interruptible()?;
    if !args.talk.quiet {
        blur.warnings.iter().for_each(|warning| warn(warning));
    }
    if args.talk.verbose {
        eprintln!("mzsr: 1/{}: {}", args.scale, blur.description);
        if let Some(details) = &blur.details {
            eprintln!("mzsr: kernel: {details}");
        }
    }
    super::each(&pairs, |pair| {
        let photo = Photo::read(&pair.input)?;
        let small =
            degrade_photo(&photo, &blur.degradation, noise, args.crop).map_err(|e| super::about(&pair.input, e))?;
        let warnings = small.write(&pair.output, &WriteOptions { jpeg_quality: args.quality })?;
        if !args.talk.quiet {
            let name = pair.input.display();
            photo.warnings().iter().chain(&warnings).for_each(|warning| warn(&format!("{name}: {warning}")));
        }
        Ok(())
    })
}
