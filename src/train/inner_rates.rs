//! The rates of a task's updates: fixed, or learned by Adam on their logarithms, so that they stay
//! above zero and grow and shrink alike.

use super::checkpoint::many_bits;
use super::recipe::Meta;
use crate::adapt::Rates;
use serde::{Deserialize, Serialize};

/// Adam's ε for logarithms of rates.
const EPSILON: f64 = 1e-8;
/// Rows beyond the trained updates in a weights file. The last of them holds for all that follow.
const TAIL: usize = 16;
/// Learned rates stay below this, whatever the gradient says.
const HIGHEST: f64 = 1e3;

/// Natural logarithms of the rates, update by update, each with one for each layer; Adam's moments
/// for them and their average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerRates {
    layers: usize,
    #[serde(with = "many_bits")]
    logarithms: Vec<f64>,
    #[serde(with = "many_bits")]
    first: Vec<f64>,
    #[serde(with = "many_bits")]
    second: Vec<f64>,
    /// The average of the logarithms, where the weights have one.
    #[serde(with = "many_bits")]
    average: Vec<f64>,
}

impl InnerRates {
    /// The recipe's first rates for a network of `layers` layers.
    pub fn new(meta: &Meta, layers: usize) -> Self {
        let logarithms: Vec<f64> = (0..meta.updates * layers).map(|i| meta.first_rate(i / layers).ln()).collect();
        let zero = vec![0.0; logarithms.len()];
        InnerRates { layers, average: logarithms.clone(), first: zero.clone(), second: zero, logarithms }
    }

    /// Those of weights that were meta-trained before; none where they have too few.
    pub(super) fn of_weights(meta: &Meta, layers: usize, rates: &Rates, updates: usize) -> Option<Self> {
        if updates < meta.updates {
            return None;
        }
        let mut begun = InnerRates::new(meta, layers);
        for (i, logarithm) in begun.logarithms.iter_mut().enumerate() {
            *logarithm = rates.of(i / layers, i % layers).clamp(meta.least_rate, HIGHEST).ln();
        }
        begun.average.clone_from(&begun.logarithms);
        Some(begun)
    }

    /// What does not belong to such a recipe and network.
    pub(super) fn check(&self, meta: &Meta, layers: usize) -> Result<(), String> {
        let lists = [&self.logarithms, &self.first, &self.second, &self.average];
        let fits = self.layers == layers && lists.iter().all(|list| list.len() == meta.updates * layers);
        match fits && lists.into_iter().flatten().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(format!("its rates are not {} finite rows of {layers}", meta.updates)),
        }
    }

    fn rows(&self, meta: &Meta, logarithms: &[f64]) -> Vec<Vec<f64>> {
        if meta.learn.is_none() {
            // To the last bit, which a logarithm would lose.
            return (0..meta.updates).map(|k| vec![meta.first_rate(k); self.layers]).collect();
        }
        logarithms.chunks(self.layers).map(|row| row.iter().map(|v| v.exp()).collect()).collect()
    }

    /// The rates that the next step takes: a row an update, a value a layer.
    pub fn now(&self, meta: &Meta) -> Vec<Vec<f64>> {
        self.rows(meta, &self.logarithms)
    }

    /// The rates that are judged and kept, without their tail; the average of them if wanted.
    pub fn kept(&self, meta: &Meta, averaged: bool) -> Vec<Vec<f64>> {
        self.rows(meta, if averaged { &self.average } else { &self.logarithms })
    }

    /// One step of Adam, number `step` (from 1), at learning rate `rate`. `gradient` is that with
    /// respect to the rates: a row an update, a value a layer. `ema` is the decay of the average.
    pub fn learn(
        &mut self,
        meta: &Meta,
        gradient: &[Vec<f64>],
        rate: f64,
        betas: [f64; 2],
        step: u64,
        ema: Option<f64>,
    ) {
        if meta.learn.is_none() {
            return;
        }
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let [low, high] = [meta.least_rate, HIGHEST].map(f64::ln);
        for (i, gradient) in gradient.iter().flatten().enumerate() {
            // d/d ln α = α · d/dα.
            let gradient = gradient * self.logarithms[i].exp();
            self.first[i] = betas[0] * self.first[i] + (1.0 - betas[0]) * gradient;
            self.second[i] = betas[1] * self.second[i] + (1.0 - betas[1]) * gradient * gradient;
            let moment = self.first[i] / correction(betas[0]);
            let size = (self.second[i] / correction(betas[1])).sqrt();
            self.logarithms[i] = (self.logarithms[i] - rate * moment / (size + EPSILON)).clamp(low, high);
            if let Some(decay) = ema {
                self.average[i] = decay * self.average[i] + (1.0 - decay) * self.logarithms[i];
            }
        }
    }
}

