//! Whole experiments: the demo from start to report, and a recipe that is not repeated where it is done.

use std::fs;
use std::path::Path;

use crate::support::program::said;

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).modified().unwrap()
}

#[test]
fn the_demo_leaves_a_whole_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let (code, text) = said(&["demo", "--tiny", "--quiet", "--out", &out.display().to_string()]);
    assert_eq!(code, Some(0), "{text}");
    for file in [
        "recipe.toml",
        "metrics.jsonl",
        "checkpoints/last/model.safetensors",
        "checkpoints/epoch_0001/meta.json",
        "ood/metrics.json",
        "ood/metrics.csv",
        "ood/fit.safetensors",
        "ood/scores/id.npz",
        "ood/scores/digits.npz",
        "collapse/collapse.json",
        "thresholds.toml",
        "collapse/collapse.csv",
        "features/epoch_0002/train/head.npz",
        "features/epoch_0002/train/features.npy",
        "report.html",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    for word in ["held_out", "digits", "mahalanobis", "NC1", "called novel", "(conformal:0.05)"] {
        assert!(text.contains(word), "the summary lacks {word}");
    }
    let metrics: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("ood/metrics.json")).unwrap()).unwrap();
    let auroc = metrics["ood"]["digits"]["msp"]["auroc"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&auroc));
}

#[test]
fn the_demos_recipe_runs_again_and_every_verb_opens_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ok = |arguments: &[&str]| {
        let (code, text) = said(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    };
    let (demo, recipe) = (path("demo"), path("demo/recipe.toml"));
    ok(&["demo", "--tiny", "--quiet", "--out", &demo]);
    let model =
        |run: &str| fs::read(Path::new(&path(run)).join("checkpoints/last/model.safetensors")).unwrap();
    let before = modified(&Path::new(&demo).join("checkpoints/last/model.safetensors"));
    ok(&["run", &recipe, "--quiet", "--out", &demo]);
    let after = modified(&Path::new(&demo).join("checkpoints/last/model.safetensors"));
    assert_eq!(before, after, "a finished stage was repeated");
    ok(&["run", &recipe, "--quiet", "--out", &path("again")]);
    assert!(model("demo") == model("again"), "the recipe gives another network than the demo");

    let text = ok(&["data", "inspect", "demo:", "demo:unseen", "demo:digits", "--quiet"]);
    for part in ["demo:fashion-mnist\n  samples     6000", "ankle boot 750", "samples     1797"] {
        assert!(text.contains(part), "{text}");
    }
    let text = ok(&["data", "inspect", "demo:fashion-mnist?split=test", "--quiet"]);
    assert!(text.contains("samples     2000"), "{text}");
    let few = "demo:?split=test,limit=40";
    ok(&["extract", "--checkpoint", &demo, "--data", few, "--quiet", "--out", &path("cache")]);
    ok(&[
        "collapse",
        "--checkpoints",
        &demo,
        "--data",
        few,
        "--ood",
        "digits=demo:digits?limit=20",
        "--quiet",
        "--out",
        &path("nc"),
    ]);
    let thresholds = path("thresholds.toml");
    ok(&[
        "calibrate",
        "--checkpoint",
        &demo,
        "--seen",
        few,
        "--novel",
        "demo:unseen?limit=30",
        "--quiet",
        "--out",
        &thresholds,
    ]);
    ok(&[
        "predict",
        "--checkpoint",
        &demo,
        "--thresholds",
        &thresholds,
        "--data",
        "demo:digits?limit=5",
        "--quiet",
        "--out",
        &path("p.csv"),
    ]);
    ok(&[
        "train",
        "--data",
        "demo:?limit=40",
        "--max-steps",
        "1",
        "--arch",
        "resnet20",
        "--width",
        "0.25",
        "--quiet",
        "--out",
        &path("own"),
    ]);

    // A user's own training on these images is not taken for an earlier demo.
    let (code, text) = said(&["demo", "--tiny", "--quiet", "--out", &path("own")]);
    assert!(code == Some(2) && text.contains("not a demo"), "{text}");
    assert!(Path::new(&path("own/checkpoints")).is_dir());
}

