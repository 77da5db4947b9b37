//! Whole trainings on two levels of classes in f64, from images to the tensors of the last checkpoint: two heads of every kind,
//! the divergence between them, a teacher, outliers, class weights, rates and decay by group, a frozen backbone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use residua::backend::cpu::Cpu;
use residua::checkpoint::{self, Checkpoint, HeadClasses, HostTensor, StateDict, Trained};
use residua::data::{InMemory, Level, SharedDataset, Taxonomy, Transform};
use residua::nn::{Architecture, Depth, HeadKind};
use residua::train::{
    ClassWeights, FineTune, Initial, KlDetach, KlDirection, Metrics, Observer, OptimizerKind, OutlierLoss,
    RunFolder, ScheduleKind, Shuffle, TrainOptions, TrainingInputs, read_metrics, train,
};

use crate::parity::golden::{Array, Golden, assert_close};

/// What rounding in f64 may do over six steps.
const TOLERANCE: f64 = 1e-8;
const SIDE: u32 = 16;

/// Nobody watches.
struct Quiet;

impl Observer for Quiet {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: usize, _: f64) {}
    fn logged(&mut self, _: &Metrics) {}
}

fn taxonomy() -> Taxonomy {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Taxonomy {
        superclasses: names(&["bird", "dog", "reptile", "novel"]),
        subclasses: names(&["wren", "gull", "heron", "collie", "poodle", "gecko", "novel"]),
        parents: [0, 0, 0, 1, 1, 2, 3].map(Some).to_vec(),
    }
}

fn data() -> SharedDataset {
    let golden = Golden::load("levels/data");
    let pixels = golden.get("images").channels_last().values.iter().map(|&value| value as u8).collect();
    let labels = golden.get("subclasses").values.iter().map(|&label| label as i64).collect();
    let images = InMemory::new(SIDE, SIDE, pixels, labels, taxonomy().subclasses).expect("images");
    Arc::new(images.with_taxonomy(taxonomy()).expect("two levels"))
}

fn transform() -> Transform {
    Transform::new(SIDE, "cifar10".parse().expect("a preset"))
}

fn state(golden: &Golden, prefix: &str) -> StateDict {
    let tensor = |array: &Array| {
        HostTensor::f32(array.shape.clone(), array.values.iter().map(|&value| value as f32).collect())
    };
    golden.with_prefix(prefix).map(|(name, array)| (name.to_string(), tensor(array))).collect()
}

/// The superclass model of a golden file.
fn teacher(golden: &Golden) -> Trained {
    let indices = vec![0, 1, 2];
    let classes = taxonomy().superclasses[..3].to_vec();
    let level = Some(Level::Coarse);
    let head = HeadClasses { name: "fc".into(), level, classes: classes.clone(), indices, novel: None };
    Trained {
        path: PathBuf::from("teacher"),
        architecture: Architecture::new(Depth::ResNet20, None, None, 0.125, 3).expect("a narrow network"),
        state: state(golden, "teacher."),
        transform: Some(transform()),
        classes,
        heads: vec![head],
        taxonomy: None,
        epoch: None,
        hash: "of the teacher".into(),
        note: None,
    }
}

fn options() -> TrainOptions {
    TrainOptions {
        arch: Depth::ResNet20,
        width: 0.125,
        epochs: 2,
        batch_size: 5,
        lr: 1e-3,
        shuffle: Shuffle::None,
        schedule: ScheduleKind::Constant,
        log_every: 1,
        ..TrainOptions::default()
    }
}

/// What a training left: a line for every step, and the checkpoint.
struct Trainee {
    golden: Golden,
    steps: Vec<Metrics>,
    saved: Checkpoint,
}

fn run(name: &str, levels: Level, options: &TrainOptions) -> Trainee {
    let golden = Golden::load(&format!("levels/{name}"));
    let initial =
        Some(Initial { state: state(&golden, "initial."), path: PathBuf::from("initial"), note: None });
    let teacher = golden.find("teacher.conv1.weight").map(|_| teacher(&golden));
    let inputs = TrainingInputs::levels(options, data(), None, levels, transform(), initial, teacher, 0);
    let inputs = inputs.unwrap_or_else(|error| panic!("{name}: {error}"));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = RunFolder::lock(folder.path()).expect("a run folder");
    let stop = AtomicBool::new(false);
    let job = inputs.job(options, 0, &folder, false, &stop);
    train(Box::new(Cpu::<f64>::new(2).expect("threads")), &job, &mut Quiet)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let lines = read_metrics(&folder.metrics()).expect("a log");
    let steps = lines.into_iter().filter(|line| line.scope == residua::train::Scope::Step).collect();
    let saved = checkpoint::load(&folder.checkpoints().join("last")).expect("a checkpoint");
    Trainee { golden, steps, saved }
}

impl Trainee {
    /// The tensors in full precision.
    fn tensors(&self) -> BTreeMap<&str, Vec<f64>> {
        let all = self.saved.state.iter();
        all.filter_map(|(name, tensor)| Some((name.strip_prefix("parameter.")?, tensor.to_f64()))).collect()
    }

