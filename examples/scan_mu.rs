use mzsr::Raster;
use mzsr::adapt::{Course, Plan, Rates, Restorer};
use mzsr::degrade::*;
use mzsr::engine::cpu::CpuEngine;
use mzsr::image::Photo;
use mzsr::kernel::KernelSpec;
use mzsr::network::{Network, weights::Weights};
use mzsr::score::{Preset, score};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let weights = Weights::load(args[1].as_ref()).unwrap();
    let engine = CpuEngine::new(Some(1)).unwrap();
    let network = Network::new(&engine, &weights.architecture);
    let rates = Rates(vec![vec![0.0]]);
    let photos: Vec<_> = std::fs::read_dir("../shared/data/valid").unwrap().map(|e| e.unwrap().path()).collect();
    let mut photos = photos;
    photos.sort();
    for spec in ["gaussian:0.3", "gaussian:1.6", "gaussian:2.4", "gaussian:4.5,2.5,-1.0", "gaussian:4,1,-0.5"] {
        let kernel = KernelSpec::parse(spec).unwrap().load().unwrap().kernel;
        let d = Degradation::new(2.0, kernel, Downsample::Direct).unwrap();
        let settings: Vec<(f64, usize)> =
            vec![(1.0, 0), (3e-4, 8), (1e-3, 4), (1e-3, 8), (3e-3, 8), (1e-2, 4), (3e-2, 4)];
        let mut sums = vec![0.0; settings.len()];
        let mut n = 0;
        for path in photos.iter().step_by(3) {
            let photo = Photo::read(path).unwrap();
            let hr: Raster<f64> = photo.rgb();
            let (h, w) = (hr.height, hr.width);
            let hr = hr.crop((h - 256) / 2, (w - 256) / 2, 256, 256);
            let hr8: Raster<u8> = hr.map(|v| (v * 255.0).round() as u8);
            let y = d.apply(&hr).map(|v| (v * 255.0).round().clamp(0.0, 255.0) / 255.0);
            let y32: Raster<f32> = y.map(|v| v as f32);
            let course = Course { start: weights.info.start, passes: 1, fit: weights.info.fit, ..Course::default() };
            let r = Restorer {
                network: &network,
                parameters: &weights.parameters,
                course,
                degradation: &d,
                rates: &rates,
                updates: 0,
                guard: true,
                adapt_pixels: 1,
                plan: Plan::unlimited(),
                ensemble: false,
                back_project: 0,
            };
            let mut out = Raster::<f32>::new(0, 256, 3);
            r.restore(&y32, &mut |_| {}, &mut |_, b: Raster<f32>| {
                out.height += b.height;
                out.data.extend(b.data);
                Ok(())
            })
            .unwrap();
            for (i, (mu, steps)) in settings.iter().enumerate() {
                let x = LeastSquares { lambda: *mu, steps: *steps }.solve(&d, &y, out.map(|v| v as f64));
                let x8: Raster<u8> = x.map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8);
                sums[i] += score(&x8, &hr8, 2.0, Preset::Mzsr).unwrap().psnr;
            }
            n += 1;
        }
        print!("{spec}: ");
        for (s, t) in settings.iter().zip(&sums) {
            print!(" {:?} {:.3}", s, t / n as f64);
        }
        println!();
    }
}
