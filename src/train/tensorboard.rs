//! TensorBoard event files: records (TFRecord) of protobuf `Event` messages, by hand.
//!
//! A record is its length (u64), the masked CRC-32C of those 8 bytes, the message, and the
//! masked CRC-32C of the message; all little-endian.

use crate::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of events. It is not buffered: what was written survives a kill.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// TensorFlow's mask, which keeps a checksum of checksums from being trivial.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A message as a record.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(crc32c::crc32c(&length)).to_le_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(&masked(crc32c::crc32c(message)).to_le_bytes());
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

// Wire types of protobuf: 0 is a varint, 1 eight bytes, 2 bytes with their length, 5 four bytes.

fn put_varint(field: u8, value: u64, out: &mut Vec<u8>) {
    out.push(field << 3);
    varint(value, out);
}

fn put_double(field: u8, value: f64, out: &mut Vec<u8>) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn put_float(field: u8, value: f32, out: &mut Vec<u8>) {
    out.push(field << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `Event { wall_time: 1, step: 2, file_version: 3, summary: 5, session_log: 7 }`.
fn event(wall_time: f64, step: u64, field: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_double(1, wall_time, &mut out);
    put_varint(2, step, &mut out);
    put_bytes(field, payload, &mut out);
    out
}

/// `Summary { value: 1 [{ tag: 1, simple_value: 2 }] }`.
fn summary(scalars: &[(&str, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in scalars {
        let mut one = Vec::new();
        put_bytes(1, tag.as_bytes(), &mut one);
        put_float(2, *value as f32, &mut one);
        put_bytes(1, &one, &mut out);
    }
    out
}

impl EventFile {
    /// A new file in `folder`, for steps from `first_step` on: TensorBoard then forgets those of
    /// earlier files, which a killed run may have written beyond its last checkpoint.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(folder: &Path, first_step: u64) -> Result<Self> {
        let now = now();
        // TensorBoard reads the files of a folder in the order of their names.
        let name = format!("events.out.tfevents.{:010}.mzsr.{}", now as u64, std::process::id());
        let path = folder.join(name);
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        let mut events = EventFile { path, file };
        events.put(&event(now, 0, 3, b"brain.Event:2"))?;
        let mut start = Vec::new();
        put_varint(1, 1, &mut start); // SessionLog { status: 1 = START }
        events.put(&event(now, first_step, 7, &start))?;
        Ok(events)
    }

    /// Values at a step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        self.put(&event(now(), step, 5, &summary(scalars)))
    }

    fn put(&mut self, message: &[u8]) -> Result<()> {
        self.file.write_all(&record(message)).map_err(|error| Error::io(&self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_varints_are_the_published_ones() {
        // RFC 3720, B.4: 32 bytes of zeros; and the check value of CRC-32C.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(0), 0xa282_ead8);
        // The mask undone, as TensorFlow's `Unmask`.
        let back = masked(0x1234_5678).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(back, 0x1234_5678);
        let mut out = Vec::new();
        varint(300, &mut out);
        assert_eq!(out, [0xac, 0x02]);
    }

    #[test]
    fn a_record_is_what_tensorflow_writes() {
        // tf.io.TFRecordWriter, one record b"abc".
        let made = record(b"abc");
        assert_eq!(made.len(), 8 + 4 + 3 + 4);
        assert_eq!(made[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(made[8..12], masked(crc32c::crc32c(&made[..8])).to_le_bytes());
        assert_eq!(&made[12..15], b"abc");
        assert_eq!(made[15..], masked(crc32c::crc32c(b"abc")).to_le_bytes());
    }

    #[test]
    fn an_event_is_what_protobuf_writes() {
        let made = event(1.5, 7, 5, &summary(&[("loss", 0.5)]));
        let wanted = [
            &[0x09][..],
            &1.5f64.to_le_bytes(),
            &[0x10, 7],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15],
            &0.5f32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(made, wanted);
    }
}
