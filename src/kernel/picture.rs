//! A kernel in letters.

use super::Kernel;

/// From nothing to the largest weight.
const RAMP: [char; 9] = [' ', '.', ':', '+', 'o', '*', '#', '%', '@'];
/// The most rows and columns of letters, each weight two letters wide.
const MOST: usize = 33;

impl Kernel {
    /// A small picture in letters: heavier weights are denser, on a square-root scale; `~` is
    /// negative. Several weights share a letter where the kernel is large.
    pub fn text_picture(&self) -> String {
        let side = self.height.max(self.width).div_ceil(MOST).max(1);
        let (rows, columns) = (self.height.div_ceil(side), self.width.div_ceil(side));
        let mut sums = vec![0.0; rows * columns];
        for (i, weight) in self.data.iter().enumerate() {
            sums[i / self.width / side * columns + i % self.width / side] += weight;
        }
        let most = sums.iter().copied().fold(0.0, f64::max);
        let letter = |sum: f64| match sum / most {
            part if part < -0.005 => '~',
            part if part > 0.0 => RAMP[((part.sqrt() * 8.0).round() as usize).min(8)],
            _ => ' ',
        };
        let edge = format!("+{}+\n", "-".repeat(2 * columns));
        let mut out = edge.clone();
        for row in sums.chunks(columns.max(1)) {
            out.push('|');
            row.iter().map(|&sum| letter(sum)).for_each(|letter| out.extend([letter, letter]));
            out.push_str("|\n");
        }
        out + &edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_show_the_weights() {
        let kernel = Kernel { height: 2, width: 3, data: vec![0.0, 1.0, -0.5, 0.25, 0.0, 0.0] };
        assert_eq!(kernel.text_picture(), "+------+\n|  @@~~|\n|oo    |\n+------+\n");
        let large = Kernel::gaussian(400.0, 100.0, 0.5, 101).text_picture();
        assert!(large.lines().count() <= MOST + 2 && large.contains('@'));
    }
}
