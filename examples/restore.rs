//! The library in one page: make a photo small, enlarge it again with a network that adapts to it,
//! and measure how close the result is.
//!
//! `cargo run --release --example restore -- PHOTO.png RESULT.png [WEIGHTS.safetensors]`

use mzsr::Result;
use mzsr::adapt::Rates;
use mzsr::adapt::photo::{Adaptation, Method, Request, upscale};
use mzsr::degrade::{Degradation, Downsample, Noise, degrade_photo};
use mzsr::engine::cpu::CpuEngine;
use mzsr::image::{Photo, WriteOptions};
use mzsr::kernel::KernelSpec;
use mzsr::network::weights::{Weights, builtin};
use mzsr::score::{Preset, score};

fn restore(photo: &str, result: &str, weights: Option<&str>) -> Result<()> {
    let original = Photo::read(photo.as_ref())?;
    let kernel = KernelSpec::parse("gaussian:1.3")?.load()?.kernel;
    let degradation = Degradation::new(2.0, kernel, Downsample::Bicubic)?;
    let small = degrade_photo(&original, &degradation, Noise { sigma: 0.0, seed: 0 }, false)?;

    let weights = match weights {
        Some(file) => Weights::load(file.as_ref())?,
        None => builtin::choose(&degradation)?.weights,
    };
    let rates = Rates(weights.info.rates.clone());
    let adaptation = Adaptation {
        weights: &weights,
        updates: 10,
        rates: &rates,
        adapt_pixels: 750_000,
        ensemble: false,
        lambda: None,
    };
    let engine = CpuEngine::new(None)?;
    for (name, method) in [("bicubic", Method::Bicubic), ("mzsr", Method::Mzsr(adaptation))] {
        let request = Request { degradation: &degradation, method, back_project: 0, memory: 2 << 30 };
        let (large, _) = upscale(&engine, &small, &request, &mut |_| {})?;
        let made = score(&large.rgb8(), &original.rgb8(), 2.0, Preset::Mzsr)?;
        println!("{name}: {:.2} dB, SSIM {:.4}", made.psnr, made.ssim);
        large.write(result.as_ref(), &WriteOptions::default())?;
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [photo, result, weights @ ..] if weights.len() < 2 => {
            restore(photo, result, weights.first().map(String::as_str))
        }
        _ => Err(mzsr::Error::input("usage: restore PHOTO RESULT [WEIGHTS]")),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
