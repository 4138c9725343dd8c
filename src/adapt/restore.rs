//! The whole restoration: adapt, enlarge, and what may come on top.

use super::course::forward;
use super::descent::{Descent, Update};
use super::geometry::Turn;
use super::plan::{MAX_SOLVE, Plan};
use super::son::{Son, most_detailed, tiles, with_halo};
use super::tiling::{Part, in_bands};
use super::{Course, Event, Rates};
use crate::degrade::{Degradation, high_size, resize_window};
use crate::engine::{Engine, Shape, Window, load, raster};
use crate::network::Network;
use crate::{Error, Raster, Real, Result};

/// What to do with a photo, and with which weights.
pub struct Restorer<'a, E: Engine> {
    /// The network.
    pub network: &'a Network<'a, E>,
    /// Its parameters before any adaptation (flat); one pass after the other.
    pub parameters: &'a [E::Elem],
    /// How the photo goes through it.
    pub course: Course,
    /// What made the photo small.
    pub degradation: &'a Degradation,
    /// The rates of the updates.
    pub rates: &'a Rates,
    /// The number of updates.
    pub updates: usize,
    /// Whether an update that raises the loss is undone and its rate halved.
    pub guard: bool,
    /// At most so many LR pixels are adapted on: the most detailed tiles of a larger photo (at
    /// least one tile of 4 × 4).
    pub adapt_pixels: usize,
    /// The tiles.
    pub plan: Plan,
    /// Whether the result is the mean over the 8 flips and rotations.
    pub ensemble: bool,
    /// How often the residual LR − D(SR) is put back.
    pub back_project: usize,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The updates (of the first orientation, with an ensemble).
    pub updates: Vec<Update>,
    /// The son's loss before the first and after the last update; equal if there was none.
    pub losses: Option<(f64, f64)>,
    /// LR pixels that were adapted on.
    pub adapted_pixels: usize,
    /// The standard deviation of the photo's noise, of [0, 1], as estimated (only by
    /// [`super::photo::upscale`]).
    pub noise: f64,
    /// λ of the least-squares start, if there was one (only by [`super::photo::upscale`]).
    pub lambda: Option<f64>,
    /// By what factor the blur was made narrower because it did not explain the photo (only by
    /// [`super::photo::upscale`]).
    pub narrowed: Option<f64>,
    /// By how much λ was raised because the blur did not explain the photo (only by
    /// [`super::photo::upscale`]).
    pub caution: Option<f64>,
}

impl Report {
    /// The updates that changed the weights.
    pub fn made(&self) -> usize {
        self.updates.iter().filter(|update| update.factor > 0.0).count()
    }
}

/// Largest side of the tiles from which the most detailed are chosen.
const CHOICE_SIDE: usize = 256;

