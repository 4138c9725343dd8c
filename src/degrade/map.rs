//! D, its adjoint and the cubic upscales as tables, for engines that compute each value by itself.

use super::taps::{Taps, mirror, resample};
use super::{Degradation, Downsample, direct_positions};
use crate::kernel::Kernel;
use crate::{Raster, Real};
use std::ops::Range;

/// The weights of a kernel that [`Degradation::normal_map`] pairs: as many squared are products made anew for
/// each size of picture.
const MOST_PAIRED: usize = 1024;

/// A linear map of pictures: each pixel of the result is a weighted sum over some rows and columns of
/// the input, the same for all channels. Edges are in the tables, so that the adjoint of a map is a map
/// again: the transposed tables.
#[derive(Clone, Debug)]
pub enum Map {
    /// A weight is that of the row times that of the column.
    Separable {
        /// Down the columns.
        rows: Taps,
        /// Along the rows.
        columns: Taps,
    },
    /// A weight is the kernel's in the row and the column that the taps name.
    Kernel {
        /// Down the columns; "weights" are rows of the kernel.
        rows: Taps<usize>,
        /// Along the rows; "weights" are columns of the kernel.
        columns: Taps<usize>,
        /// The kernel.
        kernel: Kernel,
    },
}

/// The taps along one axis of a kernel with `length` weights that is laid on the `positions` of an
/// axis of `size` pixels; `outputs` of them, the last ones without any where there are too few positions.
pub(super) fn kernel_taps(positions: &[usize], size: usize, length: usize, outputs: usize) -> Taps<usize> {
    let centre = (length / 2) as isize;
    Taps::each(outputs, |i| {
        let at = |&position: &usize| {
            (0..length).map(move |k| (mirror(position as isize + k as isize - centre, size), k)).collect()
        };
        positions.get(i).map(at).unwrap_or_default()
    })
}

/// The weights of a kernel that meet on a pixel when it is laid on each two of the `positions` (D) of an
/// axis of `size` pixels, with edges: of outputs i and i′ all a + p_i and a′ + p_i′ that show the same
/// pixel. With 2·size·t between them they are a′ = a + u, and mirrored a′ = m − a; the "weight" is u +
/// `length` − 1 or 2 `length` − 1 + m.
fn meetings(positions: &[usize], size: usize, length: usize, outputs: usize) -> Taps<usize> {
    let (period, reach, centre) = (2 * size as isize, length as isize - 1, (length / 2) as isize);
    let places = &positions[..outputs.min(positions.len())];
    Taps::each(outputs, |i| {
        let Some(&here) = places.get(i) else { return Vec::new() };
        let mut taps = Vec::new();
        // Those whose position is 0 to 2 `reach` less than `from`, in any period.
        let mut meet = |from: isize, first: isize| {
            for t in -(2 * reach / period + 2)..=2 * reach / period + 2 {
                let less = |place: usize| from + period * t - place as isize;
                let begin = places.partition_point(|&place| less(place) > 2 * reach);
                let met = places[begin..].iter().map(|&place| less(place)).take_while(|less| *less >= 0);
                taps.extend(met.enumerate().map(|(j, less)| (begin + j, (first + less) as usize)));
            }
        };
        meet(here as isize + reach, 0);
        meet(2 * centre - 1 - here as isize, 2 * reach + 1);
        taps
    })
}

/// For [`meetings`] of rows and of columns the sum of the products of all pairs of weights that meet.
fn pairs(kernel: &Kernel) -> Kernel {
    let (height, width) = (2 * (2 * kernel.height - 1), 2 * (2 * kernel.width - 1));
    let mut data = vec![0.0; height * width];
    let weights: Vec<_> = (0..kernel.data.len()).filter(|&at| kernel.data[at] != 0.0).collect();
    let both = |a: usize, b: usize, length: usize| [b + length - 1 - a, 2 * length - 1 + a + b];
    for &one in &weights {
        for &other in &weights {
            let product = kernel.data[one] * kernel.data[other];
            let columns = both(one % kernel.width, other % kernel.width, kernel.width);
            for row in both(one / kernel.width, other / kernel.width, kernel.height) {
                columns.iter().for_each(|column| data[row * width + column] += product);
            }
        }
    }
    Kernel { height, width, data }
}

impl Map {
    /// The products that it sums for each channel.
    pub fn products(&self) -> usize {
        fn taps<W: Copy>(axis: &Taps<W>) -> usize {
            (0..axis.len()).map(|i| axis.of(i).count()).sum()
        }
        match self {
            Map::Separable { rows, columns } => taps(rows) * taps(columns),
            Map::Kernel { rows, columns, .. } => taps(rows) * taps(columns),
        }
    }

