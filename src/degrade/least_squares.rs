//! The exact adjoint of D, and the least-squares upscale that needs no network.

use super::blur::Blur;
use super::sums::products;
use super::taps::{resample, resample_into};
use super::{Degradation, Downsample};
use crate::kernel::Kernel;
use crate::{Raster, Real};
use rayon::prelude::*;

/// D(Dᵀ(·)) into a picture of that size, whatever it shows; ‖Dᵀ(·)‖².
pub(super) type Normal<'a, T> = Box<dyn FnMut(&Raster<T>, &mut Raster<T>) -> f64 + 'a>;

impl Degradation {
    /// Dᵀ(low) for D from `height` × `width`: ⟨D x, y⟩ = ⟨x, Dᵀ y⟩, edges included.
    ///
    /// # Panics
    /// When `low` is not of the size that D gives.
    pub fn adjoint<T: Real>(&self, low: &Raster<T>, height: usize, width: usize) -> Raster<T> {
        assert_eq!((low.height, low.width), (self.low_size(height), self.low_size(width)), "the degraded size");
        let channels = low.channels;
        let blur = |kernel, step| Blur::new(kernel, step, height, width, channels);
        match (self.kernel(), self.downsample()) {
            (Some(kernel), Downsample::Direct) => match self.whole_scale() {
                Some(step) => blur(kernel, step).adjoint(low),
                None => {
                    let mut dense = Raster::<T>::new(height, width, channels);
                    self.spread(low, &mut dense);
                    blur(kernel, 1).adjoint(&dense)
                }
            },
            (kernel, _) => {
                let axis = |size| self.shrinking(size).transposed(size);
                let up = resample(low, &axis(height), &axis(width));
                match kernel {
                    None => up,
                    Some(kernel) => blur(kernel, 1).adjoint(&up),
                }
            }
        }
    }

    /// D(Dᵀ(·)) and ‖Dᵀ(·)‖² of degraded pictures of `height` × `width` with `channels` channels, for D with
    /// this kernel, by way of the large picture.
    pub(super) fn normal_through<T: Real>(
        &self,
        kernel: &Kernel,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Normal<'_, T> {
        if let (Downsample::Direct, Some(step)) = (self.downsample(), self.whole_scale()) {
            let blur = Blur::new(kernel, step, height, width, channels);
            let mut scratch = blur.scratch();
            return Box::new(move |low, out| blur.normal(low, &mut scratch, out));
        }
        let mut high = Raster::new(height, width, channels);
        let blur = Blur::new(kernel, 1, height, width, channels);
        let (mut scratch, mut blurred) = (blur.scratch(), high.clone());
        if self.downsample() == Downsample::Direct {
            return Box::new(move |low, out| {
                high.data.fill(T::zero());
                self.spread(low, &mut high);
                let size = blur.normal(&high, &mut scratch, &mut blurred);
                self.keep(&blurred, out);
                size
            });
        }
        let down = [height, width].map(|size| self.shrinking(size));
        let up = [down[0].transposed(height), down[1].transposed(width)];
        Box::new(move |low, out| {
            resample_into(low, &up[0], &up[1], &mut high);
            let size = blur.normal(&high, &mut scratch, &mut blurred);
            resample_into(&blurred, &down[0], &down[1], out);
            size
        })
    }

    /// Adds the pixels of a degraded picture to those that direct subsampling kept.
    fn spread<T: Real>(&self, low: &Raster<T>, high: &mut Raster<T>) {
        let channels = low.channels;
        // At the end of an axis a pixel may be kept twice.
        self.kept(high.height, high.width, channels, |from, to| {
            (0..channels).for_each(|c| high.data[to + c] += low.data[from + c]);
        });
    }
}

/// How the least-squares upscale weighs and works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeastSquares {
    /// λ: how much the aligned cubic upscale is trusted where the photo says little.
    pub lambda: f64,
    /// Steps of conjugate gradients.
    pub steps: usize,
}

impl Default for LeastSquares {
    /// λ = 1e-3 and 25 steps: for photos with the noise of 8-bit rounding.
    fn default() -> Self {
        LeastSquares { lambda: 1e-3, steps: 25 }
    }
}

