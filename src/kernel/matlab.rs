//! MATLAB files of level 5 (v5 to v7): the one variable that is a kernel. Reading is bounded, and
//! only the variable that is taken is inflated as a whole.

use super::MAX_SIZE;
use flate2::read::ZlibDecoder;
use std::io::Read;

/// Variables beyond this many are taken for rubbish.
const MOST_VARIABLES: usize = 10_000;
/// Enough of a compressed variable for its class, dimensions and name.
const HEAD: u64 = 4096;

const MI_INT8: u32 = 1;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_DOUBLE: u32 = 9;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const CLASS_DOUBLE: u8 = 6;
const COMPLEX: u32 = 0x0800;

/// A variable's matrix, row by row.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) integers: bool,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) data: Vec<f64>,
}

type Outcome<T> = Result<T, String>;

fn damaged() -> String {
    "the MATLAB file is damaged or cut off".into()
}

/// Whether the bytes begin as a MATLAB file of level 5, or of v7.3, does.
pub(super) fn is_matlab(bytes: &[u8]) -> bool {
    bytes.len() >= 128 && (bytes[126..128] == *b"IM" || bytes[126..128] == *b"MI")
}

/// Elements one after another.
#[derive(Clone)]
struct Elements<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl<'a> Elements<'a> {
    fn word(&self, at: usize) -> Outcome<u32> {
        let word = self.bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).ok_or_else(damaged)?;
        Ok(if self.big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    /// The next element's type and content. One that is cut off is an error, unless `partly`.
    fn next(&mut self, padded: bool, partly: bool) -> Outcome<(u32, &'a [u8])> {
        let first = self.word(0)?;
        let (kind, start, size) = match first >> 16 {
            0 => (first, 8, self.word(4)? as usize),
            small @ 1..=4 => (first & 0xffff, 4, small as usize),
            _ => return Err(damaged()),
        };
        let rest = self.bytes.get(start..).ok_or_else(damaged)?;
        let content = match rest.get(..size) {
            Some(content) => content,
            None if partly => rest,
            None => return Err(damaged()),
        };
        let whole = if start == 4 {
            8
        } else if padded {
            (size.min(rest.len()) + start).next_multiple_of(8)
        } else {
            size.min(rest.len()) + start
        };
        self.bytes = self.bytes.get(whole..).unwrap_or_default();
        Ok((kind, content))
    }
}

/// What a variable is, and where the rest of its matrix lies.
struct Variable<'a> {
    name: String,
    class: u8,
    complex: bool,
    dimensions: Vec<usize>,
    /// Its content, still compressed if `compressed`.
    content: &'a [u8],
    compressed: bool,
}

impl Variable<'_> {
    fn class_name(&self) -> &'static str {
        match self.class {
            1 => "a cell array",
            2 => "a struct",
            3 => "an object",
            4 => "text",
            5 => "sparse",
            6 => "double",
            7 => "single",
            8..=15 => "whole numbers",
            _ => "of an unknown class",
        }
    }

    fn numeric(&self) -> bool {
        (6..=15).contains(&self.class)
    }

    fn shape(&self) -> String {
        self.dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
    }

    fn described(&self) -> String {
        format!("{} ({}, {})", self.name, self.shape(), self.class_name())
    }
}

/// Class, dimensions and name from the head of a matrix; leaves the rest in `elements`.
fn head(elements: &mut Elements) -> Outcome<(u8, bool, Vec<usize>, String)> {
    let big = elements.big;
    let (kind, flags) = elements.next(true, false)?;
    if kind != MI_UINT32 || flags.len() != 8 {
        return Err(damaged());
    }
    let flags = Elements { bytes: flags, big }.word(0)?;
    let (kind, sizes) = elements.next(true, false)?;
    if kind != MI_INT32 || sizes.len() < 8 || sizes.len() % 4 != 0 || sizes.len() > 128 {
        return Err(damaged());
    }
    let sizes = Elements { bytes: sizes, big };
    let dimensions = (0..sizes.bytes.len() / 4)
        .map(|i| Ok(i32::try_from(sizes.word(4 * i)?).map_err(|_| damaged())? as usize))
        .collect::<Outcome<Vec<_>>>()?;
    let (kind, name) = elements.next(true, false)?;
    if kind != MI_INT8 {
        return Err(damaged());
    }
    let printable = |&b: &u8| if b.is_ascii_graphic() { b as char } else { '?' };
    let name = name.iter().take(64).map(printable).collect();
    Ok((flags as u8, flags & COMPLEX != 0, dimensions, name))
}

fn inflated(content: &[u8], limit: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // What could be had before an error counts: a cut-off matrix is found out by its sizes.
    let _ = ZlibDecoder::new(content).take(limit).read_to_end(&mut out);
    out
}

fn variables(bytes: &[u8], big: bool) -> Outcome<Vec<Variable<'_>>> {
    let mut all = Vec::new();
    let mut elements = Elements { bytes, big };
    while !elements.bytes.is_empty() {
        if all.len() == MOST_VARIABLES {
            return Err(format!("the file holds more than {MOST_VARIABLES} variables; save the kernel alone"));
        }
        let (kind, content) = elements.next(false, false)?;
        let compressed = kind == MI_COMPRESSED;
        let (class, complex, dimensions, name) = if compressed {
            let start = inflated(content, HEAD);
            let mut outer = Elements { bytes: &start, big };
            match outer.next(true, true)? {
                (MI_MATRIX, content) => head(&mut Elements { bytes: content, big })?,
                _ => return Err(damaged()),
            }
        } else if kind == MI_MATRIX {
            if content.is_empty() {
                continue;
            }
            head(&mut Elements { bytes: content, big })?
        } else {
            continue;
        };
        all.push(Variable { name, class, complex, dimensions, content, compressed });
    }
    Ok(all)
}

