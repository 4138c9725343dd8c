//! Safetensors: ours, and those that PyTorch writes.

use super::{Info, MAX_BYTES, MAX_PASSES, Weights, parse_scale, quoted};
use crate::engine::Layer;
use crate::network::fit::{Fit, Part};
use crate::network::{Architecture, Passes};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use std::collections::HashMap;

const FORMAT: &str = "mzsr-weights-1";
/// That parameters follow the blur by [`Fit`] and [`crate::degrade::FEATURES`].
const FIT: &str = "transfer";
/// The most tensors that are looked at.
const MAX_TENSORS: usize = 4 * crate::network::architecture::MAX_LAYERS * MAX_PASSES;

type Found<T> = Result<T, String>;

pub(super) fn too_large() -> String {
    format!("is larger than {} MiB; this is not a file of weights for this program", MAX_BYTES >> 20)
}

/// Reads either kind of file. The message of an error is to follow the file's name.
pub(super) fn parse(bytes: &[u8], name: &str) -> Found<Weights> {
    if bytes.len() > MAX_BYTES {
        return Err(too_large());
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| broken(&error))?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| broken(&error))?;
    let tensors: Vec<(&str, TensorView)> = file.iter().collect();
    if tensors.len() > MAX_TENSORS {
        return Err(format!("holds {} tensors; at most {MAX_TENSORS} are read", tensors.len()));
    }
    let nothing = HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&nothing);
    let weights = match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => ours(metadata, tensors, name)?,
        // PyTorch's own tools write `format: pt`.
        Some(other) if other.starts_with("mzsr") => {
            return Err(format!("is of format {}; this version reads {FORMAT}: update mzsr", quoted(other)));
        }
        _ => foreign(tensors, name)?,
    };
    weights.check()?;
    Ok(weights)
}

fn broken(error: &SafeTensorError) -> String {
    let what = match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => "it is cut off or of another kind",
        SafeTensorError::MetadataIncompleteBuffer => "it is cut off or has bytes too many",
        SafeTensorError::HeaderTooLarge => "its header is too large",
        _ => "its header is damaged",
    };
    format!("is not a whole safetensors file ({what}); make or copy it again")
}

fn ours(metadata: &HashMap<String, String>, tensors: Vec<(&str, TensorView)>, name: &str) -> Found<Weights> {
    let get = |key: &str| metadata.get(key).map(String::as_str);
    let need = |key: &str| get(key).ok_or_else(|| format!("lacks `{key}` in its metadata; make it again"));
    let wrong = |key: &str, text: &str| format!("has {} as `{key}` in its metadata; make it again", quoted(text));
    let text = need("architecture")?;
    let architecture: Architecture = text.parse().map_err(|_| wrong("architecture", text))?;
    let name = get("name").unwrap_or(name);
    let mut info = match (get("scale"), get("downsample"), get("kernels")) {
        (None, None, None) => Info::unrecorded(name, ""),
        _ => {
            let (scale, downsample, kernels) = (need("scale")?, need("downsample")?, need("kernels")?);
            Info::new(
                name,
                parse_scale(scale).ok_or_else(|| wrong("scale", scale))?,
                downsample.parse().map_err(|_| wrong("downsample", downsample))?,
                kernels.parse().map_err(|_| wrong("kernels", kernels))?,
            )
        }
    };
    if let Some(text) = get("updates") {
        info.updates = Some(text.parse().map_err(|_| wrong("updates", text))?);
    }
    if let Some(text) = get("rates") {
        info.rates = serde_json::from_str(text).map_err(|_| wrong("rates", text))?;
    }
    let start = need("start")?;
    info.start = start.parse().map_err(|_| wrong("start", start))?;
    if let Some(text) = get("passes") {
        let passes = text.parse().ok().filter(|passes| (1..=MAX_PASSES).contains(passes));
        info.passes = passes.ok_or_else(|| wrong("passes", text))?;
    }
    info.fit = match get("fit") {
        None => false,
        Some(FIT) => true,
        Some(text) => return Err(wrong("fit", text)),
    };
    info.recipe = get("recipe").unwrap_or_default().to_owned();
    info.provenance = get("provenance").unwrap_or_default().to_owned();
    let mut by_name: HashMap<&str, TensorView> = tensors.into_iter().collect();
    let mut parameters = Vec::new();
    for Part { name, shape, .. } in parts(&architecture, &info) {
        let tensor = by_name
            .remove(name.as_str())
            .ok_or_else(|| format!("lacks tensor {name} of its network {architecture}; make it again"))?;
        append(&name, &tensor, &shape, &mut parameters)?;
    }
    if let Some(extra) = by_name.keys().min() {
        return Err(format!("holds tensor {}, which {architecture} does not have; make it again", quoted(extra)));
    }
    Ok(Weights { architecture, parameters, info })
}

