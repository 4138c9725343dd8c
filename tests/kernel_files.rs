//! Kernel files: every format, what is wrong with them, and damage of every kind.

use mzsr::kernel::{Kernel, KernelConvention, KernelSpec, Loaded};
use std::path::{Path, PathBuf};

const WEIGHTS: [f64; 15] = [1.0, 2.0, 5.0, 3.0, 4.0, 6.0, 17.0, 40.0, 13.0, 7.0, 2.0, 8.0, 11.0, 9.0, 0.0];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels").join(name)
}

fn load(path: &Path) -> mzsr::Result<Loaded> {
    KernelSpec::parse(path.to_str().unwrap())?.load()
}

fn written(bytes: &[u8], name: &str) -> mzsr::Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    load(&path)
}

#[track_caller]
fn refused(result: mzsr::Result<Loaded>, part: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

#[test]
fn every_format_is_read() {
    let exact = ["plain.mat", "compressed.mat", "single.mat", "big.mat", "big_compressed.mat"];
    let exact = exact.iter().chain(&["c.npy", "fortran.npy", "big.npy", "spaces.txt", "commas.csv"]);
    let whole =
        ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"].map(|kind| format!("{kind}.mat"));
    let whole = whole.iter().map(String::as_str);
    let whole = whole.chain(["int.npy", "grey8.png", "grey16.png", "grey8.tif", "grey16.tif"]);
    for (name, warned) in exact.map(|name| (*name, false)).chain(whole.map(|name| (name, true))) {
        let loaded = load(&fixture(name)).unwrap_or_else(|error| panic!("{error}"));
        let kernel = loaded.kernel.as_ref().unwrap();
        assert_eq!((kernel.height, kernel.width), (3, 5), "{name}");
        for (weight, expected) in kernel.data.iter().zip(WEIGHTS) {
            assert!((weight - expected / 128.0).abs() < 1e-15, "{name}: {weight} {expected}");
        }
        assert_eq!(loaded.warnings.len(), usize::from(warned), "{name}: {:?}", loaded.warnings);
        assert!(loaded.details().unwrap().starts_with("5 x 3, sum 1.000000, centroid ("), "{:?}", loaded.details());
    }
    assert_eq!(load(&fixture("compressed.mat")).unwrap().variable.as_deref(), Some("Kernel"));
    assert_eq!(load(&fixture("single.mat")).unwrap().variable.as_deref(), Some("k"));
    assert!(load(&fixture("grey8.png")).unwrap().warnings[0].contains("picture values) sum to 128, not 1"));
}

#[test]
fn what_is_no_kernel_is_refused_with_the_remedy() {
    for (name, part) in [
        ("several.mat", "a (3 x 5, double), b (5 x 3, double)"),
        ("cube.mat", "'kernel' is 3 x 5 x 2, not a matrix"),
        ("struct.mat", "a struct"),
        ("complex.mat", "save real(kernel)"),
        ("sparse.mat", "save full(kernel)"),
        ("text.mat", "but note (1 x 11, text)"),
        ("v4.mat", "'-v7'"),
        ("v73.mat", "v7.3"),
        ("half.npy", "float64"),
        ("line.npy", "(15)"),
        ("float.tif", ".npy, .mat and text hold any number"),
        ("colour.png", "must be grey"),
        ("nothing.mat", "no such file"),
    ] {
        refused(load(&fixture(name)), part);
    }
    for (text, part) in [
        ("1 2\n3 4 5\n", "line 2 has 3 numbers, those above have 2"),
        ("1 2\n3 x\n", "line 2: 'x'"),
        ("1 nan\n", "column 2 is not a finite"),
        ("1 inf\n", "not a finite"),
        ("0,1 0,2\n0,3 0,4\n", "line 1: decimal commas"),
        ("0 0\n", "sum to 0,"),
        ("1 -3\n", "sum to -2,"),
        ("# nothing\n", "empty"),
        ("hello", "neither"),
        ("1 0 0\n0 0 0\n0 0 -0.999\n", "cancel"),
    ] {
        refused(written(text.as_bytes(), "k.txt"), part);
    }
    refused(written(&"1 ".repeat(1026).into_bytes(), "k.txt"), "at most 1025 x 1025");
}

#[test]
fn off_centre_kernels_are_told_of_and_recentred() {
    let loaded = written(b"0 0 0 0 1\n0 0 0 0 0\n0 0 0 0 0\n", "k.txt").unwrap();
    assert!(
        loaded.warnings[0].contains("2.00 px right of and 1.00 px above")
            && loaded.warnings[0].contains("--centre-kernel")
    );
    let turned = loaded.clone().with_convention(KernelConvention::Convolve);
    assert!(turned.warnings[0].contains("2.00 px left of and 1.00 px below"), "{:?}", turned.warnings);
    assert!(turned.description.ends_with("turned by 180°"));
    let centred = loaded.recentred();
    assert!(centred.warnings.is_empty());
    assert_eq!(centred.kernel, Some(Kernel { height: 1, width: 1, data: vec![1.0] }));
}

#[test]
fn written_files_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = load(&fixture("plain.mat")).unwrap().kernel.unwrap();
    for name in ["a.mat", "a.npy", "a.txt", "a.csv", "a.png"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "old").unwrap();
        kernel.save(&path).unwrap();
        let back = load(&path).unwrap().kernel.unwrap();
        let bound = if name.ends_with("png") { 1e-5 } else { 0.0 };
        assert_eq!((back.height, back.width), (3, 5));
        assert!(back.data.iter().zip(&kernel.data).all(|(a, b)| (a - b).abs() <= bound), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    assert!(kernel.save(&folder.path().join("a.doc")).unwrap_err().to_string().contains(".npy"));
    assert!(kernel.save(&folder.path().join("none/a.mat")).is_err());
    let negative = Kernel { height: 1, width: 3, data: vec![-0.1, 1.2, -0.1] };
    assert!(negative.save(&folder.path().join("n.png")).is_err());
    assert!(negative.save_picture(&folder.path().join("n.png")).is_ok());
}

#[test]
fn cut_off_matrices_are_refused() {
    for name in ["plain.mat", "big.mat", "compressed.mat", "c.npy"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(written(&bytes[..length], name).is_err(), "{name} cut to {length}");
        }
    }
}

