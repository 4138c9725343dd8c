//! Which input goes to which output.

use super::Format;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// One photo to be read and where its result goes; `-` is stdin or stdout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The photo.
    pub input: PathBuf,
    /// The result.
    pub output: PathBuf,
}

/// Whether the name has the extension of a format that is read.
pub fn is_image(path: &Path) -> bool {
    Format::of_path(path).is_some()
}

pub(super) fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Pairs each photo with its result. A folder stands for the images in it, by name, without its
/// folders. One photo goes to `output`, or under its own name into `output` when that is a folder
/// or ends with `/`; several photos, or a folder, go under their own names into the folder
/// `output`, which is made. A name without a known extension gets `.png` there.
///
/// # Errors
/// Nothing to do; an output that is no folder where one is needed; two inputs to one output; an
/// output that is an input.
pub fn pair(inputs: &[PathBuf], output: &Path) -> Result<Vec<Pair>> {
    let mut files = Vec::new();
    let mut many = inputs.len() > 1;
    for input in inputs {
        if !is_stdio(input) && input.is_dir() {
            many = true;
            files.extend(images_in(input)?);
        } else if inputs.len() == 1 && !is_stdio(input) {
            fs::metadata(input).map_err(|e| Error::io(input, e))?;
            files.push(input.clone());
        } else {
            files.push(input.clone());
        }
    }
    if files.is_empty() {
        return Err(Error::input("no input: name a photo, a folder of photos, or - for stdin"));
    }
    let into = !is_stdio(output) && (many || output.is_dir() || ends_with_separator(output));
    if !into {
        if many {
            return Err(Error::input("several photos cannot go to stdout; name an output folder"));
        }
        let pairs: Vec<_> = files.into_iter().map(|input| Pair { input, output: output.to_owned() }).collect();
        refuse_clashes(&pairs)?;
        return Ok(pairs);
    }
    if output.exists() && !output.is_dir() {
        return Err(Error::file(output, "is a file; several photos need a folder as the output"));
    }
    if !output.exists() && !ends_with_separator(output) && is_image(output) {
        return Err(Error::file(output, "looks like a file; several photos need a folder as the output"));
    }
    let mut pairs = Vec::with_capacity(files.len());
    for input in files {
        let output = output.join(output_name(&input)?);
        pairs.push(Pair { input, output });
    }
    refuse_clashes(&pairs)?;
    fs::create_dir_all(output).map_err(|e| Error::io(output, e))?;
    Ok(pairs)
}

/// The images of a folder, sorted by name; hidden files are left out.
///
/// # Errors
/// A folder that cannot be read, or that holds none.
pub fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && is_image(&path) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::file(folder, "no PNG, JPEG, WebP, TIFF or BMP files in this folder"));
    }
    files.sort();
    Ok(files)
}

fn ends_with_separator(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(std::path::is_separator)
}

/// The input's file name, with an extension that can be written.
fn output_name(input: &Path) -> Result<OsString> {
    if is_stdio(input) {
        return Err(Error::input("stdin has no name; give it an output file instead of a folder"));
    }
    let Some(name) = input.file_name() else {
        return Err(Error::file(input, "is not the name of a file"));
    };
    let mut name = name.to_owned();
    if !is_image(input) {
        name.push(".png");
    }
    Ok(name)
}

fn refuse_clashes(pairs: &[Pair]) -> Result<()> {
    let inputs: HashMap<PathBuf, &Path> =
        pairs.iter().filter(|p| !is_stdio(&p.input)).map(|p| (true_path(&p.input), p.input.as_path())).collect();
    let mut outputs: HashMap<PathBuf, &Path> = HashMap::new();
    for pair in pairs.iter().filter(|p| !is_stdio(&p.output)) {
        let output = true_path(&pair.output);
        if let Some(input) = inputs.get(&output) {
            return Err(Error::file(input, "is an input and would be overwritten; name another output"));
        }
        if let Some(other) = outputs.insert(output, &pair.input) {
            let (one, two) = (other.display(), pair.input.display());
            let message = format!("{one} and {two} would both be written here; give them different names");
            return Err(Error::file(&pair.output, message));
        }
    }
    if pairs.iter().filter(|p| is_stdio(&p.input)).count() > 1 {
        return Err(Error::input("stdin (-) can be given once only"));
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn true_path(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return path.to_owned(),
    };
    let folder = folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned());
    match path.file_name() {
        Some(name) => folder.join(name),
        None => folder,
    }
}
