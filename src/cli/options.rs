//! Flags that several commands share.

use super::progress::Mode;
use crate::degrade::{Degradation, Downsample, MAX_SCALE};
use crate::engine::Device;
use crate::kernel::{KernelConvention, KernelSpec, Loaded, Phase};
use crate::{Error, Result};
use clap::ValueEnum;

/// Subsampling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DownsampleFlag {
    /// Every s-th pixel
    Direct,
    /// Antialiased cubic (MATLAB's imresize)
    Bicubic,
}

/// Where direct subsampling looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PhaseFlag {
    /// The upper left pixel of each cell, as the paper does
    Corner,
    /// The middle of each cell, as KernelGAN, lenses and most other tools do
    Centre,
}

/// How the kernel's file is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ConventionFlag {
    /// As it is (SciPy's correlate, the paper)
    Correlate,
    /// Turned by 180° (KAIR, USRNet)
    Convolve,
}

/// Where to compute.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct DeviceArgs {
    /// Where to compute: auto (a GPU where there is one and the work is large), cpu, gpu, or gpu:N as
    /// `mzsr devices` numbers them
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: Device,
}

/// The blur that made the photo small.
#[derive(clap::Args, Clone, Debug)]
pub struct DegradationArgs {
    /// The blur: none, gaussian:V, gaussian:L1,L2,ANGLE (variances in px², radians),
    /// gaussian:sigma=S, disk:RADIUS (px), motion:LENGTH,ANGLE (px, radians), each with ,size=N, or a file (.mat .npy .png .tif .txt)
    #[arg(long, value_name = "SPEC", default_value = "none")]
    pub kernel: String,
    /// How pixels were dropped after the blur [default: direct with a kernel, bicubic without]
    #[arg(long, value_enum)]
    pub downsample: Option<DownsampleFlag>,
    /// Where direct downsampling looked
    #[arg(long, value_enum, default_value = "corner")]
    pub phase: PhaseFlag,
    /// How a kernel file is meant
    #[arg(long, value_enum, default_value = "correlate")]
    pub kernel_convention: ConventionFlag,
    /// Move the kernel's centroid to its centre
    #[arg(long)]
    pub centre_kernel: bool,
}

/// What the flags came to.
pub struct Blur {
    pub degradation: Degradation,
    /// For the line that says what is assumed.
    pub description: String,
    /// The kernel's size, sum, centroid and moments, if there is one.
    pub details: Option<String>,
    pub warnings: Vec<String>,
}

impl DegradationArgs {
    /// Reads the kernel and makes D for `scale`.
    pub fn blur(&self, scale: f64) -> Result<Blur> {
        if !(1.0..=MAX_SCALE).contains(&scale) {
            return Err(Error::input(format!("--scale {scale}: a number from 1 to {MAX_SCALE} is needed")));
        }
        let mut loaded: Loaded = KernelSpec::parse(&self.kernel)?.load()?;
        if self.kernel_convention == ConventionFlag::Convolve {
            loaded = loaded.with_convention(KernelConvention::Convolve);
        }
        if self.centre_kernel {
            loaded = loaded.recentred();
        }
        let downsample = match (self.downsample, &loaded.kernel) {
            (Some(DownsampleFlag::Direct), None) => {
                return Err(Error::input(
                    "--downsample direct needs a kernel: add --kernel (for example gaussian:2.0), or leave the flag out",
                ));
            }
            (Some(DownsampleFlag::Direct), _) | (None, Some(_)) => Downsample::Direct,
            (Some(DownsampleFlag::Bicubic), _) | (None, None) => Downsample::Bicubic,
        };
        let mut degradation = Degradation::new(scale, loaded.kernel.clone(), downsample)?;
        let centre = self.phase == PhaseFlag::Centre;
        if centre && downsample == Downsample::Bicubic {
            loaded.warnings.push("--phase centre changes nothing: bicubic downsampling is centred as it is".to_owned());
        }
        if loaded.kernel.is_none() && (self.centre_kernel || self.kernel_convention == ConventionFlag::Convolve) {
            loaded.warnings.push("there is no kernel to turn or to centre: --kernel names one".to_owned());
        }
        if centre {
            let shift = (scale - 1.0) / 2.0;
            degradation = degradation.centred(loaded.displaced(shift, shift));
        }
        let phase = match (downsample, self.phase) {
            (Downsample::Bicubic, _) => String::new(),
            (_, PhaseFlag::Corner) => format!(", phase {:?}", Phase::Corner).to_lowercase(),
            (_, PhaseFlag::Centre) => format!(", phase {:?}", Phase::Centre).to_lowercase(),
        };
        Ok(Blur {
            description: format!("kernel {}, {downsample} downsampling{phase}", loaded.description),
            details: loaded.details(),
            warnings: loaded.warnings,
            degradation,
        })
    }
}

/// How progress is shown and what is said.
#[derive(clap::Args, Clone, Debug)]
pub struct TalkArgs {
    /// Progress on standard error
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: Mode,
    /// Say more: the kernel's moments, each update, what was done
    #[arg(short, long)]
    pub verbose: bool,
    /// Say only what is wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// A line on standard error that does not stop the work.
pub fn warn(text: &str) {
    eprintln!("mzsr: warning: {text}");
}

/// More threads than any machine that this runs on has cores.
const MAX_THREADS: usize = 1024;

/// Makes `--threads` the number of threads of everything.
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::input(format!("--threads {threads}: a number from 1 to {MAX_THREADS} is needed")));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::Device(format!("{threads} threads could not be started: {error}")))
}
