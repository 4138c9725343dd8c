//! `mzsr kernel`: makes and shows blur kernels.

use super::Outcome;
use super::options::{ConventionFlag, warn};
use crate::kernel::{Kernel, KernelConvention, KernelSpec, Loaded};
use crate::{Error, Result};
use clap::Subcommand;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const MAKE: &str = "\
Examples:
  mzsr kernel make gaussian:4.0,1.0,-0.5 -o blur.mat
  mzsr kernel make gaussian:sigma=1.4,size=21 -o blur.png
  mzsr kernel make blur.mat --kernel-convention convolve -o turned.npy";

const SHOW: &str = "\
Examples:
  mzsr kernel show gaussian:2.0
  mzsr kernel show blur.mat -o look.png";

const EXAMPLES: &str = "\
Examples:
  mzsr kernel make gaussian:4.0,1.0,-0.5 -o blur.mat
  mzsr kernel make gaussian:sigma=1.4,size=21 -o blur.png
  mzsr kernel show blur.mat -o look.png
  mzsr kernel show gaussian:2.0";

/// Make and show blur kernels.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Write a kernel to a file: a Gaussian, or a file in another format
    #[command(after_help = MAKE)]
    Make {
        #[command(flatten)]
        kernel: KernelArgs,
        /// Where to: .mat (level 5), .npy, .txt or .png (16-bit)
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print a kernel's size, sum, centroid and second moments, and a small picture
    #[command(after_help = SHOW)]
    Show {
        #[command(flatten)]
        kernel: KernelArgs,
        /// Also draw an enlarged picture
        #[arg(short, long, value_name = "FILE.png")]
        output: Option<PathBuf>,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct KernelArgs {
    /// gaussian:V, gaussian:L1,L2,ANGLE (variances in px², radians), gaussian:sigma=S, disk:RADIUS, motion:LENGTH,ANGLE (px, radians; each with
    /// ,size=N), or a file (.mat .npy .png .tif .txt)
    spec: String,
    /// How a kernel file is meant
    #[arg(long, value_enum, default_value = "correlate")]
    kernel_convention: ConventionFlag,
    /// Move the kernel's centroid to its centre
    #[arg(long)]
    centre_kernel: bool,
}

impl KernelArgs {
    fn load(&self) -> Result<(Loaded, Kernel)> {
        let mut loaded = KernelSpec::parse(&self.spec)?.load()?;
        if self.kernel_convention == ConventionFlag::Convolve {
            loaded = loaded.with_convention(KernelConvention::Convolve);
        }
        if self.centre_kernel {
            loaded = loaded.recentred();
        }
        let Some(kernel) = loaded.kernel.clone() else {
            return Err(Error::input("'none' is no kernel to make or show; give a Gaussian (gaussian:2.0) or a file"));
        };
        loaded.warnings.iter().for_each(|warning| warn(warning));
        Ok((loaded, kernel))
    }
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<Outcome> {
    match args.action {
        Action::Make { kernel, output } => {
            let (_, kernel) = kernel.load()?;
            kernel.save(&output)?;
        }
        Action::Show { kernel, output } => {
            let (loaded, kernel) = kernel.load()?;
            if let Some(output) = &output {
                kernel.save_picture(output)?;
            }
            print(&description(&loaded, &kernel))?;
        }
    }
    Ok(Outcome::Done)
}

fn description(loaded: &Loaded, kernel: &Kernel) -> String {
    let (large, small, angle) = kernel.moments().axes();
    format!(
        "{}\n{}\neigenvalues {large:.3} and {small:.3} px², angle {angle:.3} rad ({:.1}°, from right towards down)\n{}",
        loaded.description,
        loaded.details().unwrap_or_default(),
        angle.to_degrees(),
        kernel.text_picture()
    )
}

/// To standard output; a reader that has gone is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io(Path::new("standard output"), error)),
        _ => Ok(()),
    }
}
