//! A photo file's pixels in, a larger photo of the same kind out.
//!
//! ```
//! use mzsr::adapt::Rates;
//! use mzsr::adapt::photo::{Adaptation, Method, Request, upscale};
//! use mzsr::degrade::{Degradation, Downsample};
//! use mzsr::engine::cpu::CpuEngine;
//! use mzsr::image::{Format, Photo, PixelKind};
//! use mzsr::kernel::KernelSpec;
//! use mzsr::network::Architecture;
//! use mzsr::network::weights::{Blurs, Info, Weights};
//!
//! # fn main() -> mzsr::Result<()> {
//! // In earnest: Photo::read("photo.png") and builtin::choose(&degradation) or Weights::load(…).
//! let photo = Photo::new(PixelKind::new(false, false, false), Format::Png, 24, 21);
//! let architecture = Architecture::new(vec![3, 8, 3])?;
//! let parameters = vec![0.01; architecture.parameter_count()];
//! let info = Info::new("tiny", [2.0, 2.0], Downsample::Direct, Blurs::With);
//! let weights = Weights { architecture, parameters, info };
//!
//! let kernel = KernelSpec::parse("gaussian:2.0")?.load()?.kernel;
//! let degradation = Degradation::new(2.0, kernel, Downsample::Direct)?;
//! let rates = Rates(weights.info.rates.clone());
//! let method = Method::Mzsr(Adaptation {
//!     weights: &weights,
//!     updates: 5,
//!     rates: &rates,
//!     adapt_pixels: 750_000,
//!     ensemble: false,
//! });
//! let request = Request { degradation: &degradation, method, back_project: 0, memory: 1 << 30 };
//! let (larger, report) = upscale(&CpuEngine::new(None)?, &photo, &request, &mut |_| {})?;
//! assert_eq!((larger.height(), larger.width()), (48, 42));
//! let (before, after) = report.losses.expect("updates were asked for");
//! assert!(after < before);
//! # Ok(())
//! # }
//! ```

use super::plan::Job;
use super::restore::{Report, Restorer, back_project};
use super::{Course, Event, Rates};
use crate::degrade::{Degradation, LeastSquares, high_size, resize_window};
use crate::engine::Engine;
use crate::image::Photo;
use crate::network::Network;
use crate::network::weights::Weights;
use crate::{Raster, Result};
use std::ops::Range;

/// How a photo is enlarged.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// The network, adapted to the photo.
    Mzsr(Adaptation<'a>),
    /// Cubic, on the grid of `imresize`.
    Bicubic,
    /// Cubic, on the grid that the degradation samples.
    Aligned,
    /// What explains the photo best and stays near [`Method::Aligned`]; no network.
    LeastSquares(LeastSquares),
}

/// How the network adapts.
#[derive(Clone, Copy, Debug)]
pub struct Adaptation<'a> {
    /// The weights to begin from.
    pub weights: &'a Weights,
    /// The number of updates.
    pub updates: usize,
    /// Their rates.
    pub rates: &'a Rates,
    /// At most so many pixels are adapted on: the most detailed parts of a larger photo.
    pub adapt_pixels: usize,
    /// Mean over the 8 flips and rotations.
    pub ensemble: bool,
}

/// Everything that [`upscale`] is told.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What made the photo small.
    pub degradation: &'a Degradation,
    /// How it is enlarged.
    pub method: Method<'a>,
    /// How often the residual LR − D(SR) is put back.
    pub back_project: usize,
    /// Bytes of memory to stay under.
    pub memory: u64,
}

impl Request<'_> {
    /// The tiles for a photo of `height` × `width`, or the refusal of one that cannot fit.
    fn job(&self, photo: &Photo) -> Job {
        let scale = self.degradation.scale();
        let high = high_size(photo.height(), scale) as u64 * high_size(photo.width(), scale) as u64;
        let (updates, ensemble, solves) = match self.method {
            Method::Mzsr(adaptation) => (adaptation.updates, adaptation.ensemble, false),
            Method::Bicubic | Method::Aligned => (0, false, false),
            Method::LeastSquares(_) => (0, false, true),
        };
        Job {
            low: photo.height() as u64 * photo.width() as u64,
            high,
            pixel_bytes: photo.kind().pixel_bytes() as u64,
            adapts: updates > 0,
            holds_result: ensemble || self.back_project > 0,
            solves,
        }
    }
}

/// Rows of the cubic methods are made so many at a time.
const BAND: usize = 256;

/// Enlarges `photo` to round(s · size) on each axis, keeping its kind, its alpha (on the grid of
/// the colours) and its metadata.
///
/// # Errors
/// A job that does not fit the memory (said before any work), a photo too small to be adapted on,
/// or what [`Restorer::restore`] says.
pub fn upscale<E: Engine<Elem = f32>>(
    engine: &E,
    photo: &Photo,
    request: &Request<'_>,
    events: &mut dyn FnMut(Event),
) -> Result<(Photo, Report)> {
    let plan = request.job(photo).plan(request.memory)?;
    let degradation = request.degradation;
    let scale = degradation.scale();
    let (height, width) = (high_size(photo.height(), scale), high_size(photo.width(), scale));
    if let Some(kernel) = degradation.kernel() {
        kernel.check_fits(photo.height(), photo.width())?;
    }
    let colours: Raster<f32> = photo.rgb();
    let alpha: Option<Raster<f32>> = photo.alpha();
    let cubic = |low: &Raster<f32>, rows: Range<usize>| match request.method {
        Method::Bicubic => resize_window(low, scale, rows, 0..width),
        _ => degradation.aligned_window(low, rows, 0..width),
    };
    let mut result = Photo::like(photo, height, width);
    let mut put = |y: usize, band: Raster<f32>| {
        let alpha = alpha.as_ref().map(|alpha| cubic(alpha, y..y + band.height));
        result.put_rows(y, &band, alpha.as_ref());
        Ok(())
    };
    let report = match request.method {
        Method::Mzsr(adaptation) => {
            let network = Network::new(engine, &adaptation.weights.architecture);
            let info = &adaptation.weights.info;
            Restorer {
                network: &network,
                parameters: &adaptation.weights.parameters,
                course: Course { start: info.start, passes: info.passes, ..Course::default() },
                degradation,
                rates: adaptation.rates,
                updates: adaptation.updates,
                guard: true,
                adapt_pixels: adaptation.adapt_pixels,
                plan,
                ensemble: adaptation.ensemble,
                back_project: request.back_project,
            }
            .restore(&colours, events, &mut put)?
        }
        Method::LeastSquares(least_squares) => {
            let mut whole = least_squares.upscale(degradation, &colours, height, width);
            for _ in 0..request.back_project {
                back_project(&mut whole, &colours, degradation);
            }
            put(0, whole)?;
            events(Event::Progress(1.0));
            Report::default()
        }
        Method::Bicubic | Method::Aligned if request.back_project > 0 => {
            let mut whole = cubic(&colours, 0..height);
            for _ in 0..request.back_project {
                back_project(&mut whole, &colours, degradation);
            }
            put(0, whole)?;
            Report::default()
        }
        Method::Bicubic | Method::Aligned => {
            for y in (0..height).step_by(BAND) {
                let rows = y..(y + BAND).min(height);
                let done = rows.end as f64 / height as f64;
                put(y, cubic(&colours, rows))?;
                events(Event::Progress(done));
            }
            Report::default()
        }
    };
    Ok((result, report))
}
