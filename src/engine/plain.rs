//! The readable truth.
