//! The `mzsr` program: see `mzsr --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mzsr::cli::main()
}
