//! A whole experiment on two levels, from zip files to predictions: both approaches, folds, resuming, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use residua::checkpoint;
use residua::novelty::ThresholdFile;
use residua::samples::SampleFile;

use crate::support::data_files::{png, put, zip};
use crate::support::program::said;

const SUBCLASSES: [(&str, usize, [u8; 3]); 6] = [
    ("robin", 0, [20, 30, 200]),
    ("owl", 0, [20, 90, 160]),
    ("wren", 0, [70, 30, 240]),
    ("poodle", 1, [200, 40, 20]),
    ("beagle", 1, [160, 90, 20]),
    ("collie", 1, [240, 10, 70]),
];
const IMAGES_OF_A_CLASS: usize = 12;
const TEST_IMAGES: usize = 11;

/// A colour a class, a little different in every image.
fn colour(class: usize, image: usize) -> [u8; 3] {
    SUBCLASSES[class].2.map(|channel| channel.saturating_add((image * 3 % 16) as u8))
}

/// Birds and dogs of three breeds each, images to predict, and stones as outliers.
fn data(root: &Path) {
    let (mut table, mut members) = (String::from("image,superclass_index,subclass_index\n"), Vec::new());
    for (class, (_, parent, _)) in SUBCLASSES.iter().enumerate() {
        for image in 0..IMAGES_OF_A_CLASS {
            let name = format!("{}.png", class * IMAGES_OF_A_CLASS + image);
            table += &format!("{name},{parent},{class}\n");
            members.push((format!("train_images/{name}"), png(16, 16, colour(class, image))));
        }
    }
    put(root, "train_data.csv", &table);
    let named = |members: &[(String, Vec<u8>)]| {
        zip(&members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>())
    };
    put(root, "train_images.zip", named(&members));
    let test: Vec<_> = (0..TEST_IMAGES)
        .map(|i| (format!("test_images/{i}.png"), png(16, 16, colour(i % SUBCLASSES.len(), i))))
        .collect();
    put(root, "test_images.zip", named(&test));
    put(root, "superclass_mapping.csv", "index,class\n0,bird\n1,dog\n2,novel\n");
    let names: String =
        SUBCLASSES.iter().enumerate().map(|(index, (name, ..))| format!("{index},{name}\n")).collect();
    put(root, "subclass_mapping.csv", format!("index,class\n{names}6,novel\n"));
    for (class, shade) in [("granite", 120), ("lizard", 90), ("marble", 210)] {
        for image in 0..20u8 {
            put(root, &format!("stones/{class}/{image}.png"), png(8, 8, [shade + image / 2; 3]));
        }
    }
}

/// A recipe with further lines in `[splits]`, in `[train]`, and behind everything.
fn recipe(root: &Path, approach: &str, splits: &str, train: &str, rest: &str) -> String {
    put(root, "recipe.toml", text(approach, splits, train, rest)).display().to_string()
}

fn text(approach: &str, splits: &str, train: &str, rest: &str) -> String {
    format!(
        r#"
name = "birds & dogs"
seed = 7
approach = "{approach}"
[data]
train = "csv:train_data.csv,images=train_images.zip?labels=both"
test = "images:test_images.zip"
size = 16
[outliers]
data = "folder:stones"
exclude = ["lizard"]
count = 24
[splits]
select = 0.15
calibrate = 0.2
report = 0.2
{splits}
[train]
arch = "resnet20"
width = 0.25
augment = "resize-flip-rotate"
epochs = 2
batch_size = 16
optimizer = "adam"
lr = 3e-3
{train}
{rest}
"#
    )
}

fn run(root: &Path, recipe: &str, out: &Path) -> (Option<i32>, String) {
    let (root, out) = (root.display().to_string(), out.display().to_string());
    said(&["run", recipe, "--data-root", &root, "--out", &out])
}

fn table(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.records().map(|record| record.unwrap().iter().map(str::to_string).collect()).collect()
}

