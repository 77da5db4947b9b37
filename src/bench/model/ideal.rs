//! The limit by counting bytes: images a second of training at four levels of fusion, in bf16, if every pass ran at the rates of the
//! card's floors. Counted by hand from the algebra of a step, so that a prediction has a mark beyond its own plan.

use super::super::steps::StepKind;
use super::Card;

/// On an H200 at 788 TFLOP/s and 4.3 TB/s, in thousands: nothing fused; the passes of batch normalisation, rectifier and residual
/// fused; their BN reductions and ReLU backward in epilogues as well; and applied where the next convolution reads.
const H200: [(&str, [f64; 4]); 4] = [
    ("resnet18-cifar.32", [113.0, 141.0, 161.0, 188.0]),
    ("resnet50-cifar.32", [25.0, 35.0, 41.0, 47.0]),
    ("resnet18-cifar.64", [28.0, 35.0, 40.0, 47.0]),
    ("resnet50-cifar.64", [6.4, 8.7, 10.3, 11.7]),
];

/// The four marks of a network's training on a card, where they were counted.
pub(super) fn images_per_second(card: &Card, kind: StepKind, network: &str) -> Option<[f64; 4]> {
    let counted = kind == StepKind::Train && card.name.contains("H200");
    let (_, thousands) = H200.iter().find(|(name, _)| counted && *name == network)?;
    Some(thousands.map(|images| 1e3 * images))
}
