//! The log of a training: one JSON object a line, and the same for TensorBoard.

use super::tensorboard::EventFile;
use crate::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The name of the log in the output folder.
pub const FILE: &str = "log.jsonl";

/// What happened since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The step just made, from 1.
    pub step: u64,
    /// The mean loss (mean absolute error, of light in [0, 1]) of the steps since the last report.
    pub loss: f64,
    /// The learning rate of this step.
    pub rate: f64,
    /// The norm of this step's gradient, before clipping.
    pub gradient: f64,
    /// Patches a second of the wall clock.
    pub images_per_second: f64,
    /// The share of the time spent waiting for patches.
    pub waiting: f64,
}

/// How good the weights are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The step after which they were judged.
    pub step: u64,
    /// The mean PSNR of the luma in dB, over photos, kernels, scales and the numbers of
    /// updates that count.
    pub validation: f64,
    /// The mean for each number of updates.
    pub means: Vec<(usize, f64)>,
    /// The mean over the photos for each kernel, scale and number of updates.
    pub cases: Vec<(String, f64)>,
    /// The rates of the updates that were trained for, of each layer; none without `[meta]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Vec<f64>>,
    /// Whether no earlier weights were better.
    pub best: bool,
    /// Whether this is the last judgement, on all photos.
    #[serde(rename = "final")]
    pub last: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Where reports go.
pub struct Log {
    path: PathBuf,
    file: File,
    events: EventFile,
}

impl Log {
    /// The log in `folder`, which goes on after step `step`: lines of later steps, which a killed
    /// run left behind, are cut off, as is half a line.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        let path = folder.join(FILE);
        let failed = |error| Error::io(&path, error);
        if step > 0 && path.exists() {
            let keep = length_up_to(BufReader::new(File::open(&path).map_err(failed)?), step).map_err(failed)?;
            OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(keep)).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(step > 0).write(true).truncate(step == 0).open(&path);
        Ok(Log { file: file.map_err(failed)?, events: EventFile::create(folder, step + 1)?, path })
    }

    /// Writes a report.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn report(&mut self, report: &Report) -> Result<()> {
        self.line(report)?;
        let Report { step, loss, rate, gradient, images_per_second, waiting } = *report;
        self.events.scalars(
            step,
            &[
                ("loss", loss),
                ("rate", rate),
                ("gradient", gradient),
                ("speed/images_per_second", images_per_second),
                ("speed/waiting", waiting),
            ],
        )
    }

    /// Writes a judgement.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn judgement(&mut self, judgement: &Judgement) -> Result<()> {
        self.line(judgement)?;
        let group = if judgement.last { "final" } else { "validation" };
        let mut named = vec![(format!("{group}/mean"), judgement.validation)];
        if judgement.means.len() > 1 {
            named.extend(judgement.means.iter().map(|(updates, mean)| (format!("{group}/mean n{updates}"), *mean)));
        }
        named.extend(judgement.cases.iter().map(|(name, score)| (format!("{group}/{name}"), *score)));
        for (k, row) in judgement.rates.iter().enumerate() {
            let name = |l: usize| format!("rates/update {} layer {}", k + 1, l + 1);
            named.extend(row.iter().enumerate().map(|(l, rate)| (name(l), *rate)));
        }
        let scalars: Vec<(&str, f64)> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.events.scalars(judgement.step, &scalars)
    }

    /// One write a line, so that a kill leaves at most the last one half done.
    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(value).map_err(|error| Error::file(&self.path, error.to_string()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|error| Error::io(&self.path, error))
    }
}

/// The bytes of the whole lines before the first that is about a step after `step`, or is none of
/// ours.
fn length_up_to(mut log: impl BufRead, step: u64) -> std::io::Result<u64> {
    let (mut length, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = log.read_until(b'\n', &mut line)?;
        let value = serde_json::from_slice::<serde_json::Value>(&line).unwrap_or_default();
        // The final judgement is made again.
        let about = value.get("step").and_then(|v| v.as_u64()).filter(|_| value.get("final") != Some(&true.into()));
        match about {
            Some(about) if about <= step && line.ends_with(b"\n") => length += read as u64,
            _ => return Ok(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_and_half_lines_are_cut() {
        let whole = "{\"step\":10,\"loss\":1}\n{\"step\":20,\"loss\":1}\n{\"step\":20,\"validation\":30}\n";
        let later = format!("{whole}{{\"step\":30,\"loss\":1}}\n{{\"step\":4");
        let length = |text: &str, step| length_up_to(text.as_bytes(), step).unwrap();
        assert_eq!(length(&later, 20), whole.len() as u64);
        assert_eq!(length(&later, 29), whole.len() as u64);
        assert_eq!(length(&later, 30) as usize, whole.len() + 21);
        assert_eq!(length(&later, 1000) as usize, whole.len() + 21);
        assert_eq!(length(&later, 10), 21);
        assert_eq!(length("", 5), 0);
        assert_eq!(length("nonsense\n{\"step\":1}\n", 5), 0);
    }

    #[test]
    fn a_resumed_log_goes_on_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let report = |step| Report { step, loss: 0.5, rate: 1e-3, gradient: 2.0, images_per_second: 9.0, waiting: 0.0 };
        let mut log = Log::open(folder.path(), 0).unwrap();
        (1..=5).for_each(|step| log.report(&report(step)).unwrap());
        drop(log);
        let mut log = Log::open(folder.path(), 3).unwrap();
        (4..=6).for_each(|step| log.report(&report(step)).unwrap());
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        // A new training begins a new log.
        drop(Log::open(folder.path(), 0).unwrap());
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "");
    }
}
