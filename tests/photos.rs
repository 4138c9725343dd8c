//! Photo files: out and in again, in every format and kind, with metadata.

use mzsr::Raster;
use mzsr::image::{Format, Photo, PixelKind, WriteOptions};

const FORMATS: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp];
const OPTIONS: WriteOptions = WriteOptions { jpeg_quality: 95 };

/// A smooth picture, different in every channel, of `height` x `width`.
fn picture(kind: PixelKind, format: Format, height: usize, width: usize) -> Photo {
    let mut photo = Photo::new(kind, format, height, width);
    let mut rgb = Raster::<f64>::new(height, width, 3);
    let mut alpha = Raster::<f64>::new(height, width, 1);
    for y in 0..height {
        for x in 0..width {
            let (v, u) = (y as f64 / height as f64, x as f64 / width as f64);
            let at = y * width + x;
            rgb.data[at * 3..at * 3 + 3].copy_from_slice(&[0.2 + 0.6 * u, 0.9 - 0.7 * v, 0.3 + 0.3 * (u + v)]);
            alpha.data[at] = 1.0 - 0.9 * u * v;
        }
    }
    photo.put_rows(0, &rgb, Some(&alpha));
    photo
}

/// EXIF of either byte order: maker, orientation, and the sizes in pixels.
fn exif(big: bool, orientation: u16) -> Vec<u8> {
    let two = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let four = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut out = if big { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
    out.extend(four(8));
    let entry = |out: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        out.extend(two(tag));
        out.extend(two(kind));
        out.extend(four(count));
        out.extend(value);
    };
    let short = |v: u16| [two(v)[0], two(v)[1], 0, 0];
    out.extend(two(3));
    entry(&mut out, 0x10f, 2, 6, four(50));
    entry(&mut out, 0x112, 3, 1, short(orientation));
    entry(&mut out, 0x8769, 4, 1, four(56));
    out.extend(four(0));
    assert_eq!(out.len(), 50);
    out.extend(b"Maker\0");
    out.extend(two(3));
    entry(&mut out, 0x9000, 7, 4, *b"0230");
    entry(&mut out, 0xa002, 3, 1, short(7));
    entry(&mut out, 0xa003, 3, 1, short(5));
    out.extend(four(0));
    out
}

/// Something that begins like an ICC profile, too long for one segment of a JPEG.
fn icc(space: &[u8; 4]) -> Vec<u8> {
    let mut out: Vec<u8> = (0..70_000_u32).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect();
    out[..4].copy_from_slice(&70_000_u32.to_be_bytes());
    out[16..20].copy_from_slice(space);
    out
}

fn there_and_back(photo: &Photo, format: Format) -> (Photo, Vec<String>) {
    let mut bytes = Vec::new();
    let warnings = photo.encode(format, &OPTIONS, &mut bytes).unwrap();
    (Photo::decode(&bytes).unwrap(), warnings)
}

