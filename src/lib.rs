//! Meta-transfer learning for zero-shot super-resolution (MZSR; Soh, Cho and Cho, CVPR 2020).
//!
//! A photo is enlarged by a small convolutional network that first adapts itself, in one to ten
//! gradient steps, to that very photo and to the blur that made it small.
//!
//! The modules form one chain; each imports only those after it:
//! [`cli`] → [`mod@bench`], [`eval`] → [`train`] → [`adapt`] → [`network`] → [`engine`] → [`degrade`] →
//! [`kernel`] → [`image`] → [`score`], all over [`raster`], [`real`] and [`error`].
#![warn(missing_docs)]

pub mod adapt;
pub mod bench;
pub mod cli;
pub mod degrade;
pub mod engine;
pub mod error;
pub mod eval;
pub mod image;
pub mod kernel;
pub mod network;
pub mod raster;
pub mod real;
pub mod score;
mod tensors;
pub mod train;
mod whole;

pub use error::{Error, Result};
pub use raster::Raster;
pub use real::Real;