impl<E: Engine> Restorer<'_, E> {
    /// Restores `photo` (RGB in [0, 1]); the result, round(s · size) on each axis, clipped to
    /// [0, 1], is handed to `sink` in bands of whole rows from the top: (first row, band).
    ///
    /// # Errors
    /// A result or a loss that is not finite, a photo that cannot be adapted on, a failing device,
    /// or whatever `sink` says.
    pub fn restore(
        &self,
        photo: &Raster<E::Elem>,
        events: &mut dyn FnMut(Event),
        sink: &mut dyn FnMut(usize, Raster<E::Elem>) -> Result<()>,
    ) -> Result<Report> {
        let scale = self.degradation.scale();
        let (height, width) = (high_size(photo.height, scale), high_size(photo.width, scale));
        if !self.ensemble && self.back_project == 0 {
            return self.once(photo, self.degradation, events, sink);
        }
        let (mut result, report) = if self.ensemble {
            self.mean_of_turns(photo, height, width, events)?
        } else {
            let mut whole = Raster::new(height, width, 3);
            let report = self.once(photo, self.degradation, events, &mut |y, band: Raster<E::Elem>| {
                let at = y * width * 3;
                whole.data[at..at + band.data.len()].copy_from_slice(&band.data);
                Ok(())
            })?;
            (whole, report)
        };
        for _ in 0..self.back_project {
            back_project(&mut result, photo, self.degradation);
        }
        sink(0, result)?;
        Ok(report)
    }

    /// Adapts to `photo` and enlarges it.
    fn once(
        &self,
        photo: &Raster<E::Elem>,
        degradation: &Degradation,
        events: &mut dyn FnMut(Event),
        sink: &mut dyn FnMut(usize, Raster<E::Elem>) -> Result<()>,
    ) -> Result<Report> {
        let engine = self.network.engine();
        let parameters = self.course.parameters(self.parameters, self.network.layers(), degradation);
        let upload = |part: &Vec<E::Elem>| engine.upload(Shape::flat(part.len()), part);
        let mut params = parameters.iter().map(upload).collect::<Result<Vec<_>>>()?;
        let scale = degradation.scale();
        let (height, width) = (high_size(photo.height, scale), high_size(photo.width, scale));
        // In units of a forward pass over one pixel; a gradient costs three.
        let passes = self.course.passes;
        let enlarging = (height * width * self.stages()) as f64;
        let mut adapting = 0.0;
        let mut report = Report::default();
        if self.updates > 0 {
            let cores = self.cores(photo);
            report.adapted_pixels = cores.iter().map(|core| core.height * core.width).sum();
            let mut sons = self.sons(photo, degradation, cores)?;
            let mut solved: Vec<_> = sons.iter().map(|_| None).collect();
            for (pass, params) in params.iter_mut().enumerate() {
                let descent = Descent::new(self.network, &sons)?;
                let once = descent.pixels() as f64;
                adapting = once * (3.0 * self.updates as f64 + 1.0) * passes as f64;
                let progress = |update: usize| {
                    let done = (pass * self.updates + update) as f64;
                    Event::Progress(3.0 * once * done / (adapting + enlarging))
                };
                let (updates, after) = descent.run(params, self.rates, self.updates, self.guard, &mut |event| {
                    events(event);
                    if let Event::Updated { update, .. } = event {
                        events(progress(update));
                    }
                })?;
                report.losses = Some((updates.first().map_or(after, |update| update.loss), after));
                report.updates.extend(updates);
                drop(descent);
                if pass + 1 == passes {
                    break;
                }
                for (son, z) in sons.iter_mut().zip(&mut solved) {
                    let Some(small) = &son.small else { continue };
                    let made = forward(self.network, params, &son.input, self.plan.output_side)?;
                    son.input = self.course.data_step(engine, degradation, small, made, z)?;
                }
            }
        }
        let mut done = adapting;
        let mut pixels = |count: usize| {
            done += count as f64;
            events(Event::Progress(done / (adapting + enlarging)));
        };
        self.enlarge(&params, photo, degradation, &mut pixels, sink)?;
        Ok(report)
    }

    /// What is done with each pixel of the result, start and passes counted alike.
    fn stages(&self) -> usize {
        self.course.passes + usize::from(self.course.solves())
    }

    /// Sons of the photo with these cores: one of the whole, or, where that would be too large for
    /// the solves of the start or nothing is solved for several, one of the surroundings of each core.
    fn sons(
        &self,
        photo: &Raster<E::Elem>,
        degradation: &Degradation,
        cores: Vec<Window>,
    ) -> Result<Vec<Son<E::Tensor>>> {
        let (engine, course) = (self.network.engine(), &self.course);
        let whole = [Window { y: 0, x: 0, height: photo.height, width: photo.width }];
        if !course.solves() && cores != whole {
            return Son::cubic(engine, photo, degradation, cores, self.network.cell());
        }
        if !course.solves() || photo.height * photo.width <= MAX_SOLVE {
            return Ok(vec![Son::of(engine, photo, degradation, course, cores)?]);
        }
        let halo = course.halo(degradation, self.network.cell());
        cores
            .into_iter()
            .map(|core| {
                let seen = with_halo(core, halo, photo.height, photo.width);
                let part = photo.crop(seen.y, seen.x, seen.height, seen.width);
                let core = Window { y: core.y - seen.y, x: core.x - seen.x, ..core };
                Son::of(engine, &part, degradation, course, vec![core])
            })
            .collect()
    }

    /// The parts of the photo that are adapted on.
    fn cores(&self, photo: &Raster<E::Elem>) -> Vec<Window> {
        let (height, width) = (photo.height, photo.width);
        if height * width <= self.adapt_pixels {
            return tiles(height, width, self.plan.gradient_side);
        }
        let block = 4 * self.network.cell();
        let largest = CHOICE_SIDE.min(self.plan.gradient_side);
        let side = (self.adapt_pixels.isqrt() / block * block).clamp(block, largest);
        most_detailed(photo, tiles(height, width, side), self.adapt_pixels)
    }

    /// The mean over the 8 flips and rotations, each adapted to by itself.
    fn mean_of_turns(
        &self,
        photo: &Raster<E::Elem>,
        height: usize,
        width: usize,
        events: &mut dyn FnMut(Event),
    ) -> Result<(Raster<E::Elem>, Report)> {
        let mut sum = Raster::<E::Elem>::new(height, width, 3);
        let mut seen = Raster::<u8>::new(height, width, 1);
        let mut report = Report::default();
        for (i, turn) in Turn::all().enumerate() {
            let (degradation, shift) = turn.degradation(self.degradation)?;
            let turned = turn.apply(photo);
            let mut result = Raster::new(
                high_size(turned.height, degradation.scale()),
                high_size(turned.width, degradation.scale()),
                3,
            );
            let length = result.width * 3;
            let made = self.once(
                &turned,
                &degradation,
                &mut |event| match event {
                    Event::Progress(share) => events(Event::Progress((i as f64 + share) / 8.0)),
                    other if i == 0 => events(other),
                    _ => {}
                },
                &mut |y, band: Raster<E::Elem>| {
                    result.data[y * length..y * length + band.data.len()].copy_from_slice(&band.data);
                    Ok(())
                },
            )?;
            if i == 0 {
                report = made;
            }
            add_shifted(&mut sum, &mut seen, &turn.undo(&result), turn.undo_shift(shift));
        }
        for (pixel, &count) in sum.data.chunks_exact_mut(3).zip(&seen.data) {
            pixel.iter_mut().for_each(|v| *v /= E::Elem::of(f64::from(count)));
        }
        Ok((sum, report))
    }
}

