//! `mzsr weights`

use super::Outcome;
use super::options::warn;
use crate::degrade::Downsample;
use crate::network::weights::{Blurs, Info, Weights, builtin, parse_rates, parse_scale, published_rates};
use crate::{Error, Result};
use clap::{Subcommand, ValueEnum};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const CONVERT: &str = "\
Examples:
  mzsr weights convert Pretrained.index x2.safetensors --scale 2 --downsample bicubic
  mzsr weights convert in.safetensors out.safetensors --scale 2..4 --downsample direct

IN is a file of ours, safetensors from PyTorch (numbered pairs of weight and
bias) or a TensorFlow checkpoint (its prefix, .index or .data file, or a folder
with one in it).";

const EXAMPLES: &str = "\
Examples:
  mzsr weights list
  mzsr weights show bicubic-x2
  mzsr weights show x2.safetensors
  mzsr weights convert Pretrained.index x2.safetensors --scale 2 --downsample bicubic
  mzsr weights average best.safetensors kernel-direct-x2 -o mean.safetensors";

const AVERAGE: &str = "\
Example:
  mzsr weights average kernel-direct-x2 runs/more/best.safetensors -o mean.safetensors

For files that were trained further from the same one, each in its own way: their
mean is often better than any of them. What is recorded is that of the first.";

/// `mzsr weights`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// The built-in weights
    #[command(after_help = "Example:\n  mzsr weights list")]
    List,
    /// What weights were trained for, and where they come from
    #[command(after_help = "Examples:\n  mzsr weights show bicubic-x2\n  mzsr weights show x2.safetensors")]
    Show {
        /// A file, or a built-in name
        #[arg(value_name = "FILE|NAME")]
        weights: String,
    },
    /// Make a file of ours, and record what the weights were trained for
    #[command(after_help = CONVERT)]
    Convert(Box<Convert>),
    /// The mean of files that come from the same training
    #[command(after_help = AVERAGE)]
    Average {
        /// Files, or built-in names
        #[arg(value_name = "IN", required = true, num_args = 2..)]
        inputs: Vec<String>,
        /// The file to write: NAME.safetensors
        #[arg(short, long, value_name = "OUT")]
        output: PathBuf,
    },
}

/// How pixels were dropped in training.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum DownsampleFlag {
    /// Every s-th pixel
    Direct,
    /// As MATLAB's imresize
    Bicubic,
}

/// What is not given stays as it is in IN.
#[derive(clap::Args)]
struct Convert {
    /// A file of weights, or a built-in name
    #[arg(value_name = "IN")]
    input: String,
    /// The file to write: NAME.safetensors
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to call them
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The scale trained for, or a range: 2 or 2..4
    #[arg(long, value_name = "S|S..S", value_parser = scale)]
    scale: Option<[f64; 2]>,
    /// The downsampling trained for
    #[arg(long, value_enum)]
    downsample: Option<DownsampleFlag>,
    /// Whether trained over blur kernels [default where nothing is recorded: with direct downsampling]
    #[arg(long, value_name = "true|false|both")]
    kernels: Option<Blurs>,
    /// The number of gradient steps trained for
    #[arg(long, value_name = "N")]
    updates: Option<usize>,
    /// Learning rates by update, or JSON with rows of one value or one a layer: [[0.02],[0.01]]
    /// [default where nothing is recorded: the paper's]
    #[arg(long, value_name = "R,R,…|JSON", value_parser = rates)]
    rates: Option<Rates>,
    /// The recipe of the training
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Where they come from
    #[arg(long, value_name = "TEXT")]
    provenance: Option<String>,
}

/// Rows of rates, one argument.
#[derive(Clone)]
struct Rates(Vec<Vec<f64>>);

fn scale(text: &str) -> std::result::Result<[f64; 2], String> {
    parse_scale(text).ok_or_else(|| "a number (2) or a range (2..4) is needed".to_owned())
}

