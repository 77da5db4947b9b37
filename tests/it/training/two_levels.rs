//! What training on two levels of classes promises: one seed, one result; a resume that continues bit for bit with every loss
//! there is; caches of each head that any score works on; messages where flags and data do not belong together.

use std::fs;
use std::path::Path;
use std::process::Output;

use residua::checkpoint;
use residua::data::Level;
use residua::features::FeatureSet;
use residua::rng::{Purpose, Stream};

use crate::support::program;

/// The superclass of each fine class that has images; 7 and 9 have none.
const PARENTS: [(u8, u8); 5] = [(2, 0), (3, 0), (5, 4), (8, 4), (11, 6)];

/// A CIFAR-100 file of random images whose colour depends on their class; class 2 has as many images as all others.
fn write_images(path: &Path, count: u64) {
    let stream = Stream::for_purpose(8, Purpose::Synthetic, &[count]);
    let mut bytes = Vec::new();
    for image in 0..count {
        let class = if image % 2 == 0 { 0 } else { (image / 2 % 5) as usize };
        let (fine, coarse) = PARENTS[class];
        bytes.extend([coarse, fine]);
        for channel in 0..3u64 {
            let base = 30 * ((class as u64 + channel) % 5);
            let pixel = |i| (base + stream.below(image * 3072 + channel * 1024 + i, 80)) as u8;
            bytes.extend((0..1024).map(pixel));
        }
    }
    fs::write(path, bytes).unwrap();
}

fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_images(&folder.path().join("train.bin"), 37);
    write_images(&folder.path().join("test.bin"), 20);
    folder
}

fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn train(data: &Path, labels: &str, out: &Path, more: &[&str]) -> Output {
    let data = format!("cifar100:{}?labels={labels}", data.display());
    let out = out.display().to_string();
    let mut arguments = vec!["train", "--data", &data, "--val", &data, "--out", &out];
    arguments.extend(["--arch", "resnet20", "--width", "0.125", "--epochs", "3", "--batch-size", "8"]);
    arguments.extend(["--optimizer", "adam", "--lr", "0.003", "--checkpoint-every", "0"]);
    arguments.extend(more);
    program::run(&arguments)
}

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/last").join(file)).unwrap()
}

/// Lines of the log without what depends on the clock.
fn log(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("images_per_second");
        line
    };
    text.lines().map(line).collect()
}

// Notebook A, trap A24: one seed gives one result, whatever is switched on and however many threads there are.
#[test]
fn every_loss_together_resumes_bit_for_bit_and_depends_on_no_thread() {
    let data = data();
    let runs = tempfile::tempdir().unwrap();
    let run = |name: &str| runs.path().join(name);
    succeed(train(data.path(), "coarse", &run("teacher"), &["--max-steps", "2", "--quiet"]));
    let teacher = run("teacher").display().to_string();
    let all = ["--head", "cosine", "--superclass-head", "cosine-relu-linear", "--head-lr", "0.01", "--quiet"];
    let losses =
        ["--kl-weight", "0.1", "--kl-direction", "js", "--teacher", &teacher, "--class-weights", "balanced"];
    let flags = [&all[..], &losses, &["--sampler", "balanced"]].concat();
    let one = |name: &str, more: &[&str]| {
        succeed(train(data.path(), "both", &run(name), &[&flags[..], more].concat()));
    };
    one("straight", &["--threads", "1"]);
    // 37 images in batches of 8 are 5 steps an epoch: 7 steps end within the second.
    one("parted", &["--threads", "2", "--max-steps", "7"]);
    let parted = run("parted").display().to_string();
    succeed(program::run(&["train", "--resume", "--out", &parted, "--quiet"]));
    for file in ["model.safetensors", "state.safetensors"] {
        let same = bytes(&run("straight"), file) == bytes(&run("parted"), file);
        assert!(same, "{file} differs after the resume");
    }
    assert_eq!(log(&run("straight")), log(&run("parted")));
    one("other", &["--seed", "1"]);
    assert!(bytes(&run("straight"), "model.safetensors") != bytes(&run("other"), "model.safetensors"));

    let meta = checkpoint::read_meta(&run("straight")).unwrap();
    let levels: Vec<Option<Level>> = meta.heads.iter().map(|head| head.level).collect();
    assert_eq!(levels, [Some(Level::Coarse), Some(Level::Fine)]);
    assert_eq!(meta.heads[0].indices, [0, 4, 6]);
    assert_eq!(meta.heads[1].indices, [2, 3, 5, 8, 11]);
    // The best checkpoint is chosen by the mean of both accuracies.
    let mean = (meta.metrics["superclass_accuracy"] + meta.metrics["subclass_accuracy"]) / 2.0;
    assert!((meta.metrics["accuracy"] - mean).abs() < 1e-12);
}

