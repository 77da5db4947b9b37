//! Damaged and hostile caches, archives, heads and fits: a message that says what to do, never a panic.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use residua::features::{FeatureSet, Head};
use residua::ood::{Detectors, Options};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::ood::scores::case;

/// An `.npy` file with this dictionary and these bytes of elements.
fn npy(dictionary: &str, elements: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dictionary.len() as u16 + 1).to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    bytes.push(b'\n');
    bytes.extend(elements);
    bytes
}

fn matrix(rows: usize, columns: usize) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let elements: Vec<u8> = (0..rows * columns).flat_map(|i| (i as f32).to_le_bytes()).collect();
    npy(&dictionary, &elements)
}

fn archive(path: &Path, members: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn message(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.npy");
    fs::write(&path, bytes).unwrap();
    FeatureSet::open(&path).unwrap_err().to_string()
}

#[test]
fn damaged_arrays_are_named_with_what_was_expected() {
    let good = matrix(3, 2);
    for (bytes, expected) in [
        (Vec::new(), "an empty file"),
        (b"PNG is not an array".to_vec(), "a feature cache"),
        (good[..8].to_vec(), "the magic"),
        (good[..40].to_vec(), "the whole header"),
        (good[..good.len() - 1].to_vec(), "is the file cut short?"),
        (npy("{'descr': '<f4', 'fortran_order': False}", &[]), "shape"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", &[0; 8]), "elements of type"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1, 1)}", &[0; 8]), "elements of type"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", &[]),
            "memory could hold",
        ),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}", &[0; 64]),
            "4000000000000 bytes",
        ),
        (npy(&"(".repeat(9000), &[]), "nested brackets"),
        (npy(&"x".repeat(20_000), &[]), "at most 10000"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0)}", &[]), "at least one column"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2)}", &[0; 24]), "negative"),
        ([b"\x93NUMPY\x02\x00".as_slice(), &[255; 8]].concat(), "at most 10000"),
        ([b"\x93NUMPY\x09\x00".as_slice(), &[0; 8]].concat(), "version 9"),
    ] {
        let found = message(&bytes);
        assert!(found.contains(expected) && found.contains("set.npy"), "{expected}: {found}");
    }
}

/// Overwrites the sizes a zip declares for its only member, in the local header and in the directory.
fn declare(path: &Path, size: u32) {
    let mut bytes = fs::read(path).unwrap();
    for (signature, offset) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let at = bytes.windows(4).position(|window| window == signature).unwrap();
        bytes[at + offset..at + offset + 4].copy_from_slice(&size.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_archive_cannot_inflate_beyond_what_it_declares_nor_declare_what_it_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.npz");
    let zeros = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 10)}", &vec![0; 4_000_000]);
    archive(&path, &[("features", &zeros)]);
    assert_eq!(FeatureSet::open(&path).unwrap().len(), 100_000);
    for (size, expected) in [
        (4_000_000_000, "at most 1032 times"),
        (1_000, "bytes inflated, found more"),
        (zeros.len() as u32 + 1, "bytes inflated"),
    ] {
        archive(&path, &[("features", &zeros)]);
        declare(&path, size);
        let found = FeatureSet::open(&path).unwrap_err().to_string();
        assert!(found.contains(expected) && found.contains("features"), "{expected}: {found}");
    }
}

#[test]
fn a_changed_byte_in_an_archive_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.npz");
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
        zip.start_file("W.npy", SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(&matrix(2, 50)).unwrap();
        zip.finish().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[120] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(Head::open(&path).is_err());
    }
}

