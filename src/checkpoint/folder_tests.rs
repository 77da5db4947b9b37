//! Promises of checkpoint folders: whole or absent, byte-identical, found by folder, link or run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Checkpoint, HostTensor, Meta, StateDict, Values};
use super::{hash, list, load, point, read_meta, read_weights, resolve, save};

fn example(epoch: u64) -> Checkpoint {
    let mut model = StateDict::new();
    model.insert("fc.weight".into(), HostTensor::f32([2, 3], (0..6).map(|i| i as f32 * 0.1).collect()));
    model.insert("fc.bias".into(), HostTensor::f32([2], vec![epoch as f32, f32::MIN_POSITIVE]));
    let mut state = StateDict::new();
    // Names of the optimizer's tensors must come back as they are, prefixes and all.
    let values = Values::F64(vec![0.1, -0.0]);
    state.insert("module.velocity.linear.weight".into(), HostTensor { shape: vec![2], values });
    let meta = Meta {
        architecture: json!({"arch": "resnet18"}),
        classes: vec!["cat".into(), "dög".into()],
        epoch,
        step: 40,
        seed: u64::MAX,
        metrics: BTreeMap::from([("validation_loss".into(), 0.1 + 0.2)]),
        extra: json!({"best": [1, 2]}),
        ..Meta::default()
    };
    Checkpoint { model, state, meta }
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("checkpoints/epoch_0010");
    let mut saved = example(10);
    saved.meta = save(&folder, &saved).unwrap();
    assert_eq!(load(&folder).unwrap(), saved);
    assert_eq!(saved.meta.seed, u64::MAX);
    assert_eq!(hash(&folder).unwrap(), saved.meta.model_hash);
    assert_eq!(hash(&folder.join("model.safetensors")).unwrap(), saved.meta.model_hash);
    assert_eq!(read_weights(&folder, None).unwrap().state, saved.model);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes_and_leaves_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    for name in ["a", "b", "b"] {
        save(&run.path().join(name), &example(1)).unwrap();
    }
    for file in ["model.safetensors", "state.safetensors", "meta.json"] {
        assert_eq!(
            fs::read(run.path().join("a").join(file)).unwrap(),
            fs::read(run.path().join("b").join(file)).unwrap()
        );
    }
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2);
    assert_eq!(fs::read_dir(run.path().join("b")).unwrap().count(), 3);
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("epoch_0001");
    save(&folder, &example(1)).unwrap();
    let mut broken = example(2);
    broken.meta.metrics.insert("loss".into(), f64::NAN);
    assert!(save(&folder, &broken).unwrap_err().to_string().contains("`loss` is NaN"));
    let mut broken = example(2);
    broken.state.insert("x".into(), HostTensor::f32([3], vec![0.0]));
    assert!(save(&folder, &broken).is_err());
    assert_eq!(load(&folder).unwrap().meta.epoch, 1);
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn links_are_relative_and_replaced_and_a_run_folder_means_its_last_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = run.path().join("checkpoints");
    for epoch in [9, 10] {
        let folder = checkpoints.join(format!("epoch_{epoch:04}"));
        save(&folder, &example(epoch)).unwrap();
        point(&checkpoints.join("last"), &folder).unwrap();
    }
    assert_eq!(fs::read_link(checkpoints.join("last")).unwrap(), Path::new("epoch_0010"));
    for path in [run.path(), &checkpoints, &checkpoints.join("last")] {
        assert_eq!(read_meta(path).unwrap().epoch, 10);
    }
    // A moved run still works.
    let moved = run.path().join("moved");
    fs::rename(&checkpoints, &moved).unwrap();
    assert_eq!(load(&moved).unwrap().meta.epoch, 10);
    let not_a_link = moved.join("epoch_0009");
    assert!(point(&not_a_link, &moved.join("epoch_0010")).unwrap_err().to_string().contains("not a link"));
    assert!(point(&moved.join("best"), Path::new("/elsewhere")).is_err());
}

#[test]
fn damage_is_found_and_named() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("epoch_0001");
    let fresh = || {
        save(&folder, &example(1)).unwrap();
    };
    let message = || load(&folder).unwrap_err().to_string();
    for file in ["model.safetensors", "state.safetensors"] {
        fresh();
        let mut bytes = fs::read(folder.join(file)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(folder.join(file), bytes).unwrap();
        assert!(message().contains(file) && message().contains("damaged or changed"), "{}", message());
    }
    fresh();
    let meta = folder.join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert!(message().contains("newer residua"), "{}", message());
    fs::write(&meta, &text[..text.len() / 2]).unwrap();
    assert!(message().contains("meta.json: expected JSON"), "{}", message());
    fs::write(&meta, "{}").unwrap();
    assert!(message().contains("no `format`"), "{}", message());
    fs::remove_file(&meta).unwrap();
    assert!(message().contains("a folder without them"), "{}", message());
    assert!(resolve(&run.path().join("absent")).unwrap_err().to_string().contains("nothing of that name"));
}

#[test]
fn checkpoints_are_listed_once_and_in_the_order_of_training() {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = run.path().join("checkpoints");
    for epoch in [100, 9, 20] {
        save(&checkpoints.join(format!("epoch_{epoch}")), &example(epoch)).unwrap();
    }
    #[cfg(unix)]
    point(&checkpoints.join("last"), &checkpoints.join("epoch_100")).unwrap();
    let notebook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights/resnet_20_epoch.pth");
    fs::copy(&notebook, run.path().join("resnet_300_epoch.pth")).unwrap();
    let pattern = |text: &str| format!("{}/{text}", run.path().display());
    let names = |patterns: &[String]| -> Vec<(String, Option<u64>)> {
        list(patterns).unwrap().iter().map(|found| (found.name(), found.epoch)).collect()
    };
    let epochs =
        [("epoch_9", 9), ("epoch_20", 20), ("epoch_100", 100)].map(|(n, e)| (n.to_string(), Some(e)));
    assert_eq!(names(&[pattern("checkpoints/*")]), epochs);
    assert_eq!(names(&[pattern(""), pattern("checkpoints"), pattern("checkpoints/epoch_*")]), epochs);
    // The stored epoch (20) counts, not the number in the file's name.
    let both = names(&[pattern("*.pth"), pattern("checkpoints/epoch_100")]);
    assert_eq!(both, [("resnet_300_epoch".to_string(), Some(20)), ("epoch_100".to_string(), Some(100))]);
    assert!(list(&[pattern("*.safetensors")]).unwrap_err().to_string().contains("no checkpoint matches"));
    fs::write(run.path().join("notes.txt"), "x").unwrap();
    assert!(list(&[pattern("notes.txt")]).unwrap_err().to_string().contains("expected weights"));
}
