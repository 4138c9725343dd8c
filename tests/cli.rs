//! The program as a user meets it: files in, files out, exit status, what it says.

use mzsr::degrade::Downsample;
use mzsr::image::{Format, Photo, PixelKind, WriteOptions};
use mzsr::network::Architecture;
use mzsr::network::weights::{Blurs, Info, Weights};
use mzsr::{Raster, kernel::Kernel};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder to work in, with small weights in it.
struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Room {
        let room = Room { folder: tempfile::tempdir().unwrap() };
        weights(0.02).save(&room.path("w.safetensors")).unwrap();
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `mzsr` here; words are separated by spaces.
    fn run(&self, line: &str) -> Ran {
        self.piped(line, b"")
    }

    fn piped(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self.command(line).spawn().unwrap();
        // A program that does not want its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::of(child.wait_with_output().unwrap())
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mzsr"));
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it and expects status 0.
    fn done(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.status, 0, "{line}: {}", ran.said);
        ran
    }

    /// Runs it and expects one line that contains `what`, and status 1.
    fn refused(&self, line: &str, what: &str) {
        let ran = self.run(line);
        assert_eq!(ran.status, 1, "{line}: {}", ran.said);
        assert!(ran.said.starts_with("mzsr: ") && ran.said.lines().count() == 1, "{line}: {}", ran.said);
        assert!(ran.said.contains(what), "{line}: {}", ran.said);
    }

    fn read(&self, name: &str) -> Photo {
        Photo::read(&self.path(name)).unwrap()
    }

    /// Names in the folder, hidden ones too.
    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

struct Ran {
    status: i32,
    said: String,
    out: Vec<u8>,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        Ran { status: output.status.code().unwrap(), said, out: output.stdout }
    }
}

fn weights(size: f32) -> Weights {
    let architecture = Architecture::new(vec![3, 8, 8, 3]).unwrap();
    let parameters =
        (0..architecture.parameter_count()).map(|i| size * ((i * 7919 % 1000) as f32 / 500.0 - 1.0)).collect();
    Weights { architecture, parameters, info: Info::new("small", [2.0, 2.0], Downsample::Bicubic, Blurs::Without) }
}

/// Waves, of any kind; alpha falls from left to right.
fn photo(kind: PixelKind, height: usize, width: usize) -> Photo {
    let mut photo = Photo::new(kind, Format::Png, height, width);
    let wave = |i: usize| {
        let (y, x, c) = ((i / 3 / width) as f32, (i / 3 % width) as f32, (i % 3) as f32);
        0.5 + 0.25 * (0.9 * x + 0.3 * y).sin() + 0.2 * (0.5 * y - 0.2 * x + c).cos()
    };
    let colours = Raster::from_vec(height, width, 3, (0..height * width * 3).map(wave).collect());
    let fall = |i: usize| 1.0 - (i % width) as f32 / width as f32;
    let alpha = Raster::from_vec(height, width, 1, (0..height * width).map(fall).collect());
    photo.put_rows(0, &colours, Some(&alpha));
    photo
}

const RGB: PixelKind = PixelKind::new(false, false, false);

fn put(room: &Room, name: &str, kind: PixelKind, height: usize, width: usize) {
    photo(kind, height, width).write(&room.path(name), &WriteOptions::default()).unwrap();
}

#[test]
fn every_kind_and_size_keeps_its_kind() {
    let room = Room::new();
    for (i, kind) in PixelKind::all().enumerate() {
        put(&room, "in.png", kind, 9 + i, 14 - i);
        room.done("upscale in.png -o out.png --weights w.safetensors -n 1");
        let made = room.read("out.png");
        assert_eq!((made.kind(), made.height(), made.width()), (kind, 18 + 2 * i, 28 - 2 * i));
    }
    for (height, width) in [(1, 1), (3, 5), (1, 20)] {
        put(&room, "in.png", RGB, height, width);
        for scale in ["1", "1.5", "2.7", "4"] {
            room.done(&format!("upscale in.png -o out.tif --weights w.safetensors -n 2 -s {scale}"));
            let (made, scale) = (room.read("out.tif"), scale.parse::<f64>().unwrap());
            let side = |size: usize| (size as f64 * scale).round() as usize;
            assert_eq!((made.height(), made.width()), (side(height), side(width)));
        }
    }
    for name in ["out.jpg", "out.webp", "out.bmp"] {
        room.done(&format!("upscale in.png -o {name} --weights w.safetensors -n 0"));
        assert_eq!(room.read(name).format(), Format::of_path(Path::new(name)).unwrap());
    }
    assert_eq!(room.names("."), ["in.png", "out.bmp", "out.jpg", "out.png", "out.tif", "out.webp", "w.safetensors"]);
}

