//! Checks reference files: `cargo run --release --example check_reference -- FILE.safetensors…`
//!
//! Reads any file with the layout of the project's reference values (metadata `layout`:
//! `mzsr-golden-kernels-1`, `-resample-1`, `-network-1` or `-adapt-1`), computes every quantity with
//! the plain engine in f64 and f32 and with the CPU engine at every level that this machine has,
//! prints a line for each with its error and its bound, and exits with 1 past a bound, with 2 for a
//! file that cannot be checked.

mod checks;

use std::process::ExitCode;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: check_reference FILE.safetensors…");
        return ExitCode::from(2);
    }
    let mut status = 0;
    for file in files {
        println!("{file}");
        match checks::check(file.as_ref(), &mut |line| println!("  {line}")) {
            Ok(0) => {}
            Ok(failed) => {
                eprintln!("{file}: {failed} past their bounds");
                status = status.max(1);
            }
            Err(error) => {
                eprintln!("{error}");
                status = 2;
            }
        }
    }
    ExitCode::from(status)
}
