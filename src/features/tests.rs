//! Tests of caches, archives, heads and moments.

use std::fs;
use std::io::Write;
use std::path::Path;

use half::f16;
use npyz::{Order, WriteOptions, WriterBuilder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::rng::Stream;

fn normals(count: usize, seed: u64) -> Vec<f64> {
    let stream = Stream::new(seed, &[]);
    (0..count).map(|i| stream.normal(i as u64)).collect()
}

/// An `.npy` file of the given elements, as NumPy would write it.
fn npy<T: npyz::AutoSerialize + Copy>(values: &[T], shape: &[u64], order: Order) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        WriteOptions::new().default_dtype().order(order).shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
    bytes
}

fn npz(path: &Path, members: &[(&str, Vec<u8>)], method: CompressionMethod) {
    let mut archive = ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        archive
            .start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method))
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

fn transposed<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|j| (0..rows).map(move |i| values[i * columns + j])).collect()
}

#[test]
fn every_float_type_order_and_compression_reads_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (7, 3);
    // Exact in half precision, so that all types hold the same numbers.
    let exact: Vec<f64> = normals(rows * columns, 1).iter().map(|x| (x * 64.0).round() / 64.0).collect();
    let shape = [rows as u64, columns as u64];
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        for order in [Order::C, Order::Fortran] {
            let stored = if order == Order::C { exact.clone() } else { transposed(&exact, rows, columns) };
            let half: Vec<f16> = stored.iter().map(|&x| f16::from_f64(x)).collect();
            let single: Vec<f32> = stored.iter().map(|&x| x as f32).collect();
            for bytes in [npy(&half, &shape, order), npy(&single, &shape, order), npy(&stored, &shape, order)]
            {
                let path = folder.path().join("set.npz");
                npz(&path, &[("features", bytes.clone()), ("logits", bytes)], method);
                let set = FeatureSet::open(&path).unwrap();
                let mut read = Vec::new();
                set.features().read_f64(0..rows, &mut read);
                assert_eq!(read, exact);
                set.logits().unwrap().read_f64(2..5, &mut read);
                assert_eq!(read, exact[2 * columns..5 * columns]);
                set.features().read_f64(4..4, &mut read);
                assert!(read.is_empty());
                let mut narrow = Vec::new();
                set.features().read_f32(6..7, &mut narrow);
                assert!(narrow.iter().zip(&exact[18..]).all(|(&a, &b)| f64::from(a) == b));
            }
        }
    }
}

#[test]
fn big_endian_arrays_and_every_integer_width_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let mut features = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    let mut header = b"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 1), }".to_vec();
    header.resize(69, b' ');
    header.push(b'\n');
    features.extend(header);
    features.extend(1.5f32.to_be_bytes());
    features.extend((-2.0f32).to_be_bytes());
    let path = folder.path().join("s.npz");
    for labels in [
        npy(&[3i8, -1], &[2], Order::C),
        npy(&[3i16, -1], &[2, 1], Order::C),
        npy(&[3i32, -1], &[1, 2], Order::C),
        npy(&[3i64, -1], &[2], Order::Fortran),
    ] {
        npz(&path, &[("features", features.clone()), ("labels", labels)], CompressionMethod::Stored);
        let set = FeatureSet::open(&path).unwrap();
        assert_eq!(set.labels().unwrap(), [3, -1]);
        let mut read = Vec::new();
        set.features().read_f64(0..2, &mut read);
        assert_eq!(read, [1.5, -2.0]);
    }
    let labels = npy(&[200u8, 0], &[2], Order::C);
    npz(&path, &[("features", features), ("labels", labels)], CompressionMethod::Stored);
    assert_eq!(FeatureSet::open(&path).unwrap().labels().unwrap(), [200, 0]);
}

