//! Parameters that follow from the blur.

use crate::Real;
use crate::degrade::FEATURES;
use crate::engine::Layer;
use std::ops::Range;

/// A network whose parameters are a function of the degradation's features φ
/// ([`crate::degrade::Degradation::features`]). What comes out is an ordinary network for that blur,
/// which costs nothing more to run and can be adapted further.
///
/// The first and the last layer, linear filters of the input and of the output, follow φ in every
/// weight: W(φ) = W + Σⱼ φⱼ Vⱼ, b(φ) = b + Σⱼ φⱼ cⱼ. In a layer between them φ scales each output
/// channel and moves its bias: W_o(φ) = (1 + Σⱼ φⱼ gⱼ_o) W_o, b_o(φ) = b_o + Σⱼ φⱼ cⱼ_o. So it does in
/// all layers of a network that sees cells of pixels, whose ends have several times as many weights.
///
/// All parameters are one flat vector: those of the network at φ = 0, then for each layer V (or g)
/// and c, feature by feature.
pub struct Fit {
    layers: Vec<Layer>,
    /// Parameters of the network itself.
    base: usize,
}

/// Some of the parameters of a [`Fit`] that belong together, as a tensor in a file.
pub(crate) struct Part {
    /// `conv1.weight.fit`, `conv2.scale.fit`, `conv2.bias.fit`, ….
    pub name: String,
    /// The first dimension counts features.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub range: Range<usize>,
}

/// Σ φⱼ table[j], `width` values.
fn mixed<T: Real>(table: &[T], features: &[f64], width: usize) -> Vec<T> {
    let mut sum = vec![T::zero(); width];
    for (row, &feature) in table.chunks_exact(width).zip(features) {
        let feature = T::of(feature);
        sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += feature * value);
    }
    sum
}

/// table[j] += φⱼ values.
fn spread<T: Real>(table: &mut [T], features: &[f64], values: &[T]) {
    for (row, &feature) in table.chunks_exact_mut(values.len()).zip(features) {
        let feature = T::of(feature);
        row.iter_mut().zip(values).for_each(|(row, &value)| *row += feature * value);
    }
}

impl Fit {
    /// Of the network with these layers.
    pub fn new(layers: &[Layer]) -> Self {
        Fit { layers: layers.to_vec(), base: layers.last().map_or(0, |layer| layer.bias_range().end) }
    }

    /// Whether every weight of layer `l` follows φ.
    fn is_full(&self, l: usize) -> bool {
        (l == 0 || l + 1 == self.layers.len()) && self.layers[0].input <= 3
    }

    /// For each layer where V or g lies, and c.
    fn places(&self) -> Vec<[Range<usize>; 2]> {
        let mut at = self.base;
        let mut next = |width: usize| {
            let range = at..at + FEATURES * width;
            at = range.end;
            range
        };
        let width = |l: usize, layer: &Layer| if self.is_full(l) { layer.weight_range().len() } else { layer.output };
        self.layers.iter().enumerate().map(|(l, layer)| [next(width(l, layer)), next(layer.output)]).collect()
    }

    /// The length of the flat vector.
    pub fn parameter_count(&self) -> usize {
        self.places().last().map_or(self.base, |[_, last]| last.end)
    }