const RECIPE: &str = r#"
name = "a small experiment"
[train]
data = "idx:train-images,train-labels"
arch = "resnet20"
width = 0.25
epochs = 2
batch_size = 32
checkpoint_every = 1
[evaluate]
id = "idx:train-images,train-labels"
[scores]
methods = "msp,mahalanobis"
bootstrap = 0
[[ood]]
name = "noise"
data = "idx:noise-images"
group = "far"
[[ood]]
name = "missing"
data = "svhn:nowhere.mat"
optional = true
"#;

/// Known classes that look different: with labels, without, and one set that is not there.
const SHIFTED: &str = r#"
[[shifted]]
name = "labelled"
data = "idx:train-images,train-labels"
[[shifted]]
name = "unlabelled"
data = "idx:noise-images"
[[shifted]]
name = "elsewhere"
data = "svhn:nowhere.mat"
optional = true
"#;

/// Writes idx files of `count` grey 8x8 images in two classes: light from above, light from below.
fn write_idx(folder: &Path, name: &str, count: u32, noise: bool) {
    let mut images = vec![0, 0, 8, 3];
    let mut labels = vec![0, 0, 8, 1];
    labels.extend(count.to_be_bytes());
    [count, 8, 8].iter().for_each(|extent| images.extend(extent.to_be_bytes()));
    let stream = residua::rng::Stream::new(3, &[u64::from(noise)]);
    for image in 0..count {
        let class = image % 2;
        labels.push(class as u8);
        for pixel in 0..64u32 {
            let light = (pixel / 32) == class;
            let base = if light && !noise { 120 } else { 0 };
            images.push(base + stream.below(u64::from(image * 64 + pixel), 120) as u8);
        }
    }
    fs::write(folder.join(format!("{name}-images")), images).unwrap();
    fs::write(folder.join(format!("{name}-labels")), labels).unwrap();
}

#[test]
fn a_recipe_runs_once_and_then_only_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_idx(root, "train", 60, false);
    write_idx(root, "noise", 80, true);
    let written = RECIPE.to_string() + SHIFTED;
    fs::write(root.join("small.toml"), &written).unwrap();
    let (recipe, out) =
        (root.join("small.toml").display().to_string(), root.join("run").display().to_string());
    let arguments = ["run", &recipe, "--data-root", &root.display().to_string(), "--out", &out];
    let (code, text) = said(&arguments);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("`missing` is left out") && text.contains("`elsewhere` is left out"), "{text}");
    let run = root.join("run");
    let scores = fs::read(run.join("ood/metrics.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&scores).unwrap();
    let shifted = &json["full_spectrum"]["shifted"];
    assert_eq!(shifted.as_array().unwrap().len(), 2, "{shifted}");
    // The labelled one is the training data again.
    assert_eq!((&shifted[0]["name"], &shifted[0]["accuracy"]), (&"labelled".into(), &json["id"]["accuracy"]));
    assert!(shifted[1]["accuracy"].is_null() && shifted[1]["samples"] == 60, "{shifted}");
    assert!(json["full_spectrum"]["ood"]["noise"]["msp"]["auroc"].is_number());
    assert!(run.join("ood/scores/labelled.npz").is_file());
    let before =
        ["checkpoints/last/model.safetensors", "ood/metrics.json", "collapse/rows/epoch_0001/row.json"]
            .map(|file| modified(&run.join(file)));
    fs::remove_dir_all(run.join("features")).unwrap();
    let (code, text) = said(&arguments);
    assert_eq!(code, Some(0), "{text}");
    let after =
        ["checkpoints/last/model.safetensors", "ood/metrics.json", "collapse/rows/epoch_0001/row.json"]
            .map(|file| modified(&run.join(file)));
    assert_eq!(before, after, "a finished stage was repeated");
    assert_eq!(scores, fs::read(run.join("ood/metrics.json")).unwrap());
    assert!(
        run.join("features/epoch_0002/train/features.npy").is_file(),
        "removed features were not made again"
    );

    fs::write(root.join("small.toml"), written.replace("width = 0.25", "width = 0.5")).unwrap();
    let (code, text) = said(&arguments);
    assert!(code == Some(2) && text.contains("another recipe"), "{text}");
}

#[test]
fn an_unknown_key_of_a_recipe_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.toml");
    fs::write(&path, RECIPE.replace("epochs = 2", "use_psudeo_novel = false")).unwrap();
    let (code, text) = said(&["run", &path.display().to_string()]);
    assert!(code == Some(1) && text.contains("use_psudeo_novel") && text.contains("line 7"), "{text}");
}

