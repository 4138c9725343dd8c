//! The directories of tags that TIFF files and EXIF are made of: read bounded, patched in place,
//! written little-endian.

/// A TIFF structure in memory. Every access is checked.
pub(super) struct Ifds<'a> {
    bytes: &'a [u8],
    big: bool,
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub tag: u16,
    /// Where the entry's 12 bytes begin.
    pub at: usize,
    kind: u16,
    count: u32,
    /// Where its values begin.
    value: usize,
}

/// A tag with its values, little-endian.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Tag {
    pub tag: u16,
    pub kind: u16,
    pub count: u32,
    pub data: Vec<u8>,
}

pub(super) const SHORT: u16 = 3;
pub(super) const LONG: u16 = 4;
/// No directory is read that holds more than this.
const MAX_DIRECTORY: usize = 1 << 24;

/// Bytes of a value, and of the pieces that the byte order turns.
fn unit(kind: u16) -> Option<(usize, usize)> {
    match kind {
        1 | 2 | 6 | 7 => Some((1, 1)),
        3 | 8 => Some((2, 2)),
        4 | 9 | 11 | 13 => Some((4, 4)),
        5 | 10 => Some((8, 4)),
        12 => Some((8, 8)),
        _ => None,
    }
}

impl<'a> Ifds<'a> {
    /// The structure, if it begins like one (BigTIFF does not).
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let big = match bytes.get(..4)? {
            [b'I', b'I', 42, 0] => false,
            [b'M', b'M', 0, 42] => true,
            _ => return None,
        };
        Some(Ifds { bytes, big })
    }

    pub fn u16(&self, at: usize) -> Option<u16> {
        let two = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    }

    pub fn u32(&self, at: usize) -> Option<u32> {
        let four = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    /// Where the first directory is.
    pub fn first(&self) -> Option<usize> {
        self.u32(4).map(|at| at as usize)
    }

    /// The directory's entries, as far as they lie inside.
    pub fn entries(&self, directory: usize) -> Vec<Entry> {
        let count = usize::from(self.u16(directory).unwrap_or(0));
        (0..count).map_while(|i| self.entry(directory.checked_add(2 + 12 * i)?)).collect()
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let (tag, kind, count) = (self.u16(at)?, self.u16(at + 2)?, self.u32(at + 4)?);
        let pointed = self.u32(at + 8)? as usize;
        let inline = unit(kind).is_some_and(|(size, _)| size as u64 * u64::from(count) <= 4);
        Some(Entry { tag, at, kind, count, value: if inline { at + 8 } else { pointed } })
    }

    /// Where the offset of the directory after `directory` is.
    pub fn link(&self, directory: usize) -> Option<usize> {
        directory.checked_add(2 + 12 * usize::from(self.u16(directory)?))
    }

    /// The entry of a tag.
    pub fn find(&self, directory: usize, tag: u16) -> Option<Entry> {
        self.entries(directory).into_iter().find(|entry| entry.tag == tag)
    }

    /// Value number `i` of a tag of whole numbers.
    pub fn number(&self, entry: &Entry, i: usize) -> Option<u32> {
        if i as u64 >= u64::from(entry.count) {
            return None;
        }
        match entry.kind {
            1 => self.bytes.get(entry.value.checked_add(i)?).map(|&v| u32::from(v)),
            SHORT => self.u16(entry.value.checked_add(i.checked_mul(2)?)?).map(u32::from),
            LONG | 13 => self.u32(entry.value.checked_add(i.checked_mul(4)?)?),
            _ => None,
        }
    }

    /// The first whole number of a tag in a directory.
    pub fn one(&self, directory: usize, tag: u16) -> Option<u32> {
        self.number(&self.find(directory, tag)?, 0)
    }

    /// The tags of a directory that `keep` wants and that lie inside.
    pub fn tags(&self, directory: usize, keep: impl Fn(u16) -> bool) -> Vec<Tag> {
        let mut left = MAX_DIRECTORY;
        let mut tags: Vec<Tag> = Vec::new();
        for entry in self.entries(directory).into_iter().filter(|entry| keep(entry.tag)) {
            let Some((size, piece)) = unit(entry.kind) else { continue };
            let Some(length) = size.checked_mul(entry.count as usize) else { continue };
            let Some(end) = entry.value.checked_add(length) else { continue };
            let Some(values) = self.bytes.get(entry.value..end) else { continue };
            if length > left || tags.iter().any(|tag| tag.tag == entry.tag) {
                continue;
            }
            left -= length;
            let mut data = values.to_vec();
            if self.big {
                data.chunks_exact_mut(piece).for_each(<[u8]>::reverse);
            }
            tags.push(Tag { tag: entry.tag, kind: entry.kind, count: entry.count, data });
        }
        tags
    }

    /// The bytes of a SHORT in this order.
    pub fn short(&self, v: u16) -> [u8; 2] {
        if self.big { v.to_be_bytes() } else { v.to_le_bytes() }
    }

    /// The bytes of a LONG in this order.
    pub fn long(&self, v: u32) -> [u8; 4] {
        if self.big { v.to_be_bytes() } else { v.to_le_bytes() }
    }
}

impl Tag {
    pub fn shorts(tag: u16, values: &[u16]) -> Tag {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tag { tag, kind: SHORT, count: values.len() as u32, data }
    }

    pub fn longs(tag: u16, values: &[u32]) -> Tag {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tag { tag, kind: LONG, count: values.len() as u32, data }
    }
}

/// Appends a directory to `out`, whose first byte is at `base` of the file, and says where it is;
/// `None` past 4 GiB.
pub(super) fn put_directory(out: &mut Vec<u8>, base: u64, mut tags: Vec<Tag>) -> Option<u32> {
    tags.sort_by_key(|tag| tag.tag);
    for tag in &mut tags {
        if tag.data.len() > 4 {
            if !(base + out.len() as u64).is_multiple_of(2) {
                out.push(0);
            }
            let at = u32::try_from(base + out.len() as u64).ok()?;
            out.append(&mut tag.data);
            tag.data.extend(at.to_le_bytes());
        } else {
            tag.data.resize(4, 0);
        }
    }
    if !(base + out.len() as u64).is_multiple_of(2) {
        out.push(0);
    }
    let at = u32::try_from(base + out.len() as u64).ok()?;
    out.extend((tags.len() as u16).to_le_bytes());
    for tag in &tags {
        out.extend(tag.tag.to_le_bytes());
        out.extend(tag.kind.to_le_bytes());
        out.extend(tag.count.to_le_bytes());
        out.extend(&tag.data);
    }
    out.extend([0; 4]);
    Some(at)
}
