//! Every operation against the plain engine in f64, on the first adapter there is: a real one, or the
//! system's software renderer.

use super::{GpuEngine, GpuTensor, Kind, adapters};
use crate::Raster;
use crate::degrade::{Degradation, Downsample, LeastSquares, Map, high_size};
use crate::engine::plain::{PlainEngine, PlainTensor};
use crate::engine::{AdamStep, Engine, Gate, Layer, Shape, Window, load, raster};
use crate::kernel::Kernel;
use crate::network::{Architecture, Network};

const PLAIN: PlainEngine<f64> = PlainEngine::new();

/// The engine under test; `MZSR_GPU=required` makes its absence a failure.
fn engine() -> Option<GpuEngine> {
    let mut adapters = adapters();
    adapters.sort_by_key(|adapter| adapter.kind == Kind::Software);
    let Some(adapter) = adapters.first() else {
        assert!(std::env::var("MZSR_GPU").is_err(), "MZSR_GPU is set, but there is no adapter");
        println!("skipped: no adapter");
        return None;
    };
    Some(GpuEngine::new(adapter).unwrap())
}

/// Values in −1 … 1 that do not repeat.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The same tensor in both engines.
struct Both {
    gpu: GpuTensor,
    plain: PlainTensor<f64>,
}

fn both(engine: &GpuEngine, shape: Shape, seed: u64) -> Both {
    let data = values(shape.len(), seed);
    let wide: Vec<f64> = data.iter().map(|&v| f64::from(v)).collect();
    Both { gpu: engine.upload(shape, &data).unwrap(), plain: PLAIN.upload(shape, &wide).unwrap() }
}

/// ‖a − b‖ / ‖b‖ is at most `bound`.
fn assert_close(engine: &GpuEngine, what: &str, gpu: &GpuTensor, plain: &PlainTensor<f64>, bound: f64) {
    let (a, b) = (engine.download(gpu).unwrap(), PLAIN.download(plain).unwrap());
    assert_eq!(engine.shape(gpu), PLAIN.shape(plain), "{what}");
    let off: f64 = a.iter().zip(&b).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    assert!(off.sqrt() <= bound * size.sqrt().max(1e-30), "{what}: {:e}", (off / size).sqrt());
}

/// Awkward sizes: below a tile, across several, odd channels, several pictures.
fn cases() -> Vec<(Shape, Layer)> {
    let layer = |input, output| Layer { input, output, weight: 5, bias: 5 + input * output * 9 + 3 };
    let mut cases = Vec::new();
    for (n, h, w) in [(1, 1, 1), (2, 3, 5), (1, 17, 33), (3, 9, 20)] {
        for (input, output) in [(3, 64), (64, 64), (64, 3), (5, 7), (1, 70)] {
            cases.push((Shape::new(n, h, w, input), layer(input, output)));
        }
    }
    cases.push((Shape::new(1, 40, 70, 3), layer(3, 3)));
    // More than a block of channels on either side, of which the last is not full.
    cases.push((Shape::new(1, 9, 20, 66), layer(66, 70)));
    cases
}

#[test]
fn convolutions() {
    let Some(engine) = engine() else { return };
    for (shape, layer) in cases() {
        let what = format!("{shape:?} {layer:?}");
        let params = [1, 2].map(|seed| both(&engine, Shape::flat(layer.bias_range().end + 2), seed));
        let x = [3, 4].map(|seed| both(&engine, shape, seed));
        let out = shape.with_channels(layer.output);
        let (mask, residual) = (both(&engine, out, 5), both(&engine, out, 6));
        for terms in 1..=2 {
            let gpu_terms: Vec<_> = (0..terms).map(|t| (&x[t].gpu, &params[t].gpu)).collect();
            let plain_terms: Vec<_> = (0..terms).map(|t| (&x[t].plain, &params[t].plain)).collect();
            let gates = [
                (Gate::Linear, Gate::Linear),
                (Gate::Relu, Gate::Relu),
                (Gate::Where(&mask.gpu), Gate::Where(&mask.plain)),
            ];
            for (index, (gpu_gate, plain_gate)) in gates.into_iter().enumerate() {
                let (bias, rest) = (index != 1, index == 0);
                let a = engine
                    .conv(layer, &gpu_terms, bias.then_some(&params[0].gpu), gpu_gate, rest.then_some(&residual.gpu))
                    .unwrap();
                let b = PLAIN
                    .conv(
                        layer,
                        &plain_terms,
                        bias.then_some(&params[0].plain),
                        plain_gate,
                        rest.then_some(&residual.plain),
                    )
                    .unwrap();
                assert_close(&engine, &what, &a, &b, 2e-6);
            }
        }
    }
}