#[test]
fn an_ood_set_cannot_have_the_name_of_a_part_of_the_training_data() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["train", "calibrate"] {
        let path = folder.path().join("wrong.toml");
        fs::write(&path, RECIPE.replace("name = \"noise\"", &format!("name = \"{name}\""))).unwrap();
        let (code, text) = said(&["run", &path.display().to_string()]);
        let told = format!("`{name}` is the name of a part of the training data");
        assert!(code == Some(2) && text.contains(&told), "{code:?} {text}");
    }
}

#[test]
fn a_shifted_set_needs_a_name_of_its_own_and_something_to_be_told_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.toml");
    let without = RECIPE.split("[[ood]]").next().unwrap().to_string();
    for (text, line, told) in [
        (
            RECIPE.to_string() + &SHIFTED.replace("\"labelled\"", "\"noise\""),
            " line 24: ",
            "two test sets are named `noise`",
        ),
        (
            RECIPE.to_string() + &SHIFTED.replace("\"labelled\"", "\"train\""),
            " line 24: ",
            "`train` is the name of a part",
        ),
        (without + SHIFTED, " line 16: ", "name one under [[ood]]"),
    ] {
        fs::write(&path, text).unwrap();
        let (code, text) = said(&["run", &path.display().to_string()]);
        assert!(code == Some(2) && text.contains(line) && text.contains(told), "{code:?} {text}");
    }
}

