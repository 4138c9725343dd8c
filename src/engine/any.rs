//! The engine that a user asked for, or that fits the work.

use super::cpu::{CpuEngine, CpuTensor};
#[cfg(feature = "gpu")]
use super::gpu::{self, GpuEngine, GpuLoss, GpuTensor, Kind};
use super::{AdamStep, Engine, Gate, Layer, Shape, Window};
use crate::degrade::{Degradation, LeastSquares, Map};
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// [`Device::Auto`] takes a GPU for so many operations at least, counted as direct convolution: two of a
/// processor's cores make them in about two seconds, eight in half a second, and a process on an H100
/// takes 0.3 s whatever it does (docs/measurements.md).
const WORTH_IT: f64 = 1e12;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// On a GPU where there is a real one and the work is large enough, else on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On the GPU of that number in [`devices`], or the first real one, or a software renderer.
    Gpu(Option<usize>),
}

impl FromStr for Device {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "auto" => Some(Device::Auto),
            None if text == "cpu" => Some(Device::Cpu),
            None if text == "gpu" => Some(Device::Gpu(None)),
            Some(("gpu", number)) => number.parse().ok().map(|number| Device::Gpu(Some(number))),
            _ => None,
        }
        .ok_or_else(|| {
            Error::input(format!("device '{}' is not known; use auto, cpu, gpu or gpu:N", text.escape_debug()))
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(None) => f.write_str("gpu"),
            Device::Gpu(Some(number)) => write!(f, "gpu:{number}"),
        }
    }
}

/// An engine of either kind.
pub enum AnyEngine {
    /// The processor.
    Cpu(CpuEngine),
    /// A graphics processor.
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuEngine>),
}

/// A tensor of such an engine.
pub enum AnyTensor {
    /// In main memory.
    Cpu(CpuTensor),
    /// In a graphics processor's memory.
    #[cfg(feature = "gpu")]
    Gpu(GpuTensor),
}

/// A loss of such an engine.
pub enum AnyLoss {
    /// Known already.
    Cpu(f64),
    /// In a graphics processor's memory.
    #[cfg(feature = "gpu")]
    Gpu(GpuLoss),
}

/// A graphics processor, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// `discrete`, `integrated`, `software` or `other`.
    pub kind: &'static str,
    /// The driver.
    pub driver: String,
    /// The largest tensor it takes, in bytes.
    pub largest: u64,
    /// Whether [`Device::Auto`] takes it for large work.
    pub auto: bool,
}

/// The graphics processors of this machine, in the order of their numbers.
pub fn devices() -> Vec<Listed> {
    #[cfg(feature = "gpu")]
    {
        let adapters = gpu::adapters();
        let chosen = real(&adapters);
        let listed = |(index, adapter): (usize, &gpu::Adapter)| Listed {
            name: adapter.name.clone(),
            backend: adapter.backend,
            kind: match adapter.kind {
                Kind::Discrete => "discrete",
                Kind::Integrated => "integrated",
                Kind::Software => "software",
                Kind::Other => "other",
            },
            driver: adapter.driver.clone(),
            largest: adapter.largest,
            auto: chosen == Some(index),
        };
        adapters.iter().enumerate().map(listed).collect()
    }
    #[cfg(not(feature = "gpu"))]
    Vec::new()
}

/// The first graphics card, or else the first that is part of the processor.
#[cfg(feature = "gpu")]
fn real(adapters: &[gpu::Adapter]) -> Option<usize> {
    let first = |kind| adapters.iter().position(|adapter| adapter.kind == kind);
    first(Kind::Discrete).or_else(|| first(Kind::Integrated))
}

