//! `mzsr score` and `mzsr weights` as programs.

use std::path::Path;
use std::process::{Command, Output};

fn mzsr(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mzsr")).current_dir(folder).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn picture(path: &Path, height: u32, add: u32) {
    let value = |x: u32, y: u32| [(7 * x + y + add) as u8, (x * y) as u8, (y + add) as u8];
    image::RgbImage::from_fn(32, height, |x, y| image::Rgb(value(x, y))).save(path).unwrap();
}

#[test]
fn folders_are_scored_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["sr", "hr"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    picture(&at("sr/a.png"), 30, 0);
    picture(&at("hr/a.bmp"), 31, 0);
    picture(&at("sr/b.png"), 30, 0);
    picture(&at("hr/b.png"), 30, 1);
    let run = mzsr(folder.path(), &["score", "sr", "hr", "--json"]);
    assert_eq!((run.status.code(), err(&run).as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&out(&run)).unwrap();
    assert_eq!(json["images"][0], serde_json::json!({"name": "a", "psnr": null, "ssim": 1.0}));
    assert!(json["images"][1]["psnr"].as_f64().unwrap() > 20.0);
    assert!(json["mean"]["psnr"].is_null() && json["mean"]["ssim"].as_f64().unwrap() < 1.0);
    let run = mzsr(folder.path(), &["score", "sr/b.png", "hr/b.png", "-s", "2", "--preset", "rgb"]);
    assert!(out(&run).lines().nth(1).unwrap().starts_with("b  "), "{}", out(&run));

    picture(&at("sr/only.png"), 30, 0);
    std::fs::write(at("hr/broken.png"), b"not a picture").unwrap();
    picture(&at("sr/broken.png"), 30, 0);
    let run = mzsr(folder.path(), &["score", "sr", "hr"]);
    assert_eq!(run.status.code(), Some(3));
    assert!(out(&run).contains("inf") && out(&run).contains("mean"));
    assert!(err(&run).contains("only.png") && err(&run).contains("broken.png"), "{}", err(&run));
    picture(&at("hr/b.bmp"), 30, 1);
    for wrong in [["sr", "hr"], ["sr", "hr/a.bmp"], ["none", "hr/a.bmp"]] {
        let run = mzsr(folder.path(), &["score", wrong[0], wrong[1]]);
        assert_eq!((run.status.code(), err(&run).lines().count()), (Some(1), 1), "{}", err(&run));
    }
    assert_eq!(mzsr(folder.path(), &["score", "sr/b.png", "hr/b.png", "-s", "0.5"]).status.code(), Some(1));
}

#[test]
fn weights_are_converted_and_shown() {
    use mzsr::degrade::Downsample;
    use mzsr::network::Architecture;
    use mzsr::network::weights::{Blurs, Info, Weights};
    let folder = tempfile::tempdir().unwrap();
    let architecture = Architecture::new(vec![3, 2, 3]).unwrap();
    let parameters = vec![0.25; architecture.parameter_count()];
    let mut info = Info::new("first", [2.0, 2.0], Downsample::Bicubic, Blurs::Without);
    info.provenance = "line\nwith \u{1b}[31m".to_owned();
    Weights { architecture, parameters, info }.save(&folder.path().join("in.safetensors")).unwrap();
    let convert = ["weights", "convert", "in.safetensors", "out.safetensors", "--scale", "2..4", "--downsample"];
    let more = ["direct", "--kernels", "true", "--updates", "5", "--rates", "0.02,0.01", "--name", "second"];
    let run = mzsr(folder.path(), &[&convert[..], &more].concat());
    assert_eq!((run.status.code(), err(&run).as_str()), (Some(0), ""));
    let shown = out(&mzsr(folder.path(), &["weights", "show", "out.safetensors"]));
    for part in ["second", "3-2-3", "×2 to ×4, direct downsampling, with blur", "0.02, 0.01", "bicubic"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains('\u{1b}'));
    let run = mzsr(folder.path(), &["weights", "list"]);
    assert!(run.status.success() && !out(&run).is_empty());
    let average = ["weights", "average", "in.safetensors", "out.safetensors", "-o", "mean.safetensors"];
    let run = mzsr(folder.path(), &average);
    assert_eq!((run.status.code(), err(&run).as_str()), (Some(0), ""));
    let shown = out(&mzsr(folder.path(), &["weights", "show", "mean.safetensors"]));
    assert!(shown.contains("The mean of 2: (1) first: line") && shown.contains("(2) second: line"), "{shown}");
    for wrong in [
        &["weights", "average", "in.safetensors", "out.safetensors", "-o", "mean.index"][..],
        &["weights", "average", "in.safetensors", "kernel-direct-x2", "-o", "none.safetensors"],
        &["weights", "average", "in.safetensors", "nowhere", "-o", "none.safetensors"],
        &["weights", "show", "none"],
        &["weights", "convert", "in.safetensors", "out.index"],
        &["weights", "convert", "in.safetensors", "out.safetensors", "--scale", "9"],
        &["weights", "convert", "in.safetensors", "out.safetensors", "--rates", "0.1,-1"],
    ] {
        let run = mzsr(folder.path(), wrong);
        assert_eq!((run.status.code(), err(&run).lines().count()), (Some(1), 1), "{}", err(&run));
    }
}

#[test]
fn the_published_checkpoint_is_converted() {
    let Some(shared) = std::env::var_os("MZSR_SHARED") else {
        println!("skipped: MZSR_SHARED is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let input = Path::new(&shared).join("golden/tf_checkpoint/Pretrained");
    let convert = ["weights", "convert", input.to_str().unwrap(), "out.safetensors"];
    let run = mzsr(folder.path(), &convert);
    assert!(run.status.success() && err(&run).contains("not recorded"), "{}", err(&run));
    let run = mzsr(folder.path(), &[&convert[..], &["--scale", "2"]].concat());
    assert!(err(&run).contains("give both"), "{}", err(&run));
    let run = mzsr(folder.path(), &[&convert[..], &["--scale", "2", "--downsample", "bicubic"]].concat());
    assert_eq!((run.status.code(), err(&run).as_str()), (Some(0), ""));
    let shown = out(&mzsr(folder.path(), &["weights", "show", "out.safetensors"]));
    assert!(shown.contains("225091") && shown.contains("×2, bicubic downsampling, without blur"), "{shown}");
}