#[test]
fn several_seeds_give_a_folder_each_and_one_table_with_deviations() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_idx(root, "train", 40, false);
    write_idx(root, "noise", 40, true);
    fs::write(root.join("small.toml"), RECIPE.replace("epochs = 2", "epochs = 1")).unwrap();
    let (recipe, out) =
        (root.join("small.toml").display().to_string(), root.join("run").display().to_string());
    let root_text = root.display().to_string();
    let (code, text) =
        said(&["run", &recipe, "--data-root", &root_text, "--out", &out, "--seeds", "0,1", "--quiet"]);
    assert_eq!(code, Some(0), "{text}");
    let table = fs::read_to_string(root.join("run/metrics.csv")).unwrap();
    assert!(table.starts_with("method,dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC"), "{table}");
    assert!(table.contains('±'), "{table}");
    assert!(root.join("run/seed_1/report.html").is_file());
    assert!(text.contains("standard deviation of the sample (n - 1) over 2 seeds"), "{text}");
    // Of two numbers the deviation of the sample is their distance over the root of two.
    let auroc = |seed: &str| {
        let path = root.join("run").join(seed).join("ood/metrics.json");
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        100.0 * json["ood"]["noise"]["mahalanobis"]["auroc"].as_f64().unwrap()
    };
    let (a, b) = (auroc("seed_0"), auroc("seed_1"));
    let expected = format!("{:.2} ± {:.2}", (a + b) / 2.0, (a - b).abs() / 2f64.sqrt());
    let row = table.lines().find(|line| line.starts_with("mahalanobis,noise")).unwrap();
    assert_eq!(row.split(',').nth(3), Some(expected.as_str()), "{row}");
    // The page over both has the same numbers, says which deviation it is, and leads to each.
    let page = fs::read_to_string(root.join("run/report.html")).unwrap();
    for part in
        [&expected, "of the sample (n − 1)", "href=\"seed_0/report.html\"", "href=\"seed_1/report.html\""]
    {
        assert!(page.contains(part), "the page lacks {part}");
    }
    // `report` makes all of them again, the seeds' own pages too.
    for page in ["run/report.html", "run/seed_1/report.html"] {
        fs::remove_file(root.join(page)).unwrap();
    }
    assert_eq!(said(&["report", &out]).0, Some(0));
    assert_eq!(fs::read_to_string(root.join("run/report.html")).unwrap(), page);
    assert!(root.join("run/seed_1/report.html").is_file());
    // Caches of an earlier version, the head beside them, are made again and not mixed.
    let train = root.join("run/seed_0/features/epoch_0001/train");
    fs::rename(train.join("head.npz"), train.parent().unwrap().join("head.npz")).unwrap();
    let stamp = root.join("run/seed_0/ood/stamp.json");
    let old = fs::read_to_string(&stamp).unwrap().replace(",\"head\":\"inside the caches\"", "");
    assert_ne!(old, fs::read_to_string(&stamp).unwrap());
    fs::write(&stamp, old).unwrap();
    let again = ["run", &recipe, "--data-root", &root_text, "--out", &out, "--seeds", "0,1"];
    let (code, text) = said(&again);
    assert_eq!(code, Some(0), "{text}");
    assert!(train.join("head.npz").is_file() && text.contains("▸ scores"), "{text}");
    assert_eq!(fs::read_to_string(root.join("run/metrics.csv")).unwrap(), table);
}

#[test]
fn what_cannot_be_scored_is_refused_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_idx(root, "train", 40, false);
    write_idx(root, "noise", 40, true);
    let scores = "methods = \"vim,neco,knn\"\nvim_dim = \"VIM\"\nneco_dim = \"99\"\nknn_k = 70";
    let run = |vim: &str, more: &[&str]| {
        let recipe = RECIPE.replace("methods = \"msp,mahalanobis\"", &scores.replace("VIM", vim));
        fs::write(root.join("small.toml"), recipe.replace("epochs = 2", "epochs = 1")).unwrap();
        let [recipe, data, out] = ["small.toml", "", "run"].map(|name| root.join(name).display().to_string());
        said(&[&["run", recipe.as_str(), "--data-root", &data, "--out", &out], more].concat())
    };
    // A ResNet-20 of a quarter of the width has 16 features.
    let (code, text) = run("16", &[]);
    assert!(
        code == Some(2) && text.contains("vim-dim 16 leaves no residual of 16 features; choose 1 to 15"),
        "{text}"
    );
    let (code, text) = run("8", &["--seeds", "0,1,0"]);
    assert!(code == Some(2) && text.contains("--seeds has 0 twice"), "{text}");
    let path = root.join("once.toml");
    fs::write(&path, RECIPE.replace("bootstrap = 0", "bootstrap = 1")).unwrap();
    let (code, text) =
        said(&["run", &path.display().to_string(), "--data-root", &root.display().to_string()]);
    assert!(code == Some(2) && text.contains("at least 2 replicates, found 1"), "{text}");
    assert!(!root.join("run/checkpoints").exists() && !root.join("run/recipe.toml").exists());
    let (code, text) = run("8", &[]);
    assert_eq!(code, Some(0), "{text}");
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words} in {text}"));
    assert!(place("neco-dim 99: 16 features of 40 training samples") < place("▸ training"), "{text}");
    assert!(place("knn-k 70: knn compares with 40 training samples") < place("▸ training"), "{text}");
}
