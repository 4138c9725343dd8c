//! `mzsr eval` from the outside, on two small pictures made by code.

use mzsr::Raster;
use mzsr::image::{Format, Photo, PixelKind, WriteOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

const SUITE: &str = r#"
title = "Two small pictures"
paper = "kernels"
sets = ["Set5"]
pictures = 1

[[degradation]]
name = "g2.0 d"
scale = 2
kernel = "gaussian:2.0,size=7"

[[degradation]]
name = "odd"
scale = 1.7
kernel = "gaussian:0.8,size=5"

[[method]]
name = "Bicubic"
kind = "bicubic"

[[method]]
name = "Aligned cubic"
kind = "aligned"

[[method]]
name = "Least squares"
kind = "least-squares"

[[method]]
name = "MZSR({})"
kind = "mzsr"
weights = "bicubic-x2"
updates = [0, 1]
"#;

fn mzsr(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mzsr")).args(args).current_dir(folder).output().unwrap()
}

fn ok(args: &[&str], folder: &Path) -> String {
    let output = mzsr(args, folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn save(path: &Path, height: usize, width: usize, seed: usize) {
    let data = (0..height * width * 3)
        .map(|i| {
            let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
            let wave = ((x * x + seed * y) as f64 / 60.0).sin() * 60.0 + ((y * 3 + x * seed) as f64 / 9.0).cos() * 40.0;
            (128.0 + wave + 9.0 * c as f64) as f32 / 255.0
        })
        .collect();
    let mut photo = Photo::new(PixelKind::new(false, false, false), Format::Png, height, width);
    photo.put_rows(0, &Raster::from_vec(height, width, 3, data), None);
    photo.write(path, &WriteOptions::default()).unwrap();
}

/// A folder with a suite and DATA/Set5/{a,b}.png.
fn setup() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("data/Set5");
    std::fs::create_dir_all(&set).unwrap();
    save(&set.join("a.png"), 61, 52, 2);
    save(&set.join("b.png"), 48, 64, 3);
    std::fs::write(folder.path().join("small.toml"), SUITE).unwrap();
    folder
}

/// The reports and the cells in `out`, by name.
fn files(folder: &Path, out: &str) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let out = folder.join(out);
    let mut all = BTreeMap::new();
    for place in [out.clone(), out.join("cache")] {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let time = path.metadata().unwrap().modified().unwrap();
                let name = path.strip_prefix(&out).unwrap().display().to_string();
                all.insert(name, (std::fs::read(&path).unwrap(), time));
            }
        }
    }
    all
}

/// JSON without what a clock had a hand in.
fn timeless(bytes: &[u8]) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("seconds");
                map.values_mut().for_each(strip);
            }
            Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(bytes).unwrap();
    strip(&mut value);
    value
}

const RUN: [&str; 5] = ["eval", "small.toml", "--data", "data", "-o"];

fn with<'a>(out: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], &[out], rest].concat()
}

#[test]
fn interrupted_extended_and_repeated_runs_agree() {
    let folder = setup();
    let folder = folder.path();
    let table = ok(&with("whole", &[]), folder);
    assert!(table.contains("Set5") && table.contains("MZSR(1)") && table.contains("difference"), "{table}");
    let whole = files(folder, "whole");
    // 2 pictures × 2 degradations × 5 methods, and four reports.
    assert_eq!(whole.len(), 20 + 4);

    // As if interrupted after a method and a column; then the rest.
    ok(&with("parts", &["--method", "Bicubic"]), folder);
    ok(&with("parts", &["--resume", "--degradation", "odd"]), folder);
    let before = files(folder, "parts");
    let resumed = ok(&with("parts", &["--resume"]), folder);
    let parts = files(folder, "parts");
    assert_eq!(parts.len(), whole.len());
    for (name, (_, time)) in before.iter().filter(|(name, _)| name.starts_with("cache")) {
        assert_eq!(parts[name].1, *time, "{name} was computed again");
    }
    for (name, (bytes, _)) in whole.iter().filter(|(name, _)| name.ends_with(".json")) {
        assert_eq!(timeless(bytes), timeless(&parts[name].0), "{name}");
    }

    // Nothing is left to compute: the same bytes, times included.
    assert_eq!(ok(&with("parts", &["--resume"]), folder), resumed);
    let again = files(folder, "parts");
    for (name, (bytes, _)) in &parts {
        assert_eq!(*bytes, again[name].0, "{name}");
    }
    let html = String::from_utf8(again["small.html"].0.clone()).unwrap();
    assert!(html.contains("class=\"kernel\"") && html.matches("<figure>").count() == 2 * (2 + 5), "pictures");
    assert!(!html.contains("http"), "the report needs nothing from elsewhere");
}

