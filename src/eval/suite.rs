//! What is evaluated, as a TOML file; everything that can be checked is checked before any work.
//!
//! ```toml
//! title = "Blur kernels, ×2"      # required
//! about = "A sentence or two."    # for the reports
//! paper = "kernels"               # the paper's table that stands beside ours; default: none
//! sets = ["Set5"]                 # folders under --data; or { name = "drawn", draw = 512 }, a
//!                                 # picture of 512 × 512 pixels drawn by the program
//! more_sets = ["BSD100"]          # only with --set
//! ground_truth = true             # false: the pictures are the small ones, nothing is scored but
//!                                 # how well the results explain them
//! pictures = 2                    # pictures of each set that the HTML report shows
//! repeats = 1                     # runs of each cell; the median time counts
//!
//! [[degradation]]
//! name = "g2.0 d"                 # required, as in the paper where it is one of its own
//! scale = 2                       # required, 1 to 4
//! kernel = "gaussian:2.0"         # SPEC as for `mzsr upscale`; default "none"
//! downsample = "direct"           # or "bicubic"; default: direct with a kernel
//!
//! [[method]]
//! name = "MZSR(10)"               # required
//! kind = "mzsr"                   # bicubic, aligned, least-squares, mzsr, zssr, fine-tune or
//!                                 # onnx:FILE; required
//! weights = "bicubic-x2"          # of mzsr and fine-tune: a built-in name or a file; default for
//!                                 # mzsr: the built-in ones that fit the degradation best
//! start = "bicubic"               # of mzsr without weights: the best of those that begin so, "bicubic" or
//!                                 # "least-squares"
//! updates = 10                    # of mzsr: one number, or a list (then {} in the name is each);
//!                                 # default: what the weights were trained for, or 10
//! rates = [0.02, 0.01]            # of mzsr: by update; default: what the weights say
//! steps = 3000                    # of zssr and fine-tune: at most so many
//! seed = 1                        # of zssr and fine-tune
//! paper = "MZSR(10)"              # the paper's row that stands beside it; default: its own name
//! sets = ["Set5"]                 # where it runs unless --method names it; default: everywhere
//! degradations = ["g2.0 d"]       # default: all
//! optional = true                 # left out with a note where its file is missing
//!
//! [[row]]                         # figures from elsewhere
//! name = "USRNet-tiny"            # required
//! set = "Set5"                    # required
//! parameters = 590000
//! note = "where they come from"   # required
//! psnr = { "g2.0 d" = 37.05 }     # required
//! ```

use crate::degrade::{Degradation, Downsample, MAX_SCALE, Start};
use crate::kernel::KernelSpec;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

/// The most updates, steps or repeats that a suite may ask for.
const MAX_COUNT: usize = 100_000;
/// The sides that a drawn picture may have.
const DRAWN: std::ops::RangeInclusive<usize> = 32..=4096;

/// A whole suite; see the [module](self) for the file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The file's name without its extension: what the reports are called.
    #[serde(skip)]
    pub name: String,
    /// For people.
    pub title: String,
    /// For people too.
    #[serde(default)]
    pub about: String,
    /// The paper's table.
    pub paper: Option<String>,
    /// Sets that are always evaluated.
    pub sets: Vec<Set>,
    /// Sets that are evaluated when asked for.
    #[serde(default)]
    pub more_sets: Vec<Set>,
    /// Whether the pictures are the true ones.
    #[serde(default = "yes")]
    pub ground_truth: bool,
    /// Pictures of each set in the HTML report.
    #[serde(default = "two")]
    pub pictures: usize,
    /// Runs of each cell.
    #[serde(default = "one")]
    pub repeats: usize,
    /// The degradations, in the order of the columns.
    pub degradation: Vec<DegradationSpec>,
    /// The methods, in the order of the rows.
    pub method: Vec<MethodSpec>,
    /// Rows from elsewhere.
    #[serde(default)]
    pub row: Vec<Row>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

/// A set of pictures.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Set {
    /// A folder under the data folder.
    Folder(String),
    /// A picture that the program draws.
    Drawn(Drawn),
}

/// A picture that the program draws.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// What the set is called.
    pub name: String,
    /// Rows and columns.
    pub draw: usize,
}

impl Set {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Set::Folder(name) => name,
            Set::Drawn(drawn) => &drawn.name,
        }
    }
}