    /// Rows and columns of the result.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Map::Separable { rows, columns } => (rows.len(), columns.len()),
            Map::Kernel { rows, columns, .. } => (rows.len(), columns.len()),
        }
    }

    /// The adjoint: from results back to pictures of `height` × `width`.
    pub fn transposed(&self, height: usize, width: usize) -> Map {
        match self {
            Map::Separable { rows, columns } => {
                Map::Separable { rows: rows.transposed(height), columns: columns.transposed(width) }
            }
            Map::Kernel { rows, columns, kernel } => Map::Kernel {
                rows: rows.transposed(height),
                columns: columns.transposed(width),
                kernel: kernel.clone(),
            },
        }
    }

    /// The result for `image`, sum by sum.
    pub fn apply<T: Real>(&self, image: &Raster<T>) -> Raster<T> {
        let (rows, columns, kernel) = match self {
            Map::Separable { rows, columns } => return resample(image, rows, columns),
            Map::Kernel { rows, columns, kernel } => (rows, columns, kernel),
        };
        let mut out = Raster::new(rows.len(), columns.len(), image.channels);
        for i in 0..out.height {
            for j in 0..out.width {
                let at = (i * out.width + j) * out.channels;
                let sum = &mut out.data[at..at + image.channels];
                for (y, a) in rows.of(i) {
                    for (x, b) in columns.of(j) {
                        let weight = T::of(kernel.data[a * kernel.width + b]);
                        sum.iter_mut().zip(image.pixel(y, x)).for_each(|(sum, &v)| *sum += weight * v);
                    }
                }
            }
        }
        out
    }
}

impl Degradation {
    /// D from `high` (rows, columns) as maps that follow each other; of its result as much as fits into
    /// `low`, and zeros where that is larger.
    pub fn maps(&self, high: (usize, usize), low: (usize, usize)) -> Vec<Map> {
        let kernel = match self.axes(high, low) {
            Ok([rows, columns]) => return vec![Map::Separable { rows, columns }],
            Err(kernel) => kernel,
        };
        let blur = |positions: [Vec<usize>; 2], outputs: (usize, usize)| Map::Kernel {
            rows: kernel_taps(&positions[0], high.0, kernel.height, outputs.0),
            columns: kernel_taps(&positions[1], high.1, kernel.width, outputs.1),
            kernel: kernel.clone(),
        };
        match self.downsample() {
            Downsample::Direct => vec![blur([high.0, high.1].map(|size| direct_positions(size, self.scale())), low)],
            Downsample::Bicubic => {
                let every = [high.0, high.1].map(|size| (0..size).collect());
                let axis = |size, outputs| self.shrinking(size).cut(outputs);
                let cubic = Map::Separable { rows: axis(high.0, low.0), columns: axis(high.1, low.1) };
                vec![blur(every, high), cubic]
            }
        }
    }

    /// Dᵀ of that: from `low` (rows, columns) back to `high`.
    pub fn adjoint_maps(&self, high: (usize, usize), low: (usize, usize)) -> Vec<Map> {
        // Each takes pictures of the size `high`.
        self.maps(high, low).iter().rev().map(|map| map.transposed(high.0, high.1)).collect()
    }

    /// D Dᵀ as one map of pictures of the size `low`, for D from pictures of the size `high`; none where a blur
    /// that is no product is followed by more than dropping pixels, or is too large to pair all its weights.
    pub fn normal_map(&self, high: (usize, usize), low: (usize, usize)) -> Option<Map> {
        let kernel = match self.axes(high, low) {
            Ok([rows, columns]) => {
                let normal = |axis: &Taps, size| axis.after(&axis.transposed(size));
                return Some(Map::Separable { rows: normal(&rows, high.0), columns: normal(&columns, high.1) });
            }
            Err(kernel) => kernel,
        };
        let weights = kernel.data.iter().filter(|w| **w != 0.0).count();
        if self.downsample() != Downsample::Direct || weights > MOST_PAIRED {
            return None;
        }
        let axis = |size, length, outputs| meetings(&direct_positions(size, self.scale()), size, length, outputs);
        Some(Map::Kernel {
            rows: axis(high.0, kernel.height, low.0),
            columns: axis(high.1, kernel.width, low.1),
            kernel: pairs(kernel),
        })
    }

