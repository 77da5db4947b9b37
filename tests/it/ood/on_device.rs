//! Whole experiments and thresholds with all scoring on a device with kernels: the verbs say what `ood` says there.

use std::fs;
use std::path::{Path, PathBuf};

use residua::features::{Matrix, Npz};

use crate::support::program::said;

fn ok(arguments: &[&str]) {
    let (code, text) = said(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
}

/// Every array of an `.npz`, by name.
fn arrays(path: &Path) -> Vec<(String, Vec<f64>)> {
    let file = Npz::open(path).unwrap();
    let read = |name: String| {
        let mut array = file.array(&name).unwrap().unwrap();
        array.shape = vec![1, array.shape[0]];
        let mut values = Vec::new();
        Matrix::new(array, path, &name).unwrap().read_f64(0..1, &mut values);
        (name, values)
    };
    let mut names: Vec<String> = Npz::open(path).unwrap().names().into_iter().map(String::from).collect();
    names.sort();
    names.into_iter().map(read).collect()
}

/// The largest difference relative to the largest value.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let size = a.iter().map(|x| x.abs()).fold(f64::MIN_POSITIVE, f64::max);
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if fs::symlink_metadata(&path).unwrap().is_symlink() {
            #[cfg(unix)]
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), to).unwrap();
        } else if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// Numbers of a JSON document by their path.
fn numbers(value: &serde_json::Value, path: &str, found: &mut Vec<(String, f64)>) {
    match value {
        serde_json::Value::Number(number) => found.push((path.to_string(), number.as_f64().unwrap())),
        serde_json::Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| numbers(value, &format!("{path}/{i}"), found));
        }
        serde_json::Value::Object(values) => {
            values.iter().for_each(|(key, value)| numbers(value, &format!("{path}/{key}"), found));
        }
        _ => {}
    }
}

#[test]
fn a_recipe_scores_calibrates_and_measures_collapse_where_its_device_computes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |path: PathBuf| path.display().to_string();
    ok(&["demo", "--tiny", "--quiet", "--device", "cpu", "--out", &text(path("cpu"))]);
    // The same networks and features: what comes after them is made again by kernels.
    copy(&path("cpu"), &path("kernels"));
    for made in ["ood", "thresholds.toml", "report.html"] {
        let made = path("kernels").join(made);
        if made.is_dir() { fs::remove_dir_all(made).unwrap() } else { fs::remove_file(made).unwrap() }
    }
    let recipe = text(path("kernels/recipe.toml"));
    ok(&["run", &recipe, "--quiet", "--device", "emulator", "--out", &text(path("kernels"))]);

    // What `ood` says of these caches there, bit for bit; near what the CPU says, but not its bits.
    let cache = |name: &str| text(path("kernels/features/epoch_0002").join(name));
    let ood = [format!("near:held_out={}", cache("held_out")), format!("far:digits={}", cache("digits"))];
    let recipe = fs::read_to_string(path("kernels/recipe.toml")).unwrap();
    let methods = recipe.lines().find_map(|line| line.strip_prefix("methods = ")).unwrap();
    let methods: String = methods.chars().filter(|c| !"[]\" ".contains(*c)).collect();
    let (train, id, out) = (cache("train"), cache("id"), text(path("ood")));
    let mut arguments = vec!["ood", "--train", &train, "--id", &id, "--ood", &ood[0], "--ood", &ood[1]];
    arguments.extend(["--methods", &methods, "--device", "emulator", "--quiet", "--out", &out]);
    if fs::exists(path("kernels/features/epoch_0002/calibrate")).unwrap() {
        arguments.extend(["--calibration", Box::leak(cache("calibrate").into_boxed_str())]);
    }
    ok(&arguments);
    let mut differ = 0;
    for set in ["id", "held_out", "digits"] {
        let of = |run: &str| arrays(&path(run).join(format!("scores/{set}.npz")));
        let (cpu, kernels, verb) = (of("cpu/ood"), of("kernels/ood"), of("ood"));
        assert!(kernels == verb, "{set}: the recipe has other bits than the verb");
        for ((name, cpu), (_, kernels)) in cpu.iter().zip(&kernels) {
            assert!(distance(cpu, kernels) < 1e-9, "{set} {name}: {:e}", distance(cpu, kernels));
            differ += usize::from(cpu != kernels);
        }
    }
    assert!(differ > 10, "only {differ} arrays have other bits: did the kernels compute them?");

    let collapse = |run: &str| {
        let text = fs::read_to_string(path(run).join("collapse/collapse.json")).unwrap();
        let mut found = Vec::new();
        numbers(&serde_json::from_str(&text).unwrap(), "", &mut found);
        found
    };
    let (cpu, kernels) = (collapse("cpu"), collapse("kernels"));
    assert!(cpu.len() == kernels.len() && cpu != kernels);
    for ((name, cpu), (_, kernels)) in cpu.iter().zip(&kernels) {
        assert!((cpu - kernels).abs() <= 1e-12 * cpu.abs().max(1.0), "{name}: {cpu} and {kernels}");
    }
    let tau = |run: &str| -> f64 {
        let text = fs::read_to_string(path(run).join("thresholds.toml")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("tau = ")).unwrap().parse().unwrap()
    };
    // Of few samples the threshold may be -inf, which flags nothing.
    let (cpu, kernels) = (tau("cpu"), tau("kernels"));
    assert!(cpu == kernels || (cpu - kernels).abs() < 1e-12, "{cpu} and {kernels}");
}