#[test]
fn what_overflows_or_would_never_end_is_refused() {
    let room = Room::new();
    put(&room, "in.png", RGB, 20, 24);
    let mut huge = Weights::load(&room.path("w.safetensors")).unwrap();
    huge.parameters.iter_mut().for_each(|value| *value *= 1e30);
    huge.save(&room.path("huge.safetensors")).unwrap();
    for level in ["baseline", "avx2", "avx512", "neon"] {
        let mut command = room.command("upscale in.png -o out.png --weights huge.safetensors -n 0 -q");
        let ran = Ran::of(command.env("MZSR_CPU", level).output().unwrap());
        // Or this processor does not have it.
        let good = ran.said.contains("not finite, nothing was written") || ran.said.contains("MZSR_CPU");
        assert!(ran.status == 1 && good, "{level} {}", ran.said);
    }
    room.refused("upscale in.png -o out.png --weights w.safetensors -n 99999999999", "-n 99999999999: at most 1000000");
    // The folder that was made for results is not left behind without any.
    fs::write(room.path("no.png"), b"no picture").unwrap();
    room.refused("upscale no.png -o folder/ -n 0", "no.png");
    assert_eq!(room.names("."), ["huge.safetensors", "in.png", "no.png", "w.safetensors"]);
    // Flags that would do nothing are refused or named.
    for (flags, word) in [
        ("--method bicubic --lambda 0.1", "--lambda is for"),
        ("--method aligned --adapt-pixels 100", "--adapt-pixels is for"),
        ("--weights w.safetensors -n 0 --rates 0.1", "--rates has no effect"),
        ("--weights w.safetensors -n 0 --lambda 0.1", "--lambda has no effect"),
    ] {
        let said = room.run(&format!("upscale in.png -o other.png {flags}")).said;
        assert!(said.contains(word), "{flags}: {said}");
    }
}

#[test]
fn what_is_assumed_and_done_is_said() {
    let room = Room::new();
    put(&room, "in.png", RGB, 20, 24);
    let said = |flags: &str| room.done(&format!("upscale in.png -o out.png --weights w.safetensors {flags}")).said;
    assert_eq!(said("-n 3"), "mzsr: ×2: kernel none, bicubic downsampling; weights small, 3 updates\n");
    assert!(said("").contains("10 updates"));
    assert!(said("-n 0").contains("nothing adapted"));
    assert_eq!(said("-n 1 -q"), "");
    let verdict = said("-n 2 -v");
    assert!(verdict.contains("24 × 20 to 48 × 40, 2 updates on 480 pixels, the son's loss"), "{verdict}");
    assert!(said("-n 0 -v").contains("24 × 20 to 48 × 40, nothing adapted"));
    let wild = said("-n 2 -v --rates 1e9");
    assert!(wild.contains("raised the son's loss") && wild.contains("nothing was adapted"), "{wild}");
    // Weights for something else are never used silently.
    for flags in ["-n 0 -s 3", "-n 0 --kernel gaussian:1", "-n 0 -q -s 3"] {
        assert!(said(flags).contains("warning: weights 'small' were trained for ×2, bicubic downsampling"), "{flags}");
    }
    for (flags, warned) in [
        ("-n 0 --phase centre", "--phase centre changes nothing"),
        ("-n 0 --kernel gaussian:2 --downsample bicubic --phase centre", "--phase centre changes nothing"),
        ("-n 0 --kernel-convention convolve", "there is no kernel"),
        ("-n 0 --centre-kernel", "there is no kernel"),
    ] {
        assert!(said(flags).contains(warned), "{flags}");
    }
    let kernel = said("-n 0 -v --kernel gaussian:4,1,-0.5 --phase centre");
    assert!(kernel.contains("direct downsampling, phase centre") && kernel.contains("second moments"), "{kernel}");
    let plain = said("-n 3 --progress plain");
    assert!(plain.contains("in.png: 100 %"), "{plain}");
    let json = said("-n 3 -q --progress json");
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last, serde_json::json!({"file": "in.png", "progress": 1.0}));
}