impl AnyEngine {
    /// The engine for `device`; `operations` is about how many floating-point operations it is for, and
    /// `threads` those of the processor (one a core if not given).
    ///
    /// # Errors
    /// A GPU that is named but not there or does not open, or what [`CpuEngine::new`] says.
    pub fn open(device: Device, threads: Option<usize>, operations: f64) -> Result<Self> {
        let cpu = || CpuEngine::new(threads).map(AnyEngine::Cpu);
        match device {
            Device::Cpu => cpu(),
            Device::Auto if operations < WORTH_IT => cpu(),
            #[cfg(feature = "gpu")]
            Device::Auto => {
                let adapters = gpu::adapters();
                // One that does not open is as good as none.
                match real(&adapters).map(|index| GpuEngine::new(&adapters[index])) {
                    Some(Ok(engine)) => Ok(AnyEngine::Gpu(Box::new(engine))),
                    _ => cpu(),
                }
            }
            #[cfg(feature = "gpu")]
            Device::Gpu(number) => {
                let adapters = gpu::adapters();
                let index = match number {
                    Some(number) => number,
                    None => real(&adapters).unwrap_or(0),
                };
                let Some(adapter) = adapters.get(index) else {
                    return Err(Error::Device(if adapters.is_empty() {
                        format!("--device {device}: no GPU driver (Vulkan, Metal or DX12) was found; use --device cpu")
                    } else {
                        format!("--device {device}: there is no such GPU; `mzsr devices` lists {}", adapters.len())
                    }));
                };
                GpuEngine::new(adapter).map(|engine| AnyEngine::Gpu(Box::new(engine)))
            }
            #[cfg(not(feature = "gpu"))]
            Device::Auto => cpu(),
            #[cfg(not(feature = "gpu"))]
            Device::Gpu(_) => Err(Error::Device(format!(
                "--device {device}: this program was built without GPUs; build it with --features gpu, or use --device cpu"
            ))),
        }
    }

    /// The processor's engine, if it is that.
    pub fn cpu(&self) -> Option<&CpuEngine> {
        match self {
            AnyEngine::Cpu(engine) => Some(engine),
            #[cfg(feature = "gpu")]
            AnyEngine::Gpu(_) => None,
        }
    }

    /// Whether it is a graphics processor.
    pub fn is_gpu(&self) -> bool {
        self.cpu().is_none()
    }
}

impl From<CpuEngine> for AnyEngine {
    fn from(engine: CpuEngine) -> Self {
        AnyEngine::Cpu(engine)
    }
}

/// `body` with the engine, and the constructor of its tensors.
macro_rules! with {
    ($engine:expr, $e:ident, $wrap:ident => $body:expr) => {
        match $engine {
            AnyEngine::Cpu($e) => {
                #[allow(unused_imports)]
                use AnyTensor::Cpu as $wrap;
                $body
            }
            #[cfg(feature = "gpu")]
            AnyEngine::Gpu($e) => {
                #[allow(unused_imports)]
                use AnyTensor::Gpu as $wrap;
                $body
            }
        }
    };
}

/// A tensor of this engine.
trait Own<T> {
    fn own(&self) -> &T;
    fn own_mut(&mut self) -> &mut T;
    fn into_own(self) -> T;
}

#[cfg(feature = "gpu")]
const FOREIGN: &str = "a tensor of another engine";

// Without the GPU there is one kind.
#[allow(clippy::infallible_destructuring_match)]
impl Own<CpuTensor> for AnyTensor {
    fn own(&self) -> &CpuTensor {
        match self {
            AnyTensor::Cpu(tensor) => tensor,
            #[cfg(feature = "gpu")]
            AnyTensor::Gpu(_) => panic!("{FOREIGN}"),
        }
    }
    fn own_mut(&mut self) -> &mut CpuTensor {
        match self {
            AnyTensor::Cpu(tensor) => tensor,
            #[cfg(feature = "gpu")]
            AnyTensor::Gpu(_) => panic!("{FOREIGN}"),
        }
    }
    fn into_own(self) -> CpuTensor {
        match self {
            AnyTensor::Cpu(tensor) => tensor,
            #[cfg(feature = "gpu")]
            AnyTensor::Gpu(_) => panic!("{FOREIGN}"),
        }
    }
}

