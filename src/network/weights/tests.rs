use super::*;

pub(super) fn small(info: Info) -> Weights {
    let architecture = Architecture::new(vec![3, 2, 3]).unwrap();
    let count = Passes::new(&architecture.layers(), info.fit).count(info.passes);
    let parameters = (0..count).map(|i| (i as f32 - 50.0) / 64.0).collect();
    Weights { architecture, parameters, info }
}

fn info() -> Info {
    let info = Info::new("small", [2.0, 3.5], Downsample::Direct, Blurs::With);
    Info { updates: Some(5), recipe: "steps = 3\nseed = 1".into(), provenance: "made \"here\"".into(), ..info }
}

fn message(bytes: &[u8]) -> String {
    let text = Weights::from_bytes(bytes, "w.safetensors").unwrap_err().to_string();
    assert!(text.starts_with("w.safetensors: ") && text.lines().count() == 1, "{text}");
    text
}

/// A safetensors file of these f32 tensors.
fn raw(metadata: &[(&str, &str)], tensors: &[(&str, &[usize])]) -> Vec<u8> {
    raw_of("F32", 4, metadata, tensors)
}

fn raw_of(dtype: &str, size: usize, metadata: &[(&str, &str)], tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let meta: serde_json::Map<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    header.insert("__metadata__".into(), meta.into());
    let mut data = Vec::new();
    for (name, shape) in tensors {
        let (from, count) = (data.len(), shape.iter().product::<usize>());
        data.extend((0..count * size).map(|at| if at % size == size - 1 { 0x3f } else { at as u8 }));
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

#[test]
fn saved_and_loaded_weights_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let mut by_layer = info();
    by_layer.rates = vec![vec![0.1], vec![1e-3, 2.5e-17]];
    let unrecorded = Info::unrecorded("x", "somewhere");
    let passes = Info { passes: 2, ..info() };
    let fitted = Info { fit: true, ..info() };
    let both = Info { passes: 3, ..fitted.clone() };
    for info in [info(), by_layer, unrecorded, Info { updates: None, rates: vec![], ..info() }, passes, fitted, both] {
        let weights = small(info);
        weights.save(&path).unwrap();
        assert_eq!(Weights::load(&path).unwrap(), weights);
        assert_eq!(Weights::open(path.to_str().unwrap()).unwrap(), weights);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0o400);
    }
}

#[test]
fn what_would_not_load_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let good = small(info());
    let with = |change: &dyn Fn(&mut Weights)| {
        let mut weights = good.clone();
        change(&mut weights);
        weights.save(&path).unwrap_err().to_string()
    };
    assert!(with(&|w| w.parameters[7] = f32::NAN).contains("parameter 7 is NaN"));
    assert!(with(&|w| w.parameters.truncate(100)).contains("parameters where 3-2-3 has"));
    assert!(with(&|w| w.architecture.channels = vec![]).contains("layers"));
    assert!(with(&|w| w.info.scale = [2.0, 1.0]).contains("scale"));
    assert!(with(&|w| w.info.scale = [f64::NAN, 2.0]).contains("scale"));
    assert!(with(&|w| w.info.rates = vec![vec![0.1, 0.1, 0.1]]).contains("rates of update 1 are 3"));
    assert!(with(&|w| w.info.rates = vec![vec![-0.1]]).contains("rate -0.1"));
    assert!(with(&|w| w.info.fit = true).contains("parameters where 3-2-3 has"));
    assert!(with(&|w| w.info.passes = 9).contains("passes are 9"));
    assert!(!path.exists());
    assert!(good.save(&folder.path().join("no/such/folder")).is_err());
}

