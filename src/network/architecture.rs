//! Which convolutions a network is made of, and where their parameters lie.

use crate::engine::Layer;
use crate::{Error, Result};

/// The largest number of channels that [`Architecture::new`] takes for one layer.
pub const MAX_CHANNELS: usize = 1024;
/// The largest number of layers that [`Architecture::new`] takes.
pub const MAX_LAYERS: usize = 64;

/// A chain of 3 × 3 convolutions (stride 1, zero padding 1), each but the last followed by a
/// ReLU; the input is added to the output, so the first and the last number of channels are equal.
///
/// All parameters lie in one flat vector, in the order conv1.weight (OIHW), conv1.bias,
/// conv2.weight, conv2.bias, …
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Architecture {
    /// Channels before the first layer, between the layers, and after the last:
    /// one more than there are layers.
    pub channels: Vec<usize>,
}

impl Architecture {
    /// The network of the paper: 3 → 64, six times 64 → 64, 64 → 3; 225,091 parameters (the paper rounds to 225 k).
    pub fn mzsr() -> Self {
        Architecture { channels: vec![3, 64, 64, 64, 64, 64, 64, 64, 3] }
    }

    /// A chain with the given channels, checked.
    ///
    /// # Errors
    /// Without at least one layer, with a layer of no channels, with a last number of channels
    /// that differs from the first (the input is added to the output), or beyond [`MAX_LAYERS`] or
    /// [`MAX_CHANNELS`].
    pub fn new(channels: Vec<usize>) -> Result<Self> {
        let layers = channels.len().saturating_sub(1);
        if layers == 0 || layers > MAX_LAYERS {
            return Err(Error::input(format!("a network has 1 to {MAX_LAYERS} layers, not {layers}")));
        }
        if let Some(wrong) = channels.iter().find(|c| **c == 0 || **c > MAX_CHANNELS) {
            return Err(Error::input(format!("a layer has 1 to {MAX_CHANNELS} channels, not {wrong}")));
        }
        if channels.first() != channels.last() {
            return Err(Error::input(format!(
                "the input is added to the output, so both need the same number of channels, not {} and {}",
                channels[0], channels[layers]
            )));
        }
        Ok(Architecture { channels })
    }

    /// The layers, first to last, with their places in the flat vector of parameters.
    pub fn layers(&self) -> Vec<Layer> {
        let mut at = 0;
        self.channels
            .windows(2)
            .map(|pair| {
                let (input, output) = (pair[0], pair[1]);
                let weight = at;
                let bias = weight + output * input * 9;
                at = bias + output;
                Layer { input, output, weight, bias }
            })
            .collect()
    }

    /// The side of the square cells of pixels that the network sees as one pixel with more channels (pixel
    /// unshuffle; Shi et al., CVPR 2016): 2 where it has 12 channels at its ends, 4 where it has 48, else 1.
    pub fn cell(&self) -> usize {
        [2, 4].into_iter().find(|cell| self.channels.first() == Some(&(3 * cell * cell))).unwrap_or(1)
    }

    /// Whether it takes and gives pictures of red, green and blue.
    pub fn takes_colours(&self) -> bool {
        self.channels.first() == Some(&(3 * self.cell() * self.cell()))
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        self.channels.len().saturating_sub(1)
    }

    /// The length of the flat vector of parameters.
    pub fn parameter_count(&self) -> usize {
        self.channels.windows(2).map(|pair| (pair[0] * 9 + 1) * pair[1]).sum()
    }

    /// The names of the tensors in the order in which they lie in the flat vector:
    /// `conv1.weight`, `conv1.bias`, `conv2.weight`, …
    pub fn names(&self) -> Vec<String> {
        (1..=self.depth()).flat_map(|l| [format!("conv{l}.weight"), format!("conv{l}.bias")]).collect()
    }
}

impl Default for Architecture {
    /// The network of the paper.
    fn default() -> Self {
        Architecture::mzsr()
    }
}

impl std::fmt::Display for Architecture {
    /// `3-64-64-64-64-64-64-64-3`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, channels) in self.channels.iter().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            write!(f, "{channels}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Architecture {
    type Err = Error;

    /// The inverse of `Display`.
    fn from_str(text: &str) -> Result<Self> {
        let channels = text
            .split('-')
            .map(|part| part.parse().map_err(|_| Error::input(format!("`{text}` is not a chain of channels"))))
            .collect::<Result<Vec<usize>>>()?;
        Architecture::new(channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_counts_225091_parameters() {
        let architecture = Architecture::mzsr();
        assert_eq!(architecture.parameter_count(), 225_091);
        assert_eq!(architecture.depth(), 8);
        let layers = architecture.layers();
        assert_eq!(layers[0], Layer { input: 3, output: 64, weight: 0, bias: 1728 });
        assert_eq!(layers[1].weight, 1792);
        for pair in layers.windows(2) {
            assert_eq!(pair[0].weight_range().end, pair[0].bias_range().start);
            assert_eq!(pair[0].bias_range().end, pair[1].weight_range().start);
        }
        assert_eq!(layers[7].bias_range().end, 225_091);
        assert_eq!(architecture.names().len(), 16);
        assert_eq!(architecture.names()[3], "conv2.bias");
    }

    #[test]
    fn cells_follow_from_the_channels() {
        for (ends, cell, colours) in [(3, 1, true), (12, 2, true), (48, 4, true), (27, 1, false), (4, 1, false)] {
            let architecture = Architecture::new(vec![ends, 8, ends]).unwrap();
            assert_eq!((architecture.cell(), architecture.takes_colours()), (cell, colours));
        }
    }

    #[test]
    fn text_and_back() {
        let text = Architecture::mzsr().to_string();
        assert_eq!(text, "3-64-64-64-64-64-64-64-3");
        assert_eq!(text.parse::<Architecture>().unwrap(), Architecture::mzsr());
        for wrong in ["", "3", "3-64", "3-0-3", "3--3", "3-x-3", "3-99999999-3", "3-2000-3"] {
            assert!(wrong.parse::<Architecture>().is_err(), "{wrong}");
        }
    }
}
