//! `mzsr pretrain`: interrupted in every way it must end as if it had not been.

mod training;

use mzsr::degrade::Start;
use mzsr::network::Architecture;
use mzsr::network::weights::{Blurs, Weights};
use mzsr::train::Ending;
use mzsr::train::checkpoint::{self, Checkpoint};
use std::process::Command;
use training::{Place, said, wait_for};

fn recipe(place: &Place, steps: u64, output: &str) -> String {
    format!(
        "steps = {steps}\nseed = 5\n\
             [model]\nname = \"trial\"\nscale = 2\narchitecture = \"3-8-8-3\"\n\
             [data]\nphotos = [\"train\"]\npatch = 16\nbatch = 2\n\
             [optimiser]\nrate = 1e-3\nschedule = \"constant\"\nwarm_up = 3\nclip = 0.1\nema = 0.9\n\
             [validation]\nphotos = [\"valid\"]\nevery = 5\nfinal_on_all = true\n\
             [output]\nfolder = \"{}\"\ncheckpoint_every = 2\nlog_every = 3\n",
        place.path(output).display()
    )
}

#[test]
fn a_resumed_training_equals_a_whole_one() {
    let place = Place::new();
    assert_eq!(place.train(&recipe(&place, 12, "whole"), false, 99, 1).unwrap(), Ending::Finished);
    let text = recipe(&place, 12, "parts");
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
    place.train(&recipe(&place, 8, "longer"), false, 99, 1).unwrap();
    place.train(&recipe(&place, 12, "longer"), true, 99, 1).unwrap();
    assert_eq!(place.checkpoint("longer").params, checkpoint.params);
}

/// A second pass is trained on what the first makes, which stays as it is; a third on both.
#[test]
fn passes_are_trained_one_after_the_other() {
    passes(false);
}

/// The same where the parameters follow the blur: all passes share the network's own.
#[test]
fn passes_that_follow_the_blur_share_the_network() {
    passes(true);
}

fn passes(fit: bool) {
    let place = Place::new();
    let aware = |output: &str, more: &str| {
        let start = format!("scale = 2\nfit = {fit}\nstart = \"least-squares\"\ndownsample = \"direct\"\n{more}");
        let text = recipe(&place, 6, output).replace("scale = 2\n", &start);
        let text = if fit { text.replace("batch = 2\n", "batch = 4\nblurs = 2\n") } else { text };
        let text = text.replace("every = 5\n", "every = 5\nkernels = [\"gaussian:2.0\"]\n");
        text + "[degradation]\nkernels = \"gaussian\"\n"
    };
    place.train(&aware("first", ""), false, 99, 1).unwrap();
    let first = Weights::load(&place.path("first/best.safetensors")).unwrap();
    let (count, shared) = (first.parameters.len(), first.layout().shared());
    assert_eq!((first.info.passes, first.info.start, first.info.fit), (1, Start::LeastSquares, fit));
    assert_eq!(shared > 0, fit);
    // Both kinds of parameters were trained, but those that follow scale and noise, which are always the same here.
    let moved = first.parameters[shared..].iter().filter(|v| **v != 0.0).count();
    assert!(10 * moved >= 7 * (count - shared), "{moved} of {count}");

    let path = |name: &str| place.path(&format!("{name}/best.safetensors")).display().to_string();
    let second = format!("passes = 2\nearlier = \"{0}\"\ninitial = \"{0}\"\n", path("first"));
    place.train(&aware("second", &second), false, 99, 1).unwrap();
    let two = Weights::load(&place.path("second/best.safetensors")).unwrap();
    assert_eq!((two.info.passes, two.parameters.len()), (2, 2 * count - shared));
    assert_eq!(two.parameters[..count], first.parameters[..]);
    assert_ne!(two.parameters[count..], first.parameters[shared..]);

    // Interrupted, and from a file with more passes than are needed.
    let again = format!("passes = 2\nearlier = \"{}\"\ninitial = \"{}\"\n", path("second"), path("first"));
    assert_eq!(place.train(&aware("again", &again), false, 3, 1).unwrap(), Ending::Stopped(3));
    place.train(&aware("again", &again), true, 99, 2).unwrap();
    assert_eq!(Weights::load(&place.path("again/best.safetensors")).unwrap().parameters, two.parameters);

    // All passes at once: both move, and what they share, also when interrupted.
    let together = format!("{again}together = true\n");
    if fit {
        place.train(&aware("together", &together), false, 99, 1).unwrap();
        place.train(&aware("parts", &together), false, 3, 1).unwrap();
        place.train(&aware("parts", &together), true, 99, 1).unwrap();
        let moved = Weights::load(&place.path("together/last.safetensors")).unwrap().parameters;
        assert_eq!(Weights::load(&place.path("parts/last.safetensors")).unwrap().parameters, moved);
        assert_eq!(moved.len(), 2 * count - shared);
        let begun = [&first.parameters[..], &first.parameters[shared..]].concat();
        for part in [0..shared, shared..count, count..moved.len()] {
            assert_ne!(moved[part.clone()], begun[part]);
        }
    } else {
        let error = place.train(&aware("wrong", &together), false, 99, 1).unwrap_err().to_string();
        assert!(error.contains("[model] together"), "{error}");
    }

    let wrong = format!("passes = 3\nearlier = \"{}\"\n", path("first"));
    let error = place.train(&aware("wrong", &wrong), false, 99, 1).unwrap_err().to_string();
    assert!(error.contains("first/best.safetensors") && error.contains("at least 2"), "{error}");
}

