//! Whole networks trained for some steps by the kernels on the emulator, through the unchanged engine: resident images,
//! one arena, a captured graph from the second step on. What they find follows the CPU in f64.
//!
//! γ is small in the last normalisation of every block, which makes the problem well conditioned: a narrow network with
//! a batch of a few images would otherwise amplify rounding from step to step.

use std::collections::BTreeMap;

use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::backend::cuda::driver::native::Native;
use residua::data::Placement;
use residua::nn::{
    Architecture, Depth, Entry, HeadKind, HeadSpec, ImageSource, Images, Kind, Model, Network, SUBCLASS_HEAD,
    SUPERCLASS_HEAD, Stem,
};
use residua::ops::{Device, Direction};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues};
use residua::train::{
    BatchTargets, Consistency, Coupling, Exposure, Objective, Optimizer, OptimizerKind, StepInputs, TrainStep,
};

use crate::ops::kernels;

const BATCH: usize = 16;
const IMAGES: usize = 2 * BATCH;
const CLASSES: usize = 10;
/// The rate changes from step to step, as a schedule's does: a graph in which it were frozen would be found out.
const RATES: [f64; 4] = [1e-3, 1.5e-3, 5e-4, 1e-3];

/// The traces of a training: the loss of every step, and how far every tensor of two or more dimensions moved.
struct Trained {
    losses: Vec<f64>,
    updates: BTreeMap<String, Vec<f64>>,
}

/// The network that is trained.
struct Problem {
    architecture: Architecture,
    side: usize,
    kind: OptimizerKind,
    objective: Objective,
    teacher: Option<Architecture>,
}

impl Problem {
    /// The mean cross-entropy of one head.
    fn plain(architecture: Architecture, side: usize, kind: OptimizerKind) -> Problem {
        Problem { architecture, side, kind, objective: Objective::cross_entropy(0.1), teacher: None }
    }

    /// The classes of a batch: of two heads the first has those that the second's are coupled to. Where outliers are no class,
    /// every fifth image is one.
    fn targets(&self, images: impl Iterator<Item = usize> + Clone) -> BatchTargets {
        let heads = &self.architecture.heads;
        let classes = heads.last().expect("a head").classes;
        let outlier = |image: usize| self.objective.exposure.is_some() && image.is_multiple_of(5);
        let label = |image: usize| if outlier(image) { -1 } else { (image % classes) as i32 };
        let mut labels = vec![images.clone().map(label).collect::<Vec<i32>>()];
        if let Some(coupling) = &self.objective.coupling {
            let superclass = |&label: &i32| usize::try_from(label).map_or(-1, |label| coupling.groups[label]);
            labels.insert(0, labels[0].iter().map(superclass).collect());
        }
        let outliers = self.objective.exposure.map_or(Vec::new(), |_| images.map(outlier).collect());
        self.objective.batch(labels, outliers)
    }
}