/// The tensors of all passes, in the order of the parameters.
fn parts(architecture: &Architecture, info: &Info) -> Vec<Part> {
    let layers = architecture.layers();
    let layout = Passes::new(&layers, info.fit);
    let own = |(index, layer): (usize, &Layer)| {
        let name = |word| format!("conv{}.{word}", index + 1);
        let shape = vec![layer.output, layer.input, 3, 3];
        [
            Part { name: name("weight"), shape, range: layer.weight_range() },
            Part { name: name("bias"), shape: vec![layer.output], range: layer.bias_range() },
        ]
    };
    let mut one: Vec<Part> = layers.iter().enumerate().flat_map(own).collect();
    if info.fit {
        one.extend(Fit::new(&layers).parts());
    }
    let shared = layout.shared();
    let of_pass = |pass: usize| {
        let shift = layout.count(pass) - shared;
        let parts = one.iter().filter(move |part| pass == 0 || part.range.start >= shared);
        parts.map(move |part| Part {
            name: format!("{}{}", prefix(pass), part.name),
            shape: part.shape.clone(),
            range: part.range.start + shift..part.range.end + shift,
        })
    };
    (0..info.passes).flat_map(of_pass).collect()
}

/// What the names of tensors of pass `pass` (from 0) begin with.
fn prefix(pass: usize) -> String {
    if pass == 0 { String::new() } else { format!("pass{}.", pass + 1) }
}

fn write_scale([min, max]: [f64; 2]) -> String {
    if min == max { min.to_string() } else { format!("{min}..{max}") }
}

/// A pair of tensors of a file that PyTorch wrote.
#[derive(Default)]
struct Pair<'a> {
    weight: Option<(&'a str, TensorView<'a>)>,
    bias: Option<(&'a str, TensorView<'a>)>,
}

const REMEDY: &str = "rename the tensors to conv1.weight, conv1.bias, conv2.weight, …";

fn foreign<'a>(tensors: Vec<(&'a str, TensorView<'a>)>, name: &str) -> Found<Weights> {
    // Layers by the numbers in their names; all else in the names must be the same, for nothing
    // else tells their order.
    let mut layers: std::collections::BTreeMap<Vec<u64>, Pair> = std::collections::BTreeMap::new();
    let mut template: Option<String> = None;
    for (name, tensor) in tensors {
        let (stem, is_weight) = match (name.strip_suffix(".weight"), name.strip_suffix(".bias")) {
            (Some(stem), _) => (stem, true),
            (_, Some(stem)) => (stem, false),
            _ => return Err(format!("holds tensor {}, neither a weight nor a bias; {REMEDY}", quoted(name))),
        };
        let (words, numbers) =
            split_numbers(stem).ok_or_else(|| format!("holds tensor {} without a number; {REMEDY}", quoted(name)))?;
        let first = template.get_or_insert_with(|| words.clone());
        if *first != words {
            let why = "named unlike the others, so that the layers' order is not known";
            return Err(format!("holds tensor {}, {why}; {REMEDY}", quoted(name)));
        }
        let pair = layers.entry(numbers).or_default();
        let place = if is_weight { &mut pair.weight } else { &mut pair.bias };
        if let Some((other, _)) = place.replace((name, tensor)) {
            return Err(format!("holds {} and {}, the same layer; {REMEDY}", quoted(other), quoted(name)));
        }
    }
    let (mut channels, mut parameters): (Vec<usize>, Vec<f32>) = (Vec::new(), Vec::new());
    for pair in layers.values() {
        let (weight, bias) = match (&pair.weight, &pair.bias) {
            (Some(weight), Some(bias)) => (weight, bias),
            (Some((name, _)), _) => return Err(format!("has no bias for {}; each layer needs one", quoted(name))),
            (_, Some((name, _))) => return Err(format!("has no weight for {}; each layer needs one", quoted(name))),
            _ => continue,
        };
        let &[output, input, 3, 3] = weight.1.shape() else {
            let shape = weight.1.shape();
            return Err(format!("has {} of shape {shape:?}; O x I x 3 x 3 is needed", quoted(weight.0)));
        };
        if channels.is_empty() {
            channels.push(input);
        }
        if channels.last() != Some(&input) {
            let name = quoted(weight.0);
            return Err(format!("has {name} that takes {input} channels, not what the layer before gives; {REMEDY}"));
        }
        channels.push(output);
        append(weight.0, &weight.1, &[output, input, 3, 3], &mut parameters)?;
        append(bias.0, &bias.1, &[output], &mut parameters)?;
    }
    if channels.is_empty() {
        return Err("holds no tensors; a network's weights are needed".to_owned());
    }
    let architecture = Architecture::new(channels).map_err(|error| format!("does not fit: {error}"))?;
    let info = Info::unrecorded(name, "safetensors without information");
    Ok(Weights { architecture, parameters, info })
}

