//! A method made ready: its files read, what identifies it known, one call away from a result.

use super::onnx;
use super::suite::{Counts, Kind, MethodSpec};
use super::trained::Training;
use crate::adapt::photo::{Adaptation, Method as Way, Request, upscale};
use crate::adapt::{DEFAULT_UPDATES, Rates};
use crate::degrade::{Degradation, LeastSquares, Start};
use crate::engine::Engine;
use crate::image::{Format, Photo, PixelKind};
use crate::network::Architecture;
use crate::network::weights::{Weights, builtin};
use crate::{Error, Raster, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of memory that a restoration stays under.
const MEMORY: u64 = 4 << 30;
/// Steps of ZSSR at most, and of fine-tuning.
const STEPS: [usize; 2] = [3000, 2000];
/// Adam's first rates: from random weights as published; a tenth where there is much to forget.
const RATES: [f64; 2] = [1e-3, 1e-4];

/// A method for one degradation.
#[derive(Clone, Debug)]
pub struct Method {
    /// What is done.
    action: Action,
    /// What identifies it, files included.
    pub identity: [u8; 32],
    /// The number of weights; 0 where there are none.
    pub parameters: usize,
    /// What it is, for people: `weights bicubic-x2, 10 updates`.
    pub detail: String,
    /// Something to know about it.
    pub warning: Option<String>,
    /// How much work it is beside the others, about.
    pub cost: f64,
}

#[derive(Clone, Debug)]
enum Action {
    Bicubic,
    Aligned,
    LeastSquares(LeastSquares),
    Mzsr { weights: Arc<Weights>, updates: usize, rates: Rates },
    Onnx(Arc<onnx::Network>),
    Trained { architecture: Architecture, initial: Option<Arc<Weights>>, steps: usize, rate: f64, seed: u64 },
}

/// Where a file of a method is: as it is named, beside the suite, or below one of the folders.
pub fn locate(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(name);
    let mut places = vec![path.to_owned()];
    places.extend(folders.iter().map(|folder| folder.join(path)));
    places.into_iter().find(|place| place.is_file())
}

/// Weights by built-in name or file; files are looked for as [`locate`] says.
fn weights(name: &str, folders: &[PathBuf]) -> Result<Weights> {
    match locate(name, folders) {
        // Not a built-in name that is a file's too.
        Some(path) if path != Path::new(name) => Weights::load(&path),
        _ => Weights::open(name),
    }
}

impl Method {
    /// Reads what the method needs for `degradation`. None where an optional file is missing.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn prepare(spec: &MethodSpec, degradation: &Degradation, folders: &[PathBuf]) -> Result<Option<Method>> {
        let kind = spec.kind()?;
        let plain = |action, what: &str, detail: String, cost| Method {
            action,
            identity: Sha256::digest(what).into(),
            parameters: 0,
            detail,
            warning: None,
            cost,
        };
        Ok(Some(match kind {
            Kind::Bicubic => plain(Action::Bicubic, "bicubic", String::new(), 0.01),
            Kind::Aligned => plain(Action::Aligned, "aligned", String::new(), 0.01),
            Kind::LeastSquares => {
                let LeastSquares { lambda, steps } = LeastSquares::default();
                let what = format!("λ = {lambda}, {steps} steps");
                let name = format!("least-squares {what}");
                plain(Action::LeastSquares(LeastSquares { lambda, steps }), &name, what, 0.2)
            }
            Kind::Mzsr => match mzsr(spec, degradation, folders) {
                Err(_) if missing(spec, folders) => return Ok(None),
                made => made?,
            },
            Kind::Zssr | Kind::FineTune => match trained(spec, degradation, folders) {
                Err(_) if missing(spec, folders) => return Ok(None),
                made => made?,
            },
            Kind::Onnx(file) => match supervised(&file, folders) {
                Err(_) if missing(spec, folders) => return Ok(None),
                made => made?,
            },
        }))
    }

    /// The number of gradient steps, where it makes some.
    pub fn updates(&self) -> Option<usize> {
        match &self.action {
            Action::Mzsr { updates, .. } => Some(*updates),
            Action::Trained { steps, .. } => Some(*steps),
            _ => None,
        }
    }

    /// Enlarges `low`, with the share of the work that is done handed to `progress`.
    ///
    /// # Errors
    /// A picture that is too small, a result that is not finite, a failing engine.
    pub fn apply<E: Engine<Elem = f32>>(
        &self,
        engine: &E,
        low: &Raster<u8>,
        degradation: &Degradation,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Raster<u8>> {
        let method = match &self.action {
            Action::Bicubic => Way::Bicubic,
            Action::Aligned => Way::Aligned,
            Action::LeastSquares(least_squares) => Way::LeastSquares(Some(least_squares.lambda)),
            Action::Mzsr { weights, updates, rates } => Way::Mzsr(Adaptation {
                weights,
                updates: *updates,
                rates,
                adapt_pixels: usize::MAX,
                ensemble: false,
                lambda: None,
            }),
            Action::Onnx(network) => {
                let result = network.enlarge(low, degradation.scale())?;
                progress(1.0);
                return Ok(result);
            }
            Action::Trained { architecture, initial, steps, rate, seed } => {
                let initial = initial.as_ref().map(|weights| weights.parameters.as_slice());
                let training = Training { architecture, initial, steps: *steps, rate: *rate, seed: *seed };
                let result = training.enlarge(engine, &low.map(|v| f32::from(v) / 255.0), degradation, progress)?;
                return Ok(result.map(|v| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8));
            }
        };
        let mut photo = Photo::new(PixelKind::new(false, false, false), Format::Png, low.height, low.width);
        photo.put_rows(0, &low.map(|v| f32::from(v) / 255.0), None);
        let request = Request { degradation, method, back_project: 0, memory: MEMORY };
        let (result, _) = upscale(engine, &photo, &request, &mut |event| {
            if let crate::adapt::Event::Progress(share) = event {
                progress(share);
            }
        })?;
        Ok(result.rgb8())
    }
}

/// Whether the method may be left out because its file is not there.
fn missing(spec: &MethodSpec, folders: &[PathBuf]) -> bool {
    let file = match (spec.kind(), &spec.weights) {
        (Ok(Kind::Onnx(file)), _) => file,
        (_, Some(name)) => name.clone(),
        _ => return false,
    };
    spec.optional && locate(&file, folders).is_none()
}

/// What results depend on. (The file's bytes would not do: its metadata have no fixed order.)
fn identify(hash: &mut Sha256, weights: &Weights) {
    hash.update(format!("{:?} {:?} ", weights.architecture, weights.info));
    weights.parameters.iter().for_each(|value| hash.update(value.to_le_bytes()));
}

fn mzsr(spec: &MethodSpec, degradation: &Degradation, folders: &[PathBuf]) -> Result<Method> {
    let choice = match &spec.weights {
        Some(name) => builtin::fit(weights(name, folders)?, degradation),
        None => match spec.start {
            Some(start) => builtin::choose_with(start, degradation)?,
            None => builtin::choose(degradation)?,
        },
    };
    let weights = choice.weights;
    let updates = match spec.updates {
        Some(Counts::One(updates)) => updates,
        _ => weights.info.updates.unwrap_or(DEFAULT_UPDATES),
    };
    let rates = match &spec.rates {
        Some(rates) => Rates::by_update(rates),
        None => Rates(weights.info.rates.clone()),
    };
    let mut hash = Sha256::new();
    hash.update(format!("mzsr updates {updates} rates {:?} weights ", rates.0));
    identify(&mut hash, &weights);
    if weights.info.solves() {
        // How λ follows from the picture is no part of the weights.
        hash.update("λ by two scales ");
    }
    Ok(Method {
        identity: hash.finalize().into(),
        parameters: weights.parameters.len(),
        detail: format!("weights {}, {updates} update{}", weights.info.name, if updates == 1 { "" } else { "s" }),
        warning: choice.warning,
        cost: 1.0 + 0.8 * updates as f64,
        action: Action::Mzsr { weights: Arc::new(weights), updates, rates },
    })
}

fn trained(spec: &MethodSpec, degradation: &Degradation, folders: &[PathBuf]) -> Result<Method> {
    let choice = match &spec.weights {
        Some(name) => Some(builtin::fit(weights(name, folders)?, degradation)),
        None => None,
    };
    let which = usize::from(choice.is_some());
    let (steps, rate) = (spec.steps.unwrap_or(STEPS[which]), RATES[which]);
    let seed = spec.seed.unwrap_or(1);
    let mut hash = Sha256::new();
    hash.update(format!("trained steps {steps} rate {rate} seed {seed} weights "));
    let (architecture, initial) = match choice {
        // That they were trained for something else is the point of training them on.
        Some(choice) => {
            let info = &choice.weights.info;
            if info.start != Start::Bicubic || info.passes > 1 || info.fit {
                let follow = if info.fit { " with parameters that follow the blur" } else { "" };
                return Err(Error::input(format!(
                    "weights {} go {} times through the network from the {} start{follow}; fine-tuning is for one pass \
                     from the bicubic start: give others, such as bicubic-x2",
                    info.name, info.passes, info.start
                )));
            }
            identify(&mut hash, &choice.weights);
            (choice.weights.architecture.clone(), Some(Arc::new(choice.weights)))
        }
        None => (Architecture::default(), None),
    };
    let detail = match &initial {
        Some(weights) => format!("weights {}, {steps} steps of Adam at {rate:e}", weights.info.name),
        None => format!("random weights, at most {steps} steps of Adam from {rate:e}"),
    };
    Ok(Method {
        identity: hash.finalize().into(),
        parameters: architecture.parameter_count(),
        detail,
        warning: None,
        cost: steps as f64 * 0.25,
        action: Action::Trained { architecture, initial, steps, rate, seed },
    })
}

fn supervised(file: &str, folders: &[PathBuf]) -> Result<Method> {
    let path = locate(file, folders).ok_or_else(|| {
        Error::file(file, "no such file here, beside the suite or below --data: name its folder with --models DIR")
    })?;
    let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
    let mut hash = Sha256::new();
    hash.update("onnx ");
    hash.update(&bytes);
    let network = onnx::Network::new(&path, bytes)?;
    let parameters = network.parameters();
    Ok(Method {
        identity: hash.finalize().into(),
        parameters,
        detail: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        warning: None,
        // A weight acts on every small pixel here, on every large one in our network.
        cost: 0.1 + parameters as f64 / 1e6,
        action: Action::Onnx(Arc::new(network)),
    })
}
