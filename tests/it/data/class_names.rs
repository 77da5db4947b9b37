//! Class names are compared wherever a checkpoint meets labelled data: `extract`, `collapse`, `train`, `calibrate`.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use predicates::str::contains;
use residua::data::RgbImage;
use residua::rng::{Purpose, Stream};
use tempfile::TempDir;

use crate::support::data_files::fixture;
use crate::support::program::{residua, said};

const CLASSES: [(&str, [u8; 3]); 4] =
    [("bird", [150, 40, 40]), ("cat", [40, 150, 40]), ("deer", [40, 40, 150]), ("ship", [150, 150, 40])];

/// A noisy image of a colour.
fn image([red, green, blue]: [u8; 3], number: u64) -> RgbImage {
    let stream = Stream::for_purpose(3, Purpose::Synthetic, &[number]);
    let noise = (0..8 * 8 * 3u64).map(|i| stream.below(i, 60) as u8);
    let pixels =
        noise.zip([red, green, blue].into_iter().cycle()).map(|(noise, colour)| colour + noise).collect();
    RgbImage::new(8, 8, pixels)
}

fn write(folder: &Path, class: &str, colour: [u8; 3], from: u64, count: u64) {
    fs::create_dir_all(folder.join(class)).unwrap();
    for number in from..from + count {
        let RgbImage { width, height, pixels, .. } = image(colour, number);
        let path = folder.join(class).join(format!("{number}.png"));
        image::RgbImage::from_raw(width, height, pixels).unwrap().save(path).unwrap();
    }
}

/// Folders of classes and a network that knows four of them, made once for all tests.
struct Bench(TempDir);

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let bench = Bench(tempfile::tempdir().unwrap());
    for (class, colour) in CLASSES {
        write(&bench.0.path().join("train"), class, colour, 0, 12);
        write(&bench.0.path().join("test"), class, colour, 100, 6);
    }
    // Two lack a class or have another one, two have none of the network's.
    for (folder, classes) in [
        ("lacking", vec![("bird", 0), ("deer", 2), ("ship", 3)]),
        ("more", vec![("bird", 0), ("dog", 1), ("ship", 3)]),
        ("others", vec![("oak", 0), ("pine", 1), ("rose", 2), ("tulip", 3)]),
    ] {
        for (class, colour) in classes {
            write(&bench.0.path().join(folder), class, CLASSES[colour].1, 200, 6);
        }
    }
    let (data, run) = (bench.data("train"), bench.text("run"));
    let mut arguments =
        vec!["train", "--data", &data, "--out", &run, "--arch", "resnet20", "--width", "0.25"];
    arguments.extend(["--epochs", "16", "--batch-size", "12", "--lr", "0.02", "--normalize", "cifar10"]);
    arguments.extend(["--device", "cpu", "--quiet"]);
    residua(arguments).assert().success();
    bench
});

impl Bench {
    fn text(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn data(&self, name: &str) -> String {
        format!("folder:{}", self.text(name))
    }

    /// The JSON that `extract` prints, its notes, and the labels that it keeps.
    fn extract(&self, checkpoint: &str, data: &str, more: &[&str]) -> (serde_json::Value, String, Vec<i64>) {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("cache");
        let checkpoint = self.text(checkpoint);
        let output = residua([
            "extract",
            "--checkpoint",
            &checkpoint,
            "--data",
            data,
            "--json",
            "--quiet",
            "--device",
            "cpu",
        ])
        .arg("--out")
        .arg(&out)
        .args(more)
        .output()
        .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let labels = fs::read(out.join("labels.npy")).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([labels[8], labels[9]]));
        let labels =
            labels[header..].as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        (serde_json::from_slice(&output.stdout).unwrap(), said, labels)
    }
}

fn of_each(labels: &[i64]) -> Vec<i64> {
    labels.iter().flat_map(|label| [*label; 6]).collect()
}

#[test]
fn a_folder_that_lacks_a_class_keeps_its_accuracy_because_labels_are_matched_by_name() {
    let (whole, said, labels) = BENCH.extract("run", &BENCH.data("test"), &[]);
    assert_eq!((labels, said.as_str()), (of_each(&[0, 1, 2, 3]), ""));
    assert_eq!((whole["accuracy"].as_f64(), whole["labelled"].as_u64()), (Some(1.0), Some(24)));
    let (lacking, said, labels) = BENCH.extract("run", &BENCH.data("lacking"), &[]);
    assert_eq!(labels, of_each(&[0, 2, 3]));
    assert_eq!((lacking["accuracy"].as_f64(), lacking["labelled"].as_u64()), (Some(1.0), Some(18)));
    assert!(said.contains("matched to the network's classes by name (3 of 4"), "{said}");
}

