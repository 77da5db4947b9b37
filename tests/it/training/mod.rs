//! What training promises: the same seed gives the same bytes, a resume continues bit for bit, errors say what to do.

mod fusions;
mod two_levels;

use std::fs;
use std::path::Path;
use std::process::Output;

use residua::rng::{Purpose, Stream};

use crate::support::program;

/// A CIFAR-10 binary file of random images whose colour depends on their class.
fn write_images(path: &Path, count: u64) {
    let stream = Stream::for_purpose(5, Purpose::Synthetic, &[count]);
    let mut bytes = Vec::new();
    for image in 0..count {
        let label = (image % 3) as u8;
        bytes.push(label);
        for channel in 0..3u64 {
            let base = if channel == u64::from(label) { 150 } else { 60 };
            let pixel = |i| base + stream.below(image * 3072 + channel * 1024 + i, 80) as u8;
            bytes.extend((0..1024).map(pixel));
        }
    }
    fs::write(path, bytes).unwrap();
}

/// A small CIFAR-10 of random images.
pub fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for batch in 1..=5 {
        write_images(&folder.path().join(format!("data_batch_{batch}.bin")), 10 + batch);
    }
    write_images(&folder.path().join("test_batch.bin"), 24);
    folder
}

fn train(data: &Path, out: &Path, more: &[&str]) -> Output {
    let data = format!("cifar10:{}", data.display());
    let out = out.display().to_string();
    let mut arguments = vec!["train", "--data", &data, "--val", &data, "--out", &out, "--quiet"];
    arguments.extend([
        "--arch",
        "resnet20",
        "--width",
        "0.25",
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--lr",
        "0.05",
    ]);
    arguments.extend(["--checkpoint-every", "2"]);
    arguments.extend(more);
    program::run(&arguments)
}

fn succeed(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/last").join(file)).unwrap()
}

#[test]
fn four_epochs_straight_equal_two_then_a_resume_byte_for_byte() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let (straight, parted) = (runs.path().join("straight"), runs.path().join("parted"));
    succeed(train(data.path(), &straight, &[]));
    // 65 images in batches of 16 are 5 steps an epoch: 10 steps are two epochs; then 3 more end within the third.
    succeed(train(data.path(), &parted, &["--max-steps", "10"]));
    let out = parted.display().to_string();
    succeed(program::run(&["train", "--resume", "--out", &out, "--quiet", "--max-steps", "13"]));
    succeed(program::run(&["train", "--resume", "--out", &out, "--quiet"]));
    for file in ["model.safetensors", "state.safetensors"] {
        assert!(bytes(&straight, file) == bytes(&parted, file), "{file} differs after the resume");
    }
    let lines = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(lines(&straight), lines(&parted));
    assert!(straight.join("checkpoints/epoch_0002").is_dir());
    assert!(
        !straight.join("checkpoints/epoch_0001").is_dir()
            || fs::read_link(straight.join("checkpoints/best")).unwrap() == Path::new("epoch_0001")
    );
}