#[test]
fn a_cache_reads_back_what_was_appended_and_replaces_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("features/last/train");
    let meta =
        CacheMeta { data: Some("cifar10:x".into()), checkpoint: Some("abc".into()), ..Default::default() };
    for rows in [5usize, 3] {
        let features: Vec<f32> = normals(rows * 4, 2).iter().map(|&x| x as f32).collect();
        let logits: Vec<f32> = normals(rows * 2, 3).iter().map(|&x| x as f32).collect();
        let labels: Vec<i64> = (0..rows as i64).map(|i| i % 3 - 1).collect();
        let mut writer = CacheWriter::create(&cache, 4, 2, meta.clone()).unwrap();
        writer.append(&features[..8], &logits[..4], &labels[..2]).unwrap();
        writer.append(&features[8..], &logits[4..], &labels[2..]).unwrap();
        writer.finish().unwrap();
        let set = FeatureSet::open(&cache).unwrap();
        assert_eq!((set.len(), set.dimension(), set.classes()), (rows, 4, Some(2)));
        assert_eq!(set.labels().unwrap(), labels);
        assert_eq!(set.meta().rows, Some(rows as u64));
        assert_eq!(set.meta().checkpoint.as_deref(), Some("abc"));
        let mut read = Vec::new();
        set.features().read_f32(0..rows, &mut read);
        assert_eq!(read, features);
    }
    let left: Vec<_> = std::fs::read_dir(cache.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing temporary is left behind");
}

#[test]
fn an_unfinished_cache_leaves_nothing_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("train");
    let mut writer = CacheWriter::create(&cache, 1, 1, CacheMeta::default()).unwrap();
    writer.append(&[1.0], &[2.0], &[0]).unwrap();
    writer.finish().unwrap();
    let mut writer = CacheWriter::create(&cache, 1, 1, CacheMeta::default()).unwrap();
    writer.append(&[1.0, 2.0], &[2.0, 3.0], &[0, 0]).unwrap();
    drop(writer);
    assert_eq!(FeatureSet::open(&cache).unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_head_survives_a_round_trip_and_gives_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.npz");
    let weight: Vec<f64> = (0..6).map(|i| f64::from(i) / 4.0).collect();
    let head = Head::new(weight, vec![1.0, -1.0], 3).unwrap();
    head.write(&path).unwrap();
    assert_eq!(Head::open(&path).unwrap(), head);
    let mut logits = Vec::new();
    head.logits(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0], 2, &mut logits);
    assert_eq!(logits, [0.25 * 2.0 + 0.5 * 3.0 + 1.0, 0.75 + 2.0 + 3.75 - 1.0, 1.0, -1.0]);
    assert!(Head::new(vec![0.0; 5], vec![0.0; 2], 3).is_err());
}

fn in_memory(values: Vec<f64>, columns: usize) -> Matrix {
    Matrix::from_f64(values, columns, "features").unwrap()
}

#[test]
fn moments_match_their_definitions_and_merge_exactly() {
    for (rows, dimension, classes) in [(40, 5, 3), (9, 17, 4), (1000, 3, 2), (5, 1, 5)] {
        let values: Vec<f64> = normals(rows * dimension, 4).iter().map(|x| 100.0 + x).collect();
        let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % classes) as u32).collect();
        let moments = Moments::accumulate(&in_memory(values.clone(), dimension), &labels, classes);
        let mut parts = Moments::empty(classes, dimension);
        for (chunk, labels) in values.chunks(4 * dimension).zip(labels.chunks(4)) {
            parts.merge(&Moments::accumulate(&in_memory(chunk.to_vec(), dimension), labels, classes));
        }
        let mut means = vec![0.0; classes * dimension];
        for class in 0..classes {
            let members = || (0..rows).filter(move |i| i * 7 % classes == class);
            for j in 0..dimension {
                means[class * dimension + j] =
                    members().map(|i| values[i * dimension + j]).sum::<f64>() / members().count() as f64;
            }
        }
        let mut within = vec![0.0; dimension * dimension];
        for (row, &label) in values.chunks(dimension).zip(&labels) {
            let mean = &means[label as usize * dimension..];
            for j in 0..dimension {
                for k in 0..dimension {
                    within[j * dimension + k] += (row[j] - mean[j]) * (row[k] - mean[k]);
                }
            }
        }
        let close = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} {b}"));
        };
        for found in [&moments, &parts] {
            assert_eq!(found.samples(), rows as u64);
            close(found.means(), &means);
            close(&found.within_scatter(), &within);
            let trace: f64 = (0..dimension).map(|j| within[j * dimension + j]).sum();
            close(&[found.class_scatter().iter().sum()], &[trace]);
        }
        let mean: Vec<f64> = (0..dimension)
            .map(|j| values.iter().skip(j).step_by(dimension).sum::<f64>() / rows as f64)
            .collect();
        close(&moments.global_mean(), &mean);
        let mut global = vec![0.0; dimension * dimension];
        for row in values.chunks(dimension) {
            for j in 0..dimension {
                for k in 0..dimension {
                    global[j * dimension + k] += (row[j] - mean[j]) * (row[k] - mean[k]);
                }
            }
        }
        close(&moments.global_scatter(), &global);
    }
}

