//! Kinds of TIFF that our writer does not make, and metadata that has to change its shape.

use mzsr::image::{Format, Photo, PixelKind, WriteOptions};

/// A tag: its number, type and values.
type Tag = (u16, u16, Vec<u32>);

/// A TIFF of one uncompressed strip, 3 wide and 2 high, in either byte order.
fn tiff(big: bool, tags: &[Tag], pixels: &[u8]) -> Vec<u8> {
    let two = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let four = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut tags = tags.to_vec();
    tags.push((256, 3, vec![3]));
    tags.push((257, 3, vec![2]));
    tags.push((273, 4, vec![8]));
    tags.push((278, 3, vec![2]));
    tags.push((279, 4, vec![pixels.len() as u32]));
    tags.sort();
    let mut out = if big { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
    out.extend([0; 4]);
    out.extend(pixels);
    let mut directory = two(tags.len() as u16).to_vec();
    for (tag, kind, values) in &tags {
        let one = |v: &u32| if *kind == 3 { two(*v as u16).to_vec() } else { four(*v).to_vec() };
        let mut data: Vec<u8> = values.iter().flat_map(one).collect();
        if data.len() > 4 {
            let at = out.len() as u32;
            out.append(&mut data);
            data = four(at).to_vec();
        }
        data.resize(4, 0);
        directory.extend(two(*tag));
        directory.extend(two(*kind));
        directory.extend(four(values.len() as u32));
        directory.extend(data);
    }
    directory.extend([0; 4]);
    let at = four(out.len() as u32);
    out[4..8].copy_from_slice(&at);
    out.extend(directory);
    out
}

fn head(bits: &[u32], photometric: u32) -> Vec<Tag> {
    vec![(258, 3, bits.to_vec()), (262, 3, vec![photometric]), (277, 3, vec![bits.len() as u32])]
}

fn with(mut tags: Vec<Tag>, more: &[Tag]) -> Vec<Tag> {
    tags.extend_from_slice(more);
    tags
}

#[test]
fn palettes_become_colours() {
    for big in [false, true] {
        let map: Vec<u32> = (0..768).map(|i| (i % 256 * if i < 256 { 1 } else { 0 } + i / 256) * 257).collect();
        let bytes = tiff(big, &with(head(&[8], 3), &[(320, 3, map)]), &[0, 1, 2, 100, 200, 255]);
        let photo = Photo::decode(&bytes).unwrap();
        assert_eq!(photo.kind(), PixelKind::new(false, false, false));
        assert_eq!(photo.rgb8().row(0), [0, 1, 2, 1, 1, 2, 2, 1, 2]);
        assert_eq!(photo.rgb8().pixel(1, 2), [255, 1, 2]);
    }
}

#[test]
fn grey_with_alpha_is_read_with_and_without_the_predictor() {
    for big in [false, true] {
        for (photometric, differences) in [(1, false), (1, true), (0, false), (0, true)] {
            let more = [(338, 3, vec![2]), (317, 3, vec![if differences { 2 } else { 1 }])];
            let row: &[u8] = if differences { &[10, 250, 10, 6, 235, 255] } else { &[10, 250, 20, 0, 255, 255] };
            let bytes = tiff(big, &with(head(&[8, 8], photometric), &more), &[row, row].concat());
            let photo = Photo::decode(&bytes).unwrap();
            assert_eq!((photo.height(), photo.width()), (2, 3));
            assert_eq!(photo.kind(), PixelKind::new(true, true, false));
            let grey = if photometric == 0 { [245, 235, 0] } else { [10, 20, 255] };
            let found: Vec<u8> = (0..3).map(|x| photo.rgb8().pixel(1, x)[0]).collect();
            assert_eq!(found, grey, "{big} {photometric} {differences}");
            let alpha: Vec<f64> = photo.alpha::<f64>().unwrap().row(1).iter().map(|v| v * 255.0).collect();
            assert_eq!(alpha, [250.0, 0.0, 255.0]);
        }
    }
}

#[test]
fn colours_multiplied_by_alpha_are_divided() {
    let pixel = [50, 25, 100, 100];
    let bytes = tiff(false, &with(head(&[8; 4], 2), &[(338, 3, vec![1])]), &pixel.repeat(6));
    assert_eq!(Photo::decode(&bytes).unwrap().rgb8().pixel(1, 1), [128, 64, 255]);
    let bytes = tiff(false, &with(head(&[8; 4], 2), &[(338, 3, vec![2])]), &pixel.repeat(6));
    assert_eq!(Photo::decode(&bytes).unwrap().rgb8().pixel(1, 1), [50, 25, 100]);
}

#[test]
fn floats_and_cmyk_are_converted_and_the_rest_is_refused() {
    let values: Vec<u8> = [0.5_f32, -1.0, f32::NAN].repeat(6).iter().flat_map(|v| v.to_le_bytes()).collect();
    let bytes = tiff(false, &with(head(&[32; 3], 2), &[(339, 3, vec![3; 3])]), &values);
    let photo = Photo::decode(&bytes).unwrap();
    assert_eq!(photo.kind(), PixelKind::new(false, false, true));
    assert_eq!(photo.rgb8().pixel(0, 0), [128, 0, 0]);
    assert!(photo.warnings()[0].contains("floating-point"));
    let bytes = tiff(true, &head(&[8; 4], 5), &[0, 255, 100, 0].repeat(6));
    assert_eq!(Photo::decode(&bytes).unwrap().rgb8().pixel(1, 2), [255, 0, 155]);
    let bytes = tiff(false, &with(head(&[32], 1), &[(339, 3, vec![3])]), &[0; 24]);
    assert!(Photo::decode(&bytes).unwrap_err().contains("8 or 16 bits"));
}

#[test]
fn the_first_of_several_pictures_is_taken_with_a_warning() {
    let mut bytes = tiff(false, &head(&[8], 1), &[1, 2, 3, 4, 5, 6]);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&8_u32.to_le_bytes());
    let photo = Photo::decode(&bytes).unwrap();
    assert!(photo.warnings()[0].contains("first"), "{:?}", photo.warnings());
}

#[test]
fn sizes_in_exif_grow_past_sixteen_bits() {
    let exif = b"MM\0\x2a\0\0\0\x08\0\x02\x01\0\0\x03\0\0\0\x01\0\x05\0\0\x01\x01\0\x04\0\0\0\x01\0\0\0\x05\0\0\0\0";
    let mut photo = Photo::new(PixelKind::new(true, false, false), Format::Png, 2, 70_000);
    photo.exif = Some(exif.to_vec());
    let mut bytes = Vec::new();
    photo.encode(Format::Png, &WriteOptions::default(), &mut bytes).unwrap();
    let kept = Photo::decode(&bytes).unwrap().exif.unwrap();
    assert_eq!(kept[10..22], [1, 0, 0, 4, 0, 0, 0, 1, 0, 1, 0x11, 0x70]);
    assert_eq!(kept[22..34], [1, 1, 0, 3, 0, 0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(kept.len(), exif.len());
}