#[test]
fn gradients() {
    let Some(engine) = engine() else { return };
    for (shape, layer) in cases() {
        let what = format!("{shape:?} {layer:?}");
        let params = [1, 2].map(|seed| both(&engine, Shape::flat(layer.bias_range().end + 2), seed));
        let a = [3, 4].map(|seed| both(&engine, shape, seed));
        let delta = [5, 6].map(|seed| both(&engine, shape.with_channels(layer.output), seed));
        for terms in 1..=2 {
            let gpu: Vec<_> = (0..terms).map(|t| (&delta[t].gpu, &params[t].gpu)).collect();
            let plain: Vec<_> = (0..terms).map(|t| (&delta[t].plain, &params[t].plain)).collect();
            let fast = engine.conv_input_grad(layer, &gpu, Gate::Where(&a[0].gpu)).unwrap();
            let slow = PLAIN.conv_input_grad(layer, &plain, Gate::Where(&a[0].plain)).unwrap();
            assert_close(&engine, &what, &fast, &slow, 2e-6);

            // Added to what is there.
            let mut grad = both(&engine, Shape::flat(layer.bias_range().end + 2), 7);
            let gpu: Vec<_> = (0..terms).map(|t| (&a[t].gpu, &delta[t].gpu)).collect();
            let plain: Vec<_> = (0..terms).map(|t| (&a[t].plain, &delta[t].plain)).collect();
            engine.conv_weight_grad(layer, &gpu, &delta[1].gpu, &mut grad.gpu).unwrap();
            PLAIN.conv_weight_grad(layer, &plain, &delta[1].plain, &mut grad.plain).unwrap();
            assert_close(&engine, &what, &grad.gpu, &grad.plain, 2e-6);
        }
    }
}

/// Blocks of 64 channels, several of them, in several parts, with the bias of a term.
#[test]
fn pictures_in_parts() {
    let Some(mut engine) = engine() else { return };
    engine.part = 12;
    for (input, output) in [(64, 64), (64, 128), (128, 64)] {
        let layer = Layer { input, output, weight: 3, bias: 3 + input * output * 9 };
        let shape = Shape::new(2, 15, 22, input);
        let params = both(&engine, Shape::flat(layer.bias_range().end), 1);
        let (a, delta) = (both(&engine, shape, 2), both(&engine, shape.with_channels(output), 3));
        let gpu = engine.conv(layer, &[(&a.gpu, &params.gpu)], Some(&params.gpu), Gate::Relu, None).unwrap();
        let plain = PLAIN.conv(layer, &[(&a.plain, &params.plain)], Some(&params.plain), Gate::Relu, None).unwrap();
        assert_close(&engine, "output", &gpu, &plain, 3e-6);
        let mut grad = both(&engine, Shape::flat(layer.bias_range().end), 4);
        engine.conv_weight_grad(layer, &[(&a.gpu, &delta.gpu)], &delta.gpu, &mut grad.gpu).unwrap();
        PLAIN.conv_weight_grad(layer, &[(&a.plain, &delta.plain)], &delta.plain, &mut grad.plain).unwrap();
        assert_close(&engine, "gradient", &grad.gpu, &grad.plain, 3e-6);
    }
}