#[test]
fn thresholds_and_predictions_have_the_scores_that_ood_gives_on_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let demo = path("demo");
    ok(&["demo", "--tiny", "--quiet", "--device", "cpu", "--out", &demo]);
    let (fit, test) = ("demo:?sample=80", "demo:?split=test,limit=30");
    let scores = |score: &str, device: &str| -> Vec<f64> {
        let of = ["--checkpoint", &demo, "--device", device, "--quiet"];
        let (thresholds, csv) = (path(&format!("{device}/{score}.toml")), path(&format!("{score}.csv")));
        let calibrate = ["calibrate", "--seen", test, "--fit", fit, "--score", score, "--out", &thresholds];
        ok(&[&calibrate[..], &of].concat());
        let predict =
            ["predict", "--thresholds", &thresholds, "--data", test, "--with-scores", "--out", &csv];
        ok(&[&predict[..], &of].concat());
        let text = fs::read_to_string(&csv).unwrap();
        let column = text.lines().next().unwrap().split(',').position(|title| title.ends_with("_score"));
        let cell = |line: &str| line.split(',').nth(column.unwrap()).unwrap().parse().unwrap();
        text.lines().skip(1).map(cell).collect()
    };
    for (name, data) in [("fit", fit), ("test", test)] {
        ok(&[
            "extract",
            "--checkpoint",
            &demo,
            "--data",
            data,
            "--device",
            "emulator",
            "--quiet",
            "--out",
            &path(name),
        ]);
    }
    let (fit, id, out) = (path("fit"), path("test"), path("ood"));
    let other = format!("other={id}");
    let sets = ["ood", "--train", &fit, "--id", &id, "--ood", &other, "--methods", "mahalanobis,energy"];
    ok(&[&sets[..], &["--device", "emulator", "--quiet", "--out", &out]].concat());
    for (name, of_verb) in arrays(&Path::new(&out).join("scores/id.npz")) {
        let kernels = scores(&name, "emulator");
        assert!(kernels == of_verb, "{name}: {kernels:?} and {of_verb:?}");
        // On the CPU features differ by the roundings of f32.
        let cpu = scores(&name, "cpu");
        assert!(distance(&cpu, &kernels) < 1e-2 && cpu != kernels, "{name}: {cpu:?} and {kernels:?}");
    }
}
