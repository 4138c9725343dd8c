//! Least squares on the device: D, its adjoint and the cubic upscales by their tables, and conjugate
//! gradients whose step lengths never leave it.

use super::device::{Block, Number, Work};
use super::{GpuEngine, GpuTensor, striding};
use crate::degrade::{Degradation, LeastSquares, Map, Taps};
use crate::engine::{Engine, Shape};
use crate::{Error, Result};
use Number::{F, U};
use std::sync::{Arc, PoisonError};

/// Numbers of a [`shaders::STATE`](super::shaders::STATE).
const STATE: usize = 5;

/// So many [`Solving`] are kept: those of a photo and of its son, of two sizes of tiles.
const SOLVING: usize = 4;

/// The tables of solves for pictures of one size.
pub(super) struct Solving {
    degradation: Degradation,
    /// Of the large picture and of the small one.
    sizes: [(usize, usize); 2],
    down: Vec<Table>,
    up: Vec<Table>,
    /// D Dᵀ at once, where it is less work.
    normal: Option<Table>,
}

/// A [`Map`] on the device, of pictures with so many columns.
pub(super) struct Table {
    words: Block,
    rows: usize,
    columns: usize,
    width: usize,
    /// Where its parts after the first begin.
    places: [usize; 5],
    product: bool,
}

/// The parts of a table (see [`shaders::map`](super::shaders::map)) before the kernel; `row` and `column`
/// make words of weights.
fn parts<W: Copy>(
    rows: &Taps<W>,
    columns: &Taps<W>,
    row: impl Fn(W) -> u32,
    column: impl Fn(W) -> u32,
) -> [Vec<u32>; 5] {
    let (mut ends, mut taps) = (vec![0], Vec::new());
    for i in 0..rows.len() {
        rows.of(i).for_each(|(input, weight)| taps.extend([input as u32, row(weight)]));
        ends.push(taps.len() as u32 / 2);
    }
    let counts: Vec<usize> = (0..columns.len()).map(|j| columns.of(j).count()).collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    let (mut inputs, mut weights) = (vec![0; most * columns.len()], vec![0; most * columns.len()]);
    for j in 0..columns.len() {
        for (tap, (input, weight)) in columns.of(j).enumerate() {
            let at = tap * columns.len() + j;
            (inputs[at], weights[at]) = (input as u32, column(weight));
        }
    }
    [ends, taps, counts.into_iter().map(|count| count as u32).collect(), inputs, weights]
}

impl GpuEngine {
    /// The table of `map` for pictures with `width` columns.
    pub(super) fn table(&self, map: &Map, width: usize) -> Result<Table> {
        let bits = |weight: f64| (weight as f32).to_bits();
        let ([mut all, taps, counts, inputs, weights], kernel) = match map {
            Map::Separable { rows, columns } => (parts(rows, columns, bits, bits), Vec::new()),
            Map::Kernel { rows, columns, kernel } => (
                parts(rows, columns, |row| (row * kernel.width) as u32, |column| column as u32),
                kernel.data.iter().map(|&weight| bits(weight)).collect(),
            ),
        };
        let places = [taps, counts, inputs, weights, kernel].map(|part| {
            let place = all.len();
            all.extend(part);
            place
        });
        let words = self.device.take(all.len())?;
        self.device.write(&words, &all)?;
        let (rows, columns) = map.size();
        Ok(Table { words, rows, columns, width, places, product: matches!(map, Map::Separable { .. }) })
    }

    /// The result of a table for a picture, and the partial sums of its squares.
    pub(super) fn through(&self, table: &Table, image: &GpuTensor) -> Result<(GpuTensor, Sums)> {
        assert_eq!((image.shape.n, image.shape.w), (1, table.width), "a picture of the table's width");
        let shape = Shape { h: table.rows, w: table.columns, ..image.shape };
        let out = self.tensor(shape)?;
        let groups = striding(table.rows * table.columns);
        let sums = self.device.take(groups[0])?;
        let size = [table.rows, table.columns, shape.c, table.width];
        let places = table.places.into_iter().chain([usize::from(table.product)]);
        let numbers: Vec<Number> = size.into_iter().chain(places).map(U).collect();
        self.device.run(Work::Map, &numbers, &[&table.words, &image.block, &out.block, &sums], groups)?;
        Ok((out, Sums { block: sums, count: groups[0] }))
    }

    /// Several tables, one after the other.
    fn chain(&self, tables: &[Table], image: &GpuTensor) -> Result<(GpuTensor, Sums)> {
        let (mut made, mut last) = (None, None);
        for table in tables {
            let (next, sums) = self.through(table, made.as_ref().unwrap_or(image))?;
            (made, last) = (Some(next), Some(sums));
        }
        made.zip(last).ok_or_else(|| Error::Device("no map to apply".to_owned()))
    }

    /// The tables of maps that follow each other, from pictures with `width` columns.
    fn tables(&self, maps: &[Map], mut width: usize) -> Result<Vec<Table>> {
        let one = |map: &Map| {
            let table = self.table(map, width)?;
            width = table.columns;
            Ok(table)
        };
        maps.iter().map(one).collect()
    }