#[test]
fn two_models_go_from_zip_files_to_predictions_and_are_not_trained_twice() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let recipe = recipe(
        folder.path(),
        "two_models",
        "hold_out = [1, 5]",
        "class_weights = \"balanced\"",
        "[subclass]\nhead = \"cosine\"\n[predict]\nnames = \"bare\"\n[calibrate]\nhierarchy = \"mask\"\n[calibrate.subclass]\nrule = \"youden\"",
    );
    let out = folder.path().join("run");
    let (code, text) = run(folder.path(), &recipe, &out);
    assert_eq!(code, Some(0), "{text}");
    for file in [
        "recipe.toml",
        "outliers.csv",
        "splits.csv",
        "models/fold_1/superclass/checkpoints/best/model.safetensors",
        "models/fold_1/subclass/metrics.jsonl",
        "models/final/subclass/checkpoints/last/meta.json",
        "features/fold_1/subclass/calibrate/head.npz",
        "features/fold_1/subclass/novel_report/features.npy",
        "features/final/superclass/test/logits.npy",
        "novelty/calibration.npz",
        "novelty/superclass/samples.json",
        "novelty/subclass/scores/known.npz",
        "eval/subclass/eval.json",
        "dashboard.json",
        "dashboard.csv",
        "thresholds.toml",
        "predictions.csv",
        "plots/novelty_subclass_logit.svg",
        "report.html",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    // Outliers are no known images, and so no false alarms.
    let samples = SampleFile::read(&out.join("novelty/subclass/samples.json")).unwrap();
    let sets: Vec<&str> = samples.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(sets, ["known", "outliers", "held_out"]);
    assert_eq!(samples.threshold.as_ref().unwrap().score, "msp");
    let novel = samples.classes.iter().position(|name| name == "novel").unwrap() as i64;
    let known = || samples.shown.iter().filter(|sample| sample.set == 0);
    assert!(known().count() > 0 && known().all(|sample| sample.label.is_some_and(|label| label != novel)));
    assert!(samples.shown.iter().filter(|s| s.set == 1).all(|s| s.class.as_deref() == Some("novel")));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for words in ["superclass threshold", "The networks that predict", "birds &amp; dogs", "novel caught"] {
        assert!(page.contains(words), "the page lacks {words}");
    }
    for file in ["models/fold_1/superclass/run.json", "models/final/subclass/run.json"] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    // Every threshold has its number beside the figure; what the notebook counts alike is not said twice.
    assert!(page.contains("<span class=\"badge\">14</span>") && page.contains("class=\"chosen\""));
    assert!(!page.contains("notebook seen accuracy") && page.contains("<dt>conformal:0.05</dt>"));
    // Rows of different samples that bear one name are told apart by their split.
    for words in
        ["<th scope=\"col\">Split</th>", "<td>report</td>", "<td>pseudo_novel</td>", "<td>final</td>"]
    {
        assert!(page.contains(words), "the dashboard lacks {words}");
    }
    // Size alone tells stones from animals, and the run says so.
    assert!(text.contains("native size"), "{text}");

    // Every image to predict, in the order a person counts, with indices of the files; a novel superclass has no subclass.
    let predictions = table(&out.join("predictions.csv"));
    let names: Vec<&str> = predictions.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, (0..TEST_IMAGES).map(|i| format!("{i}.png")).collect::<Vec<_>>());
    for row in &predictions {
        let (superclass, subclass): (usize, usize) = (row[1].parse().unwrap(), row[2].parse().unwrap());
        assert!(superclass <= 2 && subclass <= 6, "{row:?}");
        assert!(superclass != 2 || subclass == 6, "{row:?}");
        assert!(subclass == 6 || SUBCLASSES[subclass].1 == superclass, "{row:?}");
    }

    // Superclasses of subclasses that were held out are a matter of their own: no rule promises anything of them.
    let dashboard = table(&out.join("dashboard.csv"));
    let heads: BTreeSet<&str> =
        dashboard.iter().filter(|row| row[0] == "held_out_subclasses").map(|row| row[1].as_str()).collect();
    assert_eq!(heads, BTreeSet::from(["superclass"]));

    // Held-out classes have no logit in the fold, and one in the end.
    let indices = |model: &str| {
        let meta = fs::read_to_string(out.join(model).join("meta.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
        serde_json::from_value::<Vec<i64>>(meta["heads"][0]["indices"].clone()).unwrap()
    };
    assert_eq!(indices("models/fold_1/subclass/checkpoints/best"), [0, 2, 3, 4, 6]);
    assert_eq!(indices("models/final/subclass/checkpoints/last"), [0, 1, 2, 3, 4, 5, 6]);

    // No image chooses a threshold that was trained on, or is reported on after it chose one.
    let parts = table(&out.join("splits.csv"));
    let of = |fold: &str, part: &str| -> BTreeSet<String> {
        parts.iter().filter(|row| row[0] == fold && row[3] == part).map(|row| row[1].clone()).collect()
    };
    for fold in ["1", "final"] {
        for (a, b) in
            [("train", "calibrate"), ("calibrate", "report"), ("train", "report"), ("select", "report")]
        {
            assert!(of(fold, a).is_disjoint(&of(fold, b)), "{fold}: {a} and {b}");
        }
    }
    assert!(of("final", "report").is_superset(&of("1", "report")));
    assert!(!of("1", "novel_calibrate").is_empty() && !of("1", "novel_report").is_empty());

    // Done is done: the same command changes no checkpoint and gives the same table.
    let trained = out.join("models/final/subclass/checkpoints/last/model.safetensors");
    let before =
        (fs::metadata(&trained).unwrap().modified().unwrap(), fs::read(out.join("dashboard.csv")).unwrap());
    let (code, text) = run(folder.path(), &recipe, &out);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("epoch"), "trained again: {text}");
    let after =
        (fs::metadata(&trained).unwrap().modified().unwrap(), fs::read(out.join("dashboard.csv")).unwrap());
    assert_eq!(before, after);
}