#[cfg(feature = "gpu")]
impl Own<GpuTensor> for AnyTensor {
    fn own(&self) -> &GpuTensor {
        match self {
            AnyTensor::Gpu(tensor) => tensor,
            AnyTensor::Cpu(_) => panic!("{FOREIGN}"),
        }
    }
    fn own_mut(&mut self) -> &mut GpuTensor {
        match self {
            AnyTensor::Gpu(tensor) => tensor,
            AnyTensor::Cpu(_) => panic!("{FOREIGN}"),
        }
    }
    fn into_own(self) -> GpuTensor {
        match self {
            AnyTensor::Gpu(tensor) => tensor,
            AnyTensor::Cpu(_) => panic!("{FOREIGN}"),
        }
    }
}

fn own_gate<'a, T>(gate: Gate<'a, AnyTensor>) -> Gate<'a, T>
where
    AnyTensor: Own<T>,
{
    match gate {
        Gate::Linear => Gate::Linear,
        Gate::Relu => Gate::Relu,
        Gate::Where(tensor) => Gate::Where(tensor.own()),
    }
}

fn own_terms<'a, T>(terms: &[(&'a AnyTensor, &'a AnyTensor)]) -> Vec<(&'a T, &'a T)>
where
    AnyTensor: Own<T>,
{
    terms.iter().map(|(a, b)| (a.own(), b.own())).collect()
}

impl Engine for AnyEngine {
    type Elem = f32;
    type Tensor = AnyTensor;
    type Loss = AnyLoss;

    fn name(&self) -> String {
        with!(self, e, Wrap => e.name())
    }

    fn largest(&self) -> usize {
        with!(self, e, Wrap => e.largest())
    }

    fn finish(&self) -> Result<()> {
        with!(self, e, Wrap => e.finish())
    }

