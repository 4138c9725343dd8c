//! `mzsr pretrain`: interrupted in every way it must end as if it had not been.

use mzsr::engine::cpu::CpuEngine;
use mzsr::network::weights::{Blurs, Weights};
use mzsr::train::checkpoint::{self, Checkpoint};
use mzsr::train::{Ending, Event, Options, Recipe, log, pretrain};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A folder with photos `train` and `valid` and a recipe that writes into `out`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for (folder, count) in [("train", 3), ("valid", 2)] {
            std::fs::create_dir(place.path(folder)).unwrap();
            for number in 0..count {
                place.photo(&format!("{folder}/{number}.png"), 40 + 7 * number, 52);
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn photo(&self, name: &str, height: u32, width: u32) {
        let wave = |x: u32, y: u32, c: u32| (127.0 * (1.0 + ((x * (c + 1) + y * y) as f64 / 9.0).sin())) as u8;
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| wave(x, y, c))))
            .save(self.path(name))
            .unwrap();
    }

    fn text(&self, steps: u64, output: &str) -> String {
        format!(
            "steps = {steps}\nseed = 5\n\
             [model]\nname = \"trial\"\nscale = 2\narchitecture = \"3-8-8-3\"\n\
             [data]\nphotos = [\"train\"]\npatch = 16\nbatch = 2\n\
             [optimiser]\nrate = 1e-3\nschedule = \"constant\"\nwarm_up = 3\nclip = 0.1\nema = 0.9\n\
             [validation]\nphotos = [\"valid\"]\nevery = 5\nfinal_on_all = true\n\
             [output]\nfolder = \"{}\"\ncheckpoint_every = 2\nlog_every = 3\n",
            self.path(output).display()
        )
    }

    /// Trains in this process; stops after `stop_after` steps.
    fn train(&self, text: &str, resume: bool, stop_after: u64, threads: usize) -> mzsr::Result<Ending> {
        let options = Options { data: self.0.path().to_owned(), resume, ..Options::default() };
        let stop = options.stop.clone();
        let engine = CpuEngine::new(Some(threads))?;
        pretrain(&engine, &Recipe::parse(text)?, text, &options, &mut |event| {
            if let Event::Step(step) = event {
                stop.store(step >= stop_after, Ordering::Relaxed);
            }
        })
    }

    /// The binary on recipe `text`.
    fn command(&self, text: &str, flags: &[&str]) -> Command {
        let recipe = self.path("recipe.toml");
        std::fs::write(&recipe, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mzsr"));
        command.arg("pretrain").arg(&recipe).arg("--data").arg(self.0.path()).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, text: &str, flags: &[&str]) -> Output {
        self.command(text, flags).output().unwrap()
    }

    fn checkpoint(&self, output: &str) -> Checkpoint {
        Checkpoint::load(&self.path(output)).unwrap().unwrap()
    }

    /// The log without what a clock measured.
    fn log(&self, output: &str) -> Vec<serde_json::Value> {
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
    fn assert_same(&self, a: &str, b: &str) {
        let (mut one, mut two) = (self.checkpoint(a), self.checkpoint(b));
        for checkpoint in [&mut one, &mut two] {
            checkpoint.state.recipe.output.folder = PathBuf::new();
            checkpoint.text.clear();
        }
        assert_eq!(one, two);
        assert_eq!(self.log(a), self.log(b));
        for name in ["best.safetensors", "last.safetensors"] {
            let load = |output: &str| Weights::load(&self.path(output).join(name)).unwrap();
            assert_eq!(load(a).parameters, load(b).parameters, "{name}");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_resumed_training_equals_a_whole_one() {
    let place = Place::new();
    assert_eq!(place.train(&place.text(12, "whole"), false, 99, 1).unwrap(), Ending::Finished);
    let text = place.text(12, "parts");
    assert_eq!(place.train(&text, false, 4, 1).unwrap(), Ending::Stopped(4));
    assert_eq!(place.train(&text, true, 7, 2).unwrap(), Ending::Stopped(7));
    assert_eq!(place.train(&text, true, 99, 1).unwrap(), Ending::Finished);
    place.assert_same("whole", "parts");

    // The log: reports at 3, 6, 9, 12, judgements at 5, 10, 12 and at the end.
    let steps: Vec<u64> = place.log("whole").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [3, 5, 6, 9, 10, 12, 12, 12]);
    let checkpoint = place.checkpoint("whole");
    assert_eq!(checkpoint.state.history.len(), 3);
    let best = checkpoint.state.history.iter().map(|score| score.psnr).fold(f64::MIN, f64::max);
    assert_eq!(checkpoint.state.best.unwrap().psnr, best);
    assert!(checkpoint.params != checkpoint.ema.unwrap());

    // Fewer steps first and more on resumption: the constant rate does not mind.
    place.train(&place.text(8, "longer"), false, 99, 1).unwrap();
    place.train(&place.text(12, "longer"), true, 99, 1).unwrap();
    assert_eq!(place.checkpoint("longer").params, checkpoint.params);
}

#[test]
fn training_brings_the_loss_down_and_its_weights_are_ours() {
    let place = Place::new();
    let text = place.text(150, "out").replace("rate = 1e-3", "rate = 4e-3").replace("every = 5", "every = 50");
    place.train(&text, false, 999, 1).unwrap();
    let log = place.log("out");
    let losses: Vec<f64> = log.iter().filter_map(|line| line["loss"].as_f64()).collect();
    assert!(losses[losses.len() - 1] < 0.9 * losses[1], "{losses:?}");
    let weights = Weights::load(&place.path("out/best.safetensors")).unwrap();
    assert_eq!((weights.info.name.as_str(), weights.info.scale), ("trial", [2.0, 2.0]));
    assert_eq!(weights.info.recipe, text);
    assert!(weights.info.kernels == Blurs::Without && weights.info.provenance.contains("validation"));
}

#[test]
fn what_would_break_a_resumption_is_refused() {
    let place = Place::new();
    let text = place.text(6, "out");
    place.train(&text, false, 99, 1).unwrap();
    let before = std::fs::read(place.path("out").join(checkpoint::FILE)).unwrap();
    let refused = |text: &str, resume, wanted: &str| {
        let error = place.train(text, resume, 99, 1).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read(place.path("out").join(checkpoint::FILE)).unwrap(), before);
    };
    refused(&text, false, "--resume");
    for (from, to, key) in [
        ("rate = 1e-3", "rate = 2e-3", "optimiser.rate"),
        ("batch = 2", "batch = 3", "data.batch"),
        ("seed = 5", "seed = 6", "seed"),
        ("ema = 0.9", "ema = 0.8", "optimiser.ema"),
        ("3-8-8-3", "3-8-3", "model.architecture"),
        ("steps = 6", "steps = 5", "raise steps"),
    ] {
        refused(&text.replace(from, to), true, key);
    }
    place.photo("train/9.png", 40, 40);
    refused(&text, true, "other photos");
    std::fs::remove_file(place.path("train/9.png")).unwrap();
    // What does not matter may change.
    let freely = text.replace("log_every = 3", "log_every = 1").replace("every = 5", "every = 2");
    place.train(&freely.replace("steps = 6", "steps = 8"), true, 99, 1).unwrap();
    assert_eq!(place.checkpoint("out").state.step, 8);
}

#[test]
fn a_diverged_training_keeps_its_last_checkpoint() {
    let place = Place::new();
    let text = place
        .text(40, "out")
        .replace("rate = 1e-3", "rate = 1e38")
        .replace("[validation]\nphotos = [\"valid\"]\nevery = 5\nfinal_on_all = true\n", "")
        .replace("clip = 0.1\n", "")
        .replace("checkpoint_every = 2", "checkpoint_every = 1");
    let error = place.train(&text, false, 99, 1).unwrap_err().to_string();
    assert!(error.contains("not finite") && error.contains("lower"), "{error}");
    // Whole and finite, or reading it would fail.
    let step = Checkpoint::load(&place.path("out")).map(|found| found.map(|checkpoint| checkpoint.state.step));
    assert!(matches!(step, Ok(Some(1..40))), "{step:?}");
}

#[test]
fn bad_recipes_and_photos_are_refused_in_one_line_before_anything_is_written() {
    let place = Place::new();
    let good = place.text(4, "out");
    let refused = |text: &str, flags: &[&str], wanted: &[&str]| {
        let output = place.run(text, flags);
        let (said, lines) = (said(&output), said(&output).lines().filter(|line| line.starts_with("mzsr: ")).count());
        assert_eq!((output.status.code(), lines), (Some(1), 1), "{said}");
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{wanted:?}: {said}");
        assert!(!place.path("out").exists());
    };
    refused(&good.replace("clip", "clop"), &[], &["recipe.toml", "line 15", "`clop`"]);
    refused(&good.replace("patch = 16", "patch = 44"), &[], &["0.png", "52 x 40", "patch"]);
    refused(&good.replace("\"valid\"", "\"nowhere\""), &[], &["nowhere"]);
    refused(&good, &["--steps", "2"], &["warm_up"]);
    refused(&good, &["--threads", "0"], &["--threads"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    refused(&good.replace("\"train\"", "\"train\", \"empty\""), &[], &["empty", "no PNG"]);
    std::fs::write(place.path("valid/broken.jpg"), b"\xff\xd8\xff\xe0 not a photo").unwrap();
    refused(&good, &[], &["broken.jpg"]);
    std::fs::rename(place.path("valid/broken.jpg"), place.path("train/broken.jpg")).unwrap();
    refused(&good, &[], &["broken.jpg"]);
    // Weights come before photos, which take longer to read.
    refused(&good.replace("scale = 2", "scale = 2\ninitial = \"missing.safetensors\""), &[], &["missing"]);
}

/// Waits until the log of `output` has a line about step `step` or later.
fn wait_for(place: &Place, output: &str, step: u64, child: &mut Child) {
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

#[test]
fn killed_at_any_moment_it_goes_on_as_if_nothing_had_been() {
    let place = Place::new();
    let steps = 240;
    let text = |output| place.text(steps, output).replace("every = 5", "every = 20");
    let whole = place.run(&text("whole"), &[]);
    assert!(whole.status.success(), "{}", said(&whole));
    let killed = text("killed");
    for (round, step) in [30, 90, 150].into_iter().enumerate() {
        let flags: &[&str] = if round == 0 { &[] } else { &["--resume"] };
        let mut child = place.command(&killed, flags).spawn().unwrap();
        wait_for(&place, "killed", step, &mut child);
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    let rest = place.run(&killed, &["--resume"]);
    assert!(rest.status.success() && said(&rest).contains("going on after step"), "{}", said(&rest));
    place.assert_same("whole", "killed");
    // Once more changes nothing.
    assert!(place.run(&killed, &["--resume"]).status.success());
    place.assert_same("whole", "killed");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_in_good_order() {
    let place = Place::new();
    let text = place.text(1_000_000, "out");
    let mut child = place.command(&text, &[]).spawn().unwrap();
    wait_for(&place, "out", 3, &mut child);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(said(&output).contains("--resume"), "{}", said(&output));
    let stopped = place.checkpoint("out").state.step;
    assert!(said(&output).contains(&format!("after step {stopped}")));
}
