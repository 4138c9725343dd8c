//! What an evaluation found, and its reports: text, Markdown, CSV, JSON (HTML is next door).

use super::cache::Scores;
use super::paper::{self, Figure};
use super::run::Task;
use super::suite::{MethodSpec, Suite};
use super::{html, picture};
use crate::degrade::{Degradation, Downsample};
use crate::{Error, Raster, Result, whole};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Everything that an evaluation found.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was evaluated.
    pub suite: Suite,
    /// On what.
    pub engine: String,
    /// What there is to know about weights and sets.
    pub notes: Vec<String>,
    /// The degradations.
    pub columns: Vec<ColumnInfo>,
    /// The methods that ran.
    pub methods: Vec<MethodInfo>,
    /// The sets.
    pub sets: Vec<String>,
    /// Every cell.
    pub entries: Vec<Entry>,
    /// Parts of pictures, side by side.
    pub shown: Vec<Shown>,
}

/// A degradation as the reports need it.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// The scale.
    pub scale: f64,
    /// Whether every s-th pixel is kept.
    pub direct: bool,
    /// The kernel as SVG; empty if there is none.
    pub kernel: String,
}

impl ColumnInfo {
    /// Its name, and the scale where it is not 2.
    pub(super) fn heading(&self) -> String {
        if self.scale == 2.0 { self.name.clone() } else { format!("{} ×{}", self.name, self.scale) }
    }
}

/// A method as the reports need it.
#[derive(Clone, Debug, Serialize)]
pub struct MethodInfo {
    /// The row's name.
    pub name: String,
    /// What it does.
    pub kind: String,
    /// The paper's name for it.
    #[serde(skip)]
    pub paper: String,
    /// The name before a list of updates was taken apart.
    #[serde(skip)]
    pub family: String,
    /// The number of weights.
    pub parameters: usize,
    /// Gradient steps, where it makes some.
    pub updates: Option<usize>,
    /// Weights and settings.
    pub detail: String,
}

impl MethodInfo {
    /// A method, by what the suite says and what it came to.
    pub fn new(spec: &MethodSpec, parameters: usize, updates: Option<usize>, detail: String) -> Self {
        MethodInfo {
            name: spec.name.clone(),
            kind: spec.kind.clone(),
            paper: spec.paper.clone().unwrap_or_else(|| spec.name.clone()),
            family: spec.family.clone(),
            parameters,
            updates,
            detail,
        }
    }
}

/// A method's result on a picture.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The set.
    pub set: String,
    /// The degradation.
    pub degradation: String,
    /// The method.
    pub method: String,
    /// The picture.
    pub image: String,
    /// Against the truth, if there is one.
    #[serde(flatten)]
    pub scores: Option<Scores>,
    /// The root mean square of D(result) − small picture, in 8-bit levels.
    pub consistency: Option<f64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took.
    pub seconds: Option<f64>,
}

/// A part of a picture as every method makes it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The set.
    pub set: String,
    /// The picture.
    pub image: String,
    /// The degradation.
    pub degradation: String,
    /// The truth, as PNG in base64, if there is one.
    pub truth: Option<String>,
    /// The small picture, each pixel as a square.
    pub low: String,
    /// Method, PNG in base64, scores.
    pub crops: Vec<(String, String, Option<Scores>)>,
}

impl Shown {
    /// The truth and the small picture of a task, without any method yet.
    pub(super) fn new(set: &str, image: &str, degradation: &str, task: &Task) -> Result<Shown> {
        let (top, left, height, width) = task.part;
        let scale = task.scale;
        let mut squares = Raster::new(height, width, 3);
        for y in 0..height {
            for x in 0..width {
                let at = |v: usize, size: usize| ((v as f64 / scale) as usize).min(size - 1);
                let pixel = task.low.pixel(at(top + y, task.low.height), at(left + x, task.low.width));
                squares.data[(y * width + x) * 3..][..3].copy_from_slice(pixel);
            }
        }
        let truth = task.truth.then(|| picture::png(&picture::cut(&task.picture, task.part))).transpose()?;
        Ok(Shown {
            set: set.to_owned(),
            image: image.to_owned(),
            degradation: degradation.to_owned(),
            truth,
            low: picture::png(&squares)?,
            crops: Vec::new(),
        })
    }
}

