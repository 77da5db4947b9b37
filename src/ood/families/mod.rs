//! The scores, family by family: those of a family share what they are fitted to.
//!
//! | file | scores |
//! |---|---|
//! | `logits` | largest probability and logit, energy, entropies: nothing is fitted |
//! | `calibrated` | fitted on labelled samples outside training: temperature scaling, KL matching |
//! | `openmax` | Weibull tails of logit distances |
//! | `gaussian` | Mahalanobis distances, of raw and of normalised features |
//! | `subspace` | ViM, its residual, NECO |
//! | `shaping` | energy of features that were clipped, pruned or scaled; of a sparse head |
//! | `head` | features against the head: gradients, distances to decision boundaries, alignment |
//! | `patterns` | features against a mean per class |
//! | `coverage` | which states of each neuron training has seen |
//! | `weiper` | histograms under perturbed heads |
//! | `bank` | features against those of many training samples |

mod bank;
mod calibrated;
mod coverage;
mod gaussian;
mod head;
mod logits;
mod openmax;
mod patterns;
mod shaping;
mod subspace;
mod weiper;

use super::family::Family;

/// Every family.
pub(super) const ALL: &[&dyn Family] = &[
    &logits::Logits,
    &calibrated::Calibrated,
    &openmax::OpenMaxFamily,
    &gaussian::GaussianFamily,
    &subspace::VimFamily,
    &subspace::NecoFamily,
    &shaping::Shaping,
    &head::HeadFamily,
    &patterns::Patterns,
    &coverage::Coverage,
    &weiper::WeiPerFamily,
    &bank::BankFamily,
];