#[test]
fn every_format_keeps_every_kind_that_it_holds() {
    for format in FORMATS {
        for kind in PixelKind::all() {
            let space = if kind.is_grey() { b"GRAY" } else { b"RGB " };
            let mut photo = picture(kind, format, 37, 53);
            photo.icc = Some(icc(space));
            photo.exif = Some(exif(true, 1));
            let (back, warnings) = there_and_back(&photo, format);
            let about = format!("{format:?} {kind:?} {warnings:?}");
            assert_eq!((back.height(), back.width(), back.format()), (37, 53, format), "{about}");
            assert!(back.warnings().is_empty(), "{about} {:?}", back.warnings());
            let lossless = matches!(format, Format::Png | Format::Tiff);
            if lossless {
                assert_eq!(back.kind(), kind, "{about}");
                assert!(warnings.is_empty(), "{about}");
                assert!(back.rgb::<f64>() == photo.rgb() && back.alpha::<f64>() == photo.alpha(), "{about}");
            }
            if format == Format::WebP || format == Format::Bmp {
                assert_eq!(back.kind().has_alpha(), kind.has_alpha(), "{about}");
                assert!(back.rgb8() == photo.rgb8(), "{about}");
                assert_eq!(warnings.iter().any(|w| w.contains("8 bits")), kind.is_sixteen(), "{about}");
            }
            if format == Format::Jpeg {
                assert_eq!(back.kind(), PixelKind::new(kind.is_grey(), false, false), "{about}");
                assert_eq!(warnings.iter().any(|w| w.contains("alpha")), kind.has_alpha(), "{about}");
                if !kind.has_alpha() {
                    let far = back.rgb8().data.iter().zip(&photo.rgb8().data).map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(far.unwrap() <= 6, "{about} {far:?}");
                }
            }
            if format == Format::Bmp {
                assert_eq!(back.kind().is_grey(), kind.is_grey() && !kind.has_alpha(), "{about}");
                assert!(back.icc.is_none() && back.exif.is_none());
                assert!(warnings.iter().any(|w| w.contains("ICC")) && warnings.iter().any(|w| w.contains("EXIF")));
                continue;
            }
            if format == Format::WebP && kind.is_grey() {
                assert!(back.icc.is_none() && warnings.iter().any(|w| w.contains("grey ICC")), "{about}");
            } else {
                assert!(back.icc == photo.icc, "{about}");
            }
            let kept = back.exif.unwrap();
            assert!(kept.windows(6).any(|w| w == b"Maker\0"), "{about}");
            let sizes: [&[u8]; 2] = if format == Format::Tiff {
                [&[2, 0xa0, 3, 0, 1, 0, 0, 0, 53, 0], &[3, 0xa0, 3, 0, 1, 0, 0, 0, 37, 0]]
            } else {
                [&[0xa0, 2, 0, 3, 0, 0, 0, 1, 0, 53], &[0xa0, 3, 0, 3, 0, 0, 0, 1, 0, 37]]
            };
            assert!(sizes.iter().all(|size| kept.windows(10).any(|w| w == *size)), "{about}");
        }
    }
}

#[test]
fn orientation_is_applied_and_reset() {
    let kind = PixelKind::new(false, false, false);
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff] {
        for (big, orientation) in (1..=8).flat_map(|o| [(false, o), (true, o)]) {
            let plain = picture(kind, format, 24, 40);
            let mut bytes = Vec::new();
            plain.encode(format, &OPTIONS, &mut bytes).unwrap();
            let stored = Photo::decode(&bytes).unwrap().rgb8();
            // The writer says 1 whatever it is given, so the number is changed in the file.
            let mut photo = plain.clone();
            photo.exif = Some(exif(big, 1));
            bytes.clear();
            photo.encode(format, &OPTIONS, &mut bytes).unwrap();
            let big = big && format != Format::Tiff;
            let entry: &[u8] =
                if big { &[1, 0x12, 0, 3, 0, 0, 0, 1, 0, 1] } else { &[0x12, 1, 3, 0, 1, 0, 0, 0, 1, 0] };
            let at = bytes.windows(10).rposition(|w| w == entry).unwrap();
            bytes[at + if big { 9 } else { 8 }] = orientation as u8;
            if format == Format::Png {
                mend_png(&mut bytes);
            }
            let back = Photo::decode(&bytes).unwrap();
            let expected = match orientation {
                1 => stored,
                2 => stored.flip_horizontal(),
                3 => stored.flip_horizontal().flip_vertical(),
                4 => stored.flip_vertical(),
                5 => stored.transpose(),
                6 => stored.transpose().flip_horizontal(),
                7 => stored.transpose().flip_horizontal().flip_vertical(),
                _ => stored.transpose().flip_vertical(),
            };
            assert_eq!(back.rgb8(), expected, "{format:?} {orientation} {big}");
            let kept = back.exif.clone().unwrap();
            assert!(kept.windows(10).any(|w| w == entry), "{format:?} {orientation} {big}");
            let (again, _) = there_and_back(&back, Format::Png);
            assert_eq!(again.rgb8(), expected, "turned once only");
        }
    }
}

/// Puts the checksums of a PNG's chunks right.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if at + 12 + length > bytes.len() {
            return;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[at + 4..at + 8 + length]);
        bytes[at + 8 + length..at + 12 + length].copy_from_slice(&crc.sum().to_be_bytes());
        at += 12 + length;
    }
}

