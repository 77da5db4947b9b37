//! The verb `collapse` on caches and on checkpoints.

use std::path::Path;

use residua::collapse::{CollapseReport, Options, measure};
use residua::features::{CacheMeta, CacheWriter, Head};
use serde_json::Value;

use super::subject;
use crate::support::data_files::write_images;
use crate::support::program::residua;
use crate::support::synthetic::{Case, expected, tiny};

/// Writes the caches of a checkpoint as `extract` lays them out; `scale` stands for another epoch's classifier.
fn write_caches(folder: &Path, case: &Case, hash: &str) {
    for (name, samples) in [("train", &case.train), ("test", &case.id), ("svhn", &case.ood)] {
        let meta = CacheMeta { checkpoint: Some(hash.into()), ..CacheMeta::default() };
        let mut writer = CacheWriter::create(&folder.join(name), case.dimension, case.classes, meta).unwrap();
        writer.append(&samples.features, &samples.logits, &samples.labels).unwrap();
        writer.finish().unwrap();
    }
    case.head().write(&folder.join("head.npz")).unwrap();
}

fn collapse(folder: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    residua(["collapse"]).current_dir(folder).args(arguments).assert()
}

#[test]
fn the_verb_measures_caches_and_writes_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let case = tiny();
    write_caches(folder.path(), &case, "a");
    let arguments =
        ["--train", "train", "--test", "test", "--ood", "far:svhn=svhn", "--out", "out", "--json"];
    let output = collapse(folder.path(), &arguments).success().get_output().stdout.clone();
    let printed: Value = serde_json::from_slice(&output).unwrap();
    let out = folder.path().join("out");
    let report = CollapseReport::read_json(&out.join("collapse.json")).unwrap();
    assert_eq!(printed, serde_json::to_value(&report).unwrap());
    let want = expected(&case)["collapse"]["nc5"].as_f64().unwrap();
    assert!((report.checkpoints[0].nc5_by_ood["svhn"] - want).abs() < 1e-5);
    for name in ["collapse.csv", "cosines.npy", "cosines.svg", "angles.svg"] {
        assert!(out.join(name).metadata().unwrap().len() > 100, "{name}");
    }
    assert!(!out.join("curves.svg").exists(), "one checkpoint makes no curve");
}

#[test]
fn the_verb_measures_every_checkpoint_of_a_run_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let case = tiny();
    for epoch in ["epoch_0100", "epoch_0020"] {
        write_caches(&folder.path().join("features").join(epoch), &case, epoch);
    }
    std::fs::create_dir(folder.path().join("features/epoch_0060")).unwrap();
    let arguments = |skip: &[&'static str]| {
        [&["--features", "features/*", "--train", "train", "--ood", "svhn=svhn", "--out", "out"], skip]
            .concat()
    };
    let failed = collapse(folder.path(), &arguments(&[])).failure().code(1).get_output().stderr.clone();
    assert!(String::from_utf8(failed).unwrap().contains("epoch_0060"));
    assert!(!folder.path().join("out").exists(), "a failed series writes nothing");
    let text =
        collapse(folder.path(), &arguments(&["--skip-failures"])).success().get_output().stdout.clone();
    assert!(String::from_utf8(text).unwrap().contains("skipped features/epoch_0060"));
    let report = CollapseReport::read_json(&folder.path().join("out/collapse.json")).unwrap();
    let epochs: Vec<Option<u64>> = report.checkpoints.iter().map(|row| row.epoch).collect();
    assert_eq!(epochs, [Some(20), Some(100)]);
    assert!(folder.path().join("out/curves.svg").exists());
}

#[test]
fn caches_of_different_checkpoints_are_refused_and_wrong_use_exits_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let case = tiny();
    write_caches(&folder.path().join("a"), &case, "hash-a");
    write_caches(&folder.path().join("b"), &case, "hash-b");
    let mixed = ["--train", "a/train", "--head", "a/head.npz", "--ood", "svhn=b/svhn", "--out", "out"];
    let message = collapse(folder.path(), &mixed).failure().code(1).get_output().stderr.clone();
    let message = String::from_utf8(message).unwrap();
    assert!(message.contains("hash-a") && message.contains("hash-b"), "{message}");
    collapse(folder.path(), &["--train", "a/train", "--ood", "svhn", "--out", "out"]).failure().code(2);
    collapse(folder.path(), &["--train", "a/train", "--head", "missing.npz", "--out", "out"])
        .failure()
        .code(1);
}

#[test]
fn a_head_of_another_network_is_refused() {
    let case = tiny();
    let mut subject = subject(&case);
    subject.head = Head::new(vec![1.0; 5 * 17], vec![0.0; 5], 17).unwrap();
    let message = measure(&subject, &Options::default()).unwrap_err().to_string();
    assert!(message.contains("expected 17 features per sample") && message.contains("found 16"), "{message}");
}

#[test]
fn checkpoints_are_measured_on_features_of_their_own_network() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    write_images(folder, "train", 30, 0);
    write_images(folder, "test", 14, 3);
    write_images(folder, "odd", 9, 29);
    let train = ["--data", "idx:train-images,train-labels"];
    let network = ["--arch", "resnet20", "--width", "0.25", "--normalize", "0.5/0.25", "--augment", "none"];
    let run = ["--epochs", "2", "--batch-size", "10", "--checkpoint-every", "1", "--quiet", "--out", "run"];
    let arguments = [&["train"], &train[..], &network[..], &run[..]].concat();
    residua(arguments).current_dir(folder).assert().success();

    let sets = ["--test", "idx:test-images,test-labels", "--ood", "odd=idx:odd-images", "--quiet"];
    let common = [&["--checkpoints", "run"], &train[..], &sets[..]].concat();
    let rows =
        |out: &str| CollapseReport::read_json(&folder.join(out).join("collapse.json")).unwrap().checkpoints;
    collapse(folder, &[&common[..], &["--out", "passing"]].concat()).success();
    let passing = rows("passing");
    assert_eq!(passing.iter().map(|row| row.epoch).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!((passing[0].samples, passing[0].classes), (30, 2));
    assert_ne!(passing[0].nc3, passing[1].nc3, "two epochs are two networks");
    assert!(passing[0].nc4_test.is_some() && passing[0].nc5_by_ood.contains_key("odd"));
    let hidden = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".residua");
    assert!(!std::fs::read_dir(folder).unwrap().any(|entry| hidden(entry.unwrap())), "caches are removed");

    // Kept features give the same rows, at once and from the caches alone.
    collapse(folder, &[&common[..], &["--keep-features", "kept", "--out", "keeping"]].concat()).success();
    let caches =
        ["--features", "kept/*", "--train", "train", "--test", "test", "--ood", "odd=odd", "--out", "cached"];
    collapse(folder, &caches).success();
    assert_eq!((rows("keeping"), rows("cached")), (passing.clone(), passing));

    for name in ["train=idx:odd-images", "../x=idx:odd-images"] {
        collapse(folder, &[&common[..], &["--ood", name, "--out", "refused"]].concat()).failure().code(2);
    }
    collapse(folder, &["--checkpoints", "run", "--out", "refused"]).failure().code(2);
}
