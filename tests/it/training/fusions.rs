//! Calls made into one: how often in which network, and that a training step computes the same with and without.

use residua::autograd::{BatchNormOptions, Parameter, Statistics, Tape, Var};
use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::nn::{Architecture, Depth, ImageSource, Images, Model, Network, Shortcut, Stem};
use residua::ops::{Call, Device, FpropEpilogue, ReluBackward};
use residua::plan::{Fusions, Plan, fuse};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues};
use residua::train::{BatchTargets, Objective, Optimizer, OptimizerKind, TrainStep};

use crate::ops::gradients::{check_fused, fused_gradients, norm_parameters, shape};
use crate::ops::kernels;

const OPTIMIZER: Optimizer = Optimizer {
    kind: OptimizerKind::Sgd,
    momentum: 0.9,
    nesterov: false,
    weight_decay: 5e-4,
    separate_heads: false,
};
const CLASSES: usize = 5;
const BATCH: usize = 4;

const PROLOGUE: Fusions = Fusions { prologue: true, ..Fusions::NONE };
const STATISTICS: Fusions = Fusions { statistics: true, ..Fusions::NONE };
const RESIDUAL_GRADIENT: Fusions = Fusions { residual_gradient: true, ..Fusions::NONE };
const MASKS: Fusions = Fusions { masks: true, ..Fusions::NONE };

/// A network for images of `side` x `side` pixels, and its step.
fn step(
    device: &dyn Device,
    architecture: &Architecture,
    side: usize,
    fusions: Fusions,
) -> (Network, TrainStep) {
    let mut network = Network::new(architecture, device.dtype(), Some(OPTIMIZER.slots()));
    network.set_fusions(fusions);
    let images = Images { batch: BATCH, extent: [side, side, 3], source: ImageSource::Numbers };
    let step = TrainStep::new(&network, device, &OPTIMIZER, &images, &Objective::cross_entropy(0.1));
    (network, step)
}

fn narrow(depth: Depth, stem: Stem, shortcut: Option<Shortcut>) -> Architecture {
    Architecture::new(depth, Some(stem), shortcut, 0.125, CLASSES).unwrap()
}

/// What a call is, with what is fused into it.
fn kind<B: Copy>(call: &Call<B>) -> &'static str {
    match call {
        Call::Conv2dFprop(fprop) => match (fprop.prologue.is_some(), &fprop.epilogue) {
            (false, None) => "fprop",
            (true, None) => "affine fprop",
            (false, Some(FpropEpilogue::Statistics(_))) => "fprop statistics",
            (true, Some(FpropEpilogue::Statistics(_))) => "affine fprop statistics",
            (_, Some(FpropEpilogue::Bias(_))) => "fprop bias",
        },
        Call::Conv2dDgrad(dgrad) => match dgrad.epilogue.as_ref().map(|reduce| &reduce.relu) {
            None => "dgrad",
            Some(ReluBackward::None | ReluBackward::OfAffine) => "dgrad reduce",
            Some(ReluBackward::OfOutput(_)) => "dgrad mask reduce",
        },
        Call::Conv2dWgrad(wgrad) if wgrad.prologue.is_some() => "affine wgrad",
        Call::Conv2dWgrad(_) => "wgrad",
        other => other.name(),
    }
}

/// How often each kind of call that matters here stands in a step.
fn counts(depth: Depth, stem: Stem, shortcut: Option<Shortcut>, fusions: Fusions) -> [usize; 8] {
    let device = Cpu::<f32>::new(1).unwrap();
    let (_, step) = step(&device, &narrow(depth, stem, shortcut), 32, fusions);
    let calls = &step.executable().plan().calls;
    let count = |name: &str| calls.iter().filter(|call| kind(call) == name).count();
    let adding = |call: &&Call<_>| matches!(call, Call::Conv2dDgrad(dgrad) if dgrad.accumulate);
    [
        count("fprop statistics"),
        count("batch_norm_statistics"),
        calls.iter().filter(adding).count(),
        count("accumulate"),
        count("dgrad reduce"),
        count("dgrad mask reduce"),
        count("batch_norm_reduce"),
        count("relu_gradient"),
    ]
}