#[test]
fn losses_and_vectors() {
    let Some(engine) = engine() else { return };
    let shape = Shape::new(2, 19, 31, 3);
    let (a, b) = (both(&engine, shape, 1), both(&engine, shape, 2));
    for core in [Window { y: 0, x: 0, height: 19, width: 31 }, Window { y: 3, x: 5, height: 7, width: 20 }] {
        let (gpu, gpu_delta) = engine.l1(&a.gpu, &b.gpu, core, 1234).unwrap();
        let (plain, plain_delta) = PLAIN.l1(&a.plain, &b.plain, core, 1234).unwrap();
        let gpu = engine.loss(gpu).unwrap();
        assert!((gpu - plain).abs() < 1e-6 * plain, "{gpu} {plain}");
        assert_close(&engine, "l1", &gpu_delta, &plain_delta, 1e-7);
    }
    // At equality the derivative is 0.
    let (none, delta) = engine.l1(&a.gpu, &a.gpu, Window { y: 0, x: 0, height: 19, width: 31 }, 1).unwrap();
    assert!(engine.loss(none).unwrap() == 0.0 && engine.download(&delta).unwrap().iter().all(|v| *v == 0.0));

    // More values than there are threads.
    let flat = Shape::flat(400_003);
    let [x, mut y, mut first, mut second] = [3, 4, 5, 6].map(|seed| both(&engine, flat, seed));
    for places in [0..flat.len(), 17..1000, 5..5] {
        engine.axpy(places.clone(), -0.3, &x.gpu, &mut y.gpu).unwrap();
        PLAIN.axpy(places.clone(), -0.3, &x.plain, &mut y.plain).unwrap();
        engine.scale(places.clone(), 0.7, &mut y.gpu).unwrap();
        PLAIN.scale(places.clone(), 0.7, &mut y.plain).unwrap();
        assert_close(&engine, "axpy and scale", &y.gpu, &y.plain, 1e-6);
        let gpu = engine.dot(places.clone(), &x.gpu, &y.gpu).unwrap();
        let plain = PLAIN.dot(places.clone(), &x.plain, &y.plain).unwrap();
        assert!((gpu - plain).abs() <= 1e-6 * places.len() as f64, "{gpu} {plain}");
    }
    // The second moment is never negative.
    let positive: Vec<f32> = engine.download(&second.gpu).unwrap().into_iter().map(f32::abs).collect();
    second.gpu = engine.upload(flat, &positive).unwrap();
    second.plain = PLAIN.upload(flat, &positive.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    for t in 1..=3 {
        let step = AdamStep::new(1e-2, 0.9, 0.999, 1e-8, t);
        engine.adam(step, &x.gpu, &mut first.gpu, &mut second.gpu, &mut y.gpu).unwrap();
        PLAIN.adam(step, &x.plain, &mut first.plain, &mut second.plain, &mut y.plain).unwrap();
    }
    assert_close(&engine, "adam", &y.gpu, &y.plain, 1e-5);

    let copy = engine.duplicate(&x.gpu).unwrap();
    assert_eq!(engine.download(&copy).unwrap(), engine.download(&x.gpu).unwrap());
    assert!(engine.download(&engine.zeros(shape).unwrap()).unwrap().iter().all(|v| *v == 0.0));
    assert!(engine.download(&engine.upload(Shape::flat(0), &[]).unwrap()).unwrap().is_empty());
}

/// Memory that was used for something else in between, and more work than fits a batch.
#[test]
fn what_is_recorded_keeps_its_order() {
    let Some(engine) = engine() else { return };
    let flat = Shape::flat(1000);
    let ones = engine.upload(flat, &[1.0; 1000]).unwrap();
    let mut sum = engine.zeros(flat).unwrap();
    for step in 0..400 {
        // Dropped at once, and its memory written again in the next step.
        let twos = engine.upload(flat, &[step as f32; 1000]).unwrap();
        engine.axpy(0..1000, 1.0, &twos, &mut sum).unwrap();
        let copy = engine.duplicate(&ones).unwrap();
        engine.axpy(0..1000, 2.0, &copy, &mut sum).unwrap();
    }
    assert!(engine.download(&sum).unwrap().iter().all(|v| *v == 399.0 * 200.0 + 800.0));
}

#[test]
fn gradient_and_hessian_of_the_network() {
    let Some(engine) = engine() else { return };
    let architecture = Architecture::new(vec![3, 16, 16, 3]).unwrap();
    let shape = Shape::new(2, 12, 17, 3);
    let count = Shape::flat(architecture.parameter_count());
    let [params, direction] = [1, 2].map(|seed| both(&engine, count, seed));
    let [x, y] = [3, 4].map(|seed| both(&engine, shape, seed));
    let mut product = Both { gpu: engine.zeros(count).unwrap(), plain: PLAIN.zeros(count).unwrap() };
    let mut grad = Both { gpu: engine.zeros(count).unwrap(), plain: PLAIN.zeros(count).unwrap() };
    let (gpu, plain) = (Network::new(&engine, &architecture), Network::new(&PLAIN, &architecture));
    let whole = Window { y: 0, x: 0, height: 12, width: 17 };
    let loss = gpu.loss_and_gradient(&params.gpu, &x.gpu, &y.gpu, whole, shape.len(), &mut grad.gpu).unwrap();
    let exact =
        plain.loss_and_gradient(&params.plain, &x.plain, &y.plain, whole, shape.len(), &mut grad.plain).unwrap();
    assert!((loss - exact).abs() < 1e-5 * exact);
    assert_close(&engine, "gradient", &grad.gpu, &grad.plain, 1e-4);
    gpu.hessian_vector(&params.gpu, &direction.gpu, &x.gpu, &y.gpu, &mut product.gpu).unwrap();
    plain.hessian_vector(&params.plain, &direction.plain, &x.plain, &y.plain, &mut product.plain).unwrap();
    assert_close(&engine, "Hessian-vector product", &product.gpu, &product.plain, 1e-4);
}

#[test]
fn what_is_too_large_is_refused() {
    let Some(engine) = engine() else { return };
    let error = engine.zeros(Shape::flat(engine.largest() + 64)).err().expect("more than fits").to_string();
    assert!(error.contains("more than the GPU takes"), "{error}");
    // And nothing is broken by it.
    assert_eq!(engine.download(&engine.zeros(Shape::flat(3)).unwrap()).unwrap(), [0.0; 3]);
}

#[test]
fn windows_are_placed() {
    let Some(engine) = engine() else { return };
    let [from, mut to] =
        [(Shape::new(2, 9, 13, 3), 1), (Shape::new(2, 11, 7, 3), 2)].map(|(shape, seed)| both(&engine, shape, seed));
    for (window, y, x) in [
        (Window { y: 0, x: 0, height: 9, width: 7 }, 0, 0),
        (Window { y: 3, x: 5, height: 4, width: 6 }, 7, 1),
        (Window { y: 8, x: 12, height: 1, width: 1 }, 10, 6),
        (Window { y: 2, x: 2, height: 0, width: 3 }, 1, 1),
    ] {
        engine.place(&from.gpu, window, &mut to.gpu, y, x).unwrap();
        PLAIN.place(&from.plain, window, &mut to.plain, y, x).unwrap();
        assert_close(&engine, "a window", &to.gpu, &to.plain, 0.0);
    }
}

#[test]
fn cells_are_shuffled() {
    let Some(engine) = engine() else { return };
    for (shape, cell) in [(Shape::new(2, 9, 13, 3), 2), (Shape::new(1, 8, 6, 3), 2), (Shape::new(3, 5, 11, 2), 4)] {
        let x = both(&engine, shape, 3);
        let cells =
            Both { gpu: engine.unshuffle(&x.gpu, cell).unwrap(), plain: PLAIN.unshuffle(&x.plain, cell).unwrap() };
        assert_close(&engine, "cells", &cells.gpu, &cells.plain, 0.0);
        let back = engine.shuffle(&cells.gpu, cell, shape.h, shape.w).unwrap();
        assert_close(&engine, "pixels", &back, &x.plain, 0.0);
    }
}

/// Degradations of every kind: both phases, whole and real scales, uneven kernels.
fn degradations() -> Vec<Degradation> {
    let uneven = Kernel::new(4, 9, (0..36).map(|i| (1 + i * 5 % 7) as f64 / 140.0).collect()).unwrap();
    let gaussian = Kernel::gaussian(4.0, 1.0, -0.5, 15);
    let round = Kernel::gaussian(2.0, 2.0, 0.0, 15);
    let mut all = Vec::new();
    for scale in [1.5, 2.0, 2.7, 3.0, 4.0] {
        all.push(Degradation::new(scale, None, Downsample::Bicubic).unwrap());
        for kernel in [&gaussian, &uneven, &round] {
            for downsample in [Downsample::Direct, Downsample::Bicubic] {
                all.push(Degradation::new(scale, Some(kernel.clone()), downsample).unwrap());
            }
        }
        let corner = Degradation::new(scale, Some(gaussian.clone()), Downsample::Direct).unwrap();
        let half = (scale - 1.0) / 2.0;
        all.push(corner.centred(Some(gaussian.displaced(half, half))));
    }
    all
}

/// The largest difference between a device's picture and one in f64.
fn furthest(engine: &GpuEngine, gpu: &GpuTensor, plain: &Raster<f64>) -> f64 {
    let gpu = raster(engine, gpu).unwrap();
    assert_eq!((gpu.height, gpu.width, gpu.channels), (plain.height, plain.width, plain.channels));
    gpu.data.iter().zip(&plain.data).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max)
}

