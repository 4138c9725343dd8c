//! Training.

pub mod meta;
