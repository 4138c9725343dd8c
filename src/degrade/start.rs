//! What a network's output is added to.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The upscale of a photo that a network begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The cubic upscale of `imresize`, as in the paper: it does not know the blur.
    #[default]
    Bicubic,
    /// The least-squares upscale ([`super::LeastSquares`]) on the grid that D samples.
    LeastSquares,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Start::Bicubic => "bicubic",
            Start::LeastSquares => "least-squares",
        })
    }
}

impl FromStr for Start {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bicubic" => Ok(Start::Bicubic),
            "least-squares" => Ok(Start::LeastSquares),
            other => Err(Error::input(format!(
                "start '{}' is not known; use bicubic or least-squares",
                other.escape_debug()
            ))),
        }
    }
}
