//! Kernels in files: MATLAB, NumPy, grey pictures, text.

use super::{Kernel, MAX_SIZE, matlab};
use crate::{Error, Result, whole};
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use npyz::WriterBuilder;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// A file larger than this is refused.
const MOST_BYTES: u64 = 64 << 20;
/// A sum further from 1 than this is worth a word.
const SUM_TOLERANCE: f64 = 1e-4;

/// A kernel from a file, its sum 1.
pub(super) struct FromFile {
    pub(super) kernel: Kernel,
    pub(super) variable: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Weights as they stand in a file.
struct Weights {
    height: usize,
    width: usize,
    data: Vec<f64>,
    variable: Option<String>,
    /// What the numbers are, if not fractions.
    integers: Option<&'static str>,
}

type Outcome<T> = std::result::Result<T, String>;

/// Reads and checks a file.
pub(super) fn read(path: &Path) -> Result<FromFile> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::file(
            path,
            "there is no such file; a kernel is none, gaussian:V, gaussian:L1,L2,ANGLE, gaussian:sigma=S, disk:RADIUS, motion:LENGTH,ANGLE, or a file",
        ),
        _ => Error::io(path, error),
    })?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::file(path, "larger than 64 MiB, too large for a kernel"));
    }
    let named_mat = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mat"));
    parse(&bytes, named_mat).map_err(|message| Error::file(path, message))
}

/// Reads and checks a file's bytes.
fn parse(bytes: &[u8], named_mat: bool) -> Outcome<FromFile> {
    let weights = if matlab::is_matlab(bytes) {
        let found = matlab::read(bytes)?;
        Weights {
            height: found.height,
            width: found.width,
            data: found.data,
            variable: Some(found.name),
            integers: found.integers.then_some("whole numbers"),
        }
    } else if bytes.starts_with(b"\x89HDF") {
        return Err("an HDF5 file, which is not read; from MATLAB save with save('file.mat', 'kernel', '-v7'), from Python with numpy.save".into());
    } else if bytes.starts_with(b"\x93NUMPY") {
        numpy(bytes)?
    } else if bytes.starts_with(b"\x89PNG") {
        picture(bytes, ImageFormat::Png)?
    } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        picture(bytes, ImageFormat::Tiff)?
    } else if named_mat {
        return Err(if bytes.len() >= 128 && !bytes.starts_with(b"MATLAB") {
            "no MATLAB file of level 5 (perhaps of v4); in MATLAB save it with save('file.mat', 'kernel', '-v7')".into()
        } else {
            "the MATLAB file is damaged or cut off".into()
        });
    } else {
        text(bytes)?
    };
    check(weights)
}

/// Finite weights, not too many, with a sum that can be made 1 and a centroid among them.
fn check(weights: Weights) -> Outcome<FromFile> {
    let Weights { height, width, data, variable, integers } = weights;
    if height == 0 || width == 0 || height * width != data.len() {
        return Err("the kernel is empty".into());
    }
    if height > MAX_SIZE || width > MAX_SIZE {
        return Err(matlab::too_large(height, width));
    }
    if let Some(i) = data.iter().position(|v| !v.is_finite()) {
        let (row, column) = (i / width + 1, i % width + 1);
        return Err(format!("the weight in row {row}, column {column} is not a finite number"));
    }
    let sum: f64 = data.iter().sum();
    if !sum.is_finite() || sum <= 0.0 {
        return Err(format!("the weights sum to {sum}, but must sum to more than 0 (to 1, best)"));
    }
    let kernel = Kernel { height, width, data }.normalised();
    let moments = kernel.moments();
    if kernel.data.iter().any(|v| !v.is_finite()) || !kernel.holds_centroid(&moments) {
        return Err("the weights cancel one another so far that their centroid lies outside the kernel".into());
    }
    let mut warnings = Vec::new();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        let what = integers.map_or(String::new(), |what| format!(" ({what})"));
        warnings.push(format!("the kernel's weights{what} sum to {}, not 1, and are divided by that", short(sum)));
    }
    Ok(FromFile { kernel, variable, warnings })
}

/// A number in few digits.
fn short(value: f64) -> String {
    if (1e-4..1e9).contains(&value) { format!("{}", (value * 1e6).round() / 1e6) } else { format!("{value:.4e}") }
}