fn train(device: Box<dyn Device>, problem: &Problem) -> Trained {
    let Problem { architecture, side, kind, objective, teacher } = problem;
    let (side, kind) = (*side, *kind);
    // The heads have a rate of their own where there are two.
    let separate_heads = architecture.heads.len() > 1;
    let optimizer = Optimizer { kind, momentum: 0.9, nesterov: true, weight_decay: 5e-4, separate_heads };
    let mut network = Network::new(architecture, device.dtype(), Some(optimizer.slots()));
    if let Some(teacher) = teacher {
        network.add_teacher(teacher, device.dtype());
    }
    let pixels = network.reserve(IMAGES * side * side * 3, DType::U8);
    let images = Images {
        batch: BATCH,
        extent: [side, side, 3],
        source: ImageSource::Resident { pixels, images: IMAGES },
    };
    let step = TrainStep::new(&network, &*device, &optimizer, &images, objective);
    let mut model = Model::new(network, device, step.executable().bytes()).expect("memory");
    model.initialise(6).expect("initial values");

    let stream = Stream::for_purpose(3, Purpose::Synthetic, &[1]);
    let bytes: Vec<u8> = (0..pixels.elements as u64).map(|i| stream.below(i, 256) as u8).collect();
    model.write(pixels, HostValues::U8(&bytes)).expect("pixels");
    let table: Vec<f32> = (0..3 * 256).map(|i| ((i % 256) as f32 / 255.0 - 0.45) / 0.25).collect();
    let place = model.network().parameters().image_table();
    model.write(place, HostValues::F32(&table)).expect("table");
    let entries = model.network().parameters().entries().to_vec();
    let last = if architecture.arch.bottleneck() { "bn3.weight" } else { "bn2.weight" };
    for entry in entries.iter().filter(|entry| entry.name.ends_with(last)) {
        model
            .write(entry.parameter.value, HostValues::F64(&vec![0.2; entry.parameter.value.elements]))
            .unwrap();
    }
    if let Some(teacher) = model.network().teacher().cloned() {
        for (index, entry) in teacher.parameters().entries().iter().enumerate() {
            let stream = Stream::for_purpose(4, Purpose::Synthetic, &[index as u64]);
            let values: Vec<f64> =
                (0..entry.parameter.value.elements as u64)
                    .map(|i| {
                        if entry.kind.trainable() { stream.uniform(i) - 0.4 } else { 0.5 + stream.uniform(i) }
                    })
                    .collect();
            model.write(entry.parameter.value, HostValues::F64(&values)).expect("a place for the teacher");
        }
    }
    step.set_up(&mut model).expect("what is written once");
    let weights = |model: &Model| -> BTreeMap<String, Vec<f64>> {
        let matrix =
            |entry: &&Entry| matches!(entry.kind, Kind::ConvWeight | Kind::LinearWeight | Kind::CosineWeight);
        let matrices = entries.iter().filter(matrix);
        matrices.map(|entry| (entry.name.clone(), model.parameter(entry).expect("a weight"))).collect()
    };

    let before = weights(&model);
    let mut losses = Vec::new();
    for (number, rate) in RATES.into_iter().enumerate() {
        let chosen = |i: usize| (5 * number + 7 * i) % IMAGES;
        let placement: Vec<i32> = (0..BATCH).flat_map(|i| Placement::WHOLE.numbers(chosen(i))).collect();
        let slot = number % step.slots();
        let rates = optimizer.two_rates(rate, 2.0 * rate, number as u64 + 1);
        let targets = problem.targets((0..BATCH).map(chosen));
        let inputs =
            StepInputs { pixels: &[], placement: &placement, targets: &targets, rates: &rates, slot };
        step.load(&mut model, &inputs).expect("a batch");
        step.queue(&mut model).unwrap_or_else(|error| panic!("step {number}: {error}"));
        let totals = step.begin_totals(&model).expect("totals").wait().expect("totals");
        let columns = 2 * step.columns();
        let totals = &totals[columns * slot..][..columns];
        losses.push(totals.iter().step_by(2).sum::<f64>() / BATCH as f64);
    }
    let mut updates = weights(&model);
    for (name, values) in &mut updates {
        values.iter_mut().zip(&before[name]).for_each(|(after, before)| *after -= before);
    }
    Trained { losses, updates }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Holds a training by kernels to one in f64: relative errors of losses and of updates, and the updates' least cosine.
fn follows(name: &str, found: &Trained, oracle: &Trained, losses: f64, updates: f64, cosine: f64) {
    let mut worst = (0.0_f64, 0.0_f64, 1.0_f64);
    for (step, (found, expected)) in found.losses.iter().zip(&oracle.losses).enumerate() {
        let error = ((found - expected) / expected).abs();
        assert!(
            error <= losses,
            "{name}: the loss of step {step} is {found}, not {expected}: off by {error:.1e}"
        );
        worst.0 = worst.0.max(error);
    }
    for (tensor, expected) in &oracle.updates {
        let found = &found.updates[tensor];
        let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
        let (norm, other) = (dot(expected, expected).sqrt(), dot(found, found).sqrt());
        let error = dot(&difference, &difference).sqrt() / norm;
        let alike = dot(found, expected) / (norm * other);
        assert!(error <= updates, "{name}: the update of {tensor} is off by {error:.1e}");
        assert!(alike >= cosine, "{name}: the update of {tensor} has cosine {alike:.4} to the oracle's");
        worst.1 = worst.1.max(error);
        worst.2 = worst.2.min(alike);
    }
    println!("{name}: losses {:.1e}, updates {:.1e}, cosine {:.5}", worst.0, worst.1, worst.2);
}

/// How closely updates in bf16 point where those in f64 do. Rounding of activations and gradients adds up towards the
/// first layers, and where Adam divides by their size: there PyTorch's autocast, which rounds the same tensors, reaches
/// cosines of 0.94 to 0.95 in ResNet-50's first layer and 0.86 to 0.93 in its worst.
const SHALLOW: f64 = 0.98;
const DEEP: f64 = 0.9;

fn check(depth: Depth, stem: Stem, width: f64, side: usize, kind: OptimizerKind, bf16_cosine: f64) {
    let architecture = Architecture::new(depth, Some(stem), None, width, CLASSES).expect("a narrow network");
    check_problem(&Problem::plain(architecture, side, kind), bf16_cosine);
}

fn check_problem(problem: &Problem, bf16_cosine: f64) {
    let oracle = train(Box::new(Cpu::<f64>::new(1).expect("a thread")), problem);
    let single = train(Box::new(Cpu::<f32>::new(1).expect("a thread")), problem);
    follows("cpu f32", &single, &oracle, 1e-4, 5e-2, 0.99);
    let Problem { architecture, kind, .. } = problem;
    let name = |device: &str, dtype: DType| format!("{architecture} by {kind:?}, {device} {dtype:?}");
    for (dtype, losses, updates, cosine) in
        [(DType::F32, 1e-4, 5e-2, 0.99), (DType::Bf16, 5e-3, f64::MAX, bf16_cosine)]
    {
        let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
        let found = train(kernels(emulator, dtype), problem);
        follows(&name("emulator", dtype), &found, &oracle, losses, updates, cosine);
        if let Some(gpu) = Native::if_present(0) {
            let found = train(kernels(gpu, dtype), problem);
            follows(&name("gpu", dtype), &found, &oracle, losses, updates, cosine);
        }
    }
}

/// Both heads, the divergence between them, a teacher, and outliers that are no class.
#[test]
fn two_heads_with_every_loss_train_on_the_kernels_as_on_the_cpu() {
    const GROUPS: [i32; 5] = [0, 0, 1, 2, 2];
    let narrow = |width, classes| {
        Architecture::new(Depth::ResNet20, None, None, width, classes).expect("a narrow network")
    };
    let heads = vec![
        HeadSpec::new(SUPERCLASS_HEAD, HeadKind::CosineReluLinear, 3),
        HeadSpec::new(SUBCLASS_HEAD, HeadKind::Cosine, 5),
    ];
    let exposures =
        [Exposure::Uniform { weight: 0.5 }, Exposure::Energy { weight: 0.01, inside: -20.0, outside: -10.0 }];
    for exposure in exposures {
        let objective = Objective {
            class_weights: Some(vec![vec![0.5, 1.0, 2.0], vec![1.0, 2.0, 1.0, 0.5, 1.0]]),
            exposure: Some(exposure),
            coupling: Some(Coupling {
                weight: 0.3,
                groups: GROUPS.to_vec(),
                direction: Direction::Both,
                detached: None,
                temperature: 2.0,
            }),
            consistency: Some(Consistency {
                weight: 0.3,
                head: 0,
                count: 2,
                // The teacher does not know superclass 2.
                groups: vec![0, 0, 1, -1, -1],
                teacher_groups: vec![1, 0],
                temperature: 2.0,
            }),
            ..Objective::cross_entropy(0.1)
        };
        let problem = Problem {
            architecture: narrow(0.5, 5).with_heads(heads.clone()).expect("two heads"),
            side: 16,
            kind: OptimizerKind::Sgd,
            objective,
            teacher: Some(narrow(0.25, 2)),
        };
        check_problem(&problem, DEEP);
    }
}

#[test]
fn a_narrow_resnet18_with_the_cifar_stem_trains_on_the_kernels_as_on_the_cpu() {
    check(Depth::ResNet18, Stem::Cifar, 0.125, 16, OptimizerKind::Sgd, SHALLOW);
}

#[test]
fn a_narrow_resnet18_with_the_imagenet_stem_trains_on_the_kernels_as_on_the_cpu() {
    check(Depth::ResNet18, Stem::Imagenet, 0.15, 40, OptimizerKind::Sgd, SHALLOW);
}

#[test]
fn a_narrow_resnet50_with_the_cifar_stem_trains_on_the_kernels_as_on_the_cpu() {
    check(Depth::ResNet50, Stem::Cifar, 0.125, 16, OptimizerKind::Sgd, DEEP);
}

#[test]
fn a_narrow_resnet50_with_the_imagenet_stem_trains_on_the_kernels_as_on_the_cpu() {
    check(Depth::ResNet50, Stem::Imagenet, 0.125, 64, OptimizerKind::Sgd, DEEP);
}

#[test]
fn a_narrow_resnet20_with_zero_padded_shortcuts_trains_by_adamw_on_the_kernels_as_on_the_cpu() {
    check(Depth::ResNet20, Stem::Cifar, 0.5, 16, OptimizerKind::AdamW, DEEP);
}
