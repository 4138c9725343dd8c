//! `mzsr meta-train`

use super::{Outcome, training};
use crate::Result;
use crate::train::meta_train;

const EXAMPLES: &str = "\
Examples:
  mzsr meta-train recipes/mzsr-direct-x2.toml --data ../shared/data
  mzsr meta-train recipes/mzsr-direct-x2.toml --data ../shared/data --resume
  mzsr meta-train my.toml --steps 200 --output runs/trial --threads 1
  mzsr upscale photo.png -o larger.png --kernel gaussian:2.0 --weights runs/trial/best.safetensors

Trains weights that a few gradient steps on one photo turn into good ones, and with
[meta] learn also the rates of those steps; both go into the weights file. The recipe
is that of `mzsr pretrain` with a section [meta]; its keys are described in recipes/
and in the documentation of mzsr::train::recipe. --resume goes on after Ctrl-C, a kill
or a power cut. Updates beyond the trained ones (`mzsr upscale -n`) take the last
rates times [meta] tail for each further one. The output folder receives
checkpoint.safetensors (all that --resume needs), best.safetensors and
last.safetensors (weights for `mzsr upscale --weights`), log.jsonl, and event files:
tensorboard --logdir FOLDER.";

/// `mzsr meta-train`
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    training: training::Args,
}

pub fn run(args: &Args) -> Result<Outcome> {
    training::run(&args.training, meta_train)
}
