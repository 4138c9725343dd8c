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
//!     lambda: None,
//! });
//! let request = Request { degradation: &degradation, method, back_project: 0, memory: 1 << 30 };
//! let (larger, report) = upscale(&CpuEngine::new(None)?, &photo, &request, &mut |_| {})?;
//! assert_eq!((larger.height(), larger.width()), (48, 42));
//! let (before, after) = report.losses.expect("updates were asked for");
//! assert!(after < before);
//! # Ok(())
//! # }
//! ```

use super::course::{NoiseLevel, solve_halo};
use super::plan::Job;
use super::restore::{Report, Restorer, back_project};
use super::son::{most_detailed, tiles};
use super::tiling::{Part, in_bands};
use super::{Course, Event, Plan, Rates};
use crate::degrade::{Degradation, LeastSquares, high_size, resize_window};
use crate::engine::{Engine, Window, load, raster};
use crate::image::Photo;
use crate::network::Network;
use crate::network::weights::Weights;
use crate::{Error, Raster, Result};
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
    /// With λ, or without for one from the photo's noise.
    LeastSquares(Option<f64>),
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
    /// λ of the least-squares start, for weights that have it; from the photo's noise if absent.
    pub lambda: Option<f64>,
}

impl Adaptation<'_> {
    /// How the photo goes through the network.
    fn course(&self) -> Course {
        let info = &self.weights.info;
        Course { start: info.start, passes: info.passes, fit: info.fit, ..Course::default() }
    }
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
        let (updates, ensemble, solves, halo, cell) = match self.method {
            Method::Mzsr(adaptation) => {
                let (course, cell) = (adaptation.course(), adaptation.weights.architecture.cell());
                let halo = course.halo(self.degradation, cell);
                (adaptation.updates, adaptation.ensemble, course.solves(), halo, cell)
            }
            Method::Bicubic | Method::Aligned => (0, false, false, 0, 1),
            Method::LeastSquares(_) => (0, false, true, solve_halo(self.degradation), 1),
        };
        Job {
            low: photo.height() as u64 * photo.width() as u64,
            high,
            pixel_bytes: photo.kind().pixel_bytes() as u64,
            adapts: updates > 0,
            holds_result: ensemble || self.back_project > 0,
            solves,
            network: matches!(self.method, Method::Mzsr(_)),
            halo,
            cell,
        }
    }
}

/// Rows of the cubic methods are made so many at a time.
const BAND: usize = 256;

/// A blur that does not explain a photo is made this much narrower at a time, so often at most, until what
/// is left is only this share of what [`reach`] lets pass.
const NARROWER: f64 = 0.95;
const NARROWINGS: i32 = 12;
const SURE: f64 = 0.75;
/// LR pixels along a side of the part of a photo on which that is tried.
const TRIED: usize = 192;

/// How much less a photo is trusted that no narrower blur explains either: λ is multiplied by this, times the
/// square of how many times further than [`reach`] the result is off, up to [`MOST_CAUTION`].
const CAUTION: f64 = 10.0;
const MOST_CAUTION: f64 = 1000.0;

/// Enlarges `photo` to round(s · size) on each axis, keeping its kind, its alpha (on the grid of
/// the colours) and its metadata.
///
/// λ of a network with solves follows from the photo's noise and its losses as a JPEG, if it is not
/// given. Where the result then shows that the blur reaches further than the photo's own, it is made
/// once more with the widest narrower one that explains the most detailed part of the photo; where none
/// does, with a larger λ, which costs less where the blur is wrong: ten times, and more the further off it
/// is.
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
    if let Some(kernel) = request.degradation.kernel() {
        kernel.check_fits(photo.height(), photo.width())?;
    }
    let plan = |request: &Request<'_>| {
        let job = request.job(photo);
        let plan = job.plan(request.memory)?;
        let channels = match request.method {
            Method::Mzsr(Adaptation { weights, .. }) => {
                let cells = weights.architecture.cell().pow(2);
                weights.architecture.channels.iter().map(|channels| channels.div_ceil(cells)).max().unwrap_or(3)
            }
            _ => 3,
        };
        Ok(plan.within(engine.largest() / channels, job.halo))
    };
    let plan = plan(request)?;
    let colours: Raster<f32> = photo.rgb();
    let noise = NoiseLevel { white: request.degradation.noise(&colours), jpeg: photo.compression_noise() };
    let sigma = noise.sigma();
    let (result, mut report) = upscale_with(engine, photo, &colours, request, plan, (noise, 1.0), events)?;
    report.noise = sigma;
    let Method::Mzsr(Adaptation { lambda: None, .. }) = request.method else { return Ok((result, report)) };
    if report.lambda.is_none() {
        return Ok((result, report));
    }
    let beyond = |result: &Photo, degradation: &Degradation| consistency(photo, result, degradation) / reach(sigma);
    let mut off = beyond(&result, request.degradation);
    if off <= 1.0 {
        return Ok((result, report));
    }
    drop(result);
    let narrower = narrower(engine, photo, &colours, request, plan, noise)?;
    let narrowed = narrower.as_ref().map(|(factor, _)| *factor);
    let degradation = narrower.as_ref().map_or(request.degradation, |(_, degradation)| degradation);
    let request = &Request { degradation, ..*request };
    if narrowed.is_some() {
        let (result, report) = upscale_with(engine, photo, &colours, request, plan, (noise, 1.0), events)?;
        off = beyond(&result, degradation);
        if off <= 1.0 {
            return Ok((result, Report { noise: sigma, narrowed, ..report }));
        }
    }
    let caution = (CAUTION * off * off).min(MOST_CAUTION);
    let (result, report) = upscale_with(engine, photo, &colours, request, plan, (noise, caution), events)?;
    Ok((result, Report { noise: sigma, narrowed, caution: Some(caution), ..report }))
}

