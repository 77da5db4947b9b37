//! The examples in `docs/examples` do what they say.

use std::fs;

use residua::checkpoint::Trained;
use residua::features::FeatureSet;
use residua::ood::table::Evaluation;
use residua::tensor::Shape;

use crate::ood::scores::case;
use crate::support::program::residua;

#[allow(dead_code)]
#[path = "../../docs/examples/new_operation.rs"]
mod new_operation;
#[allow(dead_code)]
#[path = "../../docs/examples/score_features.rs"]
mod score_features;
#[allow(dead_code)]
#[path = "../../docs/examples/train_network.rs"]
mod train_network;

#[test]
fn score_features_gives_the_figures_of_the_verb() {
    let (caches, folder, out) = (case("tiny"), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = |name: &str| folder.path().join(name).with_extension("npz");
    fs::create_dir(folder.path().join("ood")).unwrap();
    for (from, to) in
        [("train", "train"), ("id", "id"), ("head", "head"), ("ood", "ood/far"), ("id", "ood/same")]
    {
        fs::copy(caches.join(from).with_extension("npz"), place(to)).unwrap();
    }
    let rows = score_features::score(folder.path()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.score.as_str()).collect();
    assert_eq!(names.len(), 10, "five scores of two sets: {names:?}");

    let ood = |name: &str| format!("{name}={}", place(&format!("ood/{name}")).display());
    let mut verb = residua(["ood", "--device", "cpu", "--methods", &names[..5].join(","), "--out"]);
    verb.arg(out.path()).arg("--train").arg(place("train")).arg("--id").arg(place("id"));
    verb.args(["--ood", &ood("far"), "--ood", &ood("same"), "--head"]).arg(place("head")).assert().success();
    let read = Evaluation::read_json(&out.path().join("metrics.json")).unwrap();
    for row in rows {
        let entry = read.entry(&row.set, &row.score).unwrap();
        assert_eq!(row.metrics, entry.metrics, "{} of {}", row.score, row.set);
    }
}

#[test]
fn train_network_keeps_a_checkpoint_and_features_that_the_program_reads() {
    let folder = tempfile::tempdir().unwrap();
    let train = |epochs| {
        let ood = [("digits", "demo:digits?sample=40")];
        train_network::train_network(folder.path(), "demo:fashion-mnist?sample=200", &ood, epochs)
    };
    let accuracy = train(2).unwrap();
    assert!((0.0..=1.0).contains(&accuracy), "{accuracy}");
    let trained = Trained::open(folder.path()).unwrap();
    assert_eq!((trained.epoch, trained.classes.len()), (Some(2), 8));
    let digits = FeatureSet::open(&folder.path().join("features/ood/digits")).unwrap();
    assert_eq!((digits.len(), digits.dimension()), (40, 32));

    let again = folder.path().join("again");
    let mut verb = residua(["extract", "--device", "cpu", "--data", "demo:digits?sample=40", "--checkpoint"]);
    verb.arg(folder.path()).arg("--out").arg(&again).assert().success();
    let features = |cache: std::path::PathBuf| fs::read(cache.join("features.npy")).unwrap();
    assert!(features(again) == features(folder.path().join("features/ood/digits")));

    let error = train(1).unwrap_err().to_string();
    assert!(error.contains("holds a training already"), "{error}");
}

#[test]
fn new_operation_has_the_values_and_the_gradient_of_its_formula() {
    let (shape, slope) = (Shape::from([7, 3]), 0.2);
    let x: Vec<f64> = (0..21).map(|i| (f64::from(i * 8 % 21) - 10.5) / 4.0).collect();
    let weights: Vec<f64> = (0..21).map(|i| f64::from(i % 4) - 1.5).collect();
    let (outputs, difference) = new_operation::check(&x, &weights, shape, slope).unwrap();
    for (x, y) in x.iter().zip(outputs) {
        let expected = if *x > 0.0 { *x } else { slope * x };
        assert!((y - expected).abs() < 1e-15, "leaky ReLU of {x} is {y}");
    }
    assert!(difference < 1e-8, "the gradient is off by {difference:e}");
}
