//! Runs beside each other: what is paired, what is told, and what damaged or hostile runs do.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use residua::features::{CacheMeta, CacheWriter, Element, Head, NpyArray, write_npz};
use residua::ood::metrics::Curves;
use residua::ood::table::{Entry, Evaluation, Group, IdSet, OodSet};
use residua::rng::{Purpose, Stream};
use serde_json::Value;

use crate::data::mutations::{cases, mutated, mutations};
use crate::support::program::residua;

const CLASSES: usize = 4;

/// A run with made-up numbers: its answers to 300 test samples, and two scores of these and of 200 OOD samples. What is hard is hard for
/// every run; `skill` moves the logit of the right class, `own` names what differs.
struct Made {
    own: u64,
    skill: f64,
    samples: u64,
    seed: u64,
    id: &'static str,
    recipe: &'static str,
}

const USUAL: Made =
    Made { own: 1, skill: 1.6, samples: 300, seed: 0, id: "cifar10:data?split=test", recipe: "lr = 0.1\n" };

fn write(path: PathBuf, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Made {
    fn normal(&self, word: u64, common: f64) -> impl Fn(u64) -> f64 {
        let shared = Stream::for_purpose(31, Purpose::Synthetic, &[word]);
        let own = Stream::for_purpose(32, Purpose::Synthetic, &[word, self.own]);
        move |i| common.sqrt() * shared.normal(i) + (1.0 - common).sqrt() * own.normal(i)
    }

    fn cache(&self, folder: &Path, data: &str, samples: u64, known: bool) {
        let meta = CacheMeta { data: Some(data.to_string()), ..CacheMeta::default() };
        let mut writer = CacheWriter::create(folder, CLASSES, CLASSES, meta).unwrap();
        let identity: Vec<f64> =
            (0..CLASSES * CLASSES).map(|i| f64::from(u8::from(i % (CLASSES + 1) == 0))).collect();
        writer.write_head(&Head::new(identity, vec![0.0; CLASSES], CLASSES).unwrap()).unwrap();
        let (noise, labels) = (self.normal(1, 0.7), (0..samples).map(|i| i % CLASSES as u64));
        for (i, label) in labels.enumerate() {
            let of_class = |class: u64| {
                let skill = if class == label && known { self.skill } else { 0.0 };
                (noise(CLASSES as u64 * i as u64 + class) + skill) as f32
            };
            let logits: Vec<f32> = (0..CLASSES as u64).map(of_class).collect();
            writer.append(&logits, &logits, &[if known { label as i64 } else { -1 }]).unwrap();
        }
        writer.finish().unwrap();
    }

    fn scores(&self, ood: &Path) {
        let mut evaluation = Evaluation::new(IdSet { samples: self.samples, accuracy: Some(0.5) });
        let column = |values: &[f64]| NpyArray::from_vec(values.to_vec(), Element::F64, vec![values.len()]);
        let (mut id, mut far, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (word, name) in [(10, "msp"), (20, "energy")] {
            let noise = self.normal(word, 0.8);
            let own_id: Vec<f64> = (0..self.samples).map(|i| noise(i) + 0.9 * self.skill).collect();
            let own_far: Vec<f64> = (0..200).map(|i| noise(10_000 + i)).collect();
            let metrics = Curves::new(&own_id, &own_far).unwrap().metrics();
            results.push((name.to_string(), Entry::from(metrics)));
            id.push((name, column(&own_id)));
            far.push((name, column(&own_far)));
        }
        for (file, arrays) in [("id", &id), ("far", &far)] {
            let arrays: Vec<(&str, &NpyArray)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
            write_npz(&ood.join("scores").join(format!("{file}.npz")), &arrays).unwrap();
        }
        evaluation
            .add(OodSet { name: "far".into(), group: Some(Group::Far), samples: 200 }, results)
            .unwrap();
        evaluation.write_json(&ood.join("metrics.json")).unwrap();
    }

    fn run(&self, folder: &Path) -> PathBuf {
        let caches = folder.join("features/epoch_0002");
        self.cache(&caches.join("id"), self.id, self.samples, true);
        self.cache(&caches.join("far"), "svhn:far.mat", 200, false);
        self.scores(&folder.join("ood"));
        let Made { seed, recipe, .. } = self;
        write(
            folder.join("recipe.toml"),
            format!("name = \"made\"\nseed = {seed}\n[train]\nepochs = 2\n{recipe}"),
        );
        let line = |epoch: u32, split: &str| {
            let loss = 2.0 / f64::from(epoch) / self.skill;
            format!(
                "{{\"step\":{epoch},\"epoch\":{epoch},\"split\":\"{split}\",\"loss\":{loss},\"accuracy\":0.5}}\n"
            )
        };
        let log: String =
            (1..=2).flat_map(|epoch| ["train", "val"].map(|split| line(epoch, split))).collect();
        write(folder.join("metrics.jsonl"), log);
        let row = |epoch: u32| serde_json::json!({ "checkpoint": "e", "epoch": epoch, "nc1": 2.0 / f64::from(epoch), "nc4": 0.25 });
        write(
            folder.join("collapse/collapse.json"),
            serde_json::json!({ "checkpoints": [row(1), row(2)] }).to_string(),
        );
        folder.to_path_buf()
    }
}

/// A baseline and a better run on the same samples.
fn two_runs(root: &Path) -> [PathBuf; 2] {
    let better = Made { own: 2, skill: 2.2, recipe: "lr = 0.05\nnesterov = true\n", ..USUAL };
    [USUAL.run(&root.join("base")), better.run(&root.join("better"))]
}

fn compared(runs: &[PathBuf], flags: &[&str]) -> Value {
    let output = residua(["compare", "--json", "--quiet"]).args(flags).args(runs).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(runs: &[PathBuf]) -> (Option<i32>, String) {
    let output = residua(["compare"]).args(runs).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The row of a metric; of OOD rows the one of a score.
fn row<'a>(found: &'a Value, section: &str, score: Option<&str>, metric: &str) -> &'a Value {
    let wanted =
        |row: &&Value| row["section"] == section && row["metric"] == metric && row["score"].as_str() == score;
    found["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no row {section} {metric}"))
}

fn width(difference: &Value) -> f64 {
    difference["interval95"][1].as_f64().unwrap() - difference["interval95"][0].as_f64().unwrap()
}

#[test]
fn runs_on_the_same_samples_are_compared_sample_by_sample() {
    let root = tempfile::tempdir().unwrap();
    let runs = two_runs(root.path());
    let found = compared(&runs, &["--bootstrap", "200"]);
    assert_eq!((&found["runs"][0]["name"], &found["runs"][1]["name"]), (&"base".into(), &"better".into()));
    for (section, score, metric, method) in [
        ("id", None, "accuracy", "Newcombe, paired; McNemar"),
        ("id", None, "nll", "paired t"),
        ("id", None, "brier", "paired t"),
        ("id", None, "ece", "paired bootstrap"),
        ("ood", Some("msp"), "auroc", "DeLong, paired"),
        ("ood", Some("energy"), "fpr95", "paired bootstrap"),
        ("ood", Some("energy"), "fpr95_id_positive", "paired bootstrap"),
    ] {
        let row = row(&found, section, score, metric);
        let difference = &row["differences"][0];
        assert_eq!(
            (&difference["method"], &difference["paired"]),
            (&method.into(), &true.into()),
            "{metric}"
        );
        let [base, own] = [0, 1].map(|run| row["values"][run].as_f64().unwrap());
        assert!((own - base - difference["value"].as_f64().unwrap()).abs() < 1e-12, "{metric}");
    }
    let accuracy = &row(&found, "id", None, "accuracy")["differences"][0];
    assert_eq!((&accuracy["verdict"], &accuracy["covers"]), (&"better".into(), &"samples".into()));
    let answers = &found["disagreements"][0];
    let count = |name: &str| answers["counts"][name].as_u64().unwrap();
    assert_eq!(["both", "first", "second", "neither"].map(count).iter().sum::<u64>(), 300);
    let gained = (count("second") as f64 - count("first") as f64) / 300.0;
    assert!((gained - accuracy["value"].as_f64().unwrap()).abs() < 1e-12);
    let samples = answers["samples"].as_array().unwrap();
    assert_eq!(samples.len() as u64, (count("first") + count("second")).min(24));
    let wrong = |sample: &Value| {
        let network = usize::from(sample["baseline_is_right"] == true);
        assert_ne!(sample["answers"][network], sample["label"]);
        assert_eq!(sample["answers"][1 - network], sample["label"]);
        sample["confidences"][network].as_f64().unwrap()
    };
    assert!(samples.iter().map(wrong).is_sorted_by(|a, b| a >= b), "the surest mistakes come first");
    let keys: Vec<&Value> = found["recipe"].as_array().unwrap().iter().map(|key| &key["key"]).collect();
    assert_eq!(keys, ["train.lr", "train.nesterov"]);
    assert_eq!(found["recipe"][1]["values"], serde_json::json!([null, "true"]));
}

#[test]
fn a_run_beside_itself_differs_in_nothing() {
    let root = tempfile::tempdir().unwrap();
    let [base, _] = two_runs(root.path());
    let found = compared(&[base.clone(), base], &["--bootstrap", "20"]);
    assert_eq!(found["runs"][1]["name"], "base (2)");
    for row in found["rows"].as_array().unwrap() {
        assert_eq!(row["differences"][0]["value"], 0.0, "{row}");
        assert!(
            ["within_noise", "unknown"].contains(&row["differences"][0]["verdict"].as_str().unwrap()),
            "{row}"
        );
    }
    assert_eq!(found["recipe"], serde_json::json!([]));
    assert_eq!(found["disagreements"][0]["different_answers"], 0);
}

#[test]
fn other_samples_are_said_to_be_others_and_have_wider_intervals() {
    let root = tempfile::tempdir().unwrap();
    let [base, better] = two_runs(root.path());
    let other = Made { id: "cifar10:data?split=test,sample=300", own: 2, skill: 2.2, ..USUAL }
        .run(&root.path().join("other"));
    let fewer = Made { samples: 299, own: 2, skill: 2.2, ..USUAL }.run(&root.path().join("fewer"));
    let paired = compared(&[base.clone(), better], &["--bootstrap", "0"]);
    for (run, why) in [(&other, "sample=300`"), (&fewer, "300 samples against 299")] {
        let found = compared(&[base.clone(), run.clone()], &["--bootstrap", "0"]);
        for (section, score, metric) in
            [("id", None, "accuracy"), ("id", None, "nll"), ("ood", Some("msp"), "auroc")]
        {
            let [apart, together] =
                [&found, &paired].map(|found| &row(found, section, score, metric)["differences"][0]);
            assert_eq!(apart["paired"], false, "{metric}");
            assert!(width(apart) > 1.1 * width(together), "{metric}: {} {}", width(apart), width(together));
        }
        let notes: Vec<&str> = found["notes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(notes.iter().any(|note| note.contains(why)), "{notes:?}");
        assert_eq!(found["disagreements"], serde_json::json!([]));
        // The data's name may be wrong, the number of samples is not.
        let vouched = compared(&[base.clone(), run.clone()], &["--bootstrap", "0", "--paired"]);
        assert_eq!(row(&vouched, "id", None, "accuracy")["differences"][0]["paired"], run == &other);
    }
}

#[test]
fn output_of_ood_alone_is_paired_only_where_the_user_vouches_for_it() {
    let root = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.path().join(name));
    USUAL.scores(&a);
    Made { own: 2, ..USUAL }.scores(&b);
    for (flags, paired) in [(&["--bootstrap", "50"][..], false), (&["--bootstrap", "50", "--paired"], true)] {
        let found = compared(&[a.clone(), b.clone()], flags);
        let difference = &row(&found, "ood", Some("msp"), "auroc")["differences"][0];
        assert_eq!(difference["paired"], paired);
        let vouches = found["notes"].to_string().contains("--paired vouches");
        assert_eq!(vouches, !paired);
    }
}

#[test]
fn folders_of_seeds_are_one_run_each_and_intervals_cover_the_seed() {
    let root = tempfile::tempdir().unwrap();
    for (name, skill) in [("base", 1.6), ("better", 2.2)] {
        for seed in 0..3 {
            let own = 10 * seed + (skill * 10.0) as u64;
            Made { own, skill, seed, ..USUAL }.run(&root.path().join(name).join(format!("seed_{seed}")));
        }
    }
    let runs = ["base", "better"].map(|name| root.path().join(name));
    let found = compared(&runs, &[]);
    assert_eq!(found["runs"][0]["seeds"], serde_json::json!([0, 1, 2]));
    let difference = &row(&found, "id", None, "accuracy")["differences"][0];
    assert_eq!(
        (&difference["covers"], &difference["method"]),
        (&"seeds".into(), &"t over seeds, seed by seed".into())
    );
    assert_eq!(row(&found, "ood", Some("msp"), "auroc")["differences"][0]["covers"], "seeds");
    let one = compared(&[runs[0].join("seed_0"), runs[1].clone()], &[]);
    let method = &row(&one, "id", None, "accuracy")["differences"][0]["method"];
    assert_eq!(method, "t over seeds, one training against several");
    let text = residua(["compare"]).args(&runs).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("intervals cover the seed of the training, not the choice of"), "{text}");
}