fn numpy(bytes: &[u8]) -> Outcome<Weights> {
    let damaged = || String::from("the .npy file is damaged or cut off");
    // The header is checked before it is parsed: a plain matrix has a short and flat one.
    let (length, start) = match bytes.get(6) {
        Some(1) => (bytes.get(8..10).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8), 10),
        Some(2 | 3) => (bytes.get(8..12).map(|b| b.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))), 12),
        _ => (None, 0),
    };
    let length = length.ok_or_else(damaged)?;
    let count = |wanted: fn(&u8) -> bool| -> Outcome<usize> {
        let header = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(damaged)?;
        Ok(header.iter().filter(|b| wanted(b)).count())
    };
    if length > 4096 || count(|b| b"([{".contains(b))? > 8 || count(u8::is_ascii_digit)? > 18 {
        return Err("the .npy file does not hold a plain 2-D array of numbers".into());
    }
    let mut rest = bytes;
    let header = npyz::NpyHeader::from_reader(&mut rest).map_err(|_| damaged())?;
    let &[height, width] = header.shape() else {
        let shape: Vec<String> = header.shape().iter().map(u64::to_string).collect();
        return Err(format!("the array's shape is ({}), not rows and columns", shape.join(", ")));
    };
    let (height, width) = (height as usize, width as usize);
    if height > MAX_SIZE || width > MAX_SIZE {
        return Err(matlab::too_large(height, width));
    }
    let npyz::DType::Plain(kind) = header.dtype() else {
        return Err("the array holds records, not numbers".into());
    };
    let fortran = header.order() == npyz::Order::Fortran;
    macro_rules! read {
        ($t:ty) => {{
            let values = npyz::NpyFile::with_header(header, rest).into_vec::<$t>().map_err(|_| damaged())?;
            values.into_iter().map(|v| v as f64).collect::<Vec<f64>>()
        }};
    }
    use npyz::TypeChar::{Float, Int, Uint};
    let data = match (kind.type_char(), kind.size_field()) {
        (Float, 8) => read!(f64),
        (Float, 4) => read!(f32),
        (Int, 1) => read!(i8),
        (Int, 2) => read!(i16),
        (Int, 4) => read!(i32),
        (Int, 8) => read!(i64),
        (Uint, 1) => read!(u8),
        (Uint, 2) => read!(u16),
        (Uint, 4) => read!(u32),
        (Uint, 8) => read!(u64),
        _ => return Err(format!("the array's type is {kind}, which is not read; save it as float64")),
    };
    if data.len() != height * width {
        return Err(damaged());
    }
    let kernel = if fortran {
        Kernel { height: width, width: height, data }.transposed()
    } else {
        Kernel { height, width, data }
    };
    let integers = (kind.type_char() != Float).then_some("whole numbers");
    Ok(Weights { height, width, data: kernel.data, variable: None, integers })
}

fn picture(bytes: &[u8], format: ImageFormat) -> Outcome<Weights> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let (width, height) = reader.into_dimensions().map_err(|error| one_line(&error))?;
    let (height, width) = (height as usize, width as usize);
    if height > MAX_SIZE || width > MAX_SIZE {
        return Err(matlab::too_large(height, width));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let (data, what) = match reader.decode().map_err(|error| one_line(&error))? {
        DynamicImage::ImageLuma8(picture) => {
            (picture.into_raw().into_iter().map(f64::from).collect(), "8-bit picture values")
        }
        DynamicImage::ImageLuma16(picture) => {
            (picture.into_raw().into_iter().map(f64::from).collect(), "16-bit picture values")
        }
        _ => return Err("a picture of a kernel must be grey, of 8 or 16 bits, without alpha".into()),
    };
    Ok(Weights { height, width, data, variable: None, integers: Some(what) })
}

fn one_line(error: &image::ImageError) -> String {
    if matches!(error, image::ImageError::Unsupported(_)) {
        return "this kind of picture is not read: it must be grey, of 8 or 16 bits; .npy, .mat and text hold any number"
            .into();
    }
    format!("the picture cannot be read: {}", error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether commas stand for decimal points, as in `0,1 0,2`: inside of all that spaces or semicolons
/// separate.
fn decimal_commas(line: &str) -> bool {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || c == ';').filter(|word| !word.is_empty()).collect();
    let inside = |word: &&str| word.trim_matches(',').contains(',') && !word.contains('.');
    words.len() > 1 && words.iter().all(inside)
}

fn text(bytes: &[u8]) -> Outcome<Weights> {
    let unknown =
        || String::from("neither a MATLAB file, .npy, PNG, TIFF nor rows of numbers with spaces or commas between");
    let text = std::str::from_utf8(bytes).map_err(|_| unknown())?;
    let (mut height, mut width, mut data) = (0, 0, Vec::new());
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.split(['#', '%']).next().unwrap_or_default();
        let before = data.len();
        if decimal_commas(line) {
            return Err(format!(
                "line {}: decimal commas are not read, write 0.1 for 0,1; or separate with commas alone",
                number + 1
            ));
        }
        for word in line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|word| !word.is_empty()) {
            if data.len() == MAX_SIZE * MAX_SIZE {
                return Err(format!("too many weights: at most {MAX_SIZE} x {MAX_SIZE}"));
            }
            let value = word.parse::<f64>().map_err(|_| {
                if height == 0 && data.is_empty() {
                    unknown()
                } else {
                    let word: String = word.chars().take(20).flat_map(char::escape_default).collect();
                    format!("line {}: '{word}' is not a number", number + 1)
                }
            })?;
            data.push(value);
        }
        match data.len() - before {
            0 => continue,
            count if height == 0 => width = count,
            count if count != width => {
                return Err(format!("line {} has {count} numbers, those above have {width}", number + 1));
            }
            _ => {}
        }
        height += 1;
    }
    Ok(Weights { height, width, data, variable: None, integers: None })
}