/// The widest of ever narrower blurs, and its factor, that explains the most detailed part of the photo, with
/// such noise, without any update.
fn narrower<E: Engine<Elem = f32>>(
    engine: &E,
    photo: &Photo,
    colours: &Raster<f32>,
    request: &Request<'_>,
    plan: Plan,
    noise: NoiseLevel,
) -> Result<Option<(f64, Degradation)>> {
    let (Some(kernel), Method::Mzsr(adaptation)) = (request.degradation.kernel(), request.method) else {
        return Ok(None);
    };
    let parts = most_detailed(colours, tiles(photo.height(), photo.width(), TRIED), 1);
    let Some(&Window { y, x, .. }) = parts.first() else { return Ok(None) };
    // Those at the ends are smaller than the others: moved back, so that there is as much to see.
    let (height, width) = (photo.height().min(TRIED), photo.width().min(TRIED));
    let (y, x) = (y.min(photo.height() - height), x.min(photo.width() - width));
    if kernel.check_fits(height, width).is_err() {
        return Ok(None);
    }
    let (part, colours) = (photo.crop(y, x, height, width), colours.crop(y, x, height, width));
    let method = Method::Mzsr(Adaptation { updates: 0, ensemble: false, ..adaptation });
    for step in 1..=NARROWINGS {
        let factor = NARROWER.powi(step);
        let degradation = request.degradation.narrowed(factor);
        let request = Request { degradation: &degradation, method, back_project: 0, ..*request };
        let (result, _) = upscale_with(engine, &part, &colours, &request, plan, (noise, 1.0), &mut |_| {})?;
        if consistency(&part, &result, &degradation) <= SURE * reach(noise.sigma()) {
            return Ok(Some((factor, degradation)));
        }
    }
    Ok(None)
}