    /// The map of [`Degradation::aligned_window`] from `low` (rows, columns).
    pub fn aligned_map(&self, low: (usize, usize), rows: Range<usize>, columns: Range<usize>) -> Map {
        Map::Separable { rows: self.aligned_taps(low.0, rows), columns: self.aligned_taps(low.1, columns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::high_size;

    fn noise(height: usize, width: usize) -> Raster<f64> {
        let data = (0..height * width * 3).map(|i| ((i * 7919 + 13) % 101) as f64 / 101.0 - 0.4).collect();
        Raster::from_vec(height, width, 3, data)
    }

    fn assert_same(a: &Raster<f64>, b: &Raster<f64>) {
        assert_eq!((a.height, a.width), (b.height, b.width));
        assert!(a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn maps_are_the_degradation_and_its_adjoint() {
        let uneven = Kernel::new(4, 9, (0..36).map(|i| (1 + i * 5 % 7) as f64 / 140.0).collect()).unwrap();
        let round = Kernel::gaussian(1.3, 1.3, 0.0, 6);
        for kernel in [None, Some(uneven), Some(round)] {
            for downsample in [Downsample::Direct, Downsample::Bicubic] {
                for scale in [1.0, 1.5, 2.0, 2.7, 3.0] {
                    let Ok(d) = Degradation::new(scale, kernel.clone(), downsample) else { continue };
                    for (height, width) in [(1, 1), (2, 13), (11, 8)] {
                        let low = (d.low_size(height), d.low_size(width));
                        let through = |maps: Vec<Map>, x: Raster<f64>| maps.iter().fold(x, |x, map| map.apply(&x));
                        let (x, y) = (noise(height, width), noise(low.0, low.1));
                        assert_same(&through(d.maps((height, width), low), x.clone()), &d.apply(&x));
                        let back = through(d.adjoint_maps((height, width), low), y.clone());
                        assert_same(&back, &d.adjoint(&y, height, width));
                        // A row less and a column more: not seen, and zero.
                        let other = (low.0.max(2) - 1, low.1 + 1);
                        let cut = through(d.maps((height, width), other), x.clone());
                        assert_eq!((cut.height, cut.width), other);
                        assert!((0..other.0).all(|i| cut.pixel(i, low.1) == [0.0; 3]));
                        let whole = d.apply(&x);
                        let rows = low.0.min(other.0);
                        assert_same(&cut.crop(0, 0, rows, low.1), &whole.crop(0, 0, rows, low.1));
                    }
                }
            }
        }
    }

    #[test]
    fn the_normal_map_is_the_degradation_after_its_adjoint() {
        let uneven = Kernel::new(4, 9, (0..36).map(|i| (1 + i * 5 % 7) as f64 / 140.0).collect()).unwrap();
        let round = Kernel::gaussian(1.3, 1.3, 0.0, 6);
        for kernel in [None, Some(uneven), Some(round), Some(Kernel::gaussian(4.0, 1.0, -0.5, 15))] {
            for downsample in [Downsample::Direct, Downsample::Bicubic] {
                for scale in [1.0, 1.5, 2.0, 2.7, 3.0, 4.0] {
                    let Ok(d) = Degradation::new(scale, kernel.clone(), downsample) else { continue };
                    for (height, width) in [(1, 1), (2, 13), (11, 8), (31, 40)] {
                        let high = (height, width);
                        let low = (d.low_size(height), d.low_size(width));
                        for low in [low, (low.0.max(2) - 1, low.1 + 1)] {
                            let product = d.axes(high, low).is_ok();
                            let Some(map) = d.normal_map(high, low) else {
                                assert!(!product && downsample == Downsample::Bicubic);
                                continue;
                            };
                            assert!(product || downsample == Downsample::Direct);
                            let y = noise(low.0, low.1);
                            let chain = d.adjoint_maps(high, low).into_iter().chain(d.maps(high, low));
                            assert_same(&map.apply(&y), &chain.fold(y.clone(), |y, map| map.apply(&y)));
                        }
                    }
                }
            }
        }
        let wide = Degradation::new(2.0, Some(Kernel::gaussian(9.0, 7.0, 0.5, 33)), Downsample::Direct).unwrap();
        assert!(wide.normal_map((50, 50), (25, 25)).is_none());
    }

    #[test]
    fn products_are_counted() {
        let kernel = Kernel::new(2, 3, vec![0.1, 0.2, 0.3, 0.1, 0.2, 0.1]).unwrap();
        let d = Degradation::new(2.0, Some(kernel), Downsample::Direct).unwrap();
        let maps = d.maps((8, 10), (4, 5));
        assert_eq!(maps.iter().map(Map::products).collect::<Vec<_>>(), [4 * 2 * 5 * 3]);
    }

    #[test]
    fn the_aligned_upscale_is_a_map() {
        let low = noise(7, 5);
        for scale in [1.5, 2.0, 2.7] {
            let d = Degradation::new(scale, Some(Kernel::gaussian(1.0, 1.0, 0.0, 5)), Downsample::Direct).unwrap();
            let (height, width) = (high_size(7, scale), high_size(5, scale));
            for d in [d.clone(), d.centred(Some(Kernel::gaussian(1.0, 1.0, 0.0, 5)))] {
                let map = d.aligned_map((7, 5), 0..height, 0..width);
                assert_eq!(map.size(), (height, width));
                assert_same(&map.apply(&low), &d.aligned_window(&low, 0..height, 0..width));
            }
        }
    }
}