#[test]
fn each_head_has_a_cache_whose_logits_are_its_features_through_its_last_map() {
    let data = data();
    let runs = tempfile::tempdir().unwrap();
    let kinds = [["linear", "cosine"], ["cosine-relu-linear", "linear"]];
    for [superclass, subclass] in kinds {
        let run = runs.path().join(subclass);
        let heads = ["--superclass-head", superclass, "--head", subclass];
        succeed(train(data.path(), "both", &run, &[&heads[..], &["--max-steps", "3", "--quiet"]].concat()));
        let (checkpoint, out) = (run.display().to_string(), run.join("features/last/test"));
        let test = format!("cifar100:{}?labels=both,split=test", data.path().display());
        let out = out.display().to_string();
        succeed(program::run(&[
            "extract",
            "--checkpoint",
            &checkpoint,
            "--data",
            &test,
            "--out",
            &out,
            "--quiet",
        ]));
        for (level, indices) in [("superclass", &[0, 4, 6][..]), ("subclass", &[2, 3, 5, 8, 11])] {
            let folder = run.join("features/last").join(level);
            let set = FeatureSet::open(&folder.join("test")).unwrap();
            let head = set.own_head().unwrap().expect("a head inside the cache");
            assert_eq!(head.classes(), indices.len());
            let (mut features, mut logits, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            set.features().read_f64(0..20, &mut features);
            set.logits().unwrap().read_f64(0..20, &mut logits);
            head.logits(&features, 20, &mut expected);
            for (found, expected) in logits.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} and {expected}");
            }
            // Labels are logits of the head: every second image is of subclass 2, superclass 0, the first of both.
            let labels = set.labels().unwrap();
            assert_eq!((labels[0], labels[2]), (0, 0));
            assert!(labels.iter().all(|&label| (0..indices.len() as i64).contains(&label)));
        }
    }
}

#[test]
fn heads_for_other_classes_are_left_out_of_the_start_and_that_is_told() {
    let data = data();
    let runs = tempfile::tempdir().unwrap();
    let (first, second) = (runs.path().join("first"), runs.path().join("second"));
    succeed(train(data.path(), "fine", &first, &["--max-steps", "1", "--quiet"]));
    let init = first.display().to_string();
    let frozen = ["--init", &init, "--fine-tune", "frozen", "--max-steps", "1"];
    let told = succeed(train(data.path(), "both", &second, &frozen));
    for part in ["no `super_head`", "no `sub_head`", "2 tensors of heads are left out", "`fc.bias`"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let tensors = |run: &Path| checkpoint::load(run).unwrap().model;
    let (before, after) = (tensors(&first), tensors(&second));
    let backbone = before.keys().filter(|name| !name.starts_with("fc."));
    assert_eq!(backbone.clone().find(|&name| before[name] != after[name]), None, "a frozen tensor moved");
    // 19 convolutions, each with a weight, two parameters and two statistics of its normalisation.
    assert_eq!(backbone.count(), 5 * 19);
}

#[test]
fn flags_that_the_data_or_the_network_has_no_use_for_are_refused() {
    let data = data();
    let runs = tempfile::tempdir().unwrap();
    let fine = runs.path().join("fine");
    succeed(train(data.path(), "fine", &fine, &["--max-steps", "1", "--quiet"]));
    let fine = fine.display().to_string();
    for (labels, flags, code, part) in [
        ("fine", &["--kl-weight", "0.1"][..], 2, "train both, on data with labels=both"),
        ("both", &["--fine-tune", "frozen"], 2, "--init"),
        ("both", &["--outlier-loss", "energy"], 1, "class named `novel`"),
        ("both", &["--energy-margins=-5,-23"], 2, "the smaller first"),
        ("both", &["--kl-temperature", "0"], 2, "from 0.001 to 1000"),
        ("both", &["--teacher", &fine], 2, "over the superclasses of the training data"),
        ("fine", &["--teacher", &fine], 2, "labels=both"),
    ] {
        let refused = train(data.path(), labels, &runs.path().join("refused"), flags);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(code) && message.contains(part), "{flags:?}: {message}");
    }
}
