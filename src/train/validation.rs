//! How good weights are on photos that the training does not see.

use super::log::Judgement;
use super::photos;
use super::recipe::{Dropping, Model, Validation};
use crate::adapt::{ADAPT_PIXELS, Course, Plan, Rates, Restorer};
use crate::degrade::Degradation;
use crate::engine::Engine;
use crate::image::paths::images_in;
use crate::kernel::KernelSpec;
use crate::network::{Network, Passes};
use crate::score::{Preset, cropped, score};
use crate::{Error, Raster, Result};
use std::path::Path;
use std::time::Instant;

/// Side of the tiles in which photos are learned from and enlarged.
const TILE: usize = 512;
/// Pixels that must remain of a photo.
const SMALLEST: usize = 32;

/// Photos and the degradations that they are judged under.
pub struct Judge {
    photos: Vec<Raster<u8>>,
    /// Name and degradation.
    cases: Vec<(String, Degradation)>,
    course: Course,
    /// Numbers of updates.
    updates: Vec<usize>,
    /// Those that make the score.
    score: Vec<usize>,
    earlier: Vec<f32>,
}

impl Judge {
    /// Reads photos (relative to `root`) and kernels. With `everything` the limit and the crop of
    /// the recipe are left aside. `earlier` are the parameters of the passes before the one that is
    /// judged.
    ///
    /// # Errors
    /// Photos or kernels that cannot be read or used.
    pub fn read(
        root: &Path,
        model: &Model,
        validation: &Validation,
        everything: bool,
        earlier: &[f32],
    ) -> Result<Self> {
        let mut files = Vec::new();
        for folder in &validation.photos {
            files.extend(images_in(&root.join(folder))?);
        }
        let limit = validation.limit.filter(|_| !everything).unwrap_or(files.len()).min(files.len());
        let crop = validation.crop.filter(|_| !everything);
        let photos = (0..limit)
            .map(|i| {
                let path = &files[i * files.len() / limit];
                let photo = photos::read(path)?;
                let photo = match crop {
                    Some(crop) => middle(&photo, crop),
                    None => photo,
                };
                if photo.height.min(photo.width) < SMALLEST {
                    let (w, h) = (photo.width, photo.height);
                    let what = format!("is {w} x {h} pixels; validation needs {SMALLEST} on each side: take it out");
                    return Err(Error::file(path, what));
                }
                Ok(photo)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Judge {
            photos,
            cases: cases(model, validation)?,
            course: model.course(),
            updates: validation.updates.clone(),
            score: validation.score.clone().unwrap_or_else(|| validation.updates.clone()),
            earlier: earlier.to_vec(),
        })
    }

    /// The number of photos.
    pub fn photos(&self) -> usize {
        self.photos.len()
    }

    /// The mean PSNR of `params` by PROTOCOL.md: HR cropped to a multiple of the scale, degraded,
    /// rounded to 8 bits, enlarged after each of the numbers of updates at `rates` (as `mzsr upscale`
    /// makes them), luma compared.
    ///
    /// # Errors
    /// A result that is not finite, or a failing engine.
    pub fn judge<E: Engine<Elem = f32>>(
        &self,
        network: &Network<'_, E>,
        params: &E::Tensor,
        rates: &Rates,
        step: u64,
    ) -> Result<Judgement> {
        let start = Instant::now();
        let layout = Passes::new(network.layers(), self.course.fit);
        let parameters = layout.join(&self.earlier, &network.engine().download(params)?);
        let mut cases = Vec::with_capacity(self.cases.len() * self.updates.len());
        let mut means = Vec::with_capacity(self.updates.len());
        for &updates in &self.updates {
            let mut sum = 0.0;
            for (name, degradation) in &self.cases {
                let restorer = Restorer {
                    network,
                    parameters: &parameters,
                    course: self.course,
                    degradation,
                    rates,
                    updates,
                    guard: true,
                    adapt_pixels: ADAPT_PIXELS,
                    plan: Plan { gradient_side: TILE, output_side: TILE },
                    ensemble: false,
                    back_project: 0,
                };
                let psnr = self.mean_psnr(&restorer)?;
                let name = if self.updates == [0] { name.clone() } else { format!("{name} n{updates}") };
                cases.push((name, psnr));
                sum += psnr;
            }
            means.push((updates, sum / self.cases.len() as f64));
        }
        let counted: Vec<f64> =
            means.iter().filter(|(updates, _)| self.score.contains(updates)).map(|(_, psnr)| *psnr).collect();
        let validation = counted.iter().sum::<f64>() / counted.len() as f64;
        let (rates, seconds) = (Vec::new(), start.elapsed().as_secs_f64());
        Ok(Judgement { step, validation, means, cases, rates, best: false, last: false, seconds })
    }

    fn mean_psnr<E: Engine<Elem = f32>>(&self, restorer: &Restorer<'_, E>) -> Result<f64> {
        let degradation = restorer.degradation;
        let scale = degradation.scale();
        let mut sum = 0.0;
        for photo in &self.photos {
            let high = photo.crop(0, 0, cropped(photo.height, scale), cropped(photo.width, scale));
            let low = photos::eight_bits(&degradation.apply(&photos::light::<f64>(&high)));
            let mut result = Raster::new(0, 0, 3);
            restorer.restore(&photos::light(&low), &mut |_| {}, &mut |_, band: Raster<f32>| {
                result.width = band.width;
                result.height += band.height;
                result.data.extend_from_slice(&photos::eight_bits(&band).data);
                Ok(())
            })?;
            sum += score(&result, &high, scale, Preset::Mzsr)?.psnr;
        }
        Ok(sum / self.photos.len() as f64)
    }
}

/// The middle `size` × `size` pixels, or what there is of them.
fn middle(photo: &Raster<u8>, size: usize) -> Raster<u8> {
    let (height, width) = (size.min(photo.height), size.min(photo.width));
    photo.crop((photo.height - height) / 2, (photo.width - width) / 2, height, width)
}

/// Each kernel at each scale, with its name in the log: `gaussian:2.0 x2`.
fn cases(model: &Model, validation: &Validation) -> Result<Vec<(String, Degradation)>> {
    let [from, to] = model.scale_range();
    let scales = match &validation.scales {
        Some(scales) => scales.clone(),
        None if from == to => vec![from],
        None => vec![from, to],
    };
    let mut cases = Vec::new();
    for text in &validation.kernels {
        let about = |error: Error| match error {
            Error::Input(what) => Error::Input(format!("[validation] kernels: {what}")),
            other => other,
        };
        let kernel = KernelSpec::parse(text).and_then(|spec| spec.load()).map_err(about)?.kernel;
        if kernel.is_none() && model.downsample == Dropping::Direct {
            let what = format!("[validation] kernels: \"{text}\" is no blur, which direct downsampling needs");
            return Err(Error::Input(what));
        }
        for &scale in &scales {
            let degradation = Degradation::new(scale, kernel.clone(), model.downsample.into())?;
            cases.push((format!("{text} x{scale}"), degradation));
        }
    }
    Ok(cases)
}
