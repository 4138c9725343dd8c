//! TensorFlow's checkpoints (TensorBundle), as far as the published weights need it.
//!
//! `PREFIX.index` is a LevelDB table (uncompressed blocks) from names to `BundleEntryProto`s;
//! `PREFIX.data-00000-of-00001` holds the tensors' bytes. Read are `MODEL/convN/kernel` (HWIO) and
//! `MODEL/convN/bias`; everything else, such as Adam's slots, is passed over.

use super::{Info, MAX_BYTES, Weights, quoted, read};
use crate::network::Architecture;
use crate::network::architecture::MAX_LAYERS;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const INDEX: &str = ".index";
const DATA: &str = ".data-00000-of-00001";
const FOOTER: usize = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// A block's kind of compression and its checksum.
const TRAILER: usize = 5;
const DT_FLOAT: u64 = 1;

type Found<T> = std::result::Result<T, String>;

/// The two files of a checkpoint.
pub(super) struct Files {
    index: PathBuf,
    data: PathBuf,
}

/// The files that `path` means: a prefix, either file, or a folder with one checkpoint. Nothing if
/// it is no checkpoint.
pub(super) fn files(path: &Path) -> Option<Files> {
    let name = path.file_name()?.to_str()?;
    let with = |stem: &str, end: &str| path.with_file_name(OsString::from(format!("{stem}{end}")));
    let pair = |stem: &str| Files { index: with(stem, INDEX), data: with(stem, DATA) };
    if let Some(stem) = name.strip_suffix(INDEX).or_else(|| name.strip_suffix(DATA)) {
        return Some(pair(stem));
    }
    if let Some((stem, _)) = name.split_once(".data-") {
        return Some(pair(stem));
    }
    let prefixed = pair(name);
    if !path.is_file() && prefixed.index.is_file() {
        return Some(prefixed);
    }
    let mut indices = std::fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut next = || indices.find(|file| file.to_str().is_some_and(|name| name.ends_with(INDEX)));
    let index = next()?;
    if next().is_none() { files(&index) } else { None }
}

/// Reads a checkpoint.
pub(super) fn load(files: &Files) -> Result<Weights> {
    let (index, data) = (read(&files.index)?, read(&files.data)?);
    let name = files.index.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    parse(&index, &data, &name)
        .map_err(|(data, message)| Error::file(if data { &files.data } else { &files.index }, message))
}

/// The weights in a checkpoint, or what is wrong with its index (false) or its data (true).
pub(super) fn parse(index: &[u8], data: &[u8], name: &str) -> std::result::Result<Weights, (bool, String)> {
    let layers = table(index).map_err(|message| (false, message))?;
    let architecture = architecture(&layers).map_err(|message| (false, message))?;
    let parameters = parameters(&layers, &architecture, data).map_err(|message| (true, message))?;
    let info = Info::unrecorded(name, "a TensorFlow checkpoint");
    let weights = Weights { architecture, parameters, info };
    weights.check().map_err(|message| (true, message))?;
    Ok(weights)
}

/// Where a tensor lies.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    dtype: u64,
    shape: Vec<usize>,
    shard: u64,
    offset: usize,
    size: usize,
    checksum: Option<u32>,
    sliced: bool,
}

/// Kernel and bias of a layer.
#[derive(Default)]
struct Pair {
    kernel: Option<Entry>,
    bias: Option<Entry>,
}