/// The same of the photo's `colours`, in the tiles of `plan`, with the λ of this noise, so many times, where none
/// is given.
fn upscale_with<E: Engine<Elem = f32>>(
    engine: &E,
    photo: &Photo,
    colours: &Raster<f32>,
    request: &Request<'_>,
    mut plan: Plan,
    (noise, caution): (NoiseLevel, f64),
    events: &mut dyn FnMut(Event),
) -> Result<(Photo, Report)> {
    let degradation = request.degradation;
    let scale = degradation.scale();
    let (height, width) = (high_size(photo.height(), scale), high_size(photo.width(), scale));
    let lambda = |given: Option<f64>| given.unwrap_or(caution * noise.lambda());
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
    let mut solved = None;
    let mut report = match request.method {
        Method::Mzsr(adaptation) => {
            let network = Network::new(engine, &adaptation.weights.architecture);
            let course = Course { lambda: lambda(adaptation.lambda), ..adaptation.course().with(noise) };
            solved = course.solves().then_some(course.lambda);
            let mut range = (f32::INFINITY, f32::NEG_INFINITY);
            let report = loop {
                let restorer = Restorer {
                    network: &network,
                    parameters: &adaptation.weights.parameters,
                    course,
                    degradation,
                    rates: adaptation.rates,
                    updates: adaptation.updates,
                    guard: true,
                    adapt_pixels: adaptation.adapt_pixels,
                    plan,
                    ensemble: adaptation.ensemble,
                    back_project: request.back_project,
                };
                let made = restorer.restore(colours, events, &mut |y, band| {
                    range = band.data.iter().fold(range, |(min, max), &v| (min.min(v), max.max(v)));
                    put(y, band)
                });
                match made {
                    // Less at a time; what was made is made again.
                    Err(Error::Memory(_)) if plan.halved() != plan => plan = plan.halved(),
                    made => break made?,
                }
            };
            // A device that computes nothing gives zeros.
            if range.0 == range.1 && colours.data.iter().any(|v| *v != colours.data[0]) {
                return Err(Error::Device(format!(
                    "{} made a picture of one value: it does not compute; try --device cpu",
                    engine.name()
                )));
            }
            report
        }
        Method::LeastSquares(given) => {
            let least_squares = LeastSquares { lambda: lambda(given), ..LeastSquares::default() };
            solved = Some(least_squares.lambda);
            let (low, halo) = ((colours.height, colours.width), solve_halo(degradation));
            let mut make = |core| {
                let Part { low, high } = Part::around(core, halo, scale, 1, low, (height, width));
                let low = load(engine, &colours.crop(low.y, low.x, low.height, low.width))?;
                let made = engine.least_squares(least_squares, degradation, &low, high.height, high.width)?;
                Ok((high, raster(engine, &made)?))
            };
            let mut whole = loop {
                let mut whole = Raster::new(0, width, 3);
                let made = in_bands(height, width, plan.output_side, &mut make, &mut |y, band| {
                    events(Event::Progress((y + band.height) as f64 / height as f64));
                    if request.back_project == 0 {
                        return put(y, band);
                    }
                    whole.height += band.height;
                    whole.data.extend(band.data);
                    Ok(())
                });
                match made {
                    Err(Error::Memory(_)) if plan.halved() != plan => plan = plan.halved(),
                    made => break made.map(|()| whole)?,
                }
            };
            if request.back_project > 0 {
                (0..request.back_project).for_each(|_| back_project(&mut whole, colours, degradation));
                put(0, whole)?;
            }
            Report::default()
        }
        Method::Bicubic | Method::Aligned if request.back_project > 0 => {
            let mut whole = cubic(colours, 0..height);
            for _ in 0..request.back_project {
                back_project(&mut whole, colours, degradation);
            }
            put(0, whole)?;
            Report::default()
        }
        Method::Bicubic | Method::Aligned => {
            for y in (0..height).step_by(BAND) {
                let rows = y..(y + BAND).min(height);
                let done = rows.end as f64 / height as f64;
                put(y, cubic(colours, rows))?;
                events(Event::Progress(done));
            }
            Report::default()
        }
    };
    report.lambda = solved;
    Ok((result, report))
}

/// The largest [`consistency`] of a restoration with solves that a photo with noise of standard deviation
/// `noise` and its own blur may leave (both of [0, 1]). On held-out photos these left 0.05 to 0.29 of 255,
/// a little more where texture was taken for noise, and below the noise where that is above one level, for
/// which λ is larger; a Gaussian a fifth too wide 0.22 to 1.7 (docs/training.md).
fn reach(noise: f64) -> f64 {
    let level: f64 = 1.0 / 255.0;
    ((0.28 * level).powi(2) + 0.03 * noise * noise + (noise * noise - level * level).max(0.0)).sqrt()
}

/// Whether the degradation explains a photo with noise of standard deviation `noise` whose
/// [`consistency`] is `off` (both of [0, 1]): up to 2 of 255 and 1.5 times the noise are taken for the
/// enlargement's own. On held-out photos the right kernel left 0.2 to 0.6 of 255, one of twice the
/// variance 0.8 to 5. A kernel that is too narrow explains any photo and is not found so.
pub fn explains(off: f64, noise: f64) -> bool {
    off <= 2.0 / 255.0 + 1.5 * noise
}

/// Largest side of the part on which [`consistency`] looks.
const LOOK: usize = 1536;

