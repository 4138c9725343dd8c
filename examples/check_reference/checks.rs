//! The checks, shared by the example and by the tests.

use mzsr::adapt::{Course, Plan, Rates, Restorer};
use mzsr::degrade::{Degradation, Downsample, LeastSquares, Map, resize};
use mzsr::engine::cpu::{CpuEngine, Level};
use mzsr::engine::plain::PlainEngine;
use mzsr::engine::{AnyEngine, Device, Engine, Shape, Window, devices, load, raster};
use mzsr::kernel::{Kernel, KernelSpec};
use mzsr::network::{Architecture, Network};
use mzsr::score::{Preset, score};
use mzsr::train::meta::{Inner, Task, meta_gradient};
use mzsr::{Error, Raster, Real, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A tensor's shape and values.
struct Values {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// A reference file in memory.
struct File {
    layout: String,
    cases: Value,
    tensors: HashMap<String, Values>,
}

/// Files above this are no reference files.
const LARGEST: u64 = 1 << 30;

impl File {
    fn read(path: &Path) -> Result<File> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if size > LARGEST {
            return Err(Error::file(path, format!("{size} bytes are too many for a reference file")));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let wrong = |e: safetensors::SafeTensorError| Error::file(path, format!("not a whole safetensors file: {e}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
        let entry = |key: &str| {
            let entry = header.metadata().as_ref().and_then(|metadata| metadata.get(key));
            entry.cloned().ok_or_else(|| Error::file(path, format!("no `{key}` in its metadata: not a reference file")))
        };
        let (layout, cases) = (entry("layout")?, entry("cases")?);
        let cases =
            serde_json::from_str(&cases).map_err(|e| Error::file(path, format!("its cases are not JSON: {e}")))?;
        let mut tensors = HashMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(wrong)?.iter() {
            let data = view.data();
            let data = match view.dtype() {
                Dtype::F64 => {
                    data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect()
                }
                Dtype::F32 => data
                    .chunks_exact(4)
                    .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap_or_default())))
                    .collect(),
                Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
                other => return Err(Error::file(path, format!("tensor {name} is of type {other:?}"))),
            };
            tensors.insert(name.to_owned(), Values { shape: view.shape().to_vec(), data });
        }
        Ok(File { layout, cases, tensors })
    }

    fn get(&self, name: &str) -> Result<&Values> {
        self.tensors.get(name).ok_or_else(|| Error::input(format!("tensor {name} is missing")))
    }

    /// The values of a tensor of `shape` sizes.
    fn shaped<const N: usize>(&self, name: &str) -> Result<([usize; N], &[f64])> {
        let values = self.get(name)?;
        let shape = values.shape.as_slice().try_into();
        let shape =
            shape.map_err(|_| Error::input(format!("tensor {name} has {} axes, not {N}", values.shape.len())))?;
        Ok((shape, &values.data))
    }

    fn raster(&self, name: &str) -> Result<Raster<f64>> {
        let ([height, width, channels], data) = self.shaped(name)?;
        Ok(Raster::from_vec(height, width, channels, data.to_vec()))
    }

    fn kernel(&self, name: &str) -> Result<Kernel> {
        let ([height, width], data) = self.shaped(name)?;
        Kernel::new(height, width, data.to_vec())
    }

    /// Parameters whose tensors' names begin with `prefix`, flat.
    fn flat(&self, prefix: &str, architecture: &Architecture) -> Result<Vec<f64>> {
        let mut flat = Vec::with_capacity(architecture.parameter_count());
        for (l, layer) in architecture.layers().iter().enumerate() {
            let weight = [layer.output, layer.input, 3, 3];
            for (part, shape) in [("weight", &weight[..]), ("bias", &[layer.output])] {
                let name = format!("{prefix}conv{}.{part}", l + 1);
                let values = self.get(&name)?;
                if values.shape != shape {
                    return Err(Error::input(format!("tensor {name} is {:?}, not {shape:?}", values.shape)));
                }
                flat.extend_from_slice(&values.data);
            }
        }
        Ok(flat)
    }

    /// The network that parameters with this prefix belong to.
    fn architecture(&self, prefix: &str) -> Result<Architecture> {
        let mut channels = Vec::new();
        for l in 1.. {
            let Some(weight) = self.tensors.get(&format!("{prefix}conv{l}.weight")) else { break };
            let [output, input, 3, 3] = weight.shape[..] else {
                return Err(Error::input(format!("{prefix}conv{l}.weight is not a 3 × 3 convolution")));
            };
            if l == 1 {
                channels.push(input);
            }
            channels.push(output);
        }
        Architecture::new(channels)
    }

    fn cases(&self) -> Result<impl Iterator<Item = (&String, &Value)>> {
        Ok(self.cases.as_object().ok_or_else(|| Error::input("its cases are not an object"))?.iter())
    }
}

fn number(case: &Value, key: &str) -> Result<f64> {
    case[key].as_f64().ok_or_else(|| Error::input(format!("a case has no number `{key}`")))
}

fn numbers(case: &Value, key: &str) -> Result<Vec<f64>> {
    let list = case[key].as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    list.ok_or_else(|| Error::input(format!("a case has no list of numbers `{key}`")))
}

fn text<'a>(case: &'a Value, key: &str) -> Result<&'a str> {
    case[key].as_str().ok_or_else(|| Error::input(format!("a case has no text `{key}`")))
}