impl LeastSquares {
    /// λ for LR values in which noise of standard deviation `sigma` (of [0, 1]) was found
    /// ([`Degradation::noise`]): 1e-3 (1 + 2.7 (s² − 1)) with s = 255 σ where s is above 1, and 1e-3
    /// below, where 8-bit rounding is as much. λ is the variance of an LR value's
    /// error over that of the upscale that it is weighed against, and so grows with σ²; the factors were
    /// chosen on held-out photos (docs/training.md).
    pub fn lambda_for(sigma: f64) -> f64 {
        let level = 1.0 / (255.0 * 255.0);
        1e-3 * (1.0 + 2.7 * (sigma * sigma / level - 1.0).max(0.0))
    }

    /// argmin ‖D x − low‖² + λ ‖x − prior‖², by conjugate gradients from x = prior, one step length
    /// over all channels (Hestenes and Stiefel, 1952). Not clipped.
    ///
    /// All search directions p and residuals r are Dᵀ of something of `low`'s size, p = Dᵀ q and
    /// r = Dᵀ s, and the steps are made on that: the same steps, on 1/s² of the pixels. With
    /// G = D Dᵀ, ⟨p, (DᵀD + λ) p⟩ = ‖G q‖² + λ ‖p‖²; and ‖p‖² follows from ‖r‖², since r is at right
    /// angles to the direction before.
    ///
    /// round(s · size) may be a little more than D turns into `size` pixels: the row or column more that
    /// D then makes is not seen.
    ///
    /// In f32, rounding in the directions that D hardly shows grows to 1e-4 within 25 steps: see
    /// [`LeastSquares::upscale`].
    pub fn solve<T: Real>(&self, degradation: &Degradation, low: &Raster<T>, prior: Raster<T>) -> Raster<T> {
        self.steps(degradation, low, prior, false, None).0
    }

    /// The same where `z`, of `low`'s size, is what another solve for that photo ended with, and x = prior +
    /// Dᵀ z the beginning: as z = (y − D x) / λ at the solution, what one prior leaves to be done is nearly
    /// done for the next. Afterwards `z` is what this one ended with.
    ///
    /// The steps are those of conjugate gradients on (D Dᵀ + λ) z = y − D prior, which go down in what D of x
    /// is off the photo rather than in the sum that x makes least: nearer to its end after the same number of
    /// steps, where that is what remains to be done.
    pub fn solve_on<T: Real>(
        &self,
        degradation: &Degradation,
        low: &Raster<T>,
        prior: Raster<T>,
        z: &mut Option<Raster<T>>,
    ) -> Raster<T> {
        let (x, ended) = self.steps(degradation, low, prior, true, z.take());
        *z = Some(ended);
        x
    }

    /// x, and z with x = prior + Dᵀ z; `by_photo` as [`LeastSquares::solve_on`] makes its steps.
    fn steps<T: Real>(
        &self,
        degradation: &Degradation,
        low: &Raster<T>,
        prior: Raster<T>,
        by_photo: bool,
        begun: Option<Raster<T>>,
    ) -> (Raster<T>, Raster<T>) {
        // Within the pool's threads as a whole: for a thread outside, each of the many pieces of work below
        // would be handed over and waited for, which for a small picture takes as long as the work.
        rayon::scope(|_| {
            let mut s = sized(degradation.apply(&prior), low.height, low.width);
            s.data.iter_mut().zip(&low.data).for_each(|(d, &y)| *d = y - *d);
            let (height, width) = (prior.height, prior.width);
            let z = match degradation.axes((height, width), (low.height, low.width)) {
                // A few taps on the small picture: so cheap that f64 costs nothing, and f64 is what ⟨s, G s⟩ needs
                // to be as good as ‖Dᵀ s‖².
                Ok(axes) => {
                    let [down, along] =
                        [(&axes[0], height), (&axes[1], width)].map(|(d, size)| d.after(&d.transposed(size)));
                    let normal = |seen: &Raster<f64>, out: &mut Raster<f64>| {
                        resample_into(seen, &down, &along, out);
                        dot(&seen.data, &out.data)
                    };
                    self.conjugate_gradients(by_photo, s.map(T::wide), begun.map(|z| z.map(T::wide)), normal).map(T::of)
                }
                Err(kernel) => {
                    let small = degradation.small_is_less(kernel, height, width);
                    let normal = small.then(|| degradation.normal_small(kernel, height, width, s.channels)).flatten();
                    let normal =
                        normal.unwrap_or_else(|| degradation.normal_through(kernel, height, width, s.channels));
                    self.by_normal(degradation, normal, by_photo, s, begun, (height, width))
                }
            };
            let mut x = prior;
            let seen = sized(z.clone(), degradation.low_size(height), degradation.low_size(width));
            let step = degradation.adjoint(&seen, height, width);
            x.data.iter_mut().zip(&step.data).for_each(|(x, &d)| *x += d);
            (x, z)
        })
    }

