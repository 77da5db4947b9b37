//! The same twenty steps from the command line: `train --init` on PyTorch's weights, losses from metrics.jsonl, weights
//! from the last checkpoint.

use std::path::Path;

use crate::parity::golden::{Golden, assert_close, numbers_of_safetensors, path};
use crate::support::program::residua;

const STEPS: usize = 20;

/// Trains as generate/trajectories.py does and returns the loss of every step.
fn train(arch: &str, width: &str, optimizer: &[&str], out: &Path) -> Vec<f64> {
    let mut command = residua(["train"]);
    command.arg("--data").arg(format!("cifar10:{}", path("trajectories/data").display()));
    command.arg("--init").arg(path(&format!("trajectories/{arch}_init.pth"))).arg("--out").arg(out);
    command.args(["--arch", arch, "--stem", "cifar", "--width", width]).args(optimizer);
    command.args(["--augment", "none", "--shuffle", "none", "--normalize", "cifar10"]);
    command.args(["--schedule", "constant", "--batch-size", "8", "--epochs", "7"]);
    command.args(["--max-steps", &STEPS.to_string(), "--log-every", "1", "--threads", "2", "--quiet"]);
    command.assert().success();

    let log = std::fs::read_to_string(out.join("metrics.jsonl")).expect("a log of metrics");
    let lines =
        log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line"));
    let steps: Vec<_> = lines.filter(|line| line["split"] == "train" && line["scope"] == "step").collect();
    let numbered: Vec<u64> = steps.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(numbered, (1..=STEPS as u64).collect::<Vec<_>>(), "one line for every step");
    steps.iter().map(|line| line["loss"].as_f64().expect("a loss")).collect()
}

fn check(arch: &str, width: &str, name: &str, optimizer: &[&str], tensor_tolerance: f64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let losses = train(arch, width, optimizer, folder.path());
    let golden = Golden::load(&format!("trajectories/{arch}_{name}"));
    for (step, (found, expected)) in losses.iter().zip(&golden.get("loss_f32").values).enumerate() {
        assert_close(&format!("{arch} {name}: loss of step {step}"), &[*found], &[*expected], 1e-4);
    }
    // The checkpoint is for any user of Python: torchvision's names, PyTorch's layout, f32.
    let found = numbers_of_safetensors(&folder.path().join("checkpoints/last/model.safetensors"));
    let mut compared = 0;
    // PyTorch fills in missing counters of batches itself.
    let wanted = golden.with_prefix("final.").filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    for (parameter, expected) in wanted {
        let found = found.get(parameter).unwrap_or_else(|| panic!("the checkpoint has no {parameter}"));
        assert_eq!(found.shape, expected.shape, "{parameter}");
        if expected.shape.len() >= 2 {
            assert_close(
                &format!("{arch} {name}: {parameter}"),
                &found.values,
                &expected.values,
                tensor_tolerance,
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} tensors of two or more dimensions");
}

#[test]
fn the_train_command_follows_pytorch_with_sgd() {
    let sgd = |rate| ["--optimizer", "sgd", "--momentum", "0.9", "--weight-decay", "5e-4", "--lr", rate];
    check("resnet18", "0.046875", "sgd", &sgd("1e-3"), 1e-3);
    check("resnet50", "0.03125", "sgd", &sgd("1e-4"), 1e-3);
}

#[test]
fn the_train_command_follows_pytorch_with_adam() {
    let adam = ["--optimizer", "adam", "--weight-decay", "1e-4", "--lr", "1e-4"];
    check("resnet18", "0.046875", "adam", &adam, 2e-3);
    check("resnet50", "0.03125", "adam", &adam, 2e-3);
}
