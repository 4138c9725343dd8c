//! The network's arithmetic, once, over any [`Engine`].
//!
//! Layers l = 1 … L, a₀ = x, z_l = W_l ∗ a_{l−1} + b_l, a_l = ReLU(z_l) for l < L,
//! output = x + z_L; loss L = mean |output − y|. Where the network sees cells of pixels
//! ([`Architecture::cell`]) x, y and the output are unshuffled pictures.

pub mod architecture;
mod fit;
mod passes;
pub mod weights;

pub use architecture::Architecture;
pub use fit::Fit;
pub use passes::Passes;

use crate::Result;
use crate::engine::{Engine, Gate, Layer, Shape, Window};

/// The network on an engine. Parameters are flat tensors, [`Architecture::layers`] says what lies
/// where; pictures are n × h × w × 3, also where the network sees cells of them (of odd sizes the last
/// row or column then counts twice in a loss).
pub struct Network<'e, E: Engine> {
    engine: &'e E,
    layers: Vec<Layer>,
    cell: usize,
}

/// A picture as it is, or what was made of it: a part, its cells.
pub(crate) enum Seen<'a, T> {
    Whole(&'a T),
    Made(T),
}

impl<T> std::ops::Deref for Seen<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Seen::Whole(whole) => whole,
            Seen::Made(made) => made,
        }
    }
}

/// What a gradient leaves behind for Hessian-vector products at the same parameters and pairs.
pub struct Trace<T> {
    /// a₁ … a_{L−1}.
    activations: Vec<T>,
    /// δ₁ … δ_L.
    deltas: Vec<T>,
}

/// What a forward pass leaves behind for [`Network::pull_back`]: a₁ … a_{L−1}.
pub struct Activations<T>(Vec<T>);

impl<'e, E: Engine> Network<'e, E> {
    /// The network of `architecture` on `engine`.
    pub fn new(engine: &'e E, architecture: &Architecture) -> Self {
        Network { engine, layers: architecture.layers(), cell: architecture.cell() }
    }

    /// The side of the cells of pixels that it sees ([`Architecture::cell`]).
    pub fn cell(&self) -> usize {
        self.cell
    }

