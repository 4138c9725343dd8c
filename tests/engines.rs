//! Every operation of the CPU engine, at every level that the machine has, against the plain engine
//! in f64.

use mzsr::engine::cpu::{CpuEngine, CpuTensor, Level};
use mzsr::engine::plain::{PlainEngine, PlainTensor};
use mzsr::engine::{AdamStep, Engine, Gate, Layer, Shape, Window};

const PLAIN: PlainEngine<f64> = PlainEngine::new();

fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (2.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 1.0) as f32
        })
        .collect()
}

/// The same values in both engines.
struct Twin {
    fast: CpuTensor,
    plain: PlainTensor<f64>,
}

impl Twin {
    fn new(engine: &CpuEngine, shape: Shape, seed: u64) -> Self {
        let values = noise(shape.len(), seed);
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        Twin { fast: engine.upload(shape, &values).unwrap(), plain: PLAIN.upload(shape, &wide).unwrap() }
    }
}

/// ‖a − b‖∞ within `bound` of ‖b‖∞.
fn assert_close(engine: &CpuEngine, fast: &CpuTensor, plain: &PlainTensor<f64>, bound: f64, what: &str) {
    let (fast, plain) = (engine.download(fast).unwrap(), PLAIN.download(plain).unwrap());
    assert_eq!(fast.len(), plain.len(), "{what}");
    let size = plain.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    let error = fast.iter().zip(&plain).fold(0.0f64, |m, (&a, b)| m.max((f64::from(a) - b).abs()));
    assert!(error <= bound * size, "{what}: error {error} of {size} with {}", engine.name());
}

fn engines() -> Vec<CpuEngine> {
    Level::available().into_iter().map(|level| CpuEngine::with_level(level, Some(2)).unwrap()).collect()
}

const CHANNELS: [(usize, usize); 7] = [(3, 64), (64, 64), (64, 3), (3, 4), (4, 5), (16, 48), (128, 64)];
const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (1, 1, 7), (2, 5, 3), (1, 4, 4), (3, 13, 22), (1, 9, 40), (2, 8, 12), (1, 31, 1)];

/// The parameters of one layer, a little apart from the vector's begin.
fn layer(input: usize, output: usize) -> (Layer, Shape) {
    let weight = 5;
    let bias = weight + input * output * 9 + 3;
    (Layer { input, output, weight, bias }, Shape::flat(bias + output + 2))
}

#[test]
fn convolutions_and_their_adjoints() {
    for engine in engines() {
        for (i, (input, output)) in CHANNELS.into_iter().enumerate() {
            for (j, (n, h, w)) in SHAPES.into_iter().enumerate() {
                let seed = (100 * i + 10 * j) as u64;
                let (layer, flat) = layer(input, output);
                let what = format!("{input} to {output}, {n} × {h} × {w}");
                let params: Vec<_> = (1..3).map(|s| Twin::new(&engine, flat, seed + s)).collect();
                let (from, to) = (Shape::new(n, h, w, input), Shape::new(n, h, w, output));
                let x: Vec<_> = (3..5).map(|s| Twin::new(&engine, from, seed + s)).collect();
                let d: Vec<_> = (5..7).map(|s| Twin::new(&engine, to, seed + s)).collect();
                for terms in 1..=2 {
                    let fast: Vec<_> = (0..terms).map(|t| (&x[t].fast, &params[t].fast)).collect();
                    let plain: Vec<_> = (0..terms).map(|t| (&x[t].plain, &params[t].plain)).collect();
                    for variant in 0..4 {
                        let (bias, residual) = (variant & 1 == 0, variant >= 2);
                        let (fast_gate, plain_gate) = match variant {
                            0 => (Gate::Relu, Gate::Relu),
                            1 | 2 => (Gate::Linear, Gate::Linear),
                            _ => (Gate::Where(&d[0].fast), Gate::Where(&d[0].plain)),
                        };
                        let a = engine
                            .conv(
                                layer,
                                &fast,
                                bias.then_some(&params[0].fast),
                                fast_gate,
                                residual.then_some(&d[1].fast),
                            )
                            .unwrap();
                        let b = PLAIN
                            .conv(
                                layer,
                                &plain,
                                bias.then_some(&params[0].plain),
                                plain_gate,
                                residual.then_some(&d[1].plain),
                            )
                            .unwrap();
                        assert_close(&engine, &a, &b, 3e-5, &format!("conv {what}, variant {variant}"));
                    }
                    let fast: Vec<_> = (0..terms).map(|t| (&d[t].fast, &params[t].fast)).collect();
                    let plain: Vec<_> = (0..terms).map(|t| (&d[t].plain, &params[t].plain)).collect();
                    let a = engine.conv_input_grad(layer, &fast, Gate::Where(&x[0].fast)).unwrap();
                    let b = PLAIN.conv_input_grad(layer, &plain, Gate::Where(&x[0].plain)).unwrap();
                    assert_close(&engine, &a, &b, 3e-5, &format!("input gradient {what}"));
                    let fast: Vec<_> = (0..terms).map(|t| (&x[t].fast, &d[t].fast)).collect();
                    let plain: Vec<_> = (0..terms).map(|t| (&x[t].plain, &d[t].plain)).collect();
                    let mut a = Twin::new(&engine, flat, seed + 9);
                    engine.conv_weight_grad(layer, &fast, &d[1].fast, &mut a.fast).unwrap();
                    PLAIN.conv_weight_grad(layer, &plain, &d[1].plain, &mut a.plain).unwrap();
                    assert_close(&engine, &a.fast, &a.plain, 3e-5, &format!("weight gradient {what}"));
                }
            }
        }
    }
}

