//! Networks by name, and the calls that their plans are made of.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::nn::{Architecture, Depth, ImageSource, Images, Inference, Network, Stem};
use crate::ops::{Call, Device, HardwareKind};
use crate::plan::Fusions;
use crate::tensor::{DType, Span};
use crate::train::{Objective, Optimizer, OptimizerKind, TrainStep};
use crate::values::Named;

/// Classes of every network that is measured.
const CLASSES: usize = 100;
/// Images that lie on the device, in batches.
const RESIDENT_BATCHES: usize = 4;

/// SGD with momentum and weight decay, as both notebooks train.
pub(super) const OPTIMIZER: Optimizer = Optimizer {
    kind: OptimizerKind::Sgd,
    momentum: 0.9,
    nesterov: false,
    weight_decay: 5e-4,
    separate_heads: false,
};

/// A network and the side of its images: `resnet18-cifar.32`, or `resnet18-cifar.8.w0.0625` for one of other width.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkName {
    arch: Depth,
    stem: Stem,
    side: usize,
    width: f64,
}

impl FromStr for NetworkName {
    type Err = Error;

    fn from_str(text: &str) -> Result<NetworkName> {
        let wrong = || {
            Error::usage(format!(
                "`{text}` names no network: it is ARCH-STEM.SIDE, for instance resnet18-cifar.32, or ARCH-STEM.SIDE.wWIDTH \
                 for another width"
            ))
        };
        let mut parts = text.trim().splitn(3, '.');
        let (arch, stem) = parts.next().and_then(|part| part.split_once('-')).ok_or_else(wrong)?;
        let name = NetworkName {
            arch: Depth::find(arch).ok_or_else(wrong)?,
            stem: Stem::find(stem).ok_or_else(wrong)?,
            side: parts.next().and_then(|side| side.parse().ok()).ok_or_else(wrong)?,
            width: match parts.next() {
                None => 1.0,
                Some(width) => width.strip_prefix('w').and_then(|w| w.parse().ok()).ok_or_else(wrong)?,
            },
        };
        if !(8..=512).contains(&name.side) {
            return Err(Error::usage(format!(
                "`{text}`: the side of an image must be between 8 and 512 pixels"
            )));
        }
        name.architecture()?;
        Ok(name)
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = if self.stem == Stem::Cifar { "cifar" } else { "imagenet" };
        write!(f, "{}-{stem}.{}", self.arch, self.side)?;
        if self.width == 1.0 { Ok(()) } else { write!(f, ".w{}", self.width) }
    }
}

/// A network in training or inference, recorded for a device.
pub(super) struct Recorded<P> {
    /// The network.
    pub(super) network: Network,
    /// Its plan.
    pub(super) plan: P,
    /// Where the pixels of all images lie.
    pub(super) pixels: Span,
    /// How many images there are.
    pub(super) images: usize,
}

impl NetworkName {
    /// The networks that are measured unless others are named: on an emulator toys of the same blocks and stems.
    pub fn standard(kind: HardwareKind) -> Vec<NetworkName> {
        let names: &[&str] = match kind {
            HardwareKind::Emulator => &["resnet18-cifar.8.w0.125", "resnet50-imagenet.32.w0.125"],
            HardwareKind::Cpu | HardwareKind::Gpu => {
                &["resnet18-cifar.32", "resnet50-cifar.64", "resnet50-imagenet.64"]
            }
        };
        names.iter().map(|name| name.parse().expect("these names parse")).collect()
    }

    /// The batch size unless another is given.
    pub fn standard_batch(kind: HardwareKind) -> usize {
        if kind == HardwareKind::Emulator { 4 } else { 128 }
    }

    /// Networks and batch sizes as given, or the standard ones of a device where none are.
    pub(super) fn or_standard(
        networks: &[NetworkName],
        batches: &[usize],
        kind: HardwareKind,
    ) -> (Vec<NetworkName>, Vec<usize>) {
        let networks = if networks.is_empty() { NetworkName::standard(kind) } else { networks.to_vec() };
        let standard_batch = || vec![NetworkName::standard_batch(kind)];
        (networks, if batches.is_empty() { standard_batch() } else { batches.to_vec() })
    }