#[test]
fn two_heads_hold_every_class_out_once_and_count_as_the_notebook_does() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let recipe = recipe(
        folder.path(),
        "two_heads",
        "folds = 3",
        "kl_weight = 0.1\noutlier_loss = \"uniform\"",
        "[calibrate]\nhierarchy = \"joint\"\n[calibrate.superclass]\nscore = \"energy\"\n[calibrate.subclass]\nscore = \"mahalanobis\"\nrule = \"intersection\"",
    );
    let out = folder.path().join("run");
    let (code, text) = run(folder.path(), &recipe, &out);
    assert_eq!(code, Some(0), "{text}");
    let parts = table(&out.join("splits.csv"));
    let mut held_out: Vec<(String, String)> = parts
        .iter()
        .filter(|row| row[3].starts_with("novel_"))
        .map(|row| (row[0].clone(), row[2].clone()))
        .collect();
    held_out.dedup();
    let classes: BTreeSet<&String> = held_out.iter().map(|(_, class)| class).collect();
    assert_eq!((held_out.len(), classes.len()), (6, 6), "{held_out:?}");

    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("dashboard.json")).unwrap()).unwrap();
    let value = |split: &str, head: &str, metric: &str| {
        let rows = dashboard["rows"].as_array().unwrap();
        let row =
            rows.iter().find(|row| row["split"] == split && row["head"] == head && row["metric"] == metric);
        row.unwrap_or_else(|| panic!("{split} {head} {metric}"))["value"].as_f64().unwrap()
    };
    for head in ["superclass", "subclass"] {
        let seen = value("report", head, "seen_accuracy");
        let parts =
            seen + value("report", head, "false_novel_rate") + value("report", head, "confusion_rate");
        assert!((parts - 1.0).abs() < 1e-12, "right, flagged and confused are everything: {parts}");
        assert_eq!(value("report", head, "notebook_false_novel_rate"), 1.0 - seen);
    }
    assert!(out.join("models/fold_3/both/checkpoints/best").exists());
    assert!(text.contains("pseudo_novel_flagged"), "{text}");
}

