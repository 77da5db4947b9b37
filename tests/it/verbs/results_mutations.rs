//! Property tests: whatever happens to the files of a run, reading them and building its page gives a result or an error.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use residua::collapse::{CollapseReport, Options, Subject, measure};
use residua::features::{FeatureSet, Head, Matrix};
use residua::ood::metrics::OodMetrics;
use residua::ood::table::{Entry, Evaluation, Group, IdSet, OodSet};
use residua::recipe::Recipe;
use residua::report;

use crate::data::mutations::{cases, mutated, mutations};

const LOG: &str = r#"{"step":5,"epoch":1.0,"split":"train","scope":"epoch","loss":2.25,"accuracy":0.25,"lr":0.1,"images_per_second":100.0}
{"step":5,"epoch":1.0,"split":"val","scope":"epoch","loss":2.5,"accuracy":0.125,"lr":0.1,"images_per_second":300.0}
{"step":10,"epoch":2.0,"split":"train","scope":"epoch","loss":1.5,"accuracy":0.5,"lr":0.05,"images_per_second":100.0}
"#;

fn write_evaluation(path: &Path) {
    let mut evaluation = Evaluation::new(IdSet { samples: 4, accuracy: Some(0.75) });
    let metrics = OodMetrics::evaluate(&[0.9, 0.8, 0.4, 0.7], &[0.3, 0.5, 0.1]).unwrap();
    let set = OodSet { name: "far".into(), group: Some(Group::Far), samples: 3 };
    evaluation.add(set, [("msp".to_string(), Entry::from(metrics))]).unwrap();
    evaluation.write_json(path).unwrap();
}

fn write_collapse(path: &Path) {
    let set = |features: Vec<f32>, labels| {
        let features = Matrix::from_f32(features, 2, "features").unwrap();
        FeatureSet::from_parts("test", features, None, labels).unwrap()
    };
    let subject = Subject {
        train: set(vec![1.0, 0.1, 1.5, 0.0, -1.0, 0.2, -1.5, 0.1], Some(vec![0, 0, 1, 1])),
        test: None,
        head: Head::new(vec![1.0, 0.0, -1.0, 0.0], vec![0.0; 2], 2).unwrap(),
        ood: vec![("far".into(), set(vec![0.0, 2.0], None))],
        notes: Vec::new(),
    };
    let mut row = measure(&subject, &Options::default()).unwrap().row;
    row.checkpoint = "epoch_0002".into();
    row.epoch = Some(2);
    CollapseReport { checkpoints: vec![row], ..CollapseReport::default() }.write_json(path).unwrap();
}

/// A run folder with a recipe, a log, metrics and collapse.
fn run_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for part in ["ood", "collapse"] {
        fs::create_dir(root.join(part)).unwrap();
    }
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/cifar100-ood.toml"),
        root.join("recipe.toml"),
    )
    .unwrap();
    fs::write(root.join("metrics.jsonl"), LOG).unwrap();
    write_evaluation(&root.join("ood/metrics.json"));
    write_collapse(&root.join("collapse/collapse.json"));
    folder
}

#[test]
fn an_undamaged_run_gives_a_page() {
    let folder = run_folder();
    report::build(folder.path()).unwrap();
    Recipe::read(&folder.path().join("recipe.toml")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(64)) })]

    #[test]
    fn a_damaged_run_never_panics(file in 0..4usize, changes in mutations()) {
        let folder = run_folder();
        let names = ["recipe.toml", "metrics.jsonl", "ood/metrics.json", "collapse/collapse.json"];
        let path = folder.path().join(names[file]);
        let damaged = mutated(fs::read(&path).unwrap(), &changes);
        fs::write(&path, damaged).unwrap();
        let _ = Recipe::read(&folder.path().join("recipe.toml"));
        let _ = residua::train::read_metrics(&folder.path().join("metrics.jsonl"));
        let _ = Evaluation::read_json(&folder.path().join("ood/metrics.json")).map(|e| e.summary());
        let _ = CollapseReport::read_json(&folder.path().join("collapse/collapse.json")).map(|c| c.summary());
        if let Err(error) = report::build(folder.path()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