    fn architecture(&self) -> Result<Architecture> {
        Architecture::new(self.arch, Some(self.stem), None, self.width, CLASSES)
    }

    fn record<P>(
        &self,
        device: &dyn Device,
        (batch, fusions): (usize, Fusions),
        slots: Option<usize>,
        plan: impl FnOnce(&Network, &Images) -> P,
    ) -> Result<Recorded<P>> {
        let mut network = Network::new(&self.architecture()?, device.dtype(), slots);
        network.set_fusions(fusions);
        let images = RESIDENT_BATCHES * batch;
        let pixels = network.reserve(images * self.side * self.side * 3, DType::U8);
        let source = ImageSource::Resident { pixels, images };
        let plan = plan(&network, &Images { batch, extent: [self.side, self.side, 3], source });
        Ok(Recorded { network, plan, pixels, images })
    }

    /// A training step.
    pub(super) fn training(
        &self,
        device: &dyn Device,
        batch: usize,
        fusions: Fusions,
    ) -> Result<Recorded<TrainStep>> {
        self.record(device, (batch, fusions), Some(OPTIMIZER.slots()), |network, images| {
            TrainStep::new(network, device, &OPTIMIZER, images, &Objective::cross_entropy(0.0))
        })
    }

    /// A pass in inference.
    pub(super) fn inference(
        &self,
        device: &dyn Device,
        batch: usize,
        fusions: Fusions,
    ) -> Result<Recorded<Inference>> {
        self.record(device, (batch, fusions), None, |network, images| Inference::new(network, device, images))
    }

    /// Every call of a training step and of a pass in inference, each once.
    ///
    /// # Errors
    /// The name makes no network.
    pub fn calls(&self, device: &dyn Device, batch: usize, fusions: Fusions) -> Result<Vec<Call<()>>> {
        let training = self.training(device, batch, fusions)?;
        let inference = self.inference(device, batch, fusions)?;
        let plans = [training.plan.executable().plan(), inference.plan.executable().plan()];
        let mut unique = Vec::new();
        for call in plans.iter().flat_map(|plan| plan.setup.iter().chain(&plan.calls)) {
            let call = call.map(|_| ());
            if !unique.contains(&call) {
                unique.push(call);
            }
        }
        Ok(unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn a_network_is_named_as_it_prints() {
        for name in ["resnet18-cifar.32", "resnet50-imagenet.64", "resnet20-cifar.8.w0.0625"] {
            assert_eq!(name.parse::<NetworkName>().unwrap().to_string(), name);
        }
        for name in [
            "resnet18",
            "resnet18-cifar",
            "resnet18-cifar.x",
            "resnet18-cifar.32.2",
            "resnet18-cifar.4",
            "a-b.32",
        ] {
            let error = name.parse::<NetworkName>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_call_alone_has_the_operands_it_has_in_its_plan() {
        let device = Cpu::<f32>::new(1).unwrap();
        let mut checked = 0;
        for name in NetworkName::standard(HardwareKind::Emulator) {
            let training = name.training(&device, 2, Fusions::ALL).unwrap();
            let inference = name.inference(&device, 2, Fusions::ALL).unwrap();
            for executable in [training.plan.executable(), inference.plan.executable()] {
                let plan = executable.plan();
                for call in plan.setup.iter().chain(&plan.calls) {
                    for operand in call.operands() {
                        let span = executable.span(operand.place).elements;
                        assert!(
                            span == operand.elements,
                            "{} `{}`: {span} in the plan, {} alone",
                            call.name(),
                            operand.name,
                            operand.elements
                        );
                    }
                    checked += 1;
                }
            }
        }
        assert!(checked > 300, "only {checked} calls");
    }
}
