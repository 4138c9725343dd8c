//! Every operation against the plain engine in f64, on the first adapter there is: a real one, or the
//! system's software renderer.

use super::{GpuEngine, GpuTensor, Kind, adapters};
use crate::engine::plain::{PlainEngine, PlainTensor};
use crate::engine::{AdamStep, Engine, Gate, Layer, Shape, Window};
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

#[test]
fn losses_and_vectors() {
    let Some(engine) = engine() else { return };
    let shape = Shape::new(2, 19, 31, 3);
    let (a, b) = (both(&engine, shape, 1), both(&engine, shape, 2));
    for core in [Window { y: 0, x: 0, height: 19, width: 31 }, Window { y: 3, x: 5, height: 7, width: 20 }] {
        let (gpu, gpu_delta) = engine.l1(&a.gpu, &b.gpu, core, 1234).unwrap();
        let (plain, plain_delta) = PLAIN.l1(&a.plain, &b.plain, core, 1234).unwrap();
        assert!((gpu - plain).abs() < 1e-6 * plain, "{gpu} {plain}");
        assert_close(&engine, "l1", &gpu_delta, &plain_delta, 1e-7);
    }
    // At equality the derivative is 0.
    let (none, delta) = engine.l1(&a.gpu, &a.gpu, Window { y: 0, x: 0, height: 19, width: 31 }, 1).unwrap();
    assert!(none == 0.0 && engine.download(&delta).unwrap().iter().all(|v| *v == 0.0));

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