/// How well the degradation makes `photo` of its enlargement: the root mean square of
/// D(`result`) − `photo` over the colours of the middle (1536 × 1536 pixels of the result at most), on
/// the scale of [0, 1]. A kernel that is not the photo's shows here.
pub fn consistency(photo: &Photo, result: &Photo, degradation: &Degradation) -> f64 {
    let scale = degradation.scale();
    let (low, high) = ((photo.height(), photo.width()), (result.height(), result.width()));
    let (height, width) = (high.0.min(LOOK), high.1.min(LOOK));
    let core = Window { y: (high.0 - height) / 2, x: (high.1 - width) / 2, height, width };
    let part = Part::around(core, 0, scale, 1, low, high);
    let Window { y, x, height, width } = part.high;
    let made = degradation.apply(&result.crop(y, x, height, width).rgb::<f32>());
    let seen: Raster<f32> = photo.crop(part.low.y, part.low.x, part.low.height, part.low.width).rgb();
    let (rows, columns) = (seen.height.min(made.height), seen.width.min(made.width));
    // What lies at a cut sees a mirror there instead of the photo.
    let reach = (solve_halo(degradation) as f64 / scale) as usize;
    let margin = if rows.min(columns) > 4 * reach { reach } else { 0 };
    let (mut sum, mut count) = (0.0, 0usize);
    for y in margin..rows - margin {
        for x in margin..columns - margin {
            let pairs = made.pixel(y, x).iter().zip(seen.pixel(y, x));
            sum += pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            count += 3;
        }
    }
    (sum / count.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::{Downsample, Noise, Start, degrade_photo};
    use crate::engine::plain::PlainEngine;
    use crate::image::{Format, PixelKind};
    use crate::kernel::Kernel;
    use crate::network::Architecture;
    use crate::network::weights::{Blurs, Info};

    fn weights(start: Start) -> Weights {
        let architecture = Architecture::new(vec![3, 4, 3]).unwrap();
        let mut info = Info::new("tiny", [2.0, 2.0], Downsample::Direct, Blurs::With);
        info.start = start;
        Weights { parameters: vec![0.0; architecture.parameter_count()], architecture, info }
    }

    fn by(variance: f64) -> Degradation {
        Degradation::new(2.0, Some(Kernel::gaussian(variance, variance, 0.0, 15)), Downsample::Direct).unwrap()
    }

    /// Texture on a plain ground, blurred by less than is said: its fine parts are more than the wide
    /// blur can make.
    #[test]
    fn a_blur_that_reaches_too_far_is_handled_with_care() {
        let texture = |contrast: f64| {
            let mut sharp = Photo::new(PixelKind::new(false, false, false), Format::Png, 96, 96);
            let mut pixels = Raster::<f32>::from_vec(96, 96, 3, vec![0.5; 96 * 96 * 3]);
            Noise { sigma: contrast, seed: 1 }.add(&mut pixels);
            for (i, value) in pixels.data.iter_mut().enumerate() {
                let (y, x) = (i / 3 / 96, i / 3 % 96);
                if !(32..64).contains(&y) || !(32..64).contains(&x) {
                    *value = 0.5;
                }
            }
            sharp.put_rows(0, &pixels, None);
            let none = Noise { sigma: 0.0, seed: 0 };
            let photo = degrade_photo(&sharp, &by(1.2), none, false).unwrap();
            (sharp, photo)
        };
        let (sharp, photo) = texture(0.3);
        let aware = weights(Start::LeastSquares);
        let rates = Rates::by_update(&[0.0]);
        let engine = PlainEngine::<f32>::new();
        let plain = Adaptation {
            weights: &aware,
            updates: 0,
            rates: &rates,
            adapt_pixels: 1 << 20,
            ensemble: false,
            lambda: None,
        };
        let enlarged = |photo: &Photo, adaptation: Adaptation<'_>, blur: &Degradation| {
            let request =
                Request { degradation: blur, method: Method::Mzsr(adaptation), back_project: 0, memory: 1 << 30 };
            upscale(&engine, photo, &request, &mut |_| {}).unwrap()
        };
        let run = |adaptation: Adaptation<'_>, blur: &Degradation| enlarged(&photo, adaptation, blur);
        let (right, report) = run(plain, &by(1.2));
        assert_eq!((report.narrowed, report.caution), (None, None));
        let off = |result: &Photo| {
            let pairs = || result.rgb::<f32>().data.into_iter().zip(sharp.rgb::<f32>().data);
            pairs().map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        // A narrower one is found, near the right one, and the result with it.
        for wide in [2.0, 3.0] {
            let (result, report) = run(plain, &by(wide));
            let variance = wide * report.narrowed.unwrap().powi(2);
            assert!((1.0..1.7).contains(&variance) && report.caution.is_none(), "{wide}: {variance}");
            let given = run(Adaptation { lambda: Some(1e-3), ..plain }, &by(wide)).0;
            let [made, given, right] = [&result, &given, &right].map(off);
            assert!(made - right < 0.4 * (given - right), "{wide}: {made} {given} {right}");
        }
        // Where none is, λ is raised, the further off the more.
        let faint = texture(0.08).1;
        let raised = |blur: &Degradation| {
            let report = enlarged(&faint, plain, blur).1;
            let caution = report.caution.unwrap();
            assert!((report.lambda.unwrap() / (caution * LeastSquares::lambda_for(report.noise)) - 1.0).abs() < 1e-9);
            caution
        };
        let (wide, wider) = (raised(&by(9.0)), raised(&by(12.0)));
        assert!(CAUTION < wide && wide < wider && wider <= MOST_CAUTION, "{wide} {wider}");
        // What was given stays.
        let report = run(Adaptation { lambda: Some(1e-3), ..plain }, &by(3.0)).1;
        assert_eq!((report.narrowed, report.caution), (None, None));
    }
}
