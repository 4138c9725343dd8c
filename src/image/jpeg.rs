//! What a JPEG makes of a picture that goes through it.

use super::Photo;
use crate::{Error, Raster, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// What comes back of `picture`, of three channels, when it is saved as a JPEG of this quality (1 to 100,
/// with the tables of the standard's Annex K) and read again, and what [`Photo::compression_noise`] says
/// of that file. With `halved` colour differences are kept at half the size, as cameras and most programs
/// do.
///
/// # Errors
/// A picture without pixels or with more than 65,535 rows or columns.
pub fn through_jpeg(picture: &Raster<u8>, quality: u8, halved: bool) -> Result<(Raster<u8>, f64)> {
    let failed = |why: String| Error::input(format!("a picture cannot be saved as JPEG: {why}"));
    let side = |pixels: usize| u16::try_from(pixels).map_err(|error| failed(error.to_string()));
    let (height, width) = (side(picture.height)?, side(picture.width)?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(if halved { SamplingFactor::R_4_2_0 } else { SamplingFactor::R_4_4_4 });
    encoder.encode(&picture.data, width, height, ColorType::Rgb).map_err(|error| failed(error.to_string()))?;
    let photo = Photo::decode(&bytes).map_err(failed)?;
    Ok((photo.rgb8(), photo.compression_noise()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth, and with colours that change from pixel to pixel on its right.
    fn picture() -> Raster<u8> {
        let pixel = |y: usize, x: usize| match (x < 24, (x + y).is_multiple_of(2)) {
            (true, _) => [(4 * y) as u8, (5 * x) as u8, 90],
            (_, true) => [200, 60, 60],
            (_, false) => [60, 60, 200],
        };
        Raster::from_vec(40, 48, 3, (0..40 * 48).flat_map(|i| pixel(i / 48, i % 48)).collect())
    }

    #[test]
    fn less_quality_loses_more_and_is_said_to() {
        let whole = picture();
        let off = |quality, halved| {
            let (came, noise) = through_jpeg(&whole, quality, halved).unwrap();
            assert_eq!((came.height, came.width, came.channels), (40, 48, 3));
            let sum: f64 =
                came.data.iter().zip(&whole.data).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            ((sum / whole.data.len() as f64).sqrt(), noise * 255.0)
        };
        let [best, good, poor] = [100, 90, 50].map(|quality| off(quality, false));
        assert!(best.0 < 1.5 && best.0 < good.0 && good.0 < poor.0, "{best:?} {good:?} {poor:?}");
        assert!(best.1 < 1.0 && best.1 < good.1 && 1.5 * good.1 < poor.1, "{best:?} {good:?} {poor:?}");
        // Colours that change from pixel to pixel do not survive.
        let halved = off(100, true);
        assert!(halved.0 > 10.0 && halved.1 == best.1, "{halved:?}");
    }

    #[test]
    fn no_picture_is_an_error() {
        let nothing = Raster::from_vec(0, 4, 3, Vec::new());
        assert!(through_jpeg(&nothing, 90, true).unwrap_err().to_string().contains("JPEG"));
        let wide = Raster::from_vec(1, 70_000, 3, vec![0; 210_000]);
        assert!(through_jpeg(&wide, 90, true).unwrap_err().to_string().contains("JPEG"));
    }
}