fn damaged(what: &str) -> String {
    format!("is not a whole TensorFlow checkpoint index ({what}); copy it again")
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let &[byte] = self.take(1)? else { return None };
            let bits = u64::from(byte & 127);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn size(&mut self) -> Option<usize> {
        self.varint()?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// A field of a protocol buffer: its number and value.
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Other
            }
            2 => {
                let size = self.size()?;
                Value::Bytes(self.take(size)?)
            }
            5 => Value::Fixed(self.u32()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed(u32),
    Other,
}

/// The checksum as LevelDB and TensorFlow store it.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The convolutions that the index lists, by number.
fn table(index: &[u8]) -> Found<BTreeMap<u32, Pair>> {
    let at = index.len().checked_sub(FOOTER).ok_or_else(|| damaged("it is too short"))?;
    let (blocks, footer) = index.split_at(at);
    let (handles, magic) = footer.split_at(FOOTER - 8);
    if magic != MAGIC.to_le_bytes() {
        return Err(damaged("its end is not that of a table"));
    }
    let mut handles = Reader(handles);
    // The first handle is that of a block of metadata, which nothing needs.
    let list = handle(&mut handles).and_then(|_| handle(&mut handles)).ok_or_else(|| damaged("bad footer"))?;
    let mut layers = BTreeMap::new();
    let mut header = false;
    // No block is listed twice in a good table: all of them together are no larger than the file.
    let mut budget = blocks.len();
    let list = block(blocks, list, &mut budget)?;
    each_entry(list, |_, place| {
        let place = handle(&mut Reader(place)).ok_or_else(|| damaged("bad list of blocks"))?;
        each_entry(block(blocks, place, &mut budget)?, |key, value| {
            if key.is_empty() {
                header = true;
                return check_header(value);
            }
            add(&mut layers, key, value)
        })
    })?;
    if header { Ok(layers) } else { Err(damaged("it has no header")) }
}

fn handle(reader: &mut Reader) -> Option<(usize, usize)> {
    Some((reader.size()?, reader.size()?))
}

/// The contents of a block, checked.
fn block<'a>(blocks: &'a [u8], (offset, size): (usize, usize), budget: &mut usize) -> Found<&'a [u8]> {
    let whole = size
        .checked_add(TRAILER)
        .and_then(|length| blocks.get(offset..offset.checked_add(length)?))
        .ok_or_else(|| damaged("a block lies outside"))?;
    *budget = budget.checked_sub(whole.len()).ok_or_else(|| damaged("blocks overlap"))?;
    let (checked, stored) = whole.split_at(size + 1);
    if masked(crc32c::crc32c(checked)).to_le_bytes() != stored {
        return Err(damaged("a block's checksum is wrong"));
    }
    match checked.split_last() {
        Some((0, contents)) => Ok(contents),
        _ => Err("has compressed blocks, which TensorFlow does not write; save the checkpoint again".to_owned()),
    }
}

/// Calls `f` with each key and value of a block.
fn each_entry(block: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Found<()>) -> Found<()> {
    let bad = || damaged("a bad block");
    let (body, count) = block.split_last_chunk::<4>().ok_or_else(bad)?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(4));
    let end = restarts.and_then(|size| body.len().checked_sub(size)).ok_or_else(bad)?;
    let mut reader = Reader(&body[..end]);
    let mut key: Vec<u8> = Vec::new();
    while !reader.0.is_empty() {
        let mut entry = || {
            let (shared, fresh, length) = (reader.size()?, reader.size()?, reader.size()?);
            Some((shared, reader.take(fresh)?, reader.take(length)?))
        };
        let (shared, fresh, value) = entry().ok_or_else(bad)?;
        if shared > key.len() {
            return Err(bad());
        }
        key.truncate(shared);
        key.extend_from_slice(fresh);
        f(&key, value)?;
    }
    Ok(())
}