#[test]
fn a_compressed_bomb_is_not_inflated() {
    use std::io::Write;
    let mut file = std::fs::read(fixture("plain.mat")).unwrap();
    let mut matrix = file.split_off(128);
    // 40000 x 40000 doubles, as far as the file says; 256 MiB of zeros in truth.
    matrix[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    matrix[32..40].copy_from_slice(&[0x40, 0x9c, 0, 0, 0x40, 0x9c, 0, 0]);
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&matrix).unwrap();
    for _ in 0..256 {
        packer.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let packed = packer.finish().unwrap();
    file.extend(15u32.to_le_bytes());
    file.extend((packed.len() as u32).to_le_bytes());
    file.extend(packed);
    refused(written(&file, "k.mat"), "at most 1025 x 1025");
}

#[test]
fn the_published_kernel_is_a_gaussian_of_variance_two() {
    let Ok(shared) = std::env::var("MZSR_SHARED") else {
        println!("skipped: MZSR_SHARED is not set");
        return;
    };
    let loaded = load(&Path::new(&shared).join("golden/g20_kernel.mat")).unwrap();
    assert_eq!(loaded.variable.as_deref(), Some("kernel"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let kernel = loaded.kernel.unwrap();
    let expected = Kernel::gaussian(2.0, 2.0, 0.0, 21);
    assert_eq!((kernel.height, kernel.width), (21, 21));
    let worst = kernel.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-4, "{worst}");
}
