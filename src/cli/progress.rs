//! Progress: a bar on a terminal, plain lines or JSON on request, silence in a pipe.

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// How progress is shown, always on standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// A bar on a terminal, nothing in a pipe
    Auto,
    /// A line every tenth of the work
    Plain,
    /// A JSON object a line: {"file": …, "progress": 0 … 1}
    Json,
    /// Nothing
    None,
}

/// The progress of one piece of work.
pub struct Progress {
    mode: Mode,
    name: String,
    bar: ProgressBar,
    shown: f64,
}

const STEPS: u64 = 1000;

impl Progress {
    /// Begins at nothing.
    pub fn new(mode: Mode, name: &str) -> Self {
        let draws = mode == Mode::Auto && std::io::stderr().is_terminal();
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(STEPS), target).with_message(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %  {elapsed} / ETA {eta}") {
            bar.set_style(style);
        }
        Progress { mode, name: name.to_owned(), bar, shown: 0.0 }
    }

    /// `share` (0 to 1) of the work is done.
    pub fn set(&mut self, share: f64) {
        self.bar.set_position((share * STEPS as f64) as u64);
        match self.mode {
            Mode::Plain if share >= self.shown + 0.1 || share >= 1.0 => {
                self.shown = share;
                eprintln!("{}: {:.0} %", self.name, share * 100.0);
            }
            Mode::Json if share >= self.shown + 0.01 || share >= 1.0 => {
                self.shown = share;
                let line = serde_json::json!({ "file": self.name, "progress": (share * 1e4).round() / 1e4 });
                eprintln!("{line}");
            }
            _ => {}
        }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
