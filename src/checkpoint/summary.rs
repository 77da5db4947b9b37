//! The content of a weights file at a glance: statistics of each tensor, and which network the tensors make.

use serde::Serialize;

use super::{HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::nn::{
    Architecture, Depth, HeadKind, HeadSpec, ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD, Shortcut, Stem,
};

/// Statistics of the elements of one tensor. NaNs count in `nan_count` and nowhere else.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorSummary {
    /// Smallest element; `None` if there is none.
    pub minimum: Option<f64>,
    /// Mean of the elements, summed in f64.
    pub mean: Option<f64>,
    /// Largest element.
    pub maximum: Option<f64>,
    /// Number of NaN elements.
    pub nan_count: usize,
}

/// Computes the statistics of a tensor.
pub fn summarise(tensor: &HostTensor) -> TensorSummary {
    let values = tensor.to_f64();
    let numbers = || values.iter().copied().filter(|value| !value.is_nan());
    let count = numbers().count();
    TensorSummary {
        minimum: numbers().reduce(f64::min),
        mean: (count > 0).then(|| numbers().sum::<f64>() / count as f64),
        maximum: numbers().reduce(f64::max),
        nan_count: values.len() - count,
    }
}

/// The network that tensors under torchvision's names belong to, judged by the first convolution, the blocks in each
/// stage and the heads. Whether every tensor fits is another question: [`super::network::check`].
///
/// # Errors
/// Tensors that belong to no network of this program; says what gives it away.
pub fn guess_architecture(state: &StateDict) -> Result<Architecture> {
    let shape = |name: &str| {
        let tensor = state.get(name).ok_or_else(|| unknown(format!("there is no `{name}`")))?;
        Ok(tensor.shape.as_slice())
    };
    let &[base_channels, in_channels, rows, columns] = shape("conv1.weight")? else {
        return Err(unknown("`conv1.weight` is no convolution".into()));
    };
    let stem = match (rows, columns) {
        (3, 3) => Stem::Cifar,
        (7, 7) => Stem::Imagenet,
        _ => return Err(unknown(format!("its first convolution is {rows}x{columns}"))),
    };
    let two = state.keys().any(|name| name.starts_with(SUPERCLASS_HEAD));
    let names = if two { vec![SUPERCLASS_HEAD, SUBCLASS_HEAD] } else { vec![ONLY_HEAD] };
    let heads = names.into_iter().map(|name| guess_head(state, name)).collect::<Result<Vec<_>>>()?;
    let blocks = blocks_per_stage(state);
    let bottleneck = state.contains_key("layer1.0.conv3.weight");
    let mut all = Depth::all();
    let arch = all.find(|depth| depth.blocks() == blocks && depth.bottleneck() == bottleneck);
    let arch = arch.ok_or_else(|| {
        let kind = if bottleneck { "bottleneck" } else { "basic" };
        unknown(format!("its stages have {blocks:?} {kind} blocks"))
    })?;
    let projected = state.keys().any(|name| name.contains(".downsample."));
    let shortcut = if arch.three_stages() && !projected { Shortcut::A } else { Shortcut::B };
    let guess = Architecture { arch, stem, shortcut, base_channels, in_channels, heads };
    guess.check().map_err(|error| unknown(error.to_string()))?;
    Ok(guess)
}

/// The head of a name, by which tensors it has.
fn guess_head(state: &StateDict, name: &str) -> Result<HeadSpec> {
    let has = |tensor: &str| state.contains_key(&format!("{name}.{tensor}"));
    let (kind, last) = if has("0.scale") {
        (HeadKind::CosineReluLinear, "2.weight")
    } else {
        (if has("scale") { HeadKind::Cosine } else { HeadKind::Linear }, "weight")
    };
    let last = format!("{name}.{last}");
    let tensor = state.get(&last).ok_or_else(|| unknown(format!("there is no `{last}`")))?;
    match tensor.shape[..] {
        [classes, _] => Ok(HeadSpec::new(name, kind, classes)),
        _ => Err(unknown(format!("`{last}` is no matrix"))),
    }
}

fn unknown(reason: String) -> Error {
    Error::invalid(format!(
        "these tensors belong to no network of this program: {reason}; known are resnet18, 34, 50, 101 as torchvision \
         names their parameters, and resnet20 to resnet110 for CIFAR"
    ))
}

/// Number of blocks in `layer1`, `layer2`, …, as long as they are numbered without a gap.
fn blocks_per_stage(state: &StateDict) -> Vec<usize> {
    let has = |stage: usize, block: usize| state.contains_key(&format!("layer{stage}.{block}.conv1.weight"));
    (1..)
        .map(|stage| (0..).take_while(|&block| has(stage, block)).count())
        .take_while(|&blocks| blocks > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::network::torch_shape;
    use crate::nn::Network;
    use crate::tensor::DType;

    /// Tensors with the names and shapes of an architecture and any values.
    fn tensors_of(architecture: &Architecture) -> StateDict {
        let network = Network::new(architecture, DType::F32, None);
        let entries = network.parameters().entries().iter();
        entries.map(|entry| (entry.name.clone(), HostTensor::f32(torch_shape(entry), Vec::new()))).collect()
    }

    #[test]
    fn every_network_is_recognised_by_its_tensors() {
        for depth in Depth::all() {
            for stem in [Stem::Cifar, Stem::Imagenet] {
                for shortcut in [Shortcut::A, Shortcut::B] {
                    // Combinations that do not exist are refused here.
                    let Ok(one) = Architecture::new(depth, Some(stem), Some(shortcut), 0.25, 7) else {
                        continue;
                    };
                    assert_eq!(guess_architecture(&tensors_of(&one)).unwrap(), one);
                }
            }
        }
    }

    #[test]
    fn heads_are_recognised_by_their_tensors() {
        let plain = Architecture::new(Depth::ResNet20, None, None, 0.25, 7).unwrap();
        for one in [HeadKind::Linear, HeadKind::Cosine, HeadKind::CosineReluLinear] {
            let single = plain.clone().with_heads(vec![HeadSpec::new(ONLY_HEAD, one, 7)]).unwrap();
            assert_eq!(guess_architecture(&tensors_of(&single)).unwrap(), single);
            for other in [HeadKind::Linear, HeadKind::Cosine, HeadKind::CosineReluLinear] {
                let heads =
                    vec![HeadSpec::new(SUPERCLASS_HEAD, one, 3), HeadSpec::new(SUBCLASS_HEAD, other, 7)];
                let two = plain.clone().with_heads(heads).unwrap();
                assert_eq!(guess_architecture(&tensors_of(&two)).unwrap(), two);
            }
        }
    }

    #[test]
    fn tensors_of_another_network_are_described() {
        let mut state = tensors_of(&Architecture::new(Depth::ResNet18, None, None, 0.25, 7).unwrap());
        state.retain(|name, _| !name.starts_with("layer4.1."));
        let message = guess_architecture(&state).unwrap_err().to_string();
        assert!(message.contains("[2, 2, 2, 1] basic blocks"), "{message}");
        state.remove("fc.weight");
        assert!(guess_architecture(&state).unwrap_err().to_string().contains("no `fc.weight`"));
    }

    #[test]
    fn nan_is_counted_and_kept_out_of_the_statistics() {
        let summary = summarise(&HostTensor::f32([4], vec![1.0, f32::NAN, -3.0, 5.0]));
        let expected =
            TensorSummary { minimum: Some(-3.0), mean: Some(1.0), maximum: Some(5.0), nan_count: 1 };
        assert_eq!(summary, expected);
        assert_eq!(summarise(&HostTensor::f32([0], Vec::new())).mean, None);
    }
}