#[test]
fn wrong_files_of_ours_are_refused_with_a_reason() {
    let meta = [
        ("format", "mzsr-weights-1"),
        ("architecture", "3-2-3"),
        ("scale", "2..4"),
        ("downsample", "direct"),
        ("kernels", "true"),
        ("start", "bicubic"),
    ];
    type Shapes = Vec<(&'static str, &'static [usize])>;
    let all: Shapes = vec![
        ("conv1.weight", &[2, 3, 3, 3]),
        ("conv1.bias", &[2]),
        ("conv2.weight", &[3, 2, 3, 3]),
        ("conv2.bias", &[3]),
    ];
    let good = Weights::from_bytes(&raw(&meta, &all), "file").unwrap();
    assert_eq!((good.info.scale, good.info.name.as_str()), ([2.0, 4.0], "file"));
    let mut extra = all.clone();
    extra.push(("conv3.bias", &[3]));
    assert!(message(&raw(&meta, &extra)).contains("'conv3.bias'"));
    assert!(message(&raw(&meta, &all[..3])).contains("lacks tensor conv2.bias"));
    let mut renamed = all.clone();
    renamed[0].0 = "conv1.kernel";
    assert!(message(&raw(&meta, &renamed)).contains("lacks tensor conv1.weight"));
    let mut reshaped = all.clone();
    reshaped[2].1 = &[2, 3, 3, 3];
    assert!(message(&raw(&meta, &reshaped)).contains("[3, 2, 3, 3] is needed"));
    assert!(message(&raw_of("F16", 2, &meta, &all)).contains("float32"));
    for (at, wrong) in [
        (1, "3-x-3"),
        (1, "3-64-64-3"),
        (2, "0.5"),
        (2, "nan"),
        (2, "4..2"),
        (3, "lanczos"),
        (4, "maybe"),
        (5, "nearest"),
        (0, "mzsr-weights-9"),
    ] {
        let mut meta = meta;
        meta[at].1 = wrong;
        message(&raw(&meta, &all));
    }
    for key in ["updates", "rates"] {
        for wrong in ["-1", "99999999", "[[1e999]]", "[", "[[\"a\"]]", "[[0.1,0.2,0.3]]", "[[]]"] {
            message(&raw(&[&meta[..], &[(key, wrong)]].concat(), &all));
        }
    }
    for at in 1..meta.len() {
        let meta: Vec<_> = (0..meta.len()).filter(|i| *i != at).map(|i| meta[i]).collect();
        message(&raw(&meta, &all));
    }
}

#[test]
fn damaged_files_are_refused_and_never_panic() {
    let bytes = small(info()).to_bytes().unwrap();
    for end in 0..bytes.len() {
        message(&bytes[..end]);
    }
    message(&[&bytes[..], &[0]].concat());
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] ^= flip;
            if let Ok(weights) = Weights::from_bytes(&wrong, "w") {
                assert!(weights.check().is_ok());
            }
        }
    }
    let mut nan = bytes.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(message(&nan).contains("not finite"));
    message(&u64::MAX.to_le_bytes());
}

#[test]
fn oversized_files_and_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(Weights::load(&path).unwrap_err().to_string().contains("larger than 64 MiB"));
    assert!(Weights::load(folder.path()).unwrap_err().to_string().contains("folder"));
    assert!(Weights::load(&folder.path().join("none")).is_err());
}

