//! Damaged photo files: an error of one line, or a picture, but never a panic.

use mzsr::Raster;
use mzsr::image::{Format, Photo, PixelKind, WriteOptions};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const FORMATS: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp];

/// EXIF with a maker and an orientation, ICC of a few bytes, noise.
fn file(format: Format, kind: PixelKind) -> Vec<u8> {
    let mut photo = Photo::new(kind, format, 19, 23);
    let mut random = Pcg64::seed_from_u64(1);
    let rgb: Vec<f32> = (0..19 * 23 * 3).map(|_| random.random()).collect();
    photo.put_rows(0, &Raster::from_vec(19, 23, 3, rgb), None);
    photo.icc = Some(vec![7; 200]);
    photo.exif = Some(b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec());
    let mut bytes = Vec::new();
    photo.encode(format, &WriteOptions::default(), &mut bytes).unwrap();
    bytes
}

fn check(bytes: &[u8], about: &str) -> bool {
    match Photo::decode(bytes) {
        Ok(photo) => {
            let count = photo.height() * photo.width() * 3;
            assert_eq!(photo.rgb8().data.len(), count, "{about}");
            assert!(photo.warnings().iter().all(|w| !w.contains('\n')), "{about}");
            // What was read of damaged metadata must also be harmless when it is written.
            for format in FORMATS.into_iter().filter(|_| count < 30_000) {
                photo.encode(format, &WriteOptions::default(), &mut Vec::new()).unwrap();
            }
            true
        }
        Err(message) => {
            assert!(!message.is_empty() && !message.contains('\n') && message.len() < 300, "{about}: {message}");
            false
        }
    }
}

#[test]
fn files_that_are_cut_off_are_refused() {
    for format in FORMATS {
        for kind in [PixelKind::new(false, false, false), PixelKind::new(true, true, true)] {
            let bytes = file(format, kind);
            assert!(check(&bytes, "whole"));
            let mut read = Vec::new();
            for length in 0..bytes.len() {
                if check(&bytes[..length], &format!("{format:?} {kind:?} cut to {length}")) {
                    read.push(length);
                }
            }
            // A PNG may lose its end and a WebP its EXIF, which comes last; nothing else.
            let lost = read.first().map_or(0, |first| bytes.len() - first);
            assert!(lost <= 34, "{format:?} {kind:?}: {lost} of {} bytes are not missed", bytes.len());
        }
    }
}

#[test]
fn mangled_files_do_no_harm() {
    let mut random = Pcg64::seed_from_u64(2);
    for format in FORMATS {
        for kind in PixelKind::all() {
            let whole = file(format, kind);
            for round in 0..300 {
                let mut bytes = whole.clone();
                for _ in 0..random.random_range(1..6) {
                    // Heads and tails hold the structure.
                    let length = bytes.len();
                    let at = match random.random_range(0..3) {
                        0 => random.random_range(0..length),
                        1 => random.random_range(0..length.min(120)),
                        _ => length - 1 - random.random_range(0..length.min(300)),
                    };
                    match random.random_range(0..4) {
                        0 => bytes[at] = random.random(),
                        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
                        2 => drop(bytes.drain(at..length.min(at + random.random_range(1..9)))),
                        _ => bytes[at] ^= 1 << random.random_range(0..8),
                    }
                    if bytes.is_empty() {
                        break;
                    }
                }
                check(&bytes, &format!("{format:?} {kind:?} {round}"));
            }
        }
    }
}

#[test]
fn mangled_exif_does_no_harm() {
    let mut random = Pcg64::seed_from_u64(3);
    let mut photo = Photo::new(PixelKind::new(true, false, false), Format::Png, 2, 2);
    for _ in 0..3000 {
        let length = random.random_range(0..80);
        let mut exif: Vec<u8> =
            (0..length).map(|_| [0, 1, 2, 3, 4, 8, 0x12, 0x69, 0x87, 0xff][random.random_range(0..10)]).collect();
        exif.splice(0..length.min(8), if random.random() { *b"II\x2a\0\x08\0\0\0" } else { *b"MM\0\x2a\0\0\0\x08" });
        photo.exif = Some(exif);
        for format in FORMATS {
            let mut bytes = Vec::new();
            photo.encode(format, &WriteOptions::default(), &mut bytes).unwrap();
            Photo::decode(&bytes).unwrap();
        }
    }
}

#[test]
fn what_is_no_photo_is_named_so() {
    for bytes in [&b""[..], b"GIF89a\x01\0\x01\0", b"hello, this is text", b"BM", b"\xff\xd8\xff", b"II\x2a\0"] {
        assert!(Photo::decode(bytes).is_err());
    }
    let missing = Photo::read(std::path::Path::new("/nonexistent/photo.png")).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/photo.png") && !missing.contains('\n'), "{missing}");
    assert!(Photo::read(&std::env::temp_dir()).unwrap_err().to_string().contains("folder"));
}

#[test]
fn bombs_are_refused_before_their_pixels_are_made() {
    let mut png = file(Format::Png, PixelKind::new(true, false, false));
    png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let message = Photo::decode(&png).unwrap_err();
    assert!(message.contains("60000 x 60000"), "{message}");
    let mut bmp = file(Format::Bmp, PixelKind::new(false, false, false));
    bmp[18..22].copy_from_slice(&65_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&65_000_u32.to_le_bytes());
    assert!(Photo::decode(&bmp).is_err());
}