/// The mean of a method over the pictures of a set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// In dB; infinite where every result equals the truth, none without truth.
    pub psnr: Option<f64>,
    /// None without truth.
    pub ssim: Option<f64>,
    /// Root mean square of D(result) − small picture, in 8-bit levels.
    pub consistency: f64,
    /// Pictures that it is the mean of.
    pub pictures: usize,
    /// Pictures that failed.
    pub failed: usize,
    /// Of one picture.
    pub seconds: f64,
}

/// What a line of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Run here.
    Ours,
    /// The paper's figures of the line above.
    Paper,
    /// The line before last minus the last.
    Difference,
    /// A method of the paper that was not run.
    PaperOnly,
    /// Figures from elsewhere.
    Elsewhere,
}

/// A line of a table.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub kind: LineKind,
    /// Its first cell.
    pub label: String,
    /// The number of weights.
    pub parameters: Option<usize>,
    /// One value a column.
    pub values: Vec<Option<Value>>,
    /// Of one picture.
    pub seconds: Option<f64>,
}

/// A cell of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// In dB.
    pub psnr: Option<f64>,
    /// Where known.
    pub ssim: Option<f64>,
    /// In 8-bit levels.
    pub consistency: Option<f64>,
    /// Whether some pictures failed.
    pub partial: bool,
}

impl From<Figure> for Value {
    fn from(figure: Figure) -> Self {
        Value { psnr: Some(figure.psnr), ssim: figure.ssim, consistency: None, partial: false }
    }
}

impl Results {
    pub(super) fn new(suite: &Suite, engine: String, notes: Vec<String>) -> Self {
        let (columns, methods, sets) = (Vec::new(), Vec::new(), Vec::new());
        Results { suite: suite.clone(), engine, notes, columns, methods, sets, entries: Vec::new(), shown: Vec::new() }
    }

    pub(super) fn add_column(&mut self, name: &str, degradation: &Degradation) {
        self.columns.push(ColumnInfo {
            name: name.to_owned(),
            scale: degradation.scale(),
            direct: degradation.downsample() == Downsample::Direct,
            kernel: degradation.kernel().map_or_else(String::new, |kernel| picture::kernel_svg(kernel, 45)),
        });
    }

    /// Cells that failed, and all cells.
    pub fn failed(&self) -> (usize, usize) {
        (self.entries.iter().filter(|entry| entry.error.is_some()).count(), self.entries.len())
    }

    /// The mean of a method; none where it has no result.
    pub fn mean(&self, set: &str, degradation: &str, method: &str) -> Option<Mean> {
        let of = |entry: &&Entry| (&*entry.set, &*entry.degradation, &*entry.method) == (set, degradation, method);
        let all: Vec<&Entry> = self.entries.iter().filter(of).collect();
        let good: Vec<&&Entry> = all.iter().filter(|entry| entry.error.is_none()).collect();
        if good.is_empty() {
            return None;
        }
        let n = good.len() as f64;
        let mean = |value: &dyn Fn(&Entry) -> Option<f64>| -> Option<f64> {
            good.iter().map(|entry| value(entry)).sum::<Option<f64>>().map(|sum| sum / n)
        };
        Some(Mean {
            psnr: mean(&|entry| entry.scores.map(|scores| scores.psnr.unwrap_or(f64::INFINITY))),
            ssim: mean(&|entry| entry.scores.map(|scores| scores.ssim)),
            consistency: mean(&|entry| entry.consistency).unwrap_or(f64::NAN),
            pictures: good.len(),
            failed: all.len() - good.len(),
            seconds: mean(&|entry| entry.seconds).unwrap_or(f64::NAN),
        })
    }