fn numbers(kind: u32, bytes: &[u8], big: bool) -> Outcome<Vec<f64>> {
    macro_rules! read {
        ($t:ty) => {
            bytes
                .chunks_exact(size_of::<$t>())
                .map(|chunk| {
                    let mut word = [0; size_of::<$t>()];
                    word.copy_from_slice(chunk);
                    (if big { <$t>::from_be_bytes(word) } else { <$t>::from_le_bytes(word) }) as f64
                })
                .collect()
        };
    }
    Ok(match kind {
        1 => read!(i8),
        2 => read!(u8),
        3 => read!(i16),
        4 => read!(u16),
        5 => read!(i32),
        6 => read!(u32),
        7 => read!(f32),
        9 => read!(f64),
        12 => read!(i64),
        13 => read!(u64),
        _ => return Err(damaged()),
    })
}

/// The kernel of a MATLAB file.
pub(super) fn read(bytes: &[u8]) -> Outcome<Found> {
    if !is_matlab(bytes) {
        return Err(damaged());
    }
    let big = bytes[126] == b'M';
    let version = if big { bytes[124] } else { bytes[125] };
    if version == 2 {
        return Err(
            "a MATLAB v7.3 file (HDF5), which is not read; in MATLAB save it with save('file.mat', 'kernel', '-v7')"
                .into(),
        );
    }
    if version != 1 {
        return Err("a MATLAB file of an unknown version; save it with save('file.mat', 'kernel', '-v7')".into());
    }
    let all = variables(&bytes[128..], big)?;
    let taken = pick(&all)?;
    let store;
    let content = if taken.compressed {
        store = inflated(taken.content, (MAX_SIZE * MAX_SIZE * 8) as u64 + 2 * HEAD);
        Elements { bytes: &store, big }.next(true, false)?.1
    } else {
        taken.content
    };
    let mut elements = Elements { bytes: content, big };
    head(&mut elements)?;
    let (kind, stored) = elements.next(true, false)?;
    let columns = numbers(kind, stored, big)?;
    let (height, width) = (taken.dimensions[0], taken.dimensions[1]);
    if columns.len() != height * width {
        return Err(damaged());
    }
    let data = (0..height * width).map(|i| columns[i % width * height + i / width]).collect();
    Ok(Found { name: taken.name.clone(), integers: taken.class >= 8, height, width, data })
}

/// The variable named kernel, or the only one that could be one.
fn pick<'a, 'b>(all: &'a [Variable<'b>]) -> Outcome<&'a Variable<'b>> {
    let list = |of: &[&Variable]| of.iter().take(12).map(|v| v.described()).collect::<Vec<_>>().join(", ");
    let mut candidates: Vec<&Variable> = all.iter().filter(|v| v.name.eq_ignore_ascii_case("kernel")).collect();
    if candidates.is_empty() {
        let plane =
            |v: &&Variable| v.numeric() && v.dimensions.len() == 2 && v.dimensions.iter().product::<usize>() > 1;
        candidates = all.iter().filter(plane).collect();
    }
    let taken = match candidates.as_slice() {
        [] if all.is_empty() => return Err("the MATLAB file holds no variable".into()),
        [] => {
            let all: Vec<_> = all.iter().collect();
            return Err(format!("the MATLAB file holds no 2-D numeric variable, but {}", list(&all)));
        }
        [one] => *one,
        several => {
            return Err(format!(
                "several variables could be the kernel: {}; name one of them kernel, or save it alone",
                list(several)
            ));
        }
    };
    let name = &taken.name;
    if !taken.numeric() {
        let remedy = if taken.class == 5 { "; save full(kernel)" } else { "" };
        return Err(format!("variable '{name}' is {}, not a matrix of numbers{remedy}", taken.class_name()));
    }
    if taken.complex {
        return Err(format!("variable '{name}' is complex; save real(kernel)"));
    }
    match *taken.dimensions.as_slice() {
        [height, width] if height == 0 || width == 0 => Err(format!("variable '{name}' is empty")),
        [height, width] if height > MAX_SIZE || width > MAX_SIZE => Err(too_large(height, width)),
        [_, _] => Ok(taken),
        _ => Err(format!("variable '{name}' is {}, not a matrix", taken.shape())),
    }
}

/// What is said of a kernel beyond the largest size.
pub(super) fn too_large(height: usize, width: usize) -> String {
    format!("{width} x {height} weights are too many: at most {MAX_SIZE} x {MAX_SIZE}")
}

/// A level 5 file with one double matrix named `kernel`.
pub(super) fn write(height: usize, width: usize, data: &[f64]) -> Vec<u8> {
    let mut out = format!("{:<116}", "MATLAB 5.0 MAT-file, written by mzsr").into_bytes();
    out.extend([0; 8]);
    out.extend([0x00, 0x01, b'I', b'M']);
    let words = |out: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|w| out.extend(w.to_le_bytes()));
    let bytes = data.len() as u32 * 8;
    words(&mut out, &[MI_MATRIX, 56 + bytes]);
    words(&mut out, &[MI_UINT32, 8, u32::from(CLASS_DOUBLE), 0]);
    words(&mut out, &[MI_INT32, 8, height as u32, width as u32]);
    words(&mut out, &[MI_INT8, 6]);
    out.extend(b"kernel\0\0");
    words(&mut out, &[MI_DOUBLE, bytes]);
    for i in 0..data.len() {
        out.extend(data[i % height * width + i / height].to_le_bytes());
    }
    out
}