/// Prints errors beside their bounds and counts those past them.
struct Tally<'a> {
    say: &'a mut dyn FnMut(&str),
    failed: usize,
}

impl Tally<'_> {
    fn line(&mut self, what: &str, error: f64, bound: f64) {
        // A NaN is past any bound.
        let passed = error <= bound;
        self.failed += usize::from(!passed);
        (self.say)(&format!("{} {what}: {error:.2e} (bound {bound:.0e})", if passed { "ok  " } else { "FAIL" }));
    }
}

fn largest<T: Real>(a: &[T], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let mut largest = 0.0;
    for (a, b) in a.iter().zip(b) {
        let error = (a.wide() - b).abs();
        // f64::max would forget it.
        if error.is_nan() {
            return error;
        }
        largest = error.max(largest);
    }
    largest
}

/// ‖a − b‖₂ / ‖b‖₂.
fn relative<T: Real>(a: &[T], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let error: f64 = a.iter().zip(b).map(|(a, b)| (a.wide() - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (error / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// Checks the file; gives each line to `say`; returns how many quantities are past their bound.
pub fn check(path: &Path, say: &mut dyn FnMut(&str)) -> Result<usize> {
    let file = File::read(path)?;
    let mut tally = Tally { say, failed: 0 };
    let done = match file.layout.as_str() {
        "mzsr-golden-kernels-1" => kernels(&file, &mut tally),
        "mzsr-golden-resample-1" => resample(&file, &mut tally),
        "mzsr-golden-least-squares-1" => least_squares(&file, &mut tally),
        "mzsr-golden-network-1" => each_engine(&file, &mut tally, network::<PlainEngine<f64>>, network, network),
        "mzsr-golden-adapt-1" => each_engine(&file, &mut tally, adapt::<PlainEngine<f64>>, adapt, adapt),
        other => Err(Error::input(format!(
            "layout `{other}` is not known (kernels, resample, least-squares, network, adapt are)"
        ))),
    };
    done.map_err(|error| Error::file(path, error.to_string()))?;
    Ok(tally.failed)
}

fn kernels(file: &File, tally: &mut Tally<'_>) -> Result<()> {
    for (name, case) in file.cases()? {
        let gaussian = numbers(case, "gaussian")?;
        let [l1, l2, theta] = gaussian[..] else {
            return Err(Error::input("a Gaussian has three numbers"));
        };
        let size = number(case, "size")? as usize;
        let kernel = Kernel::gaussian(l1, l2, theta, size);
        tally.line(
            &format!("{name} gaussian:{l1},{l2},{theta},size={size}"),
            largest(&kernel.data, &file.get(name)?.data),
            1e-6,
        );
    }
    Ok(())
}

fn resample(file: &File, tally: &mut Tally<'_>) -> Result<()> {
    let image = file.raster("image")?;
    let narrow = image.map(|v| v as f32);
    for (name, case) in file.cases()? {
        let want = &file.get(name)?.data;
        let scale = number(case, "scale")?;
        let (what, wide, narrow) = if name.starts_with("resize") {
            let (height, width) = (number(case, "height")? as usize, number(case, "width")? as usize);
            let (wide, narrow) = (resize(&image, scale, height, width), resize(&narrow, scale, height, width));
            (format!("×{scale:.4} to {height} × {width}"), wide.data, narrow.data)
        } else {
            let (spec, downsample) = (text(case, "kernel")?, text(case, "downsample")?);
            let kernel = match spec {
                "free" | "even" => Some(file.kernel(&format!("kernel.{spec}"))?),
                spec => KernelSpec::parse(spec)?.load()?.kernel,
            };
            let degradation = Degradation::new(scale, kernel, downsample.parse::<Downsample>()?)?;
            (format!("1/{scale} {spec} {downsample}"), degradation.apply(&image).data, degradation.apply(&narrow).data)
        };
        tally.line(&format!("{name} {what}, f64"), largest(&wide, want), 1e-6);
        tally.line(&format!("{name} {what}, f32"), largest(&narrow, want), 1e-6);
    }
    Ok(())
}

/// The first GPU, a software renderer too, or a line that there is none.
fn gpu() -> Result<Option<AnyEngine>> {
    if devices().is_empty() {
        println!("the GPU engine: skipped: no adapter");
        return Ok(None);
    }
    AnyEngine::open(Device::Gpu(None), None, 0.0).map(Some)
}

fn least_squares(file: &File, tally: &mut Tally<'_>) -> Result<()> {
    let gpu = gpu()?;
    for (case, settings) in file.cases()? {
        let low = file.raster(&format!("{case}.lr"))?;
        let kernel = file.kernel(&format!("{case}.kernel"))?;
        let degradation =
            Degradation::new(number(settings, "scale")?, Some(kernel), text(settings, "downsample")?.parse()?)?;
        let (height, width) = (number(settings, "height")? as usize, number(settings, "width")? as usize);
        let solver = LeastSquares { lambda: number(settings, "lambda")?, steps: number(settings, "steps")? as usize };
        let want = |name: &str| file.get(&format!("{case}.{name}"));
        let start = degradation.aligned_window(&low, 0..height, 0..width);
        let mut residual = degradation.apply(&start);
        if (residual.height, residual.width) != (low.height, low.width) {
            return Err(Error::input(format!("case {case}: lr does not have the size that D gives")));
        }
        residual.data.iter_mut().zip(&low.data).for_each(|(d, y)| *d = y - *d);
        let adjoint = degradation.adjoint(&residual, height, width);
        let solution = solver.upscale(&degradation, &low, height, width);
        for (name, made) in [("start", start), ("residual", residual), ("adjoint", adjoint), ("solution", solution)] {
            tally.line(&format!("{case} {name}, f64"), largest(&made.data, &want(name)?.data), 1e-9);
        }
        let narrow = solver.upscale(&degradation, &low.map(|v| v as f32), height, width);
        tally.line(&format!("{case} solution, f32"), largest(&narrow.data, &want("solution")?.data), 1e-4);
        let Some(gpu) = &gpu else { continue };
        let low_tensor = load(gpu, &low.map(|v| v as f32))?;
        let size = (low.height, low.width);
        let through = |maps: &[Map], image: &Raster<f64>| {
            let image = load(gpu, &image.map(|v| v as f32))?;
            raster(gpu, &maps.iter().try_fold(image, |image, map| gpu.map(map, &image))?)
        };
        let aligned = degradation.aligned_map(size, 0..height, 0..width);
        let mut quantities = vec![
            ("start", through(&[aligned], &low)?),
            (
                "adjoint",
                through(&degradation.adjoint_maps((height, width), size), &file.raster(&format!("{case}.residual"))?)?,
            ),
            ("solution", raster(gpu, &gpu.least_squares(solver, &degradation, &low_tensor, height, width)?)?),
        ];
        let mut residual = through(&degradation.maps((height, width), size), &file.raster(&format!("{case}.start"))?)?;
        residual.data.iter_mut().zip(&low.data).for_each(|(d, &y)| *d = y as f32 - *d);
        quantities.push(("residual", residual));
        for (name, made) in quantities {
            let bound = if name == "solution" { 1e-4 } else { 1e-6 };
            tally.line(&format!("{case} {name}, {}", gpu.name()), largest(&made.data, &want(name)?.data), bound);
        }
    }
    Ok(())
}

/// Runs a check on every engine: plain f64, plain f32, each level of the CPU engine, and the first GPU
/// where there is one (a software renderer too).
fn each_engine(
    file: &File,
    tally: &mut Tally<'_>,
    wide: impl Fn(&PlainEngine<f64>, &File, &mut Tally<'_>) -> Result<()>,
    narrow: impl Fn(&PlainEngine<f32>, &File, &mut Tally<'_>) -> Result<()>,
    fast: impl Fn(&AnyEngine, &File, &mut Tally<'_>) -> Result<()>,
) -> Result<()> {
    wide(&PlainEngine::new(), file, tally)?;
    narrow(&PlainEngine::new(), file, tally)?;
    for level in Level::available() {
        fast(&CpuEngine::with_level(level, None)?.into(), file, tally)?;
    }
    match gpu()? {
        Some(gpu) => fast(&gpu, file, tally),
        None => Ok(()),
    }
}

fn upload<E: Engine>(engine: &E, shape: Shape, values: &[f64]) -> Result<E::Tensor> {
    if values.len() != shape.len() {
        return Err(Error::input(format!("{} values where {} are needed", values.len(), shape.len())));
    }
    let values: Vec<E::Elem> = values.iter().map(|&v| E::Elem::of(v)).collect();
    engine.upload(shape, &values)
}

/// [N, C, H, W] as the engine wants it.
fn pictures<E: Engine>(engine: &E, file: &File, name: &str) -> Result<E::Tensor> {
    let ([n, c, h, w], _) = file.shaped(name)?;
    upload(engine, Shape::new(n, h, w, c), &channels_last(file, name)?)
}

fn channels_last(file: &File, name: &str) -> Result<Vec<f64>> {
    let ([n, c, h, w], data) = file.shaped(name)?;
    let mut out = Vec::with_capacity(data.len());
    for picture in 0..n {
        for pixel in 0..h * w {
            out.extend((0..c).map(|channel| data[(picture * c + channel) * h * w + pixel]));
        }
    }
    Ok(out)
}

/// Bounds of one case on one precision: output and loss, gradient, Hessian-vector product,
/// meta-gradients.
fn bounds<T: Real>(linear: bool) -> [f64; 4] {
    match (size_of::<T>(), linear) {
        (8, _) => [1e-6; 4],
        (_, true) => [2e-5, 5e-5, 5e-5, 1e-4],
        (_, false) => [2e-5, 2e-3, 2e-2, 1e-2],
    }
}

fn network<E: Engine>(engine: &E, file: &File, tally: &mut Tally<'_>) -> Result<()> {
    for (case, settings) in file.cases()? {
        let [near, gradient_bound, product_bound, meta_bound] = bounds::<E::Elem>(case == "linear");
        let architecture = file.architecture(&format!("{case}.params."))?;
        let network = Network::new(engine, &architecture);
        let flat = Shape::flat(architecture.parameter_count());
        let say = |what: &str| format!("{case} {what}, {}", engine.name());
        let vector = |name: &str| file.flat(&format!("{case}.{name}."), &architecture);
        let params = upload(engine, flat, &vector("params")?)?;
        let (x, y) = (pictures(engine, file, &format!("{case}.x"))?, pictures(engine, file, &format!("{case}.y"))?);
        let loss_of = |name: &str| Ok::<_, Error>(file.get(&format!("{case}.{name}"))?.data.clone());

        let output = engine.download(&network.output(&params, &x)?)?;
        tally.line(&say("output"), relative(&output, &channels_last(file, &format!("{case}.output"))?), near);
        let shape = engine.shape(&x);
        let whole = Window { y: 0, x: 0, height: shape.h, width: shape.w };
        let mut grad = engine.zeros(flat)?;
        let loss = network.loss_and_gradient(&params, &x, &y, whole, shape.len(), &mut grad)?;
        tally.line(&say("loss"), relative(&[loss], &loss_of("loss")?), near);
        tally.line(&say("gradient"), relative(&engine.download(&grad)?, &vector("grad")?), gradient_bound);
        let direction = upload(engine, flat, &vector("vector")?)?;
        let mut product = engine.zeros(flat)?;
        network.hessian_vector(&params, &direction, &x, &y, &mut product)?;
        tally.line(
            &say("Hessian-vector product"),
            relative(&engine.download(&product)?, &vector("hvp")?),
            product_bound,
        );

        let picture = |name: &str| pictures(engine, file, &format!("{case}.{name}"));
        let task = Task {
            x_train: picture("x_train")?,
            y_train: picture("y_train")?,
            x_test: picture("x_test")?,
            y_test: picture("y_test")?,
        };
        let layers = network.layers().len();
        let rates: Vec<Vec<f64>> = numbers(settings, "rates")?.iter().map(|&rate| vec![rate; layers]).collect();
        let all = numbers(settings, "weights_all")?;
        let last = numbers(settings, "weights_last")?;
        for (name, weights, second_order) in
            [("meta_last_second", &last, true), ("meta_all_second", &all, true), ("meta_last_first", &last, false)]
        {
            let inner = Inner { rates: &rates, weights, before: 0.0, second_order };
            let made = meta_gradient(&network, &params, &task, &inner)?;
            if name == "meta_last_second" {
                tally.line(
                    &say("inner losses"),
                    relative(&made.inner_losses, &loss_of("inner.losses")?),
                    near.max(2e-5),
                );
                let adapted = engine.download(&made.adapted)?;
                tally.line(&say("inner parameters"), relative(&adapted, &vector("inner.params")?), near);
            }
            tally.line(&say(&format!("{name} loss")), relative(&[made.loss], &loss_of(&format!("{name}.loss"))?), near);
            tally.line(&say(name), relative(&engine.download(&made.gradient)?, &vector(name)?), meta_bound);
        }
        let learned = format!("{case}.learned.rates");
        // Not every file has them.
        if file.tensors.contains_key(&learned) {
            let ([updates, columns], table) = file.shaped(&learned)?;
            if columns != layers {
                return Err(Error::input("learned rates need a column for each layer"));
            }
            let rates: Vec<Vec<f64>> = (0..updates).map(|k| table[k * layers..(k + 1) * layers].to_vec()).collect();
            let inner = Inner { rates: &rates, weights: &all, before: 0.0, second_order: true };
            let made = meta_gradient(&network, &params, &task, &inner)?;
            tally.line(&say("learned loss"), relative(&[made.loss], &loss_of("learned.loss")?), near);
            tally.line(&say("learned"), relative(&engine.download(&made.gradient)?, &vector("learned")?), meta_bound);
            let rate_gradient = made.rate_gradient.concat();
            let want = &file.get(&format!("{case}.learned.rate_grad"))?.data;
            tally.line(&say("learned rate gradient"), relative(&rate_gradient, want), meta_bound);
        }
    }
    Ok(())
}

fn adapt<E: Engine>(engine: &E, file: &File, tally: &mut Tally<'_>) -> Result<()> {
    let architecture = file.architecture("params.")?;
    let network = Network::new(engine, &architecture);
    let parameters: Vec<E::Elem> = file.flat("params.", &architecture)?.iter().map(|&v| E::Elem::of(v)).collect();
    for (case, settings) in file.cases()? {
        let say =
            |what: &str| format!("{case} {} {what}, {}", settings["image"].as_str().unwrap_or("?"), engine.name());
        let hr = file.raster(&format!("{case}.hr"))?.map(|v| v as u8);
        let lr = file.raster(&format!("{case}.lr"))?.map(|v| E::Elem::of(v / 255.0));
        let rates = Rates::by_update(&file.get(&format!("{case}.rates"))?.data);
        let kernel = file.kernel(&format!("{case}.kernel"))?;
        let downsample = text(settings, "downsample")?.parse()?;
        let degradation = Degradation::new(number(settings, "scale")?, Some(kernel), downsample)?;

        let steps = numbers(settings, "psnr_updates")?;
        for (i, &updates) in steps.iter().enumerate() {
            let restorer = Restorer {
                network: &network,
                parameters: &parameters,
                course: Course::default(),
                degradation: &degradation,
                rates: &rates,
                updates: updates as usize,
                guard: false,
                adapt_pixels: usize::MAX,
                plan: Plan::unlimited(),
                ensemble: false,
                back_project: 0,
            };
            let mut result = Vec::new();
            let report = restorer.restore(&lr, &mut |_| {}, &mut |_, band| {
                result.extend(band.data);
                Ok(())
            })?;
            if result.len() != hr.data.len() {
                return Err(Error::input(format!("case {case}: the result's size is not that of hr")));
            }
            let quantised = result.iter().map(|v| (v.wide() * 255.0).round_ties_even() as u8).collect();
            let sr = Raster::from_vec(hr.height, hr.width, 3, quantised);
            let psnr = score(&sr, &hr, degradation.scale(), Preset::Mzsr)?.psnr;
            let want = file.get(&format!("{case}.psnr"))?.data.get(i).copied().unwrap_or(f64::NAN);
            tally.line(&say(&format!("PSNR after {updates} ({psnr:.3} dB)")), (psnr - want).abs(), 0.002);
            if i + 1 == steps.len() {
                let losses: Vec<f64> = report.updates.iter().map(|update| update.loss).collect();
                let want = &file.get(&format!("{case}.losses"))?.data;
                let ratios: Vec<f64> = losses.iter().zip(want).map(|(a, b)| a / b).collect();
                tally.line(&say("losses"), largest(&ratios, &vec![1.0; want.len()]), 1e-5);
                let want: Vec<f64> =
                    file.get(&format!("{case}.output10"))?.data.iter().map(|v| v.clamp(0.0, 1.0)).collect();
                tally.line(&say("output"), largest(&result, &want), 2e-4);
            }
        }
    }
    Ok(())
}
