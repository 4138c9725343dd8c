//! Momentum made orthogonal (Jordan et al., *Muon*, 2024), a step for the weights of whole layers.
//!
//! A layer's weights are a matrix of outputs × (inputs · 9). Where Adam divides the momentum of each value
//! by its size, Muon takes U Vᵀ of the momentum's U S Vᵀ: every direction moves by as much, also those that
//! the gradient hardly shows. Times 0.2 √max(rows, columns) (Liu et al., *Muon is scalable for LLM training*,
//! 2025) a value moves by about as much as with Adam, so that both take the same rate. Biases, and how
//! parameters follow the blur, stay with Adam.

use crate::Result;
use crate::degrade::sums::{accumulate, products};
use crate::engine::{Engine, Layer};
use rayon::prelude::*;
use std::ops::Range;

/// Steps of the iteration, and its coefficients: of the published ones.
const STEPS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];

/// The layers whose weights go by orthogonal momentum.
pub(super) struct Muon {
    /// Where a matrix begins among the parameters, its rows, its columns.
    matrices: Vec<(usize, usize, usize)>,
}

impl Muon {
    /// Of `networks` networks with these layers, one behind the other.
    pub(super) fn new(layers: &[Layer], networks: usize) -> Self {
        let own = layers.last().map_or(0, |layer| layer.bias_range().end);
        let of =
            |network| layers.iter().map(move |layer| (network * own + layer.weight, layer.output, 9 * layer.input));
        Muon { matrices: (0..networks).flat_map(of).collect() }
    }

    /// Where the matrices lie among the parameters.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.matrices.iter().map(|&(begin, rows, columns)| begin..begin + rows * columns)
    }

    /// Puts the step of size `rate` in the place of Adam's, which was made from `before`, where the matrices
    /// lie. What Adam keeps as their first moment, with the decay `beta`, is their momentum.
    ///
    /// # Errors
    /// A failing engine.
    pub(super) fn correct<E: Engine<Elem = f32>>(
        &self,
        engine: &E,
        (rate, beta): (f64, f64),
        [gradient, first, before]: [&E::Tensor; 3],
        params: &mut E::Tensor,
    ) -> Result<()> {
        let step = self.step(beta, &engine.download(gradient)?, &engine.download(first)?);
        let step = engine.upload(engine.shape(before), &step)?;
        for places in self.ranges() {
            engine.scale(places.clone(), 0.0, params)?;
            engine.axpy(places.clone(), 1.0, before, params)?;
            engine.axpy(places, -rate, &step, params)?;
        }
        Ok(())
    }

    /// What is to be taken off the parameters at a rate of 1; 0 where there is no matrix. `first` is Adam's
    /// first moment with the decay `beta`, this step's gradient included, which is looked ahead of by one
    /// step (Nesterov).
    fn step(&self, beta: f64, gradient: &[f32], first: &[f32]) -> Vec<f32> {
        let (old, new) = (beta as f32, (1.0 - beta) as f32);
        let made = self.matrices.par_iter().map(|&(begin, rows, columns)| {
            let places = begin..begin + rows * columns;
            let ahead: Vec<f32> =
                gradient[places.clone()].iter().zip(&first[places]).map(|(g, m)| new * g + old * m).collect();
            let size = 0.2 * (rows.max(columns) as f32).sqrt();
            // The shorter side in the rows: their products are the smaller matrix.
            let mut u = if rows <= columns {
                orthogonal(ahead, rows)
            } else {
                transposed(&orthogonal(transposed(&ahead, columns), columns), rows)
            };
            u.iter_mut().for_each(|v| *v *= size);
            (begin, u)
        });
        let mut step = vec![0.0; gradient.len()];
        for (begin, u) in made.collect::<Vec<_>>() {
            step[begin..begin + u.len()].copy_from_slice(&u);
        }
        step
    }
}

/// About U Vᵀ of a matrix U S Vᵀ with no more rows than columns, by Newton and Schulz's iteration.
fn orthogonal(mut u: Vec<f32>, rows: usize) -> Vec<f32> {
    let columns = u.len() / rows;
    let norm = u.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return u;
    }
    u.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    let [one, three, five] = COEFFICIENTS;
    for _ in 0..STEPS {
        let mut gram = vec![0.0; rows * rows];
        for (i, a) in u.chunks_exact(columns).enumerate() {
            for (j, b) in u.chunks_exact(columns).enumerate().take(i + 1) {
                gram[i * rows + j] = products(a, b) as f32;
                gram[j * rows + i] = gram[i * rows + j];
            }
        }
        let mut factor: Vec<f32> = gram.iter().map(|v| three * v).collect();
        for (out, weights) in factor.chunks_exact_mut(rows).zip(gram.chunks_exact(rows)) {
            accumulate(out, &gram, &of_rows(five, weights, rows));
        }
        let mut next: Vec<f32> = u.iter().map(|v| one * v).collect();
        for (out, weights) in next.chunks_exact_mut(columns).zip(factor.chunks_exact(rows)) {
            accumulate(out, &u, &of_rows(1.0, weights, columns));
        }
        u = next;
    }
    u
}