    fn seen<'t>(&self, picture: &'t E::Tensor) -> Result<Seen<'t, E::Tensor>> {
        match self.cell {
            1 => Ok(Seen::Whole(picture)),
            cell => self.engine.unshuffle(picture, cell).map(Seen::Made),
        }
    }

    /// The picture of `shape`'s size that the layers' output, or a δ before them, is of.
    fn pixels(&self, seen: E::Tensor, shape: Shape) -> Result<E::Tensor> {
        if self.cell == 1 { Ok(seen) } else { self.engine.shuffle(&seen, self.cell, shape.h, shape.w) }
    }

    /// The cells of `window`, which begins with one.
    fn cells_of(&self, window: Window) -> Window {
        let Window { y, x, height, width } = window;
        assert!(y % self.cell == 0 && x % self.cell == 0, "a window that begins with a cell");
        Window {
            y: y / self.cell,
            x: x / self.cell,
            height: height.div_ceil(self.cell),
            width: width.div_ceil(self.cell),
        }
    }

    /// The engine.
    pub fn engine(&self) -> &'e E {
        self.engine
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The length of a flat vector of parameters.
    pub fn parameter_count(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias_range().end)
    }

    /// x + f(x).
    pub fn output(&self, params: &E::Tensor, x: &E::Tensor) -> Result<E::Tensor> {
        self.pixels(self.output_of(params, &*self.seen(x)?)?, self.engine.shape(x))
    }

    /// The loss of [`Network::loss_and_gradient`] alone.
    ///
    /// # Errors
    /// A failing engine.
    pub fn loss(&self, params: &E::Tensor, x: &E::Tensor, y: &E::Tensor, core: Window, count: usize) -> Result<f64> {
        let output = self.output_of(params, &*self.seen(x)?)?;
        self.engine.loss(self.engine.l1(&output, &*self.seen(y)?, self.cells_of(core), count)?.0)
    }

    /// x + f(x) of what the layers see.
    fn output_of(&self, params: &E::Tensor, x: &E::Tensor) -> Result<E::Tensor> {
        let mut last: Option<E::Tensor> = None;
        for (l, &layer) in self.layers.iter().enumerate() {
            last = Some(self.layer_output(l, layer, params, last.as_ref().unwrap_or(x), x)?);
        }
        last.map_or_else(|| self.engine.duplicate(x), Ok)
    }

    /// a_l, or the output for the last layer.
    fn layer_output(
        &self,
        l: usize,
        layer: Layer,
        params: &E::Tensor,
        input: &E::Tensor,
        x: &E::Tensor,
    ) -> Result<E::Tensor> {
        let last = l + 1 == self.layers.len();
        let (gate, residual) = if last { (Gate::Linear, Some(x)) } else { (Gate::Relu, None) };
        self.engine.conv(layer, &[(input, params)], Some(params), gate, residual)
    }

    /// The loss Σ|output − y| / count over `core`, its gradient added to `grad` (flat).
    ///
    /// For a whole batch `core` is the whole picture and `count` the number of values; for a tile
    /// of a larger picture `core` is what the tile answers for and `count` that of the picture, so
    /// that losses and gradients of all tiles sum to the picture's.
    pub fn loss_and_gradient(
        &self,
        params: &E::Tensor,
        x: &E::Tensor,
        y: &E::Tensor,
        core: Window,
        count: usize,
        grad: &mut E::Tensor,
    ) -> Result<f64> {
        let x = &*self.seen(x)?;
        let (activations, output) = self.forward(params, x)?;
        let (loss, delta) = self.engine.l1(&output, &*self.seen(y)?, self.cells_of(core), count)?;
        drop(output);
        self.backward(params, x, activations, delta, grad)?;
        self.engine.loss(loss)
    }

    /// Adds the gradient with respect to the parameters to `grad`, where `delta` is that with respect to
    /// the output; returns δ₁.
    fn backward(
        &self,
        params: &E::Tensor,
        x: &E::Tensor,
        mut activations: Vec<E::Tensor>,
        mut delta: E::Tensor,
        grad: &mut E::Tensor,
    ) -> Result<E::Tensor> {
        for (l, &layer) in self.layers.iter().enumerate().rev() {
            // Each activation is dropped as soon as its layer is done: the next δ takes its place.
            let input = activations.pop();
            self.engine.conv_weight_grad(layer, &[(input.as_ref().unwrap_or(x), &delta)], &delta, grad)?;
            if let (true, Some(input)) = (l > 0, &input) {
                delta = self.engine.conv_input_grad(layer, &[(&delta, params)], Gate::Where(input))?;
            }
        }
        Ok(delta)
    }

    /// [`Network::output`], and what [`Network::pull_back`] needs of it.
    ///
    /// # Errors
    /// A failing engine.
    pub fn output_and_activations(
        &self,
        params: &E::Tensor,
        x: &E::Tensor,
    ) -> Result<(E::Tensor, Activations<E::Tensor>)> {
        let (activations, output) = self.forward(params, &*self.seen(x)?)?;
        Ok((self.pixels(output, self.engine.shape(x))?, Activations(activations)))
    }

    /// The gradient with respect to the input `x` of what has the gradient `delta` with respect to its
    /// output; that with respect to the parameters is added to `grad` (flat). Where the network sees cells,
    /// the picture is to consist of whole ones.
    ///
    /// # Errors
    /// A failing engine.
    pub fn pull_back(
        &self,
        params: &E::Tensor,
        x: &E::Tensor,
        activations: Activations<E::Tensor>,
        delta: E::Tensor,
        grad: &mut E::Tensor,
    ) -> Result<E::Tensor> {
        let shape = self.engine.shape(x);
        assert!(shape.h % self.cell == 0 && shape.w % self.cell == 0, "whole cells");
        let cells = match self.cell {
            1 => self.engine.duplicate(&delta)?,
            cell => self.engine.unshuffle(&delta, cell)?,
        };
        let first = self.backward(params, &*self.seen(x)?, activations.0, cells, grad)?;
        // Past the layers, where the input is added to the output, δ goes as it is.
        let mut sum = delta;
        if let Some(&layer) = self.layers.first() {
            let through = self.engine.conv_input_grad(layer, &[(&first, params)], Gate::Linear)?;
            let through = self.pixels(through, shape)?;
            self.engine.axpy(0..shape.len(), 1.0, &through, &mut sum)?;
        }
        Ok(sum)
    }

    /// a₁ … a_{L−1} and the output.
    fn forward(&self, params: &E::Tensor, x: &E::Tensor) -> Result<(Vec<E::Tensor>, E::Tensor)> {
        let mut activations: Vec<E::Tensor> = Vec::with_capacity(self.layers.len());
        for (l, &layer) in self.layers.iter().enumerate() {
            let next = self.layer_output(l, layer, params, activations.last().unwrap_or(x), x)?;
            activations.push(next);
        }
        let output = activations.pop().map_or_else(|| self.engine.duplicate(x), Ok)?;
        Ok((activations, output))
    }

    /// Adds the Hessian-vector product H · `direction` of the loss to `product`; returns the loss.
    ///
    /// # Errors
    /// A failing engine.
    pub fn hessian_vector(
        &self,
        params: &E::Tensor,
        direction: &E::Tensor,
        x: &E::Tensor,
        y: &E::Tensor,
        product: &mut E::Tensor,
    ) -> Result<f64> {
        let (loss, trace) = self.trace(params, x, y, None)?;
        self.hessian_vector_along(&trace, params, direction, x, product)?;
        Ok(loss)
    }

    /// The same from the `trace` of the loss at `params` and `x`: six convolution passes a layer, where
    /// making the trace costs two more.
    ///
    /// ReLU masks and the L1 sign are locally constant, so only products remain. Forward:
    /// Rz_l = V_l ∗ a_{l−1} + W_l ∗ Ra_{l−1} + c_l, Ra_l = m_l ⊙ Rz_l, Ra₀ = 0; backward:
    /// Rδ_L = 0, RgW_l = corr(Ra_{l−1}, δ_l) + corr(a_{l−1}, Rδ_l), Rgb_l = Σ Rδ_l,
    /// Rδ_{l−1} = m_{l−1} ⊙ (V_lᵀ ∗ δ_l + W_lᵀ ∗ Rδ_l)  (Pearlmutter 1994).
    ///
    /// # Errors
    /// A failing engine.
    pub fn hessian_vector_along(
        &self,
        trace: &Trace<E::Tensor>,
        params: &E::Tensor,
        direction: &E::Tensor,
        x: &E::Tensor,
        product: &mut E::Tensor,
    ) -> Result<()> {
        let x = &*self.seen(x)?;
        let count = self.layers.len();
        // Ra₁ … Ra_{L−1}; Ra₀ is zero and Ra_L is not needed.
        let mut tangents: Vec<E::Tensor> = Vec::with_capacity(count);
        for l in 0..count - 1 {
            let input = if l == 0 { x } else { &trace.activations[l - 1] };
            let mut terms = vec![(input, direction)];
            if let Some(tangent) = tangents.last() {
                terms.push((tangent, params));
            }
            let gate = Gate::Where(&trace.activations[l]);
            let next = self.engine.conv(self.layers[l], &terms, Some(direction), gate, None)?;
            tangents.push(next);
        }
        let mut tangent_delta: Option<E::Tensor> = None;
        let nothing = self.engine.zeros(self.engine.shape(x).with_channels(self.layers[count - 1].output))?;
        for l in (0..count).rev() {
            let (layer, delta) = (self.layers[l], &trace.deltas[l]);
            let input = if l == 0 { x } else { &trace.activations[l - 1] };
            let mut terms = Vec::with_capacity(2);
            if l > 0 {
                terms.push((&tangents[l - 1], delta));
            }
            if let Some(tangent_delta) = &tangent_delta {
                terms.push((input, tangent_delta));
            }
            if !terms.is_empty() {
                let bias_of = tangent_delta.as_ref().unwrap_or(&nothing);
                self.engine.conv_weight_grad(layer, &terms, bias_of, product)?;
            }
            if l > 0 {
                let mut terms = vec![(delta, direction)];
                if let Some(tangent_delta) = &tangent_delta {
                    terms.push((tangent_delta, params));
                }
                let gate = Gate::Where(&trace.activations[l - 1]);
                tangent_delta = Some(self.engine.conv_input_grad(layer, &terms, gate)?);
            }
        }
        Ok(())
    }

    /// The number of values that a [`Trace`] holds for each pixel of the input.
    pub fn trace_channels(&self) -> usize {
        let hidden: usize = self.layers.iter().skip(1).map(|layer| layer.input).sum();
        (2 * hidden + self.layers.last().map_or(0, |layer| layer.output)).div_ceil(self.cell * self.cell)
    }

    /// The loss over the whole of x and y, its activations and deltas, and with `grad` (flat) its
    /// gradient, added there.
    ///
    /// # Errors
    /// A failing engine.
    pub fn trace(
        &self,
        params: &E::Tensor,
        x: &E::Tensor,
        y: &E::Tensor,
        mut grad: Option<&mut E::Tensor>,
    ) -> Result<(f64, Trace<E::Tensor>)> {
        let shape = self.engine.shape(x);
        let whole = self.cells_of(Window { y: 0, x: 0, height: shape.h, width: shape.w });
        let x = &*self.seen(x)?;
        let (activations, output) = self.forward(params, x)?;
        let (loss, mut delta) = self.engine.l1(&output, &*self.seen(y)?, whole, shape.len())?;
        let mut deltas = Vec::with_capacity(self.layers.len());
        for (l, &layer) in self.layers.iter().enumerate().rev() {
            let input = if l == 0 { x } else { &activations[l - 1] };
            if let Some(grad) = grad.as_deref_mut() {
                self.engine.conv_weight_grad(layer, &[(input, &delta)], &delta, grad)?;
            }
            if l > 0 {
                let next = self.engine.conv_input_grad(layer, &[(&delta, params)], Gate::Where(input))?;
                deltas.push(std::mem::replace(&mut delta, next));
            }
        }
        deltas.push(delta);
        deltas.reverse();
        Ok((self.engine.loss(loss)?, Trace { activations, deltas }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plain::{PlainEngine, PlainTensor};

    type Plain = PlainEngine<f64>;

    fn noise(length: usize, seed: u64, size: f64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                size * (2.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 1.0)
            })
            .collect()
    }

    struct Case {
        architecture: Architecture,
        params: Vec<f64>,
        x: PlainTensor<f64>,
        y: PlainTensor<f64>,
        shape: Shape,
    }

    const ENGINE: Plain = PlainEngine::new();

    /// A network on pixels, and one on cells of them, which the rows do not come out even for.
    fn cases() -> [Case; 2] {
        [3, 12].map(case)
    }

    fn case(ends: usize) -> Case {
        let architecture = Architecture::new(vec![ends, 4, 5, ends]).unwrap();
        let shape = Shape::new(2, 5, 6, 3);
        let x = ENGINE.upload(shape, &noise(shape.len(), 2, 1.0)).unwrap();
        let y = ENGINE.upload(shape, &noise(shape.len(), 3, 1.0)).unwrap();
        Case { params: noise(architecture.parameter_count(), 1, 0.4), architecture, x, y, shape }
    }

    impl Case {
        fn flat(&self, values: &[f64]) -> PlainTensor<f64> {
            ENGINE.upload(Shape::flat(values.len()), values).unwrap()
        }

        fn gradient(&self, params: &[f64]) -> (f64, Vec<f64>) {
            let network = Network::new(&ENGINE, &self.architecture);
            let mut grad = self.flat(&vec![0.0; params.len()]);
            let whole = Window { y: 0, x: 0, height: self.shape.h, width: self.shape.w };
            let loss = network
                .loss_and_gradient(&self.flat(params), &self.x, &self.y, whole, self.shape.len(), &mut grad)
                .unwrap();
            (loss, ENGINE.download(&grad).unwrap())
        }
    }

    /// A small step along `direction` on both sides of `params`.
    fn both(params: &[f64], direction: &[f64], step: f64) -> [Vec<f64>; 2] {
        [step, -step].map(|step| params.iter().zip(direction).map(|(p, d)| p + step * d).collect())
    }

    #[test]
    fn gradient_is_the_derivative_of_the_loss() {
        for case in cases() {
            let (_, gradient) = case.gradient(&case.params);
            for seed in 10..16 {
                let direction = noise(case.params.len(), seed, 1.0);
                let [above, below] = both(&case.params, &direction, 1e-7);
                let slope = (case.gradient(&above).0 - case.gradient(&below).0) / 2e-7;
                let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
                assert!((slope - exact).abs() < 1e-6 * (1.0 + exact.abs()), "{slope} {exact}");
            }
        }
    }

    #[test]
    fn cells_are_pixels_in_another_order() {
        let (h, w, cell) = (5, 7, 2);
        let values: Vec<f64> = (0..h * w).map(|v| v as f64).collect();
        let x = ENGINE.upload(Shape::new(1, h, w, 1), &values).unwrap();
        let cells = ENGINE.unshuffle(&x, cell).unwrap();
        assert_eq!(ENGINE.shape(&cells), Shape::new(1, 3, 4, 4));
        let made = ENGINE.download(&cells).unwrap();
        assert_eq!(made[..8], [0.0, 1.0, 7.0, 8.0, 2.0, 3.0, 9.0, 10.0]);
        // The last row and column twice.
        assert_eq!(made[12..16], [6.0, 6.0, 13.0, 13.0]);
        assert_eq!(made[44..], [34.0; 4]);
        assert_eq!(ENGINE.download(&ENGINE.shuffle(&cells, cell, h, w).unwrap()).unwrap(), values);
    }

    #[test]
    fn the_loss_alone_is_that_of_the_gradient() {
        for case in cases() {
            let network = Network::new(&ENGINE, &case.architecture);
            let whole = Window { y: 0, x: 0, height: case.shape.h, width: case.shape.w };
            let loss = network.loss(&case.flat(&case.params), &case.x, &case.y, whole, case.shape.len()).unwrap();
            assert_eq!(loss, case.gradient(&case.params).0);
        }
    }

    #[test]
    fn a_trace_brings_the_same_gradient() {
        let case = case(3);
        let network = Network::new(&ENGINE, &case.architecture);
        let mut grad = case.flat(&vec![0.0; case.params.len()]);
        let (loss, trace) = network.trace(&case.flat(&case.params), &case.x, &case.y, Some(&mut grad)).unwrap();
        assert_eq!((loss, ENGINE.download(&grad).unwrap()), case.gradient(&case.params));
        let held = trace.activations.iter().chain(&trace.deltas).map(|tensor| ENGINE.shape(tensor).len());
        assert_eq!(held.sum::<usize>(), case.shape.n * case.shape.h * case.shape.w * network.trace_channels());
    }

    #[test]
    fn hessian_vector_product_is_the_derivative_of_the_gradient() {
        for (case, seed) in cases().iter().flat_map(|case| (20..24).map(move |seed| (case, seed))) {
            let network = Network::new(&ENGINE, &case.architecture);
            let direction = noise(case.params.len(), seed, 1.0);
            let mut product = case.flat(&vec![0.0; case.params.len()]);
            let (params, vector) = (case.flat(&case.params), case.flat(&direction));
            let loss = network.hessian_vector(&params, &vector, &case.x, &case.y, &mut product).unwrap();
            assert_eq!(loss, case.gradient(&case.params).0);
            let product = ENGINE.download(&product).unwrap();
            let [above, below] = both(&case.params, &direction, 1e-7).map(|params| case.gradient(&params).1);
            let norm = product.iter().map(|v| v * v).sum::<f64>().sqrt();
            let error: f64 =
                product.iter().zip(above.iter().zip(&below)).map(|(p, (a, b))| ((a - b) / 2e-7 - p).powi(2)).sum();
            assert!(norm > 1e-3 && error.sqrt() < 1e-5 * norm, "{} of {norm}", error.sqrt());
        }
    }

    #[test]
    fn tiles_with_a_halo_sum_to_the_whole_gradient() {
        // Three layers see three pixels: tiles of rows 0..4 and 4..9 with that halo.
        let architecture = Architecture::new(vec![3, 4, 5, 3]).unwrap();
        let network = Network::new(&ENGINE, &architecture);
        let (h, w) = (9, 6);
        let (x, y) = (noise(h * w * 3, 5, 1.0), noise(h * w * 3, 6, 1.0));
        let values = noise(architecture.parameter_count(), 1, 0.4);
        let params = ENGINE.upload(Shape::flat(values.len()), &values).unwrap();
        let part = |from: usize, to: usize, core: std::ops::Range<usize>| {
            let shape = Shape::new(1, to - from, w, 3);
            let mut grad = ENGINE.zeros(Shape::flat(values.len())).unwrap();
            let [x, y] = [&x, &y].map(|v| ENGINE.upload(shape, &v[from * w * 3..to * w * 3]).unwrap());
            let core = Window { y: core.start - from, x: 0, height: core.len(), width: w };
            let loss = network.loss_and_gradient(&params, &x, &y, core, h * w * 3, &mut grad).unwrap();
            (loss, ENGINE.download(&grad).unwrap())
        };
        let (whole, above, below) = (part(0, 9, 0..9), part(0, 7, 0..4), part(1, 9, 4..9));
        assert!((whole.0 - above.0 - below.0).abs() < 1e-14);
        for (g, (a, b)) in whole.1.iter().zip(above.1.iter().zip(&below.1)) {
            assert!((g - a - b).abs() < 1e-14);
        }
    }
}