/// BundleHeaderProto: one shard, little endian.
fn check_header(value: &[u8]) -> Found<()> {
    let mut reader = Reader(value);
    while !reader.0.is_empty() {
        match reader.field().ok_or_else(|| damaged("bad header"))? {
            (1, Value::Number(shards)) if shards != 1 => {
                return Err(format!("has {shards} data files; save the checkpoint into one"));
            }
            (2, Value::Number(endianness)) if endianness != 0 => {
                return Err("is big-endian; save the checkpoint on a little-endian machine".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Keeps `MODEL/convN/kernel` and `MODEL/convN/bias`.
fn add(layers: &mut BTreeMap<u32, Pair>, key: &[u8], value: &[u8]) -> Found<()> {
    let parsed = std::str::from_utf8(key).ok().and_then(|key| {
        let (number, part) = key.strip_prefix("MODEL/conv")?.split_once('/')?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        (digits && matches!(part, "kernel" | "bias")).then_some((key, number, part))
    });
    let Some((key, number, part)) = parsed else { return Ok(()) };
    let number: u32 = match number.parse() {
        Ok(number) if (1..=MAX_LAYERS as u32).contains(&number) => number,
        _ => return Err(format!("holds {}; a network has layers 1 to {MAX_LAYERS}", quoted(key))),
    };
    let entry = entry(value).ok_or_else(|| damaged("a bad entry"))?;
    let name = quoted(key);
    if entry.dtype != DT_FLOAT {
        return Err(format!("has {name} of type {}; save it as float32 (type {DT_FLOAT})", entry.dtype));
    }
    if entry.shard != 0 || entry.sliced {
        return Err(format!("has {name} in parts; save the checkpoint whole, into one data file"));
    }
    let pair = layers.entry(number).or_default();
    let place = if part == "kernel" { &mut pair.kernel } else { &mut pair.bias };
    if place.replace(entry).is_some() { Err(damaged("a name comes twice")) } else { Ok(()) }
}

/// BundleEntryProto.
fn entry(value: &[u8]) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut reader = Reader(value);
    while !reader.0.is_empty() {
        match reader.field()? {
            (1, Value::Number(dtype)) => entry.dtype = dtype,
            (2, Value::Bytes(shape)) => entry.shape = self::shape(shape)?,
            (3, Value::Number(shard)) => entry.shard = shard,
            (4, Value::Number(offset)) => entry.offset = offset.try_into().ok()?,
            (5, Value::Number(size)) => entry.size = size.try_into().ok()?,
            (6, Value::Fixed(checksum)) => entry.checksum = Some(checksum),
            (7, _) => entry.sliced = true,
            _ => {}
        }
    }
    Some(entry)
}

/// TensorShapeProto.
fn shape(value: &[u8]) -> Option<Vec<usize>> {
    let mut shape = Vec::new();
    let mut reader = Reader(value);
    while !reader.0.is_empty() {
        if let (2, Value::Bytes(dimension)) = reader.field()? {
            let (mut size, mut reader) = (0, Reader(dimension));
            while !reader.0.is_empty() {
                if let (1, Value::Number(number)) = reader.field()? {
                    size = number.try_into().ok()?;
                }
            }
            shape.push(size);
        }
    }
    Some(shape)
}

fn architecture(layers: &BTreeMap<u32, Pair>) -> Found<Architecture> {
    if layers.is_empty() {
        return Err("has no tensor MODEL/conv1/kernel; it is not a checkpoint of this network".to_owned());
    }
    let mut channels = Vec::new();
    for ((number, pair), expected) in layers.iter().zip(1..) {
        let (Some(kernel), Some(bias), true) = (&pair.kernel, &pair.bias, *number == expected) else {
            return Err(format!("lacks MODEL/conv{expected}/kernel or its bias; save the checkpoint again"));
        };
        let &[3, 3, input, output] = kernel.shape.as_slice() else {
            let shape = &kernel.shape;
            return Err(format!("has MODEL/conv{number}/kernel of shape {shape:?}; 3 x 3 x I x O is needed"));
        };
        if channels.is_empty() {
            channels.push(input);
        }
        if channels.last() != Some(&input) || bias.shape != [output] {
            return Err(format!("has shapes at MODEL/conv{number} that do not fit its network; use another"));
        }
        channels.push(output);
    }
    Architecture::new(channels).map_err(|error| format!("does not fit: {error}"))
}

fn parameters(layers: &BTreeMap<u32, Pair>, architecture: &Architecture, data: &[u8]) -> Found<Vec<f32>> {
    let mut out = Vec::with_capacity(architecture.parameter_count().min(MAX_BYTES / 4));
    for ((number, pair), layer) in layers.iter().zip(architecture.layers()) {
        let part = |entry: &Option<Entry>, part: &str, count: usize| {
            let name = format!("MODEL/conv{number}/{part}");
            entry.as_ref().ok_or_else(|| format!("lacks {name}")).and_then(|entry| tensor(entry, &name, count, data))
        };
        let (input, output) = (layer.input, layer.output);
        let kernel = part(&pair.kernel, "kernel", 9 * input * output)?;
        // HWIO to OIHW.
        for o in 0..output {
            for i in 0..input {
                out.extend((0..9).map(|at| kernel[(at * input + i) * output + o]));
            }
        }
        out.extend(part(&pair.bias, "bias", output)?);
    }
    Ok(out)
}

/// The values of a tensor, `count` of them.
fn tensor(entry: &Entry, name: &str, count: usize, data: &[u8]) -> Found<Vec<f32>> {
    if entry.size != 4 * count {
        return Err(format!("has {} bytes for {name}, not {}; save the checkpoint again", entry.size, 4 * count));
    }
    let bytes = entry
        .offset
        .checked_add(entry.size)
        .and_then(|end| data.get(entry.offset..end))
        .ok_or_else(|| format!("ends before {name}; copy it again"))?;
    if entry.checksum.is_some_and(|stored| stored != masked(crc32c::crc32c(bytes))) {
        return Err(format!("is damaged at {name} (its checksum is wrong); copy it again"));
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and its value.
    type Item = (Vec<u8>, Vec<u8>);

    fn varint(mut value: usize, out: &mut Vec<u8>) {
        while value >= 128 {
            out.push(value as u8 | 128);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn number(field: usize, value: usize, out: &mut Vec<u8>) {
        varint(field << 3, out);
        varint(value, out);
    }

    fn bytes(field: usize, value: &[u8], out: &mut Vec<u8>) {
        varint(field << 3 | 2, out);
        varint(value.len(), out);
        out.extend(value);
    }

    /// Writes a block with prefix-compressed keys; returns its handle.
    fn block(entries: &[Item], out: &mut Vec<u8>) -> Vec<u8> {
        let (from, mut last) = (out.len(), Vec::new());
        for (key, value) in entries {
            let shared = key.iter().zip(&last).take_while(|(a, b)| a == b).count();
            for size in [shared, key.len() - shared, value.len()] {
                varint(size, out);
            }
            out.extend(&key[shared..]);
            out.extend(value);
            last = key.clone();
        }
        out.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        let mut handle = Vec::new();
        varint(from, &mut handle);
        varint(out.len() - from, &mut handle);
        out.push(0);
        let crc = masked(crc32c::crc32c(&out[from..]));
        out.extend(crc.to_le_bytes());
        handle
    }

    fn index(entries: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        // Two data blocks.
        let (first, second) = entries.split_at(entries.len() / 2);
        let handles = [first, second].map(|part| (part.last().unwrap().0.clone(), block(part, &mut out)));
        let meta = block(&[], &mut out);
        let list = block(&handles, &mut out);
        let mut footer = [meta, list].concat();
        footer.resize(FOOTER - 8, 0);
        out.extend(footer);
        out.extend(MAGIC.to_le_bytes());
        out
    }

    fn proto(dtype: usize, shape: &[usize], offset: usize, data: &[u8]) -> Vec<u8> {
        let (mut out, mut dims) = (Vec::new(), Vec::new());
        for &size in shape {
            let mut dim = Vec::new();
            number(1, size, &mut dim);
            bytes(2, &dim, &mut dims);
        }
        number(1, dtype, &mut out);
        bytes(2, &dims, &mut out);
        number(4, offset, &mut out);
        number(5, data.len(), &mut out);
        out.push(6 << 3 | 5);
        out.extend(masked(crc32c::crc32c(data)).to_le_bytes());
        out
    }

    /// Entries and data of tensors that count up from 0.
    fn checkpoint(tensors: &[(&str, &[usize])]) -> (Vec<Item>, Vec<u8>) {
        let (mut data, mut value) = (Vec::new(), 0.0f32);
        let mut entries = vec![(Vec::new(), vec![8, 1])];
        for (name, shape) in tensors {
            let from = data.len();
            for _ in 0..shape.iter().product() {
                data.extend(value.to_le_bytes());
                value += 1.0;
            }
            entries.push((name.as_bytes().to_vec(), proto(1, shape, from, &data[from..])));
        }
        (entries, data)
    }

    const TENSORS: [(&str, &[usize]); 6] = [
        ("MODEL/conv1/bias", &[2]),
        ("MODEL/conv1/bias/Adam", &[2]),
        ("MODEL/conv1/kernel", &[3, 3, 3, 2]),
        ("MODEL/conv2/bias", &[3]),
        ("MODEL/conv2/kernel", &[3, 3, 2, 3]),
        ("global_step", &[]),
    ];

    #[test]
    fn a_small_checkpoint_is_read_and_turned() {
        let (entries, data) = checkpoint(&TENSORS);
        let index = index(&entries);
        let weights = parse(&index, &data, "small").unwrap();
        assert_eq!(weights.architecture.channels, [3, 2, 3]);
        // conv1.kernel begins at 4 (two biases and their slots): HWIO (y, x, i, o) is 4 + 6 (3 y + x) + 2 i + o.
        let at = |y: usize, x: usize, i: usize, o: usize| weights.parameters[((o * 3 + i) * 3 + y) * 3 + x];
        assert_eq!((at(0, 0, 0, 0), at(0, 0, 0, 1), at(0, 0, 2, 0)), (4.0, 5.0, 8.0));
        assert_eq!((at(0, 1, 0, 0), at(2, 1, 1, 1)), (10.0, 4.0 + 42.0 + 3.0));
        assert_eq!(weights.parameters[54..56], [0.0, 1.0]);
        assert_eq!(weights.parameters[110..], [58.0, 59.0, 60.0]);

        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("Small-5.0");
        let add = |end: &str| PathBuf::from(format!("{}{end}", prefix.display()));
        std::fs::write(add(INDEX), &index).unwrap();
        std::fs::write(add(DATA), &data).unwrap();
        for path in [prefix.clone(), add(INDEX), add(DATA), folder.path().to_owned()] {
            let loaded = Weights::load(&path).unwrap();
            assert_eq!((loaded.parameters, loaded.info.name.as_str()), (weights.parameters.clone(), "Small-5.0"));
        }
        std::fs::write(add(DATA), &data[1..]).unwrap();
        let text = Weights::load(&prefix).unwrap_err().to_string();
        assert!(text.contains(".data-00000-of-00001: "), "{text}");
    }

    #[test]
    fn damage_is_found_and_never_panics() {
        let (entries, data) = checkpoint(&TENSORS);
        let index = index(&entries);
        let right = parse(&index, &data, "w").unwrap();
        for end in 0..index.len() {
            assert!(parse(&index[..end], &data, "w").is_err());
        }
        for end in 0..data.len() - 4 {
            assert!(parse(&index, &data[..end], "w").is_err());
        }
        for at in 0..index.len() {
            for flip in 1..=255 {
                let mut wrong = index.clone();
                wrong[at] ^= flip;
                // The unused block of metadata and the footer's padding may hold anything.
                if let Ok(weights) = parse(&wrong, &data, "w") {
                    assert_eq!(weights, right);
                }
            }
        }
    }

    #[test]
    fn damage_with_good_checksums_never_panics() {
        let (entries, data) = checkpoint(&TENSORS);
        for which in 0..entries.len() {
            for at in 0..entries[which].1.len() {
                for flip in 1..=255 {
                    let mut entries = entries.clone();
                    entries[which].1[at] ^= flip;
                    if let Ok(weights) = parse(&index(&entries), &data, "w") {
                        assert!(weights.check().is_ok());
                    }
                }
                let mut entries = entries.clone();
                entries[which].1.truncate(at);
                let _ = parse(&index(&entries), &data, "w");
            }
        }
        // Blocks whose own bytes are wrong: lengths beyond the end, a shared prefix of nothing.
        let contents = [5u8, 1, 1, b'k', b'v', 0, 0, 0, 0, 1, 0, 0, 0];
        for at in 0..contents.len() {
            for value in 0..=255 {
                let mut contents = contents;
                contents[at] = value;
                let _ = each_entry(&contents, |_, _| Ok(()));
                let _ = each_entry(&contents[..at], |_, _| Ok(()));
            }
        }
    }

    #[test]
    fn other_checkpoints_are_refused_with_a_reason() {
        let refused = |entries: &[Item], data: &[u8], why: &str| {
            let (_, text) = parse(&index(entries), data, "w").unwrap_err();
            assert!(text.contains(why) && text.lines().count() == 1, "{text}");
        };
        let (entries, data) = checkpoint(&TENSORS);
        let without =
            |name: &str| -> Vec<_> { entries.iter().filter(|(key, _)| key != name.as_bytes()).cloned().collect() };
        refused(&without("MODEL/conv1/bias"), &data, "MODEL/conv1/kernel or its bias");
        refused(&without("MODEL/conv2/kernel"), &data, "MODEL/conv2/kernel or its bias");
        refused(&without(""), &data, "no header");
        let with = |name: &str, value: Vec<u8>| {
            let mut entries = entries.clone();
            entries.iter_mut().filter(|(key, _)| key == name.as_bytes()).for_each(|entry| entry.1 = value.clone());
            entries
        };
        refused(&with("", vec![8, 2]), &data, "2 data files");
        refused(&with("", vec![8, 1, 16, 1]), &data, "big-endian");
        refused(&with("MODEL/conv1/bias", proto(2, &[2], 0, &data[..8])), &data, "float32");
        refused(&with("MODEL/conv1/bias", proto(1, &[4], 0, &data[..16])), &data, "do not fit");
        refused(&with("MODEL/conv1/bias", proto(1, &[2], 0, &data[..4])), &data, "4 bytes");
        refused(&with("MODEL/conv1/kernel", proto(1, &[3, 3, 6], 0, &data)), &data, "3 x 3 x I x O");
        refused(&with("MODEL/conv1/bias", proto(1, &[2], 4, &data[..8])), &data, "checksum");
        let (other, none) = checkpoint(&[("generator/kernel", &[3]), ("x", &[1])]);
        refused(&other, &none, "not a checkpoint of this network");
        let (many, none) = checkpoint(&[("MODEL/conv99999999999/bias", &[3]), ("x", &[1])]);
        refused(&many, &none, "layers 1 to");
    }

    #[test]
    fn the_published_checkpoint_equals_the_golden_parameters() {
        let Some(shared) = std::env::var_os("MZSR_SHARED").map(PathBuf::from) else {
            println!("skipped: MZSR_SHARED is not set");
            return;
        };
        let weights = Weights::load(&shared.join("golden/tf_checkpoint/Pretrained")).unwrap();
        assert_eq!(weights.architecture, Architecture::mzsr());
        let bytes = std::fs::read(shared.join("golden/adapt.safetensors")).unwrap();
        let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut expected: Vec<f32> = Vec::new();
        for name in weights.architecture.names() {
            let data = golden.tensor(&format!("params.{name}")).unwrap().data();
            expected.extend(data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        }
        assert!(weights.parameters == expected);
    }
}