/// By hand. Every convolution has statistics behind it. Every block adds one gradient to another: that of its shortcut. Every
/// normalisation but the last gets its gradient from a convolution, and those of projections from one that was masked
/// already. Of these the ones that end a block mask by its output, the stem's and those inside blocks by their own input.
#[test]
fn rules_fire_as_often_as_the_architecture_says() {
    let cifar18 = |fusions| counts(Depth::ResNet18, Stem::Cifar, None, fusions);
    // 1 + 2 * 8 + 3 convolutions; 8 blocks, of which the last has no convolution behind it.
    assert_eq!(cifar18(Fusions::NONE), [0, 20, 0, 8, 0, 0, 20, 8]);
    assert_eq!(cifar18(STATISTICS), [20, 0, 0, 8, 0, 0, 20, 8]);
    assert_eq!(cifar18(RESIDUAL_GRADIENT), [0, 20, 8, 0, 0, 0, 20, 8]);
    // Without the sums only what lies inside blocks.
    assert_eq!(cifar18(MASKS), [0, 20, 0, 8, 8, 0, 12, 8]);
    assert_eq!(cifar18(Fusions::ALL), [20, 0, 8, 0, 9, 7, 4, 1]);
    // 1 + 3 * 16 + 4 convolutions; 16 blocks.
    let cifar50 = counts(Depth::ResNet50, Stem::Cifar, None, Fusions::ALL);
    assert_eq!(cifar50, [53, 0, 16, 0, 33, 15, 5, 1]);
    // Below the first block lies a max pooling.
    let imagenet50 = counts(Depth::ResNet50, Stem::Imagenet, None, Fusions::ALL);
    assert_eq!(imagenet50, [53, 0, 16, 0, 32, 15, 6, 1]);
    // 1 + 2 * 9 convolutions; 9 blocks, whose shortcuts have no parameters.
    let cifar20 = counts(Depth::ResNet20, Stem::Cifar, Some(Shortcut::A), Fusions::ALL);
    assert_eq!(cifar20, [19, 0, 9, 0, 10, 8, 1, 1]);
}

fn emulated(dtype: DType) -> Box<dyn Device> {
    kernels(Emulator::new(Options::default()).expect("a C++ compiler"), dtype)
}

/// Convolutions that apply a map, wgrads that do, such convolutions with statistics, and maps that are passes.
fn maps(plan: &Plan) -> [usize; 4] {
    ["affine fprop", "affine wgrad", "affine fprop statistics", "scale_bias"]
        .map(|name| plan.calls.iter().filter(|call| kind(call) == name).count())
}

/// By hand: of a bottleneck's three convolutions the last is 1x1 and alone reads what the normalisation before it gives. The first
/// reads a sum, or what its projection reads as well; the second is 3x3.
#[test]
fn maps_join_the_last_convolutions_of_bottlenecks_where_the_backend_applies_them() {
    let recorded = |depth| {
        let device = Cpu::<f32>::new(1).unwrap();
        let (_, step) = step(&device, &narrow(depth, Stem::Cifar, None), 32, Fusions::NONE);
        step.executable().plan().clone()
    };
    // The stem, the first of each block, projections.
    let kept = 1 + 16 + 4;
    let [fifty, eighteen] = [Depth::ResNet50, Depth::ResNet18].map(recorded);
    let fused = |fusions, applies: bool| maps(&fuse(fifty.clone(), &fusions, |_| applies));
    assert_eq!(maps(&fifty), [0, 0, 0, kept + 16]);
    assert_eq!(fused(PROLOGUE, true), [16, 16, 0, kept]);
    assert_eq!(fused(Fusions::ALL, true), [0, 16, 16, kept]);
    assert_eq!(fused(Fusions::ALL, false), [0, 0, 0, kept + 16]);
    assert_eq!(maps(&fuse(eighteen, &Fusions::ALL, |_| true))[..3], [0; 3]);
}

#[test]
fn maps_applied_where_they_are_read_leave_every_bit_of_a_training_as_it_was() {
    let (architecture, side) = (narrow(Depth::ResNet50, Stem::Cifar, None), 32);
    let run =
        |prologue| trained(emulated(DType::Bf16), &architecture, side, Fusions { prologue, ..Fusions::ALL });
    // Where the narrow network has channels enough.
    let (_, step) = step(&*emulated(DType::Bf16), &architecture, side, Fusions::ALL);
    let [_, gradients, convolutions, _] = maps(step.executable().plan());
    assert!(gradients > 0 && convolutions == gradients);
    assert!(run(true) == run(false));
}

/// All learned values, gradients and running statistics after two steps, and the losses of both.
fn trained(device: Box<dyn Device>, architecture: &Architecture, side: usize, fusions: Fusions) -> Vec<f64> {
    let (network, step) = step(&*device, architecture, side, fusions);
    let mut model = Model::new(network, device, step.executable().bytes()).unwrap();
    model.initialise(3).unwrap();
    step.set_up(&mut model).unwrap();
    // Blocks that add little make the problem well conditioned: rounding is not amplified from layer to layer.
    for entry in model.network().parameters().entries().to_vec() {
        if entry.name.ends_with(if architecture.arch.bottleneck() { "bn3.weight" } else { "bn2.weight" }) {
            let small = vec![0.2; entry.parameter.value.elements];
            model.write(entry.parameter.value, HostValues::F64(&small)).unwrap();
        }
    }
    let stream = Stream::for_purpose(5, Purpose::Synthetic, &[]);
    let images: Vec<f32> = (0..(BATCH * side * side * 3) as u64).map(|i| stream.normal(i) as f32).collect();
    let labels: Vec<i32> = (0..BATCH as i32).collect();
    let mut found = Vec::new();
    for number in 1..=2 {
        let rates = OPTIMIZER.rates(1e-3, number);
        let targets = BatchTargets::plain(&labels);
        found.extend(step.run(&mut model, HostValues::F32(&images), &targets, &rates).unwrap());
    }
    for entry in model.network().parameters().entries().to_vec() {
        found.extend(model.parameter(&entry).unwrap());
        if let Some(gradient) = entry.parameter.gradient {
            found.extend(model.read_f64(gradient).unwrap());
        }
    }
    found
}

