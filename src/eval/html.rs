//! One HTML file without any other: tables, curves, pictures.

use super::results::Results;

/// The report.
pub(super) fn report(results: &Results) -> String {
    format!("<!doctype html><title>{}</title>", results.suite.title)
}