/// The rows of a weights file: the trained ones, then each the one before it times `tail`.
pub(super) fn with_tail(trained: &[Vec<f64>], tail: f64) -> Rates {
    let mut rows = trained.to_vec();
    if let Some(last) = trained.last() {
        let row = |i: usize| last.iter().map(|rate| rate * tail.powi(i as i32)).collect();
        rows.extend((1..=TAIL).map(row));
    }
    Rates(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(more: &str) -> Meta {
        toml::from_str(&format!("tasks = 1\ntrain = 1\ntest = 1\nupdates = 2\nrate = [0.1, 0.2]\n{more}")).unwrap()
    }

    #[test]
    fn rates_go_down_the_gradient_by_their_own_adam() {
        let meta = meta("learn = 0.5");
        let mut rates = InnerRates::new(&meta, 2);
        let near = |row: &[f64], wanted: [f64; 2]| {
            assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?} {wanted:?}");
        };
        near(&rates.now(&meta)[1], [0.2, 0.2]);
        // Adam's first step is the rate, whatever the gradient's size.
        // A training that goes on from a file of these.
        let file = with_tail(&rates.now(&meta), 0.5);
        assert_eq!(InnerRates::of_weights(&meta, 2, &file, 2), Some(rates.clone()));
        assert_eq!(InnerRates::of_weights(&meta, 2, &file, 1), None);
        rates.learn(&meta, &[vec![1.0, -1e3], vec![0.0, 1e-2]], 0.5, [0.9, 0.999], 1, Some(0.5));
        let up = 0.5f64.exp();
        near(&rates.now(&meta)[0], [0.1 / up, 0.1 * up]);
        near(&rates.now(&meta)[1], [0.2, 0.2 / up]);
        // The average is geometric.
        near(&rates.kept(&meta, true)[0], [0.1 / up.sqrt(), 0.1 * up.sqrt()]);
        assert_eq!(rates.kept(&meta, false), rates.now(&meta));
        for step in 2..200 {
            rates.learn(&meta, &vec![vec![-1e9; 2]; 2], 5.0, [0.9, 0.999], step, None);
        }
        assert!(rates.check(&meta, 2).is_ok() && rates.now(&meta).iter().flatten().all(|v| *v < 1.001e3));
        assert!(rates.check(&meta, 3).is_err());
    }

    #[test]
    fn no_learned_rate_falls_below_the_least() {
        let meta = meta("learn = 0.5\nleast_rate = 0.15");
        // Nor does one that a file has.
        let file = with_tail(&[vec![0.01, 0.3], vec![0.2, 0.1]], 0.5);
        let mut rates = InnerRates::of_weights(&meta, 2, &file, 2).unwrap();
        let least = |rates: &InnerRates| rates.now(&meta).into_iter().flatten().fold(f64::INFINITY, f64::min);
        assert!((least(&rates) - 0.15).abs() < 1e-12 && (rates.now(&meta)[0][1] - 0.3).abs() < 1e-12);
        for step in 1..50 {
            rates.learn(&meta, &vec![vec![1.0; 2]; 2], 0.5, [0.9, 0.999], step, None);
        }
        assert!(rates.now(&meta).iter().flatten().all(|rate| (rate - 0.15).abs() < 1e-12));
    }

    #[test]
    fn fixed_rates_stay_and_the_tail_falls() {
        let meta = meta("");
        let mut rates = InnerRates::new(&meta, 3);
        let before = rates.clone();
        rates.learn(&meta, &vec![vec![1.0; 3]; 2], 0.5, [0.9, 0.999], 1, None);
        assert_eq!(rates, before);
        let rows = with_tail(&rates.now(&meta), 0.5).0;
        assert_eq!(rows.len(), 2 + TAIL);
        assert!((rows[3][1] - 0.05).abs() < 1e-12);
    }
}
