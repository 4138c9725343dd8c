//! The exact adjoint of D, and the least-squares upscale that needs no network.

use super::blur::{Blur, square};
use super::taps::{Taps, resample, resample_into};
use super::{Degradation, Downsample};
use crate::{Raster, Real};

/// D(Dᵀ(·)) into a picture of that size, whatever it shows; ‖Dᵀ(·)‖².
type Normal<'a, T> = Box<dyn FnMut(&Raster<T>, &mut Raster<T>) -> f64 + 'a>;

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
                    // At the end of an axis a pixel may be kept twice.
                    self.kept(height, width, channels, |from, to| {
                        (0..channels).for_each(|c| dense.data[to + c] += low.data[from + c]);
                    });
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

    /// The bicubic downsampling of an axis.
    fn shrinking(&self, size: usize) -> Taps {
        Taps::resize(size, 1.0 / self.scale(), 0..self.low_size(size))
    }

    /// D(Dᵀ(·)) and ‖Dᵀ(·)‖² of degraded pictures of `height` × `width` with `channels` channels.
    fn normal<T: Real>(&self, height: usize, width: usize, channels: usize) -> Normal<'_, T> {
        if let (Some(kernel), Downsample::Direct, Some(step)) = (self.kernel(), self.downsample(), self.whole_scale()) {
            let blur = Blur::new(kernel, step, height, width, channels);
            let mut scratch = blur.scratch();
            return Box::new(move |low, out| blur.normal(low, &mut scratch, out));
        }
        if self.downsample() == Downsample::Direct {
            return Box::new(move |low, out| {
                let high = self.adjoint(low, height, width);
                *out = self.apply(&high);
                square(&high.data)
            });
        }
        let down = [height, width].map(|size| self.shrinking(size));
        let up = [down[0].transposed(height), down[1].transposed(width)];
        let mut high = Raster::new(height, width, channels);
        match self.kernel() {
            None => Box::new(move |low, out| {
                resample_into(low, &up[0], &up[1], &mut high);
                resample_into(&high, &down[0], &down[1], out);
                square(&high.data)
            }),
            Some(kernel) => {
                let blur = Blur::new(kernel, 1, height, width, channels);
                let (mut scratch, mut blurred) = (blur.scratch(), high.clone());
                Box::new(move |low, out| {
                    resample_into(low, &up[0], &up[1], &mut high);
                    let size = blur.normal(&high, &mut scratch, &mut blurred);
                    resample_into(&blurred, &down[0], &down[1], out);
                    size
                })
            }
        }
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
    /// ([`super::estimate_noise`]): 1e-3 (1 + 2.7 (s² − 1)) with s = 255 σ where s is above 1, and 1e-3
    /// below, where what is found is texture as likely as noise. λ is the variance of an LR value's
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
        // Within the pool's threads as a whole: for a thread outside, each of the many pieces of work below
        // would be handed over and waited for, which for a small picture takes as long as the work.
        rayon::scope(|_| self.steps(degradation, low, prior))
    }

    fn steps<T: Real>(&self, degradation: &Degradation, low: &Raster<T>, prior: Raster<T>) -> Raster<T> {
        let mut s = sized(degradation.apply(&prior), low.height, low.width);
        s.data.iter_mut().zip(&low.data).for_each(|(d, &y)| *d = y - *d);
        let (rows, columns) = (degradation.low_size(prior.height), degradation.low_size(prior.width));
        let mut whole = degradation.normal::<T>(prior.height, prior.width, prior.channels);
        let mut normal = |seen: &Raster<T>, out: &mut Raster<T>| {
            if (rows, columns) == (low.height, low.width) {
                return whole(seen, out);
            }
            let mut made = Raster::new(rows, columns, seen.channels);
            let size = whole(&sized(seen.clone(), rows, columns), &mut made);
            *out = sized(made, low.height, low.width);
            size
        };
        let lambda = T::of(self.lambda);
        let mut z = Raster::<T>::new(s.height, s.width, s.channels);
        let mut q = s.clone();
        let mut normal_q = Raster::<T>::new(s.height, s.width, s.channels);
        let mut residual = normal(&s, &mut normal_q);
        let mut normal_s = normal_q.clone();
        let mut direction = residual;
        for step in 0..self.steps {
            let along = square(&normal_q.data) + self.lambda * direction;
            // Nothing left to explain: the photo is what D makes of x.
            if !(residual > 0.0 && along > 0.0) {
                break;
            }
            let alpha = T::of(residual / along);
            z.data.iter_mut().zip(&q.data).for_each(|(z, &q)| *z += alpha * q);
            if step + 1 == self.steps {
                break;
            }
            for (s, (&q, &g)) in s.data.iter_mut().zip(q.data.iter().zip(&normal_q.data)) {
                *s -= alpha * (g + lambda * q);
            }
            let next = normal(&s, &mut normal_s);
            let ratio = next / residual;
            let beta = T::of(ratio);
            q.data.iter_mut().zip(&s.data).for_each(|(q, &s)| *q = s + beta * *q);
            normal_q.data.iter_mut().zip(&normal_s.data).for_each(|(g, &s)| *g = s + beta * *g);
            residual = next;
            direction = next + ratio * ratio * direction;
        }
        let mut x = prior;
        let step = degradation.adjoint(&sized(z, rows, columns), x.height, x.width);
        x.data.iter_mut().zip(&step.data).for_each(|(x, &d)| *x += d);
        x
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
    fn sizes_that_are_not_multiples_work() {
        for (scale, h, w) in [(1.5, 4, 5), (2.0, 7, 3), (2.7, 5, 6), (3.9, 3, 3)] {
            let d = Degradation::new(scale, Some(Kernel::gaussian(1.0, 1.0, 0.0, 7)), Downsample::Direct).unwrap();
            let (height, width) = (super::super::high_size(h, scale), super::super::high_size(w, scale));
            let x = LeastSquares::default().upscale(&d, &noise(h, w, 2), height, width);
            assert!((x.height, x.width) == (height, width) && x.data.iter().all(|v| v.is_finite()));
        }
    }
}
