//! Constants chosen without OOD data, through the binary.

use std::path::Path;

use residua::features::{Element, FeatureSet, Head, NpyArray, write_npz};
use residua::ood::table::{Candidate, Evaluation, PseudoOod, Tuning};

use crate::ood::scores::case;
use crate::support::program::residua;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs `ood` and reads what it wrote.
fn run_ood(arguments: &[String]) -> (Evaluation, String) {
    let out = tempfile::tempdir().unwrap();
    let place = ["--out".to_string(), text(out.path()), "--thumbnails".into(), "0".into()];
    let done = residua(["ood"]).args(arguments).args(place).assert().success();
    let printed = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    (Evaluation::read_json(&out.path().join("metrics.json")).unwrap(), printed)
}

/// Writes the samples of some classes as a network without the others would see them.
fn write_classes(set: &FeatureSet, head: &Head, rows: &[usize], kept: &[usize], path: &Path) {
    let (mut features, mut logits) = (Vec::new(), Vec::new());
    let mut labels: Vec<i64> = Vec::new();
    for &row in rows {
        let (mut own, mut all) = (Vec::new(), Vec::new());
        set.features().read_f32(row..row + 1, &mut own);
        set.read_logits(head, row..row + 1, &mut all);
        features.extend(own);
        logits.extend(kept.iter().map(|&class| all[class] as f32));
        let label = set.labels().unwrap()[row] as usize;
        labels.push(kept.iter().position(|&class| class == label).map_or(-1, |place| place as i64));
    }
    let array =
        |values: Vec<f32>, columns| NpyArray::from_vec(values, Element::F32, vec![rows.len(), columns]);
    let features = array(features, head.dimension());
    let logits = array(logits, kept.len());
    let labels = NpyArray::from_vec(labels, Element::Signed(8), vec![rows.len()]);
    write_npz(path, &[("features", &features), ("logits", &logits), ("labels", &labels)]).unwrap();
}

fn candidates(tuning: &Tuning) -> impl Iterator<Item = &Candidate> {
    tuning.scores.iter().flat_map(|score| &score.candidates)
}

