//! What a kernel SPEC means, and the kernel it comes to.

use super::{Gaussian, Kernel, KernelConvention, MAX_SIZE, files, near};
use crate::{Error, Result};
use std::path::PathBuf;

/// The size of a Gaussian that names none.
const DEFAULT_SIZE: usize = 15;
/// Variances that are taken, in px².
const VARIANCES: (f64, f64) = (1e-4, 4e4);
/// The part of a Gaussian's mass that may be missing without a word.
const MISSING: f64 = 0.01;
/// Further off centre than this, in px, is worth a word.
const OFF_CENTRE: f64 = 0.5;

const FORMS: &str = "none, gaussian:V, gaussian:L1,L2,ANGLE, gaussian:sigma=S, disk:RADIUS or motion:LENGTH,ANGLE, each with ,size=N, or a file (.mat .npy .png .tif .txt)";

/// A kernel as it is named on the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelSpec {
    /// No blur.
    None,
    /// A Gaussian by its covariance's eigenvalues (px²) and angle (radians).
    Gaussian {
        /// The first eigenvalue.
        l1: f64,
        /// The second.
        l2: f64,
        /// The first eigenvalue's axis, from the x axis towards the y axis, which points down.
        theta: f64,
        /// Rows and columns.
        size: usize,
    },
    /// A lens out of focus ([`Kernel::disk`]).
    Disk {
        /// In px.
        radius: f64,
        /// Rows and columns.
        size: usize,
    },
    /// A camera that moves in a straight line ([`Kernel::motion`]).
    Motion {
        /// In px.
        length: f64,
        /// From the x axis towards the y axis, which points down, in radians.
        angle: f64,
        /// Rows and columns.
        size: usize,
    },
    /// A file.
    File(PathBuf),
}

