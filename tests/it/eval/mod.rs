//! Evaluation on labelled data: against scikit-learn and plain definitions, and from the command line.

use std::collections::BTreeMap;
use std::path::Path;

use residua::eval::{Options, Results, evaluate};
use residua::features::{Element, FeatureSet, Head, NpyArray, write_npz};
use serde::Deserialize;

use crate::ood::scores::case;
use crate::support::program::{residua, said};

/// A case of `tests/fixtures/reference/eval.json`.
#[derive(Deserialize)]
struct Expected {
    metrics: BTreeMap<String, f64>,
    log_loss: f64,
    f1: BTreeMap<String, f64>,
    confusion: Vec<Vec<u64>>,
}

fn expected() -> BTreeMap<String, Expected> {
    let path = case("eval.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn opened(name: &str) -> (FeatureSet, Head) {
    let folder = case(name);
    let head = Head::open(&folder.join("head.npz")).unwrap();
    (FeatureSet::open(&folder.join("id.npz")).unwrap(), head)
}

#[test]
fn every_metric_is_that_of_scikit_learn_or_of_its_definition() {
    let expected = expected();
    assert_eq!(expected.len(), 5);
    for (name, expected) in expected {
        let (set, head) = opened(&name);
        let found = evaluate(&set, &head, &Options::default()).unwrap();
        let metrics = found.results.metrics.named();
        assert_eq!(metrics.len(), expected.metrics.len(), "{name}");
        for (metric, value) in metrics {
            let want = expected.metrics[metric];
            assert!((value - want).abs() <= 1e-12, "{name} {metric}: {value}, expected {want}");
        }
        assert!((found.results.metrics.nll - expected.log_loss).abs() <= 1e-12, "{name}: log_loss");
        for (class, f1) in expected.f1 {
            let own = found.results.per_class[class.parse::<usize>().unwrap()].f1.unwrap();
            assert!((own - f1).abs() <= 1e-12, "{name} class {class}");
        }
        let mut confusion = vec![vec![0; head.classes()]; head.classes()];
        for cell in found.confusion.cells() {
            confusion[cell.label as usize][cell.predicted as usize] = cell.count;
        }
        assert_eq!(confusion, expected.confusion, "{name}");
    }
}

#[test]
fn results_and_intervals_have_the_same_bits_for_any_number_of_threads() {
    let (set, head) = opened("small");
    let options = Options { replicates: 50, seed: 3, ..Options::default() };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| evaluate(&set, &head, &options).unwrap().results)
    };
    let results = with(1);
    assert_eq!(results, with(3));
    for (name, value) in results.metrics.named() {
        let Some([low, high]) = results.interval95.of(name) else { continue };
        assert!(low <= value && value <= high, "{name}: {value} is not in [{low}, {high}]");
    }
    let other = evaluate(&set, &head, &Options { seed: 4, ..options }).unwrap().results;
    assert_ne!(other.interval95.nll, results.interval95.nll);
}

/// A cache of `labels` whose logits are far from every tie.
fn cache(folder: &Path, logits: &[f32], labels: &[i64]) -> std::path::PathBuf {
    let (rows, path) = (labels.len(), folder.join("cache.npz"));
    let classes = logits.len() / rows;
    let matrix = |values: &[f32]| NpyArray::from_vec(values.to_vec(), Element::F32, vec![rows, classes]);
    let identity: Vec<f32> =
        (0..classes * classes).map(|i| f32::from(u8::from(i / classes == i % classes))).collect();
    let arrays = [
        ("features", matrix(logits)),
        ("logits", matrix(logits)),
        ("labels", NpyArray::from_vec(labels.to_vec(), Element::Signed(8), vec![rows])),
        ("W", NpyArray::from_vec(identity, Element::F32, vec![classes, classes])),
        ("b", NpyArray::from_vec(vec![0f32; classes], Element::F32, vec![classes])),
    ];
    let named: Vec<(&str, &NpyArray)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
    write_npz(&path, &named).unwrap();
    path
}