#[test]
fn two_caches_are_compared_as_runs_are() {
    let root = tempfile::tempdir().unwrap();
    let caches = two_runs(root.path()).map(|run| run.join("features/epoch_0002/id"));
    let found = compared(&caches, &[]);
    assert_eq!(found["runs"][0]["name"], "base/features/epoch_0002/id");
    assert_eq!(row(&found, "id", None, "accuracy")["differences"][0]["paired"], true);
}

#[test]
fn the_text_fits_eighty_columns_and_says_what_is_the_baseline() {
    let root = tempfile::tempdir().unwrap();
    let runs = two_runs(root.path());
    let output = residua(["compare"]).args(&runs).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["baseline: base", "better − base", "train.lr", "OOD set far, AUROC", "  better", "McNemar p"]
    {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing is written without --out");
}

#[test]
fn the_page_needs_nothing_else_and_names_from_files_stay_text() {
    let root = tempfile::tempdir().unwrap();
    let hostile = "<img src=x onerror=alert(1)>";
    let [base, _] = two_runs(root.path());
    let other = Made { own: 3, ..USUAL }.run(&root.path().join(hostile));
    write(
        other.join("recipe.toml"),
        format!("name = '''{hostile}'''\nseed = 0\n[train]\n\"{hostile}\" = '''{hostile}'''\n"),
    );
    let json = fs::read_to_string(other.join("ood/metrics.json")).unwrap();
    let name = serde_json::to_string(&format!("{hostile}\u{1b}[31m\u{202e}")).unwrap();
    write(other.join("ood/metrics.json"), json.replace("\"msp\"", &name));
    let out = root.path().join("out");
    let output = residua(["compare", "--out"]).arg(&out).args([&base, &other]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stdout).contains('\u{1b}'));
    let html = fs::read_to_string(out.join("compare.html")).unwrap();
    assert!(!html.contains("<img src=x") && html.contains("&lt;img src=x"), "names are escaped");
    assert!(!html.contains(['\u{1b}', '\u{202e}']));
    assert!(html.contains("default-src 'none'"));
    for outside in ["http://", "https://", "@import", "url(", "<link rel=\"stylesheet"] {
        assert!(!html.contains(outside), "the page refers to {outside}");
    }
    for part in
        ["id=\"recipe\"", "id=\"id\"", "id=\"ood\"", "id=\"answers\"", "id=\"training\"", "id=\"collapse\""]
    {
        assert!(html.contains(part), "the page lacks {part}");
    }
    let csv = fs::read_to_string(out.join("compare.csv")).unwrap();
    assert!(csv.starts_with("section,set,score,metric,run,value,baseline,difference,low95,high95"));
    let written: Value = serde_json::from_slice(&fs::read(out.join("compare.json")).unwrap()).unwrap();
    assert_eq!(written["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_no_run_is_named_with_what_was_expected() {
    let root = tempfile::tempdir().unwrap();
    let [base, _] = two_runs(root.path());
    let (empty, absent) = (root.path().join("empty"), root.path().join("absent"));
    fs::create_dir(&empty).unwrap();
    for (run, expected) in [(empty, "holds nothing to report"), (absent, "there is no such folder")] {
        let (code, message) = refused(&[base.clone(), run.clone()]);
        assert_eq!(code, Some(1));
        assert!(message.contains(expected) && message.contains(run.to_str().unwrap()), "{message}");
    }
    assert_eq!(refused(std::slice::from_ref(&base)).0, Some(2), "one run is no comparison");
    let output = residua(["compare", "--bootstrap", "1"]).args([&base, &base]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_damaged_file_is_named_and_older_results_survive() {
    for (file, bytes) in [
        ("ood/scores/far.npz", &b"PK\x03\x04 no archive"[..]),
        ("ood/metrics.json", b"{\"ood\": 3}"),
        ("features/epoch_0002/id/labels.npy", b"\x93NUMPY\x01\x00\xff"),
        ("features/epoch_0002/far/meta.json", b"{"),
        ("metrics.jsonl", b"[1, 2]"),
        ("recipe.toml", b"a = = 1"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let [base, better] = two_runs(root.path());
        write(better.join(file), bytes);
        let out = root.path().join("out");
        write(out.join("compare.html"), "the old page");
        let output = residua(["compare", "--out"]).arg(&out).args([&base, &better]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{file}");
        assert!(message.contains(file.rsplit('/').next().unwrap()), "{file}: {message}");
        assert_eq!(fs::read_to_string(out.join("compare.html")).unwrap(), "the old page");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(48)) })]

    #[test]
    fn a_damaged_run_never_panics(file in 0..6usize, changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        let runs = two_runs(root.path());
        let names = [
            "ood/scores/id.npz", "ood/metrics.json", "features/epoch_0002/id/labels.npy", "features/epoch_0002/id/logits.npy",
            "recipe.toml", "metrics.jsonl",
        ];
        let path = runs[1].join(names[file]);
        fs::write(&path, mutated(fs::read(&path).unwrap(), &changes)).unwrap();
        let options = residua::compare::Options { bootstrap: 10, ..Default::default() };
        match residua::compare::compare(&runs, &options) {
            Ok(found) => prop_assert!(!found.text(80).is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
