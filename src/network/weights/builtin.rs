//! The weights inside the program, and which weights fit a degradation.

use super::{Info, Weights};
use crate::degrade::{Degradation, Downsample, Start};
use crate::{Error, Result};
use std::path::Path;

/// Name and file of each.
const TABLE: &[(&str, &[u8])] = &[
    ("kernel-direct-x2", include_bytes!("../../../weights/kernel-direct-x2.safetensors")),
    ("kernel-bicubic-x2", include_bytes!("../../../weights/kernel-bicubic-x2.safetensors")),
    ("kernel-direct-x4", include_bytes!("../../../weights/kernel-direct-x4.safetensors")),
    ("kernel-multiscale", include_bytes!("../../../weights/kernel-multiscale.safetensors")),
    ("kernel-bicubic-multiscale", include_bytes!("../../../weights/kernel-bicubic-multiscale.safetensors")),
    ("mzsr-direct-x2", include_bytes!("../../../weights/mzsr-direct-x2.safetensors")),
    ("mzsr-bicubic-x2", include_bytes!("../../../weights/mzsr-bicubic-x2.safetensors")),
    ("mzsr-multiscale", include_bytes!("../../../weights/mzsr-multiscale.safetensors")),
    ("mzsr-direct-x4", include_bytes!("../../../weights/mzsr-direct-x4.safetensors")),
    ("bicubic-x2", include_bytes!("../../../weights/bicubic-x2.safetensors")),
];

/// Weights to work with, and a line of warning when they were trained for something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The weights.
    pub weights: Weights,
    /// What they were trained for if that is not what is asked for, and what would fit.
    pub warning: Option<String>,
}

/// All built-in weights.
///
/// # Errors
/// None, if the program was built from a whole source.
pub fn list() -> Result<Vec<Weights>> {
    TABLE
        .iter()
        .map(|(name, bytes)| {
            let mut weights = Weights::from_bytes(bytes, name)?;
            weights.info.name = (*name).to_owned();
            Ok(weights)
        })
        .collect()
}

/// The built-in weights called `name`.
///
/// # Errors
/// A name that is not among them.
pub fn by_name(name: &str) -> Result<Weights> {
    let all = list()?;
    let known = names(all.iter());
    all.into_iter().find(|weights| weights.info.name == name).ok_or_else(|| {
        Error::input(match known {
            Some(known) => format!("'{name}' is neither a file nor among the built-in weights: {known}"),
            None => format!("{name}: no such file, and there are no built-in weights"),
        })
    })
}

/// See [`Weights::open`].
pub(super) fn open(text: &str) -> Result<Weights> {
    let path = Path::new(text);
    if text.is_empty() {
        return Err(Error::input("weights: the name is empty; give a file or a built-in name"));
    }
    if TABLE.iter().any(|(name, _)| *name == text) {
        return by_name(text);
    }
    // A path that is not there gets the system's message, a bare word that of the names.
    let bare = path.components().count() == 1 && path.extension().is_none();
    if bare && !Weights::is_there(path) { by_name(text) } else { Weights::load(path) }
}

/// The built-in weights that fit `degradation` best.
///
/// # Errors
/// No built-in weights at all.
pub fn choose(degradation: &Degradation) -> Result<Choice> {
    choose_from(list()?, degradation)
}

/// The same of those that begin with `start`.
///
/// # Errors
/// No such weights.
pub fn choose_with(start: Start, degradation: &Degradation) -> Result<Choice> {
    let mut all = list()?;
    all.retain(|weights| weights.info.start == start);
    choose_from(all, degradation)
}

/// `weights`, with a warning where they do not fit `degradation`.
pub fn fit(weights: Weights, degradation: &Degradation) -> Choice {
    // Unreadable built-in weights are no reason not to use a file.
    let warning = warning(&weights.info, degradation, &list().unwrap_or_default());
    Choice { weights, warning }
}

fn choose_from(all: Vec<Weights>, degradation: &Degradation) -> Result<Choice> {
    let mut best: Option<&Weights> = None;
    for weights in &all {
        let distance = |other: &Weights| Distance::between(&other.info, degradation);
        if best.is_none_or(|best| distance(weights).rank() < distance(best).rank()) {
            best = Some(weights);
        }
    }
    let Some(best) = best.cloned() else { return Err(Error::input("no built-in weights: give --weights FILE")) };
    let warning = warning(&best.info, degradation, &all);
    Ok(Choice { weights: best, warning })
}