#[test]
fn samples_without_a_label_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let logits = [4.0, 0.0, 0.0, 4.0, 4.0, 0.0, 0.0, 4.0];
    let path = cache(folder.path(), &logits, &[0, 1, -1, 0]);
    let (code, text) = said(&["eval", "--cache", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("3 samples of 2 classes; 1 without a label are left out"), "{text}");
    assert!(text.contains("66.67 %"), "{text}");
    let path = cache(folder.path(), &logits, &[-1; 4]);
    let (code, text) = said(&["eval", "--cache", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no sample has a label") && text.contains("cache.npz"), "{text}");
    let path = cache(folder.path(), &logits, &[0, 1, 2, 0]);
    let (code, text) = said(&["eval", "--cache", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("label 2") && text.contains("row 2"), "{text}");
}

#[test]
fn a_cache_and_the_checkpoint_it_came_from_give_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (run, data) = (path("run"), "demo:fashion-mnist?split=test,sample=90");
    residua(["demo", "--tiny", "--quiet", "--device", "cpu", "--out", &run]).assert().success();
    let (cache, out) = (path("cache"), path("out"));
    let pass = ["--checkpoint", &run, "--device", "cpu", "--quiet", "--data", data];
    residua(["extract", "--out", &cache]).args(pass).assert().success();
    let from_cache = residua(["eval", "--json", "--cache", &cache]).output().unwrap();
    let mut from_cache: serde_json::Value = serde_json::from_slice(&from_cache.stdout).unwrap();
    let printed = residua(["eval", "--json", "--out", &out]).args(pass).output().unwrap();
    let mut printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let results = Results::read(&folder.path().join("out/eval.json")).unwrap();
    assert_eq!(printed["accuracy"], results.metrics.accuracy);
    // Only the checkpoint knows what its classes are called.
    assert_eq!(results.class_name(0), "T-shirt/top");
    for value in [&mut from_cache, &mut printed] {
        let object = value.as_object_mut().unwrap();
        object.remove("out");
        for class in object["per_class"].as_array_mut().unwrap() {
            class.as_object_mut().unwrap().remove("name");
        }
    }
    assert_eq!(from_cache, printed);
    let lines = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name)).unwrap();
    assert_eq!(lines("samples.csv").lines().count(), 91);
    assert_eq!(lines("per_class.csv").lines().count(), 9);
    assert!(lines("eval.csv").starts_with("metric,value,low,high\naccuracy,0."), "{}", lines("eval.csv"));
    let counted: u64 = lines("confusion.csv")
        .lines()
        .skip(1)
        .map(|l| l.rsplit(',').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 90);
    for figure in ["reliability.svg", "risk_coverage.svg"] {
        assert!(lines(&format!("plots/{figure}")).contains("<svg"));
    }
    // The experiment evaluated its own test set.
    let own = Results::read(&folder.path().join("run/eval/eval.json")).unwrap();
    assert_eq!((own.samples, own.classes), (96, 8));
}

#[test]
fn the_page_shows_an_evaluation_and_names_a_damaged_file_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let cache = case("small").join("id.npz");
    let head = case("small").join("head.npz");
    residua(["eval", "--quiet", "--cache"])
        .arg(&cache)
        .arg("--head")
        .arg(&head)
        .arg("--out")
        .arg(&out)
        .assert()
        .success();
    residua(["report"]).arg(&out).assert().success();
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "On labelled images",
        "Reliability diagram",
        "Confusion matrix",
        "<dt>ECE</dt>",
        "Most frequent confusions",
    ] {
        assert!(html.contains(part), "{part} is not on the page");
    }
    for (file, text, told) in [
        ("confusion.csv", "label,predicted,count\n0,0,41\n0,99,1\n", "line 3"),
        ("confusion.csv", "label,predicted,count\n0,zero,1\n", "both classes below 10"),
        ("eval.json", "{\"accuracy\": 1}", "results of `residua eval`"),
    ] {
        let path = out.join(file);
        let sound = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let (code, said) = said(&["report", out.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(file) && said.contains(told), "{said}");
        std::fs::write(&path, sound).unwrap();
    }
}

#[test]
fn predict_says_how_good_its_decisions_are_where_the_data_is_labelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (run, out) = (path("run"), path("predictions.csv"));
    residua(["demo", "--tiny", "--quiet", "--device", "cpu", "--out", &run]).assert().success();
    let thresholds = format!("{run}/thresholds.toml");
    let data = "demo:fashion-mnist?split=test,sample=60";
    let predict =
        ["predict", "--checkpoint", &run, "--thresholds", &thresholds, "--device", "cpu", "--out", &out];
    let output = residua(predict).args(["--quiet", "--json", "--labels", "--data", data]).output().unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let labelled = &printed["labelled"]["class"];
    // Thresholds only take away from what the network has right.
    let rate = |key: &str| labelled["decisions"][key]["rate"].as_f64().unwrap();
    assert_eq!(labelled["decisions"]["closed_set_accuracy"]["of"], 60);
    assert_eq!(labelled["classification"]["accuracy"], rate("closed_set_accuracy"));
    assert!(rate("seen_accuracy") <= rate("closed_set_accuracy"));
    // The same on standard output, in words.
    let output = residua(predict).args(["--quiet", "--labels", "--data", data]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("false_novel_rate") && text.contains("Brier score"), "{text}");
    // Without labels there is nothing to say.
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images/bmp_24.bmp");
    let images = format!("images:{}", images.display());
    let (code, text) = said(&[&predict[..], &["--labels", "--data", &images]].concat());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--labels: the data has no labels"), "{text}");
}

#[test]
fn wrong_use_is_told_apart_from_what_failed() {
    for (arguments, part) in [
        (&["eval"][..], "--checkpoint"),
        (&["eval", "--checkpoint", "x"], "--data"),
        (&["eval", "--cache", "x", "--checkpoint", "y", "--data", "demo:digits"], "cannot be used with"),
        (&["eval", "--cache", "x", "--bootstrap", "-1"], "--bootstrap"),
    ] {
        let (code, text) = said(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    let (code, text) = said(&["eval", "--cache", "/nowhere/cache"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("/nowhere/cache"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = cache(folder.path(), &[1.0, 0.0], &[0]);
    let (code, text) = said(&["eval", "--cache", path.to_str().unwrap(), "--bootstrap", "1"]);
    assert_eq!(code, Some(2), "{text}");
}
