//! Colours for pixels that nobody sees.

use crate::{Raster, Real};
use rayon::prelude::*;

const UNKNOWN: u8 = 0;
const WAITING: u8 = 1;
const KNOWN: u8 = 2;

/// Gives each pixel that is not `visible` the mean colour of its neighbours nearer to a visible
/// one, ring by ring outwards, so that what hides under zero alpha cannot bleed into what is seen
/// when the picture is filtered. With nothing visible the picture stays as it is.
pub(super) fn fill_hidden<T: Real>(colours: &mut Raster<T>, visible: impl Fn(usize) -> bool) {
    let (height, width) = (colours.height, colours.width);
    let count = height * width;
    let mut state: Vec<u8> = (0..count).map(|i| if visible(i) { KNOWN } else { UNKNOWN }).collect();
    if !state.contains(&UNKNOWN) || !state.contains(&KNOWN) {
        return;
    }
    let neighbours = |i: usize| {
        let (y, x) = (i / width, i % width);
        (y.saturating_sub(1)..(y + 2).min(height))
            .flat_map(move |v| (x.saturating_sub(1)..(x + 2).min(width)).map(move |u| v * width + u))
    };
    let beside = |i: &usize| state[*i] == UNKNOWN && neighbours(*i).any(|j| state[j] == KNOWN);
    let mut ring: Vec<usize> = (0..count).into_par_iter().filter(beside).collect();
    ring.iter().for_each(|&i| state[i] = WAITING);
    while !ring.is_empty() {
        let mean = |&i: &usize| {
            let (mut sum, mut known) = ([0.0; 3], 0.0);
            for j in neighbours(i).filter(|&j| state[j] == KNOWN) {
                sum.iter_mut().zip(&colours.data[j * 3..j * 3 + 3]).for_each(|(s, v)| *s += v.wide());
                known += 1.0;
            }
            sum.map(|s| T::of(s / known))
        };
        let means: Vec<[T; 3]> = ring.par_iter().with_min_len(1 << 10).map(mean).collect();
        for (&i, mean) in ring.iter().zip(means) {
            colours.data[i * 3..i * 3 + 3].copy_from_slice(&mean);
        }
        ring.iter().for_each(|&i| state[i] = KNOWN);
        let mut next = Vec::new();
        for &i in &ring {
            for j in neighbours(i) {
                if state[j] == UNKNOWN {
                    state[j] = WAITING;
                    next.push(j);
                }
            }
        }
        ring = next;
    }
}
