//! Where the pictures of a data set are, in the layouts that other projects use.

use crate::image::paths::images_in;
use crate::{Error, Raster, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Other names of the same pictures.
const ALIASES: &[&[&str]] = &[&["BSD100", "B100", "BSDS100"]];
/// Folders of folders: our own, KAIR's, BasicSR's, EDSR's.
const ROOTS: [&str; 4] = ["", "testsets", "datasets", "benchmark"];
/// Where the true pictures lie in a set's folder.
const INSIDE: [&str; 5] = ["", "HR", "original", "GT", "GTmod12"];

/// The pictures of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The folder.
    pub folder: PathBuf,
    /// Its pictures, sorted by name.
    pub files: Vec<PathBuf>,
    /// Something to know about them.
    pub note: Option<String>,
}

/// Looks for the set called `name` under `data`: DATA/NAME, whatever the letters' case, with the
/// pictures in it or in HR, original, GT or GTmod12; also below testsets (KAIR), datasets (BasicSR)
/// and benchmark (EDSR); or SelfExSR's NAME/image_SRF_2 with names that end in _HR.
///
/// # Errors
/// No such pictures; the message names the layout that is expected.
pub fn find(data: &Path, name: &str) -> Result<Found> {
    let names = ALIASES.iter().find(|names| names.iter().any(|one| one.eq_ignore_ascii_case(name)));
    let mut names: Vec<&str> = names.map_or_else(Vec::new, |names| names.to_vec());
    names.insert(0, name);
    for root in ROOTS {
        for name in &names {
            for folder in folders_called(&data.join(root), name) {
                if let Some(found) = inside(&folder) {
                    return Ok(found);
                }
            }
        }
    }
    let (place, data) = (data.join(name), data.display());
    Err(Error::file(
        place,
        format!(
            "no such data set: put its pictures there ({data}/{name}/*.png; {data}/{name}/HR, \
             {data}/testsets/{name} and {data}/datasets/{name}/GTmod12 are found too), or name the folder above it \
             with --data"
        ),
    ))
}

/// Folders below `root` called `name`, the exact name first. A name with folders in it is taken as
/// it is.
fn folders_called(root: &Path, name: &str) -> Vec<PathBuf> {
    let exact = root.join(name);
    if exact.is_dir() {
        return vec![exact];
    }
    let mut all: Vec<PathBuf> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().eq_ignore_ascii_case(name))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    all.sort();
    all
}

/// The true pictures of a set's folder.
fn inside(folder: &Path) -> Option<Found> {
    for part in INSIDE {
        let folder = if part.is_empty() { folder.to_owned() } else { folder.join(part) };
        if let Ok(files) = images_in(&folder) {
            let note = (part == "GTmod12").then(|| {
                format!(
                    "{}: cut to multiples of 12; figures can differ in the second decimal from those of whole pictures",
                    folder.display()
                )
            });
            return Some(Found { folder, files, note });
        }
    }
    let folder = folder.join("image_SRF_2");
    let files: Vec<PathBuf> = images_in(&folder)
        .ok()?
        .into_iter()
        .filter(|file| file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_HR")))
        .collect();
    (!files.is_empty()).then_some(Found { folder, files, note: None })
}

/// A picture of `size` × `size` pixels: smooth shades, edges of all directions, lines that become
/// finer, and text-like strokes. The same everywhere.
pub fn draw(size: usize) -> Raster<u8> {
    let mut picture = Raster::new(size, size, 3);
    let unit = size as f64;
    for y in 0..size {
        for x in 0..size {
            let (u, v) = (x as f64 / unit, y as f64 / unit);
            let (dx, dy) = (u - 0.5, v - 0.5);
            let radius = dx.hypot(dy);
            // Rings whose spacing falls outwards, to four pixels at the corners.
            let rings = 0.5 + 0.5 * (0.55 * radius * radius * unit).cos();
            let spokes = if (dy.atan2(dx) * 12.0).sin() > 0.0 { 1.0 } else { 0.0 };
            let strokes = if (x / 3 + y / 5) % 7 == 0 || (x * 2 + y) % 23 < 2 { 0.0 } else { 1.0 };
            let light = match (u < 0.5, v < 0.5) {
                (true, true) => rings,
                (false, true) => 0.2 + 0.6 * spokes * (1.0 - radius),
                (true, false) => 0.3 + 0.5 * u + 0.2 * (40.0 * v).sin() * rings,
                (false, false) => 0.15 + 0.7 * strokes * (1.0 - 0.5 * v),
            };
            let at = (y * size + x) * 3;
            for (c, tint) in [1.0, 0.9 - 0.2 * u, 0.7 + 0.3 * v].into_iter().enumerate() {
                picture.data[at + c] = (light * tint * 255.0).clamp(0.0, 255.0).round() as u8;
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn known_layouts_are_found() {
        for (file, name, part) in [
            ("Set5/baby.png", "Set5", "Set5"),
            ("testsets/set5/baby.png", "Set5", "testsets/set5"),
            ("datasets/Set5/GTmod12/baby.png", "Set5", "datasets/Set5/GTmod12"),
            ("benchmark/B100/HR/1.png", "BSD100", "benchmark/B100/HR"),
            ("Urban100/image_SRF_2/img_001_SRF_2_HR.png", "Urban100", "Urban100/image_SRF_2"),
            ("my/own/a.jpg", "my/own", "my/own"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            touch(folder.path(), file);
            let found = find(folder.path(), name).unwrap();
            assert_eq!((found.folder, found.files.len()), (folder.path().join(part), 1));
            assert_eq!(found.note.is_some(), file.contains("GTmod12"));
        }
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), "Set5/readme.txt");
        let error = find(folder.path(), "Set5").unwrap_err().to_string();
        assert!(error.contains("Set5/*.png") && error.contains("--data") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn drawn_pictures_are_not_flat() {
        let picture = draw(64);
        let (least, most) = (picture.data.iter().min().unwrap(), picture.data.iter().max().unwrap());
        assert!(most - least > 150);
        assert_eq!(picture, draw(64));
    }
}
