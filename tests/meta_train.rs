//! `mzsr meta-train`: what it trains, and that no interruption changes it.

mod training;

use mzsr::network::weights::{Blurs, Weights};
use mzsr::train::Ending;
use training::{Place, said, wait_for};

fn recipe(place: &Place, steps: u64, output: &str) -> String {
    format!(
        "steps = {steps}\nseed = 5\n\
         [model]\nname = \"trial\"\nscale = 2\ndownsample = \"direct\"\narchitecture = \"3-8-8-3\"\n\
         [data]\nphotos = [\"train\"]\npatch = 16\n\
         [degradation]\nkernels = \"gaussian\"\nsize = 7\n\
         [optimiser]\nrate = 1e-3\nschedule = \"constant\"\nwarm_up = 3\nclip = 0.1\nema = 0.9\n\
         [meta]\ntasks = 2\ntrain = 2\ntest = 1\nupdates = 2\nrate = 0.02\nlearn = 0.05\n\
         [validation]\nphotos = [\"valid\"]\nevery = 5\nkernels = [\"gaussian:1.5\", \"gaussian:3\"]\n\
         updates = [0, 1, 3]\nscore = [1, 3]\nfinal_on_all = true\n\
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
    for (from, to, key) in [
        ("learn = 0.05", "learn = 0.06", "meta.learn"),
        ("train = 2", "train = 1", "meta.train"),
        ("updates = 2", "updates = 3", "meta.updates"),
        ("score = [1, 3]", "score = [1]", "validation.score"),
    ] {
        let error = place.train(&text.replace(from, to), true, 99, 1).unwrap_err().to_string();
        assert!(error.contains(key) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn weights_hold_the_learned_rates_and_the_log_the_scores() {
    let place = Place::new();
    let text = recipe(&place, 10, "out");
    place.train(&text, false, 99, 1).unwrap();
    let weights = Weights::load(&place.path("out/best.safetensors")).unwrap();
    let info = &weights.info;
    assert_eq!((info.updates, info.kernels, info.recipe == text), (Some(2), Blurs::With, true));
    assert!(info.provenance.contains("meta-train"), "{}", info.provenance);
    let rates = &info.rates;
    assert!(rates.len() > 2 && rates.iter().all(|row| row.len() == 3));
    assert!(rates[0].iter().any(|rate| (rate - 0.02).abs() > 1e-4) && rates[0][0] != rates[0][1], "{rates:?}");
    // Beyond the trained updates each row is half of the one before it.
    assert!((1..rates.len() - 1).all(|k| (rates[k + 1][1] - 0.5 * rates[k][1]).abs() < 1e-12), "{rates:?}");

    let log = place.log("out");
    let judged: Vec<_> = log.iter().filter(|line| line["validation"].is_f64()).collect();
    assert_eq!(judged.len(), 3);
    for line in &judged {
        let mean = |i: usize| line["means"][i][1].as_f64().unwrap();
        assert_eq!((line["means"].as_array().unwrap().len(), line["cases"].as_array().unwrap().len()), (3, 6));
        // Of the numbers of updates that count.
        assert!((line["validation"].as_f64().unwrap() - 0.5 * (mean(1) + mean(2))).abs() < 1e-12);
        assert_eq!(line["cases"][2][0], "gaussian:1.5 x2 n1");
    }
    assert_eq!(judged[0]["rates"].as_array().unwrap().len(), 2);
}

/// The loss after the updates falls, and with it what updates bring on photos that were not seen.
#[test]
fn it_learns_to_learn() {
    let place = Place::new();
    let text = recipe(&place, 150, "out").replace("rate = 1e-3", "rate = 4e-3").replace("every = 5", "every = 150");
    place.train(&text, false, 999, 1).unwrap();
    let log = place.log("out");
    let losses: Vec<f64> = log.iter().filter_map(|line| line["loss"].as_f64()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[losses.len() - 10..]) < 0.95 * mean(&losses[..5]), "{losses:?}");
    let judged = log.iter().find(|line| line["validation"].is_f64()).unwrap();
    let mean = |i: usize| judged["means"][i][1].as_f64().unwrap();
    assert!(mean(1) > mean(0), "{judged}");
}

#[test]
fn first_order_and_fixed_rates_train_too() {
    let place = Place::new();
    let text = recipe(&place, 4, "out").replace("learn = 0.05", "order = 1\nweights = [0.5, 0.5]\ntail = 1.0");
    place.train(&text, false, 99, 1).unwrap();
    let weights = Weights::load(&place.path("out/last.safetensors")).unwrap();
    assert!(weights.info.rates.iter().flatten().all(|rate| *rate == 0.02));
    let exact = recipe(&place, 4, "exact").replace("learn = 0.05", "weights = [0.5, 0.5]");
    place.train(&exact, false, 99, 1).unwrap();
    assert_ne!(place.checkpoint("exact").params, place.checkpoint("out").params);
}

#[test]
fn each_command_refuses_the_others_recipe_and_bad_keys() {
    let place = Place::new();
    let good = recipe(&place, 4, "out");
    let refused = |text: &str, wanted: &str| {
        let output = place.run(text, &[]);
        let said = said(&output);
        assert_eq!(
            (output.status.code(), said.lines().filter(|line| line.starts_with("mzsr: ")).count()),
            (Some(1), 1)
        );
        assert!(said.contains(wanted) && !place.path("out").exists(), "{wanted}: {said}");
    };
    refused(&good.replace("tasks = 2", "taks = 2"), "`taks`");
    refused(&good.replace("updates = 2", "updates = 0"), "[meta] updates");
    refused(&good.replace("patch = 16", "patch = 16\nbatch = 2"), "[data] batch");
    let error = |text: &str, training: mzsr::Result<Ending>| {
        let error = training.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    let engine = mzsr::engine::cpu::CpuEngine::new(Some(1)).unwrap();
    let meta = mzsr::train::Recipe::parse(&good).unwrap();
    let options = mzsr::train::Options { data: place.path(""), ..Default::default() };
    error("meta-train", mzsr::train::pretrain(&engine, &meta, &good, &options, &mut |_| {}));
    let mut plain = meta.clone();
    (plain.meta, plain.data.batch, plain.validation) = (None, 1, None);
    error("pretrain", mzsr::train::meta_train(&engine, &plain, &good, &options, &mut |_| {}));
}

#[test]
fn killed_at_any_moment_it_goes_on_as_if_nothing_had_been() {
    let place = Place::new();
    let text = |output| recipe(&place, 160, output).replace("every = 5", "every = 40");
    let whole = place.run(&text("whole"), &["--threads", "1"]);
    assert!(whole.status.success(), "{}", said(&whole));
    let killed = text("killed");
    for (round, step) in [30, 90].into_iter().enumerate() {
        let flags: &[&str] = if round == 0 { &["--threads", "2"] } else { &["--resume", "--feeders", "2"] };
        let mut child = place.command(&killed, flags).spawn().unwrap();
        wait_for(&place, "killed", step, &mut child);
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    let rest = place.run(&killed, &["--resume"]);
    assert!(rest.status.success() && said(&rest).contains("going on after step"), "{}", said(&rest));
    place.assert_same("whole", "killed");
}