/// Adds `picture`, moved by `shift` (down, right; not positive), to `sum` and counts its pixels.
fn add_shifted<T: Real>(sum: &mut Raster<T>, seen: &mut Raster<u8>, picture: &Raster<T>, shift: (usize, usize)) {
    let (up, left) = shift;
    for y in 0..sum.height.saturating_sub(up) {
        for x in 0..sum.width.saturating_sub(left) {
            let at = y * sum.width + x;
            seen.data[at] += 1;
            let from = picture.pixel(y + up, x + left);
            sum.data[at * 3..at * 3 + 3].iter_mut().zip(from).for_each(|(s, &v)| *s += v);
        }
    }
}

impl Turn {
    /// What makes the turned photo small, and by how many pixels its result lies too far down and
    /// right (before it is turned back): a mirrored photo's direct sampling keeps the other end of
    /// each s × s cell, so that its phase is s − 1.
    fn degradation(self, of: &Degradation) -> Result<(Degradation, (usize, usize))> {
        let mirrored = self.vertical || self.horizontal;
        let shift = if of.samples_corners() && mirrored {
            let scale = of.scale();
            if scale.fract() != 0.0 {
                return Err(Error::input(format!(
                    "--ensemble with direct downsampling needs a whole scale, not {scale}: \
                     a mirrored photo's pixels would lie between the output's"
                )));
            }
            scale as usize - 1
        } else {
            0
        };
        let shift = (shift * usize::from(self.vertical), shift * usize::from(self.horizontal));
        let turned = of.turned(self.transpose, self.vertical, self.horizontal)?;
        Ok((turned, shift))
    }

    /// `shift` of the mirrored result as a move up and left of the result turned back.
    fn undo_shift(self, shift: (usize, usize)) -> (usize, usize) {
        if self.transpose { (shift.1, shift.0) } else { shift }
    }
}

/// SR += aligned(LR − D(SR)), clipped to [0, 1].
pub(crate) fn back_project<T: Real>(result: &mut Raster<T>, photo: &Raster<T>, degradation: &Degradation) {
    let mut residual = degradation.apply(result);
    if (residual.height, residual.width) != (photo.height, photo.width) {
        residual = residual.crop(0, 0, photo.height, photo.width);
    }
    residual.data.iter_mut().zip(&photo.data).for_each(|(d, &v)| *d = v - *d);
    let up = degradation.aligned_window(&residual, 0..result.height, 0..result.width);
    result.data.iter_mut().zip(&up.data).for_each(|(v, &d)| *v = (*v + d).max(T::zero()).min(T::one()));
}