#[test]
fn what_is_wrong_is_one_line_and_nothing_is_lost() {
    let room = Room::new();
    put(&room, "in.png", RGB, 20, 24);
    let bytes = fs::read(room.path("in.png")).unwrap();
    fs::write(room.path("broken.png"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(room.path("empty.png"), b"").unwrap();
    fs::write(room.path("text.png"), b"no picture").unwrap();
    fs::write(room.path("negative.txt"), b"-1 -1\n-1 -1\n").unwrap();
    fs::create_dir(room.path("bare")).unwrap();
    put(&room, "tall.png", RGB, 20_000, 1);
    let before = room.names(".");
    for (line, what) in [
        ("upscale missing.png -o out.png", "missing.png"),
        ("upscale broken.png -o out.png", "broken.png: cannot be read as PNG"),
        ("upscale empty.png -o out.png", "empty.png: is empty"),
        ("upscale text.png -o out.png", "convert it"),
        ("upscale bare -o out", "bare: no PNG"),
        ("upscale in.png -o in.png", "would be overwritten"),
        ("upscale in.png -o out.gif", ".png, .jpg"),
        ("upscale in.png -o none/out.png", "make it first"),
        ("upscale in.png text.png -o out.png", "folder"),
        ("upscale in.png text.png -o -", "folder"),
        ("upscale tall.png -o out.webp", "16384"),
        ("upscale in.png -o out.png -s 0.5", "--scale 0.5"),
        ("upscale in.png -o out.png -s -2", "--scale -2"),
        ("upscale in.png -o out.png -s nan", "--scale NaN"),
        ("upscale in.png -o out.png --threads 0", "--threads 0"),
        ("upscale in.png -o out.png --threads 1000000", "--threads 1000000"),
        ("upscale in.png -o out.png --memory 0", "--memory 0"),
        ("upscale in.png -o out.png --memory -1", "--memory -1"),
        ("upscale in.png -o out.png --adapt-pixels 1", "-n 0"),
        ("upscale in.png -o out.png --rates 0.1,-1", "--rates"),
        ("upscale in.png -o out.png --downsample direct", "--kernel"),
        ("upscale in.png -o out.png --kernel gaussian:x", "gaussian:x"),
        ("upscale in.png -o out.png --kernel none.mat", "none.mat"),
        ("upscale in.png -o out.png --kernel negative.txt", "negative.txt"),
        ("upscale in.png -o out.png --weights text.png", "text.png"),
    ] {
        let weights = if line.contains("--weights") { "" } else { "--weights w.safetensors" };
        room.refused(&format!("{line} {weights}"), what);
    }
    room.refused("upscale in.png -o out.png --weights none-such", "none-such");
    room.refused("upscale in.png -o out.png --method bicubic -n 3", "-n is for --method mzsr");
    room.refused("upscale in.png -o out.png --method aligned --ensemble", "--ensemble is for --method mzsr");
    room.refused("degrade in.png -o out.png -s 5", "--scale 5");
    room.refused("degrade in.png -o out.png -s 2 --noise -1", "--noise -1");
    room.refused("degrade in.png -o none/out.png -s 2", "make it first");
    room.refused("kernel make none -o k.mat", "gaussian:2.0");
    room.refused("kernel make gaussian:2 -o none/k.mat", "none/k.mat: its folder does not exist");
    room.refused("weights convert w.safetensors none/w.safetensors", "its folder does not exist");
    room.refused("weights show in.png", "in.png");
    room.refused("pretrain in.png", "a recipe is TOML");
    room.refused("score in.png missing.png", "missing.png");
    let large = room.run("upscale in.png -o out.png --weights w.safetensors --kernel gaussian:2,size=31");
    assert!(large.status == 1 && large.said.contains("larger than the image"), "{}", large.said);
    for line in
        ["", "frobnicate", "upscale in.png", "upscale in.png -o out.png -n x", "upscale in.png -o out.png -q -v"]
    {
        assert_eq!(room.run(line).status, 2, "{line}");
    }
    assert_eq!(room.names("."), before);
    assert_eq!(fs::read(room.path("in.png")).unwrap(), bytes);
}

#[test]
fn one_broken_photo_does_not_stop_the_rest() {
    let room = Room::new();
    fs::create_dir(room.path("photos")).unwrap();
    put(&room, "photos/a.png", RGB, 19, 18);
    put(&room, "photos/c.webp", RGB, 18, 19);
    fs::write(room.path("photos/b.png"), b"no picture").unwrap();
    fs::write(room.path("photos/notes.txt"), b"no photo at all").unwrap();
    let ran = room.run("upscale photos -o large --weights w.safetensors -n 1");
    assert_eq!(ran.status, 3, "{}", ran.said);
    assert_eq!(ran.said.lines().last().unwrap(), "mzsr: 1 of 3 inputs failed: photos/b.png");
    assert_eq!(room.names("large"), ["a.png", "c.webp"]);
    assert_eq!(room.read("large/c.webp").width(), 38);
    let ran = room.run("degrade photos/b.png photos/notes.txt -o small -s 2");
    assert!(ran.status == 1 && !room.path("small").exists(), "{}", ran.said);
    let ran = room.run("degrade photos -o small -s 2");
    assert_eq!((ran.status, room.names("small").len()), (3, 2), "{}", ran.said);
    assert_eq!(room.run("score large photos").status, 3);
}

#[test]
fn pipes() {
    let room = Room::new();
    put(&room, "in.jpg", RGB, 20, 24);
    let bytes = fs::read(room.path("in.jpg")).unwrap();
    let ran = room.piped("upscale - -o - --weights w.safetensors -n 1", &bytes);
    let made = Photo::decode(&ran.out).unwrap();
    assert_eq!((ran.status, made.format(), made.width()), (0, Format::Jpeg, 48), "{}", ran.said);
    let ran = room.piped("degrade - -o small.png -s 2", &bytes);
    assert_eq!((ran.status, room.read("small.png").width()), (0, 12), "{}", ran.said);
    room.refused("degrade - -o small.png -s 2", "standard input: is empty");
    room.refused("degrade - in.jpg -o small -s 2", "stdin");

    // Nobody reads: one line, no panic.
    let mut child = room.command("degrade in.jpg -o - -s 1").spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(ran.status == 1 && ran.said.lines().count() == 1, "{}", ran.said);
    assert!(ran.said.contains("standard output"), "{}", ran.said);
    let mut child = room.command("kernel show gaussian:2").spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).status, 0);
}

