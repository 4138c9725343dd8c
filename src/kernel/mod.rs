//! Blur kernels: what a SPEC means, Gaussians, files, moments.

mod files;
mod matlab;
mod picture;
mod spec;

pub use spec::{KernelSpec, Loaded};

use crate::{Error, Result};

/// The most rows or columns a kernel may be given with.
pub const MAX_SIZE: usize = 1025;

/// A blur kernel: `height` × `width` weights, row by row, used by correlation (no flip) with its
/// centre at row `height / 2`, column `width / 2` (rounded down).
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width` weights.
    pub data: Vec<f64>,
}

/// Where an LR pixel lies in its s × s cell of HR pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// On the upper left pixel.
    Corner,
    /// In the middle.
    Centre,
}

/// How the weights of a file are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KernelConvention {
    /// As they are.
    Correlate,
    /// Turned by 180°.
    Convolve,
}

/// Sum, centroid and second moments of a kernel's weights.
///
/// x runs along columns, y along rows, both from the centre index, in px. All but the sum are NaN
/// when the sum is zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moments {
    /// The weights' sum.
    pub sum: f64,
    /// Centroid along columns, relative to the centre index.
    pub x: f64,
    /// Centroid along rows, relative to the centre index.
    pub y: f64,
    /// Variance along columns, in px².
    pub xx: f64,
    /// Variance along rows, in px².
    pub yy: f64,
    /// Covariance, in px².
    pub xy: f64,
}

impl Moments {
    /// The second moments' eigenvalues, the larger first, and the angle of the first one's axis
    /// (radians from the x axis towards the y axis, which points down; −π/2 to π/2).
    pub fn axes(&self) -> (f64, f64, f64) {
        let (middle, half) = ((self.xx + self.yy) / 2.0, (self.xx - self.yy) / 2.0);
        let radius = half.hypot(self.xy);
        let angle = if radius <= 1e-12 * middle.abs() { 0.0 } else { self.xy.atan2(half) / 2.0 };
        (middle + radius, middle - radius, angle)
    }
}

/// A Gaussian before it is sampled: Σ = R(θ) diag(λ1, λ2) R(θ)ᵀ, its middle (x, y) px from the
/// centre index.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Gaussian {
    lambda1: f64,
    lambda2: f64,
    theta: f64,
    size: usize,
    x: f64,
    y: f64,
}

impl Gaussian {
    /// The Gaussian in the middle of its `size` × `size` weights: half a pixel up and left of the
    /// centre index when the size is even.
    fn middle(lambda1: f64, lambda2: f64, theta: f64, size: usize) -> Self {
        let offset = (size as f64 - 1.0) / 2.0 - (size / 2) as f64;
        Gaussian { lambda1, lambda2, theta, size, x: offset, y: offset }
    }

    /// −2 log of the density, up to a constant.
    fn quadratic(&self, x: f64, y: f64) -> f64 {
        let (s, c) = self.theta.sin_cos();
        let (u, v) = (c * x + s * y, c * y - s * x);
        u * u / self.lambda1 + v * v / self.lambda2
    }

    /// Samples at most size / 2 from the middle on each axis, divided by their sum.
    fn sample(&self) -> Kernel {
        let half = self.size as f64 / 2.0;
        let range = |middle: f64| ((middle - half).ceil() as isize, (middle + half).floor() as isize);
        // An odd size reaches from middle − half + ½ to middle + half − ½: no sample lies on the
        // border; an even one has its middle between two samples, and none does either.
        let ((left, right), (top, bottom)) = (range(self.x), range(self.y));
        let mut values = Vec::new();
        for y in top..=bottom {
            for x in left..=right {
                values.push(self.quadratic(x as f64 - self.x, y as f64 - self.y));
            }
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        values.iter_mut().for_each(|q| *q = (-0.5 * (*q - least)).exp());
        Kernel::placed(top, left, (bottom - top + 1) as usize, (right - left + 1) as usize, &values).normalised()
    }
}

impl Kernel {
    /// A kernel of the given weights.
    ///
    /// # Errors
    /// No weights, a wrong number of them, or one that is not finite.
    pub fn new(height: usize, width: usize, data: Vec<f64>) -> Result<Self> {
        if height == 0 || width == 0 || height.checked_mul(width) != Some(data.len()) {
            return Err(Error::input(format!("{} weights do not make a kernel of {height} x {width}", data.len())));
        }
        if data.iter().any(|v| !v.is_finite()) {
            return Err(Error::input("a kernel has weights that are not finite"));
        }
        Ok(Kernel { height, width, data })
    }

    /// A Gaussian of `size` × `size`, centre at index (size − 1) / 2, covariance
    /// Σ = R(θ) diag(λ1, λ2) R(θ)ᵀ in px² (x along columns, y along rows), sampled at pixel
    /// centres and divided by its sum (PROTOCOL.md, "Blur kernels").
    pub fn gaussian(lambda1: f64, lambda2: f64, theta: f64, size: usize) -> Self {
        Gaussian::middle(lambda1, lambda2, theta, size).sample()
    }

    /// The blur of a lens out of focus: every point within `radius` px of the centre counts the same.
    /// `size` × `size` (odd), each weight the share of 32 × 32 points of its pixel.
    pub fn disk(radius: f64, size: usize) -> Self {
        const FINE: usize = 32;
        let middle = (size / 2) as f64;
        let inside = |i: usize, j: usize, v: usize, u: usize| {
            let at = |index: usize, sub: usize| index as f64 - middle + (sub as f64 + 0.5) / FINE as f64 - 0.5;
            at(i, v).hypot(at(j, u)) <= radius
        };
        let share = |i, j| (0..FINE * FINE).filter(|sub| inside(i, j, sub / FINE, sub % FINE)).count() as f64;
        let data = (0..size * size).map(|at| share(at / size, at % size)).collect();
        Kernel { height: size, width: size, data }.normalised()
    }

    /// The blur of a camera that moves in a straight line at constant speed: `length` px at `angle`
    /// radians from the x axis towards the y axis, which points down, its middle at the centre.
    /// `size` × `size` (odd), each of 64 points a px spread over the four pixels around it.
    pub fn motion(length: f64, angle: f64, size: usize) -> Self {
        let middle = (size / 2) as f64;
        let (sin, cos) = angle.sin_cos();
        let points = (64.0 * length).ceil().max(1.0);
        let mut data = vec![0.0; size * size];
        for k in 0..=points as usize {
            let along = length * (k as f64 / points - 0.5);
            let (x, y) = (middle + along * cos, middle + along * sin);
            for (row, part) in [(y.floor(), 1.0 - y.fract()), (y.floor() + 1.0, y.fract())] {
                for (column, share) in [(x.floor(), 1.0 - x.fract()), (x.floor() + 1.0, x.fract())] {
                    let inside = |v: f64| v >= 0.0 && v < size as f64;
                    if inside(row) && inside(column) {
                        data[row as usize * size + column as usize] += part * share;
                    }
                }
            }
        }
        Kernel { height: size, width: size, data }.normalised()
    }

    /// Weights whose first one lies `top` rows and `left` columns from the centre (negative: above,
    /// left), in the smallest kernel that holds them.
    fn placed(top: isize, left: isize, height: usize, width: usize, values: &[f64]) -> Self {
        // Rows before and after the centre row: size / 2 lie before it, (size − 1) / 2 after it.
        let size = |first: isize, count: usize| {
            let before = first.min(0).unsigned_abs();
            let after = (first + count as isize - 1).max(0) as usize;
            if before > after { 2 * before } else { 2 * after + 1 }
        };
        let mut kernel = Kernel { height: size(top, height), width: size(left, width), data: Vec::new() };
        kernel.data = vec![0.0; kernel.height * kernel.width];
        let (row, column) =
            (((kernel.height / 2) as isize + top) as usize, ((kernel.width / 2) as isize + left) as usize);
        for (y, line) in values.chunks_exact(width.max(1)).enumerate() {
            let start = (row + y) * kernel.width + column;
            kernel.data[start..start + width].copy_from_slice(line);
        }
        kernel
    }

    /// Sum, centroid and second moments.
    pub fn moments(&self) -> Moments {
        let (cy, cx) = ((self.height / 2) as f64, (self.width / 2) as f64);
        let over = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            let weights = self.data.iter().enumerate();
            weights.map(|(i, w)| w * f((i % self.width) as f64 - cx, (i / self.width) as f64 - cy)).sum()
        };
        let sum = over(&|_, _| 1.0);
        let (x, y) = (over(&|x, _| x) / sum, over(&|_, y| y) / sum);
        Moments {
            sum,
            x,
            y,
            xx: over(&|u, _| (u - x) * (u - x)) / sum,
            yy: over(&|_, v| (v - y) * (v - y)) / sum,
            xy: over(&|u, v| (u - x) * (v - y)) / sum,
        }
    }

    /// Divided by its sum, which must not be zero.
    pub fn normalised(&self) -> Self {
        let sum: f64 = self.data.iter().sum();
        Kernel { data: self.data.iter().map(|v| v / sum).collect(), ..*self }
    }

    /// Rows become columns; the centre's weight stays.
    pub fn transposed(&self) -> Self {
        let (height, width) = (self.width, self.height);
        let data = (0..height * width).map(|i| self.data[(i % width) * self.width + i / width]).collect();
        Kernel { height, width, data }
    }

    /// Left and right change places about the centre's column. An even width grows by one.
    pub fn flipped_horizontal(&self) -> Self {
        let left = -((self.width as isize - 1) / 2);
        let mut data = self.data.clone();
        data.chunks_exact_mut(self.width.max(1)).for_each(<[f64]>::reverse);
        Kernel::placed(-((self.height / 2) as isize), left, self.height, self.width, &data)
    }

    /// Top and bottom change places about the centre's row. An even height grows by one.
    pub fn flipped_vertical(&self) -> Self {
        self.transposed().flipped_horizontal().transposed()
    }

    /// Turned by 180° about the centre. Even sizes grow by one.
    pub fn turned(&self) -> Self {
        self.flipped_horizontal().flipped_vertical()
    }

    /// The pattern of weights moved right by `dx` and down by `dy` px: cubic interpolation (Keys,
    /// a = −0.5), which keeps the sum and moves the centroid by just that much. The kernel grows so
    /// that nothing is lost, and leaves out empty rows and columns. Whole pixels are exact; a
    /// displacement of zero, of more than 4096 px, or one that is not a number changes nothing.
    pub fn displaced(&self, dx: f64, dy: f64) -> Self {
        if !near(dx, dy) || (dx == 0.0 && dy == 0.0) {
            return self.clone();
        }
        let (left, moved) = moved_rows(&self.data, self.width, dx);
        let width = moved.len() / self.height.max(1);
        let wide = Kernel { height: self.height, width, data: moved }.transposed();
        let (top, moved) = moved_rows(&wide.data, self.height, dy);
        let height = moved.len() / width.max(1);
        let kernel = Kernel { height: width, width: height, data: moved }.transposed();
        let (top, left) = (top - (self.height / 2) as isize, left - (self.width / 2) as isize);
        let used = |along: usize, across: usize, at: &dyn Fn(usize, usize) -> f64| {
            let mut lines = (0..along).filter(|&i| (0..across).any(|j| at(i, j) != 0.0));
            let first = lines.next().unwrap_or(0);
            (first, lines.last().unwrap_or(first))
        };
        let rows = used(height, width, &|i, j| kernel.data[i * width + j]);
        let columns = used(width, height, &|i, j| kernel.data[j * width + i]);
        let values: Vec<f64> = (rows.0..=rows.1)
            .flat_map(|y| kernel.data[y * width + columns.0..=y * width + columns.1].to_vec())
            .collect();
        let (first_row, first_column) = (top + rows.0 as isize, left + columns.0 as isize);
        Kernel::placed(first_row, first_column, rows.1 - rows.0 + 1, columns.1 - columns.0 + 1, &values)
    }

    /// Displaced so that the centroid lies on the centre. Unchanged if the centroid lies outside
    /// the kernel, as that of weights that cancel can.
    pub fn recentred(&self) -> Self {
        let moments = self.moments();
        if !self.holds_centroid(&moments) {
            return self.clone();
        }
        self.displaced(-moments.x, -moments.y)
    }

    /// `factor` times as wide, about the centroid, in the same rows and columns: every weight is moved and
    /// shared among the pixels around its new place by cubic interpolation (Keys, a = −0.5), which keeps sum and
    /// centroid and multiplies second moments by `factor`². For factors below 1; unchanged where the centroid
    /// lies outside the kernel.
    pub fn narrowed(&self, factor: f64) -> Self {
        let moments = self.moments();
        if !self.holds_centroid(&moments) || !(0.0..1.0).contains(&factor) {
            return self.clone();
        }
        // Along an axis, of each pixel: where it goes, and the shares of the pixels there.
        let moved = |size: usize, centroid: f64| -> Vec<(isize, [f64; 4])> {
            let centre = centroid + (size / 2) as f64;
            let place = |i: usize| centre + factor * (i as f64 - centre);
            let taps = |at: f64| [-1.0, 0.0, 1.0, 2.0].map(|o: f64| cubic((o - at + at.floor()).abs()));
            (0..size).map(|i| (place(i).floor() as isize - 1, taps(place(i)))).collect()
        };
        let (rows, columns) = (moved(self.height, moments.y), moved(self.width, moments.x));
        let mut data = vec![0.0; self.data.len()];
        for (y, (top, down)) in rows.iter().enumerate() {
            for (x, (left, along)) in columns.iter().enumerate() {
                let weight = self.data[y * self.width + x];
                for (i, share) in down.iter().enumerate() {
                    for (j, part) in along.iter().enumerate() {
                        // What would lie outside is next to nothing, and goes to the edge.
                        let row = (top + i as isize).clamp(0, self.height as isize - 1) as usize;
                        let column = (left + j as isize).clamp(0, self.width as isize - 1) as usize;
                        data[row * self.width + column] += weight * share * part;
                    }
                }
            }
        }
        Kernel { data, ..*self }
    }

    fn holds_centroid(&self, moments: &Moments) -> bool {
        moments.x.abs() <= self.width as f64 / 2.0 && moments.y.abs() <= self.height as f64 / 2.0
    }

    /// Whether it is no larger than an image of `height` × `width`.
    ///
    /// # Errors
    /// If it is larger.
    pub fn check_fits(&self, height: usize, width: usize) -> Result<()> {
        if self.height <= height && self.width <= width {
            return Ok(());
        }
        Err(Error::input(format!(
            "the kernel ({} x {}) is larger than the image ({width} x {height}): use a smaller kernel (size=N) or a larger image",
            self.width, self.height
        )))
    }
}

/// Whether a displacement is small enough to be carried out.
fn near(dx: f64, dy: f64) -> bool {
    dx.abs() <= 4096.0 && dy.abs() <= 4096.0
}

/// Rows of `width` moved right by `shift`; and where the first column now lies.
fn moved_rows(data: &[f64], width: usize, shift: f64) -> (isize, Vec<f64>) {
    let whole = shift.floor();
    let part = shift - whole;
    if part == 0.0 {
        return (whole as isize, data.to_vec());
    }
    let taps = [-1.0, 0.0, 1.0, 2.0].map(|o: f64| cubic((o - part).abs()));
    let mut out = Vec::with_capacity(data.len() / width.max(1) * (width + 3));
    for row in data.chunks_exact(width.max(1)) {
        let start = out.len();
        out.resize(start + width + 3, 0.0);
        for (i, weight) in row.iter().enumerate() {
            for (j, tap) in taps.iter().enumerate() {
                out[start + i + j] += weight * tap;
            }
        }
    }
    (whole as isize - 1, out)
}

/// Keys' cubic, a = −0.5.
fn cubic(x: f64) -> f64 {
    if x <= 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd_and_even() -> Vec<Kernel> {
        [(3, 5), (4, 6), (1, 1), (1, 2), (5, 4)]
            .map(|(h, w)| Kernel {
                height: h,
                width: w,
                data: (0..h * w).map(|i| ((i * 7919) % 13) as f64 + 1.0).collect(),
            })
            .to_vec()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    /// The weight `y` rows below and `x` columns right of the centre.
    fn at(kernel: &Kernel, y: isize, x: isize) -> f64 {
        let (row, column) = ((kernel.height / 2) as isize + y, (kernel.width / 2) as isize + x);
        let inside = (0..kernel.height as isize).contains(&row) && (0..kernel.width as isize).contains(&column);
        if inside { kernel.data[row as usize * kernel.width + column as usize] } else { 0.0 }
    }

    #[test]
    fn disks_and_lines_have_their_moments() {
        // Of a disk a quarter of its squared radius along each axis.
        for radius in [1.0, 1.7, 3.2] {
            let m = Kernel::disk(radius, 15).moments();
            let wanted = radius * radius / 4.0;
            // A pixel's own width adds about a twelfth.
            assert!((m.xx - wanted - 1.0 / 12.0).abs() < 0.07 && (m.yy - m.xx).abs() < 1e-12, "{m:?}");
            assert!(m.x.hypot(m.y).hypot(m.xy) < 1e-12 && (m.sum - 1.0).abs() < 1e-12, "{m:?}");
        }
        // Of a line a twelfth of its squared length along it; the y axis points down.
        for (length, angle) in [(5.0, 0.0), (8.0, 0.6), (4.0, 2.0)] {
            let m = Kernel::motion(length, angle, 15).moments();
            let (long, short, axis) = m.axes();
            // Spreading a point over its pixels adds up to a quarter.
            assert!((long - length * length / 12.0 - 0.13).abs() < 0.2 && short < 0.26, "{m:?}");
            assert!((axis - angle).sin().abs() < 0.02 && m.x.hypot(m.y) < 1e-9, "{m:?} {axis}");
        }
        assert!((Kernel::motion(1e-6, 0.3, 3).data[4] - 1.0).abs() < 1e-5);
    }

    #[test]
    fn turns_keep_the_centre() {
        for k in odd_and_even() {
            for y in -4..=4 {
                for x in -4..=4 {
                    assert_eq!(at(&k.flipped_horizontal(), y, x), at(&k, y, -x));
                    assert_eq!(at(&k.flipped_vertical(), y, x), at(&k, -y, x));
                    assert_eq!(at(&k.turned(), y, x), at(&k, -y, -x));
                    assert_eq!(at(&k.transposed(), y, x), at(&k, x, y));
                    assert_eq!(at(&k.displaced(2.0, -1.0), y, x), at(&k, y + 1, x - 2));
                }
            }
        }
    }

    #[test]
    fn narrowing_keeps_sum_and_centroid() {
        for whole in [
            Kernel::gaussian(2.0, 2.0, 0.0, 15),
            Kernel::gaussian(4.0, 1.0, -0.5, 15),
            Kernel::disk(2.3, 15),
            Kernel::motion(6.0, 0.7, 15),
            Kernel::gaussian(2.0, 1.0, 0.3, 15).displaced(0.5, 0.5),
        ] {
            let before = whole.moments();
            assert!(whole.narrowed(1.0).data.iter().zip(&whole.data).all(|(a, b)| close(*a, *b)));
            for factor in [0.95, 0.8, 0.6] {
                let after = whole.narrowed(factor).moments();
                let near = |a: f64, b: f64| (a - b).abs() < 1e-3;
                assert!(close(after.sum, before.sum) && near(after.x, before.x) && near(after.y, before.y));
                for (after, before) in [(after.xx, before.xx), (after.yy, before.yy), (after.xy, before.xy)] {
                    assert!(near(after, factor * factor * before), "{factor}: {after} of {before}");
                }
            }
        }
        // As the narrower Gaussian itself.
        let (made, wanted) = (Kernel::gaussian(4.0, 4.0, 0.0, 15).narrowed(0.8), Kernel::gaussian(2.56, 2.56, 0.0, 15));
        assert!(made.data.iter().zip(&wanted.data).all(|(a, b)| (a - b).abs() < 0.03 * wanted.data[112]));
        let one = Kernel::new(1, 1, vec![1.0]).unwrap();
        assert_eq!(one.narrowed(0.5), one);
        assert_eq!(one.narrowed(f64::NAN), one);
    }

    #[test]
    fn displacement_moves_the_centroid_and_keeps_the_sum() {
        for k in odd_and_even() {
            let before = k.moments();
            for (dx, dy) in [(0.5, 0.5), (-0.3, 1.7), (0.0, -2.25), (1.5, 0.0)] {
                let after = k.displaced(dx, dy).moments();
                assert!(close(after.sum, before.sum) && close(after.x, before.x + dx) && close(after.y, before.y + dy));
            }
            let centred = k.recentred().moments();
            assert!(close(centred.x, 0.0) && close(centred.y, 0.0));
            assert_eq!(k.displaced(f64::NAN, 0.0), k);
            assert_eq!(k.displaced(0.0, 1e300), k);
        }
    }

    #[test]
    fn a_displaced_gaussian_is_sampled_exactly() {
        let loaded = KernelSpec::parse("gaussian:4.0,1.0,-0.5").unwrap().load().unwrap();
        let Some(whole) = loaded.displaced(2.0, -1.0) else { unreachable!() };
        let expected = Kernel::gaussian(4.0, 1.0, -0.5, 15).displaced(2.0, -1.0);
        assert_eq!((whole.height, whole.width), (expected.height, expected.width));
        assert!(whole.data.iter().zip(&expected.data).all(|(a, b)| (a - b).abs() < 1e-12));
        let Some(half) = loaded.displaced(0.5, 0.5) else { unreachable!() };
        assert_eq!((half.height, half.width), (17, 17));
        let m = half.moments();
        assert!(close(m.sum, 1.0) && close(m.x, 0.5) && close(m.y, 0.5));
        let peak = at(&half, 1, 1) / at(&half, 0, 1);
        let g = |x: f64, y: f64| (-0.5 * Gaussian::middle(4.0, 1.0, -0.5, 15).quadratic(x, y)).exp();
        assert!(close(peak, g(0.5, 0.5) / g(0.5, -0.5)));
    }

    #[test]
    fn moments_of_a_gaussian() {
        let m = Kernel::gaussian(4.0, 1.0, -0.5, 25).moments();
        let (large, small, angle) = m.axes();
        assert!(close(m.sum, 1.0) && m.x.abs() < 1e-9 && m.y.abs() < 1e-9);
        assert!((large - 4.0).abs() < 1e-3 && (small - 1.0).abs() < 1e-3 && (angle + 0.5).abs() < 1e-3);
        assert!(Kernel::gaussian(1e-4, 1e-4, 0.0, 14).data.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn too_large_kernels_do_not_fit() {
        let k = Kernel::gaussian(1.0, 1.0, 0.0, 5);
        assert!(k.check_fits(5, 5).is_ok() && k.check_fits(4, 5).is_err() && k.check_fits(5, 4).is_err());
    }
}