/// Values as both engines have them.
fn picture(height: usize, width: usize, channels: usize, seed: u64) -> (Raster<f32>, Raster<f64>) {
    let narrow = Raster::from_vec(height, width, channels, values(height * width * channels, seed));
    let wide = narrow.map(f64::from);
    (narrow, wide)
}

#[test]
fn degradations_and_their_adjoints() {
    let Some(engine) = engine() else { return };
    let through = |maps: &[Map], image: &GpuTensor| {
        let first = engine.map(&maps[0], image).unwrap();
        maps[1..].iter().fold(first, |image, map| engine.map(map, &image).unwrap())
    };
    let dot = |a: &Raster<f32>, b: &Raster<f32>| {
        a.data.iter().zip(&b.data).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    for d in degradations() {
        for (height, width, channels) in [(1, 1, 3), (7, 16, 1), (33, 20, 3), (18, 31, 5)] {
            let what = format!("{} x{} {height} x {width}", d.downsample(), d.scale());
            let low = (d.low_size(height), d.low_size(width));
            let (x, x_wide) = picture(height, width, channels, 1);
            let (y, y_wide) = picture(low.0, low.1, channels, 2);
            let made = through(&d.maps((height, width), low), &load(&engine, &x).unwrap());
            let off = furthest(&engine, &made, &d.apply(&x_wide));
            assert!(off < 1e-6, "{what}: D is {off:e} off");
            let back = through(&d.adjoint_maps((height, width), low), &load(&engine, &y).unwrap());
            let off = furthest(&engine, &back, &d.adjoint(&y_wide, height, width));
            // Of few pixels each gets much.
            let bound = if height == 1 { 3e-5 } else { 1e-6 };
            assert!(off < bound, "{what}: its adjoint is {off:e} off");
            let (a, b) = (dot(&raster(&engine, &made).unwrap(), &y), dot(&x, &raster(&engine, &back).unwrap()));
            assert!((a - b).abs() < 1e-5 * (1.0 + a.abs()), "{what}: {a} {b}");
            let (height, width) = (high_size(low.0, d.scale()), high_size(low.1, d.scale()));
            let up = engine.map(&d.aligned_map(low, 0..height, 0..width), &load(&engine, &y).unwrap()).unwrap();
            let off = furthest(&engine, &up, &d.aligned_window(&y_wide, 0..height, 0..width));
            assert!(off < 1e-6, "{what}: the cubic upscale is {off:e} off");
        }
    }
}

/// Something like a photo, in [0, 1].
fn photo(height: usize, width: usize) -> Raster<f32> {
    let noise = values(height * width * 3, 9);
    let value = |i: usize| {
        let (y, x) = ((i / 3 / width) as f32, (i / 3 % width) as f32);
        let edge = if (x - 0.6 * y).abs() < 4.0 { 0.3 } else { 0.0 };
        0.5 + 0.15 * (0.4 * y + 0.2 * (i % 3) as f32).sin() * (0.3 * x).cos() + edge + 0.02 * noise[i]
    };
    Raster::from_vec(height, width, 3, (0..height * width * 3).map(value).collect())
}

/// What a solve makes small: ‖D x − low‖² + λ ‖x − prior‖².
fn objective(d: &Degradation, lambda: f64, low: &Raster<f64>, prior: &Raster<f64>, x: &Raster<f64>) -> f64 {
    let made = d.apply(x).crop(0, 0, low.height, low.width);
    let square =
        |a: &Raster<f64>, b: &Raster<f64>| a.data.iter().zip(&b.data).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    square(&made, low) + lambda * square(x, prior)
}

/// The 25 steps of a start are more than a tiny picture has for D to tell apart: the last ones follow
/// rounding (in f64 too, with nothing but the dot products in f32), so that another result comes of them,
/// which must be as good.
#[test]
fn solves() {
    let Some(engine) = engine() else { return };
    for d in degradations() {
        for (h, w) in [(1, 1), (9, 16), (41, 38)] {
            let what = format!("{} x{} {h} x {w}", d.downsample(), d.scale());
            let (height, width) = (high_size(h, d.scale()), high_size(w, d.scale()));
            let small = photo(h, w);
            let (low, wide) = (load(&engine, &small).unwrap(), small.map(f64::from));
            let rule = LeastSquares::default();
            let made = engine.least_squares(rule, &d, &low, height, width).unwrap();
            let exact = rule.upscale(&d, &wide, height, width);
            let off = furthest(&engine, &made, &exact);
            assert!(h * w < 200 || off < 1e-4, "{what}: the least-squares upscale is {off:e} off");
            let prior = d.aligned_window(&wide, 0..height, 0..width);
            let [mine, best] = [&raster(&engine, &made).unwrap().map(f64::from), &exact]
                .map(|x| objective(&d, rule.lambda, &wide, &prior, x));
            assert!(mine < 1.005 * best + 1e-10, "{what}: {mine:e}, where {best:e} was possible");
            // The same bits each time.
            let again = engine.least_squares(rule, &d, &low, height, width).unwrap();
            assert_eq!(engine.download(&made).unwrap(), engine.download(&again).unwrap());

            let prior = photo(height, width);
            let rule = LeastSquares { lambda: 3e-3, steps: 10 };
            let (mut z, mut exact_z) = (None, None);
            let made = engine.solve(rule, &d, &low, load(&engine, &prior).unwrap(), &mut z).unwrap();
            let exact = rule.solve_on(&d, &wide, prior.map(f64::from), &mut exact_z);
            let off = furthest(&engine, &made, &exact);
            assert!(off < 2e-5, "{what}: the data step is {off:e} off");
            // On from there. (Steps on z follow rounding in what D hardly shows: 9e-6 on the smallest pictures.)
            let next = prior.map(|v| 0.99 * v + 0.001);
            let made = engine.solve(rule, &d, &low, load(&engine, &next).unwrap(), &mut z).unwrap();
            let off = furthest(&engine, &made, &rule.solve_on(&d, &wide, next.map(f64::from), &mut exact_z));
            assert!(off < 2e-5, "{what}: the next data step is {off:e} off");
        }
    }
}

#[test]
fn a_solve_with_nothing_to_explain_changes_nothing() {
    let Some(engine) = engine() else { return };
    let d = Degradation::new(2.0, Some(Kernel::gaussian(2.0, 1.0, 0.4, 9)), Downsample::Direct).unwrap();
    let zeros = engine.zeros(Shape::new(1, 12, 10, 3)).unwrap();
    let made = engine.least_squares(LeastSquares::default(), &d, &zeros, 24, 20).unwrap();
    assert!(engine.download(&made).unwrap().iter().all(|v| *v == 0.0));
    let none = LeastSquares { lambda: 1e-3, steps: 0 };
    let prior = photo(24, 20);
    let made = engine.solve(none, &d, &zeros, load(&engine, &prior).unwrap(), &mut None).unwrap();
    assert_eq!(engine.download(&made).unwrap(), prior.data);
}