/// All passes at once, on cells of pixels, with the gradient through the data steps.
#[test]
fn passes_are_trained_through_their_data_steps() {
    let place = Place::new();
    let through = |output: &str, more: &str| {
        let start = format!(
            "scale = 2\nfit = true\nstart = \"least-squares\"\ndownsample = \"direct\"\nthrough = true\n{more}"
        );
        let text = recipe(&place, 6, output).replace("scale = 2\n", &start).replace("3-8-8-3", "12-8-8-12");
        let text = text.replace("every = 5\n", "every = 5\nkernels = [\"gaussian:2.0\"]\n");
        text + "[degradation]\nkernels = \"gaussian\"\nnoise_share = 0.5\n"
    };
    place.train(&through("whole", "passes = 2\n"), false, 99, 1).unwrap();
    place.train(&through("parts", "passes = 2\n"), false, 3, 1).unwrap();
    place.train(&through("parts", "passes = 2\n"), true, 99, 2).unwrap();
    place.assert_same("whole", "parts");
    let weights = Weights::load(&place.path("whole/last.safetensors")).unwrap();
    let (layout, parameters) = (weights.layout(), &weights.parameters);
    assert_eq!((weights.info.passes, weights.architecture.cell(), parameters.len()), (2, 2, layout.count(2)));
    // How both passes follow the blur was learned (the scale, among the features, is always 0).
    for pass in 0..2 {
        let own = &layout.one(parameters, pass)[layout.shared()..];
        let moved = own.iter().filter(|v| **v != 0.0).count();
        assert!(10 * moved >= 7 * own.len(), "{moved} of {}", own.len());
    }
    // A pass more begins as the last one.
    let more = format!("passes = 3\ninitial = \"{}\"\n", place.path("whole/last.safetensors").display());
    place.train(&through("more", &more), false, 99, 1).unwrap();
    assert_eq!(Weights::load(&place.path("more/last.safetensors")).unwrap().info.passes, 3);
}

/// Layers' weights by orthogonal momentum: resumed it is the same, and it is another step than Adam's.
#[test]
fn orthogonal_momentum_resumes_exactly() {
    let place = Place::new();
    let muon = |output: &str| recipe(&place, 8, output).replace("clip = 0.1", "muon = true\nbetas = [0.95, 0.999]");
    place.train(&muon("whole"), false, 99, 1).unwrap();
    place.train(&muon("parts"), false, 3, 1).unwrap();
    place.train(&muon("parts"), true, 99, 2).unwrap();
    place.assert_same("whole", "parts");
    place.train(&muon("adam").replace("muon = true\n", ""), false, 99, 1).unwrap();
    let (ours, adam) = (place.checkpoint("whole").params, place.checkpoint("adam").params);
    let layers = "3-8-8-3".parse::<Architecture>().unwrap().layers();
    for layer in layers {
        let moved = |places: std::ops::Range<usize>| places.filter(|&i| ours[i] != adam[i]).count();
        // A ReLU that is never above zero leaves a few where they were.
        let (moved, all) = (moved(layer.weight_range()), layer.weight_range().len());
        assert!(10 * moved >= 9 * all, "{moved} of {all}");
    }
}

#[test]
fn training_brings_the_loss_down_and_its_weights_are_ours() {
    let place = Place::new();
    let text = recipe(&place, 150, "out").replace("rate = 1e-3", "rate = 4e-3").replace("every = 5", "every = 50");
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
    let text = recipe(&place, 6, "out");
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
    let text = recipe(&place, 40, "out")
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
    let good = recipe(&place, 4, "out");
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

#[test]
fn killed_at_any_moment_it_goes_on_as_if_nothing_had_been() {
    let place = Place::new();
    let steps = 240;
    let text = |output| recipe(&place, steps, output).replace("every = 5", "every = 20");
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
    let text = recipe(&place, 1_000_000, "out");
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