fn warning(info: &Info, degradation: &Degradation, all: &[Weights]) -> Option<String> {
    let name = super::quoted(&info.name);
    if !info.recorded {
        return Some(format!(
            "weights {name} do not say what they were trained for; `mzsr weights convert` can record it"
        ));
    }
    if Distance::between(info, degradation).fits() {
        return None;
    }
    let fitting = all.iter().filter(|weights| Distance::between(&weights.info, degradation).fits());
    let remedy = match names(fitting) {
        Some(names) => format!("--weights {names} would fit"),
        None => "no built-in weights fit better".to_owned(),
    };
    let phase =
        if info.downsample == Downsample::Direct && !degradation.samples_corners() { ", phase corner" } else { "" };
    Some(format!("weights {name} were trained for {}{phase}, not for {}: {remedy}", info.purpose(), asked(degradation)))
}

/// What weights for `degradation` would have been trained for.
fn asked(degradation: &Degradation) -> String {
    let blur = if degradation.kernel().is_some() { "with blur" } else { "without blur" };
    let centred = degradation.downsample() == Downsample::Direct && !degradation.samples_corners();
    let phase = if centred { ", phase centre" } else { "" };
    format!("×{}, {} downsampling, {blur}{phase}", degradation.scale(), degradation.downsample())
}

fn names<'a>(weights: impl Iterator<Item = &'a Weights>) -> Option<String> {
    let names: Vec<&str> = weights.map(|weights| weights.info.name.as_str()).collect();
    if names.is_empty() { None } else { Some(names.join(" or ")) }
}

/// How far what weights were trained for is from what is asked for, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Distance {
    /// Not recorded at all.
    unrecorded: bool,
    /// The network learnt the shift of the other grid: s − 1 over 2 pixels.
    grid: bool,
    kernels: bool,
    downsample: bool,
    /// |ln| of the ratio to the nearest scale trained for.
    scale: f64,
    /// Of weights that fit equally, those for one scale alone are better, …
    several: bool,
    /// … then those whose start knows the kernel, …
    unaware: bool,
    /// … and then those for the narrower range of scales.
    width: f64,
}

impl Distance {
    fn between(info: &Info, degradation: &Degradation) -> Self {
        let [min, max] = info.scale;
        let scale = degradation.scale();
        let off = (scale / scale.clamp(min.min(max), max.max(min))).ln().abs();
        Distance {
            unrecorded: !info.recorded,
            // The least-squares start lies on the right grid whatever it is.
            grid: info.start == Start::Bicubic
                && (info.downsample == Downsample::Direct) != degradation.samples_corners(),
            kernels: !info.kernels.include(degradation.kernel().is_some()),
            downsample: info.downsample != degradation.downsample(),
            scale: if off < 1e-6 { 0.0 } else { off },
            several: min != max,
            unaware: info.start == Start::Bicubic,
            width: max - min,
        }
    }

    fn fits(&self) -> bool {
        !self.unrecorded && !self.grid && !self.kernels && !self.downsample && self.scale == 0.0
    }

