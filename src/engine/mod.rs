//! Where the network's arithmetic runs.
//!
//! [`Engine`] holds the few operations that the network, its derivatives and its training are
//! made of. [`plain`] is the readable truth, in `f32` and `f64`; [`cpu`] is the fast one, `gpu` the one
//! for graphics processors, and [`AnyEngine`] one of these two.

mod any;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod plain;

pub use any::{AnyEngine, AnyLoss, AnyTensor, Device, Listed, devices};

use crate::degrade::{Degradation, LeastSquares, Map};
use crate::{Raster, Real, Result};
use std::ops::Range;

/// The size of an activation tensor: `n` pictures of `h` × `w` pixels with `c` channels,
/// channels last. A flat vector of parameters is 1 × 1 × 1 × length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Pictures.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// `n` pictures of `h` × `w` pixels with `c` channels.
    pub fn new(n: usize, h: usize, w: usize, c: usize) -> Self {
        Shape { n, h, w, c }
    }

    /// A flat vector.
    pub fn flat(length: usize) -> Self {
        Shape { n: 1, h: 1, w: 1, c: length }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same pictures with `c` channels.
    pub fn with_channels(self, c: usize) -> Self {
        Shape { c, ..self }
    }
}

/// One 3 × 3 convolution with stride 1 and zero padding 1, and where its weight
/// (OIHW: `output` × `input` × 3 × 3 values) and its bias (`output` values) begin in the flat
/// vector of all parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Index of the first weight.
    pub weight: usize,
    /// Index of the first bias.
    pub bias: usize,
}

impl Layer {
    /// Where the weight lies in the flat vector.
    pub fn weight_range(&self) -> Range<usize> {
        self.weight..self.weight + self.output * self.input * 9
    }

    /// Where the bias lies in the flat vector.
    pub fn bias_range(&self) -> Range<usize> {
        self.bias..self.bias + self.output
    }
}

/// What happens to a value after convolution and bias.
#[derive(Debug)]
pub enum Gate<'a, T> {
    /// Nothing.
    Linear,
    /// max(0, ·).
    Relu,
    /// Kept where this tensor, of the output's shape, is above zero; 0 elsewhere. (For an
    /// activation a = ReLU(z), a > 0 exactly where z > 0.)
    Where(&'a T),
}

/// A rectangle of pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First row.
    pub y: usize,
    /// First column.
    pub x: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Adam (Kingma and Ba, 2015) for one step, the bias corrections included in `rate` by
/// [`AdamStep::new`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamStep {
    /// rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ).
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// ε · √(1 − β₂ᵗ), added to the root of the uncorrected second moment.
    pub epsilon: f64,
}

impl AdamStep {
    /// The step number `t` (from 1) at learning rate `rate`.
    pub fn new(rate: f64, beta1: f64, beta2: f64, epsilon: f64, t: u64) -> Self {
        let root = (1.0 - beta2.powf(t as f64)).sqrt();
        AdamStep { rate: rate * root / (1.0 - beta1.powf(t as f64)), beta1, beta2, epsilon: epsilon * root }
    }
}

/// The operations of the network. Every engine gives the same results up to rounding, and the
/// same bits whatever its number of threads.
///
/// Sums run over *terms*: a Hessian-vector product needs V ∗ a + W ∗ Ra, which is one convolution
/// over concatenated channels.
pub trait Engine: Send + Sync {
    /// The type of a value.
    type Elem: Real;
    /// A tensor in the engine's memory. Dropping it hands the memory back for the next one.
    type Tensor: Send + Sync;
    /// A loss that may not be there yet: [`Engine::loss`] waits for it.
    type Loss;

    /// What it is, for people: `cpu, avx2, 2 threads`.
    fn name(&self) -> String;

    /// The most values that one tensor may hold.
    fn largest(&self) -> usize {
        usize::MAX
    }

    /// Waits until all that was asked for is done. Other operations wait by themselves where they must:
    /// this is for clocks.
    fn finish(&self) -> Result<()> {
        Ok(())
    }

    /// Copies values (channels last) into the engine's memory.
    ///
    /// # Panics
    /// When `data` does not have `shape.len()` values.
    fn upload(&self, shape: Shape, data: &[Self::Elem]) -> Result<Self::Tensor>;

    /// All zero.
    fn zeros(&self, shape: Shape) -> Result<Self::Tensor>;