#[test]
fn each_split_is_measured_as_a_network_without_its_classes_would_be() {
    let folder = case("small");
    let file = |name: &str| text(&folder.join(name).with_extension("npz"));
    let methods = "msp,gen:m=2|5,mahalanobis,knn:k=1|20,react,vim:dim=0.5|0.9,ash_s,nci";
    let mut arguments: Vec<String> =
        ["--train", &file("train"), "--id", &file("id"), "--head", &file("head")].map(String::from).to_vec();
    arguments.extend([
        "--calibration".into(),
        file("cal"),
        "--ood".into(),
        format!("near:a={}", file("ood")),
    ]);
    arguments.extend(["--methods".into(), methods.into()]);
    let (plain, _) = run_ood(&arguments);
    let (tuned, printed) = run_ood(&[arguments.clone(), vec!["--tune".into()]].concat());
    assert!(plain.tuning.is_none());
    let tuning = tuned.tuning.clone().unwrap();
    assert_eq!(tuning.pseudo_ood, PseudoOod::HeldOutClasses);
    assert!(tuning.outside_training);

    // Every class is held out once, and every split is what `ood` says of the same samples in files.
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let open = |name: &str| FeatureSet::open(&folder.join(name).with_extension("npz")).unwrap();
    let (train, cal) = (open("train"), open("cal"));
    let mut all: Vec<usize> = tuning.splits.iter().flat_map(|split| split.held_out.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..head.classes()).collect::<Vec<usize>>());
    let names: Vec<String> = candidates(&tuning).map(|candidate| candidate.score.clone()).collect();
    assert!(names.len() > 20, "{names:?}");
    for (index, split) in tuning.splits.iter().enumerate() {
        let kept: Vec<usize> = (0..head.classes()).filter(|class| !split.held_out.contains(class)).collect();
        let is_kept = |set: &FeatureSet, row: &usize| kept.contains(&(set.labels().unwrap()[*row] as usize));
        let of = |set: &FeatureSet, wanted: bool| -> Vec<usize> {
            (0..set.len()).filter(|row| is_kept(set, row) == wanted).collect()
        };
        let sets = tempfile::tempdir().unwrap();
        let at = |name: &str| sets.path().join(name).with_extension("npz");
        write_classes(&train, &head, &of(&train, true), &kept, &at("train"));
        write_classes(&cal, &head, &of(&cal, true), &kept, &at("id"));
        write_classes(&cal, &head, &of(&cal, false), &kept, &at("ood"));
        let weight = kept.iter().flat_map(|&class| head.class_weight(class)).copied().collect();
        let bias = kept.iter().map(|&class| head.bias()[class]).collect();
        Head::new(weight, bias, head.dimension()).unwrap().write(&at("head")).unwrap();
        let mut own: Vec<String> =
            ["train", "id", "head"].iter().flat_map(|name| [format!("--{name}"), text(&at(name))]).collect();
        own.extend(["--ood".into(), format!("x={}", text(&at("ood")))]);
        own.extend(["--methods".into(), names.join(",")]);
        let (found, _) = run_ood(&own);
        for candidate in candidates(&tuning) {
            let expected = found.entry("x", &candidate.score).unwrap().metrics.auroc;
            let difference = (candidate.by_split[index] - expected).abs();
            assert!(difference < 1e-9, "split {index}, {}: {difference}", candidate.score);
        }
        let sizes = (split.fitted, split.id, split.ood);
        let expected = (of(&train, true).len(), of(&cal, true).len(), of(&cal, false).len());
        assert_eq!(sizes, (expected.0 as u64, expected.1 as u64, expected.2 as u64));
    }

    // What is chosen is the best by these numbers alone, and the tables are with it.
    for score in &tuning.scores {
        let most = score.candidates.iter().map(|own| own.auroc).fold(f64::NEG_INFINITY, f64::max);
        let chosen = score.chosen_candidate().unwrap();
        let default = score.default_candidate().unwrap();
        match score.default.contains(':') {
            // A sweep that was asked for.
            true => assert_eq!(chosen.auroc, most),
            // Else the default stays, or makes way for a clear gain.
            false => assert!(chosen.score == default.score || chosen.auroc > default.auroc),
        }
        assert!(tuned.methods.contains(&score.chosen));
    }
    assert_eq!(tuned.methods.len(), tuning.scores.len());
    // Beside it stands what the same constants do on the OOD set, fitted on the whole training set.
    let swept = [arguments[..arguments.len() - 1].to_vec(), vec![names.join(",")]].concat();
    let (every, _) = run_ood(&swept);
    for candidate in tuning.tuned().flat_map(|score| &score.candidates) {
        let expected = every.entry("a", &candidate.score).unwrap().metrics.auroc;
        assert!((candidate.ood["a"] - expected).abs() < 1e-12, "{}", candidate.score);
    }
    assert!(printed.contains("Constants chosen without OOD data"), "{printed}");
    assert!(printed.contains("if OOD data had"), "{printed}");
}

