//! Evaluations: methods × degradations × data sets, with the paper's figures beside ours.
//!
//! A [`suite`] is a TOML file. [`run()`] computes its cells by the evaluation protocol: the true
//! picture cut to whole cells, degraded, rounded to 8 bits, enlarged, rounded to 8 bits, scored;
//! means are over the pictures. [`Results`] are written as text, Markdown, CSV, JSON and HTML.
//! Cells are kept by content, so that a run that goes on, or is extended, computes only what is new.

pub mod cache;
mod html;
pub mod method;
mod onnx;
pub mod paper;
mod picture;
pub mod results;
mod run;
pub mod sets;
pub mod suite;
mod trained;

pub use results::Results;
pub use run::{Event, Options, run};
pub use suite::Suite;
