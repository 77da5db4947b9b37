//! Property tests: whatever happens to the bytes of a weights file, reading it gives tensors of their shapes or an error.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use residua::checkpoint::{look, read_training_record};
use residua::pickle::{Node, read};

use crate::data::mutations::{cases, mutated, mutations};

/// Files of PyTorch and safetensors, of every kind that is read; among them those with views, flags and other objects.
const FILES: [&str; 12] = [
    "legacy.th",
    "types.safetensors",
    "types.pth",
    "resnet_20_epoch.pth",
    "views.pth",
    "views_legacy.th",
    "views.safetensors",
    "odd_conjugate.pth",
    "odd_quantized.pth",
    "averaged_model.pth",
    "with_ema.pth",
    "whole_module.pth",
];
const PICKLES: [&str; 9] = [
    "values_protocol2.pkl",
    "values_protocol3.pkl",
    "values_protocol4.pkl",
    "values_protocol5.pkl",
    "arrays_protocol2.pkl",
    "arrays_protocol5.pkl",
    "inert_protocol2.pkl",
    "inert_protocol5.pkl",
    "cifar_batch.pkl",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// Looks at everything that a reader could ask of a value, two levels deep.
fn ask(node: Node<'_>, depth: usize) {
    let _ =
        (node.text(), node.integer(), node.float(), node.array().map(|array| array.map(|a| a.float_at(0))));
    assert!(!node.describe().is_empty());
    if let Some(call) = node.call() {
        let _ = (call.callable.to_string(), call.argument(0), call.state);
    }
    if depth > 0 {
        for (key, value) in node.entries().unwrap_or_default().into_iter().take(100) {
            ask(key, 0);
            ask(value, depth - 1);
        }
        node.elements().into_iter().flatten().take(100).for_each(|element| ask(element, depth - 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(200)) })]

    #[test]
    fn no_mutated_pickle_panics(which in 0..PICKLES.len(), changes in mutations(), front in any::<bool>()) {
        let mut bytes = fs::read(fixture(PICKLES[which])).unwrap();
        let rest = if front && bytes.len() > 400 { bytes.split_off(400) } else { Vec::new() };
        let bytes = [mutated(bytes, &changes), rest].concat();
        if let Ok(pickle) = read(&bytes) {
            ask(pickle.root(), 2);
        }
    }

    #[test]
    fn no_mutated_weights_file_panics(which in 0..FILES.len(), changes in mutations(), place in 0..3u8) {
        let mut bytes = fs::read(fixture(FILES[which])).unwrap();
        // Anywhere, or where the pickle begins and ends: most of a file is numbers, which may be any.
        let length = bytes.len();
        let (from, to) = match place {
            0 => (0, length),
            1 => (0, length.min(1500)),
            _ => (length.saturating_sub(1500), length),
        };
        let middle = mutated(bytes[from..to].to_vec(), &changes);
        bytes.splice(from..to, middle);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, bytes).unwrap();
        match look(&path, None) {
            Ok(imported) => {
                for tensor in imported.state.values() {
                    prop_assert_eq!(tensor.len(), tensor.shape.iter().product::<usize>());
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        let _ = read_training_record(&path);
    }
}