#[test]
fn colours_under_zero_alpha_do_not_bleed() {
    for kind in PixelKind::all().filter(|kind| kind.has_alpha()) {
        let mut photo = Photo::new(kind, Format::Png, 20, 30);
        let mut rgb = Raster::<f32>::new(20, 30, 3);
        let mut alpha = Raster::<f32>::new(20, 30, 1);
        for y in 0..20 {
            for x in 0..30 {
                let seen = (5..15).contains(&y) && (8..22).contains(&x);
                let at = y * 30 + x;
                // Black hides around a bright square.
                rgb.data[at * 3..at * 3 + 3].fill(if seen { 0.8 } else { 0.0 });
                alpha.data[at] = if seen { 1.0 } else { 0.0 };
            }
        }
        photo.put_rows(0, &rgb, Some(&alpha));
        let filled = photo.rgb::<f32>();
        assert!(filled.data.iter().all(|v| (v - 0.8).abs() < 3e-3), "{kind:?}");
        assert_eq!(filled, photo.rgb::<f32>());
        assert_eq!(photo.alpha::<f32>().unwrap(), alpha);
        let (back, _) = there_and_back(&photo, Format::Png);
        assert_eq!(back.rgb8().pixel(0, 0), [0, 0, 0], "what hides is kept as it is");
    }
    let mut hidden = Photo::new(PixelKind::new(false, true, false), Format::Png, 4, 4);
    hidden.put_rows(0, &Raster::<f32>::from_vec(4, 4, 3, vec![0.2; 48]), Some(&Raster::new(4, 4, 1)));
    assert!(hidden.rgb::<f32>().data.iter().all(|&v| v == 0.2), "nothing seen, nothing changed");
}

#[test]
fn values_are_clipped_and_rounded_half_to_even() {
    let mut photo = Photo::new(PixelKind::new(false, false, false), Format::Png, 2, 2);
    let row = [-1.0, f64::NAN, 7.0, 0.5 / 255.0, 1.5 / 255.0, 2.5 / 255.0];
    photo.put_rows(1, &Raster::from_vec(1, 2, 3, row.to_vec()), None);
    assert_eq!(photo.rgb8().row(0), [0; 6]);
    assert_eq!(photo.rgb8().row(1), [0, 0, 255, 0, 2, 2]);
    // Rows past the end are left out.
    photo.put_rows(1, &Raster::from_vec(2, 2, 3, vec![1.0_f32; 12]), None);
    photo.put_rows(9, &Raster::from_vec(2, 2, 3, vec![1.0_f32; 12]), None);
    assert_eq!(photo.rgb8().row(1), [255; 6]);
    let mut grey = Photo::new(PixelKind::new(true, false, true), Format::Png, 1, 1);
    grey.put_rows(0, &Raster::from_vec(1, 1, 3, vec![0.1_f64, 0.2, 0.5]), None);
    assert_eq!(grey.rgb::<f64>().data[0], (0.8 / 3.0 * 65535.0_f64).round() / 65535.0);
}

#[test]
fn all_values_survive_a_round_trip_through_reals() {
    let values: Vec<f32> = (0..65536).flat_map(|v| [v as f32 / 65535.0; 3]).collect();
    let mut photo = Photo::new(PixelKind::new(true, false, true), Format::Png, 256, 256);
    photo.put_rows(0, &Raster::from_vec(256, 256, 3, values.clone()), None);
    assert_eq!(photo.rgb::<f32>().data, values);
    assert_eq!(photo.rgb8().data[128 * 3 * 257], 128);
}

/// The tables of libjpeg at qualities 90 and 50 have mean steps of 11.5 and 57.6 for lightness.
#[test]
fn what_a_jpeg_lost_is_known() {
    let kind = PixelKind::new(false, false, false);
    let photo = picture(kind, Format::Png, 37, 53);
    let noise = |quality: u8| {
        let mut bytes = Vec::new();
        let options = WriteOptions { jpeg_quality: quality };
        photo.encode(Format::Jpeg, &options, &mut bytes).unwrap();
        255.0 * Photo::decode(&bytes).unwrap().compression_noise()
    };
    let (fine, coarse) = (noise(90), noise(50));
    assert!((fine - 0.9 * 11.5f64.sqrt()).abs() < 0.05, "{fine}");
    assert!((coarse - 0.9 * 57.6f64.sqrt()).abs() < 0.05, "{coarse}");
    assert_eq!(there_and_back(&photo, Format::Png).0.compression_noise(), 0.0);
}
