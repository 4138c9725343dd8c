//! Results by content: a cell is computed once for the same picture, degradation, method and
//! version, whatever suite asks for it.

use crate::degrade::Degradation;
use crate::{Error, Raster, Result, whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Raised whenever something here or below changes what results are, within a version.
const GENERATION: u32 = 5;

/// How close a result is to the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// In dB; none for a result equal to the truth.
    pub psnr: Option<f64>,
    /// 1 for equal pictures.
    pub ssim: f64,
}

/// The result of a method on a picture under a degradation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Where there is a truth.
    pub scores: Option<Scores>,
    /// The root mean square of D(result) − small picture, in 8-bit levels.
    pub consistency: f64,
    /// How long it took, small picture in memory to result in memory.
    pub seconds: f64,
    /// The engine that it was computed on.
    pub engine: String,
    /// A part of the result, as PNG in base64: the same part for every method.
    pub crop: String,
}

/// What identifies a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key for a picture (the true one, or without truth the small one).
    pub fn new(picture: &Raster<u8>, truth: bool, degradation: &Degradation, method: &[u8; 32], repeats: usize) -> Key {
        let mut hash = Sha256::new();
        let version = env!("CARGO_PKG_VERSION");
        hash.update(format!("mzsr {version} generation {GENERATION} truth {truth} repeats {repeats} "));
        hash.update(format!("picture {} {} {} ", picture.height, picture.width, picture.channels));
        hash.update(&picture.data);
        let phase = degradation.samples_corners();
        hash.update(format!(" scale {:?} {} corners {phase} ", degradation.scale(), degradation.downsample()));
        if let Some(kernel) = degradation.kernel() {
            hash.update(format!("kernel {} {} ", kernel.height, kernel.width));
            kernel.data.iter().for_each(|weight| hash.update(weight.to_le_bytes()));
        }
        hash.update(method);
        Key(hash.finalize().into())
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The folder of the cells.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cells in `folder`, which is made if need be.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn open(folder: &Path) -> Result<Cache> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        Ok(Cache { folder: folder.to_owned() })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.json", key.hex()))
    }

    /// The cell, if it is there and whole.
    pub fn get(&self, key: &Key) -> Option<Cell> {
        serde_json::from_slice(&fs::read(self.path(key)).ok()?).ok()
    }

    /// Keeps a cell.
    ///
    /// # Errors
    /// What the system says.
    pub fn put(&self, key: &Key, cell: &Cell) -> Result<()> {
        let path = self.path(key);
        let text = serde_json::to_vec(cell).map_err(|error| Error::Numeric(error.to_string()))?;
        whole::write(&path, |file| file.write_all(&text)).map_err(|error| Error::io(&path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Downsample;
    use crate::kernel::Kernel;

    #[test]
    fn a_key_changes_with_everything_that_a_result_depends_on() {
        let picture = Raster::from_vec(2, 3, 3, (0..18).collect::<Vec<u8>>());
        let kernel = |variance| Some(Kernel::gaussian(variance, variance, 0.0, 5));
        let d = |scale, kernel, how| Degradation::new(scale, kernel, how).unwrap();
        let (direct, bicubic) = (Downsample::Direct, Downsample::Bicubic);
        let mut other = picture.clone();
        other.data[17] = 99;
        let mut turned = picture.clone();
        (turned.height, turned.width) = (3, 2);
        let keys = [
            Key::new(&picture, true, &d(2.0, kernel(1.0), direct), &[0; 32], 1),
            Key::new(&other, true, &d(2.0, kernel(1.0), direct), &[0; 32], 1),
            Key::new(&turned, true, &d(2.0, kernel(1.0), direct), &[0; 32], 1),
            Key::new(&picture, false, &d(2.0, kernel(1.0), direct), &[0; 32], 1),
            Key::new(&picture, true, &d(2.2, kernel(1.0), direct), &[0; 32], 1),
            Key::new(&picture, true, &d(2.0, kernel(1.1), direct), &[0; 32], 1),
            Key::new(&picture, true, &d(2.0, kernel(1.0), bicubic), &[0; 32], 1),
            Key::new(&picture, true, &d(2.0, None, bicubic), &[0; 32], 1),
            Key::new(&picture, true, &d(2.0, kernel(1.0), direct), &[1; 32], 1),
            Key::new(&picture, true, &d(2.0, kernel(1.0), direct), &[0; 32], 2),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], Key::new(&picture, true, &d(2.0, kernel(1.0), direct), &[0; 32], 1));
    }

    #[test]
    fn cells_come_back_and_damaged_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let d = Degradation::new(2.0, None, Downsample::Bicubic).unwrap();
        let key = Key::new(&Raster::new(1, 1, 3), true, &d, &[0; 32], 1);
        assert_eq!(cache.get(&key), None);
        let cell = Cell {
            scores: Some(Scores { psnr: Some(33.123456789012345), ssim: 0.9 }),
            consistency: 0.1 + 0.2,
            seconds: 1.0 / 3.0,
            engine: "cpu".into(),
            crop: "AAAA".into(),
        };
        cache.put(&key, &cell).unwrap();
        assert_eq!(cache.get(&key), Some(cell));
        fs::write(cache.path(&key), b"{").unwrap();
        assert_eq!(cache.get(&key), None);
    }
}