    fn rank(&self) -> (u8, f64, bool, bool, f64) {
        let flags = [self.unrecorded, self.grid, self.kernels, self.downsample];
        (
            flags.iter().fold(0, |rank, &flag| 2 * rank + u8::from(flag)),
            self.scale,
            self.several,
            self.unaware,
            self.width,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::network::weights::Blurs;
    use crate::network::weights::tests::small;

    fn asked(scale: f64, downsample: Downsample, blur: bool) -> Degradation {
        Degradation::new(scale, blur.then(|| Kernel::gaussian(2.0, 2.0, 0.0, 15)), downsample).unwrap()
    }

    fn all() -> Vec<Weights> {
        let info = [
            ("bicubic-x2", [2.0, 2.0], Downsample::Bicubic, Blurs::Without),
            ("direct-x2", [2.0, 2.0], Downsample::Direct, Blurs::With),
            ("direct-multi", [2.0, 4.0], Downsample::Direct, Blurs::With),
            ("blur-bicubic-x2", [2.0, 2.0], Downsample::Bicubic, Blurs::With),
        ];
        info.into_iter().map(|(name, s, d, k)| small(Info::new(name, s, d, k))).collect()
    }

    #[test]
    fn the_table_is_whole() {
        for weights in list().unwrap() {
            assert_eq!(by_name(&weights.info.name).unwrap(), weights);
            assert!(weights.info.recorded);
        }
        assert!(by_name("none-such").is_err());
        assert!(Weights::open("none-such").unwrap_err().to_string().contains("built-in weights"));
        assert!(Weights::open("none/such.safetensors").is_err());
        let error = choose_from(Vec::new(), &asked(2.0, Downsample::Bicubic, false)).unwrap_err();
        assert_eq!(error.to_string(), "no built-in weights: give --weights FILE");
    }

    #[test]
    fn what_fits_is_chosen_without_a_word() {
        use Downsample::{Bicubic, Direct};
        for (scale, downsample, blur, name) in [
            (2.0, Bicubic, false, "bicubic-x2"),
            (2.0, Bicubic, true, "blur-bicubic-x2"),
            (2.0, Direct, true, "direct-x2"),
            (2.7, Direct, true, "direct-multi"),
            (4.0, Direct, true, "direct-multi"),
        ] {
            let choice = choose_from(all(), &asked(scale, downsample, blur)).unwrap();
            assert_eq!((choice.weights.info.name.as_str(), choice.warning), (name, None));
        }
    }

    #[test]
    fn a_start_that_knows_the_kernel_is_preferred() {
        let between = |name, scale, downsample, blurs| {
            small(Info { start: Start::LeastSquares, ..Info::new(name, scale, downsample, blurs) })
        };
        let aware = |name, downsample, blurs| between(name, [2.0, 2.0], downsample, blurs);
        let mut known = all();
        known.push(between("kernel-multi", [1.5, 4.0], Downsample::Bicubic, Blurs::Both));
        for (scale, name) in [(2.0, "bicubic-x2"), (3.0, "kernel-multi")] {
            // One scale alone before any start.
            let choice = choose_from(known.clone(), &asked(scale, Downsample::Bicubic, false)).unwrap();
            assert_eq!((choice.weights.info.name.as_str(), choice.warning), (name, None));
        }
        known.push(aware("kernel-bicubic-x2", Downsample::Bicubic, Blurs::Both));
        known.push(aware("kernel-direct-x2", Downsample::Direct, Blurs::With));
        let kernel = Kernel::gaussian(2.0, 2.0, 0.0, 15);
        for (asked, name) in [
            (asked(2.0, Downsample::Bicubic, false), "kernel-bicubic-x2"),
            (asked(2.0, Downsample::Bicubic, true), "kernel-bicubic-x2"),
            (asked(2.0, Downsample::Direct, true), "kernel-direct-x2"),
            (asked(2.0, Downsample::Direct, true).centred(Some(kernel)), "kernel-direct-x2"),
        ] {
            let choice = choose_from(known.clone(), &asked).unwrap();
            assert_eq!((choice.weights.info.name.as_str(), choice.warning), (name, None));
        }
    }

    #[test]
    fn what_does_not_fit_is_never_used_silently() {
        use Downsample::{Bicubic, Direct};
        for (scale, downsample, blur, name) in [
            (3.0, Bicubic, false, "bicubic-x2"),
            (3.0, Bicubic, true, "blur-bicubic-x2"),
            (1.5, Direct, true, "direct-x2"),
        ] {
            let choice = choose_from(all(), &asked(scale, downsample, blur)).unwrap();
            let warning = choice.warning.unwrap();
            assert_eq!(choice.weights.info.name, name);
            assert!(warning.contains("no built-in weights fit better"), "{warning}");
        }
        let weights = &all()[0];
        let text = warning(&weights.info, &asked(3.0, Direct, true), &all()).unwrap();
        assert_eq!(
            text,
            "weights 'bicubic-x2' were trained for ×2, bicubic downsampling, without blur, \
             not for ×3, direct downsampling, with blur: --weights direct-multi would fit"
        );
        assert!(warning(&weights.info, &asked(2.0, Bicubic, false), &[]).is_none());
        assert!(warning(&Info::unrecorded("x", ""), &asked(2.0, Bicubic, false), &[]).unwrap().contains("convert"));
        assert!(fit(weights.clone(), &asked(2.0, Bicubic, false)).warning.is_none());
        assert!(fit(weights.clone(), &asked(2.1, Bicubic, false)).warning.is_some());
    }

    #[test]
    fn centred_sampling_does_not_fit_weights_that_learnt_the_shift() {
        let kernel = Kernel::gaussian(2.0, 2.0, 0.0, 15);
        let centred = asked(2.0, Downsample::Direct, true).centred(Some(kernel));
        let choice = choose_from(all(), &centred).unwrap();
        assert_eq!(choice.weights.info.name, "blur-bicubic-x2");
        assert!(choice.warning.unwrap().contains("phase centre"));
        let text = fit(all().remove(1), &centred).warning.unwrap();
        assert!(text.contains("phase corner") && text.contains("phase centre"), "{text}");
    }
}
