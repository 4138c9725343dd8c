//! All that a training needs to go on as if it had never stopped, in one safetensors file.
//!
//! | tensor (f32, flat) | holds |
//! |---|---|
//! | `params` | the weights |
//! | `adam.first`, `adam.second` | Adam's moments |
//! | `ema` | the average of the weights, if the recipe has one |
//!
//! The metadata `state` is JSON ([`State`]), `recipe` the recipe's text. The random state is the
//! step's number: patches follow from it and the seed.

use super::inner_rates::InnerRates;
use super::recipe::Recipe;
use crate::{Error, Result, tensors};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// The name of the checkpoint in the output folder.
pub const FILE: &str = "checkpoint.safetensors";
const FORMAT: &str = "mzsr-checkpoint-1";
/// The largest checkpoint that is read.
const MAX_BYTES: u64 = 1 << 32;

/// A number that comes back from JSON with all its bits, as text.
pub(super) mod bits {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, out: S) -> Result<S::Ok, S::Error> {
        format!("{:016x}", value.to_bits()).serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
        let text = String::deserialize(input)?;
        u64::from_str_radix(&text, 16).map(f64::from_bits).map_err(D::Error::custom)
    }
}

/// The same for a list.
pub(super) mod many_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Bits(#[serde(with = "super::bits")] f64);

    pub fn serialize<S: Serializer>(values: &[f64], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(values.iter().map(|&value| Bits(value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Bits>::deserialize(input)?.into_iter().map(|Bits(value)| value).collect())
    }
}

/// A validation score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The step after which it was reached.
    pub step: u64,
    /// dB.
    #[serde(with = "bits")]
    pub psnr: f64,
}

/// Where a training stands, but for its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps made.
    pub step: u64,
    /// The recipe that made them.
    pub recipe: Recipe,
    /// What [`super::photos::Photos::fingerprint`] says of the photos.
    pub photos: u32,
    /// The best validation so far.
    pub best: Option<Score>,
    /// All validations so far.
    pub history: Vec<Score>,
    /// The sum of the losses since the last line of the log …
    #[serde(with = "bits")]
    pub loss_sum: f64,
    /// … and their number.
    pub loss_count: u64,
    /// The rates of the updates, for meta-training.
    #[serde(default)]
    pub rates: Option<InnerRates>,
}

/// A [`State`] with its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where the training stands.
    pub state: State,
    /// The recipe's text.
    pub text: String,
    /// The weights.
    pub params: Vec<f32>,
    /// Adam's first moments.
    pub first: Vec<f32>,
    /// Adam's second moments.
    pub second: Vec<f32>,
    /// The average of the weights.
    pub ema: Option<Vec<f32>>,
}

impl Checkpoint {
    /// Writes the checkpoint into `folder`, beside the old one first: whenever the machine stops,
    /// the file that bears the name is a whole one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let state = serde_json::to_string(&self.state).map_err(|error| Error::file(&path, error.to_string()))?;
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("state".to_owned(), state),
            ("recipe".to_owned(), self.text.clone()),
        ]);
        let mut parts = vec![("params", &self.params), ("adam.first", &self.first), ("adam.second", &self.second)];
        parts.extend(self.ema.as_ref().map(|ema| ("ema", ema)));
        let bytes: Vec<(&str, Vec<u8>)> = parts
            .into_iter()
            .map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)))
            .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| Error::file(&path, error.to_string()))?;
        let bytes = tensors::to_bytes(views, metadata).map_err(|error| Error::file(&path, error))?;
        replace(&path, &bytes)
    }

    /// The checkpoint in `folder`, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or is not a checkpoint of this program.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let failed = |error| Error::io(&path, error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() > MAX_BYTES {
            return Err(Error::file(&path, "is far too large for a checkpoint: remove it to begin anew"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(&bytes).map(Some).map_err(|what| {
            Error::file(
                &path,
                format!("is not a checkpoint that this version can go on from ({what}): remove it to begin anew"),
            )
        })
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| metadata.get(key).ok_or(format!("no {key}"));
        if text("format")? != FORMAT {
            return Err(format!("format {:?}", text("format")?));
        }
        let state: State = serde_json::from_str(text("state")?).map_err(|error| error.to_string())?;
        state.recipe.check().map_err(|error| error.to_string())?;
        let architecture = state.recipe.model.network().map_err(|error| error.to_string())?;
        let count = state.recipe.model.trained().map_err(|error| error.to_string())?;
        match (&state.recipe.meta, &state.rates) {
            (None, None) => {}
            (Some(meta), Some(rates)) => rates.check(meta, architecture.depth())?,
            _ => return Err("the rates do not belong to the recipe".to_owned()),
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let read = |name: &str| {
            let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [count] {
                return Err(format!("{name} is not {count} values of f32"));
            }
            let values: Vec<f32> =
                tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err(format!("{name} is not finite")) }
        };
        let ema = state.recipe.optimiser.ema.map(|_| read("ema")).transpose()?;
        Ok(Checkpoint {
            params: read("params")?,
            first: read("adam.first")?,
            second: read("adam.second")?,
            ema,
            text: text("recipe")?.clone(),
            state,
        })
    }
}

