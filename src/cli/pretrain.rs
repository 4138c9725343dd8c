//! `mzsr pretrain`

use super::{Outcome, training};
use crate::Result;
use crate::train::pretrain;

const EXAMPLES: &str = "\
Examples:
  mzsr pretrain recipes/bicubic-x2.toml --data photos
  mzsr pretrain recipes/bicubic-x2.toml --data photos --resume
  mzsr pretrain my.toml --steps 1000 --output runs/trial --threads 1

--resume goes on after Ctrl-C, a kill or a power cut. The recipe says everything
else: photos, patches, degradation, rates, steps, seed, validation. Its keys are
described in recipes/ and in the documentation of mzsr::train::recipe. The output
folder receives checkpoint.safetensors (all that --resume needs), best.safetensors
and last.safetensors (weights for `mzsr upscale --weights`), log.jsonl, and event
files: tensorboard --logdir FOLDER.";

/// `mzsr pretrain`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    training: training::Args,
}

pub fn run(args: &Args) -> Result<Outcome> {
    training::run(&args.training, pretrain)
}