#[test]
fn a_head_without_weight_or_with_another_bias_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.npz");
    archive(&path, &[("b", &matrix(1, 3))]);
    assert!(Head::open(&path).unwrap_err().to_string().contains("an array `W`"));
    archive(&path, &[("W", &matrix(4, 3)), ("b", &matrix(1, 3))]);
    assert!(Head::open(&path).unwrap_err().to_string().contains("4 numbers, one per row of W"));
    archive(&path, &[("weight", &matrix(4, 3)), ("bias", &matrix(4, 1))]);
    assert_eq!(Head::open(&path).unwrap().bias(), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn features_too_wide_for_a_covariance_are_an_error_before_memory_runs_out() {
    let wide = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let (train, head) = (folder.path().join("t.npz"), folder.path().join("head.npz"));
    let labels = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", &[0; 8]);
    archive(&train, &[("features", &matrix(1, wide)), ("labels", &labels)]);
    archive(&head, &[("W", &matrix(1, wide))]);
    let (train, head) = (FeatureSet::open(&train).unwrap(), Head::open(&head).unwrap());
    let found = Detectors::fit(&train, &head, &Options::default()).unwrap_err().to_string();
    assert!(found.contains("at most 16384") && found.contains("200000"), "{found}");
}

fn fitted() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let head = Head::open(&case("tiny").join("head.npz")).unwrap();
    let train = FeatureSet::open(&case("tiny").join("train.npz")).unwrap();
    let path = folder.path().join("fit.safetensors");
    let scores = Options { knn_bank: 20, ..Options::default() };
    Detectors::fit(&train, &head, &scores).unwrap().save(&path).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_fit_of_another_kind_or_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.safetensors");
    let good = fitted();
    for bytes in [&good[..0], &good[..good.len() - 1], &good[..7], b"not tensors at all"] {
        fs::write(&path, bytes).unwrap();
        assert!(Detectors::load(&path).unwrap_err().to_string().contains("fitted OOD detectors"));
    }
}

/// Applies (position, byte) changes and an optional cut.
fn mutated(
    mut bytes: Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
) -> Vec<u8> {
    for (at, byte) in changes {
        *at.get_mut(&mut bytes) = *byte;
    }
    if let Some(at) = cut {
        bytes.truncate(at.index(bytes.len()));
    }
    bytes
}

/// Opens a set and touches every row; only a panic is a failure.
fn touch(path: &Path) {
    if let Ok(set) = FeatureSet::open(path) {
        let mut rows = Vec::new();
        set.features().read_f64(0..set.len(), &mut rows);
        let _ = set.training_labels(3);
    }
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_arrays_never_panic(changes in changes(), cut in any::<Option<prop::sample::Index>>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npy");
        fs::write(&path, mutated(matrix(3, 2), &changes, cut)).unwrap();
        touch(&path);
    }

    #[test]
    fn mutated_archives_and_heads_never_panic(changes in changes(), cut in any::<Option<prop::sample::Index>>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        archive(&path, &[("features", &matrix(3, 2)), ("logits", &matrix(3, 2)), ("W", &matrix(2, 2))]);
        fs::write(&path, mutated(fs::read(&path).unwrap(), &changes, cut)).unwrap();
        touch(&path);
        let _ = Head::open(&path);
    }

    #[test]
    fn mutated_descriptions_never_panic(changes in changes(), cut in any::<Option<prop::sample::Index>>()) {
        let folder = tempfile::tempdir().unwrap();
        let cache: PathBuf = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::write(cache.join("features.npy"), matrix(3, 2)).unwrap();
        let meta = br#"{"data": "cifar10:x", "transform": "none", "checkpoint": "abc", "rows": 3}"#;
        fs::write(cache.join("meta.json"), mutated(meta.to_vec(), &changes, cut)).unwrap();
        touch(&cache);
    }

    #[test]
    fn mutated_fits_never_panic(changes in changes(), cut in any::<Option<prop::sample::Index>>()) {
        static FIT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fit.safetensors");
        // Half of the changes go to the header, which is a small part of the file.
        let mut bytes = FIT.get_or_init(fitted).clone();
        let tail = bytes.split_off(2000.min(bytes.len()));
        let (head_changes, tail_changes) = changes.split_at(changes.len().div_ceil(2));
        bytes = mutated(bytes, head_changes, None);
        bytes.extend(mutated(tail, tail_changes, cut));
        fs::write(&path, bytes).unwrap();
        if let Ok(fit) = Detectors::load(&path) {
            let _ = fit.score(&FeatureSet::open(&case("tiny").join("id.npz")).unwrap());
        }
    }
}