#[test]
fn classes_that_the_network_does_not_know_are_named_and_count_in_no_accuracy() {
    let (more, said, labels) = BENCH.extract("run", &BENCH.data("more"), &[]);
    assert_eq!(labels, of_each(&[0, -1, 3]));
    assert_eq!((more["accuracy"].as_f64(), more["labelled"].as_u64()), (Some(1.0), Some(12)));
    assert!(said.contains("its class `dog` is none of the network's: 6 samples"), "{said}");
    assert_eq!(more["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn no_accuracy_is_printed_for_a_set_of_other_classes_of_whatever_number() {
    // As many as the network has, and ten digits.
    let digits = format!("svhn:{}", fixture("svhn_plain.mat").display());
    for (data, name) in [(BENCH.data("others"), "`oak`, `pine`, `rose`, `tulip`"), (digits, "only numbers")] {
        let (found, said, labels) = BENCH.extract("run", &data, &[]);
        assert!(labels.iter().all(|label| *label == -1), "{labels:?}");
        assert!(found["accuracy"].is_null() && found["labelled"] == 0, "{found}");
        for part in [name, "are not those of the network (`bird`, `cat`, `deer`, `ship`)", "no accuracy"] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
    // Who knows that they are the same says so.
    let (found, said, labels) = BENCH.extract("run", &BENCH.data("others"), &["--labels", "numbers"]);
    assert_eq!((labels, found["labelled"].as_u64()), (of_each(&[0, 1, 2, 3]), Some(24)));
    assert!(said.contains("could not be compared (as asked for)"), "{said}");
}

#[test]
fn weights_without_class_names_say_that_names_could_not_be_compared() {
    let (run, weights) = (BENCH.text("run"), BENCH.text("bare.safetensors"));
    residua(["weights", "export", &run, &weights]).assert().success();
    let more = ["--normalize", "cifar10", "--size", "8"];
    let (found, said, labels) = BENCH.extract("bare.safetensors", &BENCH.data("test"), &more);
    assert_eq!((labels, found["accuracy"].as_f64()), (of_each(&[0, 1, 2, 3]), Some(1.0)));
    assert!(
        said.contains("names of classes could not be compared (the weights file does not name"),
        "{said}"
    );
    // Of a folder that lacks a class nobody can tell which.
    let (found, said, labels) = BENCH.extract("bare.safetensors", &BENCH.data("lacking"), &more);
    assert!(labels.iter().all(|label| *label == -1) && found["accuracy"].is_null(), "{found}");
    assert!(said.contains("the data has 3 classes instead of 4"), "{said}");
}

#[test]
fn collapse_matches_names_and_refuses_id_data_of_other_classes() {
    let (run, test) = (BENCH.text("run"), BENCH.data("test"));
    let collapse = |data: &str, test: &str, out: &str| {
        let out = BENCH.text(out);
        let ood = format!("others={}", BENCH.data("others"));
        said(&[
            "collapse",
            "--checkpoints",
            &run,
            "--data",
            data,
            "--test",
            test,
            "--ood",
            &ood,
            "--out",
            &out,
            "--device",
            "cpu",
            "--quiet",
        ])
    };
    let (code, text) = collapse(&BENCH.data("train"), &BENCH.data("lacking"), "nc");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("by name (3 of 4"), "{text}");
    for (data, test) in [(&BENCH.data("others"), &test), (&BENCH.data("train"), &BENCH.data("more"))] {
        let (code, text) = collapse(data, test, "refused");
        assert!(code == Some(1) && text.contains("are of other classes than those of the network"), "{text}");
        assert!(text.contains("`oak`") || text.contains("`dog`"), "{text}");
    }
}

#[test]
fn validation_data_is_matched_by_name_and_other_classes_are_refused_by_name() {
    let train = |val: &str, out: &str| {
        let (data, out) = (BENCH.data("train"), BENCH.text(out));
        said(&[
            "train",
            "--data",
            &data,
            "--val",
            val,
            "--out",
            &out,
            "--arch",
            "resnet20",
            "--width",
            "0.25",
            "--epochs",
            "16",
            "--batch-size",
            "12",
            "--lr",
            "0.02",
            "--normalize",
            "cifar10",
            "--device",
            "cpu",
            "--json",
        ])
    };
    let (code, text) = train(&BENCH.data("lacking"), "val");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("matched to those of the training data by the names of classes (3 of 4"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(text.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(json["validation"]["accuracy"].as_f64(), Some(1.0), "{json}");
    let (code, text) = train(&BENCH.data("more"), "refused");
    assert!(code == Some(1) && text.contains("`dog` are none of `bird`, `cat`, `deer`, `ship`"), "{text}");
}

#[test]
fn a_resume_with_other_names_for_the_same_number_of_classes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    for (class, colour) in CLASSES {
        write(&data, class, colour, 0, 3);
    }
    let (name, out) = (format!("folder:{}", data.display()), run.display().to_string());
    residua([
        "train", "--data", &name, "--out", &out, "--arch", "resnet20", "--width", "0.25", "--epochs", "1",
    ])
    .args(["--batch-size", "12", "--normalize", "cifar10", "--device", "cpu", "--quiet"])
    .assert()
    .success();
    fs::rename(data.join("deer"), data.join("dog")).unwrap();
    residua(["train", "--resume", "--out", &out, "--epochs", "2", "--device", "cpu", "--quiet"])
        .assert()
        .code(1)
        .stderr(contains("another class name: deer, now dog"));
}