    /// A copy.
    fn duplicate(&self, tensor: &Self::Tensor) -> Result<Self::Tensor>;

    /// Copies the values back.
    fn download(&self, tensor: &Self::Tensor) -> Result<Vec<Self::Elem>>;

    /// The size of a tensor.
    fn shape(&self, tensor: &Self::Tensor) -> Shape;

    /// gate(Σ W ∗ x + b) + residual over the terms (x, parameters that hold W), with the bias of
    /// `bias` (a flat vector of parameters) where there is one.
    /// x: n × h × w × `layer.input`; result, residual and gate: n × h × w × `layer.output`.
    fn conv(
        &self,
        layer: Layer,
        terms: &[(&Self::Tensor, &Self::Tensor)],
        bias: Option<&Self::Tensor>,
        gate: Gate<'_, Self::Tensor>,
        residual: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// gate(Σ Wᵀ ∗ δ) over the terms (δ, parameters that hold W): the gradient with respect to
    /// the layer's input. δ: n × h × w × `layer.output`; result and gate: n × h × w × `layer.input`.
    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&Self::Tensor, &Self::Tensor)],
        gate: Gate<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Adds to `grad` (a flat vector of parameters) at the layer's places: to the weight the sum
    /// over the terms (a, δ) of corr(a, δ), to the bias Σ over all pixels of `bias_of`.
    /// a: n × h × w × `layer.input`; δ and `bias_of`: n × h × w × `layer.output`.
    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&Self::Tensor, &Self::Tensor)],
        bias_of: &Self::Tensor,
        grad: &mut Self::Tensor,
    ) -> Result<()>;

    /// The sum (in f64) of |output − target| over the pixels of `core` in each picture, divided by
    /// `count`, and its derivative sign(output − target) / count there (0 at equality), 0 outside.
    fn l1(
        &self,
        output: &Self::Tensor,
        target: &Self::Tensor,
        core: Window,
        count: usize,
    ) -> Result<(Self::Loss, Self::Tensor)>;

    /// The value of a loss. What is wanted of its derivative is best asked for before.
    fn loss(&self, loss: Self::Loss) -> Result<f64>;

    /// y += alpha · x over the given places.
    fn axpy(&self, places: Range<usize>, alpha: f64, x: &Self::Tensor, y: &mut Self::Tensor) -> Result<()>;

    /// y *= alpha over the given places.
    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut Self::Tensor) -> Result<()>;

    /// Σ x · y over the given places, in f64.
    fn dot(&self, places: Range<usize>, x: &Self::Tensor, y: &Self::Tensor) -> Result<f64>;

    /// One Adam step on `params`, with moments `first` and `second` of the same length.
    fn adam(
        &self,
        step: AdamStep,
        grad: &Self::Tensor,
        first: &mut Self::Tensor,
        second: &mut Self::Tensor,
        params: &mut Self::Tensor,
    ) -> Result<()>;

    /// Copies the pixels of `window` in each picture of `from` to those of `to` whose first is
    /// (`y`, `x`). Both have as many pictures and channels.
    ///
    /// # Panics
    /// When the window does not lie inside of both.
    fn place(&self, from: &Self::Tensor, window: Window, to: &mut Self::Tensor, y: usize, x: usize) -> Result<()>;

    /// Pictures whose pixels are the cells of `cell` × `cell` pixels of `x` (pixel unshuffle): channel
    /// (i · cell + j) · c + k of a cell is channel k of its pixel in row i, column j. Cells that reach over
    /// the end show the last row or column again.
    fn unshuffle(&self, x: &Self::Tensor, cell: usize) -> Result<Self::Tensor> {
        let from = self.shape(x);
        let to = Shape { h: from.h.div_ceil(cell), w: from.w.div_ceil(cell), c: from.c * cell * cell, ..from };
        let values = self.download(x)?;
        let mut out = Vec::with_capacity(to.len());
        for_cells(from, cell, |at| out.extend_from_slice(&values[at..at + from.c]));
        self.upload(to, &out)
    }

    /// What [`Engine::unshuffle`] makes `cells` of, `height` × `width` pixels.
    fn shuffle(&self, cells: &Self::Tensor, cell: usize, height: usize, width: usize) -> Result<Self::Tensor> {
        let from = self.shape(cells);
        let to = Shape { h: height, w: width, c: from.c / (cell * cell), ..from };
        let values = self.download(cells)?;
        let mut out = values[..to.len()].to_vec();
        let mut pixels = values.chunks_exact(to.c);
        // What lies over the end is put first and the pixel itself after it.
        let mut places = Vec::with_capacity(from.len() / to.c);
        for_cells(to, cell, |at| places.push(at));
        for (at, pixel) in places.into_iter().zip(&mut pixels).rev() {
            out[at..at + to.c].copy_from_slice(pixel);
        }
        self.upload(to, &out)
    }

    /// What `map` makes of a picture (1 × h × w × c). Here and in the solves below an engine without
    /// them works on the processor.
    fn map(&self, map: &Map, image: &Self::Tensor) -> Result<Self::Tensor> {
        load(self, &map.apply(&raster(self, image)?))
    }

    /// The least-squares upscale ([`LeastSquares::upscale`]) of a picture (1 × h × w × c) to `height` ×
    /// `width`.
    fn least_squares(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &Self::Tensor,
        height: usize,
        width: usize,
    ) -> Result<Self::Tensor> {
        load(self, &rule.upscale(degradation, &raster(self, low)?, height, width))
    }

    /// argmin ‖D x − low‖² + λ ‖x − prior‖², both pictures 1 × h × w × c, from `z` on
    /// ([`LeastSquares::solve_on`]).
    fn solve(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &Self::Tensor,
        prior: Self::Tensor,
        z: &mut Option<Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let (low, start) = (raster(self, low)?, raster(self, &prior)?);
        drop(prior);
        let mut kept = z.take().map(|z| raster(self, &z)).transpose()?;
        let made = rule.solve_on(degradation, &low, start, &mut kept);
        *z = kept.map(|z| load(self, &z)).transpose()?;
        load(self, &made)
    }
}

