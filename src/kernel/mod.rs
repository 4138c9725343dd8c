//! Blur kernels: what a SPEC means, Gaussians, files, moments.

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

impl Kernel {
    /// A Gaussian of `size` × `size`, centre at index (size − 1) / 2, covariance
    /// Σ = R(θ) diag(λ1, λ2) R(θ)ᵀ in px² (x along columns, y along rows), sampled at pixel
    /// centres and divided by its sum (PROTOCOL.md, "Blur kernels").
    pub fn gaussian(lambda1: f64, lambda2: f64, theta: f64, size: usize) -> Self {
        let (s, c) = theta.sin_cos();
        let (xx, yy) = (c * c * lambda1 + s * s * lambda2, s * s * lambda1 + c * c * lambda2);
        let xy = s * c * (lambda1 - lambda2);
        let det = xx * yy - xy * xy;
        let (ixx, iyy, ixy) = (yy / det, xx / det, -xy / det);
        let centre = (size as f64 - 1.0) / 2.0;
        let mut data = Vec::with_capacity(size * size);
        for row in 0..size {
            for column in 0..size {
                let (x, y) = (column as f64 - centre, row as f64 - centre);
                data.push((-0.5 * (ixx * x * x + 2.0 * ixy * x * y + iyy * y * y)).exp());
            }
        }
        let sum: f64 = data.iter().sum();
        data.iter_mut().for_each(|v| *v /= sum);
        Kernel { height: size, width: size, data }
    }
}

/// Where an LR pixel lies in its s x s cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// corner
    Corner,
    /// centre
    Centre,
}
impl Kernel {
    /// t
    pub fn transposed(&self) -> Self {
        todo!()
    }
    /// t
    pub fn flipped_vertical(&self) -> Self {
        todo!()
    }
    /// t
    pub fn flipped_horizontal(&self) -> Self {
        todo!()
    }
    /// t
    pub fn displaced(&self, _x: f64, _y: f64) -> Self {
        todo!()
    }
}
