//! What goes into a network, and the data step that follows it.

use super::plan::HALO;
use super::son::{tiles, with_halo};
use crate::degrade::{Degradation, LeastSquares, Start, resize};
use crate::engine::{Engine, Layer, Shape};
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
    /// λ of the least-squares start. After a pass μ = 3 λ.
    pub lambda: f64,
}

impl Default for Course {
    /// The paper's: once, from the bicubic upscale.
    fn default() -> Self {
        Course { start: Start::Bicubic, passes: 1, fit: false, lambda: LeastSquares::default().lambda }
    }
}

impl Course {
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

    /// The input of the first pass: `height` × `width` pixels. What is solved is solved in the
    /// precision `P`: f64 for photos; f32 does for patches to train on, whose rounding to 8 bits
    /// matters far more.
    pub fn begin<P: Real, T: Real>(
        &self,
        degradation: &Degradation,
        low: &Raster<T>,
        height: usize,
        width: usize,
    ) -> Raster<T> {
        match self.start {
            Start::Bicubic => resize(low, degradation.scale(), height, width),
            Start::LeastSquares => {
                let solver = LeastSquares { lambda: self.lambda, ..LeastSquares::default() };
                solver.upscale_in::<P, T>(degradation, low, height, width)
            }
        }
    }

    /// The data step after a pass that made `made`: argmin ‖D x − low‖² + μ ‖x − made‖², eight steps.
    /// `made` itself where the course has no solves.
    ///
    /// μ was chosen on held-out photos (docs/training.md).
    pub fn data_step<T: Real>(&self, degradation: &Degradation, low: &Raster<T>, made: Raster<T>) -> Raster<T> {
        if !self.solves() {
            return made;
        }
        LeastSquares { lambda: 3.0 * self.lambda, steps: 8 }.solve(degradation, low, made)
    }

    /// Whether there is a solve in it.
    pub fn solves(&self) -> bool {
        self.start == Start::LeastSquares || self.passes > 1
    }

    /// HR pixels around a tile that its result depends on: what the network sees in each pass, and
    /// as far as a solve carries more than a fraction of an 8-bit level.
    pub fn halo(&self, degradation: &Degradation) -> usize {
        let solve = if self.solves() { solve_halo(degradation) } else { 0 };
        solve + self.passes * (HALO + solve)
    }
}

/// HR pixels around a tile that a least-squares upscale of it depends on, but for a fraction of an
/// 8-bit level.
pub(super) fn solve_halo(degradation: &Degradation) -> usize {
    let kernel = degradation.kernel().map_or(0, |kernel| kernel.height.max(kernel.width));
    2 * kernel + (8.0 * degradation.scale()).ceil() as usize
}

/// The network's output for `input`, of the same size; tiles of at most `side` give the same bits
/// as the whole.
pub(crate) fn forward<E: Engine>(
    network: &Network<'_, E>,
    params: &E::Tensor,
    input: &Raster<E::Elem>,
    side: usize,
) -> Result<Raster<E::Elem>> {
    let engine = network.engine();
    let (height, width) = (input.height, input.width);
    let mut out = Raster::new(height, width, 3);
    for core in tiles(height, width, side) {
        let seen = with_halo(core, HALO, height, width);
        let part = input.crop(seen.y, seen.x, seen.height, seen.width);
        let part = engine.upload(Shape::new(1, seen.height, seen.width, 3), &part.data)?;
        let made = engine.download(&network.output(params, &part)?)?;
        for y in 0..core.height {
            let from = ((core.y - seen.y + y) * seen.width + core.x - seen.x) * 3;
            let to = ((core.y + y) * width + core.x) * 3;
            out.data[to..to + core.width * 3].copy_from_slice(&made[from..from + core.width * 3]);
        }
    }
    Ok(out)
}