impl<E: Engine> Restorer<'_, E> {
    /// Applies the network to `photo` tile by tile; hands bands of rows, clipped to [0, 1], to
    /// `sink`, and the number of pixels to `done` after each of the [`Self::stages`] of a tile.
    fn enlarge(
        &self,
        params: &[E::Tensor],
        photo: &Raster<E::Elem>,
        degradation: &Degradation,
        done: &mut dyn FnMut(usize),
        sink: &mut dyn FnMut(usize, Raster<E::Elem>) -> Result<()>,
    ) -> Result<()> {
        let engine = self.network.engine();
        let scale = degradation.scale();
        let (height, width) = (high_size(photo.height, scale), high_size(photo.width, scale));
        let cell = self.network.cell();
        let halo = self.course.halo(degradation, cell);
        let solves = self.course.solves();
        let mut make = |core: Window| {
            let pixels = core.height * core.width;
            if !solves {
                let seen = with_halo(core, halo, height, width);
                let input = if (seen.height, seen.width) == (height, width) {
                    // A GPU does it itself.
                    self.course.begin(engine, degradation, &load(engine, photo)?, height, width)?
                } else {
                    let (rows, columns) = (seen.y..seen.y + seen.height, seen.x..seen.x + seen.width);
                    load(engine, &resize_window(photo, scale, rows, columns))?
                };
                let made = forward(self.network, &params[0], &input, usize::MAX)?;
                done(pixels);
                return Ok((seen, raster(engine, &made)?));
            }
            let Part { low, high } =
                Part::around(core, halo, scale, cell, (photo.height, photo.width), (height, width));
            let low = load(engine, &photo.crop(low.y, low.x, low.height, low.width))?;
            let mut estimate = self.course.begin(engine, degradation, &low, high.height, high.width)?;
            done(pixels);
            let mut z = None;
            for params in params {
                let made = forward(self.network, params, &estimate, usize::MAX)?;
                estimate = self.course.data_step(engine, degradation, &low, made, &mut z)?;
                done(pixels);
            }
            Ok((high, raster(engine, &estimate)?))
        };
        in_bands(height, width, self.plan.output_side, &mut make, sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::{Downsample, Start};
    use crate::engine::plain::PlainEngine;
    use crate::kernel::Kernel;
    use crate::network::Architecture;

    fn photo(height: usize, width: usize) -> Raster<f64> {
        let data = (0..height * width * 3)
            .map(|i| {
                let (y, x) = ((i / 3 / width) as f64, (i / 3 % width) as f64);
                0.5 + 0.2 * (0.9 * x + 0.3 * y).sin() + 0.2 * (0.5 * y - 0.2 * x + (i % 3) as f64).cos()
            })
            .collect();
        Raster::from_vec(height, width, 3, data)
    }

    fn parameters(architecture: &Architecture, size: f64) -> Vec<f64> {
        (0..architecture.parameter_count()).map(|i| size * ((i * 7919 % 1000) as f64 / 500.0 - 1.0)).collect()
    }

    struct Setup {
        architecture: Architecture,
        parameters: Vec<f64>,
        degradation: Degradation,
        rates: Rates,
    }

    impl Setup {
        fn new(scale: f64, kernel: Kernel, size: f64) -> Self {
            Setup::with(3, scale, kernel, size)
        }

        /// With so many channels at the network's ends.
        fn with(ends: usize, scale: f64, kernel: Kernel, size: f64) -> Self {
            let architecture = Architecture::new(vec![ends, 4, 4, ends]).unwrap();
            Setup {
                parameters: parameters(&architecture, size),
                architecture,
                degradation: Degradation::new(scale, Some(kernel), Downsample::Direct).unwrap(),
                rates: Rates::by_update(&[2e-2, 1e-2]),
            }
        }

        fn run(
            &self,
            photo: &Raster<f64>,
            change: impl FnOnce(&mut Restorer<'_, PlainEngine<f64>>),
        ) -> (Raster<f64>, Report) {
            let engine = PlainEngine::new();
            let network = Network::new(&engine, &self.architecture);
            let mut restorer = Restorer {
                network: &network,
                parameters: &self.parameters,
                course: Course::default(),
                degradation: &self.degradation,
                rates: &self.rates,
                updates: 3,
                guard: true,
                adapt_pixels: 1 << 20,
                plan: Plan::unlimited(),
                ensemble: false,
                back_project: 0,
            };
            change(&mut restorer);
            let scale = self.degradation.scale();
            let (height, width) = (high_size(photo.height, scale), high_size(photo.width, scale));
            let mut whole = Raster::new(height, width, 3);
            let report = restorer
                .restore(photo, &mut |_| {}, &mut |y, band| {
                    whole.data[y * width * 3..][..band.data.len()].copy_from_slice(&band.data);
                    Ok(())
                })
                .unwrap();
            (whole, report)
        }
    }

    fn difference(a: &Raster<f64>, b: &Raster<f64>) -> f64 {
        assert_eq!((a.height, a.width), (b.height, b.width));
        a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn tiles_change_nothing() {
        let photo = photo(45, 38);
        for ends in [3, 12] {
            let setup = Setup::with(ends, 2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.3);
            let (whole, whole_report) = setup.run(&photo, |_| {});
            let (tiled, report) = setup.run(&photo, |r| r.plan = Plan { gradient_side: 16, output_side: 24 });
            assert!(difference(&whole, &tiled) < 1e-12);
            assert_eq!(report.adapted_pixels, 45 * 38);
            assert!((report.losses.unwrap().1 - whole_report.losses.unwrap().1).abs() < 1e-13);
            let (part, report) = setup.run(&photo, |r| {
                r.plan.gradient_side = 16;
                r.adapt_pixels = 700;
            });
            assert!(report.adapted_pixels <= 700 && report.adapted_pixels > 400, "{}", report.adapted_pixels);
            assert!(difference(&whole, &part) > 1e-9);
        }
    }

    /// A start that is solved for depends on all of the photo, a little: what tiles leave out is far
    /// below half an 8-bit level. So it is for two passes, for real scales, and without a blur. (The few
    /// steps between passes are not taken to the end, so that their lengths, which a tile chooses for
    /// itself, matter a little: more so the worse a network fits, as this one does.)
    #[test]
    fn tiles_of_solved_starts_have_no_seams() {
        for (ends, scale, kernel, downsample) in [
            (3, 2.0, Some(Kernel::gaussian(2.0, 1.0, 0.4, 9)), Downsample::Direct),
            (12, 2.0, Some(Kernel::gaussian(2.0, 1.0, 0.4, 9)), Downsample::Direct),
            (3, 2.5, Some(Kernel::gaussian(2.0, 1.0, 0.4, 9)), Downsample::Direct),
            (12, 1.25, Some(Kernel::gaussian(2.0, 2.0, 0.0, 15)), Downsample::Direct),
            (12, 1.5, Some(Kernel::gaussian(4.0, 1.0, -0.5, 15)), Downsample::Direct),
            (3, 2.0, Some(Kernel::gaussian(1.0, 1.0, 0.0, 7)), Downsample::Bicubic),
            (12, 3.0, None, Downsample::Bicubic),
        ] {
            let mut setup = Setup::with(ends, 2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.1);
            setup.degradation = Degradation::new(scale, kernel, downsample).unwrap();
            let photo = photo(91, 84);
            let course = |passes| Course { start: Start::LeastSquares, passes, ..Course::default() };
            for passes in [1, 2] {
                setup.parameters = parameters(&setup.architecture, 0.05).repeat(passes);
                let run =
                    |plan: Plan| setup.run(&photo, |r| (r.updates, r.course, r.plan) = (0, course(passes), plan)).0;
                let (wa, ti) = (run(Plan::unlimited()), run(Plan { gradient_side: 64, output_side: 48 }));
                let off = difference(&wa, &ti);
                assert!(off < 0.1 / 255.0, "x{scale} {downsample}, {passes} passes: {} levels", 255.0 * off);
            }
        }
    }

    #[test]
    fn every_pass_learns_from_its_own_son() {
        let mut setup = Setup::new(2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.2);
        let photo = photo(40, 36);
        let (_, one_pass) = setup.run(&photo, |_| {});
        setup.parameters = parameters(&setup.architecture, 0.2).repeat(2);
        let course = Course { start: Start::LeastSquares, passes: 2, ..Course::default() };
        let (before, _) = setup.run(&photo, |r| (r.course, r.updates) = (course, 0));
        let (after, report) = setup.run(&photo, |r| r.course = course);
        assert_eq!(report.updates.len(), 2 * one_pass.updates.len());
        let (first, last) = report.losses.unwrap();
        assert!(last < first && difference(&before, &after) > 1e-6);
    }

    #[test]
    fn updates_lower_the_loss_and_a_wild_rate_is_halved() {
        let mut setup = Setup::new(2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.3);
        let photo = photo(24, 20);
        let (_, report) = setup.run(&photo, |_| {});
        let (before, after) = report.losses.unwrap();
        assert!(after < before && report.updates.iter().all(|u| u.factor == 1.0));
        setup.rates = Rates::by_update(&[30.0]);
        let (_, guarded) = setup.run(&photo, |_| {});
        let (before, after) = guarded.losses.unwrap();
        assert!(after <= before && guarded.updates[0].factor < 1.0, "{guarded:?}");
        let (_, free) = setup.run(&photo, |r| r.guard = false);
        assert!(free.losses.unwrap().1 > before);
    }

    /// With weights of zero the network returns the cubic upscale, whatever the turn.
    #[test]
    fn an_ensemble_of_upscales_is_aligned() {
        let centred = |setup: &mut Setup| {
            let kernel = setup.degradation.kernel().map(|kernel| kernel.displaced(0.5, 0.5));
            setup.degradation = setup.degradation.clone().centred(kernel);
        };
        let mut setup = Setup::new(2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.0);
        let photo = photo(17, 12);
        centred(&mut setup);
        let (single, _) = setup.run(&photo, |r| r.updates = 0);
        let (mean, _) = setup.run(&photo, |r| (r.updates, r.ensemble) = (0, true));
        assert!(difference(&single, &mean) < 1e-12);
    }

    /// A turned photo's corner phase: restoring by sampling must commute with turning.
    #[test]
    fn an_ensemble_keeps_the_corner_phase() {
        // LR pixel i shows HR 2 i: a result that puts LR values at its even pixels must keep them
        // there in the mean. The aligned upscale does so exactly; run it for each turn by hand.
        let setup = Setup::new(2.0, Kernel::gaussian(0.5, 0.5, 0.0, 5), 0.0);
        let photo = photo(9, 8);
        let (mut sum, mut seen) = (Raster::new(18, 16, 3), Raster::new(18, 16, 1));
        for turn in Turn::all() {
            let (degradation, shift) = turn.degradation(&setup.degradation).unwrap();
            let turned = turn.apply(&photo);
            let up = degradation.aligned_window(&turned, 0..2 * turned.height, 0..2 * turned.width);
            add_shifted(&mut sum, &mut seen, &turn.undo(&up), turn.undo_shift(shift));
        }
        for y in 0..9 {
            for x in 0..8 {
                let at = (2 * y) * 16 + 2 * x;
                for c in 0..3 {
                    let mean = sum.data[at * 3 + c] / f64::from(seen.data[at]);
                    assert!((mean - photo.pixel(y, x)[c]).abs() < 1e-12);
                }
            }
        }
        assert!(seen.data.iter().all(|&n| n >= 2) && seen.data[0] == 8);
    }

    #[test]
    fn back_projection_brings_the_photo_back() {
        let setup = Setup::new(2.0, Kernel::gaussian(0.6, 0.6, 0.0, 7), 0.0);
        let photo = photo(20, 16);
        let error = |result: &Raster<f64>| difference(&setup.degradation.apply(result), &photo);
        let (plain, _) = setup.run(&photo, |r| r.updates = 0);
        let (back, _) = setup.run(&photo, |r| (r.updates, r.back_project) = (0, 4));
        assert!(error(&back) < 0.3 * error(&plain), "{} {}", error(&back), error(&plain));
    }

    #[test]
    fn a_result_that_is_not_finite_is_refused() {
        let mut setup = Setup::new(2.0, Kernel::gaussian(2.0, 1.0, 0.4, 9), 0.3);
        // The last bias: a ReLU would swallow it in any other layer.
        *setup.parameters.last_mut().unwrap() = f64::NAN;
        let engine = PlainEngine::new();
        let network = Network::new(&engine, &setup.architecture);
        let params = engine.upload(Shape::flat(setup.parameters.len()), &setup.parameters).unwrap();
        let rates = Rates::by_update(&[0.1]);
        let restorer = Restorer {
            network: &network,
            parameters: &setup.parameters,
            course: Course::default(),
            degradation: &setup.degradation,
            rates: &rates,
            updates: 0,
            guard: true,
            adapt_pixels: 1 << 20,
            plan: Plan { gradient_side: 64, output_side: 64 },
            ensemble: false,
            back_project: 0,
        };
        let mut bands = 0;
        let result = restorer.enlarge(&[params], &photo(8, 8), &setup.degradation, &mut |_| {}, &mut |_, _| {
            bands += 1;
            Ok(())
        });
        assert!(result.is_err() && bands == 0);
    }
}