#[test]
fn threads_and_memory_change_no_bit() {
    let room = Room::new();
    put(&room, "in.png", RGB, 150, 170);
    let flags = "upscale in.png --weights w.safetensors -n 0";
    room.done(&format!("{flags} -o one.png --threads 1"));
    room.done(&format!("{flags} -o three.png --threads 3"));
    let refused = room.run(&format!("{flags} -o tiles.png --memory 0.001"));
    assert_eq!(refused.status, 1);
    let enough = refused.said.trim().rsplit(' ').next().unwrap().to_owned();
    room.done(&format!("{flags} -o tiles.png --memory {enough}"));
    let read = |name: &str| fs::read(room.path(name)).unwrap();
    assert!(read("one.png") == read("three.png") && read("one.png") == read("tiles.png"));
    let said = room.done(&format!("{flags} -n 1 -o part.png --adapt-pixels 5000 -v").replace("-n 0 ", "")).said;
    let pixels = said.split(" update on ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((2500..=5000).contains(&pixels.parse::<usize>().unwrap()), "{said}");
}

#[test]
fn a_known_blur_is_undone_on_the_aligned_grid() {
    let room = Room::new();
    put(&room, "large.png", RGB, 60, 64);
    room.done("degrade large.png -o small.png -s 2 --kernel gaussian:0.6");
    let psnr = |flags: &str| {
        room.done(&format!("upscale small.png -o out.png --kernel gaussian:0.6 -q {flags}"));
        let table = room.done("score out.png large.png -s 2 --json").out;
        let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
        table["mean"]["psnr"].as_f64().unwrap()
    };
    let (bicubic, aligned) = (psnr("--method bicubic"), psnr("--method aligned"));
    let back = psnr("--method aligned --back-project 4");
    assert!(aligned > bicubic + 3.0 && back > aligned, "{bicubic} {aligned} {back}");
    // Weights of zero give the cubic upscale, and every turn of it the same.
    weights(0.0).save(&room.path("zero.safetensors")).unwrap();
    let zero = psnr("--weights zero.safetensors -n 0");
    assert!((zero - bicubic).abs() < 1e-9, "{zero} {bicubic}");
    let ensemble = psnr("--weights zero.safetensors -n 0 --phase centre --ensemble");
    assert!((ensemble - bicubic).abs() < 1e-2, "{ensemble} {bicubic}");
}

/// With solves a blur that is too wide for the photo is made narrower, and the photo is trusted less where no
/// narrower one does, or where it was a JPEG.
#[test]
fn what_the_kernel_cannot_explain_is_handled_with_care() {
    let room = Room::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/example.png");
    fs::copy(example, room.path("high.png")).unwrap();
    room.done("degrade high.png -o low.png -s 2 --kernel gaussian:1.2");
    room.done("degrade high.png -o low.jpg -s 2 --kernel gaussian:1.2 --quality 75");
    let lambda = |low: &str, more: &str| {
        let said = room.done(&format!("upscale {low} -o out.png -n 0 -v {more}")).said;
        let from = said.split("lambda ").nth(1).unwrap_or_else(|| panic!("{said}"));
        (from.split([',', ' ']).next().unwrap().parse::<f64>().unwrap(), said)
    };
    let psnr = || {
        let score = String::from_utf8(room.done("score out.png high.png -s 2 --json").out).unwrap();
        let score: serde_json::Value = serde_json::from_str(&score).unwrap();
        score["mean"]["psnr"].as_f64().unwrap()
    };
    let (right, said) = lambda("low.png", "--kernel gaussian:1.2");
    assert!(!said.contains("times") && !said.contains("explain") && !said.contains("warning"), "{said}");
    let best = psnr();
    // A third too wide.
    let (less, said) = lambda("low.png", "--kernel gaussian:2.2");
    assert!(less == right && said.contains("a narrower --kernel may do better"), "{said}");
    let factor: f64 = said.split("the blur ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((0.6..0.9).contains(&factor), "{said}");
    let narrowed = psnr();
    room.done("upscale low.png -o out.png -n 0 --kernel gaussian:2.2 --lambda 0.001");
    let given = psnr();
    assert!(best - narrowed < 0.5 * (best - given), "{best} {narrowed} {given}");
    assert!(room.done("upscale low.png -o out.png -n 0 --kernel gaussian:2.2 -q").said.is_empty());
    // So wide that no narrower one that is tried does: by so much less as is said.
    let (wide, said) = lambda("low.png", "--kernel gaussian:8");
    let times: f64 = said.split(" times what").next().unwrap().rsplit('(').next().unwrap().parse().unwrap();
    assert!(times >= 10.0 && (wide / right - times).abs() < 0.02 * times, "{right} {wide} {said}");
    assert!(said.contains("does not explain"), "{said}");
    let (given, said) = lambda("low.png", "--kernel gaussian:3.5 --lambda 0.002");
    assert!(given == 0.002 && !said.contains("times"), "{said}");
    let (compressed, _) = lambda("low.jpg", "--kernel gaussian:1.2");
    assert!(compressed > 20.0 * right, "{right} {compressed}");
}

#[test]
fn kernels_are_made_shown_and_used_alike() {
    let room = Room::new();
    put(&room, "in.png", RGB, 20, 24);
    let small = |kernel: &str| {
        room.done(&format!("degrade in.png -o small.png -s 2 --kernel {kernel}"));
        fs::read(room.path("small.png")).unwrap()
    };
    let want = small("gaussian:4,1,-0.5");
    for name in ["k.mat", "k.npy", "k.txt"] {
        room.done(&format!("kernel make gaussian:4,1,-0.5 -o {name}"));
        assert_eq!(small(name), want, "{name}");
        let shown = String::from_utf8(room.done(&format!("kernel show {name}")).out).unwrap();
        assert!(shown.contains("15 x 15") && shown.contains("eigenvalues 3.9"), "{shown}");
    }
    room.done("kernel show k.mat -o look.png");
    assert!(room.read("look.png").width() > 15);

    let mut corner = vec![0.0; 25];
    corner[1] = 1.0;
    Kernel::new(5, 5, corner).unwrap().save(&room.path("corner.npy")).unwrap();
    let shown = room.run("kernel show corner.npy");
    assert!(shown.status == 0 && shown.said.contains("--centre-kernel"), "{}", shown.said);
    assert_eq!(room.done("kernel show corner.npy --centre-kernel").said, "");
    let turned = room.run("kernel show corner.npy --kernel-convention convolve").said;
    assert!(turned.contains("right of") && turned.contains("below"), "{turned}");
    assert_ne!(small("corner.npy"), small("corner.npy --kernel-convention convolve"));
    assert_ne!(small("corner.npy"), small("corner.npy --phase centre"));
}

#[test]
fn weights_are_listed_shown_and_converted() {
    let room = Room::new();
    room.done("weights list");
    let trained = "--scale 2..4 --downsample direct --updates 5 --name five";
    room.done(&format!("weights convert w.safetensors v.safetensors {trained}"));
    let shown = String::from_utf8(room.done("weights show v.safetensors").out).unwrap();
    for what in ["five", "3-8-8-3", "×2 to ×4, direct downsampling", "updates      5"] {
        assert!(shown.contains(what), "{what}: {shown}");
    }
    put(&room, "in.png", RGB, 20, 24);
    // What fits is used without a warning: the one line of assumptions.
    for flags in ["v.safetensors -s 3 --kernel gaussian:1", "w.safetensors --downsample bicubic"] {
        let said = room.done(&format!("upscale in.png -o out.png -n 0 --weights {flags}")).said;
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn help_for_everything() {
    let room = Room::new();
    for command in [
        "",
        "upscale",
        "degrade",
        "kernel",
        "kernel make",
        "kernel show",
        "score",
        "weights",
        "weights list",
        "weights show",
        "weights convert",
        "pretrain",
        "bench",
    ] {
        let help = String::from_utf8(room.done(&format!("{command} --help")).out).unwrap();
        assert!(help.contains(&format!("Usage: {}", format!("mzsr {command}").trim())), "{command}: {help}");
        assert!(help.contains("Examples:\n  mzsr ") || help.contains("Example:\n  mzsr "), "{command}: {help}");
    }
    assert!(String::from_utf8(room.done("--version").out).unwrap().starts_with("mzsr 0."));
}

#[cfg(unix)]
#[test]
fn nobody_has_to_read_what_is_said() {
    let room = Room::new();
    put(&room, "in.png", RGB, 20, 24);
    let mut child = room.command("upscale in.png -o out.png --weights w.safetensors -n 1 -v").spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(room.read("out.png").width(), 48);

    put(&room, "large.png", RGB, 600, 800);
    let mut child = room.command("upscale large.png -o out.png --weights w.safetensors -n 10000").spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    drop(said);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing_half_done() {
    let room = Room::new();
    put(&room, "in.png", RGB, 600, 800);
    let mut slow = weights(0.02);
    slow.architecture = Architecture::mzsr();
    slow.parameters = vec![1e-3; slow.architecture.parameter_count()];
    slow.save(&room.path("slow.safetensors")).unwrap();
    let before = room.names(".");
    let mut child = room.command("upscale in.png -o out.png --weights slow.safetensors -n 1000").spawn().unwrap();
    // Its first line is said when the work begins.
    let mut said = BufReader::new(child.stderr.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    assert_eq!(room.names("."), before);
}
