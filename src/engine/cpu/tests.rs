//! Every operation against its slow truth in f64, at every level.

use super::{CpuEngine, CpuTensor, Level};
use crate::engine::{AdamStep, Engine, Gate, Layer, Shape, Window};

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

/// The value of a padded tensor.
fn at(x: &[f32], s: Shape, n: usize, y: isize, x_at: isize, c: usize) -> f64 {
    if y < 0 || x_at < 0 || y >= s.h as isize || x_at >= s.w as isize {
        return 0.0;
    }
    f64::from(x[((n * s.h + y as usize) * s.w + x_at as usize) * s.c + c])
}

/// All (n, y, x) of a shape.
fn places(s: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..s.n * s.h * s.w).map(move |i| (i / (s.h * s.w), i / s.w % s.h, i % s.w))
}

/// W ∗ x, or Wᵀ ∗ x.
fn direct(x: &[f32], s: Shape, weight: &[f32], layer: Layer, transposed: bool) -> Vec<f64> {
    let outputs = if transposed { layer.input } else { layer.output };
    let mut result = Vec::new();
    for (n, y, x_at) in places(s) {
        for o in 0..outputs {
            let mut sum = 0.0;
            for k in 0..s.c {
                for tap in 0..9 {
                    let (dy, dx) = (tap as isize / 3 - 1, tap as isize % 3 - 1);
                    let (row, tap) =
                        if transposed { (k * layer.input + o, 8 - tap) } else { (o * layer.input + k, tap) };
                    sum += f64::from(weight[row * 9 + tap]) * at(x, s, n, y as isize + dy, x_at as isize + dx, k);
                }
            }
            result.push(sum);
        }
    }
    result
}

/// corr(a, δ) in the order of the weights.
fn direct_weight_grad(a: &[f32], delta: &[f32], s: Shape, layer: Layer) -> Vec<f64> {
    let mut result = vec![0.0; layer.input * layer.output * 9];
    let a_shape = s.with_channels(layer.input);
    for (n, y, x) in places(s) {
        for o in 0..layer.output {
            let d = at(delta, s.with_channels(layer.output), n, y as isize, x as isize, o);
            for i in 0..layer.input {
                for tap in 0..9 {
                    let (dy, dx) = (tap as isize / 3 - 1, tap as isize % 3 - 1);
                    let value = at(a, a_shape, n, y as isize + dy, x as isize + dx, i);
                    result[(o * layer.input + i) * 9 + tap] += value * d;
                }
            }
        }
    }
    result
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum();
    (square / b.iter().map(|b| b * b).sum::<f64>().max(1e-300)).sqrt()
}

/// A layer that does not begin at the start of the parameters.
fn layer(input: usize, output: usize) -> Layer {
    Layer { input, output, weight: 5, bias: 5 + input * output * 9 + 3 }
}

/// Enough parameters for [`layer`].
fn params_len(layer: Layer) -> usize {
    layer.bias + layer.output + 2
}

const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (2, 1, 7), (3, 5, 3), (1, 4, 4), (1, 13, 22), (2, 9, 1), (1, 29, 31)];
const CHANNELS: [(usize, usize); 7] = [(3, 64), (64, 64), (64, 3), (3, 4), (4, 4), (8, 16), (24, 40)];

/// Shapes and layers for a test: every size with narrow layers, some with wide ones.
fn cases() -> impl Iterator<Item = (Shape, Layer)> {
    CHANNELS.into_iter().flat_map(|(input, output)| {
        SIZES
            .into_iter()
            .filter(move |&(n, h, w)| n * h * w * input * output < 300 * 64 * 64)
            .map(move |(n, h, w)| (Shape::new(n, h, w, input), layer(input, output)))
    })
}

fn engines() -> Vec<CpuEngine> {
    let levels = Level::available().into_iter();
    levels.flat_map(|level| [1, 2, 3].map(|threads| CpuEngine::with_level(level, Some(threads)).unwrap())).collect()
}