/// `factor` · Σ weights[k] · (row k) of a matrix with `columns` columns, for [`accumulate`].
fn of_rows(factor: f32, weights: &[f32], columns: usize) -> Vec<(usize, f32)> {
    weights.iter().enumerate().map(|(k, weight)| (k * columns, factor * weight)).collect()
}

/// A matrix of `columns` rows for one of so many columns.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Architecture;

    /// Values between -1 and 1 that follow from their place.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// The iteration leaves singular values between 0.68 and 1.13 where they were not tiny.
    #[test]
    fn directions_become_of_one_size() {
        let (rows, columns) = (8, 45);
        // One direction that all rows share, ten times as large as the others.
        let shared = |i: usize| if i.is_multiple_of(2) { 5.0 } else { -5.0 };
        let matrix: Vec<f32> =
            values(rows * columns).iter().enumerate().map(|(i, v)| v + shared(i % columns)).collect();
        // M Mᵀ = U S² Uᵀ: its trace is the sum of S², that of its square the sum of S⁴.
        let spread = |matrix: &[f32]| {
            let row = |i: usize| &matrix[i * columns..][..columns];
            let gram: Vec<f64> = (0..rows * rows).map(|i| products(row(i / rows), row(i % rows))).collect();
            let mean = (0..rows).map(|i| gram[i * rows + i]).sum::<f64>() / rows as f64;
            (mean, gram.iter().map(|v| v * v).sum::<f64>() / rows as f64 / (mean * mean) - 1.0)
        };
        assert!(spread(&matrix).1 > 6.0, "{:?}", spread(&matrix));
        let (mean, off) = spread(&orthogonal(matrix, rows));
        assert!((0.68f64.powi(2)..1.13f64.powi(2)).contains(&mean) && off < 0.3, "{mean} {off}");
        // What was orthogonal already only changes its size: rows of one value each.
        let mut unit = vec![0.0; rows * columns];
        (0..rows).for_each(|i| unit[i * columns + 3 * i] = if i.is_multiple_of(2) { 5.0 } else { -5.0 });
        for (before, after) in unit.iter().zip(orthogonal(unit.clone(), rows)) {
            assert!(if *before == 0.0 { after == 0.0 } else { (0.68..1.14).contains(&(after * before.signum())) });
        }
        assert_eq!(orthogonal(vec![0.0; 6], 2), [0.0; 6]);
    }

    #[test]
    fn weights_move_and_nothing_else() {
        let layers = Architecture::new(vec![3, 5, 40, 3]).unwrap().layers();
        let own = layers[2].bias_range().end;
        let muon = Muon::new(&layers, 2);
        let (gradient, first) = (values(2 * own + 7), values(2 * own + 9)[2..].to_vec());
        let step = muon.step(0.95, &gradient, &first);
        assert_eq!(step.len(), gradient.len());
        let mut inside = vec![false; step.len()];
        for range in muon.ranges() {
            // As much as Adam's steps of about 1, in the mean over the values.
            let (count, size) = (range.len() as f32, step[range.clone()].iter().map(|v| v * v).sum::<f32>());
            assert!((0.05..0.4).contains(&(size / count).sqrt()), "{}", (size / count).sqrt());
            inside[range].iter_mut().for_each(|v| *v = true);
        }
        assert!(step.iter().zip(&inside).all(|(v, inside)| *inside || *v == 0.0));
        // A matrix with more rows than columns, the second layer's, is as its transpose.
        let (rows, columns) = (40, 45);
        let matrix = values(rows * columns);
        assert_eq!(transposed(&transposed(&matrix, columns), rows), matrix);
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        // The gradient's size does not matter.
        let twice = |values: &[f32]| values.iter().map(|v| 2.0 * v).collect::<Vec<_>>();
        let again = muon.step(0.95, &twice(&gradient), &twice(&first));
        assert!(step.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
