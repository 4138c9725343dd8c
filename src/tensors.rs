//! Safetensors files of which the same contents are the same bytes.

use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// A safetensors file, with the keys of its header in order: the crate writes the metadata in the
/// order of a hash map, which differs from run to run.
///
/// # Errors
/// What the crate refuses, in a line.
pub(crate) fn to_bytes<'a, S: AsRef<str> + Ord + std::fmt::Display>(
    tensors: Vec<(S, TensorView<'a>)>,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, String> {
    let bytes = serialize(tensors, Some(metadata)).map_err(|error| error.to_string())?;
    let (length, _) = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
    let (header, data) = bytes.get(8..).and_then(|rest| rest.split_at_checked(length)).ok_or("no header")?;
    let header: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let mut text = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
    // The data begins on a multiple of eight bytes; the format has spaces for that.
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text, data].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    #[test]
    fn the_same_contents_are_the_same_bytes() {
        let file = || {
            let metadata = (0..9).map(|i| (format!("key {i}"), format!("\"{i}\" ×\n"))).collect();
            let view = |data| TensorView::new(Dtype::F32, vec![1], data).unwrap();
            to_bytes(vec![("b", view(&[1, 2, 3, 4])), ("a", view(&[5, 6, 7, 8]))], metadata).unwrap()
        };
        let bytes = file();
        // Each hash map has an order of its own.
        (0..5).for_each(|_| assert_eq!(file(), bytes));
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("b").unwrap().data(), [1, 2, 3, 4]);
        assert_eq!(read.tensor("a").unwrap().data(), [5, 6, 7, 8]);
        let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(length.is_multiple_of(8));
        assert_eq!(header.metadata().as_ref().unwrap()["key 7"], "\"7\" ×\n");
    }
}
