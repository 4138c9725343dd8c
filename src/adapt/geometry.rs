//! The 8 flips and rotations of a photo, of its blur and of its sampling grid.

use crate::{Raster, Real};

/// A flip or rotation: transposed first if so, then mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub transpose: bool,
    pub vertical: bool,
    pub horizontal: bool,
}

impl Turn {
    /// All eight; the first changes nothing.
    pub fn all() -> impl Iterator<Item = Turn> {
        (0..8).map(|i| Turn { transpose: i & 4 != 0, vertical: i & 2 != 0, horizontal: i & 1 != 0 })
    }

    /// The turned picture.
    pub fn apply<T: Copy + Default>(self, image: &Raster<T>) -> Raster<T> {
        let image = if self.transpose { image.transpose() } else { image.clone() };
        let image = if self.vertical { image.flip_vertical() } else { image };
        if self.horizontal { image.flip_horizontal() } else { image }
    }

    /// The picture turned back.
    pub fn undo<T: Real>(self, image: &Raster<T>) -> Raster<T> {
        let image = if self.horizontal { image.flip_horizontal() } else { image.clone() };
        let image = if self.vertical { image.flip_vertical() } else { image };
        if self.transpose { image.transpose() } else { image }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_is_undone_and_differs() {
        let image = Raster::from_vec(2, 3, 1, (0..6).map(f64::from).collect());
        let turned: Vec<_> = Turn::all().map(|turn| turn.apply(&image)).collect();
        for (turn, picture) in Turn::all().zip(&turned) {
            assert_eq!(turn.undo(picture), image);
        }
        for i in 0..8 {
            assert!((0..i).all(|j| turned[i] != turned[j]));
        }
    }
}
