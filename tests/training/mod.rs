//! What the tests of the trainings share.

use mzsr::engine::cpu::CpuEngine;
use mzsr::network::weights::Weights;
use mzsr::train::checkpoint::Checkpoint;
use mzsr::train::{Ending, Event, Options, Recipe, log, meta_train, pretrain};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A folder with photos `train` and `valid` and a recipe that writes into `out`.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for (folder, count) in [("train", 3), ("valid", 2)] {
            std::fs::create_dir(place.path(folder)).unwrap();
            for number in 0..count {
                place.photo(&format!("{folder}/{number}.png"), 40 + 7 * number, 52);
            }
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn photo(&self, name: &str, height: u32, width: u32) {
        let wave = |x: u32, y: u32, c: u32| (127.0 * (1.0 + ((x * (c + 1) + y * y) as f64 / 9.0).sin())) as u8;
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| wave(x, y, c))))
            .save(self.path(name))
            .unwrap();
    }

    /// Trains in this process; stops after `stop_after` steps.
    pub fn train(&self, text: &str, resume: bool, stop_after: u64, threads: usize) -> mzsr::Result<Ending> {
        let options = Options { data: self.0.path().to_owned(), resume, ..Options::default() };
        let stop = options.stop.clone();
        let engine = CpuEngine::new(Some(threads))?;
        let recipe = Recipe::parse(text)?;
        let train = if recipe.meta.is_some() { meta_train } else { pretrain };
        train(&engine, &recipe, text, &options, &mut |event| {
            if let Event::Step(step) = event {
                stop.store(step >= stop_after, Ordering::Relaxed);
            }
        })
    }

    /// The binary on recipe `text`.
    pub fn command(&self, text: &str, flags: &[&str]) -> Command {
        let recipe = self.path("recipe.toml");
        std::fs::write(&recipe, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mzsr"));
        let name = if text.contains("[meta]") { "meta-train" } else { "pretrain" };
        command.arg(name).arg(&recipe).arg("--data").arg(self.0.path()).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, text: &str, flags: &[&str]) -> Output {
        self.command(text, flags).output().unwrap()
    }

    pub fn checkpoint(&self, output: &str) -> Checkpoint {
        Checkpoint::load(&self.path(output)).unwrap().unwrap()
    }

    /// The log without what a clock measured.
    pub fn log(&self, output: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path(output).join(log::FILE)).unwrap();
        text.lines()
            .map(|line| {
                let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
                for timed in ["images_per_second", "waiting", "seconds"] {
                    value.as_object_mut().unwrap().remove(timed);
                }
                value
            })
            .collect()
    }

    /// Both trainings ended alike, to the bit.
    pub fn assert_same(&self, a: &str, b: &str) {
        let (mut one, mut two) = (self.checkpoint(a), self.checkpoint(b));
        for checkpoint in [&mut one, &mut two] {
            checkpoint.state.recipe.output.folder = PathBuf::new();
            checkpoint.text.clear();
        }
        assert_eq!(one, two);
        assert_eq!(self.log(a), self.log(b));
        for name in ["best.safetensors", "last.safetensors"] {
            let load = |output: &str| Weights::load(&self.path(output).join(name)).unwrap();
            let (one, two) = (load(a), load(b));
            assert_eq!(one.parameters, two.parameters, "{name}");
            assert_eq!(one.info.rates, two.info.rates, "{name}");
        }
    }
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until the log of `output` has a line about step `step` or later.
pub fn wait_for(place: &Place, output: &str, step: u64, child: &mut Child) {
    let start = Instant::now();
    let path = place.path(output).join(log::FILE);
    let reached = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        last.is_some_and(|value| value["step"].as_u64() >= Some(step))
    };
    while !reached(&path) {
        assert!(child.try_wait().unwrap().is_none(), "ended before step {step}");
        assert!(start.elapsed() < Duration::from_secs(60), "step {step} was never reached");
        std::thread::sleep(Duration::from_millis(2));
    }
}
