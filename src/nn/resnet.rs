//! ResNets (He et al., "Deep Residual Learning for Image Recognition", 2015), as torchvision builds them: ResNet-18, 34,
//! 50, 101 with a choice of stem, and the paper's three-stage networks for CIFAR.

use super::architecture::{Architecture, Shortcut, Stem};
use super::head::{self, HeadOutput};
use super::parameters::{Declared, Group, Kind, Parameters};
use crate::autograd::{BatchNormParameters, Tape, Var};
use crate::plan::Fusions;
use crate::tensor::{DType, Shape, Span};

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A network: its architecture, its parameters, and how they are wired.
#[derive(Debug, Clone)]
pub struct Network {
    architecture: Architecture,
    parameters: Parameters,
    stem: Unit,
    blocks: Vec<Block>,
    /// Index of the first tensor of each head.
    heads: Vec<usize>,
    frozen: bool,
    teacher: Option<Box<Network>>,
    fusions: Fusions,
}

/// The results of a forward pass.
#[derive(Debug, Clone)]
pub struct Output {
    /// The pooled features, (batch, feature_dimension).
    pub pooled: Var,
    /// The outputs of each head on them.
    pub heads: Vec<HeadOutput>,
}

/// How much of a network a training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Learned {
    /// Everything.
    #[default]
    All,
    /// The heads; the backbone stays as it is, and runs as in inference.
    Heads,
}

/// A convolution and its batch normalisation; `first` is the index of the weight, followed by γ, β, mean, variance.
#[derive(Debug, Clone, Copy)]
struct Unit {
    first: usize,
    stride: usize,
    padding: usize,
}

#[derive(Debug, Clone)]
struct Block {
    body: Vec<Unit>,
    projection: Projection,
}

#[derive(Debug, Clone, Copy)]
enum Projection {
    Identity,
    Convolution(Unit),
    Subsample { out_channels: usize, stride: usize },
}

/// Collects names and shapes in torchvision's order.
struct Builder {
    named: Vec<Declared>,
}

impl Builder {
    fn backbone(&mut self, name: String, kind: Kind, shape: Shape) {
        self.named.push(Declared { name, kind, shape, group: Group::Backbone });
    }

    fn unit(
        &mut self,
        conv: &str,
        norm: &str,
        (inputs, outputs): (usize, usize),
        size: usize,
        stride: usize,
        padding: usize,
    ) -> Unit {
        let first = self.named.len();
        let channels = Shape::from([outputs]);
        let filters = Shape::from([outputs, size, size, inputs]);
        self.backbone(format!("{conv}.weight"), Kind::ConvWeight, filters);
        for (name, kind) in [
            ("weight", Kind::Gamma),
            ("bias", Kind::Beta),
            ("running_mean", Kind::RunningMean),
            ("running_var", Kind::RunningVariance),
        ] {
            self.backbone(format!("{norm}.{name}"), kind, channels);
        }
        Unit { first, stride, padding }
    }

    fn block(
        &mut self,
        name: &str,
        inputs: usize,
        planes: usize,
        stride: usize,
        a: &Architecture,
    ) -> (Block, usize) {
        let mut unit = |index: usize, channels, size, stride, padding| {
            let (conv, norm) = (format!("{name}.conv{index}"), format!("{name}.bn{index}"));
            self.unit(&conv, &norm, channels, size, stride, padding)
        };
        let (body, outputs) = if a.arch.bottleneck() {
            let outputs = 4 * planes;
            let reduce = unit(1, (inputs, planes), 1, 1, 0);
            let spatial = unit(2, (planes, planes), 3, stride, 1);
            (vec![reduce, spatial, unit(3, (planes, outputs), 1, 1, 0)], outputs)
        } else {
            let first = unit(1, (inputs, planes), 3, stride, 1);
            (vec![first, unit(2, (planes, planes), 3, 1, 1)], planes)
        };
        let projection = if stride == 1 && inputs == outputs {
            Projection::Identity
        } else if a.shortcut == Shortcut::A {
            Projection::Subsample { out_channels: outputs, stride }
        } else {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            Projection::Convolution(self.unit(&conv, &norm, (inputs, outputs), 1, stride, 0))
        };
        (Block { body, projection }, outputs)
    }
}

impl Network {
    /// Wires up a network. `slots` is the number of optimizer states per parameter; `None` makes it for inference only.
    pub fn new(architecture: &Architecture, dtype: DType, slots: Option<usize>) -> Network {
        Network::partly_learned(architecture, dtype, slots, Learned::All)
    }