fn rates(text: &str) -> std::result::Result<Rates, String> {
    parse_rates(text).map(Rates).ok_or_else(|| "numbers (0.02,0.01) or JSON rows are needed".to_owned())
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    match args.action {
        Action::List => super::print(&list(&builtin::list()?))?,
        Action::Show { weights } => super::print(&show(&Weights::open(&weights)?))?,
        Action::Convert(convert) => convert.run()?,
        Action::Average { inputs, output } => {
            check_output(&output)?;
            let open = |input: String| Weights::open(&input).map(|weights| (input, weights));
            Weights::average(&inputs.into_iter().map(open).collect::<Result<Vec<_>>>()?)?.save(&output)?;
        }
    }
    Ok(Outcome::Done)
}

fn check_output(path: &Path) -> Result<()> {
    match path.extension() {
        Some(extension) if extension == "safetensors" => Ok(()),
        _ => Err(Error::file(path, "the file to write must end with .safetensors")),
    }
}

fn list(all: &[Weights]) -> String {
    let width = all.iter().map(|weights| weights.info.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for Weights { info, .. } in all {
        let updates = info.updates.map_or_else(String::new, |updates| format!(", {updates} updates"));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:width$}  {}{updates}", info.name, info.purpose());
    }
    if out.is_empty() { "no built-in weights\n".to_owned() } else { out }
}

fn show(weights: &Weights) -> String {
    let Weights { architecture, parameters, info } = weights;
    let updates = info.updates.map_or_else(|| "not recorded".to_owned(), |updates| updates.to_string());
    let rates: Vec<String> = info
        .rates
        .iter()
        .map(|row| match row.as_slice() {
            [rate] => rate.to_string(),
            rates => format!("[{}]", rates.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")),
        })
        .collect();
    let lines = [
        ("name", info.name.clone()),
        ("network", format!("{architecture}, {} parameters", parameters.len())),
        ("trained for", info.purpose()),
        ("start", info.start.to_string()),
        ("passes", info.passes.to_string()),
        (
            "fit",
            if info.fit { "the parameters follow the blur" } else { "the same parameters for every blur" }.to_owned(),
        ),
        ("updates", updates),
        ("rates", if rates.is_empty() { "none".to_owned() } else { rates.join(", ") }),
        ("recipe", if info.recipe.is_empty() { "not recorded".to_owned() } else { info.recipe.clone() }),
        ("provenance", if info.provenance.is_empty() { "not recorded".to_owned() } else { info.provenance.clone() }),
    ];
    let mut out = String::new();
    for (key, value) in lines {
        for (index, line) in value.lines().enumerate() {
            let key = if index == 0 { key } else { "" };
            // What a file holds must not steer the terminal. Writing to a string cannot fail.
            let line: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
            let _ = writeln!(out, "{key:11}  {line}");
        }
    }
    out
}

impl Convert {
    fn run(self) -> Result<()> {
        check_output(&self.output)?;
        let mut weights = Weights::open(&self.input)?;
        self.record(&mut weights.info)?;
        if !weights.info.recorded {
            warn("what they were trained for is not recorded: --scale and --downsample would record it");
        }
        weights.save(&self.output)
    }

    /// Overwrites what was given.
    fn record(&self, info: &mut Info) -> Result<()> {
        let downsample = self.downsample.map(|flag| match flag {
            DownsampleFlag::Direct => Downsample::Direct,
            DownsampleFlag::Bicubic => Downsample::Bicubic,
        });
        if !info.recorded && (self.scale.is_some() || downsample.is_some() || self.kernels.is_some()) {
            let (Some(scale), Some(downsample)) = (self.scale, downsample) else {
                let text = format!("{} does not record its scale and downsampling: give both", self.input);
                return Err(Error::input(text));
            };
            info.recorded = true;
            info.kernels = Blurs::Without;
            info.rates = published_rates(scale, downsample);
        }
        info.scale = self.scale.unwrap_or(info.scale);
        info.downsample = downsample.unwrap_or(info.downsample);
        // There is no direct downsampling without blur.
        let direct = info.downsample == Downsample::Direct;
        info.kernels = self.kernels.unwrap_or(if direct { Blurs::With } else { info.kernels });
        info.updates = self.updates.or(info.updates);
        if let Some(Rates(rates)) = &self.rates {
            info.rates = rates.clone();
        }
        if let Some(path) = &self.recipe {
            info.recipe = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        }
        if let Some(name) = &self.name {
            info.name = name.clone();
        }
        if let Some(provenance) = &self.provenance {
            info.provenance = provenance.clone();
        }
        Ok(())
    }
}
