//! `mzsr score`

use super::Outcome;
use super::options::warn;
use crate::image::Photo;
use crate::image::paths::is_image;
use crate::score::{Preset, Score, border, score};
use crate::{Error, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  mzsr score larger.png truth.png -s 2
  mzsr score results/ truth/ -s 4 --json      pictures of the same name
  mzsr score results/ truth/ -s 2 --preset rgb

The common top-left part is compared, cropped to a multiple of the scale (for a
scale that is not an integer to the integer part of that) and cut by the scale,
rounded up, on each side. PSNR and SSIM of a set are means over its pictures.
Pictures without a counterpart are reported, and the exit status is 3.";

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PresetFlag {
    /// The paper's: Y, rounded to integers
    Mzsr,
    /// BasicSR's: Y, not rounded
    Basicsr,
    /// All three channels
    Rgb,
}

/// `mzsr score`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The picture to judge, or a folder of them
    #[arg(value_name = "SR")]
    sr: PathBuf,
    /// The true picture, or a folder of them
    #[arg(value_name = "HR")]
    hr: PathBuf,
    /// How many times SR was enlarged
    #[arg(short, long, default_value_t = 2.0)]
    scale: f64,
    /// What is compared
    #[arg(long, value_enum, default_value = "mzsr")]
    preset: PresetFlag,
    /// Print JSON; an infinite PSNR is null
    #[arg(long)]
    json: bool,
}

/// A row of the result.
#[derive(Serialize)]
struct Row {
    name: String,
    psnr: f64,
    ssim: f64,
}

#[derive(Serialize)]
struct Mean {
    psnr: f64,
    ssim: f64,
}

#[derive(Serialize)]
struct Table {
    images: Vec<Row>,
    mean: Mean,
}

/// Pictures to compare.
struct Pair {
    name: String,
    sr: PathBuf,
    hr: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    let preset = match args.preset {
        PresetFlag::Mzsr => Preset::Mzsr,
        PresetFlag::Basicsr => Preset::Basicsr,
        PresetFlag::Rgb => Preset::Rgb,
    };
    if !(args.scale.is_finite() && args.scale >= 1.0) {
        return Err(Error::input(format!("--scale {}: a number of at least 1 is needed", args.scale)));
    }
    let (pairs, mut whole) = pairs(&args.sr, &args.hr)?;
    let mut images = Vec::new();
    for pair in &pairs {
        match one(pair, args.scale, preset) {
            Ok(Score { psnr, ssim }) => images.push(Row { name: pair.name.clone(), psnr, ssim }),
            Err(error) if pairs.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("mzsr: {error}");
                whole = false;
            }
        }
    }
    if images.is_empty() {
        return Ok(Outcome::Failed);
    }
    let count = images.len() as f64;
    let mean = Mean {
        psnr: images.iter().map(|row| row.psnr).sum::<f64>() / count,
        ssim: images.iter().map(|row| row.ssim).sum::<f64>() / count,
    };
    let table = Table { images, mean };
    super::print(&if args.json { json(&table)? } else { text(&table) })?;
    Ok(if whole { Outcome::Done } else { Outcome::Partly })
}

fn one(pair: &Pair, scale: f64, preset: Preset) -> Result<Score> {
    let sr = Photo::read(&pair.sr)?.rgb8();
    let hr = Photo::read(&pair.hr)?.rgb8();
    if sr.height.abs_diff(hr.height).max(sr.width.abs_diff(hr.width)) > border(scale) {
        warn(&format!(
            "{}: {} x {} against {} x {} pixels: only the common top-left part is compared",
            pair.name, sr.width, sr.height, hr.width, hr.height
        ));
    }
    score(&sr, &hr, scale, preset).map_err(|error| super::about(&pair.sr, error))
}

/// The pictures to compare, and whether each has its counterpart.
fn pairs(sr: &Path, hr: &Path) -> Result<(Vec<Pair>, bool)> {
    match (sr.is_dir(), hr.is_dir()) {
        (true, true) => {}
        (false, false) => {
            let name = stem(sr);
            return Ok((vec![Pair { name, sr: sr.to_owned(), hr: hr.to_owned() }], true));
        }
        _ => return Err(Error::input("SR and HR must be two files or two folders")),
    }
    let (srs, mut hrs) = (pictures(sr)?, pictures(hr)?);
    let (mut pairs, mut whole) = (Vec::new(), true);
    let mut missing = |path: &Path, folder: &Path| {
        warn(&format!("{}: {} has no picture of that name; left out", path.display(), folder.display()));
        whole = false;
    };
    for (name, path) in srs {
        match hrs.remove(&name) {
            Some(other) => pairs.push(Pair { name, sr: path, hr: other }),
            None => missing(&path, hr),
        }
    }
    hrs.values().for_each(|path| missing(path, sr));
    if pairs.is_empty() {
        let (sr, hr) = (sr.display(), hr.display());
        return Err(Error::input(format!("{sr} and {hr} have no pictures of the same name")));
    }
    Ok((pairs, whole))
}

/// The pictures in a folder by name without extension.
fn pictures(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let failed = |error| Error::io(folder, error);
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !is_image(&path) || !path.is_file() {
            continue;
        }
        if let Some(other) = found.insert(stem(&path), path.clone()) {
            let other = other.display();
            return Err(Error::file(path, format!("has the same name as {other}; keep one of them")));
        }
    }
    Ok(found)
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn json(table: &Table) -> Result<String> {
    let text = serde_json::to_string(table).map_err(|error| Error::Numeric(error.to_string()))?;
    Ok(format!("{text}\n"))
}

fn text(table: &Table) -> String {
    let name = |row: &Row| row.name.escape_debug().to_string();
    let width = table.images.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max(4);
    let mut out = format!("{:width$}  {:>8}  {:>6}\n", "name", "PSNR", "SSIM");
    let mut add = |name: &str, psnr: f64, ssim: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:width$}  {psnr:>8.3}  {ssim:>6.4}");
    };
    table.images.iter().for_each(|row| add(&name(row), row.psnr, row.ssim));
    if table.images.len() > 1 {
        add("mean", table.mean.psnr, table.mean.ssim);
    }
    out
}
