//! Colours for pixels that nobody sees.

use crate::{Raster, Real};

const UNKNOWN: u8 = 0;
const WAITING: u8 = 1;
const KNOWN: u8 = 2;

/// Gives each pixel that is not `visible` the mean colour of its neighbours nearer to a visible
/// one, ring by ring outwards, so that what hides under zero alpha cannot bleed into what is seen
/// when the picture is filtered. With nothing visible the picture stays as it is.
pub(super) fn fill_hidden<T: Real>(colours: &mut Raster<T>, visible: impl Fn(usize) -> bool) {
    let (height, width, c) = (colours.height, colours.width, colours.channels);
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
    let mut ring = Vec::new();
    for i in 0..count {
        if state[i] == UNKNOWN && neighbours(i).any(|j| state[j] == KNOWN) {
            state[i] = WAITING;
            ring.push(i);
        }
    }
    while !ring.is_empty() {
        for &i in &ring {
            let (mut sum, mut known) = ([0.0; 4], 0.0);
            for j in neighbours(i).filter(|&j| state[j] == KNOWN) {
                sum.iter_mut().zip(&colours.data[j * c..(j + 1) * c]).for_each(|(s, v)| *s += v.wide());
                known += 1.0;
            }
            colours.data[i * c..(i + 1) * c].iter_mut().zip(sum).for_each(|(v, s)| *v = T::of(s / known));
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