    /// The same for a training that changes only a part of it.
    pub fn partly_learned(
        architecture: &Architecture,
        dtype: DType,
        slots: Option<usize>,
        learned: Learned,
    ) -> Network {
        let a = architecture;
        let mut builder = Builder { named: Vec::new() };
        let base = a.base_channels;
        let stem = match a.stem {
            Stem::Cifar => builder.unit("conv1", "bn1", (a.in_channels, base), 3, 1, 1),
            Stem::Imagenet => builder.unit("conv1", "bn1", (a.in_channels, base), 7, 2, 3),
        };
        let mut blocks = Vec::new();
        let mut channels = base;
        for (stage, &count) in a.arch.blocks().iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                let (block, outputs) = builder.block(&name, channels, base << stage, stride, a);
                blocks.push(block);
                channels = outputs;
            }
        }
        let mut heads = Vec::new();
        for spec in &a.heads {
            heads.push(builder.named.len());
            builder.named.extend(spec.tensors(channels).into_iter().map(|(name, kind, shape)| {
                let group = if kind == Kind::SoftplusScale { Group::Undecayed } else { Group::Head };
                Declared { name, kind, shape, group }
            }));
        }
        let frozen = learned == Learned::Heads;
        let kept = frozen.then_some(Group::Backbone);
        let parameters = Parameters::new(builder.named, dtype, slots, kept, a.in_channels);
        Network {
            architecture: a.clone(),
            parameters,
            stem,
            blocks,
            heads,
            frozen,
            teacher: None,
            fusions: Fusions::ALL,
        }
    }

    /// Adds a trained network that runs beside this one on the same images, never changes, and is no part of
    /// checkpoints. To be called before plans are made.
    ///
    /// # Panics
    /// Activations would have another type.
    pub fn add_teacher(&mut self, architecture: &Architecture, dtype: DType) {
        let mut teacher = Network::new(architecture, dtype, None);
        let accumulator = dtype.accumulator();
        let room = self.parameters.reserve(teacher.parameters.bytes() / accumulator.size(), accumulator);
        teacher.parameters = teacher.parameters.moved(room.offset);
        self.teacher = Some(Box::new(teacher));
    }

    /// Sets the fusions of its plans, before plans are made; all of them unless set.
    pub fn set_fusions(&mut self, fusions: Fusions) {
        self.fusions = fusions;
    }

    /// The fusions of its plans.
    pub fn fusions(&self) -> &Fusions {
        &self.fusions
    }

    /// The trained network beside this one.
    pub fn teacher(&self) -> Option<&Network> {
        self.teacher.as_deref()
    }

    /// The network's architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Sets memory aside beside the parameters, such as for a data set that stays on the device. To be called before
    /// plans are made.
    pub fn reserve(&mut self, elements: usize, dtype: DType) -> Span {
        self.parameters.reserve(elements, dtype)
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records the network on a tape: images (batch, height, width, channels) to features and logits.
    pub fn forward(&self, tape: &mut Tape, images: Var) -> Output {
        let pooled = if self.frozen {
            tape.in_inference(|tape| self.backbone(tape, images))
        } else {
            self.backbone(tape, images)
        };
        let entries = self.parameters.entries();
        let specs = self.architecture.heads.iter().zip(&self.heads);
        let heads = specs.map(|(spec, &first)| head::record(tape, spec.kind, &entries[first..], pooled));
        Output { pooled, heads: heads.collect() }
    }

    fn backbone(&self, tape: &mut Tape, images: Var) -> Var {
        let mut x = self.unit(tape, &self.stem, images, None, true);
        if self.architecture.stem == Stem::Imagenet {
            x = tape.max_pool(x, 3, 2, 1);
        }
        for block in &self.blocks {
            x = self.block(tape, block, x);
        }
        tape.global_average_pool(x)
    }

    fn block(&self, tape: &mut Tape, block: &Block, input: Var) -> Var {
        let (last, body) = block.body.split_last().expect("a block has convolutions");
        let mut x = input;
        for unit in body {
            x = self.unit(tape, unit, x, None, true);
        }
        let residual = match &block.projection {
            Projection::Identity => input,
            Projection::Convolution(unit) => self.unit(tape, unit, input, None, false),
            &Projection::Subsample { out_channels, stride } => tape.shortcut_a(input, out_channels, stride),
        };
        self.unit(tape, last, x, Some(residual), true)
    }

    fn unit(&self, tape: &mut Tape, unit: &Unit, x: Var, residual: Option<Var>, relu: bool) -> Var {
        let at = |index: usize| self.parameters.entries()[unit.first + index].parameter;
        let norm = BatchNormParameters {
            gamma: at(1),
            beta: at(2),
            running_mean: at(3),
            running_variance: at(4),
            epsilon: EPSILON,
            momentum: MOMENTUM,
        };
        tape.conv_batch_norm(x, &at(0), &norm, (unit.stride, unit.padding), residual, relu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Depth, HeadKind, HeadSpec, SUBCLASS_HEAD, SUPERCLASS_HEAD};

    fn parameters(arch: Depth, stem: Stem, classes: usize) -> usize {
        let architecture = Architecture::new(arch, Some(stem), None, 1.0, classes).unwrap();
        Network::new(&architecture, DType::F32, None).parameters().trainable_elements()
    }

    #[test]
    fn networks_have_as_many_parameters_as_torchvisions() {
        // Published counts: torchvision's documentation, and Table 6 of He et al. for the CIFAR network.
        assert_eq!(parameters(Depth::ResNet18, Stem::Imagenet, 1000), 11_689_512);
        assert_eq!(parameters(Depth::ResNet34, Stem::Imagenet, 1000), 21_797_672);
        assert_eq!(parameters(Depth::ResNet50, Stem::Imagenet, 1000), 25_557_032);
        assert_eq!(parameters(Depth::ResNet101, Stem::Imagenet, 1000), 44_549_160);
        assert_eq!(parameters(Depth::ResNet20, Stem::Cifar, 10), 269_722);
    }

    fn cosine_heads() -> Architecture {
        let heads = vec![
            HeadSpec::new(SUPERCLASS_HEAD, HeadKind::Cosine, 3),
            HeadSpec::new(SUBCLASS_HEAD, HeadKind::CosineReluLinear, 7),
        ];
        Architecture::new(Depth::ResNet20, None, None, 0.3, 7).unwrap().with_heads(heads).unwrap()
    }

    #[test]
    fn regions_of_memory_do_not_overlap() {
        let mut network = Network::new(&cosine_heads(), DType::F32, Some(2));
        let teacher = Architecture::new(Depth::ResNet20, None, None, 0.2, 3).unwrap();
        network.add_teacher(&teacher, DType::F32);
        let parameters = network.parameters();
        let mut spans = vec![parameters.image_table()];
        spans.extend(network.teacher().unwrap().parameters().entries().iter().map(|e| e.parameter.value));
        for entry in parameters.entries() {
            spans.push(entry.parameter.value);
            spans.extend(entry.parameter.gradient);
            spans.extend((0..2).filter_map(|slot| parameters.slot_of(entry, slot)));
        }
        spans.sort_by_key(|span| span.offset);
        assert!(spans.windows(2).all(|w| w[0].offset + w[0].bytes() <= w[1].offset));
        assert!(spans.last().unwrap().offset + spans.last().unwrap().bytes() <= parameters.bytes());
    }

    #[test]
    fn groups_lie_one_behind_the_other_and_only_a_softplus_scale_is_not_decayed() {
        let network = Network::new(&cosine_heads(), DType::F32, Some(1));
        let parameters = network.parameters();
        let ranges = Group::ALL.map(|group| parameters.group(group));
        assert_eq!(ranges[0].start, 0);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(ranges[2].end, parameters.values().elements);
        for entry in parameters.entries().iter().filter(|entry| entry.learned()) {
            let range = &ranges[entry.group as usize];
            let first = entry.parameter.value.offset / DType::F32.size();
            assert!(range.start <= first && first + entry.parameter.value.elements <= range.end);
        }
        let undecayed: Vec<&str> = parameters
            .entries()
            .iter()
            .filter(|entry| entry.group == Group::Undecayed)
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(undecayed, ["super_head.scale"]);
    }

    #[test]
    fn a_frozen_backbone_has_neither_gradients_nor_optimizer_states() {
        let network = Network::partly_learned(&cosine_heads(), DType::F32, Some(2), Learned::Heads);
        let parameters = network.parameters();
        assert!(parameters.group(Group::Backbone).is_empty());
        for entry in parameters.entries() {
            let learned = entry.name.contains("head");
            assert_eq!(entry.parameter.gradient.is_some(), learned, "{}", entry.name);
            assert_eq!(parameters.slot_of(entry, 1).is_some(), learned, "{}", entry.name);
        }
    }
}