    fn upload(&self, shape: Shape, data: &[f32]) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.upload(shape, data).map(Wrap))
    }

    fn zeros(&self, shape: Shape) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.zeros(shape).map(Wrap))
    }

    fn duplicate(&self, tensor: &AnyTensor) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.duplicate(tensor.own()).map(Wrap))
    }

    fn download(&self, tensor: &AnyTensor) -> Result<Vec<f32>> {
        with!(self, e, Wrap => e.download(tensor.own()))
    }

    fn shape(&self, tensor: &AnyTensor) -> Shape {
        with!(self, e, Wrap => e.shape(tensor.own()))
    }

    fn conv(
        &self,
        layer: Layer,
        terms: &[(&AnyTensor, &AnyTensor)],
        bias: Option<&AnyTensor>,
        gate: Gate<'_, AnyTensor>,
        residual: Option<&AnyTensor>,
    ) -> Result<AnyTensor> {
        with!(self, e, Wrap => e
            .conv(layer, &own_terms(terms), bias.map(Own::own), own_gate(gate), residual.map(Own::own))
            .map(Wrap))
    }

    fn conv_input_grad(
        &self,
        layer: Layer,
        terms: &[(&AnyTensor, &AnyTensor)],
        gate: Gate<'_, AnyTensor>,
    ) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.conv_input_grad(layer, &own_terms(terms), own_gate(gate)).map(Wrap))
    }

    fn conv_weight_grad(
        &self,
        layer: Layer,
        terms: &[(&AnyTensor, &AnyTensor)],
        bias_of: &AnyTensor,
        grad: &mut AnyTensor,
    ) -> Result<()> {
        with!(self, e, Wrap => e.conv_weight_grad(layer, &own_terms(terms), bias_of.own(), grad.own_mut()))
    }

    fn l1(&self, output: &AnyTensor, target: &AnyTensor, core: Window, count: usize) -> Result<(AnyLoss, AnyTensor)> {
        match self {
            AnyEngine::Cpu(engine) => engine
                .l1(output.own(), target.own(), core, count)
                .map(|(loss, delta)| (AnyLoss::Cpu(loss), AnyTensor::Cpu(delta))),
            #[cfg(feature = "gpu")]
            AnyEngine::Gpu(engine) => engine
                .l1(output.own(), target.own(), core, count)
                .map(|(loss, delta)| (AnyLoss::Gpu(loss), AnyTensor::Gpu(delta))),
        }
    }

    fn loss(&self, loss: AnyLoss) -> Result<f64> {
        match (self, loss) {
            (_, AnyLoss::Cpu(loss)) => Ok(loss),
            #[cfg(feature = "gpu")]
            (AnyEngine::Gpu(engine), AnyLoss::Gpu(loss)) => engine.loss(loss),
            #[cfg(feature = "gpu")]
            (AnyEngine::Cpu(_), AnyLoss::Gpu(_)) => panic!("a loss of another engine"),
        }
    }

    fn axpy(&self, places: Range<usize>, alpha: f64, x: &AnyTensor, y: &mut AnyTensor) -> Result<()> {
        with!(self, e, Wrap => e.axpy(places, alpha, x.own(), y.own_mut()))
    }

    fn scale(&self, places: Range<usize>, alpha: f64, y: &mut AnyTensor) -> Result<()> {
        with!(self, e, Wrap => e.scale(places, alpha, y.own_mut()))
    }

    fn dot(&self, places: Range<usize>, x: &AnyTensor, y: &AnyTensor) -> Result<f64> {
        with!(self, e, Wrap => e.dot(places, x.own(), y.own()))
    }

    fn adam(
        &self,
        step: AdamStep,
        grad: &AnyTensor,
        first: &mut AnyTensor,
        second: &mut AnyTensor,
        params: &mut AnyTensor,
    ) -> Result<()> {
        with!(self, e, Wrap => e.adam(step, grad.own(), first.own_mut(), second.own_mut(), params.own_mut()))
    }

    fn place(&self, from: &AnyTensor, window: Window, to: &mut AnyTensor, y: usize, x: usize) -> Result<()> {
        with!(self, e, Wrap => e.place(from.own(), window, to.own_mut(), y, x))
    }

    fn unshuffle(&self, x: &AnyTensor, cell: usize) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.unshuffle(x.own(), cell).map(Wrap))
    }

    fn shuffle(&self, cells: &AnyTensor, cell: usize, height: usize, width: usize) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.shuffle(cells.own(), cell, height, width).map(Wrap))
    }

    fn map(&self, map: &Map, image: &AnyTensor) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.map(map, image.own()).map(Wrap))
    }

    fn least_squares(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &AnyTensor,
        height: usize,
        width: usize,
    ) -> Result<AnyTensor> {
        with!(self, e, Wrap => e.least_squares(rule, degradation, low.own(), height, width).map(Wrap))
    }

    fn solve(
        &self,
        rule: LeastSquares,
        degradation: &Degradation,
        low: &AnyTensor,
        prior: AnyTensor,
        z: &mut Option<AnyTensor>,
    ) -> Result<AnyTensor> {
        with!(self, e, Wrap => {
            let mut kept = z.take().map(AnyTensor::into_own);
            let made = e.solve(rule, degradation, low.own(), prior.into_own(), &mut kept);
            *z = kept.map(Wrap);
            made.map(Wrap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        for (text, device) in
            [("auto", Device::Auto), ("cpu", Device::Cpu), ("gpu", Device::Gpu(None)), ("gpu:1", Device::Gpu(Some(1)))]
        {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        for wrong in ["", "cuda", "gpu:", "gpu:x", "gpu:-1", "cpu:0"] {
            let error = wrong.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("auto, cpu, gpu or gpu:N"), "{error}");
        }
    }

    #[test]
    fn software_is_never_taken_by_itself() {
        assert!(devices().iter().all(|listed| !(listed.auto && listed.kind == "software")));
        assert!(!AnyEngine::open(Device::Auto, Some(1), 0.0).unwrap().is_gpu());
        let error = AnyEngine::open(Device::Gpu(Some(999)), Some(1), 0.0).err().unwrap().to_string();
        assert!(error.starts_with("--device gpu:999: "), "{error}");
    }
}