#[test]
fn the_superclass_network_teaches_and_without_a_refit_the_fold_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let words = text("two_models", "hold_out = [1, 5]", "", "[refit]\nenabled = false");
    let words = words.replace("seed = 7", "seed = 7\nsuperclass_teaches = true");
    let recipe = put(folder.path(), "recipe.toml", words).display().to_string();
    let out = folder.path().join("run");
    let (code, text) = run(folder.path(), &recipe, &out);
    assert_eq!(code, Some(0), "{text}");
    // Every epoch of the pupil says how far it was from its teacher; the teacher has none.
    let epochs = |network: &str| -> Vec<serde_json::Value> {
        let log = fs::read_to_string(out.join("models/fold_1").join(network).join("metrics.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["split"] == "train" && line["scope"] == "epoch").collect()
    };
    let (pupil, teacher) = (epochs("subclass"), epochs("superclass"));
    assert_eq!((pupil.len(), teacher.len()), (2, 2));
    assert!(
        pupil.iter().all(|line| line["teacher_loss"].as_f64().is_some_and(|loss| loss > 0.0)),
        "{pupil:?}"
    );
    assert!(teacher.iter().all(|line| line["teacher_loss"].is_null()), "{teacher:?}");

    // Nothing was trained again: thresholds and predictions are those of the fold's networks.
    assert!(!out.join("models/final").exists() && !out.join("features/final").exists());
    let thresholds = ThresholdFile::read(&out.join("thresholds.toml")).unwrap();
    for (entry, network) in thresholds.levels.iter().zip(["superclass", "subclass"]) {
        let best = out.join("models/fold_1").join(network).join("checkpoints/best");
        assert_eq!(entry.checkpoint, checkpoint::Trained::open(&best).unwrap().hash, "{network}");
    }
    assert_eq!(table(&out.join("predictions.csv")).len(), TEST_IMAGES);
}

#[test]
fn a_class_with_one_image_is_named_with_its_table_and_image() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let text = fs::read_to_string(folder.path().join("train_data.csv")).unwrap();
    // Of the last class only its first image is left.
    let last = SUBCLASSES.len() - 1;
    let kept = |line: &&str| !line.ends_with(&format!(",{last}")) || line.starts_with("60.png");
    let lines: Vec<&str> = text.lines().filter(kept).collect();
    put(folder.path(), "train_data.csv", lines.join("\n") + "\n");
    let recipe = recipe(folder.path(), "two_models", "hold_out = [1]", "", "");
    let (code, text) = run(folder.path(), &recipe, &folder.path().join("refused"));
    assert_eq!(code, Some(1), "{text}");
    for words in ["train_data.csv", "collie", "60.png", "single image"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_misspelt_key_and_a_key_that_means_nothing_here_are_named() {
    // Notebook A, trap A4: USE_PSUDEO_NOVEL = False was set, read by nothing, and the submitted network never saw 13 classes.
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    for (approach, splits, train, rest, words) in [
        ("two_models", "use_psudeo_novel = false", "", "", "use_psudeo_novel"),
        ("two_models", "", "", "[subclass]\nheads = \"cosine\"", "[subclass]"),
        ("two_models", "", "val = \"cifar10:x\"", "", "[train] val"),
        ("two_heads", "", "", "[subclass]\nhead = \"cosine\"", "two_heads"),
        ("three_heads", "", "", "", "three_heads"),
        ("two_models", "", "", "[calibrate.subclass]\nrule = \"median\"", "median"),
        ("two_models", "", "", "[calibrate.subclass]\ntemperature = 0.0", "temperature"),
        ("two_models", "hold_out = [9]", "", "", "9"),
    ] {
        let recipe = recipe(folder.path(), approach, splits, train, rest);
        let (code, text) = run(folder.path(), &recipe, &folder.path().join("refused"));
        assert!(code != Some(0) && text.contains(words) && !text.contains("panicked"), "{words}: {text}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let recipe = |words: String| put(folder.path(), "recipe.toml", words).display().to_string();
    let out = folder.path().join("refused");
    let at_top = |line: &str, words: String| words.replace("seed = 7", &format!("seed = 7\n{line}"));
    let plain = || text("two_models", "", "", "");
    for (words, told) in [
        (plain().replace("?labels=both", ""), "must have two levels of classes"),
        (plain().replace("labels=both", "labels=subclass"), "must have two levels of classes"),
        (at_top("superclass_teaches = true", text("two_heads", "", "", "")), "[train] kl_weight"),
        (text("two_models", "", "teacher = \"elsewhere\"", ""), "set superclass_teaches = true"),
        (
            text("two_models", "", "", "[predict]\nbatch_size = 0"),
            "[predict] batch_size: expected a whole number of at least 1",
        ),
    ] {
        let (code, text) = run(folder.path(), &recipe(words), &out);
        assert!(code == Some(2) && text.contains(told), "{told}: {code:?} {text}");
        assert!(!out.exists(), "{told}: a run was begun");
    }
}