/// The results of all engines: within `bound` of the truth, and the same bits for the engines of
/// one level.
fn check(what: &str, bound: f64, truth: &[f64], result: impl Fn(&CpuEngine) -> Vec<f32>) {
    let mut last: Option<(Level, Vec<f32>)> = None;
    for engine in engines() {
        let values = result(&engine);
        let error = distance(&values, truth);
        assert!(error <= bound, "{what}, {}: {error:e}", engine.name());
        if let Some((level, last)) = &last
            && *level == engine.level()
        {
            assert!(*last == values, "{what}, {}: other bits", engine.name());
        }
        last = Some((engine.level(), values));
    }
}

/// For a flat or whole tensor.
fn up(engine: &CpuEngine, shape: Shape, data: &[f32]) -> CpuTensor {
    engine.upload(shape, data).unwrap()
}

#[test]
fn convolution() {
    for (case, (shape, layer)) in cases().enumerate() {
        let seed = case as u64 * 100;
        let out_shape = shape.with_channels(layer.output);
        let terms = 1 + case % 2;
        let inputs: Vec<_> = (0..terms).map(|i| values(shape.len(), seed + i as u64)).collect();
        let params: Vec<_> = (0..terms).map(|i| values(params_len(layer), seed + 10 + i as u64)).collect();
        let (bias, residual) = (values(params_len(layer), seed + 20), values(out_shape.len(), seed + 21));
        let gate_values = values(out_shape.len(), seed + 22);
        let (with_bias, with_residual, gate) = (case % 3 != 0, case % 5 < 2, case % 3);

        let mut truth = vec![0.0; out_shape.len()];
        for (x, params) in inputs.iter().zip(&params) {
            let sums = direct(x, shape, &params[layer.weight_range()], layer, false);
            truth.iter_mut().zip(sums).for_each(|(truth, sum)| *truth += sum);
        }
        for (i, value) in truth.iter_mut().enumerate() {
            if with_bias {
                *value += f64::from(bias[layer.bias + i % layer.output]);
            }
            *value = match gate {
                0 => *value,
                1 => value.max(0.0),
                _ if gate_values[i] > 0.0 => *value,
                _ => 0.0,
            };
            if with_residual {
                *value += f64::from(residual[i]);
            }
        }
        check(&format!("convolution {shape:?} {layer:?}"), 3e-6, &truth, |engine| {
            let x: Vec<_> = inputs.iter().map(|x| up(engine, shape, x)).collect();
            let params: Vec<_> = params.iter().map(|p| up(engine, Shape::flat(p.len()), p)).collect();
            let bias = up(engine, Shape::flat(bias.len()), &bias);
            let residual = up(engine, out_shape, &residual);
            let gates = up(engine, out_shape, &gate_values);
            let gate = match gate {
                0 => Gate::Linear,
                1 => Gate::Relu,
                _ => Gate::Where(&gates),
            };
            let terms: Vec<_> = x.iter().zip(&params).collect();
            let out = engine.conv(layer, &terms, with_bias.then_some(&bias), gate, with_residual.then_some(&residual));
            engine.download(&out.unwrap()).unwrap()
        });
    }
}

#[test]
fn input_gradient() {
    for (case, (shape, layer)) in cases().enumerate() {
        let seed = case as u64 * 100 + 7;
        let delta_shape = shape.with_channels(layer.output);
        let terms = 1 + case % 2;
        let deltas: Vec<_> = (0..terms).map(|i| values(delta_shape.len(), seed + i as u64)).collect();
        let params: Vec<_> = (0..terms).map(|i| values(params_len(layer), seed + 10 + i as u64)).collect();
        let gate = values(shape.len(), seed + 22);
        let mut truth = vec![0.0; shape.len()];
        for (x, params) in deltas.iter().zip(&params) {
            let sums = direct(x, delta_shape, &params[layer.weight_range()], layer, true);
            truth.iter_mut().zip(sums).for_each(|(truth, sum)| *truth += sum);
        }
        truth.iter_mut().zip(&gate).for_each(|(truth, &gate)| *truth *= f64::from(u8::from(gate > 0.0)));
        check(&format!("input gradient {shape:?} {layer:?}"), 3e-6, &truth, |engine| {
            let x: Vec<_> = deltas.iter().map(|x| up(engine, delta_shape, x)).collect();
            let params: Vec<_> = params.iter().map(|p| up(engine, Shape::flat(p.len()), p)).collect();
            let gate = up(engine, shape, &gate);
            let terms: Vec<_> = x.iter().zip(&params).collect();
            let out = engine.conv_input_grad(layer, &terms, Gate::Where(&gate)).unwrap();
            engine.download(&out).unwrap()
        });
    }
}