    /// Every loss, and every tensor at the end.
    fn compare(&self, name: &str) {
        let losses: Vec<f64> = self.steps.iter().map(|line| line.loss).collect();
        assert_close(&format!("{name}: losses"), &losses, &self.golden.get("losses").values, TOLERANCE);
        let tensors = self.tensors();
        let mut compared = 0;
        for (tensor, expected) in self.golden.with_prefix("final.") {
            let found = tensors.get(tensor).unwrap_or_else(|| panic!("{name}: no tensor `{tensor}`"));
            assert_close(&format!("{name}: {tensor}"), found, &expected.values, TOLERANCE);
            compared += 1;
        }
        assert_eq!(compared, tensors.len(), "{name}: tensors");
    }

    fn moved(&self, tensor: &str) -> f64 {
        let (before, after) = (self.golden.get(&format!("initial.{tensor}")), &self.tensors()[tensor]);
        after.iter().zip(&before.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}

// Notebook A, traps A1 and A2: the divergence was computed without gradients, in a direction other than the comment's. Here
// both heads learn from it, in the direction that is asked for. Trap A12: classes weigh inversely to their samples. Trap A17:
// the scale of a cosine head is positive and not decayed.
#[test]
fn two_heads_coupled_by_a_divergence_train_as_pytorch() {
    let options = TrainOptions {
        head: HeadKind::Cosine,
        superclass_head: Some(HeadKind::Linear),
        optimizer: OptimizerKind::Adam,
        weight_decay: 1e-1,
        head_lr: Some(1e-2),
        class_weights: ClassWeights::Balanced,
        kl_weight: 0.3,
        kl_direction: KlDirection::SumToSuperclass,
        kl_temperature: 1.5,
        ..options()
    };
    let trainee = run("coupled", Level::Both, &options);
    trainee.compare("coupled");
    // A held-out class has no logit: of seven subclasses six are left.
    assert_eq!(trainee.saved.meta.heads[1].indices, [0, 2, 3, 4, 5, 6]);
    let names: Vec<&str> = trainee.steps[0].further.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["kl_loss", "subclass_accuracy", "subclass_loss", "superclass_accuracy", "superclass_loss"]
    );
}

#[test]
fn outliers_with_a_uniform_target_train_as_pytorch() {
    let options = TrainOptions {
        superclass_head: Some(HeadKind::CosineReluLinear),
        outlier_loss: OutlierLoss::Uniform,
        kl_weight: 0.5,
        kl_detach: KlDetach::Subclass,
        ..options()
    };
    let trainee = run("uniform", Level::Both, &options);
    trainee.compare("uniform");
    assert_eq!(trainee.saved.meta.heads[0].classes, ["bird", "dog", "reptile"]);
}

#[test]
fn outliers_beyond_an_energy_margin_train_as_pytorch() {
    let options =
        TrainOptions { outlier_loss: OutlierLoss::Energy, energy_margins: vec![-3.0, -1.5], ..options() };
    run("energy", Level::Fine, &options).compare("energy");
}

// Notebook A, trap A3: the teacher was never given, and would have been in training mode.
#[test]
fn a_subclass_model_follows_a_teacher_in_eval_mode_as_in_pytorch() {
    let options = TrainOptions {
        head: HeadKind::CosineReluLinear,
        kl_temperature: 2.0,
        teacher_weight: 0.7,
        ..options()
    };
    let trainee = run("taught", Level::Fine, &options);
    trainee.compare("taught");
    let of_teacher = |name: &&String| name.contains("teacher");
    let saved = &trainee.saved;
    assert_eq!(
        saved.model.keys().chain(saved.state.keys()).find(of_teacher),
        None,
        "the teacher is not kept"
    );
}

// Notebook A, trap A15: the running statistics of a "frozen" backbone went on moving.
#[test]
fn with_a_frozen_backbone_only_heads_learn_and_running_statistics_stay() {
    let options = TrainOptions {
        head: HeadKind::CosineReluLinear,
        superclass_head: Some(HeadKind::Cosine),
        fine_tune: FineTune::Frozen,
        optimizer: OptimizerKind::Sgd,
        momentum: 0.0,
        weight_decay: 0.0,
        head_lr: Some(1.0),
        max_steps: Some(1),
        ..options()
    };
    let trainee = run("frozen", Level::Both, &options);
    trainee.compare("frozen");
    let tensors = trainee.tensors();
    for (name, after) in &tensors {
        let before = &trainee.golden.get(&format!("initial.{name}")).values;
        if !name.contains("head") {
            assert_eq!(after, before, "{name} moved");
            continue;
        }
        // At rate 1 what moved is the gradient.
        let expected = &trainee.golden.get(&format!("final.{name}")).values;
        let gradient = |after: &[f64]| after.iter().zip(before).map(|(a, b)| b - a).collect::<Vec<f64>>();
        assert_close(&format!("gradient of {name}"), &gradient(after), &gradient(expected), 1e-5);
        assert!(trainee.moved(name) > 0.0, "{name} did not move");
    }
    let velocities: Vec<&String> =
        trainee.saved.state.keys().filter(|name| name.starts_with("velocity.")).collect();
    assert!(velocities.iter().all(|name| name.contains("head")), "{velocities:?}");
}
