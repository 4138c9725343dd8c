//! Random numbers that follow from where they are used, so that a resumed or differently threaded
//! training draws the same ones.

use rand::RngExt;
use rand_pcg::Pcg64;

/// What random numbers are for; each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The first weights.
    Weights = 1,
    /// A patch: number `step`, `index` of the batch.
    Patch = 2,
    /// The kernel and the scale of a task: number `step`, `index` of the step.
    Task = 3,
    /// The noise of a patch: number `step`, `index` of the batch.
    Noise = 4,
}

/// A bijection of 64 bits in which each input bit moves every output bit (Steele, Lea and Flood,
/// 2014: SplitMix64).
fn mix(mut v: u64) -> u64 {
    v = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ (v >> 31)
}

/// The generator for `purpose`, `step` and `index` under `seed`.
pub fn generator(seed: u64, purpose: Purpose, step: u64, index: u64) -> Pcg64 {
    // Neighbouring states of a PCG begin alike: they are mixed far apart.
    let low = mix(mix(mix(seed) ^ purpose as u64) ^ step);
    let high = mix(low ^ mix(index));
    Pcg64::new(u128::from(high) << 64 | u128::from(low), u128::from(mix(high)))
}

/// Uniform in [0, 1).
pub fn uniform(random: &mut Pcg64) -> f64 {
    random.random::<f64>()
}

/// Uniform in 0 … `count` − 1.
pub fn below(random: &mut Pcg64, count: usize) -> usize {
    // The product is far below 2⁵³, and the bias below 2⁻²⁰ of what a photo's size could show.
    ((uniform(random) * count as f64) as usize).min(count.saturating_sub(1))
}

/// Standard normal (Box and Muller, 1958).
pub fn normal(random: &mut Pcg64) -> f64 {
    // 1 − [0, 1) keeps the logarithm finite.
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(random)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_and_repeat() {
        let first = |seed, step, index| uniform(&mut generator(seed, Purpose::Patch, step, index));
        let mut seen: Vec<f64> = Vec::new();
        for seed in 0..4 {
            for step in 0..50 {
                for index in 0..16 {
                    seen.push(first(seed, step, index));
                    assert_eq!(first(seed, step, index), first(seed, step, index));
                }
            }
        }
        let n = seen.len() as f64;
        let mean = seen.iter().sum::<f64>() / n;
        // Neighbouring draws must not go together either.
        let together = seen.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5)).sum::<f64>() / n * 12.0;
        assert!((mean - 0.5).abs() < 0.02 && together.abs() < 0.06, "{mean} {together}");
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 4 * 50 * 16);
    }

    #[test]
    fn normal_has_its_moments() {
        let mut random = generator(3, Purpose::Weights, 0, 0);
        let values: Vec<f64> = (0..20_000).map(|_| normal(&mut random)).collect();
        let mean = values.iter().sum::<f64>() / 2e4;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }
}