/// Puts `bytes` in the place of the file, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A fixed name: what a kill leaves of it is overwritten the next time.
    let beside = path.with_extension("safetensors.new");
    let failed = |error| Error::io(&beside, error);
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    drop(file);
    std::fs::rename(&beside, path).map_err(|error| Error::io(path, error))?;
    // The rename itself must reach the disk too. Not every system can open a folder.
    if let Some(Ok(folder)) = path.parent().map(File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let text = "steps = 9\n[model]\nname = \"x\"\nscale = 2\narchitecture = \"3-2-3\"\n[data]\nphotos = [\"a\"]\n\
                    patch = 16\nbatch = 1\n[optimiser]\nrate = 1e-3\nema = 0.99\n[output]\nfolder = \"o\"\n";
        let recipe = Recipe::parse(text).unwrap();
        let count = recipe.model.network().unwrap().parameter_count();
        let values = |from: f32| (0..count).map(|i| from + i as f32 / 7.0).collect::<Vec<_>>();
        let score = Score { step: 4, psnr: 1.0 / 3.0 };
        let state = State {
            step: 5,
            recipe,
            photos: 7,
            best: Some(score),
            history: vec![score, Score { step: 5, psnr: f64::MIN_POSITIVE }],
            loss_sum: 0.1 + 0.2,
            loss_count: 2,
            rates: None,
        };
        let text = text.to_owned();
        Checkpoint { state, text, params: values(0.0), first: values(1.0), second: values(2.0), ema: Some(values(3.0)) }
    }

    #[test]
    fn every_bit_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(folder.path()).unwrap().is_none());
        let saved = checkpoint();
        saved.save(folder.path()).unwrap();
        saved.save(folder.path()).unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), Some(saved));
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn learned_rates_come_back_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = checkpoint();
        let text = saved.text.replace("batch = 1\n", "");
        saved.text = format!("{text}[meta]\ntasks = 1\ntrain = 1\ntest = 1\nupdates = 2\nrate = 0.3\nlearn = 0.1\n");
        saved.state.recipe = Recipe::parse(&saved.text).unwrap();
        saved.save(folder.path()).unwrap();
        assert!(Checkpoint::load(folder.path()).unwrap_err().to_string().contains("rates"));
        let meta = saved.state.recipe.meta.clone().unwrap();
        let mut rates = InnerRates::new(&meta, 2);
        rates.learn(&meta, &[vec![0.1, -0.7], vec![1e-9, 3.0]], 0.01, [0.9, 0.999], 1, Some(0.9));
        saved.state.rates = Some(rates);
        saved.save(folder.path()).unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), Some(saved));
    }

    #[test]
    fn damage_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint().save(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let mut cases = vec![Vec::new(), whole[..whole.len() / 2].to_vec(), b"nonsense".to_vec(), vec![0xff; 64]];
        let mut infinite = whole.clone();
        let end = infinite.len();
        infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        cases.push(infinite);
        for bytes in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = Checkpoint::load(folder.path()).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains("remove it") && !error.contains('\n'), "{error}");
        }
    }
}