/// A picture in the engine's memory: 1 × h × w × c.
///
/// # Errors
/// What [`Engine::upload`] says.
pub fn load<E: Engine + ?Sized>(engine: &E, raster: &Raster<E::Elem>) -> Result<E::Tensor> {
    engine.upload(Shape::new(1, raster.height, raster.width, raster.channels), &raster.data)
}

/// A picture (1 × h × w × c) back from the engine's memory.
///
/// # Errors
/// What [`Engine::download`] says.
pub fn raster<E: Engine + ?Sized>(engine: &E, tensor: &E::Tensor) -> Result<Raster<E::Elem>> {
    let Shape { n, h, w, c } = engine.shape(tensor);
    assert_eq!(n, 1, "one picture");
    Ok(Raster::from_vec(h, w, c, engine.download(tensor)?))
}

/// The first value of each pixel of pictures of shape `of`, cell by cell.
fn for_cells(of: Shape, cell: usize, mut place: impl FnMut(usize)) {
    for image in 0..of.n {
        for y in 0..of.h.div_ceil(cell) {
            for x in 0..of.w.div_ceil(cell) {
                for at in 0..cell * cell {
                    let (row, column) = ((y * cell + at / cell).min(of.h - 1), (x * cell + at % cell).min(of.w - 1));
                    place(((image * of.h + row) * of.w + column) * of.c);
                }
            }
        }
    }
}

/// The first value of each row of `window` in the pictures of a tensor of `from`, and of its place from
/// (`y`, `x`) on in one of `to`: what [`Engine::place`] copies, `window.width` · channels values each.
fn placed(from: Shape, window: Window, to: Shape, y: usize, x: usize) -> impl Iterator<Item = (usize, usize)> {
    check_placed(from, window, to, y, x);
    (0..from.n * window.height).map(move |line| {
        let (image, row) = (line / window.height, line % window.height);
        let at = |shape: Shape, y: usize, x: usize| ((image * shape.h + y + row) * shape.w + x) * shape.c;
        (at(from, window.y, window.x), at(to, y, x))
    })
}

/// Panics unless `window` lies inside of both.
fn check_placed(from: Shape, window: Window, to: Shape, y: usize, x: usize) {
    let inside = |shape: Shape, y: usize, x: usize| y + window.height <= shape.h && x + window.width <= shape.w;
    assert!(
        (from.n, from.c) == (to.n, to.c) && inside(from, window.y, window.x) && inside(to, y, x),
        "a window inside"
    );
}
