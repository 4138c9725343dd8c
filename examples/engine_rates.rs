//! tuning aid
use mzsr::engine::cpu::CpuEngine;
use mzsr::engine::{Engine, Shape, Window};
use mzsr::network::{Architecture, Network};
use std::time::Instant;
fn main() {
    for threads in [1, 2] {
        let engine = CpuEngine::new(Some(threads)).unwrap();
        let a = Architecture::mzsr();
        let net = Network::new(&engine, &a);
        let flat = Shape::flat(a.parameter_count());
        let p: Vec<f32> = (0..flat.len()).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 0.05).collect();
        let p = engine.upload(flat, &p).unwrap();
        for (n, s) in [(1, 256), (16, 64)] {
            let shape = Shape::new(n, s, s, 3);
            let x: Vec<f32> = (0..shape.len()).map(|i| (i * 31 % 255) as f32 / 255.0).collect();
            let x = engine.upload(shape, &x).unwrap();
            let px = (n * s * s) as f64;
            let w = 224640.0f64;
            let mut best = f64::MAX;
            for _ in 0..8 {
                let t = Instant::now();
                std::hint::black_box(net.output(&p, &x).unwrap());
                best = best.min(t.elapsed().as_secs_f64());
            }
            let fwd = px * w * 2.0 / best / 1e9;
            let mut best = f64::MAX;
            let whole = Window { y: 0, x: 0, height: s, width: s };
            let mut g = engine.zeros(flat).unwrap();
            for _ in 0..5 {
                let t = Instant::now();
                net.loss_and_gradient(&p, &x, &x, whole, shape.len(), &mut g).unwrap();
                best = best.min(t.elapsed().as_secs_f64());
            }
            let both = px * (w * 6.0 - 1728.0 * 2.0) / best / 1e9;
            println!("{} {n}x{s}^2 forward {fwd:.1} both {both:.1} GFLOP/s", engine.name());
        }
    }
}
