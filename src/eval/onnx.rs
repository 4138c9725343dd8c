//! Supervised networks from ONNX files: one input of 1 × 3 × height × width values in [0, 1], one
//! output of 1 × 3 × s · height × s · width.
//!
//! With the feature `onnx` (`cargo build --features onnx` where it is not on by default) files run
//! on rten; without it the same type answers that it was left out.

pub(super) use runtime::Network;

#[cfg(feature = "onnx")]
mod runtime {
    use crate::degrade::high_size;
    use crate::{Error, Raster, Result};
    use rten::{Model, RunOptions, ThreadPool};
    use rten_tensor::NdTensor;
    use rten_tensor::prelude::*;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    /// The largest file that is read, in bytes.
    const MAX_BYTES: usize = 1 << 30;

    /// A network from a file.
    pub struct Network {
        path: PathBuf,
        model: Model,
        threads: Arc<ThreadPool>,
    }

    impl std::fmt::Debug for Network {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Network({})", self.path.display())
        }
    }

    impl Network {
        /// The network in `bytes`, the content of the file `path`.
        ///
        /// # Errors
        /// Anything but a network of one input that rten can run.
        pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Self> {
            if bytes.len() > MAX_BYTES {
                return Err(Error::file(path, "is larger than 1 GiB: such networks are not run here"));
            }
            let model = Model::load(bytes).map_err(|error| {
                Error::file(path, format!("is no ONNX network that can be run: {}", one_line(&error.to_string())))
            })?;
            let (inputs, outputs) = (model.input_ids().len(), model.output_ids().len());
            if inputs != 1 || outputs == 0 {
                return Err(Error::file(
                    path,
                    format!("has {inputs} inputs and {outputs} outputs; one picture in and one out are needed"),
                ));
            }
            let threads = Arc::new(ThreadPool::with_num_threads(rayon::current_num_threads()));
            Ok(Network { path: path.to_owned(), model, threads })
        }

        /// The number of weights.
        pub fn parameters(&self) -> usize {
            self.model.total_params()
        }

        /// Enlarges `low`.
        ///
        /// # Errors
        /// A network for another scale or another kind of input, or one that fails.
        pub fn enlarge(&self, low: &Raster<u8>, scale: f64) -> Result<Raster<u8>> {
            let (h, w) = (low.height, low.width);
            let mut planes = vec![0.0f32; 3 * h * w];
            for (i, pixel) in low.data.chunks_exact(3).enumerate() {
                for (c, &value) in pixel.iter().enumerate() {
                    planes[c * h * w + i] = f32::from(value) / 255.0;
                }
            }
            let input = NdTensor::from_data([1, 3, h, w], planes);
            let mut options = RunOptions::default();
            options.thread_pool = Some(self.threads.clone());
            let failed = |what: String| Error::file(&self.path, one_line(&what));
            let output = self.model.run_one(input.into(), Some(options)).map_err(|error| failed(error.to_string()))?;
            let output: NdTensor<f32, 4> =
                output.try_into().map_err(|_| failed("the output is not 1 × 3 × height × width in f32".into()))?;
            let (height, width) = (high_size(h, scale), high_size(w, scale));
            if output.shape() != [1, 3, height, width] {
                let shape = output.shape();
                return Err(failed(format!(
                    "turns {h} × {w} pixels into {shape:?}, not into 1 × 3 × {height} × {width}: it is for another scale"
                )));
            }
            let values = output.to_vec();
            let mut result = Raster::new(height, width, 3);
            let length = height * width;
            for (i, pixel) in result.data.chunks_exact_mut(3).enumerate() {
                for (c, out) in pixel.iter_mut().enumerate() {
                    let value = values[c * length + i];
                    if !value.is_finite() {
                        return Err(failed("the output is not finite".into()));
                    }
                    *out = (f64::from(value).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
                }
            }
            Ok(result)
        }
    }

    fn one_line(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(not(feature = "onnx"))]
mod runtime {
    use crate::{Error, Raster, Result};
    use std::path::Path;

    /// Says that ONNX files are not read by this build.
    #[derive(Debug)]
    pub enum Network {}

    impl Network {
        pub fn new(path: &Path, _: Vec<u8>) -> Result<Self> {
            Err(Error::file(path, "this build runs no ONNX files: build with `cargo build --release --features onnx`"))
        }

        pub fn parameters(&self) -> usize {
            match *self {}
        }

        pub fn enlarge(&self, _: &Raster<u8>, _: f64) -> Result<Raster<u8>> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_no_network_is_refused_in_a_line() {
        let error = Network::new(Path::new("a.onnx"), b"nothing of the kind".to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("a.onnx: ") && !error.contains('\n'), "{error}");
    }
}