#[test]
fn a_resume_on_another_arithmetic_says_so_and_goes_on() {
    let data = images();
    let run = tempfile::tempdir().unwrap();
    let out = run.path().join("run");
    succeed(train(data.path(), &out, &["--max-steps", "3"]));
    let resume = |more: &[&str]| {
        let out = out.display().to_string();
        let output = program::run(&[&["train", "--resume", "--out", &out], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    assert!(!resume(&["--max-steps", "5"]).contains("arithmetic"));
    // As an earlier version, which did not write it down, left it.
    let meta = fs::canonicalize(out.join("checkpoints/last")).unwrap().join("meta.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
    text["extra"].as_object_mut().unwrap().remove("arithmetic").expect("the arithmetic is written down");
    fs::write(&meta, text.to_string()).unwrap();
    let said = resume(&["--max-steps", "7"]);
    assert!(said.contains("note: ") && said.contains("was computed with another arithmetic"), "{said}");
    assert!(!resume(&["--max-steps", "8"]).contains("arithmetic"), "the new checkpoint has it");
}

/// Sums run over input channels and pixels, and vectors over output channels.
#[test]
#[cfg(target_arch = "x86_64")]
fn wider_vectors_change_no_bit() {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return;
    }
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    // Wide enough for Winograd's algorithm.
    let run = |name: &str, more: &[&str]| {
        let (data, out) = (format!("cifar10:{}", data.path().display()), runs.path().join(name));
        let wide =
            ["--arch", "resnet18", "--width", "0.5", "--batch-size", "16", "--max-steps", "2", "--quiet"];
        let files = ["train", "--data", &data, "--out", out.to_str().unwrap()];
        succeed(program::run(&[&files, &wide[..], more].concat()));
        bytes(&out, "model.safetensors")
    };
    assert!(run("widest", &[]) == run("avx2", &["--instructions", "avx2"]));
    let refused = program::run(&["doctor", "--instructions", "avx1024"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("one of avx512, avx2 and baseline"), "{said}");
}

/// Training lines of the log without what depends on the clock.
fn log(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| line.split(",\"images_per_second\"").next().unwrap().to_string()).collect()
}

#[test]
fn a_resume_on_kernels_equals_the_straight_training_byte_for_byte() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let (straight, parted) = (runs.path().join("straight"), runs.path().join("parted"));
    // 65 images in batches of 3 are 21 full steps, more than the device is ahead of the host, and a short one.
    let kernels = ["--device", "emulator", "--precision", "bf16", "--width", "0.125", "--batch-size", "3"];
    let epoch = [&kernels[..], &["--epochs", "1"]].concat();
    let train = |out: &Path, more: &[&str]| {
        let data = format!("cifar10:{}", data.path().display());
        let out = out.display().to_string();
        let start = ["train", "--data", &data, "--out", &out, "--quiet", "--arch", "resnet20"];
        program::run(&[&start[..], &epoch, more].concat())
    };
    let rate = ["--lr", "0.05"];
    succeed(train(&straight, &rate));
    succeed(train(&parted, &[&rate[..], &["--max-steps", "18"]].concat()));
    let out = parted.display().to_string();
    succeed(program::run(&["train", "--resume", "--out", &out, "--quiet", "--device", "emulator"]));
    for file in ["model.safetensors", "state.safetensors"] {
        assert!(bytes(&straight, file) == bytes(&parted, file), "{file} differs after the resume");
    }
    assert_eq!(log(&straight), log(&parted));
    let wild = train(&runs.path().join("wild"), &["--lr", "1e30"]);
    let message = String::from_utf8_lossy(&wild.stderr).into_owned();
    assert!(wild.status.code() == Some(1) && message.contains("diverged"), "{message}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_one_and_with_two_threads() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = runs.path().join(name);
        succeed(train(data.path(), &out, more));
        bytes(&out, "model.safetensors")
    };
    let one = run("one", &["--threads", "1"]);
    assert!(one == run("two", &["--threads", "2"]), "the number of threads changed the weights");
    assert!(one != run("other", &["--seed", "1"]), "the seed changed nothing");
}

#[test]
fn a_folder_that_holds_a_training_is_not_overwritten() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    succeed(train(data.path(), runs.path(), &["--max-steps", "1"]));
    let again = train(data.path(), runs.path(), &["--max-steps", "1"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
}

#[test]
fn a_diverging_loss_stops_with_a_message_and_keeps_the_last_checkpoint() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let out = train(data.path(), runs.path(), &["--lr", "1e30", "--schedule", "constant"]);
    assert_eq!(out.status.code(), Some(1));
    let message = String::from_utf8_lossy(&out.stderr).into_owned();
    for part in ["diverged", "--lr", "(sample ", "of the training data)", "at step "] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn flags_that_a_resume_cannot_change_are_refused_by_name() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    succeed(train(data.path(), runs.path(), &["--max-steps", "1"]));
    let out = runs.path().display().to_string();
    let refused = program::run(&["train", "--resume", "--out", &out, "--lr", "0.2"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--lr cannot change"));
}

/// Writes a table of one kernel for the emulator.
fn write_table(path: &Path, kernel: &str) -> String {
    let text = format!(
        "format = 1\n[device]\nname = \"emulator\"\narchitecture = \"host\"\nmultiprocessors = 4\n[[row]]\npass = \"forward\"\n\
         dtype = \"f32\"\nkernel = \"{kernel}\"\n[row.convolution]\nbatch = 2\nheight = 8\nwidth = 8\nin_channels = 4\n\
         out_channels = 4\nfilter_height = 1\nfilter_width = 1\nstride = 1\npadding = 0\n"
    );
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_resume_under_another_table_of_kernels_is_refused_with_what_to_do() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let first = write_table(&runs.path().join("first.toml"), "sm80-128x64");
    let second = write_table(&runs.path().join("second.toml"), "sm80-64x64");
    let out = runs.path().join("run");
    let small = ["--device", "emulator", "--width", "0.125", "--batch-size", "2", "--epochs", "1"];
    let data = format!("cifar10:{}", data.path().display());
    let folder = out.display().to_string();
    let start = ["train", "--data", &data, "--out", &folder, "--quiet", "--arch", "resnet20"];
    let begin = ["--max-steps", "1", "--kernel-table", &first];
    succeed(program::run(&[&start[..], &small[..], &begin[..]].concat()));
    let resume = |more: &[&str]| {
        let again =
            ["train", "--resume", "--out", &folder, "--quiet", "--device", "emulator", "--max-steps", "1"];
        program::run(&[&again[..], more].concat())
    };
    for other in [&[][..], &["--kernel-table", &second]] {
        let refused = resume(other);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            refused.status.code() == Some(1)
                && message.contains("another table of kernels")
                && message.contains("give that table by --kernel-table"),
            "{message}"
        );
    }
    succeed(resume(&["--kernel-table", &first]));

    let on_cpu = program::run(&["train", "--data", &data, "--device", "cpu", "--kernel-table", &first]);
    let message = String::from_utf8_lossy(&on_cpu.stderr).into_owned();
    assert!(on_cpu.status.code() == Some(2) && message.contains("a GPU's kernels"), "{message}");
}

#[test]
fn a_checkpoint_of_another_architecture_is_refused_with_both_named() {
    let data = images();
    let runs = tempfile::tempdir().unwrap();
    let first = runs.path().join("first");
    succeed(train(data.path(), &first, &["--max-steps", "1"]));
    let init = first.join("checkpoints/last").display().to_string();
    let refused = train(data.path(), &runs.path().join("second"), &["--init", &init, "--width", "0.5"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("conv1.weight") && message.contains("resnet20"), "{message}");
}