#[test]
fn ood_sets_have_no_say_in_the_choice() {
    let folder = case("small");
    let file = |name: &str| text(&folder.join(name).with_extension("npz"));
    let chosen = |ood: &str| {
        let mut arguments: Vec<String> =
            ["--train", &file("train"), "--id", &file("id"), "--head", &file("head"), "--tune"]
                .map(String::from)
                .to_vec();
        arguments.extend([
            "--ood".into(),
            format!("a={}", file(ood)),
            "--methods".into(),
            "gen,knn,ash_s".into(),
        ]);
        let tuning = run_ood(&arguments).0.tuning.unwrap();
        // Without calibration samples a part of the training set is scored, and the reader is told.
        assert!(!tuning.outside_training && tuning.notes.iter().any(|note| note.contains("--calibration")));
        tuning
            .scores
            .iter()
            .map(|score| (score.chosen.clone(), score.chosen_candidate().unwrap().by_split.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen("ood"), chosen("cal"));
}

#[test]
fn networks_are_trained_again_without_the_held_out_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name));
    let train = ["train", "--data", "demo:fashion-mnist?sample=240", "--arch", "resnet20", "--width", "0.25"];
    residua(train)
        .args(["--epochs", "1", "--batch-size", "40", "--quiet", "--out", &at("run")])
        .assert()
        .success();
    for (data, name) in [
        ("demo:fashion-mnist?sample=240", "train"),
        ("demo:fashion-mnist?split=test,sample=100", "test"),
        ("demo:digits?sample=50", "digits"),
    ] {
        let extract = ["extract", "--checkpoint", &at("run"), "--data", data, "--out", &at(name), "--quiet"];
        residua(extract).assert().success();
    }
    let tune = |more: &[&str]| {
        residua([
            "ood",
            "--train",
            &at("train"),
            "--id",
            &at("test"),
            "--ood",
            &format!("d={}", at("digits")),
        ])
        .args(["--methods", "msp,knn:k=1|5,gen", "--thumbnails", "0", "--out", &at("ood")])
        .args(more)
        .assert()
    };
    let says = |more: &[&str], code: i32, part: &str| {
        let done = tune(more).code(code);
        let said = String::from_utf8_lossy(&done.get_output().stderr).to_string();
        assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part}:\n{said}");
    };
    says(&["--tune", "retrain=2"], 2, "--run RUN");
    says(&["--run", &at("run")], 2, "--run is for --tune retrain=K");
    says(&["--tune", "retrain=1"], 2, "2");
    says(&["--tune", "unlearn"], 2, "retrain=K");

    let alone =
        ["ood", "--id", &at("test"), "--ood", &format!("d={}", at("digits")), "--methods", "msp", "--tune"];
    let done = residua(alone).args(["--out", &at("alone")]).assert().code(2);
    assert!(String::from_utf8_lossy(&done.get_output().stderr).contains("--tune needs --train CACHE"));
    // A run that is not the one behind the caches, or cannot be trained again, is refused before a training.
    let recipe = std::fs::read_to_string(folder.path().join("run/recipe.toml")).unwrap();
    for (change, part) in [
        (recipe.replace("width = 0.25", "width = 0.5"), "its network has 32 features, the caches have 16"),
        (recipe.replace("[train]", "[train]\nteacher = \"run\""), "trained with a teacher"),
        (recipe.replace("demo:fashion-mnist", "demo:unseen"), "class"),
    ] {
        assert_ne!(change, recipe, "{part}");
        std::fs::create_dir_all(folder.path().join("other")).unwrap();
        std::fs::write(folder.path().join("other/recipe.toml"), change).unwrap();
        let done = tune(&["--tune", "retrain=2", "--run", &at("other")]).failure();
        let said = String::from_utf8_lossy(&done.get_output().stderr).to_string();
        assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part}:\n{said}");
    }
    assert!(!folder.path().join("ood/tuning").exists());

    tune(&["--tune", "retrain=2", "--run", &at("run")]).success();
    let read = || Evaluation::read_json(&folder.path().join("ood/metrics.json")).unwrap().tuning.unwrap();
    let tuning = read();
    assert_eq!((tuning.pseudo_ood, tuning.outside_training), (PseudoOod::UnseenClasses, true));
    assert_eq!(tuning.splits.len(), 2);
    assert!(candidates(&tuning).all(|candidate| candidate.by_split.len() == 2));
    let mut trained = Vec::new();
    for (number, split) in tuning.splits.iter().enumerate() {
        let own = folder.path().join(format!("ood/tuning/split-{}", number + 1));
        let cache = |name: &str| FeatureSet::open(&own.join("features").join(name)).unwrap();
        // The classes that stay have a logit each; the held-out ones no label.
        assert_eq!(cache("train").classes(), Some(8 - split.held_out.len()));
        assert!(cache("ood").labels().unwrap().iter().all(|label| *label == -1));
        assert!(cache("id").labels().unwrap().iter().all(|label| (0..4).contains(label)));
        assert_eq!(cache("train").len() + cache("id").len() + cache("ood").len(), 240);
        trained.push(std::fs::metadata(own.join("metrics.jsonl")).unwrap().modified().unwrap());
    }
    // Trained networks are taken as they are; other ones are not mistaken for them.
    tune(&["--tune", "retrain=2", "--run", &at("run")]).success();
    assert_eq!(read(), tuning);
    for (number, before) in trained.iter().enumerate() {
        let log = folder.path().join(format!("ood/tuning/split-{}/metrics.jsonl", number + 1));
        assert_eq!(std::fs::metadata(log).unwrap().modified().unwrap(), *before);
    }
    says(
        &["--tune", "retrain=2", "--run", &at("run"), "--seed", "1"],
        2,
        "another recipe, or without other classes",
    );
}