#[test]
fn files_from_pytorch_are_read_in_the_order_of_their_numbers() {
    // Ten layers: 10 must follow 9, not 1. The raw files hold the same bytes for the same shape.
    let names: Vec<(String, String)> =
        (0..10).map(|l| (format!("net.{}.weight", 2 * l), format!("net.{}.bias", 2 * l))).collect();
    let channels = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3];
    let shapes: Vec<(Vec<usize>, Vec<usize>)> =
        channels.windows(2).map(|pair| (vec![pair[1], pair[0], 3, 3], vec![pair[1]])).collect();
    let tensors: Vec<(&str, &[usize])> = names
        .iter()
        .zip(&shapes)
        .flat_map(|((weight, bias), (w, b))| [(weight.as_str(), w.as_slice()), (bias.as_str(), b.as_slice())])
        .collect();
    let weights = Weights::from_bytes(&raw(&[("format", "pt")], &tensors), "theirs").unwrap();
    assert_eq!(weights.architecture.channels, channels);
    assert!(!weights.info.recorded);
    assert_eq!(weights.info.purpose(), "not recorded");
    let bytes = raw(&[], &tensors);
    for end in 0..bytes.len().min(2000) {
        message(&bytes[..end]);
    }
    let (w, v): (&[usize], &[usize]) = (&[2, 3, 3, 3], &[3, 2, 3, 3]);
    let refused = |tensors: &[(&str, &[usize])], why: &str| {
        let text = message(&raw(&[], tensors));
        assert!(text.contains(why), "{text}");
    };
    refused(&[("a.0.weight", w), ("a.0.bias", &[2]), ("a.1.weight", v)], "no bias for 'a.1.weight'");
    refused(&[("a.0.weight", w), ("a.0.bias", &[2]), ("a.1.bias", &[3])], "no weight for 'a.1.bias'");
    refused(&[("a.0.weight", w), ("a.0.bias", &[2]), ("b.1.weight", v), ("b.1.bias", &[3])], "unlike");
    refused(&[("a.0.weight", w), ("a.0.bias", &[2]), ("a.00.weight", w)], "the same layer");
    refused(&[("a.0.weight", w), ("a.0.bias", &[2]), ("a.1.weight", w), ("a.1.bias", &[2])], "the layer before");
    refused(&[("a.0.weight", w), ("a.0.bias", &[2])], "same number of channels");
    refused(&[("a.0.weight", &[3, 3, 5, 5]), ("a.0.bias", &[3])], "O x I x 3 x 3");
    refused(&[("a.0.weight", &[4, 4, 3, 3]), ("a.0.bias", &[4])], "3 channels");
    refused(&[("a.weight", w)], "without a number");
    refused(&[("a.0.running_mean", &[3])], "neither");
    refused(&[("a.99999999999999999999999.bias", &[3])], "without a number");
    refused(&[("a\n0.x", &[3])], "'a\\n0.x'");
    refused(&[], "no tensors");
    assert!(message(&raw_of("F64", 8, &[], &[("a.0.weight", &[3, 3, 3, 3]), ("a.0.bias", &[3])])).contains("float32"));
}

#[test]
fn published_rates_are_those_of_the_protocol() {
    let flat = |rates: Vec<Vec<f64>>| rates.concat();
    assert_eq!(flat(published_rates([2.0; 2], Downsample::Direct)), [2e-2, 1e-2, 1e-2, 1e-2, 5e-3]);
    assert_eq!(flat(published_rates([2.0; 2], Downsample::Bicubic)), [1e-2, 1e-2, 1e-2, 1e-3]);
    assert_eq!(flat(published_rates([2.0, 4.0], Downsample::Direct)), [1e-2, 1e-2, 1e-2, 5e-3]);
    assert_eq!(flat(published_rates([4.0; 2], Downsample::Direct)), [1e-2, 5e-3, 5e-3, 5e-3, 5e-3, 1e-3]);
}

#[test]
fn the_mean_of_networks_that_are_alike() {
    let (a, mut b) = (small(info()), small(info()));
    b.parameters.iter_mut().enumerate().for_each(|(i, v)| *v += i as f32 / 8.0);
    b.info.provenance = String::new();
    let named = |weights: &Weights| ("small".to_owned(), weights.clone());
    let mean = Weights::average(&[named(&a), named(&b), named(&b)]).unwrap();
    let near = |(i, (m, a)): (usize, (&f32, &f32))| (m - (a + 2.0 / 3.0 * i as f32 / 8.0)).abs() < 1e-5;
    assert!(mean.parameters.iter().zip(&a.parameters).enumerate().all(near));
    assert_eq!(mean.info.scale, a.info.scale);
    let told = "The mean of 3: (1) small: made \"here\" (2) small: not recorded (3) small: not recorded";
    assert_eq!(mean.info.provenance, told);
    assert_eq!(Weights::average(&[named(&a)]).unwrap().parameters, a.parameters);
    // Others are refused.
    let mut start = b.clone();
    start.info.start = crate::degrade::Start::LeastSquares;
    let wider = Architecture::new(vec![3, 4, 3]).unwrap();
    let parameters = vec![0.0; wider.parameter_count()];
    for other in [start, Weights { architecture: wider, parameters, info: info() }] {
        let said = Weights::average(&[named(&a), named(&other)]).unwrap_err().to_string();
        assert!(said.contains("small and small are not alike"), "{said}");
    }
    assert!(Weights::average(&[]).is_err());
}
