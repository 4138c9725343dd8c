//! All cells of a suite, one after the other.

use super::cache::{Cache, Cell, Key, Scores};
use super::method::Method;
use super::picture;
use super::results::{Entry, MethodInfo, Results, Shown};
use super::sets::{draw, find};
use super::suite::{MethodSpec, Set, Suite};
use crate::degrade::Degradation;
use crate::engine::Engine;
use crate::image::Photo;
use crate::score::{Preset, cropped, score};
use crate::{Error, Raster, Result};
use std::path::PathBuf;
use std::time::Instant;

/// What a suite leaves to the one who runs it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder of the data sets.
    pub data: PathBuf,
    /// Where the reports and the cells go.
    pub output: PathBuf,
    /// Further folders in which weights and ONNX files are looked for.
    pub models: Vec<PathBuf>,
    /// Whether cells of earlier runs are taken as they are.
    pub resume: bool,
    /// Only these sets; those of the suite if empty.
    pub sets: Vec<String>,
    /// Only these methods, wherever the suite would leave them out; all if empty.
    pub methods: Vec<String>,
    /// Only these degradations; all if empty.
    pub degradations: Vec<String>,
}

/// What happens during an evaluation.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something to know, in a line.
    Note(&'a str),
    /// Work begins: the number of cells.
    Begin(usize),
    /// A cell is being computed; the share of it that is done.
    Working(&'a str, f64),
    /// A cell is there.
    Done {
        /// Set, degradation, picture and method.
        name: &'a str,
        /// The result.
        cell: &'a Cell,
        /// Whether an earlier run computed it.
        kept: bool,
        /// Seconds that are left, about; none until something was computed.
        left: Option<f64>,
    },
    /// A cell, or a whole picture, could not be computed.
    Failed(&'a str, &'a Error),
}

/// A column made ready.
struct Column {
    name: String,
    degradation: Degradation,
    /// A method for each of the suite's, where it runs.
    methods: Vec<Option<Method>>,
}

/// A set made ready.
struct Ready {
    name: String,
    files: Vec<(String, Source)>,
}

enum Source {
    File(PathBuf),
    Drawn(usize),
}

/// Computes all cells. Everything that can be wrong with the suite, its files and its data sets is
/// found before the first cell; a picture that fails is reported and the rest goes on.
///
/// # Errors
/// A suite, weights or a data set that cannot be used, or a cell that cannot be kept.
pub fn run<E: Engine<Elem = f32>>(
    engine: &E,
    suite: &Suite,
    options: &Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Results> {
    let methods = chosen_methods(suite, options)?;
    let mut notes = Vec::new();
    let columns = columns(suite, options, &methods, &mut notes)?;
    let sets = sets(suite, options, &mut notes)?;
    notes.iter().for_each(|note| observe(Event::Note(note)));
    let cache = Cache::open(&options.output.join("cache"))?;
    let mut results = Results::new(suite, engine.name(), notes);
    for column in &columns {
        results.add_column(&column.name, &column.degradation);
    }
    for (m, spec) in methods.iter().enumerate() {
        let ready: Vec<&Method> = columns.iter().filter_map(|column| column.methods[m].as_ref()).collect();
        let Some(first) = ready.first() else { continue };
        let (parameters, updates) = (first.parameters, first.updates());
        let mut details: Vec<&str> = ready.iter().map(|method| method.detail.as_str()).collect();
        details.dedup();
        results.methods.push(MethodInfo::new(spec, parameters, updates, details.join("; ")));
    }
    let runs = |spec: &MethodSpec, set: &str| {
        !options.methods.is_empty() || spec.sets.as_ref().is_none_or(|sets| sets.iter().any(|name| name == set))
    };
    let cost = |set: &Ready| -> (usize, f64) {
        let each = columns.iter().flat_map(|column| column.methods.iter().zip(&methods));
        let run = each.filter_map(|(method, spec)| method.as_ref().filter(|_| runs(spec, &set.name)));
        let costs: Vec<f64> = run.map(|method| method.cost).collect();
        (costs.len() * set.files.len(), costs.iter().sum::<f64>() * set.files.len() as f64)
    };
    let (cells, total) = sets.iter().map(cost).fold((0, 0.0), |(a, b), (c, d)| (a + c, b + d));
    observe(Event::Begin(cells));
    let (mut done, mut computed, begun) = (0.0, 0.0, Instant::now());
    for set in &sets {
        results.sets.push(set.name.clone());
        for (index, (image, source)) in set.files.iter().enumerate() {
            let picture = match source {
                Source::Drawn(size) => Ok(draw(*size)),
                Source::File(path) => Photo::read(path).map(|photo| photo.rgb8()),
            };
            for column in &columns {
                let prepared = match &picture {
                    Ok(picture) => prepare(suite, picture, &column.degradation),
                    Err(error) => Err(Error::input(error.to_string())),
                };
                let mut shown = None;
                for (m, spec) in methods.iter().enumerate() {
                    let Some(method) = column.methods[m].as_ref().filter(|_| runs(spec, &set.name)) else { continue };
                    let name = format!("{} {} {image} {}", set.name, column.name, spec.name);
                    let made = match &prepared {
                        Ok(task) => {
                            let key = Key::new(
                                &task.picture,
                                suite.ground_truth,
                                &column.degradation,
                                &method.identity,
                                suite.repeats,
                            );
                            let mut watch = |share| observe(Event::Working(&name, share));
                            match options.resume.then(|| cache.get(&key)).flatten() {
                                Some(cell) => Ok((cell, true)),
                                None => compute(engine, suite, task, column, method, &mut watch).and_then(|cell| {
                                    cache.put(&key, &cell)?;
                                    Ok((cell, false))
                                }),
                            }
                        }
                        Err(error) => Err(Error::input(error.to_string())),
                    };
                    done += method.cost;
                    let mut entry = Entry {
                        set: set.name.clone(),
                        image: image.clone(),
                        degradation: column.name.clone(),
                        method: spec.name.clone(),
                        scores: None,
                        consistency: None,
                        seconds: None,
                        error: None,
                    };
                    match made {
                        Ok((cell, kept)) => {
                            if !kept {
                                computed += method.cost;
                            }
                            let rate = begun.elapsed().as_secs_f64() / computed;
                            let left = Some((total - done).max(0.0) * rate).filter(|left| left.is_finite());
                            observe(Event::Done { name: &name, cell: &cell, kept, left });
                            entry.scores = cell.scores;
                            entry.consistency = Some(cell.consistency);
                            entry.seconds = Some(cell.seconds);
                            if index < suite.pictures
                                && let Ok(task) = &prepared
                            {
                                let shown = match &mut shown {
                                    Some(shown) => shown,
                                    none => none.insert(Shown::new(&set.name, image, &column.name, task)?),
                                };
                                shown.crops.push((spec.name.clone(), cell.crop, cell.scores));
                            }
                        }
                        Err(error) => {
                            observe(Event::Failed(&name, &error));
                            entry.error = Some(error.to_string());
                        }
                    }
                    results.entries.push(entry);
                }
                results.shown.extend(shown);
            }
        }
    }
    Ok(results)
}

/// What a column makes of a picture.
pub(super) struct Task {
    /// The true picture cut to whole cells, or without truth the small one.
    pub picture: Raster<u8>,
    /// What the methods see.
    pub low: Raster<u8>,
    /// The part that is shown: top, left, height, width of the large picture.
    pub part: (usize, usize, usize, usize),
    /// Whether there is a truth.
    pub truth: bool,
    /// The scale.
    pub scale: f64,
}

/// Light clipped to [0, 1] and rounded to 8 bits.
fn eight_bits(image: &Raster<f64>) -> Raster<u8> {
    image.map(|v| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
}

fn light(image: &Raster<u8>) -> Raster<f64> {
    image.map(|v| f64::from(v) / 255.0)
}

fn prepare(suite: &Suite, picture: &Raster<u8>, degradation: &Degradation) -> Result<Task> {
    let scale = degradation.scale();
    if !suite.ground_truth {
        let (y, x, height, width) = picture::part(picture);
        let up = |v: usize| (v as f64 * scale) as usize;
        // As many pixels of the result as elsewhere: the middle of the part.
        let (tall, wide) = (height.min(up(height)), width.min(up(width)));
        let part = (up(y) + (up(height) - tall) / 2, up(x) + (up(width) - wide) / 2, tall, wide);
        return Ok(Task { picture: picture.clone(), low: picture.clone(), part, truth: false, scale });
    }
    let high = picture.crop(0, 0, cropped(picture.height, scale), cropped(picture.width, scale));
    if high.data.is_empty() {
        return Err(Error::input(format!("{} x {} pixels are too few", picture.width, picture.height)));
    }
    if let Some(kernel) = degradation.kernel() {
        kernel.check_fits(high.height, high.width)?;
    }
    let low = eight_bits(&degradation.apply(&light(&high)));
    let part = picture::part(&high);
    Ok(Task { picture: high, low, part, truth: true, scale })
}

fn compute<E: Engine<Elem = f32>>(
    engine: &E,
    suite: &Suite,
    task: &Task,
    column: &Column,
    method: &Method,
    progress: &mut dyn FnMut(f64),
) -> Result<Cell> {
    let degradation = &column.degradation;
    let mut times = Vec::with_capacity(suite.repeats);
    let mut result = Raster::new(0, 0, 3);
    for repeat in 0..suite.repeats {
        let start = Instant::now();
        let mut share = |share: f64| progress((repeat as f64 + share) / suite.repeats as f64);
        result = method.apply(engine, &task.low, degradation, &mut share)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let scores = match task.truth {
        true => {
            let score = score(&result, &task.picture, degradation.scale(), Preset::Mzsr)?;
            Some(Scores { psnr: score.psnr.is_finite().then_some(score.psnr), ssim: score.ssim })
        }
        false => None,
    };
    let crop = picture::png(&picture::cut(&result, task.part))?;
    Ok(Cell {
        scores,
        consistency: consistency(&result, &task.low, degradation),
        seconds: times[times.len() / 2],
        engine: engine.name(),
        crop,
    })
}

/// The root mean square of D(result) − low, in 8-bit levels, over what both have.
fn consistency(result: &Raster<u8>, low: &Raster<u8>, degradation: &Degradation) -> f64 {
    let made = degradation.apply(&light(result));
    let (height, width) = (made.height.min(low.height), made.width.min(low.width));
    let (made, low) = (made.crop(0, 0, height, width), low.crop(0, 0, height, width));
    let sum: f64 = made.data.iter().zip(&low.data).map(|(d, &y)| (d * 255.0 - f64::from(y)).powi(2)).sum();
    (sum / made.data.len() as f64).sqrt()
}

fn chosen_methods(suite: &Suite, options: &Options) -> Result<Vec<MethodSpec>> {
    let all = suite.methods();
    let names: Vec<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
    for wanted in &options.methods {
        if !names.contains(&wanted.as_str()) {
            return Err(Error::input(format!("--method {wanted} is not in this suite: {}", names.join(", "))));
        }
    }
    let wanted = |spec: &MethodSpec| options.methods.is_empty() || options.methods.contains(&spec.name);
    Ok(all.iter().filter(|spec| wanted(spec)).cloned().collect())
}

fn columns(suite: &Suite, options: &Options, methods: &[MethodSpec], notes: &mut Vec<String>) -> Result<Vec<Column>> {
    let names: Vec<&str> = suite.degradation.iter().map(|spec| spec.name.as_str()).collect();
    if let Some(wanted) = options.degradations.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        return Err(Error::input(format!("--degradation {wanted} is not in this suite: {}", names.join(", "))));
    }
    let wanted = |name: &String| options.degradations.is_empty() || options.degradations.contains(name);
    let mut columns = Vec::new();
    for column in suite.degradation.iter().filter(|column| wanted(&column.name)) {
        let degradation = column.degradation()?;
        let mut ready = Vec::with_capacity(methods.len());
        for spec in methods {
            let runs = spec.degradations.as_ref().is_none_or(|names| names.contains(&column.name));
            let method = match runs {
                true => {
                    let made = Method::prepare(spec, &degradation, &options.models);
                    made.map_err(|error| match error {
                        Error::Input(text) => Error::Input(format!("method '{}': {text}", spec.name)),
                        other => other,
                    })?
                }
                false => None,
            };
            let note = match &method {
                None if runs => Some(format!("{}: left out, its file is not there (--models DIR)", spec.name)),
                // It names the weights; many methods and columns would only repeat it.
                Some(Method { warning: Some(warning), .. }) => Some(warning.clone()),
                _ => None,
            };
            if let Some(note) = note.filter(|note| !notes.contains(note)) {
                notes.push(note);
            }
            ready.push(method);
        }
        columns.push(Column { name: column.name.clone(), degradation, methods: ready });
    }
    Ok(columns)
}

fn sets(suite: &Suite, options: &Options, notes: &mut Vec<String>) -> Result<Vec<Ready>> {
    let known = || suite.sets.iter().chain(&suite.more_sets);
    let wanted: Vec<Set> = if options.sets.is_empty() {
        suite.sets.clone()
    } else {
        let named = |name: &String| known().find(|set| set.name() == name).cloned();
        options.sets.iter().map(|name| named(name).unwrap_or_else(|| Set::Folder(name.clone()))).collect()
    };
    let mut ready = Vec::new();
    for set in wanted {
        let files = match &set {
            Set::Drawn(drawn) => vec![(format!("{0} x {0}", drawn.draw), Source::Drawn(drawn.draw))],
            Set::Folder(name) => {
                let found = find(&options.data, name)?;
                notes.extend(found.note);
                let name = |path: &PathBuf| path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
                found.files.into_iter().map(|path| (name(&path), Source::File(path))).collect()
            }
        };
        ready.push(Ready { name: set.name().to_owned(), files });
    }
    Ok(ready)
}