    /// The same z where D Dᵀ is `whole`, for pictures of the size `high`.
    fn by_normal<T: Real>(
        &self,
        degradation: &Degradation,
        mut whole: Normal<'_, T>,
        by_photo: bool,
        s: Raster<T>,
        begun: Option<Raster<T>>,
        high: (usize, usize),
    ) -> Raster<T> {
        let (rows, columns) = (degradation.low_size(high.0), degradation.low_size(high.1));
        self.conjugate_gradients(by_photo, s, begun, |seen: &Raster<T>, out: &mut Raster<T>| {
            if (rows, columns) == (seen.height, seen.width) {
                return whole(seen, out);
            }
            let mut made = Raster::new(rows, columns, seen.channels);
            let size = whole(&sized(seen.clone(), rows, columns), &mut made);
            *out = sized(made, seen.height, seen.width);
            size
        })
    }

    /// z with (G + λ) z = s as nearly as the steps from `begun` (or nothing) make it: those on x = Dᵀ z, or
    /// `by_photo` those on z itself, which are the same with all products one G less. `normal` puts G q into its
    /// second argument and returns ⟨q, G q⟩.
    fn conjugate_gradients<T: Real>(
        &self,
        by_photo: bool,
        mut s: Raster<T>,
        begun: Option<Raster<T>>,
        mut normal: impl FnMut(&Raster<T>, &mut Raster<T>) -> f64,
    ) -> Raster<T> {
        let lambda = T::of(self.lambda);
        let mut normal_q = Raster::<T>::new(s.height, s.width, s.channels);
        let mut z = match begun {
            Some(z) => {
                normal(&z, &mut normal_q);
                each(&mut s.data, &z.data, &normal_q.data, |s, z, g| s - (g + lambda * z));
                z
            }
            None => Raster::new(s.height, s.width, s.channels),
        };
        let size = |s: &Raster<T>, spread: f64| if by_photo { dot(&s.data, &s.data) } else { spread };
        let mut q = s.clone();
        let spread = normal(&s, &mut normal_q);
        let mut residual = size(&s, spread);
        let mut normal_s = normal_q.clone();
        let mut direction = residual;
        for step in 0..self.steps {
            let against = if by_photo { &q } else { &normal_q };
            let along = dot(&against.data, &normal_q.data) + self.lambda * direction;
            // Nothing left to explain: the photo is what D makes of x.
            if !(residual > 0.0 && along > 0.0) {
                break;
            }
            let alpha = T::of(residual / along);
            each(&mut z.data, &q.data, &q.data, |z, q, _| z + alpha * q);
            if step + 1 == self.steps {
                break;
            }
            each(&mut s.data, &q.data, &normal_q.data, |s, q, g| s - alpha * (g + lambda * q));
            let spread = normal(&s, &mut normal_s);
            let next = size(&s, spread);
            let ratio = next / residual;
            let beta = T::of(ratio);
            each(&mut q.data, &s.data, &s.data, |q, s, _| s + beta * q);
            each(&mut normal_q.data, &normal_s.data, &normal_s.data, |g, s, _| s + beta * g);
            residual = next;
            direction = next + ratio * ratio * direction;
        }
        z
    }

    /// The least-squares upscale of `low` to `height` × `width` around the aligned cubic one, computed
    /// in f64 whatever the type.
    pub fn upscale<T: Real>(
        &self,
        degradation: &Degradation,
        low: &Raster<T>,
        height: usize,
        width: usize,
    ) -> Raster<T> {
        self.upscale_in::<f64, T>(degradation, low, height, width)
    }

    /// The same in the precision `P`.
    pub fn upscale_in<P: Real, T: Real>(
        &self,
        degradation: &Degradation,
        low: &Raster<T>,
        height: usize,
        width: usize,
    ) -> Raster<T> {
        let low = low.map(|v| P::of(v.wide()));
        let prior = degradation.aligned_window(&low, 0..height, 0..width);
        self.solve(degradation, &low, prior).map(|v| T::of(v.wide()))
    }
}

/// Values that a thread takes at a time.
const PORTION: usize = 1 << 14;

