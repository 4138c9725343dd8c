//! A network's parameters, what they were trained for, and their files.
//!
//! # Our file
//! Safetensors with the tensors `conv1.weight` (OIHW), `conv1.bias`, `conv2.weight`, … in f32 and
//! these metadata, all text:
//!
//! | key | value |
//! |---|---|
//! | `format` | `mzsr-weights-1` |
//! | `name` | what to call them |
//! | `architecture` | channels: `3-64-64-64-64-64-64-64-3`; 12 or 48 at the ends: it sees cells of 2 × 2 or 4 × 4 pixels ([`Architecture::cell`]) |
//! | `scale` | `2`, or a range: `2..4` |
//! | `downsample` | `direct` or `bicubic` |
//! | `kernels` | `true` if trained over blur kernels, `false` if without blur, `both` if both |
//! | `start` | what the network's output is added to: `bicubic` (the `imresize` upscale), or `least-squares` |
//! | `passes` | how often a photo goes through the network, each time with parameters of its own; absent if once |
//! | `fit` | `transfer` if the parameters follow the blur ([`crate::network::Fit`]); absent if not |
//! | `updates` | the number of gradient steps trained for; absent if none |
//! | `rates` | learning rates, JSON: one row an update, of one value or one a layer |
//! | `recipe` | the recipe of the training, as text |
//! | `provenance` | where they come from |
//!
//! With several passes the tensors of the second are called `pass2.conv1.weight`, …; with `fit` there are
//! `conv1.weight.fit`, `conv1.bias.fit`, `conv2.scale.fit`, `conv2.bias.fit`, … too (with cells
//! `conv1.scale.fit`), and later passes have no others.
//!
//! `scale`, `downsample` and `kernels` are absent together when nobody recorded them.
//!
//! Safetensors without `format` are read too if they hold numbered pairs of weight and bias, as
//! PyTorch writes them (`net.0.weight`, `net.0.bias`, `net.2.weight`, …; OIHW); and so are
//! TensorFlow checkpoints with `MODEL/conv1/kernel`, `MODEL/conv1/bias`, ….

pub mod builtin;
mod file;
mod tensorflow;

use crate::degrade::{Downsample, MAX_SCALE, Start};
use crate::network::{Architecture, Passes};
use crate::{Error, Result, whole};
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::str::FromStr;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// The largest number of updates that weights may have been trained for, and of rows of rates.
pub const MAX_UPDATES: usize = 10_000;

/// The most passes through a network.
pub const MAX_PASSES: usize = 8;

/// The parameters of a network and what is known about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// The network.
    pub architecture: Architecture,
    /// Its parameters, flat, in the order of [`Architecture::layers`]; with several passes, or where they
    /// follow the blur, as [`Passes`] says.
    pub parameters: Vec<f32>,
    /// What they were trained for.
    pub info: Info,
}

/// What weights were trained for.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// What to call them: the built-in name, or the file's.
    pub name: String,
    /// Whether scale, downsampling and kernels are recorded; if not, they hold a guess.
    pub recorded: bool,
    /// The smallest and the largest scale; equal for a single one.
    pub scale: [f64; 2],
    /// How the training's small pictures were made.
    pub downsample: Downsample,
    /// Whether the training went over blur kernels.
    pub kernels: Blurs,
    /// What the network's output is added to.
    pub start: Start,
    /// How often a photo goes through the network, each time with parameters of its own.
    pub passes: usize,
    /// Whether the parameters follow the blur ([`crate::network::Fit`]).
    pub fit: bool,
    /// The number of gradient steps trained for, if any.
    pub updates: Option<usize>,
    /// Learning rates: a row an update, each with one value or one a layer. The last row holds
    /// for all updates after it.
    pub rates: Vec<Vec<f64>>,
    /// The recipe of the training, if recorded.
    pub recipe: String,
    /// Where they come from.
    pub provenance: String,
}

/// Which degradations weights were trained over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blurs {
    /// Without any blur kernel.
    Without,
    /// Over blur kernels.
    With,
    /// With and without.
    Both,
}

impl Blurs {
    /// Whether degradations with a blur kernel, or without, are among them.
    pub fn include(self, kernel: bool) -> bool {
        match self {
            Blurs::Without => !kernel,
            Blurs::With => kernel,
            Blurs::Both => true,
        }
    }
}

impl fmt::Display for Blurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Blurs::Without => "false",
            Blurs::With => "true",
            Blurs::Both => "both",
        })
    }
}

impl FromStr for Blurs {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "false" => Ok(Blurs::Without),
            "true" => Ok(Blurs::With),
            "both" => Ok(Blurs::Both),
            other => Err(Error::input(format!("'{}' is none of true, false and both", other.escape_debug()))),
        }
    }
}