/// `body.2.conv` → (`body.#.conv`, [2]); nothing without a number or with one too large.
fn split_numbers(text: &str) -> Option<(String, Vec<u64>)> {
    let (mut words, mut numbers) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (word, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        numbers.push(digits.parse().ok()?);
        words.push_str(word);
        words.push('#');
        rest = after;
    }
    words.push_str(rest);
    if numbers.is_empty() { None } else { Some((words, numbers)) }
}

fn append(name: &str, tensor: &TensorView, shape: &[usize], out: &mut Vec<f32>) -> Found<()> {
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("has {} as {:?}; save it as float32", quoted(name), tensor.dtype()));
    }
    if tensor.shape() != shape {
        return Err(format!("has {} of shape {:?}; {shape:?} is needed", quoted(name), tensor.shape()));
    }
    let (chunks, _) = tensor.data().as_chunks::<4>();
    let before = out.len();
    out.extend(chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    if out[before..].iter().any(|value| !value.is_finite()) {
        return Err(format!("has values in {} that are not finite; the training diverged, use others", quoted(name)));
    }
    Ok(())
}

/// Our file.
pub(super) fn write(weights: &Weights) -> Found<Vec<u8>> {
    let Weights { architecture, parameters, info } = weights;
    let mut metadata: HashMap<String, String> = HashMap::new();
    let mut put = |key: &str, value: String| metadata.insert(key.to_owned(), value);
    put("format", FORMAT.to_owned());
    put("name", info.name.clone());
    put("architecture", architecture.to_string());
    if info.recorded {
        put("scale", write_scale(info.scale));
        put("downsample", info.downsample.to_string());
        put("kernels", info.kernels.to_string());
    }
    put("start", info.start.to_string());
    if info.passes > 1 {
        put("passes", info.passes.to_string());
    }
    if info.fit {
        put("fit", FIT.to_owned());
    }
    if let Some(updates) = info.updates {
        put("updates", updates.to_string());
    }
    put("rates", serde_json::to_string(&info.rates).map_err(|error| error.to_string())?);
    put("recipe", info.recipe.clone());
    put("provenance", info.provenance.clone());
    let bytes: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut tensors = Vec::new();
    let parts = parts(architecture, info);
    for Part { name, shape, range } in parts {
        let data = bytes.get(4 * range.start..4 * range.end).ok_or("too few parameters")?;
        let view = TensorView::new(Dtype::F32, shape, data).map_err(|error| error.to_string())?;
        tensors.push((name, view));
    }
    let bytes = crate::tensors::to_bytes(tensors, metadata)?;
    if bytes.len() > MAX_BYTES { Err(too_large()) } else { Ok(bytes) }
}
