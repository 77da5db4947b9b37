//! The optimizer's one call a step, and the copies of parameters that it keeps up to date.

use half::bf16;
use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::nn::{
    Architecture, Depth, HeadKind, HeadSpec, ImageSource, Images, Model, Network, SUBCLASS_HEAD,
    SUPERCLASS_HEAD,
};
use residua::ops::{AdamStep, Call, Device, SgdStep};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues};
use residua::train::{BatchTargets, Objective, Optimizer, OptimizerKind, TrainStep};

use crate::ops::kernels;

const SIDE: usize = 8;
const BATCH: usize = 4;

fn optimizer(kind: OptimizerKind, separate_heads: bool) -> Optimizer {
    Optimizer { kind, momentum: 0.9, nesterov: false, weight_decay: 5e-4, separate_heads }
}

fn small() -> Architecture {
    Architecture::new(Depth::ResNet20, None, None, 0.25, 3).unwrap()
}

fn prepared(device: &dyn Device, architecture: &Architecture, optimizer: &Optimizer) -> (Network, TrainStep) {
    let network = Network::new(architecture, device.dtype(), Some(optimizer.slots()));
    let images = Images { batch: BATCH, extent: [SIDE, SIDE, 3], source: ImageSource::Numbers };
    let step = TrainStep::new(&network, device, optimizer, &images, &Objective::cross_entropy(0.0));
    (network, step)
}

#[test]
fn all_groups_are_updated_by_one_call_whatever_their_rates_and_decays() {
    let device = Cpu::<f32>::new(1).unwrap();
    let heads = vec![
        HeadSpec::new(SUPERCLASS_HEAD, HeadKind::Cosine, 2),
        HeadSpec::new(SUBCLASS_HEAD, HeadKind::Linear, 3),
    ];
    let two_heads = small().with_heads(heads).unwrap();
    for kind in [OptimizerKind::Sgd, OptimizerKind::AdamW] {
        let (network, step) = prepared(&device, &two_heads, &optimizer(kind, true));
        let calls = &step.executable().plan().calls;
        let segments: Vec<_> = calls
            .iter()
            .filter_map(|call| match call {
                Call::SgdStep(SgdStep { attributes, .. }) => Some(attributes.segments),
                Call::AdamStep(AdamStep { attributes, .. }) => Some(attributes.segments),
                _ => None,
            })
            .collect();
        let [[backbone, heads, undecayed]] = segments[..] else { panic!("{} calls", segments.len()) };
        assert_eq!([backbone.row, heads.row, undecayed.row], [0, 1, 1]);
        assert!(backbone.weight_decay > 0.0 && heads.weight_decay > 0.0 && undecayed.weight_decay == 0.0);
        assert!(undecayed.elements > 0, "the scale of a cosine head");
        let elements = backbone.elements + heads.elements + undecayed.elements;
        assert_eq!(elements, network.parameters().values().elements);
    }
}

/// A bf16 network on the emulator.
struct Laboratory {
    model: Model,
    step: TrainStep,
    optimizer: Optimizer,
    images: Vec<f32>,
}

impl Laboratory {
    fn new(kind: OptimizerKind, seed: u64) -> Laboratory {
        let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
        let device = kernels(emulator, DType::Bf16);
        let optimizer = optimizer(kind, false);
        let (network, step) = prepared(&*device, &small(), &optimizer);
        let mut model = Model::new(network, device, step.executable().bytes()).unwrap();
        model.initialise(seed).unwrap();
        let stream = Stream::for_purpose(8, Purpose::Synthetic, &[]);
        let numbers = BATCH * SIDE * SIDE * 3;
        let images = (0..numbers as u64).map(|i| stream.normal(i) as f32).collect();
        Laboratory { model, step, optimizer, images }
    }

    fn run(&mut self, number: u64) -> Vec<f64> {
        let targets = BatchTargets::plain(&[0, 1, 2, 1]);
        let (rates, images) = (self.optimizer.rates(0.05, number), HostValues::F32(&self.images));
        self.step.run(&mut self.model, images, &targets, &rates).unwrap()
    }

    /// The learned values as bf16, and their copies.
    fn values_and_copies(&self) -> [Vec<f32>; 2] {
        let parameters = self.model.network().parameters();
        let values = self.model.read_f32(parameters.values()).unwrap();
        let rounded = values.into_iter().map(|value| bf16::from_f32(value).to_f32()).collect();
        [rounded, self.model.read_f32(parameters.copies().unwrap()).unwrap()]
    }
}

#[test]
fn the_copies_are_the_rounded_parameters_after_every_step() {
    for kind in [OptimizerKind::Sgd, OptimizerKind::Adam] {
        let mut laboratory = Laboratory::new(kind, 1);
        let before = laboratory.values_and_copies();
        for number in 1..=3 {
            laboratory.run(number);
            let [values, copies] = laboratory.values_and_copies();
            assert!(values == copies && values != before[0], "{kind:?}, step {number}");
        }
    }
}

/// As after a checkpoint was loaded, or a training resumed, at any time.
#[test]
fn a_step_computes_with_what_the_host_wrote_before_it() {
    let mut fresh = Laboratory::new(OptimizerKind::Sgd, 2);
    let mut used = Laboratory::new(OptimizerKind::Sgd, 1);
    // Once before the plan is captured, once after.
    for number in 1..=3 {
        used.run(number);
    }
    for entry in used.model.network().parameters().entries().to_vec() {
        let values = fresh.model.parameter(&entry).unwrap();
        used.model.write(entry.parameter.value, HostValues::F64(&values)).unwrap();
    }
    let expected = fresh.run(1);
    assert!(used.run(4) == expected);
}