    /// The paper's figure for a column.
    pub fn figure(&self, set: &str, column: &ColumnInfo, method: &str) -> Option<Figure> {
        let table = self.suite.paper.as_ref()?;
        paper::figure(table, column.scale, &column.name, set, method)
    }

    /// Whether the paper's seconds stand beside ours.
    pub fn compares_times(&self) -> bool {
        self.suite.paper.as_deref() == Some(paper::COMPLEXITY_TABLE)
    }

    /// The table of a set.
    pub fn lines(&self, set: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut said: Vec<&str> = Vec::new();
        for method in &self.methods {
            let means: Vec<Option<Mean>> =
                self.columns.iter().map(|column| self.mean(set, &column.name, &method.name)).collect();
            let here: Vec<&Mean> = means.iter().flatten().collect();
            if here.is_empty() && !self.entries.iter().any(|e| e.set == set && e.method == method.name) {
                continue;
            }
            let seconds = here.iter().map(|mean| mean.seconds).sum::<f64>() / here.len() as f64;
            let ours: Vec<Option<Value>> = means
                .iter()
                .map(|mean| {
                    mean.map(|mean| Value {
                        psnr: mean.psnr,
                        ssim: mean.ssim,
                        consistency: Some(mean.consistency),
                        partial: mean.failed > 0,
                    })
                })
                .collect();
            lines.push(Line {
                kind: LineKind::Ours,
                label: method.name.clone(),
                parameters: Some(method.parameters),
                values: ours.clone(),
                seconds: Some(seconds).filter(|seconds| seconds.is_finite()),
            });
            let paper = self.paper_line(set, &method.paper, LineKind::Paper, "paper");
            if let Some(paper) = paper {
                said.push(&method.paper);
                let values: Vec<Option<Value>> =
                    ours.iter().zip(&paper.values).map(|(ours, paper)| difference((*ours)?, (*paper)?)).collect();
                let compares = values.iter().any(Option::is_some);
                lines.push(paper);
                if compares {
                    let label = "difference".to_owned();
                    let kind = LineKind::Difference;
                    lines.push(Line { kind, label, parameters: None, values, seconds: None });
                }
            }
        }
        let table = self.suite.paper.as_deref().unwrap_or_default();
        for name in paper::methods(table, set).into_iter().filter(|name| !said.contains(name)) {
            lines.extend(self.paper_line(set, name, LineKind::PaperOnly, &format!("{name} (paper)")));
        }
        for row in self.suite.row.iter().filter(|row| row.set == set) {
            let psnr = |column: &ColumnInfo| {
                let psnr = Some(*row.psnr.get(&column.name)?);
                Some(Value { psnr, ssim: None, consistency: None, partial: false })
            };
            lines.push(Line {
                kind: LineKind::Elsewhere,
                label: format!("{} †", row.name),
                parameters: row.parameters,
                values: self.columns.iter().map(psnr).collect(),
                seconds: None,
            });
        }
        lines
    }

    fn paper_line(&self, set: &str, method: &str, kind: LineKind, label: &str) -> Option<Line> {
        let values: Vec<Option<Value>> =
            self.columns.iter().map(|column| self.figure(set, column, method).map(Value::from)).collect();
        let known = paper::complexity(method);
        let seconds = known.map(|(_, seconds)| seconds).filter(|_| self.compares_times());
        if values.iter().all(Option::is_none) && seconds.is_none() {
            return None;
        }
        let parameters = known.map(|(parameters, _)| parameters);
        Some(Line { kind, label: label.to_owned(), parameters, values, seconds })
    }

