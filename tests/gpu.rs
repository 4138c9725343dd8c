//! The program on a GPU, or on the system's software renderer. Without either: skipped.

use mzsr::image::Photo;
use std::path::Path;
use std::process::{Command, Output};

fn mzsr(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mzsr")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether there is anything to test on.
fn there() -> bool {
    let listed = mzsr(&["devices"]);
    assert!(listed.status.success());
    let listed = text(&listed.stdout);
    if !listed.contains("gpu:0") {
        println!("skipped: no adapter");
    }
    listed.contains("gpu:0")
}

fn picture(path: &Path, side: &str) {
    // The example photo, smaller, by the program itself.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example.png");
    let made = mzsr(&["degrade", example, "-o", path.to_str().unwrap(), "-s", side, "--kernel", "gaussian:1.0"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn a_photo_comes_out_as_from_the_processor() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    picture(&path("low.png"), "4");
    for how in [
        &["--weights", "mzsr-direct-x2", "-n", "1"][..],
        &["--weights", "kernel-direct-x2", "-n", "0"],
        // Its sons are larger than their cores, and there are several.
        &["--weights", "kernel-direct-x2", "-n", "2", "--adapt-pixels", "1000"],
        &["--method", "least-squares"],
        &["--method", "least-squares", "-s", "2.7"],
    ] {
        let pictures: Vec<Photo> = ["cpu", "gpu"]
            .into_iter()
            .map(|device| {
                let out = path(&format!("{device}.png"));
                let (input, output) = (path("low.png"), out.to_str().unwrap().to_owned());
                let flags = ["--kernel", "gaussian:2.0", "--device", device, "-v"];
                let made = mzsr(&[&["upscale", input.to_str().unwrap(), "-o", &output][..], &flags, how].concat());
                assert!(made.status.success(), "{}", text(&made.stderr));
                assert!(text(&made.stderr).contains(&format!("mzsr: {device}, ")), "{}", text(&made.stderr));
                Photo::read(&out).unwrap()
            })
            .collect();
        let [a, b] = [&pictures[0], &pictures[1]].map(|photo| photo.rgb::<f32>());
        let off = a.data.iter().zip(&b.data).map(|(a, b)| (255.0 * (a - b)).abs().round());
        assert_eq!(a.data.len(), b.data.len());
        let far = off.filter(|levels| *levels > 1.0).count();
        assert!(1000 * far <= a.data.len(), "{how:?}: {far} of {} values differ by more than a level", a.data.len());
    }
}

#[test]
fn devices_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (low, out) = (folder.path().join("low.png"), folder.path().join("out.png"));
    picture(&low, "4");
    let run = |device: &str| {
        mzsr(&["upscale", low.to_str().unwrap(), "-o", out.to_str().unwrap(), "-n", "0", "-v", "--device", device])
    };
    for device in ["gpu:99", "cuda"] {
        let made = run(device);
        let error = text(&made.stderr);
        assert!(!made.status.success() && error.contains(device) && !out.exists(), "{error}");
    }
    // By itself the program takes no software renderer, nor any GPU for so little.
    let made = run("auto");
    assert!(made.status.success() && text(&made.stderr).contains("mzsr: cpu, "), "{}", text(&made.stderr));
}
