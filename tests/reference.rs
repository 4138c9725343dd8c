//! The checks of the example `check_reference` on small files of our own (tests/reference), and
//! that these checks find what is wrong.

#[path = "../examples/check_reference/checks.rs"]
mod checks;

use checks::check;
use std::fs;
use std::path::{Path, PathBuf};

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// The lines that the check says, and how many quantities are past their bound.
fn lines(path: &Path) -> (Vec<String>, usize) {
    let mut lines = Vec::new();
    let failed = check(path, &mut |line| lines.push(line.to_owned())).unwrap();
    (lines, failed)
}

/// Every quantity of a file of ours is within its bound on every engine.
fn holds(name: &str, quantities: &[&str]) {
    let (lines, failed) = lines(&reference(name));
    assert_eq!(failed, 0, "{}", lines.join("\n"));
    for quantity in quantities {
        assert!(lines.iter().any(|line| line.contains(quantity)), "{quantity} was not checked");
    }
}

#[test]
fn kernels_hold() {
    holds("kernels.safetensors", &["kernel.0", "kernel.3"]);
}

#[test]
fn resampling_holds() {
    holds("resample.safetensors", &["resize.3", "2.2 free direct", "even bicubic", "none bicubic", "f32", "f64"]);
}

#[test]
fn the_network_and_its_derivatives_hold() {
    let quantities = [
        "linear output",
        "relu gradient",
        "relu Hessian-vector product",
        "linear inner parameters",
        "relu meta_all_second",
        "linear meta_last_first",
        "relu learned rate gradient",
    ];
    holds("network.safetensors", &quantities);
}

/// A file's bytes, changed, and its path.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut bytes = fs::read(reference(name)).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Where the values of a tensor begin.
fn begin(bytes: &[u8], tensor: &str) -> usize {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

#[test]
fn a_changed_value_is_found() {
    for (name, tensor, size) in [
        ("kernels.safetensors", "kernel.1", 8),
        ("resample.safetensors", "degrade.4", 8),
        ("network.safetensors", "relu.hvp.conv2.weight", 4),
        ("network.safetensors", "linear.meta_all_second.conv1.weight", 4),
    ] {
        let (_folder, path) = changed(name, |bytes| {
            let at = begin(bytes, tensor);
            let far = if size == 8 { 0.7f64.to_le_bytes().to_vec() } else { 7f32.to_le_bytes().to_vec() };
            bytes[at..at + size].copy_from_slice(&far);
        });
        let (lines, failed) = lines(&path);
        assert!(failed > 0, "{tensor}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("FAIL")).count(), failed);
        // What was not changed still holds.
        assert!(lines.iter().any(|line| line.starts_with("ok")));
    }
    let (_folder, path) = changed("kernels.safetensors", |bytes| {
        let at = begin(bytes, "kernel.0");
        bytes[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    });
    assert_eq!(lines(&path).1, 1, "a value that is no number is past any bound");
}

#[test]
fn a_damaged_file_is_an_error() {
    let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let (_folder, path) = changed(name, |bytes| change(bytes));
        let text = check(&path, &mut |_| {}).unwrap_err().to_string();
        assert!(text.contains(name) && text.lines().count() == 1, "{text}");
        text
    };
    let replaced = |from: &'static str, to: &'static str| {
        assert_eq!(from.len(), to.len());
        move |bytes: &mut Vec<u8>| {
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    };
    for name in ["kernels.safetensors", "resample.safetensors", "network.safetensors"] {
        for keep in [0, 4, 100, 3000] {
            refused(name, &|bytes| bytes.truncate(keep));
        }
        refused(name, &|bytes| bytes.truncate(bytes.len() - 1));
        refused(name, &|bytes| bytes[7] = 0x7f);
        refused(name, &|bytes| bytes[8] = b'?');
        assert!(refused(name, &replaced("mzsr-golden-", "mzsr-olden--")).contains("is not known"));
    }
    assert!(
        refused("kernels.safetensors", &replaced("\"kernel.2\":", "\"kernel.9\":")).contains("kernel.2 is missing")
    );
    refused("network.safetensors", &replaced("\"relu.grad.conv1.bias\"", "\"relu.grad.conv9.bias\""));
    refused("network.safetensors", &replaced("[4, 3, 3, 3]", "[3, 4, 3, 3]"));
    refused("network.safetensors", &replaced("\\\"rates\\\"", "\\\"ratez\\\""));
    assert!(check(Path::new("nowhere.safetensors"), &mut |_| {}).is_err());
}