    /// What a reader of the tables must know.
    pub fn footnotes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let bicubic = self.methods.iter().any(|method| method.kind == "bicubic") || self.suite.paper.is_some();
        if self.suite.ground_truth {
            notes.push(
                "PSNR in dB and SSIM on rounded luma, s pixels cut on each side, mean over the pictures \
                 (preset mzsr of `mzsr score`)."
                    .to_owned(),
            );
        } else {
            notes.push(
                "There is no truth to compare with. Each figure is the root mean square of D(result) − picture in \
                 8-bit levels: how well the result explains the picture. Small is necessary, not sufficient: an ugly \
                 result can explain the picture too."
                    .to_owned(),
            );
        }
        if bicubic && self.suite.ground_truth && self.columns.iter().any(|column| column.direct) {
            notes.push(
                "Direct downsampling keeps the corner pixel of each cell; `imresize`, and with it every bicubic \
                 figure, puts the picture (s − 1)/2 pixels off. Part of every gain over bicubic in a direct column is \
                 alignment alone: compare with the aligned cubic upscale."
                    .to_owned(),
            );
        }
        if self.suite.paper.as_deref() == Some("multiscale") {
            notes.push(
                "The paper prints 35.67 for its multi-scale model on g2.0 d as 0.97 below the single-scale one, which \
                 does not fit that one's 36.05: the absolute figure is taken here."
                    .to_owned(),
            );
        }
        if self.compares_times() {
            notes.push(
                "Ours are the seconds on the engine named here; the paper's are on its authors' GPU, for \
                 256 × 256 to 512 × 512. The picture is drawn by the program, so scores on it mean little."
                    .to_owned(),
            );
        }
        for row in &self.suite.row {
            notes.push(format!("† {}: {}", row.name, row.note));
        }
        let (failed, all) = self.failed();
        if failed > 0 {
            notes.push(format!("* {failed} of {all} cells failed; their means are over the other pictures:"));
            for entry in self.entries.iter() {
                if let Some(error) = &entry.error {
                    let Entry { set, degradation, image, method, .. } = entry;
                    notes.push(format!("  {set}, {degradation}, {image}, {method}: {error}"));
                }
            }
        }
        notes
    }

    /// The headings of a table.
    pub(super) fn headings(&self) -> Vec<String> {
        let mut headings = vec!["method".to_owned(), "weights".to_owned()];
        headings.extend(self.columns.iter().map(ColumnInfo::heading));
        headings.push("seconds".to_owned());
        headings
    }

    /// The cells of a line, as text.
    fn cells(&self, line: &Line) -> Vec<String> {
        let mut cells = vec![line.label.clone(), line.parameters.map_or_else(String::new, thousands)];
        cells.extend(line.values.iter().map(|value| value.map_or_else(String::new, |v| cell(&v, line.kind))));
        cells.push(line.seconds.map_or_else(String::new, seconds));
        cells
    }

    /// Tables for a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.suite.title);
        for set in &self.sets {
            let mut table = vec![self.headings()];
            table[0][0] = set.clone();
            for line in self.lines(set) {
                let mut cells = self.cells(&line);
                if matches!(line.kind, LineKind::Paper | LineKind::Difference) {
                    cells[0] = format!("  {}", cells[0]);
                }
                table.push(cells);
            }
            let count = table[0].len();
            let width = |c: usize| table.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..count).map(width).collect();
            out.push('\n');
            for row in &table {
                let mut line = String::new();
                for (c, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                    // Writing to a string cannot fail.
                    let _ = if c == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
                }
                out += line.trim_end();
                out.push('\n');
            }
        }
        out.push('\n');
        for note in self.footnotes() {
            out += &note;
            out.push('\n');
        }
        out
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n", self.suite.title);
        if !self.suite.about.is_empty() {
            let _ = write!(out, "\n{}\n", self.suite.about.trim());
        }
        for set in &self.sets {
            let _ = write!(out, "\n## {set}\n\n");
            let headings = self.headings();
            let _ = writeln!(out, "| {} |", headings.join(" | "));
            let _ = writeln!(out, "|---|{}", "--:|".repeat(headings.len() - 1));
            for line in self.lines(set) {
                let mut cells = self.cells(&line);
                cells[0] = match line.kind {
                    LineKind::Ours => format!("**{}**", cells[0]),
                    LineKind::Paper | LineKind::Difference => format!("&emsp;*{}*", cells[0]),
                    _ => cells[0].clone(),
                };
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
        }
        out.push('\n');
        for note in self.footnotes() {
            let _ = writeln!(out, "- {}", note.trim());
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        let with_detail = self.methods.iter().filter(|method| !method.detail.is_empty());
        let details: Vec<String> = with_detail.map(|method| format!("{}: {}", method.name, method.detail)).collect();
        if !details.is_empty() {
            let _ = writeln!(out, "- {}.", details.join("; "));
        }
        let _ = writeln!(out, "- mzsr {}, {}.", env!("CARGO_PKG_VERSION"), self.engine);
        out
    }

    /// Every cell, and the means with the paper's figures, as CSV.
    pub fn csv(&self) -> String {
        let mut out = "set,degradation,scale,method,image,parameters,psnr,ssim,consistency,paper_psnr,paper_ssim,\
                       difference_psnr,error,seconds\n"
            .to_owned();
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(String::new, |value| {
                if value.is_finite() { format!("{value:.digits$}") } else { "inf".to_owned() }
            })
        };
        for set in &self.sets {
            for column in &self.columns {
                for method in &self.methods {
                    let start = [quoted(set), quoted(&column.name), column.scale.to_string(), quoted(&method.name)];
                    let mut row = |image: &str, rest: [String; 8]| {
                        let parameters = method.parameters.to_string();
                        let _ = writeln!(out, "{},{},{parameters},{}", start.join(","), quoted(image), rest.join(","));
                    };
                    let of = |entry: &&Entry| {
                        (&entry.set, &entry.degradation, &entry.method) == (set, &column.name, &method.name)
                    };
                    for entry in self.entries.iter().filter(of) {
                        let psnr = entry.scores.map(|scores| scores.psnr.unwrap_or(f64::INFINITY));
                        let none = String::new;
                        row(
                            &entry.image,
                            [
                                number(psnr, 4),
                                number(entry.scores.map(|scores| scores.ssim), 6),
                                number(entry.consistency, 4),
                                none(),
                                none(),
                                none(),
                                quoted(entry.error.as_deref().unwrap_or_default()),
                                number(entry.seconds, 4),
                            ],
                        );
                    }
                    if let Some(mean) = self.mean(set, &column.name, &method.name) {
                        let figure = self.figure(set, column, &method.paper);
                        let psnr = figure.map(|figure| figure.psnr);
                        row(
                            "(mean)",
                            [
                                number(mean.psnr, 4),
                                number(mean.ssim, 6),
                                number(Some(mean.consistency), 4),
                                number(psnr, 2),
                                number(figure.and_then(|figure| figure.ssim), 4),
                                number(mean.psnr.zip(psnr).map(|(ours, paper)| ours - paper), 4),
                                String::new(),
                                number(Some(mean.seconds), 4),
                            ],
                        );
                    }
                }
            }
        }
        out
    }

    /// Everything, as JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct MeanOf<'a> {
            set: &'a str,
            degradation: &'a str,
            scale: f64,
            method: &'a str,
            paper_psnr: Option<f64>,
            paper_ssim: Option<f64>,
            #[serde(flatten)]
            mean: Mean,
        }
        #[derive(Serialize)]
        struct All<'a> {
            suite: &'a str,
            title: &'a str,
            version: &'a str,
            engine: &'a str,
            notes: &'a [String],
            footnotes: Vec<String>,
            methods: &'a [MethodInfo],
            means: Vec<MeanOf<'a>>,
            cells: &'a [Entry],
        }
        let mut means = Vec::new();
        for set in &self.sets {
            for column in &self.columns {
                for method in &self.methods {
                    if let Some(mean) = self.mean(set, &column.name, &method.name) {
                        let figure = self.figure(set, column, &method.paper);
                        means.push(MeanOf {
                            set,
                            degradation: &column.name,
                            scale: column.scale,
                            method: &method.name,
                            paper_psnr: figure.map(|figure| figure.psnr),
                            paper_ssim: figure.and_then(|figure| figure.ssim),
                            mean,
                        });
                    }
                }
            }
        }
        let all = All {
            suite: &self.suite.name,
            title: &self.suite.title,
            version: env!("CARGO_PKG_VERSION"),
            engine: &self.engine,
            notes: &self.notes,
            footnotes: self.footnotes(),
            methods: &self.methods,
            means,
            cells: &self.entries,
        };
        let text = serde_json::to_string_pretty(&all).map_err(|error| Error::Numeric(error.to_string()))?;
        Ok(text + "\n")
    }

    /// Writes the four reports, called as the suite, into `folder`; their paths.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let reports =
            [("csv", self.csv()), ("json", self.json()?), ("md", self.markdown()), ("html", html::report(self))];
        let mut paths = Vec::new();
        for (extension, text) in reports {
            let path = folder.join(format!("{}.{extension}", self.suite.name));
            whole::write(&path, |file| file.write_all(text.as_bytes())).map_err(|error| Error::io(&path, error))?;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Ours minus the paper's, where both are known.
fn difference(ours: Value, paper: Value) -> Option<Value> {
    let minus = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
    let psnr = Some(minus(ours.psnr, paper.psnr)?);
    Some(Value { psnr, ssim: minus(ours.ssim, paper.ssim), consistency: None, partial: ours.partial })
}

/// With so many digits and its sign, but without one where nothing is left of the number.
fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:+.digits$}");
    if text[1..].chars().all(|c| c == '0' || c == '.') { text[1..].to_owned() } else { text }
}