/// A degradation by name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradationSpec {
    /// The column's name.
    pub name: String,
    /// The scale.
    pub scale: f64,
    /// The kernel's SPEC.
    #[serde(default = "no_kernel")]
    pub kernel: String,
    /// `direct` or `bicubic`.
    pub downsample: Option<String>,
}

fn no_kernel() -> String {
    "none".to_owned()
}

/// One number, or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// One.
    One(usize),
    /// Several: as many rows.
    Many(Vec<usize>),
}

/// A method as the suite names it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodSpec {
    /// The row's name.
    pub name: String,
    /// The name before a list of updates was taken apart.
    #[serde(skip)]
    pub family: String,
    /// What it does.
    pub kind: String,
    /// A built-in name or a file.
    pub weights: Option<String>,
    /// How the built-in ones of `mzsr` begin, where none are named.
    pub start: Option<Start>,
    /// Gradient steps of `mzsr`.
    pub updates: Option<Counts>,
    /// Their rates.
    pub rates: Option<Vec<f64>>,
    /// Steps of `zssr` and `fine-tune`.
    pub steps: Option<usize>,
    /// Of `zssr` and `fine-tune`.
    pub seed: Option<u64>,
    /// The paper's row.
    pub paper: Option<String>,
    /// Where it runs by default.
    pub sets: Option<Vec<String>>,
    /// What it runs on.
    pub degradations: Option<Vec<String>>,
    /// Whether a missing file is no error.
    #[serde(default)]
    pub optional: bool,
}

/// Figures from elsewhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The row's name.
    pub name: String,
    /// The set that they are of.
    pub set: String,
    /// The number of weights, if known.
    pub parameters: Option<usize>,
    /// Where they come from.
    pub note: String,
    /// Mean PSNR in dB by degradation.
    pub psnr: BTreeMap<String, f64>,
}

/// What a method does, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The `imresize` upscale.
    Bicubic,
    /// The cubic upscale on the degradation's grid.
    Aligned,
    /// What explains the small picture best.
    LeastSquares,
    /// A network that adapts itself in a few updates.
    Mzsr,
    /// A network that is trained on the small picture alone.
    Zssr,
    /// A trained network that is trained on.
    FineTune,
    /// A network from an ONNX file.
    Onnx(String),
}

impl MethodSpec {
    /// What it does.
    ///
    /// # Errors
    /// A kind that is not known.
    pub fn kind(&self) -> Result<Kind> {
        Ok(match self.kind.as_str() {
            "bicubic" => Kind::Bicubic,
            "aligned" => Kind::Aligned,
            "least-squares" => Kind::LeastSquares,
            "mzsr" => Kind::Mzsr,
            "zssr" => Kind::Zssr,
            "fine-tune" => Kind::FineTune,
            other => match other.strip_prefix("onnx:") {
                Some(file) if !file.is_empty() => Kind::Onnx(file.to_owned()),
                _ => {
                    return Err(Error::input(format!(
                        "kind '{other}' is not known; use bicubic, aligned, least-squares, mzsr, zssr, fine-tune or \
                         onnx:FILE"
                    )));
                }
            },
        })
    }

    /// What is wrong with it.
    fn check(&self) -> Result<()> {
        let kind = self.kind()?;
        let trains = matches!(kind, Kind::Zssr | Kind::FineTune);
        let given = [
            ("weights", self.weights.is_some(), matches!(kind, Kind::Mzsr | Kind::FineTune)),
            ("start", self.start.is_some(), kind == Kind::Mzsr && self.weights.is_none()),
            ("updates", self.updates.is_some(), kind == Kind::Mzsr),
            ("rates", self.rates.is_some(), kind == Kind::Mzsr),
            ("steps", self.steps.is_some(), trains),
            ("seed", self.seed.is_some(), trains),
        ];
        if let Some((key, ..)) = given.iter().find(|(_, given, fits)| *given && !fits) {
            return Err(Error::input(format!("{key} is not for kind {}: take it out", self.kind)));
        }
        if kind == Kind::FineTune && self.weights.is_none() {
            return Err(Error::input("fine-tune needs weights: a built-in name or a file"));
        }
        let mut counts = match &self.updates {
            None => Vec::new(),
            Some(Counts::One(count)) => vec![*count],
            Some(Counts::Many(counts)) if counts.is_empty() => return Err(Error::input("updates is an empty list")),
            Some(Counts::Many(counts)) => {
                if !self.name.contains("{}") {
                    return Err(Error::input("with a list of updates the name needs {} where the number goes"));
                }
                counts.clone()
            }
        };
        counts.extend(self.steps);
        if let Some(count) = counts.iter().find(|&&count| count > MAX_COUNT) {
            return Err(Error::input(format!("{count} updates or steps are more than {MAX_COUNT}")));
        }
        if self.steps == Some(0) {
            return Err(Error::input("steps 0: at least one is needed"));
        }
        if let Some(wrong) = self.rates.iter().flatten().find(|rate| !(rate.is_finite() && **rate >= 0.0)) {
            return Err(Error::input(format!("rate {wrong}: a number of at least 0 is needed")));
        }
        Ok(())
    }
}