#[test]
fn moments_are_the_same_bit_for_bit_with_one_and_three_threads() {
    let values = normals(3000 * 700, 5);
    let labels: Vec<u32> = (0..3000).map(|i| i % 11).collect();
    let features = in_memory(values, 700);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Moments::accumulate(&features, &labels, 11))
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_nan_is_reported_with_file_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    let mut values = vec![1f32; 12];
    values[7] = f32::NAN;
    npz(&path, &[("features", npy(&values, &[4, 3], Order::C))], CompressionMethod::Deflated);
    let message = FeatureSet::open(&path).unwrap_err().to_string();
    assert!(message.contains("t.npz row 2") && message.contains("NaN in column 1"), "{message}");
}

fn opening(members: &[(&str, Vec<u8>)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    npz(&path, members, CompressionMethod::Stored);
    FeatureSet::open(&path).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_together_is_named_with_both_numbers() {
    let features = || ("features", npy(&[1f32; 6], &[3, 2], Order::C));
    let message = opening(&[features(), ("labels", npy(&[0i64; 4], &[4], Order::C))]);
    assert!(message.contains("3 labels") && message.ends_with("found 4"), "{message}");
    let message = opening(&[features(), ("logits", npy(&[0f32; 4], &[2, 2], Order::C))]);
    assert!(message.contains("3 rows of logits") && message.ends_with("found 2"), "{message}");
    let message = opening(&[("logits", npy(&[0f32; 4], &[2, 2], Order::C))]);
    assert!(message.contains("`features`") && message.contains("logits"), "{message}");
    let message = opening(&[features(), ("labels", npy(&[0f32; 3], &[3], Order::C))]);
    assert!(message.contains("integers"), "{message}");
    let message = opening(&[("features", npy(&[0i64; 6], &[3, 2], Order::C))]);
    assert!(message.contains("floating-point"), "{message}");
    let message = opening(&[("features", npy(&[0f32; 6], &[6], Order::C))]);
    assert!(message.contains("row per sample"), "{message}");
}

#[test]
fn training_labels_must_be_known_and_cover_every_class() {
    let set = |labels: Vec<i64>| {
        let features = in_memory(vec![0.0; labels.len()], 1);
        FeatureSet::from_parts("train", features, None, Some(labels)).unwrap()
    };
    assert_eq!(set(vec![1, 0]).training_labels(2).unwrap(), [1, 0]);
    assert!(set(vec![0, 1, 2]).training_labels(2).unwrap_err().to_string().contains("row 2"));
    assert!(set(vec![0, -1]).training_labels(1).unwrap_err().to_string().contains("label -1"));
    assert!(set(vec![0, 2]).training_labels(3).unwrap_err().to_string().contains("none of class 1"));
}

#[test]
fn caches_of_two_checkpoints_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let cache = |name: &str, hash: &str| {
        let meta = CacheMeta { checkpoint: Some(hash.into()), ..Default::default() };
        let mut writer = CacheWriter::create(&folder.path().join(name), 1, 1, meta).unwrap();
        writer.append(&[1.0], &[1.0], &[0]).unwrap();
        writer.finish().unwrap();
        FeatureSet::open(&folder.path().join(name)).unwrap()
    };
    let (a, b, c) = (cache("a", "one"), cache("b", "one"), cache("c", "two"));
    assert!(check_same_checkpoint(&[&a, &b]).is_ok());
    assert!(check_same_checkpoint(&[&a, &c]).unwrap_err().to_string().contains("different checkpoints"));
}

#[test]
fn a_folder_that_holds_anything_else_is_not_replaced_by_a_cache() {
    let root = tempfile::tempdir().unwrap();
    let write = |folder: &Path| -> crate::error::Result<()> {
        let mut writer = CacheWriter::create(folder, 1, 2, CacheMeta::default())?;
        writer.append(&[1.0], &[0.5, 0.25], &[1])?;
        writer.finish()
    };
    let run = root.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), "kept").unwrap();
    let error = write(&run).unwrap_err().to_string();
    assert!(error.contains("holds `metrics.jsonl`, which is no part of a feature cache"), "{error}");
    assert_eq!(fs::read(run.join("metrics.jsonl")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no temporary folder is left");
    // An older cache is what a new one replaces.
    let cache = root.path().join("cache");
    write(&cache).unwrap();
    write(&cache).unwrap();
}