#[test]
fn losses_and_vectors() {
    for engine in engines() {
        let shape = Shape::new(2, 9, 11, 3);
        let (x, y) = (Twin::new(&engine, shape, 1), Twin::new(&engine, shape, 2));
        let core = Window { y: 2, x: 3, height: 5, width: 7 };
        let (a, da) = engine.l1(&x.fast, &y.fast, core, 123).unwrap();
        let (b, db) = PLAIN.l1(&x.plain, &y.plain, core, 123).unwrap();
        assert!((a - b).abs() < 1e-7 * b);
        assert_close(&engine, &da, &db, 1e-7, "sign");
        let (same, zero) = engine.l1(&x.fast, &x.fast, core, 1).unwrap();
        assert!(same == 0.0 && engine.download(&zero).unwrap().iter().all(|&v| v == 0.0));

        let flat = Shape::flat(100_003);
        let (x, mut y) = (Twin::new(&engine, flat, 3), Twin::new(&engine, flat, 4));
        engine.axpy(7..99_000, -0.3, &x.fast, &mut y.fast).unwrap();
        PLAIN.axpy(7..99_000, -0.3, &x.plain, &mut y.plain).unwrap();
        engine.scale(0..50, 0.5, &mut y.fast).unwrap();
        PLAIN.scale(0..50, 0.5, &mut y.plain).unwrap();
        assert_close(&engine, &y.fast, &y.plain, 1e-6, "axpy, scale");
        let (a, b) =
            (engine.dot(3..88_000, &x.fast, &y.fast).unwrap(), PLAIN.dot(3..88_000, &x.plain, &y.plain).unwrap());
        assert!((a - b).abs() < 1e-2, "{a} {b}");

        let (mut first, mut second) = (Twin::new(&engine, flat, 5), Twin::new(&engine, flat, 6));
        engine
            .adam(AdamStep::new(1.0, 0.9, 0.0, 1e-8, 1), &x.fast, &mut first.fast, &mut second.fast, &mut y.fast)
            .unwrap();
        PLAIN
            .adam(AdamStep::new(1.0, 0.9, 0.0, 1e-8, 1), &x.plain, &mut first.plain, &mut second.plain, &mut y.plain)
            .unwrap();
        assert_close(&engine, &first.fast, &first.plain, 1e-6, "first moment");
        assert_close(&engine, &second.fast, &second.plain, 1e-6, "second moment");
    }
}

/// A chain of eight layers on a picture; `core` of the result.
fn chain(engine: &CpuEngine, shape: Shape, values: &[f32], core: Window) -> Vec<f32> {
    let architecture = mzsr::network::Architecture::mzsr();
    let network = mzsr::network::Network::new(engine, &architecture);
    let flat = Shape::flat(architecture.parameter_count());
    let params: Vec<f32> = noise(flat.len(), 77).iter().map(|v| 0.06 * v).collect();
    let x = engine.upload(shape, values).unwrap();
    let output = network.output(&engine.upload(flat, &params).unwrap(), &x).unwrap();
    let output = engine.download(&output).unwrap();
    (core.y..core.y + core.height)
        .flat_map(|y| output[(y * shape.w + core.x) * 3..(y * shape.w + core.x + core.width) * 3].to_vec())
        .collect()
}

#[test]
fn a_tile_with_its_halo_gives_the_same_bits_as_the_whole() {
    let whole = Shape::new(1, 90, 97, 3);
    let values = noise(whole.len(), 5);
    let core = Window { y: 32, x: 36, height: 24, width: 20 };
    let halo = mzsr::adapt::plan::HALO;
    let tile = Shape::new(1, core.height + 2 * halo, core.width + 2 * halo, 3);
    let (top, left) = (core.y - halo, core.x - halo);
    let part: Vec<f32> = (top..top + tile.h)
        .flat_map(|y| values[(y * whole.w + left) * 3..(y * whole.w + left + tile.w) * 3].to_vec())
        .collect();
    for engine in engines() {
        let a = chain(&engine, whole, &values, core);
        let b = chain(&engine, tile, &part, Window { y: halo, x: halo, ..core });
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", engine.name());
    }
}

#[test]
fn threads_change_no_bit() {
    let architecture = mzsr::network::Architecture::mzsr();
    let flat = Shape::flat(architecture.parameter_count());
    let shape = Shape::new(3, 70, 61, 3);
    let params: Vec<f32> = noise(flat.len(), 7).iter().map(|v| 0.06 * v).collect();
    for level in Level::available() {
        let results: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                let engine = CpuEngine::with_level(level, Some(threads)).unwrap();
                let network = mzsr::network::Network::new(&engine, &architecture);
                let params = engine.upload(flat, &params).unwrap();
                let x = engine.upload(shape, &noise(shape.len(), 8)).unwrap();
                let y = engine.upload(shape, &noise(shape.len(), 9)).unwrap();
                let mut grad = engine.zeros(flat).unwrap();
                let whole = Window { y: 0, x: 0, height: shape.h, width: shape.w };
                let loss = network.loss_and_gradient(&params, &x, &y, whole, shape.len(), &mut grad).unwrap();
                (loss.to_bits(), engine.download(&grad).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
            })
            .collect();
        assert!(results[0] == results[1] && results[0] == results[2], "{level:?}");
    }
}