impl DegradationSpec {
    /// D.
    ///
    /// # Errors
    /// A kernel that cannot be read, or a combination that makes no sense.
    pub fn degradation(&self) -> Result<Degradation> {
        let kernel = KernelSpec::parse(&self.kernel)?.load()?.kernel;
        let downsample = match &self.downsample {
            Some(text) => text.parse()?,
            None if kernel.is_some() => Downsample::Direct,
            None => Downsample::Bicubic,
        };
        if !(1.0..=MAX_SCALE).contains(&self.scale) {
            return Err(Error::input(format!("scale {} is outside 1 to {MAX_SCALE}", self.scale)));
        }
        if kernel.is_none() && downsample == Downsample::Direct {
            return Err(Error::input("direct downsampling needs a kernel, for example kernel = \"gaussian:2.0\""));
        }
        Degradation::new(self.scale, kernel, downsample)
    }
}

impl Suite {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, or something that [`Suite::check`] refuses; the
    /// message names the file and the place.
    pub fn read(path: &Path) -> Result<Suite> {
        let text = fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        let name = path.file_stem().map_or_else(|| "suite".into(), |stem| stem.to_string_lossy().into_owned());
        Suite::parse(&text, &name).map_err(|error| Error::file(path, error.to_string()))
    }

    /// Reads and checks a text; `name` is what the reports will be called.
    ///
    /// # Errors
    /// As [`Suite::read`].
    pub fn parse(text: &str, name: &str) -> Result<Suite> {
        let mut suite: Suite = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let what = error.message().replace('\n', " ");
            Error::input(format!("line {line}: {what}"))
        })?;
        suite.name = name.to_owned();
        suite.check()?;
        Ok(suite)
    }

    /// Whether it makes sense by itself: names, kinds, degradations, numbers.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        if self.sets.is_empty() {
            return Err(Error::input("sets is empty: name at least one"));
        }
        if self.degradation.is_empty() || self.method.is_empty() {
            return Err(Error::input("at least one [[degradation]] and one [[method]] are needed"));
        }
        for set in self.sets.iter().chain(&self.more_sets) {
            if let Set::Drawn(drawn) = set
                && !DRAWN.contains(&drawn.draw)
            {
                let (least, most) = (DRAWN.start(), DRAWN.end());
                return Err(Error::input(format!(
                    "set {}: draw {} is outside {least} to {most}",
                    drawn.name, drawn.draw
                )));
            }
        }
        if !(1..=MAX_COUNT).contains(&self.repeats) {
            return Err(Error::input(format!("repeats {}: a number from 1 to {MAX_COUNT} is needed", self.repeats)));
        }
        unique("set", self.sets.iter().chain(&self.more_sets).map(Set::name))?;
        unique("degradation", self.degradation.iter().map(|spec| spec.name.as_str()))?;
        unique("method", self.method.iter().map(|spec| spec.name.as_str()))?;
        let columns: HashSet<&str> = self.degradation.iter().map(|spec| spec.name.as_str()).collect();
        for spec in &self.degradation {
            spec.degradation().map_err(|error| Error::input(format!("degradation '{}': {error}", spec.name)))?;
        }
        for spec in &self.method {
            let about = |error: Error| Error::input(format!("method '{}': {error}", spec.name));
            spec.check().map_err(about)?;
            if let Some(odd) = spec.degradations.iter().flatten().find(|name| !columns.contains(name.as_str())) {
                return Err(about(Error::input(format!("there is no degradation '{odd}' in this suite"))));
            }
        }
        for row in &self.row {
            if let Some(odd) = row.psnr.keys().find(|name| !columns.contains(name.as_str())) {
                return Err(Error::input(format!("row '{}': there is no degradation '{odd}' in this suite", row.name)));
            }
        }
        if let Some(table) = self.paper.as_ref().filter(|table| !super::paper::has_table(table)) {
            return Err(Error::input(format!("paper '{table}' is not one of: {}", super::paper::TABLES.join(", "))));
        }
        Ok(())
    }

    /// The methods, those with a list of updates taken apart.
    pub fn methods(&self) -> Vec<MethodSpec> {
        let mut all = Vec::new();
        for spec in &self.method {
            match &spec.updates {
                Some(Counts::Many(counts)) => all.extend(counts.iter().map(|&count| {
                    let named = |text: &String| text.replace("{}", &count.to_string());
                    MethodSpec {
                        name: named(&spec.name),
                        family: spec.name.clone(),
                        paper: spec.paper.as_ref().map(named),
                        updates: Some(Counts::One(count)),
                        ..spec.clone()
                    }
                })),
                _ => all.push(MethodSpec { family: spec.name.clone(), ..spec.clone() }),
            }
        }
        all
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(Error::input(format!("a {what} without a name")));
        }
        if !seen.insert(name) {
            return Err(Error::input(format!("{what} '{name}' is there twice: give the second another name")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "title = \"t\"\nsets = [\"Set5\"]\n[[degradation]]\nname = \"g2.0 d\"\nscale = 2\n\
                        kernel = \"gaussian:2.0\"\n";

    fn error(text: &str) -> String {
        Suite::parse(text, "s").unwrap_err().to_string()
    }

    #[test]
    fn a_list_of_updates_becomes_rows() {
        let text =
            format!("{HEAD}[[method]]\nname = \"MZSR({{}})\"\nkind = \"mzsr\"\nupdates = [0, 1]\npaper = \"M({{}})\"");
        let suite = Suite::parse(&text, "s").unwrap();
        let names: Vec<_> = suite.methods().into_iter().map(|m| (m.name, m.paper.unwrap())).collect();
        assert_eq!(names, [("MZSR(0)".into(), "M(0)".into()), ("MZSR(1)".into(), "M(1)".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let method = |rest: &str| format!("{HEAD}[[method]]\nname = \"m\"\n{rest}");
        for (text, said) in [
            (method("kind = \"bicubic\"\ncolour = 1"), "unknown field `colour`"),
            (method("kind = \"bicubic\"\ncolour = 1"), "line 10"),
            (method("kind = \"magic\""), "method 'm': kind 'magic' is not known; use bicubic"),
            (method("kind = \"onnx:\""), "is not known"),
            (method("kind = \"bicubic\"\nweights = \"w\""), "weights is not for kind bicubic"),
            (method("kind = \"mzsr\"\nupdates = [1]"), "needs {}"),
            (method("kind = \"mzsr\"\nrates = [-1.0]"), "rate -1"),
            (method("kind = \"bicubic\"\nstart = \"bicubic\""), "start is not for kind bicubic"),
            (method("kind = \"fine-tune\""), "needs weights"),
            (method("kind = \"zssr\"\nsteps = 0"), "steps 0"),
            (method("kind = \"bicubic\"\ndegradations = [\"x\"]"), "no degradation 'x'"),
            (method("kind = \"bicubic\"\n[[method]]\nname = \"m\"\nkind = \"aligned\""), "'m' is there twice"),
            (HEAD.to_owned(), "missing field `method`"),
            (format!("paper = \"no\"\n{}", method("kind = \"bicubic\"")), "paper 'no' is not one of: bicubic"),
            (method("kind = \"bicubic\"").replace("scale = 2", "scale = 7"), "scale 7 is outside 1 to 4"),
            (method("kind = \"bicubic\"").replace("\"Set5\"", "{ name = \"d\", draw = 5 }"), "draw 5 is outside"),
            (method("kind = \"bicubic\"").replace("[\"Set5\"]", "[]"), "sets is empty"),
        ] {
            let error = error(&text);
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
        let direct = method("kind = \"bicubic\"").replace("kernel = \"gaussian:2.0\"", "downsample = \"direct\"");
        assert!(error(&direct).contains("direct downsampling needs a kernel"));
    }
}