impl Info {
    /// Whether least-squares problems are solved on a photo's way through the network: for its start, or
    /// between passes.
    pub fn solves(&self) -> bool {
        self.start == Start::LeastSquares || self.passes > 1
    }

    /// What was trained for, with the rates published for that ([`published_rates`]) and nothing
    /// else known.
    pub fn new(name: impl Into<String>, scale: [f64; 2], downsample: Downsample, kernels: Blurs) -> Self {
        Info {
            name: name.into(),
            recorded: true,
            scale,
            downsample,
            kernels,
            start: Start::Bicubic,
            passes: 1,
            fit: false,
            updates: None,
            rates: published_rates(scale, downsample),
            recipe: String::new(),
            provenance: String::new(),
        }
    }

    /// Nothing recorded: taken for bicubic ×2 without blur.
    pub(crate) fn unrecorded(name: impl Into<String>, provenance: &str) -> Self {
        let info = Info::new(name, [2.0, 2.0], Downsample::Bicubic, Blurs::Without);
        Info { recorded: false, provenance: provenance.to_owned(), ..info }
    }

    /// `×2`, or `×2 to ×4`.
    pub fn scale_text(&self) -> String {
        let [min, max] = self.scale;
        if min == max { format!("×{min}") } else { format!("×{min} to ×{max}") }
    }

    /// `×2, direct downsampling, with blur`, or that it is not recorded.
    pub fn purpose(&self) -> String {
        if !self.recorded {
            return "not recorded".to_owned();
        }
        let blur = match self.kernels {
            Blurs::Without => "without blur",
            Blurs::With => "with blur",
            Blurs::Both => "with or without blur",
        };
        format!("{}, {} downsampling, {blur}", self.scale_text(), self.downsample)
    }

    /// What is wrong with it, for a network of `depth` layers.
    fn check(&self, depth: usize) -> std::result::Result<(), String> {
        let [min, max] = self.scale;
        if !(1.0..=MAX_SCALE).contains(&min) || !(min..=MAX_SCALE).contains(&max) {
            return Err(format!("scale {min} to {max} is not within 1 to {MAX_SCALE}"));
        }
        if !(1..=MAX_PASSES).contains(&self.passes) {
            return Err(format!("passes are {}; 1 to {MAX_PASSES} are known", self.passes));
        }
        if self.updates.is_some_and(|updates| updates > MAX_UPDATES) || self.rates.len() > MAX_UPDATES {
            return Err(format!("updates and rows of rates are at most {MAX_UPDATES}"));
        }
        for (row, rates) in self.rates.iter().enumerate() {
            if rates.len() != 1 && rates.len() != depth {
                let count = rates.len();
                return Err(format!(
                    "rates of update {} are {count}; one value is needed, or one for each of the {depth} layers",
                    row + 1
                ));
            }
            if let Some(wrong) = rates.iter().find(|rate| !(rate.is_finite() && **rate >= 0.0)) {
                return Err(format!("rate {wrong} of update {} is not a number of at least 0", row + 1));
            }
        }
        Ok(())
    }
}

/// The paper's learning rates by update for what weights were trained for (PROTOCOL.md).
pub fn published_rates(scale: [f64; 2], downsample: Downsample) -> Vec<Vec<f64>> {
    let [min, max] = scale;
    let rates: &[f64] = match downsample {
        Downsample::Direct if min < max => &[1e-2, 1e-2, 1e-2, 5e-3],
        Downsample::Direct if max > 3.0 => &[1e-2, 5e-3, 5e-3, 5e-3, 5e-3, 1e-3],
        Downsample::Direct => &[2e-2, 1e-2, 1e-2, 1e-2, 5e-3],
        Downsample::Bicubic => &[1e-2, 1e-2, 1e-2, 1e-3],
    };
    rates.iter().map(|&rate| vec![rate]).collect()
}

/// Reads a scale or a range of them: `2`, or `2..4`.
pub fn parse_scale(text: &str) -> Option<[f64; 2]> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    Some([min.trim().parse().ok()?, max.trim().parse().ok()?])
}

/// Reads rates: `0.02,0.01` (one an update), or JSON with rows of one value or one a layer.
pub fn parse_rates(text: &str) -> Option<Vec<Vec<f64>>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    text.split(',').map(|rate| rate.trim().parse().ok().map(|rate| vec![rate])).collect()
}

impl Weights {
    /// Built-in weights by name, or a file by path. A built-in name wins over a file called the
    /// same; `./name` is the file.
    ///
    /// # Errors
    /// Neither a built-in name nor a file, or as [`Weights::load`].
    pub fn open(name_or_path: &str) -> Result<Self> {
        builtin::open(name_or_path)
    }