impl KernelSpec {
    /// Reads `none`, `gaussian:2.0`, `gaussian:4.0,1.0,-0.5`, `gaussian:sigma=1.4`, each Gaussian
    /// with `,size=N`; `disk:1.7` and `motion:7,0.5` likewise; anything else is a file's name.
    ///
    /// # Errors
    /// A kernel that is misspelt or makes no sense; an empty text.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::input(format!("an empty kernel; use {FORMS}")));
        }
        if text == "none" {
            return Ok(KernelSpec::None);
        }
        if text == "gaussian" {
            return Err(Error::input(format!(
                "kernel 'gaussian' needs a variance in px², like gaussian:2.0; use {FORMS}"
            )));
        }
        for (family, example) in
            [("disk", "a radius in px, like disk:1.7"), ("motion", "a length in px, like motion:7,0.5")]
        {
            if text == family {
                return Err(Error::input(format!("kernel '{text}' needs {example}; use {FORMS}")));
            }
        }
        let families = ["gaussian:", "disk:", "motion:"];
        let Some((family, arguments)) = families.iter().find_map(|family| Some((*family, text.strip_prefix(family)?)))
        else {
            return Ok(KernelSpec::File(text.into()));
        };
        let wrong = |why: String| Error::input(format!("kernel '{text}': {why}"));
        let number = |word: &str| match word.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(wrong(format!("'{word}' is not a number; use {FORMS}"))),
        };
        let (mut values, mut sigma, mut size) = (Vec::new(), None, None);
        for word in arguments.split(',') {
            match word.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                None if sigma.is_none() && size.is_none() => values.push(number(word)?),
                Some(("sigma", value)) if sigma.is_none() && family == "gaussian:" => sigma = Some(number(value)?),
                Some(("size", value)) if size.is_none() => {
                    let count = value.parse().ok().filter(|n| (1..=MAX_SIZE).contains(n));
                    size =
                        Some(count.ok_or_else(|| {
                            wrong(format!("size '{value}' is not a whole number from 1 to {MAX_SIZE}"))
                        })?);
                }
                _ => return Err(wrong(format!("'{word}' is not understood there; use {FORMS}"))),
            }
        }
        if family != "gaussian:" {
            let (extent, angle) = match (family, values.as_slice()) {
                ("disk:", &[radius]) => (2.0 * radius, 0.0),
                ("motion:", &[length]) => (length, 0.0),
                ("motion:", &[length, angle]) => (length, angle),
                _ => {
                    return Err(wrong(format!("one number for a disk, one or two for motion are needed; use {FORMS}")));
                }
            };
            if !(extent > 0.0 && extent <= (MAX_SIZE - 3) as f64) {
                return Err(wrong(format!("it must be larger than 0 and at most {} px across", MAX_SIZE - 3)));
            }
            // The pixels that its ends touch.
            let holds = 2 * (extent / 2.0 + 0.5).ceil() as usize + 1;
            let size = match size {
                None => holds.max(DEFAULT_SIZE),
                Some(size) if size >= holds && size % 2 == 1 => size,
                Some(size) => {
                    return Err(wrong(format!("size {size} must be odd and at least {holds} to hold it")));
                }
            };
            return Ok(match family {
                "disk:" => KernelSpec::Disk { radius: extent / 2.0, size },
                _ => KernelSpec::Motion { length: extent, angle, size },
            });
        }
        let (l1, l2, theta) = match (values.as_slice(), sigma) {
            ([], Some(sigma)) if sigma > 0.0 => (sigma * sigma, sigma * sigma, 0.0),
            ([], Some(sigma)) => return Err(wrong(format!("sigma {sigma} must be above 0"))),
            (&[variance], None) => (variance, variance, 0.0),
            (&[l1, l2, theta], None) => (l1, l2, theta),
            _ => return Err(wrong(format!("one variance, or two and an angle, or sigma=S are needed; use {FORMS}"))),
        };
        if let Some(odd) = [l1, l2].into_iter().find(|l| !(VARIANCES.0..=VARIANCES.1).contains(l)) {
            return Err(wrong(format!("variance {odd} is outside {} to {} px²", VARIANCES.0, VARIANCES.1)));
        }
        Ok(KernelSpec::Gaussian { l1, l2, theta, size: size.unwrap_or(DEFAULT_SIZE) })
    }

    /// The kernel.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold a kernel.
    pub fn load(&self) -> Result<Loaded> {
        let mut loaded = Loaded {
            kernel: None,
            description: "none".into(),
            variable: None,
            warnings: Vec::new(),
            gaussian: None,
            said: Vec::new(),
        };
        match self {
            KernelSpec::None => {}
            &KernelSpec::Gaussian { l1, l2, theta, size } => {
                let gaussian = Gaussian::middle(l1, l2, theta, size);
                loaded.description = if l1 == l2 {
                    format!("gaussian of variance {} px² (sigma {}), {size} x {size}", round(l1), round(l1.sqrt()))
                } else {
                    format!("gaussian of variances {l1} and {l2} px², angle {theta} rad, {size} x {size}")
                };
                let (missing, enough) = outside(&gaussian);
                if missing > MISSING {
                    let remedy = match enough {
                        Some(enough) => format!("size={enough} holds it"),
                        None => format!("no size up to {MAX_SIZE} holds it"),
                    };
                    loaded.said.push(format!(
                        "{:.1} % of the Gaussian's mass lies outside {size} x {size} and is cut off; {remedy}",
                        100.0 * missing
                    ));
                }
                loaded.kernel = Some(gaussian.sample());
                loaded.gaussian = Some(gaussian);
            }
            &KernelSpec::Disk { radius, size } => {
                loaded.description = format!("disk of radius {radius} px, {size} x {size}");
                loaded.kernel = Some(Kernel::disk(radius, size));
            }
            &KernelSpec::Motion { length, angle, size } => {
                loaded.description = format!("motion of {length} px, angle {angle} rad, {size} x {size}");
                loaded.kernel = Some(Kernel::motion(length, angle, size));
            }
            KernelSpec::File(path) => {
                let read = files::read(path)?;
                let name = read.variable.as_ref().map_or(String::new(), |name| format!(", variable '{name}'"));
                loaded.description =
                    format!("{}{name}, {} x {}", path.display(), read.kernel.width, read.kernel.height);
                loaded.said = read.warnings;
                loaded.variable = read.variable;
                loaded.kernel = Some(read.kernel);
            }
        }
        Ok(loaded.reviewed())
    }
}