#[test]
fn weight_gradient() {
    for (case, (shape, layer)) in cases().enumerate() {
        let seed = case as u64 * 100 + 13;
        let delta_shape = shape.with_channels(layer.output);
        let terms = 1 + case % 2;
        let a: Vec<_> = (0..terms).map(|i| values(shape.len(), seed + i as u64)).collect();
        let deltas: Vec<_> = (0..terms).map(|i| values(delta_shape.len(), seed + 10 + i as u64)).collect();
        let before = values(params_len(layer), seed + 20);
        // The bias of the last term's δ, or of another tensor.
        let other = values(delta_shape.len(), seed + 21);
        let bias_of = if case % 3 == 0 { &other } else { &deltas[terms - 1] };
        let mut truth: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
        for (a, delta) in a.iter().zip(&deltas) {
            let sums = direct_weight_grad(a, delta, shape, layer);
            truth[layer.weight_range()].iter_mut().zip(sums).for_each(|(truth, sum)| *truth += sum);
        }
        for (i, &value) in bias_of.iter().enumerate() {
            truth[layer.bias + i % layer.output] += f64::from(value);
        }
        check(&format!("weight gradient {shape:?} {layer:?}"), 3e-6, &truth, |engine| {
            let a: Vec<_> = a.iter().map(|x| up(engine, shape, x)).collect();
            let deltas: Vec<_> = deltas.iter().map(|x| up(engine, delta_shape, x)).collect();
            let other = up(engine, delta_shape, &other);
            let bias_of = if case % 3 == 0 { &other } else { &deltas[terms - 1] };
            let mut grad = up(engine, Shape::flat(before.len()), &before);
            let terms: Vec<_> = a.iter().zip(&deltas).collect();
            engine.conv_weight_grad(layer, &terms, bias_of, &mut grad).unwrap();
            engine.download(&grad).unwrap()
        });
    }
}

/// Eight layers of 3 → 64 → … → 64 → 3, and parameters that keep the scale of the activations.
fn chain() -> (Vec<Layer>, Vec<f32>) {
    let mut layers = Vec::new();
    let mut params = Vec::new();
    for i in 0..8 {
        let (input, output) = (if i == 0 { 3 } else { 64 }, if i == 7 { 3 } else { 64 });
        let layer = Layer { input, output, weight: params.len(), bias: params.len() + input * output * 9 };
        let scale = (2.0 / (9.0 * input as f32)).sqrt() * 1.7;
        params.extend(values(input * output * 9, i + 50).iter().map(|x| x * scale));
        params.extend(values(output, i + 60).iter().map(|x| x * 0.1));
        layers.push(layer);
    }
    (layers, params)
}

/// The chain's output.
fn forward(engine: &CpuEngine, layers: &[Layer], params: &CpuTensor, x: CpuTensor) -> Vec<f32> {
    let mut a = x;
    for layer in layers {
        let gate = if layer.output == 3 { Gate::Linear } else { Gate::Relu };
        a = engine.conv(*layer, &[(&a, params)], Some(params), gate, None).unwrap();
    }
    engine.download(&a).unwrap()
}

#[test]
fn a_tile_has_the_bits_of_the_whole() {
    let (layers, params) = chain();
    let (h, w) = (83, 90);
    let x = values(h * w * 3, 1);
    // A core of 8 × 12 with 28 pixels around it.
    let (top, left, crop_h, crop_w) = (12, 20, 64, 68);
    let crop: Vec<f32> =
        (0..crop_h).flat_map(|y| x[((top + y) * w + left) * 3..][..crop_w * 3].iter().copied()).collect();
    for level in Level::available() {
        let engine = CpuEngine::with_level(level, Some(2)).unwrap();
        let params = up(&engine, Shape::flat(params.len()), &params);
        let whole = forward(&engine, &layers, &params, up(&engine, Shape::new(1, h, w, 3), &x));
        let part = forward(&engine, &layers, &params, up(&engine, Shape::new(1, crop_h, crop_w, 3), &crop));
        assert!(whole.iter().any(|value| value.abs() > 1e-3));
        for y in 28..crop_h - 28 {
            let of_whole = &whole[((top + y) * w + left + 28) * 3..][..(crop_w - 56) * 3];
            let of_part = &part[(y * crop_w + 28) * 3..][..(crop_w - 56) * 3];
            assert_eq!(of_whole, of_part, "{level:?}, row {y}");
        }
    }
}