/// ‖a − b‖ / ‖b‖.
fn relative(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

fn nets() -> [(Architecture, usize); 3] {
    [
        (narrow(Depth::ResNet18, Stem::Cifar, None), 16),
        (narrow(Depth::ResNet50, Stem::Imagenet, None), 32),
        (narrow(Depth::ResNet20, Stem::Cifar, Some(Shortcut::A)), 8),
    ]
}

#[test]
fn a_training_in_f64_does_not_depend_on_fusions() {
    for (architecture, side) in nets() {
        let run = |fusions| trained(Box::new(Cpu::<f64>::new(2).unwrap()), &architecture, side, fusions);
        let plain = run(Fusions::NONE);
        // The same sums in the same order.
        assert!(run(STATISTICS) == plain && run(MASKS) == plain, "{architecture}");
        for fusions in [RESIDUAL_GRADIENT, Fusions::ALL] {
            let error = relative(&run(fusions), &plain);
            assert!(error < 1e-12, "{architecture}, {fusions}: off by {error:.1e}");
        }
    }
}

#[test]
fn a_training_on_the_kernels_does_not_depend_on_fusions() {
    for (dtype, limit) in [(DType::F32, 1e-5), (DType::Bf16, 3e-2)] {
        for (architecture, side) in [&nets()[0], &nets()[2]] {
            let run = |fusions| trained(emulated(dtype), architecture, *side, fusions);
            let plain = run(Fusions::NONE);
            let error = relative(&run(Fusions::ALL), &plain);
            println!("{architecture} in {dtype:?}: {error:.1e}");
            assert!(error < limit, "{architecture} in {dtype:?}: off by {error:.1e}");
        }
    }
}

/// Two convolutions, the second with its input as a shortcut, twice: each rule finds its place. A rectifier comes first, so
/// that the gradient a block hands on is not one that is asked for.
fn two_blocks(tape: &mut Tape, x: &[Var], p: &[Parameter]) -> Var {
    let mut value = tape.relu(x[0]);
    for p in p.chunks_exact(10) {
        let options = |residual| BatchNormOptions { statistics: Statistics::Batch, residual, relu: true };
        let first = tape.conv2d(value, &p[0], 1, 1);
        let first = tape.batch_norm(first, &norm_parameters(&p[1..5]), options(None));
        let second = tape.conv2d(first, &p[5], 1, 0);
        value = tape.batch_norm(second, &norm_parameters(&p[6..10]), options(Some(value)));
    }
    value
}

#[test]
fn gradients_match_differences_through_every_fusion_alone_and_together() {
    let block = || {
        let norm = [shape([3]); 4];
        [vec![shape([3, 3, 3, 3])], norm.to_vec(), vec![shape([3, 1, 1, 3])], norm.to_vec()].concat()
    };
    let parameters = [block(), block()].concat();
    for (fusions, expected) in [
        (PROLOGUE, vec![("affine fprop", 2), ("affine wgrad", 2), ("scale_bias", 0)]),
        (STATISTICS, vec![("fprop statistics", 4)]),
        (RESIDUAL_GRADIENT, vec![("accumulate", 0)]),
        (MASKS, vec![("dgrad reduce", 2)]),
        (
            Fusions::ALL,
            vec![
                ("fprop statistics", 2),
                ("affine fprop statistics", 2),
                ("accumulate", 0),
                ("dgrad reduce", 2),
                ("dgrad mask reduce", 1),
            ],
        ),
    ] {
        let inputs = [shape([2, 4, 3, 3])];
        let calls = check_fused(&fusions.to_string(), fusions, &inputs, &parameters, &two_blocks);
        for (name, count) in expected {
            assert_eq!(calls.iter().filter(|call| kind(call) == name).count(), count, "{fusions}: {name}");
        }
    }
}

#[test]
fn gradients_in_f64_are_those_of_the_map_as_a_pass_of_its_own_bit_for_bit() {
    let norm = [shape([3]); 4];
    let block = [vec![shape([3, 3, 3, 3])], norm.to_vec(), vec![shape([3, 1, 1, 3])], norm.to_vec()].concat();
    let parameters = [block.clone(), block].concat();
    let gradients = |fusions| fused_gradients(fusions, &[shape([2, 4, 3, 3])], &parameters, &two_blocks);
    let plain = gradients(Fusions::NONE);
    assert!(gradients(PROLOGUE) == plain);
    assert!(gradients(Fusions { prologue: true, ..STATISTICS }) == plain);
}