    /// The aligned cubic upscale of `low`.
    pub(super) fn aligned(
        &self,
        degradation: &Degradation,
        low: &GpuTensor,
        height: usize,
        width: usize,
    ) -> Result<GpuTensor> {
        let map = degradation.aligned_map((low.shape.h, low.shape.w), 0..height, 0..width);
        Ok(self.through(&self.table(&map, low.shape.w)?, low)?.0)
    }

    /// Those of a solve for pictures of the size `low`, enlarged to `high`; kept for the next ones.
    fn solving(&self, degradation: &Degradation, high: (usize, usize), low: (usize, usize)) -> Result<Arc<Solving>> {
        let is = |made: &Arc<Solving>| made.sizes == [high, low] && made.degradation == *degradation;
        let kept = || self.solving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = kept().iter().find(|made| is(made)) {
            return Ok(made.clone());
        }
        let (down, up) = (degradation.maps(high, low), degradation.adjoint_maps(high, low));
        let products: usize = down.iter().chain(&up).map(Map::products).sum();
        let normal = degradation.normal_map(high, low).filter(|normal| normal.products() < products);
        let made = Arc::new(Solving {
            degradation: degradation.clone(),
            sizes: [high, low],
            down: self.tables(&down, high.1)?,
            up: self.tables(&up, low.1)?,
            normal: normal.map(|normal| self.table(&normal, low.1)).transpose()?,
        });
        let mut kept = kept();
        kept.truncate(SOLVING - 1);
        kept.insert(0, made.clone());
        Ok(made)
    }

    /// [`LeastSquares::solve`] and [`LeastSquares::solve_on`] (`by_photo`), where the derivations are: the same
    /// steps, in f32. The former goes through the large picture, where ‖Dᵀ s‖² is more exact than
    /// ⟨s, D Dᵀ s⟩ is of an s that is mostly what D hardly shows.
    pub(super) fn conjugate_gradients(
        &self,
        rule: LeastSquares,
        by_photo: bool,
        degradation: &Degradation,
        low: &GpuTensor,
        mut prior: GpuTensor,
        kept: &mut Option<GpuTensor>,
    ) -> Result<GpuTensor> {
        let device = &self.device;
        let (shape, count) = (low.shape, low.shape.len());
        assert_eq!((shape.n, shape.c), (prior.shape.n, prior.shape.c), "pictures of the same channels");
        let high = (prior.shape.h, prior.shape.w);
        let solving = self.solving(degradation, high, (shape.h, shape.w))?;
        // D Dᵀ s, and ‖Dᵀ s‖² where the steps ask for it.
        let normal = |s: &GpuTensor| match solving.normal.as_ref().filter(|_| by_photo) {
            Some(table) => Ok::<_, Error>((self.through(table, s)?.0, None)),
            None => {
                let (spread, squares) = self.chain(&solving.up, s)?;
                Ok((self.chain(&solving.down, &spread)?.0, (!by_photo).then_some(squares)))
            }
        };

        let mut s = self.chain(&solving.down, &prior)?.0;
        self.scale(0..count, -1.0, &mut s)?;
        self.axpy(0..count, 1.0, low, &mut s)?;
        let z = match kept.take() {
            Some(z) => {
                self.axpy(0..count, -1.0, &normal(&z)?.0, &mut s)?;
                self.axpy(0..count, -rule.lambda, &z, &mut s)?;
                z
            }
            None => self.zeros(shape)?,
        };
        let q = self.duplicate(&s)?;
        let state = device.take(STATE)?;
        let groups = striding(count);
        let sums = Sums { block: device.take(groups[0])?, count: groups[0] };
        let dot = |a: &GpuTensor, b: &GpuTensor| {
            device.run(Work::Dot, &[U(0), U(count)], &[&a.block, &b.block, &sums.block], groups)
        };
        let step = |what: usize, sums: &Sums| {
            let numbers = [U(sums.count), U(what), F(rule.lambda)];
            device.run(Work::Step, &numbers, &[&sums.block, &state], [1, 1, 1])
        };
        let (normal_q, squares) = normal(&s)?;
        match &squares {
            Some(squares) => step(0, squares)?,
            None => {
                dot(&s, &s)?;
                step(0, &sums)?;
            }
        }
        dot(&normal_q, if by_photo { &q } else { &normal_q })?;
        step(1, &sums)?;
        for done in 1..=rule.steps {
            let tensors = [&state, &q.block, &normal_q.block, &z.block, &s.block, &sums.block];
            device.run(Work::Advance, &[U(count), F(rule.lambda)], &tensors, groups)?;
            if done == rule.steps {
                break;
            }
            let (normal_s, squares) = normal(&s)?;
            step(2, squares.as_ref().unwrap_or(&sums))?;
            let tensors = [&state, &s.block, &normal_s.block, &q.block, &normal_q.block, &sums.block];
            device.run(Work::Turn, &[U(count), U(usize::from(by_photo))], &tensors, groups)?;
            step(1, &sums)?;
        }
        let step = self.chain(&solving.up, &z)?.0;
        self.axpy(0..step.shape.len(), 1.0, &step, &mut prior)?;
        *kept = Some(z);
        Ok(prior)
    }
}

/// Partial sums, one of each workgroup.
pub(super) struct Sums {
    block: Block,
    count: usize,
}