/// PSNR and SSIM as text, or without truth the consistency, and a star where pictures failed.
pub(super) fn parts(value: &Value, kind: LineKind) -> (String, String) {
    let differs = kind == LineKind::Difference;
    let main = match (value.psnr, value.consistency) {
        (Some(psnr), _) if !psnr.is_finite() => "∞".to_owned(),
        (Some(psnr), _) if differs => signed(psnr, 2),
        (Some(psnr), _) => format!("{psnr:.2}"),
        (None, Some(consistency)) => format!("{consistency:.2}"),
        (None, None) => String::new(),
    };
    let second = match value.ssim {
        Some(ssim) if differs => signed(ssim, 4),
        Some(ssim) => format!("{ssim:.4}"),
        None => String::new(),
    };
    let star = if value.partial { "*" } else { "" };
    if second.is_empty() { (main + star, second) } else { (main, second + star) }
}

/// A cell as text: `33.74 0.9301`.
fn cell(value: &Value, kind: LineKind) -> String {
    let (main, second) = parts(value, kind);
    if second.is_empty() { main } else { format!("{main} {second}") }
}

/// Parameters: `225 k`.
pub(super) fn thousands(count: usize) -> String {
    if count == 0 { "0".to_owned() } else { format!("{} k", (count + 500) / 1000) }
}

