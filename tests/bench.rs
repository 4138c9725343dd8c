//! `mzsr bench` from the outside.

use serde_json::Value;
use std::process::Command;

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_mzsr")).arg("bench").args(args).output().unwrap()
}

#[test]
fn rates_in_json() {
    let output = bench(&["--json", "--rates-only", "--seconds", "0.01", "--threads", "2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["threads"], 2);
    assert!(report["upscale"].is_null());
    let peak = report["peak"]["median"].as_f64().unwrap();
    assert!(peak > 0.1);
    let rates = report["rates"].as_array().unwrap();
    let kinds: Vec<_> = rates.iter().map(|rate| (rate["phase"].as_str().unwrap(), rate["batch"].to_string())).collect();
    let (one, many) = ("[1,256,256]".to_owned(), "[16,64,64]".to_owned());
    let both = "forward+backward";
    assert_eq!(kinds, [("forward", one.clone()), (both, one), ("forward", many.clone()), (both, many)]);
    for rate in rates {
        let (median, ratio) = (rate["gflops"]["median"].as_f64().unwrap(), rate["ratio"].as_f64().unwrap());
        assert!((median / peak - ratio).abs() < 1e-9 && ratio > 0.0, "{rate}");
    }
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 4);
    assert!(checks.iter().all(|check| check["error"].as_f64() <= check["bound"].as_f64()), "{checks:?}");
}

#[test]
fn wrong_numbers_are_refused() {
    for (args, name) in [(["--threads", "0"], "--threads 0"), (["--seconds", "nan"], "--seconds NaN")] {
        let output = bench(&args);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(name));
    }
}