impl Kernel {
    /// Writes a file, by its extension: `.mat` (level 5, variable `kernel`), `.npy`, `.txt`, or
    /// `.png` (16-bit grey, the largest weight white). A file of that name is replaced at once, or
    /// stays as it was.
    ///
    /// # Errors
    /// Another extension; negative weights in a PNG; a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let bytes = match extension.as_str() {
            "mat" => matlab::write(self.height, self.width, &self.data),
            "npy" => self.to_npy().map_err(|error| Error::io(path, error))?,
            "txt" | "csv" => {
                let separator = if extension == "csv" { "," } else { " " };
                let line =
                    |row: &[f64]| row.iter().map(|v| format!("{v:e}")).collect::<Vec<_>>().join(separator) + "\n";
                self.data.chunks(self.width.max(1)).map(line).collect::<String>().into_bytes()
            }
            "png" => {
                if self.data.iter().any(|&v| v < 0.0) {
                    return Err(Error::file(
                        path,
                        "a PNG cannot hold this kernel's negative weights; use .mat, .npy or .txt",
                    ));
                }
                self.picture(1).map_err(|message| Error::file(path, message))?
            }
            _ => return Err(Error::file(path, "a kernel is written as .mat, .npy, .txt or .png")),
        };
        replace(path, &bytes)
    }

    /// Writes a grey PNG to look at: each weight a square, black for zero and below, white for the
    /// largest.
    ///
    /// # Errors
    /// An extension other than `.png`; a file that cannot be written.
    pub fn save_picture(&self, path: &Path) -> Result<()> {
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            return Err(Error::file(path, "the picture is written as .png"));
        }
        let side = (480 / self.height.max(self.width).max(1)).clamp(1, 32);
        let bytes = self.picture(side).map_err(|message| Error::file(path, message))?;
        replace(path, &bytes)
    }

    fn to_npy(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::new().default_dtype().shape(&[self.height as u64, self.width as u64]);
        let mut writer = options.writer(&mut bytes).begin_nd()?;
        writer.extend(self.data.iter())?;
        writer.finish()?;
        Ok(bytes)
    }

    /// A 16-bit PNG, each weight `side` × `side` pixels.
    fn picture(&self, side: usize) -> Outcome<Vec<u8>> {
        let most = self.data.iter().copied().fold(0.0, f64::max);
        let scale = if most > 0.0 { 65535.0 / most } else { 0.0 };
        let (height, width) = (self.height * side, self.width * side);
        let grey = |i: usize| (self.data[i / width / side * self.width + i % width / side] * scale).round() as u16;
        let pixels: Vec<u16> = (0..height * width).map(grey).collect();
        let picture = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width as u32, height as u32, pixels)
            .ok_or("the picture is too large")?;
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageLuma16(picture).write_to(&mut bytes, ImageFormat::Png).map_err(|error| error.to_string())?;
        Ok(bytes.into_inner())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    whole::write(path, |file| file.write_all(bytes)).map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_never_panic() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels");
        let try_one = |bytes: &[u8], named_mat| match parse(bytes, named_mat) {
            Ok(read) => assert!((read.kernel.data.iter().sum::<f64>() - 1.0).abs() < 1e-6),
            Err(error) => assert!(!error.contains('\n'), "{error}"),
        };
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let named_mat = path.extension().is_some_and(|e| e == "mat");
            for length in 0..bytes.len() {
                try_one(&bytes[..length], named_mat);
            }
            for at in 0..bytes.len() {
                for flip in [0xff, 0x01, 0x02, 0x10, 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= flip;
                    try_one(&bytes, named_mat);
                }
            }
        }
    }
}