/// Seconds with as many digits as mean something.
pub(super) fn seconds(value: f64) -> String {
    match value {
        v if v < 0.0995 => format!("{v:.3}"),
        v if v < 9.95 => format!("{v:.2}"),
        v if v < 99.5 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures, two methods; the second method failed on one.
    fn results() -> Results {
        let text = "title = \"T\"\npaper = \"kernels\"\nsets = [\"Set5\"]\n[[degradation]]\nname = \"g2.0 d\"\n\
                    scale = 2\nkernel = \"gaussian:2.0\"\n[[method]]\nname = \"Bicubic\"\nkind = \"bicubic\"\n\
                    [[method]]\nname = \"mine\"\nkind = \"aligned\"\n[[row]]\nname = \"USRNet-tiny\"\nset = \"Set5\"\n\
                    parameters = 590000\nnote = \"elsewhere\"\npsnr = { \"g2.0 d\" = 37.05 }\n";
        let suite = Suite::parse(text, "s").unwrap();
        let mut results = Results::new(&suite, "cpu".into(), vec!["a note".into()]);
        results.add_column("g2.0 d", &suite.degradation[0].degradation().unwrap());
        results.sets.push("Set5".into());
        for spec in suite.methods() {
            results.methods.push(MethodInfo::new(&spec, 0, None, String::new()));
        }
        for (method, image, psnr) in
            [("Bicubic", "a", Some(28.0)), ("Bicubic", "b", Some(30.0)), ("mine", "a", Some(40.0)), ("mine", "b", None)]
        {
            results.entries.push(Entry {
                set: "Set5".into(),
                degradation: "g2.0 d".into(),
                method: method.into(),
                image: image.into(),
                scores: psnr.map(|psnr| Scores { psnr: Some(psnr), ssim: 0.5 }),
                consistency: psnr.map(|_| 1.0),
                error: psnr.is_none().then(|| "b: is, \"broken\"".into()),
                seconds: psnr.map(|_| 0.25),
            });
        }
        results
    }

    #[test]
    fn means_differences_and_failures() {
        let results = results();
        let mean = results.mean("Set5", "g2.0 d", "Bicubic").unwrap();
        assert_eq!((mean.psnr, mean.pictures, mean.failed), (Some(29.0), 2, 0));
        let mean = results.mean("Set5", "g2.0 d", "mine").unwrap();
        assert_eq!((mean.psnr, mean.pictures, mean.failed), (Some(40.0), 1, 1));
        assert_eq!(results.failed(), (1, 4));
        let lines = results.lines("Set5");
        let of = |label: &str| {
            let line = lines.iter().find(|line| line.label == label).unwrap();
            results.cells(line)[2].clone()
        };
        assert_eq!(of("Bicubic"), "29.00 0.5000");
        assert_eq!(of("paper"), "28.73 0.8449");
        assert_eq!(of("difference"), "+0.27 -0.3449");
        assert_eq!(of("mine"), "40.00 0.5000*");
        assert_eq!(of("USRNet-tiny †"), "37.05");
        assert_eq!(of("RCAN (paper)"), "29.15 0.8601");
        assert!(!lines.iter().any(|line| line.label == "Bicubic (paper)"));
        let text = results.text();
        assert!(text.contains("* 1 of 4 cells failed") && text.contains("alignment alone"), "{text}");
        let csv = results.csv();
        assert!(csv.contains("Set5,g2.0 d,2,Bicubic,(mean),0,29.0000,0.500000,1.0000,28.73,0.8449,0.2700,,0.2500"));
        assert!(csv.contains("\"b: is, \"\"broken\"\"\""), "{csv}");
        let columns = csv.lines().next().unwrap().split(',').count();
        assert!(csv.lines().filter(|line| !line.contains('"')).all(|line| line.split(',').count() == columns));
        let json: serde_json::Value = serde_json::from_str(&results.json().unwrap()).unwrap();
        assert_eq!(
            (json["means"][0]["paper_psnr"].as_f64(), json["cells"][3]["error"].is_string()),
            (Some(28.73), true)
        );
        let markdown = results.markdown();
        assert!(markdown.contains("| **Bicubic** | 0 | 29.00 0.5000 |"), "{markdown}");
    }

    #[test]
    fn identical_pictures_are_infinitely_close() {
        let mut results = results();
        results.entries.iter_mut().for_each(|entry| entry.scores = Some(Scores { psnr: None, ssim: 1.0 }));
        assert_eq!(results.mean("Set5", "g2.0 d", "Bicubic").unwrap().psnr, Some(f64::INFINITY));
        assert!(results.text().contains("∞ 1.0000") && results.csv().contains(",inf,1.000000"));
        results.json().unwrap();
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 225_475, 1_592_000].map(thousands), ["0", "225 k", "1592 k"]);
        assert_eq!([signed(0.123, 2), signed(-0.001, 2), signed(0.00004, 4)], ["+0.12", "0.00", "0.0000"]);
        assert_eq!([0.0123, 0.36, 12.34, 142.72].map(seconds), ["0.012", "0.36", "12.3", "143"]);
    }
}
