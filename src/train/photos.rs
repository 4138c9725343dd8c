//! The photos of a training, held in memory as 8-bit RGB.

use super::random::{below, uniform};
use super::recipe::Folder;
use crate::degrade;
use crate::image::Photo;
use crate::image::paths::images_in;
use crate::{Error, Raster, Result};
use rand_pcg::Pcg64;
use rayon::prelude::*;
use std::path::Path;

/// Photos, and how likely each is seen.
pub struct Photos {
    photos: Vec<Raster<u8>>,
    /// Σ weight × pixels up to and with each photo.
    cumulative: Vec<f64>,
}

/// The 8-bit RGB pixels of a file.
///
/// # Errors
/// A file that cannot be read.
pub fn read(path: &Path) -> Result<Raster<u8>> {
    Ok(Photo::read(path)?.rgb8())
}

/// An 8-bit picture as light in [0, 1].
pub(super) fn light<T: crate::Real>(image: &Raster<u8>) -> Raster<T> {
    image.map(|v| T::of(f64::from(v)) / T::of(255.0))
}

/// Light clipped to [0, 1] and rounded to 8 bits.
pub(super) fn eight_bits<T: crate::Real>(image: &Raster<T>) -> Raster<u8> {
    image.map(|v| (v.wide().clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
}

impl Photos {
    /// Reads the photos of `folders`, which are relative to `root`.
    ///
    /// # Errors
    /// A folder without photos, a photo that cannot be read or is smaller than a patch of `patch`
    /// pixels.
    pub fn read(root: &Path, folders: &[Folder], patch: usize) -> Result<Self> {
        let mut files = Vec::new();
        for folder in folders {
            let path = root.join(&folder.folder);
            files.extend(images_in(&path)?.into_iter().map(|file| (file, folder)));
        }
        let photos = files
            .par_iter()
            .map(|(path, folder)| {
                let mut photo = read(path)?;
                if folder.shrink > 1.0 {
                    let size = |v: usize| ((v as f64 / folder.shrink).floor() as usize).max(1);
                    let (height, width) = (size(photo.height), size(photo.width));
                    photo = eight_bits(&degrade::resize(&light::<f32>(&photo), 1.0 / folder.shrink, height, width));
                }
                if photo.height < patch || photo.width < patch {
                    let (w, h) = (photo.width, photo.height);
                    let after = if folder.shrink > 1.0 { " after shrinking" } else { "" };
                    return Err(Error::file(
                        path,
                        format!(
                            "is {w} x {h} pixels{after}, smaller than a patch of {patch}: take it out of the folder, \
                             or lower [data] patch"
                        ),
                    ));
                }
                Ok(photo)
            })
            .collect::<Result<Vec<_>>>()?;
        let weights: Vec<f64> = files.iter().map(|(_, folder)| folder.weight).collect();
        Ok(Photos::new(photos, &weights))
    }

    /// Photos with the weight of a pixel of each.
    pub(super) fn new(photos: Vec<Raster<u8>>, weights: &[f64]) -> Self {
        let mut sum = 0.0;
        let cumulative = photos
            .iter()
            .zip(weights)
            .map(|(photo, weight)| {
                sum += weight * (photo.height * photo.width) as f64;
                sum
            })
            .collect();
        Photos { photos, cumulative }
    }

    /// The number of photos.
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// Pixels of all photos.
    pub fn pixels(&self) -> usize {
        self.photos.iter().map(|photo| photo.height * photo.width).sum()
    }

    /// A checksum of sizes and pixels: a resumed training must see the same photos.
    pub fn fingerprint(&self) -> u32 {
        let one = |photo: &Raster<u8>| {
            let size = [photo.height as u64, photo.width as u64].map(u64::to_le_bytes).concat();
            crc32c::crc32c_append(crc32c::crc32c(&size), &photo.data)
        };
        let each: Vec<u32> = self.photos.par_iter().map(one).collect();
        each.iter().fold(0, |sum, crc| crc32c::crc32c_append(sum, &crc.to_le_bytes()))
    }

    /// A photo, by weighted area, and the top left of a `patch` × `patch` square in it.
    ///
    /// # Panics
    /// When there is no photo.
    pub fn pick(&self, random: &mut Pcg64, patch: usize) -> (&Raster<u8>, usize, usize) {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = uniform(random) * total;
        let index = self.cumulative.partition_point(|&sum| sum <= at).min(self.photos.len() - 1);
        let photo = &self.photos[index];
        (photo, below(random, photo.height - patch + 1), below(random, photo.width - patch + 1))
    }
}