/// A kernel and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The kernel, its sum 1; nothing for `none`.
    pub kernel: Option<Kernel>,
    /// What it is, in a few words.
    pub description: String,
    /// The MATLAB variable it was read from.
    pub variable: Option<String>,
    /// What a user should know, one line each.
    pub warnings: Vec<String>,
    gaussian: Option<Gaussian>,
    /// The warnings but that about the centroid.
    said: Vec<String>,
}

impl Loaded {
    /// Size, sum, centroid, second moments and the variable's name, in one line.
    pub fn details(&self) -> Option<String> {
        let kernel = self.kernel.as_ref()?;
        let m = kernel.moments();
        let variable = self.variable.as_ref().map_or(String::new(), |name| format!(", variable '{name}'"));
        Some(format!(
            "{} x {}, sum {:.6}, centroid ({}, {}) px from the centre (right, down), second moments xx {} yy {} xy {} px²{variable}",
            kernel.width,
            kernel.height,
            m.sum,
            fixed(m.x),
            fixed(m.y),
            fixed(m.xx),
            fixed(m.yy),
            fixed(m.xy)
        ))
    }

    /// The kernel for correlation, if it was meant by `convention`.
    pub fn with_convention(mut self, convention: KernelConvention) -> Self {
        if convention == KernelConvention::Correlate || self.kernel.is_none() {
            return self;
        }
        if let Some(gaussian) = &mut self.gaussian {
            (gaussian.x, gaussian.y) = (-gaussian.x, -gaussian.y);
            self.kernel = Some(gaussian.sample());
        } else {
            self.kernel = self.kernel.map(|kernel| kernel.turned());
            self.description += ", turned by 180°";
        }
        self.reviewed()
    }

    /// The kernel with its centroid on its centre.
    pub fn recentred(mut self) -> Self {
        let Some(kernel) = &self.kernel else { return self };
        match &mut self.gaussian {
            Some(gaussian) if gaussian.x == 0.0 && gaussian.y == 0.0 => return self,
            Some(gaussian) => {
                (gaussian.x, gaussian.y) = (0.0, 0.0);
                self.kernel = Some(gaussian.sample());
            }
            None => self.kernel = Some(kernel.recentred()),
        }
        self.description += ", recentred";
        self.reviewed()
    }

    /// The kernel moved right by `dx` and down by `dy` px: a Gaussian sampled there, a file by
    /// cubic interpolation ([`Kernel::displaced`]).
    pub fn displaced(&self, dx: f64, dy: f64) -> Option<Kernel> {
        match &self.gaussian {
            Some(gaussian) if near(dx, dy) => {
                Some(Gaussian { x: gaussian.x + dx, y: gaussian.y + dy, ..*gaussian }.sample())
            }
            _ => self.kernel.as_ref().map(|kernel| kernel.displaced(dx, dy)),
        }
    }

    /// With the warnings that the kernel as it now is deserves.
    fn reviewed(mut self) -> Self {
        self.warnings = self.said.clone();
        if let Some(m) = self.kernel.as_ref().map(Kernel::moments)
            && m.x.hypot(m.y) > OFF_CENTRE
        {
            let (across, along) =
                (if m.x < 0.0 { "left of" } else { "right of" }, if m.y < 0.0 { "above" } else { "below" });
            self.warnings.push(format!(
                "the kernel's centroid lies {:.2} px {across} and {:.2} px {along} its centre: the enlarged picture will be moved by as much, the same way, against a plain enlargement; --centre-kernel moves the centroid to the centre",
                m.x.abs(),
                m.y.abs()
            ));
        }
        self
    }
}

