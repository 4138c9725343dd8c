//! What goes into a network, and the data step that follows it.

use super::plan::HALO;
use super::son::{tiles, with_halo};
use crate::degrade::{Degradation, LeastSquares, Map, Start, Taps, resize};
use crate::engine::{Engine, Layer, Shape, Window};
use crate::network::{Network, Passes};
use crate::{Raster, Real, Result};

/// How a photo goes through a network: once from its start, or several times with parameters of its
/// own each time. But for a single pass from the bicubic start, as in the paper, a data step follows
/// each pass: what the photo says outweighs what the network made of it. The same for the photo, for
/// its son, and in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// What the first pass begins with.
    pub start: Start,
    /// Passes, at least 1.
    pub passes: usize,
    /// Whether the parameters follow the blur ([`crate::network::Fit`]).
    pub fit: bool,
    /// λ of the least-squares start.
    pub lambda: f64,
    /// μ of the data steps, over λ.
    pub mu_over_lambda: f64,
}

/// What an LR photo's values may be off, as standard deviations of [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NoiseLevel {
    /// White noise ([`Degradation::noise`]).
    pub white: f64,
    /// What it lost as a JPEG ([`crate::image::Photo::compression_noise`]).
    pub jpeg: f64,
}

impl NoiseLevel {
    /// Of both.
    pub fn sigma(self) -> f64 {
        self.white.hypot(self.jpeg)
    }

    /// λ for it ([`LeastSquares::lambda_for`]).
    pub fn lambda(self) -> f64 {
        LeastSquares::lambda_for(self.sigma())
    }

    /// μ over λ: 2 for white noise, 3 for a JPEG, whose errors are large where there is detail, and of which
    /// a network knows more than a data step; by their shares of the variance where there is both. Chosen
    /// on held-out photos (docs/training.md).
    pub fn mu_over_lambda(self) -> f64 {
        let jpeg = if self.jpeg > 0.0 { (self.jpeg / self.sigma()).powi(2) } else { 0.0 };
        2.0 + jpeg
    }
}

impl Default for Course {
    /// The paper's: once, from the bicubic upscale.
    fn default() -> Self {
        let noise = NoiseLevel::default();
        Course {
            start: Start::Bicubic,
            passes: 1,
            fit: false,
            lambda: noise.lambda(),
            mu_over_lambda: noise.mu_over_lambda(),
        }
    }
}

impl Course {
    /// The same for a photo with such noise.
    pub fn with(self, noise: NoiseLevel) -> Self {
        Course { lambda: noise.lambda(), mu_over_lambda: noise.mu_over_lambda(), ..self }
    }

    /// The network's parameters in each pass for this blur, of `parameters` as in a file.
    ///
    /// # Panics
    /// When they are not those of as many passes.
    pub(crate) fn parameters<T: Real>(
        &self,
        parameters: &[T],
        layers: &[Layer],
        degradation: &Degradation,
    ) -> Vec<Vec<T>> {
        Passes::new(layers, self.fit).fitted(parameters, self.passes, &degradation.features(self.lambda))
    }

    /// The least-squares start.
    fn rule(&self) -> LeastSquares {
        LeastSquares { lambda: self.lambda, ..LeastSquares::default() }
    }

    /// The input of the first pass: `height` × `width` pixels.
    ///
    /// # Errors
    /// A failing engine.
    pub fn begin<E: Engine>(
        &self,
        engine: &E,
        degradation: &Degradation,
        low: &E::Tensor,
        height: usize,
        width: usize,
    ) -> Result<E::Tensor> {
        match self.start {
            Start::Bicubic => {
                let (shape, scale) = (engine.shape(low), degradation.scale());
                let (rows, columns) = (Taps::resize(shape.h, scale, 0..height), Taps::resize(shape.w, scale, 0..width));
                engine.map(&Map::Separable { rows, columns }, low)
            }
            Start::LeastSquares => engine.least_squares(self.rule(), degradation, low, height, width),
        }
    }

    /// The same for patches to train on, solved in f32, whose rounding matters far less than that to 8
    /// bits.
    pub(crate) fn begin_patch(
        &self,
        degradation: &Degradation,
        low: &Raster<f32>,
        height: usize,
        width: usize,
    ) -> Raster<f32> {
        match self.start {
            Start::Bicubic => resize(low, degradation.scale(), height, width),
            Start::LeastSquares => self.rule().upscale_in::<f32, f32>(degradation, low, height, width),
        }
    }

    /// The data step after a pass that made `made`: argmin ‖D x − low‖² + μ ‖x − made‖², a few steps from
    /// where the one before ended, which `z` says ([`LeastSquares::solve_on`]). `made` itself where the
    /// course has no solves.
    ///
    /// # Errors
    /// A failing engine.
    pub fn data_step<E: Engine>(
        &self,
        engine: &E,
        degradation: &Degradation,
        low: &E::Tensor,
        made: E::Tensor,
        z: &mut Option<E::Tensor>,
    ) -> Result<E::Tensor> {
        if !self.solves() {
            return Ok(made);
        }
        // As many as bring it to its end, but for 0.005 dB under wide blurs (docs/training.md): small scales keep
        // more of what a blur all but took away, and that takes longer to solve for.
        let steps = if degradation.scale() < 2.0 { 16 } else { 10 };
        let rule = LeastSquares { lambda: self.mu_over_lambda * self.lambda, steps };
        engine.solve(rule, degradation, low, made, z)
    }

    /// Whether there is a solve in it.
    pub fn solves(&self) -> bool {
        self.start == Start::LeastSquares || self.passes > 1
    }

    /// HR pixels around a tile that its result depends on: what the network, which sees cells of `cell` ×
    /// `cell` pixels, sees in each pass, and as far as a solve carries more than a fraction of an 8-bit
    /// level. Whole cells.
    pub fn halo(&self, degradation: &Degradation, cell: usize) -> usize {
        let solve = if self.solves() { solve_halo(degradation) } else { 0 };
        (solve + self.passes * (HALO * cell + solve)).next_multiple_of(cell)
    }
}

/// HR pixels around a tile that a least-squares upscale of it depends on, but for a fraction of an
/// 8-bit level.
pub(super) fn solve_halo(degradation: &Degradation) -> usize {
    let kernel = degradation.kernel().map_or(0, |kernel| kernel.height.max(kernel.width));
    2 * kernel + (8.0 * degradation.scale()).ceil() as usize
}

/// The pixels of `window` of a picture in the engine's memory.
pub(super) fn cut<E: Engine>(engine: &E, from: &E::Tensor, window: Window) -> Result<E::Tensor> {
    let shape = Shape { h: window.height, w: window.width, ..engine.shape(from) };
    let mut part = engine.zeros(shape)?;
    engine.place(from, window, &mut part, 0, 0)?;
    Ok(part)
}

/// The network's output for `input`, of the same size; tiles of at most `side` give the same bits
/// as the whole.
pub(crate) fn forward<E: Engine>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    input: &E::Tensor,
    side: usize,
) -> Result<E::Tensor> {
    let engine = network.engine();
    let shape = engine.shape(input);
    if shape.h.max(shape.w) <= side {
        return network.output(params, input);
    }
    let mut out = engine.zeros(shape)?;
    for core in tiles(shape.h, shape.w, side) {
        let seen = with_halo(core, HALO * network.cell(), shape.h, shape.w);
        let made = network.output(params, &cut(engine, input, seen)?)?;
        let inner = Window { y: core.y - seen.y, x: core.x - seen.x, ..core };
        engine.place(&made, inner, &mut out, core.y, core.x)?;
    }
    Ok(out)
}