    /// The parameters beyond the network's own, in order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let parts = |(l, (layer, [first, second])): (usize, (&Layer, [Range<usize>; 2]))| {
            let (word, shape) = match self.is_full(l) {
                true => ("weight", vec![FEATURES, layer.output, layer.input, 3, 3]),
                false => ("scale", vec![FEATURES, layer.output]),
            };
            let name = |word| format!("conv{}.{word}.fit", l + 1);
            [
                Part { name: name(word), shape, range: first },
                Part { name: name("bias"), shape: vec![FEATURES, layer.output], range: second },
            ]
        };
        self.layers.iter().zip(self.places()).enumerate().flat_map(parts).collect()
    }

    /// The network's parameters at φ = `features`.
    pub fn fitted<T: Real>(&self, parameters: &[T], features: &[f64; FEATURES]) -> Vec<T> {
        let mut out = parameters[..self.base].to_vec();
        for (l, (layer, [weight, bias])) in self.layers.iter().zip(self.places()).enumerate() {
            let width = weight.len() / FEATURES;
            let moved = mixed(&parameters[weight], features, width);
            let out_weight = &mut out[layer.weight_range()];
            if self.is_full(l) {
                out_weight.iter_mut().zip(&moved).for_each(|(w, &v)| *w += v);
            } else {
                for (weights, &scale) in out_weight.chunks_exact_mut(layer.input * 9).zip(&moved) {
                    weights.iter_mut().for_each(|w| *w *= T::one() + scale);
                }
            }
            let moved = mixed(&parameters[bias], features, layer.output);
            out[layer.bias_range()].iter_mut().zip(&moved).for_each(|(b, &v)| *b += v);
        }
        out
    }

    /// Adds to `into` the gradient with respect to `parameters` of what has the gradient `gradient`
    /// with respect to the network's parameters at φ = `features`.
    pub fn pull_back<T: Real>(&self, parameters: &[T], features: &[f64; FEATURES], gradient: &[T], into: &mut [T]) {
        for (l, (layer, [weight, bias])) in self.layers.iter().zip(self.places()).enumerate() {
            let from = &gradient[layer.weight_range()];
            if self.is_full(l) {
                into[layer.weight_range()].iter_mut().zip(from).for_each(|(w, &g)| *w += g);
                spread(&mut into[weight], features, from);
            } else {
                let length = layer.input * 9;
                let moved = mixed(&parameters[weight.clone()], features, layer.output);
                let rows = from.chunks_exact(length).zip(parameters[layer.weight_range()].chunks_exact(length));
                let mut scales = Vec::with_capacity(layer.output);
                let base = into[layer.weight_range()].chunks_exact_mut(length);
                for ((into, (from, own)), &scale) in base.zip(rows).zip(&moved) {
                    let mut sum = T::zero();
                    for ((into, &g), &w) in into.iter_mut().zip(from).zip(own) {
                        *into += (T::one() + scale) * g;
                        sum += g * w;
                    }
                    scales.push(sum);
                }
                spread(&mut into[weight], features, &scales);
            }
            let from = &gradient[layer.bias_range()];
            into[layer.bias_range()].iter_mut().zip(from).for_each(|(b, &g)| *b += g);
            spread(&mut into[bias], features, from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Architecture;

    fn noise(length: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                2.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 1.0
            })
            .collect()
    }

    #[test]
    fn parts_follow_the_network_without_gaps() {
        let architecture = Architecture::mzsr();
        let fit = Fit::new(&architecture.layers());
        let mut at = architecture.parameter_count();
        for part in fit.parts() {
            assert_eq!(part.range.start, at, "{}", part.name);
            assert_eq!(part.range.len(), part.shape.iter().product::<usize>(), "{}", part.name);
            at = part.range.end;
        }
        assert_eq!(fit.parameter_count(), at);
        assert_eq!(at, 225_091 + FEATURES * (1792 + 6 * 128 + 1731));
    }

    #[test]
    fn without_features_nothing_moves() {
        let architecture = Architecture::new(vec![3, 4, 5, 3]).unwrap();
        let fit = Fit::new(&architecture.layers());
        let parameters = noise(fit.parameter_count(), 1);
        assert_eq!(fit.fitted(&parameters, &[0.0; FEATURES]), parameters[..architecture.parameter_count()]);
    }

    /// Of a linear function of the fitted parameters, along random directions.
    #[test]
    fn pulled_back_is_the_derivative() {
        let architecture = Architecture::new(vec![3, 4, 5, 3]).unwrap();
        let fit = Fit::new(&architecture.layers());
        let parameters = noise(fit.parameter_count(), 1);
        let features: [f64; FEATURES] = noise(FEATURES, 2).try_into().unwrap();
        let outer = noise(architecture.parameter_count(), 3);
        let value =
            |parameters: &[f64]| fit.fitted(parameters, &features).iter().zip(&outer).map(|(p, g)| p * g).sum::<f64>();
        // It is added to what is there.
        let mut gradient = vec![1.0; parameters.len()];
        fit.pull_back(&parameters, &features, &outer, &mut gradient);
        for seed in 4..8 {
            let direction = noise(parameters.len(), seed);
            let moved =
                |step: f64| value(&parameters.iter().zip(&direction).map(|(p, d)| p + step * d).collect::<Vec<_>>());
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| (g - 1.0) * d).sum();
            assert!((slope - exact).abs() < 1e-7 * (1.0 + exact.abs()), "{slope} {exact}");
        }
    }
}