/// The part of a Gaussian's mass outside its size, and the odd size that holds enough.
fn outside(gaussian: &Gaussian) -> (f64, Option<usize>) {
    let inside = (gaussian.size - 1) / 2;
    let reach = ((6.0 * gaussian.lambda1.max(gaussian.lambda2).sqrt()).ceil() as usize + 2).max(inside + 1);
    // The mass by distance from the middle, the larger of rows and columns; half the plane does.
    let mut rings = vec![0.0; reach + 1];
    for y in 0..=reach {
        let times = if y == 0 { 1.0 } else { 2.0 };
        for x in -(reach as isize)..=reach as isize {
            rings[x.unsigned_abs().max(y)] += times * (-0.5 * gaussian.quadratic(x as f64, y as f64)).exp();
        }
    }
    let total: f64 = rings.iter().sum();
    let missing = |radius: usize| rings[(radius + 1).min(rings.len())..].iter().sum::<f64>() / total;
    let enough = (0..=MAX_SIZE / 2).find(|&radius| missing(radius) <= MISSING).map(|radius| 2 * radius + 1);
    (missing(inside), enough)
}

/// To four places, without needless zeros.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// To three places, never −0.
fn fixed(value: f64) -> String {
    format!("{:.3}", (value * 1e3).round() / 1e3 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Loaded {
        KernelSpec::parse(text).unwrap().load().unwrap()
    }

    #[test]
    fn specs_mean_what_the_protocol_says() {
        assert_eq!(load("none").kernel, None);
        assert_eq!(load("gaussian:2.0").kernel, Some(Kernel::gaussian(2.0, 2.0, 0.0, 15)));
        assert_eq!(load("gaussian:4.0,1.0,-0.5,size=21").kernel, Some(Kernel::gaussian(4.0, 1.0, -0.5, 21)));
        assert_eq!(load("gaussian:sigma=1.5,size=9").kernel, Some(Kernel::gaussian(2.25, 2.25, 0.0, 9)));
        assert!(matches!(KernelSpec::parse("a,b=c.mat"), Ok(KernelSpec::File(_))));
        assert_eq!(load("disk:1.7").kernel, Some(Kernel::disk(1.7, 15)));
        assert_eq!(load("disk:8").kernel, Some(Kernel::disk(8.0, 19)));
        assert_eq!(load("motion:7,0.5,size=21").kernel, Some(Kernel::motion(7.0, 0.5, 21)));
        assert_eq!(load("motion:3").kernel, Some(Kernel::motion(3.0, 0.0, 15)));
        for wrong in [
            "",
            "gaussian",
            "gaussian:",
            "gaussian:x",
            "gaussian:1,2",
            "gaussian:-1",
            "gaussian:0",
            "gaussian:nan",
            "gaussian:1,size=0",
            "gaussian:1,size=2000",
            "gaussian:1,size=3,size=3",
            "gaussian:sigma=-1",
            "gaussian:sigma=1,2",
            "gaussian:2,sigma=1",
            "gaussian:1,2,3,4",
            "gaussian:1e9",
            "gaussian:2,wide=3",
            "disk",
            "disk:0",
            "disk:1,2",
            "disk:9,size=15",
            "disk:sigma=1",
            "motion:x",
            "motion:3,1,2",
            "motion:3,size=6",
            "motion:2000",
        ] {
            let error = KernelSpec::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn cut_mass_is_said() {
        assert!(load("gaussian:2.0").warnings.is_empty());
        assert!(load("gaussian:4.0,1.0,-0.5").warnings.is_empty());
        let warnings = load("gaussian:16,size=9").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("size=23 holds it"), "{warnings:?}");
        assert!(load("gaussian:16,size=23").warnings.is_empty());
        assert!(!load("gaussian:16,size=21").warnings.is_empty());
        assert!(load("gaussian:40000").warnings[0].contains("no size up to 1025"));
    }

    #[test]
    fn even_gaussians_are_off_centre_until_recentred() {
        let even = load("gaussian:2.0,size=14");
        assert!(even.warnings[0].contains("--centre-kernel"));
        let centred = even.recentred();
        assert!(centred.warnings.is_empty() && centred.kernel.unwrap().moments().x.abs() < 1e-12);
        let turned = load("gaussian:2.0,size=14").with_convention(KernelConvention::Convolve);
        assert!((turned.kernel.unwrap().moments().x - 0.5).abs() < 1e-9);
        assert_eq!(load("gaussian:2.0").recentred(), load("gaussian:2.0"));
    }
}
