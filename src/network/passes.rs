//! Where the parameters of each pass lie.

use super::Fit;
use crate::degrade::FEATURES;
use crate::engine::Layer;

/// The parameters of all passes through a network as one flat vector: those of the first, then of each
/// later one what it does not share with the first. Passes whose parameters follow the blur ([`Fit`])
/// share the network's own; others share nothing.
pub struct Passes {
    fit: Option<Fit>,
    /// Parameters of the network itself.
    own: usize,
}

impl Passes {
    /// Of the network with these layers, whose parameters follow the blur or not.
    pub fn new(layers: &[Layer], fit: bool) -> Self {
        let own = layers.last().map_or(0, |layer| layer.bias_range().end);
        Passes { fit: fit.then(|| Fit::new(layers)), own }
    }

    /// The number of parameters of one pass by itself.
    pub fn each(&self) -> usize {
        self.fit.as_ref().map_or(self.own, Fit::parameter_count)
    }

    /// How many of them, the first, all passes share.
    pub fn shared(&self) -> usize {
        if self.fit.is_some() { self.own } else { 0 }
    }

    /// The number of parameters of `passes` passes.
    pub fn count(&self, passes: usize) -> usize {
        self.shared() + passes * (self.each() - self.shared())
    }

    /// The parameters of pass `pass` (from 0) by itself, of those of all passes.
    pub fn one<T: Copy>(&self, parameters: &[T], pass: usize) -> Vec<T> {
        let (shared, first) = (self.shared(), self.count(pass));
        [&parameters[..shared], &parameters[first..self.count(pass + 1)]].concat()
    }

    /// Puts the parameters of pass `pass` by itself in their places among those of all passes.
    pub fn put<T: Copy>(&self, parameters: &mut [T], pass: usize, one: &[T]) {
        let (shared, first) = (self.shared(), self.count(pass));
        parameters[..shared].copy_from_slice(&one[..shared]);
        parameters[first..self.count(pass + 1)].copy_from_slice(&one[shared..]);
    }

    /// Adds a gradient with respect to the parameters of pass `pass` by itself to that with respect to those
    /// of all passes.
    pub fn add<T: crate::Real>(&self, gradient: &mut [T], pass: usize, one: &[T]) {
        let (shared, first) = (self.shared(), self.count(pass));
        gradient[..shared].iter_mut().zip(one).for_each(|(sum, &value)| *sum += value);
        gradient[first..].iter_mut().zip(&one[shared..]).for_each(|(sum, &value)| *sum += value);
    }

    /// All parameters, from those of the passes `before` (none, or some) and those of the next by itself.
    pub fn join<T: Copy>(&self, before: &[T], next: &[T]) -> Vec<T> {
        let shared = if before.is_empty() { 0 } else { self.shared() };
        [before, &next[shared..]].concat()
    }

    /// The network's parameters in each pass at φ = `features`.
    ///
    /// # Panics
    /// When `parameters` are not those of `passes` passes.
    pub(crate) fn fitted<T: crate::Real>(
        &self,
        parameters: &[T],
        passes: usize,
        features: &[f64; FEATURES],
    ) -> Vec<Vec<T>> {
        assert_eq!(parameters.len(), self.count(passes), "parameters for each pass");
        let fitted = |one: Vec<T>| self.fit.as_ref().map_or(one.clone(), |fit| fit.fitted(&one, features));
        (0..passes).map(|pass| fitted(self.one(parameters, pass))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Architecture;

    #[test]
    fn passes_come_apart_and_together() {
        let layers = Architecture::new(vec![3, 4, 3]).unwrap().layers();
        for fit in [false, true] {
            let passes = Passes::new(&layers, fit);
            let own = layers[1].bias_range().end;
            let beyond = if fit { FEATURES * (4 * 27 + 4 + 3 * 36 + 3) } else { 0 };
            assert_eq!((passes.each(), passes.shared()), (own + beyond, if fit { own } else { 0 }));
            assert_eq!(passes.count(3), if fit { own + 3 * beyond } else { 3 * own });
            let all: Vec<usize> = (0..passes.count(3)).collect();
            let mut joined = Vec::new();
            for pass in 0..3 {
                let one = passes.one(&all, pass);
                assert_eq!(one.len(), passes.each());
                joined = passes.join(&joined, &one);
                let mut other = vec![0; all.len()];
                passes.put(&mut other, pass, &one);
                assert_eq!(passes.one(&other, pass), one);
                assert_eq!(other.iter().filter(|v| **v != 0).count(), one.iter().filter(|v| **v != 0).count());
            }
            assert_eq!(joined, all);
        }
    }
}
