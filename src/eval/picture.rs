//! Parts of pictures as text, for reports that need no other file.

use crate::image::{Format, Photo, PixelKind, WriteOptions};
use crate::kernel::Kernel;
use crate::{Error, Raster, Result};

/// The side of a part that is shown, in pixels of the large picture.
const SIDE: usize = 96;

/// A PNG in base64.
///
/// # Errors
/// A picture without pixels.
pub fn png(picture: &Raster<u8>) -> Result<String> {
    let mut photo = Photo::new(PixelKind::new(false, false, false), Format::Png, picture.height, picture.width);
    photo.put_rows(0, &picture.map(|v| f32::from(v) / 255.0), None);
    let mut bytes = Vec::new();
    photo
        .encode(Format::Png, &WriteOptions::default(), &mut bytes)
        .map_err(|error| Error::Numeric(format!("a picture for the report: {error}")))?;
    Ok(base64(&bytes))
}

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let three = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The top left of the part of a large picture that shows the most detail, on multiples of 8, and
/// the part's height and width.
pub fn part(picture: &Raster<u8>) -> (usize, usize, usize, usize) {
    let (height, width) = (SIDE.min(picture.height), SIDE.min(picture.width));
    // Sums of differences over all pixels above and left of each, so that any part's is four reads.
    let mut sums = vec![0u64; (picture.height + 1) * (picture.width + 1)];
    let across = picture.width + 1;
    let green = |y: usize, x: usize| i32::from(picture.pixel(y, x)[1]);
    for y in 0..picture.height {
        let mut row = 0;
        for x in 0..picture.width {
            let (above, left) = (green(y.saturating_sub(1), x), green(y, x.saturating_sub(1)));
            let here = green(y, x);
            row += u64::from(here.abs_diff(above) + here.abs_diff(left));
            sums[(y + 1) * across + x + 1] = sums[y * across + x + 1] + row;
        }
    }
    let detail = |y: usize, x: usize| {
        let at = |y: usize, x: usize| sums[y * across + x];
        at(y + height, x + width) + at(y, x) - at(y, x + width) - at(y + height, x)
    };
    let mut best = (0, 0);
    for y in (0..=picture.height - height).step_by(8) {
        for x in (0..=picture.width - width).step_by(8) {
            if detail(y, x) > detail(best.0, best.1) {
                best = (y, x);
            }
        }
    }
    (best.0, best.1, height, width)
}

/// The part of a result; less where the result is smaller.
pub fn cut(picture: &Raster<u8>, (y, x, height, width): (usize, usize, usize, usize)) -> Raster<u8> {
    let (y, x) = (y.min(picture.height - 1), x.min(picture.width - 1));
    picture.crop(y, x, height.min(picture.height - y), width.min(picture.width - x))
}

/// A kernel as a drawing: squares, heavier weights lighter (on a square-root scale), `side` px.
pub fn kernel_svg(kernel: &Kernel, side: usize) -> String {
    let most = kernel.data.iter().copied().fold(0.0, f64::max);
    let (rows, columns) = (kernel.height, kernel.width);
    let mut text = format!(
        "<svg class=\"kernel\" width=\"{side}\" height=\"{side}\" viewBox=\"0 0 {columns} {rows}\" \
         shape-rendering=\"crispEdges\" role=\"img\" aria-label=\"blur kernel\">\
         <rect width=\"{columns}\" height=\"{rows}\" fill=\"#000\"/>"
    );
    for (i, weight) in kernel.data.iter().enumerate() {
        let level = if most > 0.0 { ((weight / most).max(0.0).sqrt() * 255.0).round() as u8 } else { 0 };
        if level > 2 {
            let (x, y) = (i % columns, i / columns);
            text += &format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"1\" height=\"1\" fill=\"#{level:02x}{level:02x}{level:02x}\"/>"
            );
        }
    }
    text + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_in_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn the_busiest_part_is_shown() {
        let mut picture = Raster::<u8>::new(300, 260, 3);
        for y in 130..200 {
            for x in 100..170 {
                picture.data[(y * 260 + x) * 3 + 1] = if (x + y) % 2 == 0 { 255 } else { 0 };
            }
        }
        let (y, x, height, width) = part(&picture);
        assert!(y <= 130 && y + height >= 200 && x <= 100 && x + width >= 170, "{y} {x}");
        assert_eq!(part(&Raster::new(20, 10, 3)), (0, 0, 20, 10));
        assert!(png(&cut(&picture, (y, x, height, width))).unwrap().starts_with("iVBORw0KGgo"));
    }
}
