//! Which instruction sets there are, and which one to use.

use super::simd::{Portable, Simd};
use crate::{Error, Result};

/// A set of vector instructions. The order is the order of speed; each machine has all that come
/// before the best it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 and FMA: eight lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 (its foundation): sixteen lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Advanced SIMD: four lanes.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The environment variable that may lower the level.
const VARIABLE: &str = "MZSR_CPU";

impl Level {
    /// Every level that this program knows for this architecture, in order.
    const ALL: &'static [Level] = &[
        Level::Portable,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512,
        #[cfg(target_arch = "aarch64")]
        Level::Neon,
    ];

    /// The name that `MZSR_CPU` and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "baseline",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    /// Values in a vector.
    pub(super) fn lanes(self) -> usize {
        match self {
            Level::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => super::simd::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => super::simd::Avx512::LANES,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => super::simd::Neon::LANES,
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Level::Avx2.is_available() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => std::arch::is_aarch64_feature_detected!("neon"),
        }
    }

    /// The levels that this processor has, in order.
    pub fn available() -> Vec<Level> {
        Self::ALL.iter().copied().filter(|level| level.is_available()).collect()
    }

    /// The best level of this processor, or the one that the environment variable `MZSR_CPU`
    /// names (`avx512`, `avx2`, `neon` or `baseline`) where that is lower.
    pub fn detect() -> Result<Level> {
        let asked = std::env::var_os(VARIABLE);
        Self::choose(asked.as_ref().map(|value| value.to_string_lossy()).as_deref())
    }

    /// [`Level::detect`] with the variable's value given.
    fn choose(asked: Option<&str>) -> Result<Level> {
        let best = Self::available().pop().unwrap_or(Level::Portable);
        let Some(asked) = asked.filter(|value| !value.is_empty()) else { return Ok(best) };
        if let Some(level) = Self::ALL.iter().copied().find(|level| level.name() == asked) {
            return Ok(level.min(best));
        }
        match asked {
            // Of another architecture or not built in: there is nothing to raise.
            "avx512" | "avx2" | "neon" => Ok(best),
            _ => Err(Error::input(format!("{VARIABLE}={asked}: expected avx512, avx2, neon or baseline"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let best = Level::choose(None).unwrap();
        assert_eq!(Level::choose(Some("")).unwrap(), best);
        assert_eq!(Level::choose(Some("baseline")).unwrap(), Level::Portable);
        for name in ["avx512", "avx2", "neon"] {
            assert!(Level::choose(Some(name)).unwrap() <= best);
        }
        let error = Level::choose(Some("sse9")).unwrap_err().to_string();
        assert_eq!(error, "MZSR_CPU=sse9: expected avx512, avx2, neon or baseline");
    }

    #[test]
    fn available_levels_are_in_order() {
        let levels = Level::available();
        assert_eq!(levels[0], Level::Portable);
        assert!(levels.is_sorted());
    }
}