#[test]
fn l1_and_its_derivative() {
    let shape = Shape::new(2, 5, 6, 3);
    let (output, mut target) = (values(shape.len(), 1), values(shape.len(), 2));
    let core = Window { y: 1, x: 2, height: 3, width: 3 };
    // Equality in the core: picture 0, row 2, column 3.
    target[(2 * 6 + 3) * 3] = output[(2 * 6 + 3) * 3];
    let engine = CpuEngine::new(Some(2)).unwrap();
    let (loss, grad) = engine.l1(&up(&engine, shape, &output), &up(&engine, shape, &target), core, 40).unwrap();
    let grad = engine.download(&grad).unwrap();
    let mut truth = 0.0;
    for (i, (n, y, x)) in places(shape).enumerate() {
        for c in 0..3 {
            let i = i * 3 + c;
            let inside = (1..4).contains(&y) && (2..5).contains(&x);
            let difference = f64::from(output[i]) - f64::from(target[i]);
            let expected = if !inside || difference == 0.0 { 0.0 } else { difference.signum() as f32 / 40.0 };
            assert_eq!(grad[i], expected, "{n} {y} {x} {c}");
            truth += if inside { difference.abs() / 40.0 } else { 0.0 };
        }
    }
    assert!((loss - truth).abs() < 1e-6 * truth);
}

#[test]
fn vectors() {
    let engine = CpuEngine::new(Some(2)).unwrap();
    let n = 1003;
    let (x, y) = (values(n, 1), values(n, 2));
    let flat = |data: &[f32]| up(&engine, Shape::flat(n), data);
    let mut sum = flat(&y);
    engine.axpy(10..1000, 0.5, &flat(&x), &mut sum).unwrap();
    engine.scale(20..30, -2.0, &mut sum).unwrap();
    let sum = engine.download(&sum).unwrap();
    let mut dot = 0.0;
    for i in 0..n {
        let expected = if (10..1000).contains(&i) { y[i] + 0.5 * x[i] } else { y[i] };
        let expected = if (20..30).contains(&i) { expected * -2.0 } else { expected };
        assert!((sum[i] - expected).abs() < 1e-6);
        dot += if (3..900).contains(&i) { f64::from(x[i]) * f64::from(y[i]) } else { 0.0 };
    }
    let result = engine.dot(3..900, &flat(&x), &flat(&y)).unwrap();
    assert!((result - dot).abs() < 1e-9 * dot.abs());

    let zeros = engine.zeros(Shape::flat(n)).unwrap();
    assert!(engine.download(&zeros).unwrap().iter().all(|&value| value == 0.0));
    let (mut first, mut second) = (engine.duplicate(&zeros).unwrap(), zeros);
    let mut params = flat(&y);
    for t in 1..=2 {
        engine.adam(AdamStep::new(0.1, 0.9, 0.999, 1e-8, t), &flat(&x), &mut first, &mut second, &mut params).unwrap();
    }
    // With a constant gradient g the corrected moments are g and g²: each step is rate · g / (|g| + ε).
    let params = engine.download(&params).unwrap();
    for i in 0..n {
        let expected = y[i] - 0.2 * x[i] / (x[i].abs() + 1e-8);
        assert!((params[i] - expected).abs() < 2e-6, "{i}");
    }
}

#[test]
fn names_and_refusals() {
    let engine = CpuEngine::with_level(Level::Portable, Some(1)).unwrap();
    assert_eq!((engine.name().as_str(), engine.threads()), ("cpu, baseline, 1 thread", 1));
    assert_eq!(CpuEngine::with_level(Level::Portable, Some(3)).unwrap().name(), "cpu, baseline, 3 threads");
    assert!(CpuEngine::new(Some(0)).is_err());
}