#[test]
fn the_cells_are_those_of_the_other_commands() {
    let folder = setup();
    let folder = folder.path();
    ok(&with("out", &["--degradation", "g2.0 d", "--threads", "1"]), folder);
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("out/small.json")).unwrap()).unwrap();
    let blur = ["--kernel", "gaussian:2.0,size=7", "-s", "2", "-q"];
    ok(&[&["degrade", "data/Set5", "-o", "low/", "--crop"], &blur[..]].concat(), folder);
    for (method, flags) in [
        ("Bicubic", vec!["--method", "bicubic"]),
        ("Least squares", vec!["--method", "least-squares"]),
        ("MZSR(1)", vec!["--weights", "bicubic-x2", "-n", "1"]),
    ] {
        ok(&[&["upscale", "low", "-o", "high/"], &blur[..], &flags[..]].concat(), folder);
        let scores: Value =
            serde_json::from_str(&ok(&["score", "high", "data/Set5", "-s", "2", "--json"], folder)).unwrap();
        let means = report["means"].as_array().unwrap();
        let mean = means.iter().find(|mean| mean["method"] == method).unwrap();
        for key in ["psnr", "ssim"] {
            let (ours, theirs) = (mean[key].as_f64().unwrap(), scores["mean"][key].as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-9, "{method} {key} {ours} {theirs}");
        }
    }
}

#[test]
fn a_broken_picture_does_not_stop_the_rest() {
    let folder = setup();
    let folder = folder.path();
    std::fs::write(folder.join("data/Set5/c.png"), b"no picture").unwrap();
    let output = mzsr(&with("out", &["--method", "Bicubic"]), folder);
    assert_eq!(output.status.code(), Some(3));
    let (said, table) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("c.png") && table.contains("* 2 of 6 cells failed"), "{said}{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("out/small.json")).unwrap()).unwrap();
    assert_eq!((report["means"][0]["pictures"].as_u64(), report["means"][0]["failed"].as_u64()), (Some(2), Some(1)));
}

#[test]
fn pictures_without_truth_get_a_consistency() {
    let folder = setup();
    let folder = folder.path();
    let suite = SUITE.replace("paper = \"kernels\"", "ground_truth = false");
    std::fs::write(folder.join("small.toml"), suite).unwrap();
    let table = ok(&with("out", &[]), folder);
    assert!(table.contains("no truth"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("out/small.json")).unwrap()).unwrap();
    let off = |method: &str| {
        let means = report["means"].as_array().unwrap();
        let mean = means.iter().find(|mean| mean["method"] == method).unwrap();
        assert!(mean["psnr"].is_null());
        mean["consistency"].as_f64().unwrap()
    };
    assert!(off("Least squares") < 0.5 * off("Aligned cubic"), "{} {}", off("Least squares"), off("Aligned cubic"));
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let folder = setup();
    let folder = folder.path();
    let write = |text: &str| std::fs::write(folder.join("small.toml"), text).unwrap();
    let said = |args: &[&str]| {
        let output = mzsr(args, folder);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    };
    let line = said(&with("out", &["--method", "Magic"]));
    assert!(line.contains("--method Magic is not in this suite: Bicubic, "), "{line}");
    let line = said(&with("out", &["--degradation", "g9"]));
    assert!(line.contains("--degradation g9"), "{line}");
    let line = said(&with("out", &["--set", "Set14"]));
    assert!(line.contains("Set14/*.png") && line.contains("--data"), "{line}");
    assert!(said(&["eval", "none.toml"]).contains("none.toml"));
    write(&SUITE.replace("pictures = 1", "picture = 1"));
    let line = said(&with("out", &[]));
    assert!(line.contains("small.toml: line 5: unknown field `picture`"), "{line}");
    write(&SUITE.replace("kind = \"aligned\"", "kind = \"swinir\""));
    let line = said(&with("out", &[]));
    assert!(line.contains("method 'Aligned cubic': kind 'swinir' is not known"), "{line}");
    write(&SUITE.replace("kind = \"aligned\"", "kind = \"onnx:none.onnx\""));
    let line = said(&with("out", &[]));
    assert!(line.contains("none.onnx") && line.contains("--models"), "{line}");
    write(&SUITE.replace("\"bicubic-x2\"", "\"no-such\""));
    let line = said(&with("out", &[]));
    assert!(line.contains("no-such"), "{line}");
    // Fine-tuning knows one pass from the bicubic start only.
    write(&SUITE.replace("kind = \"aligned\"", "kind = \"fine-tune\"\nweights = \"kernel-direct-x2\"\nsteps = 2"));
    let line = said(&with("out", &[]));
    assert!(line.contains("kernel-direct-x2") && line.contains("bicubic start"), "{line}");
}

#[test]
fn optional_methods_are_left_out_with_a_note() {
    let folder = setup();
    let folder = folder.path();
    let suite = SUITE.replace("kind = \"aligned\"", "kind = \"onnx:none.onnx\"\noptional = true");
    std::fs::write(folder.join("small.toml"), suite).unwrap();
    let output = mzsr(&with("out", &["--degradation", "odd"]), folder);
    assert!(output.status.success());
    let (said, table) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("Aligned cubic: left out") && !table.contains("Aligned cubic"), "{said}{table}");
}

/// Every suite that is here can be read, and its kinds are known.
#[test]
fn our_suites_are_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            mzsr::eval::Suite::read(&path).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, 8);
}
