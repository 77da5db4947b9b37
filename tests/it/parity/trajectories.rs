//! Twenty training steps against PyTorch's, in f32 with the tolerances rounding needs and in f64 without mercy.
//!
//! The metadata of the golden files says how far PyTorch's f32 is from itself on the same steps: at most 1e-5 in a
//! loss and 8e-5 in a tensor.

use residua::backend::cpu::{Cpu, Element};
use residua::nn::{Depth, ImageSource, Images, Model, Network, Shortcut, Stem};
use residua::ops::Device;
use residua::tensor::{HostValues, Span};
use residua::train::{BatchTargets, Objective, Optimizer, OptimizerKind, TrainStep};

use super::networks::{architecture, fill};
use crate::parity::golden::{Golden, assert_close, path, relative_error};

const BATCH: usize = 8;
const PIXELS: usize = 32 * 32;
/// The `cifar10` normalisation.
const MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const DEVIATION: [f64; 3] = [0.2470, 0.2435, 0.2616];

/// Images NHWC, normalised, and labels, from CIFAR-10's records: a label, then three planes of bytes.
fn images() -> (Vec<f64>, Vec<i32>) {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for file in 1..=5 {
        let path = path(&format!("trajectories/data/data_batch_{file}.bin"));
        for record in std::fs::read(path).expect("a batch of images").chunks_exact(1 + 3 * PIXELS) {
            labels.push(i32::from(record[0]));
            for pixel in 0..PIXELS {
                for channel in 0..3 {
                    let byte = f64::from(record[1 + channel * PIXELS + pixel]);
                    images.push((byte / 255.0 - MEAN[channel]) / DEVIATION[channel]);
                }
            }
        }
    }
    (images, labels)
}

fn optimizer(kind: OptimizerKind) -> Optimizer {
    let (momentum, weight_decay) = if kind == OptimizerKind::Sgd { (0.9, 5e-4) } else { (0.0, 1e-4) };
    Optimizer { kind, momentum, nesterov: false, weight_decay, separate_heads: false }
}

/// Trains as generate/trajectories.py does; the loss of every step, and the trained model.
fn train<T: Element>(depth: Depth, kind: OptimizerKind, rate: f64, steps: usize) -> (Vec<f64>, Model) {
    let initial = Golden::load(&format!("trajectories/{depth}_init"));
    let (first, classifier) = (initial.get("conv1.weight"), initial.get("fc.weight"));
    let architecture = architecture(depth, Stem::Cifar, Shortcut::B, first, classifier);
    let optimizer = optimizer(kind);
    let device = Cpu::<T>::new(2).expect("two threads");
    let network = Network::new(&architecture, device.dtype(), Some(optimizer.slots()));
    let (images, labels) = images();
    // Twenty images: batches of 8, 8 and 4, and the short one has its own plan.
    let short = labels.len() % BATCH;
    let plans = [BATCH, short].map(|batch| {
        let images = Images { batch, extent: [32, 32, 3], source: ImageSource::Numbers };
        TrainStep::new(&network, &device, &optimizer, &images, &Objective::cross_entropy(0.0))
    });
    let bytes = plans.iter().map(|plan| plan.executable().bytes()).max().expect("two plans");
    let mut model = Model::new(network, Box::new(device), bytes).expect("memory for a narrow network");
    fill(&mut model, |name| initial.find(name));

    let (mut losses, mut start) = (Vec::new(), 0);
    for step in 0..steps {
        let end = (start + BATCH).min(labels.len());
        let plan = &plans[usize::from(end - start < BATCH)];
        let batch = HostValues::F64(&images[start * 3 * PIXELS..end * 3 * PIXELS]);
        let rates = optimizer.rates(rate, step as u64 + 1);
        let targets = BatchTargets::plain(&labels[start..end]);
        let found = plan.run(&mut model, batch, &targets, &rates).expect("the step runs");
        losses.push(found.iter().sum::<f64>() / found.len() as f64);
        start = if end == labels.len() { 0 } else { end };
    }
    (losses, model)
}

/// Compares every loss, then every tensor of two or more dimensions, with PyTorch's.
fn check(depth: Depth, kind: OptimizerKind, rate: f64, tensor_tolerance: f64) {
    let name = if kind == OptimizerKind::Sgd { "sgd" } else { "adam" };
    let golden = Golden::load(&format!("trajectories/{depth}_{name}"));
    let expected = &golden.get("loss_f32").values;
    let (losses, model) = train::<f32>(depth, kind, rate, expected.len());
    for (step, (found, expected)) in losses.iter().zip(expected).enumerate() {
        assert_close(&format!("{depth} {name}: loss of step {step}"), &[*found], &[*expected], 1e-4);
    }
    let mut worst = (0.0, "");
    for entry in model.network().parameters().entries() {
        let expected = golden.get(&format!("final.{}", entry.name)).channels_last();
        if expected.shape.len() < 2 {
            continue;
        }
        let place: Span = entry.parameter.value;
        let error = relative_error(&model.read_f64(place).expect("a parameter's place"), &expected.values);
        assert!(error <= tensor_tolerance, "{depth} {name}: {} is off by {error:.1e}", entry.name);
        if error >= worst.0 {
            worst = (error, &entry.name);
        }
    }
    let losses = relative_error(&losses, expected);
    println!("{depth} {name}: losses {losses:.1e}, worst tensor {:.1e} ({})", worst.0, worst.1);
}

#[test]
fn resnet18_trains_as_pytorch_with_sgd() {
    check(Depth::ResNet18, OptimizerKind::Sgd, 1e-3, 1e-3);
}

#[test]
fn resnet18_trains_as_pytorch_with_adam() {
    check(Depth::ResNet18, OptimizerKind::Adam, 1e-4, 2e-3);
}

#[test]
fn resnet50_trains_as_pytorch_with_sgd() {
    check(Depth::ResNet50, OptimizerKind::Sgd, 1e-4, 1e-3);
}

#[test]
fn resnet50_trains_as_pytorch_with_adam() {
    check(Depth::ResNet50, OptimizerKind::Adam, 1e-4, 2e-3);
}

#[test]
fn in_double_precision_training_steps_are_pytorchs() {
    for (depth, sgd_rate) in [(Depth::ResNet18, 1e-3), (Depth::ResNet50, 1e-4)] {
        for (name, kind, rate) in [("sgd", OptimizerKind::Sgd, sgd_rate), ("adam", OptimizerKind::Adam, 1e-4)]
        {
            let golden = Golden::load(&format!("trajectories/{depth}_{name}"));
            let expected = &golden.get("loss_f64").values;
            let (losses, _) = train::<f64>(depth, kind, rate, expected.len());
            assert_close(&format!("{depth} {name}: losses in f64"), &losses, expected, 1e-9);
        }
    }
}