/// `change` of each value and those of `a` and `b` at its place.
fn each<T: Real>(values: &mut [T], a: &[T], b: &[T], change: impl Fn(T, T, T) -> T + Sync) {
    let all = values.par_chunks_mut(PORTION).zip(a.par_chunks(PORTION).zip(b.par_chunks(PORTION)));
    all.for_each(|(values, (a, b))| {
        values.iter_mut().zip(a.iter().zip(b)).for_each(|(v, (&a, &b))| *v = change(*v, a, b));
    });
}

/// ⟨a, b⟩ in f64, in the same order for any number of threads.
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let both = a.par_chunks(PORTION).zip(b.par_chunks(PORTION));
    both.map(|(a, b)| products(a, b)).collect::<Vec<_>>().iter().sum()
}

/// `image` cut at the right and bottom to `height` × `width`, or continued there with zeros.
fn sized<T: Real>(image: Raster<T>, height: usize, width: usize) -> Raster<T> {
    if (image.height, image.width) == (height, width) {
        return image;
    }
    let mut out = Raster::new(height, width, image.channels);
    let length = image.width.min(width) * image.channels;
    for y in 0..image.height.min(height) {
        out.row_mut(y)[..length].copy_from_slice(&image.row(y)[..length]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;

    fn dot(a: &Raster<f64>, b: &Raster<f64>) -> f64 {
        a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum()
    }

    fn noise(height: usize, width: usize, seed: u64) -> Raster<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let data = (0..height * width * 3)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
            })
            .collect();
        Raster::from_vec(height, width, 3, data)
    }

    #[test]
    fn the_adjoint_is_exact() {
        let uneven = Kernel::new(5, 8, (0..40).map(|i| (1.0 + (i * 7 % 11) as f64) / 240.0).collect()).unwrap();
        let kernels = [None, Some(Kernel::gaussian(4.0, 1.0, -0.5, 15)), Some(uneven)];
        for (i, kernel) in kernels.iter().enumerate() {
            for downsample in [Downsample::Direct, Downsample::Bicubic] {
                if kernel.is_none() && downsample == Downsample::Direct {
                    continue;
                }
                for scale in [1.0, 1.7, 2.0, 3.0, 4.0] {
                    for (h, w) in [(1, 1), (3, 17), (16, 9), (23, 31)] {
                        let d = Degradation::new(scale, kernel.clone(), downsample).unwrap();
                        let x = noise(h, w, 1 + i as u64);
                        let y = noise(d.low_size(h), d.low_size(w), 7);
                        let (a, b) = (dot(&d.apply(&x), &y), dot(&x, &d.adjoint(&y, h, w)));
                        assert!((a - b).abs() < 1e-12 * (1.0 + a.abs()), "{scale} {downsample} {h} × {w}: {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_solution_explains_the_photo_better_and_stays_near() {
        let d = Degradation::new(2.0, Some(Kernel::gaussian(2.0, 1.0, 0.4, 9)), Downsample::Direct).unwrap();
        let low = d.apply(&noise(24, 30, 3));
        let error = |x: &Raster<f64>| {
            let made = d.apply(x);
            made.data.iter().zip(&low.data).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
        };
        let start = d.aligned_window(&low, 0..24, 0..30);
        let solved = LeastSquares::default().upscale(&d, &low, 24, 30);
        assert!(error(&solved) < 0.05 * error(&start), "{} {}", error(&solved), error(&start));
        let tied = LeastSquares { lambda: 1e9, steps: 25 }.upscale(&d, &low, 24, 30);
        assert!(tied.data.iter().zip(&start.data).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn a_solve_along_the_axes_is_that_through_the_large_picture() {
        let kernel = Kernel::gaussian(1.5, 1.5, 0.0, 9);
        let rule = LeastSquares { lambda: 3e-3, steps: 8 };
        for downsample in [Downsample::Direct, Downsample::Bicubic] {
            // A row less than D makes, and a column more.
            for (scale, more) in [(1.5, 0), (2.0, 0), (2.0, 1), (2.7, 0), (4.0, 0)] {
                let d = Degradation::new(scale, Some(kernel.clone()), downsample).unwrap();
                let (height, width) = (23, 30);
                let low = noise(d.low_size(height) - more, d.low_size(width) + more, 5);
                assert!(d.axes((height, width), (low.height, low.width)).is_ok());
                let along = rule.solve(&d, &low, Raster::new(height, width, 3));
                let large = d.normal_through(&kernel, height, width, 3);
                let z = rule.by_normal(&d, large, false, low, None, (height, width));
                let through = d.adjoint(&sized(z, d.low_size(height), d.low_size(width)), height, width);
                let worst = along.data.iter().zip(&through.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-10, "{downsample} {scale} {more}: {worst}");
            }
        }
    }

    #[test]
    fn on_the_small_picture_it_is_the_same() {
        let uneven = Kernel::new(4, 9, (0..36).map(|i| (1 + i * 5 % 7) as f64 / 140.0).collect()).unwrap();
        let oblique = Kernel::gaussian(4.0, 1.0, -0.5, 15);
        // All that it does lies together, but far from its centre.
        let mut aside = vec![0.0; 225];
        (aside[12 * 15 + 13], aside[13 * 15 + 12], aside[13 * 15 + 13]) = (0.3, 0.2, 0.5);
        let aside = Kernel::new(15, 15, aside).unwrap();
        for kernel in [oblique.displaced(0.5, 0.5), oblique.clone(), uneven, Kernel::motion(6.0, 0.7, 15), aside] {
            for downsample in [Downsample::Direct, Downsample::Bicubic] {
                for (scale, height, width) in [(1.0, 100, 97), (2.0, 119, 130), (3.0, 151, 163), (4.0, 222, 206)] {
                    let d = Degradation::new(scale, Some(kernel.clone()), downsample).unwrap();
                    let low = noise(d.low_size(height), d.low_size(width), 4);
                    let (mut a, mut b) = (low.clone(), low.clone());
                    let small = d.normal_small(&kernel, height, width, 3).map(|mut f| f(&low, &mut a));
                    let small = small.unwrap_or_else(|| panic!("{downsample} {scale}"));
                    let large = d.normal_through(&kernel, height, width, 3)(&low, &mut b);
                    assert!((small - large).abs() < 1e-12 * large, "{downsample} {scale}: {small} {large}");
                    let worst = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-14, "{downsample} {scale}: {worst}");
                    // No room for strips.
                    assert!(d.normal_small::<f64>(&kernel, 30, 30, 3).is_none());
                    assert!(!d.small_is_less(&kernel, 30, 30));
                    // At scale 1 two blurs are fewer products than what both reach.
                    assert_eq!(d.small_is_less(&oblique, 2000, 3000), scale > 1.0, "{downsample} {scale}");
                }
            }
        }
    }

    /// After another prior's solve, eight steps come as near as many, where from nothing they do not.
    #[test]
    fn a_solve_goes_on_where_another_ended() {
        for kernel in [Kernel::gaussian(2.0, 2.0, 0.0, 15), Kernel::gaussian(4.0, 1.0, -0.5, 15)] {
            let d = Degradation::new(2.0, Some(kernel), Downsample::Direct).unwrap();
            let low = d.apply(&noise(34, 40, 3));
            let prior = d.aligned_window(&low, 0..34, 0..40);
            let (few, many) = (LeastSquares { lambda: 1e-3, steps: 8 }, LeastSquares { lambda: 1e-3, steps: 400 });
            let mut z = None;
            few.solve_on(&d, &low, prior.clone(), &mut z);
            let small = noise(34, 40, 8);
            let next =
                Raster::from_vec(34, 40, 3, prior.data.iter().zip(&small.data).map(|(p, n)| p + 0.01 * n).collect());
            let exact = many.solve(&d, &low, next.clone());
            let off =
                |x: &Raster<f64>| x.data.iter().zip(&exact.data).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let cold = off(&few.solve_on(&d, &low, next.clone(), &mut None));
            let made = few.solve_on(&d, &low, next.clone(), &mut z);
            assert!(off(&made) < 0.5 * cold, "{} {cold}", off(&made));
            // z says what was added.
            let added = d.adjoint(&z.unwrap(), 34, 40);
            let sums = next.data.iter().zip(&added.data).zip(&made.data);
            assert!(sums.into_iter().all(|((p, a), x)| (p + a - x).abs() < 1e-12));
        }
    }

    #[test]
    fn sizes_that_are_not_multiples_work() {
        for (scale, h, w) in [(1.5, 4, 5), (2.0, 7, 3), (2.7, 5, 6), (3.9, 3, 3)] {
            let d = Degradation::new(scale, Some(Kernel::gaussian(1.0, 1.0, 0.0, 7)), Downsample::Direct).unwrap();
            let (height, width) = (super::super::high_size(h, scale), super::super::high_size(w, scale));
            let x = LeastSquares::default().upscale(&d, &noise(h, w, 2), height, width);
            assert!((x.height, x.width) == (height, width) && x.data.iter().all(|v| v.is_finite()));
        }
    }
}