    /// Reads a file of ours, safetensors that PyTorch wrote, or a TensorFlow checkpoint (given as its
    /// prefix, its `.index` or its `.data-00000-of-00001` file, or as a folder with nothing else of
    /// that kind).
    ///
    /// # Errors
    /// A file that cannot be read, is larger than [`MAX_BYTES`], or does not hold such a network.
    pub fn load(path: &Path) -> Result<Self> {
        if let Some(files) = tensorflow::files(path) {
            return tensorflow::load(&files);
        }
        let bytes = read(path)?;
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        file::parse(&bytes, &name).map_err(|message| Error::file(path, message))
    }

    /// The same from memory; `name` is used in errors, and as the name where none is recorded.
    ///
    /// # Errors
    /// Anything but such a file.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        file::parse(bytes, name).map_err(|message| Error::file(name, message))
    }

    /// Our file, in memory.
    ///
    /// # Errors
    /// Parameters or information that [`Weights::from_bytes`] would refuse.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check().and_then(|()| file::write(self)).map_err(|message| Error::input(format!("weights: {message}")))
    }

    /// Writes our file: beside `path` first, then renamed, so that no half file is ever seen.
    ///
    /// # Errors
    /// Parameters or information that [`Weights::load`] would refuse, or a file that cannot be
    /// written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        whole::write(path, |file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .map_err(|error| Error::io(path, error))
    }

    /// Whether `path` names something that [`Weights::load`] could try.
    fn is_there(path: &Path) -> bool {
        path.exists() || tensorflow::files(path).is_some()
    }

    /// The mean of several, each with what errors call it, with the information of the first and a
    /// provenance that names all. Of use where they were trained further from the same weights, each in its
    /// own way: what each has learned stays, and its noise shrinks (Wortsman et al., "Model soups", ICML
    /// 2022).
    ///
    /// # Errors
    /// None at all, or networks of other layers, passes or another start than the first.
    pub fn average(all: &[(String, Weights)]) -> Result<Self> {
        let Some(((name, first), others)) = all.split_first() else {
            return Err(Error::input("no weights to average"));
        };
        let kind = |Weights { architecture, parameters, info }: &Weights| {
            (architecture.channels.clone(), parameters.len(), info.start, info.passes, info.fit)
        };
        if let Some((other, _)) = others.iter().find(|(_, other)| kind(other) != kind(first)) {
            let text = format!("{name} and {other} are not alike: `mzsr weights show` tells how they differ");
            return Err(Error::input(text));
        }
        let mean = |i: usize| {
            let sum: f64 = all.iter().map(|(_, weights)| f64::from(weights.parameters[i])).sum();
            (sum / all.len() as f64) as f32
        };
        let mut made = Weights { parameters: (0..first.parameters.len()).map(mean).collect(), ..first.clone() };
        let each = |(i, (_, weights)): (usize, &(String, Weights))| {
            let Info { name, provenance, .. } = &weights.info;
            format!("({}) {name}: {}", i + 1, if provenance.is_empty() { "not recorded" } else { provenance })
        };
        let parts: Vec<String> = all.iter().enumerate().map(each).collect();
        made.info.provenance = format!("The mean of {}: {}", all.len(), parts.join(" "));
        Ok(made)
    }

    /// Where the parameters of each pass lie.
    pub fn layout(&self) -> Passes {
        Passes::new(&self.architecture.layers(), self.info.fit)
    }

    /// What is wrong, if anything is.
    fn check(&self) -> std::result::Result<(), String> {
        let Weights { architecture, parameters, info } = self;
        Architecture::new(architecture.channels.clone()).map_err(|error| error.to_string())?;
        if !architecture.takes_colours() {
            return Err(format!("the network {architecture} takes neither pixels of 3 channels nor cells of them"));
        }
        info.check(architecture.depth())?;
        let count = self.layout().count(info.passes);
        if parameters.len() != count {
            let passes = info.passes;
            return Err(format!("{} parameters where {architecture} has {count} in {passes} passes", parameters.len()));
        }
        if let Some(at) = parameters.iter().position(|value| !value.is_finite()) {
            return Err(format!("parameter {at} is {}; the training that made it diverged", parameters[at]));
        }
        Ok(())
    }
}

/// The whole file, if it is not larger than [`MAX_BYTES`].
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io(path, error);
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Error::file(
            path,
            "is a folder, and not one with a single TensorFlow checkpoint; name a file of weights",
        ));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::file(path, file::too_large()));
    }
    Ok(bytes)
}

/// Text from a file as it may stand in a one-line message: escaped, and cut if long.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("'{}'", short.escape_debug())
}

#[cfg(test)]
mod tests;
