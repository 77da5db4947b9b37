//! Trials: a kernel in one form, and the calls on which it is tried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::supervise::KINDS;
use crate::backend::cuda::{Cuda, Exclusions, GRAPHS, PDL, Pass};
use crate::bench::configurations::{KernelName, awkward_calls, subject};
use crate::bench::edge_cases::edge_cases;
use crate::bench::work::computes_in;
use crate::error::Result;
use crate::ops::{
    Call, Cast, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, CopyRows, Device, ElementType, Rows,
};
use crate::tensor::DType;

/// Half waves of output tiles that the convolution of the network is cut to: every second SM has a second tile.
const HALF_WAVES: usize = 3;
/// K blocks in each split-K slice of a wgrad that is cut.
const BLOCKS_OF_SLICE: usize = 8;
/// BLOCK_K of most kernels.
const BLOCK_K: usize = 64;
/// Elements of the largest operand of other operations.
const MOST_ELEMENTS: usize = 1 << 21;
/// The same where calls run one behind the other to try a mechanism.
const MOST_ELEMENTS_OF_CHAIN: usize = 1 << 17;

/// A kernel in one form, and the calls on which it is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What is tried: `fprop.sm90-rows-256x128.bf16-statistics`, `batch_norm_reduce.bf16`, `graphs.bf16`.
    pub subject: String,
    /// The kernel, where the device has a choice.
    pub kernel: Option<KernelName>,
    /// The calls: awkward ones first, then the network's own, cut. Of a mechanism: calls that run one behind the other.
    pub calls: Vec<Call<()>>,
    /// The mechanism that is tried, instead of a kernel.
    pub mechanism: Option<Mechanism>,
}

/// A mechanism by which launches follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// Captured graphs, against single launches.
    Graphs,
    /// Programmatic dependent launches, against serial ones.
    Pdl,
}

/// What calls want of a device: their trials, each subject once.
pub struct Planner<'a> {
    cuda: &'a Cuda,
}

impl<'a> Planner<'a> {
    /// For a device.
    pub fn new(cuda: &'a Cuda) -> Planner<'a> {
        Planner { cuda }
    }

    /// The trials of calls that plans want, but for those that are known already. What models do beside their plans, copying and
    /// converting rows, is among them. Passes over rows come plan by plan, with memory for each, and then the device is this process's:
    /// the first brings all of them.
    ///
    /// # Errors
    /// A kernel that the device cannot be made to use.
    pub fn trials(&self, calls: &[Call<()>], is_known: &dyn Fn(&str) -> bool) -> Result<Vec<Trial>> {
        let rows = Rows { rows: 64, channels: 64 };
        let mut calls = [calls, &[Cast::alone(rows), CopyRows::alone(rows)]].concat();
        let is_over_rows = |call: &Call<()>| computes_in(call, self.cuda.dtype()) == DType::F64;
        if calls.iter().any(is_over_rows) {
            calls.extend(edge_cases().into_iter().filter(is_over_rows));
        }
        let mut trials: BTreeMap<String, Trial> = BTreeMap::new();
        let mut order = Vec::new();
        for call in &calls {
            let name = subject(self.cuda, call);
            if !is_known(&name) && !trials.contains_key(&name) {
                order.push(name.clone());
                trials.insert(name.clone(), self.trial(name, call)?);
            }
        }
        let mut trials: Vec<Trial> = order.iter().filter_map(|subject| trials.remove(subject)).collect();
        // Plain kernels before those that rest on more of the hardware.
        trials.sort_by_key(|trial| match &trial.kernel {
            None => 0,
            Some(_) => 1 + KINDS.iter().filter(|kind| trial.is_of(kind)).count(),
        });
        Ok(trials)
    }

    fn trial(&self, subject: String, call: &Call<()>) -> Result<Trial> {
        let kernel = self.cuda.convolution_kernel(call).map(|kernel| KernelName {
            pass: kernel.pass,
            name: kernel.name.to_string(),
            full_name: kernel.full_name,
        });
        let mut calls = awkward_calls(self.cuda, kernel.as_ref(), call)?;
        calls.push(self.cut(call));
        Ok(Trial { subject, kernel, calls, mechanism: None })
    }

    /// A call of the network's own channels and images, on as many images as make it long enough.
    fn cut(&self, call: &Call<()>) -> Call<()> {
        let (Some(kernel), Some((pass, conv))) = (self.cuda.convolution_kernel(call), Pass::of(call)) else {
            return call.cut(MOST_ELEMENTS);
        };
        let wanted = match pass {
            Pass::Fprop | Pass::Dgrad => {
                (conv.batch * HALF_WAVES * kernel.tiles_in_a_wave).div_ceil(2 * kernel.tiles.max(1))
            }
            Pass::Wgrad => {
                let pixels = kernel.splits * BLOCKS_OF_SLICE * BLOCK_K;
                pixels.div_ceil(conv.out_height() * conv.out_width())
            }
        };
        with_batch(call, conv.batch.min(wanted.max(1)))
    }

    /// Trials of mechanisms, on calls of the plan that run one behind the other; each is of kernels that are known to be right.
    pub fn mechanisms(
        &self,
        calls: &[Call<()>],
        wanted: &[(Mechanism, String)],
        is_right: &dyn Fn(&Call<()>) -> bool,
    ) -> Vec<Trial> {
        let has_integers =
            |call: &Call<()>| call.operands().iter().any(|operand| operand.element == ElementType::I32);
        let mut chain: Vec<Call<()>> = Vec::new();
        for call in calls.iter().filter(|call| !has_integers(call)) {
            let call = match Pass::of(call) {
                Some((_, conv)) => {
                    let each = conv.inputs().elements().max(conv.outputs().elements()) / conv.batch;
                    with_batch(call, conv.batch.min((MOST_ELEMENTS_OF_CHAIN / each).max(1)))
                }
                None => call.cut(MOST_ELEMENTS_OF_CHAIN),
            };
            if !chain.contains(&call) && is_right(&call) {
                chain.push(call);
            }
        }
        if chain.is_empty() {
            return Vec::new();
        }
        let trial = |(mechanism, subject): &(Mechanism, String)| Trial {
            subject: subject.clone(),
            kernel: None,
            calls: chain.clone(),
            mechanism: Some(*mechanism),
        };
        wanted.iter().map(trial).collect()
    }
}

/// A convolution on another number of images; other calls as they are.
fn with_batch(call: &Call<()>, batch: usize) -> Call<()> {
    let cut = |conv: Conv2d| Conv2d { batch, ..conv };
    match *call {
        Call::Conv2dFprop(op) => Conv2dFprop { conv: cut(op.conv), ..op }.into(),
        Call::Conv2dDgrad(op) => Conv2dDgrad { conv: cut(op.conv), ..op }.into(),
        Call::Conv2dWgrad(op) => Conv2dWgrad { conv: cut(op.conv), ..op }.into(),
        other => other,
    }
}

impl Trial {
    /// What is left out if it fails, in the words of `--exclude`; `None` where there is no other.
    pub fn word(&self) -> Option<String> {
        match (self.mechanism, &self.kernel) {
            (Some(Mechanism::Graphs), _) => Some(GRAPHS.to_string()),
            (Some(Mechanism::Pdl), _) => Some(PDL.to_string()),
            (None, kernel) => kernel.as_ref().map(|kernel| kernel.full_name.clone()),
        }
    }

    /// Whether its kernel is of a kind, in the words of `--exclude`.
    pub fn is_of(&self, kind: &str) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| Exclusions::covers(kind, &kernel.full_name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cuda::Sources;
    use crate::backend::cuda::driver::Properties;
    use crate::backend::cuda::driver::recorder::Recorder;
    use crate::bench::NetworkName;
    use crate::plan::Fusions;

    fn h200() -> Cuda {
        let properties = Properties {
            name: "NVIDIA H200".into(),
            architecture: "sm_90a".into(),
            capability: (9, 0),
            sms: 132,
            memory_bytes: 1 << 37,
            shared_bytes_per_block: 227 << 10,
            red_zone: 0,
            versions: String::new(),
        };
        Cuda::new(Arc::new(Recorder::new(properties)), DType::Bf16, Sources::default()).unwrap()
    }

    #[test]
    fn each_subject_is_tried_once_on_awkward_shapes_and_on_the_networks_own_cut_to_less_than_two_waves() {
        let cuda = h200();
        let network: NetworkName = "resnet18-cifar.32".parse().unwrap();
        let calls = network.calls(&cuda, 512, Fusions::ALL).unwrap();
        let calls: Vec<Call<()>> =
            calls.into_iter().filter(|call| cuda.prepare(call).expansion.is_none()).collect();
        let trials = Planner::new(&cuda).trials(&calls, &|_| false).unwrap();
        let mut subjects: Vec<&str> = trials.iter().map(|trial| trial.subject.as_str()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        assert!(subjects.len() == trials.len() && trials.len() > 40, "{subjects:?}");
        for trial in &trials {
            assert!(trial.calls.len() > 1, "{} is tried on {:?} alone", trial.subject, trial.calls);
            let own = trial.calls.last().unwrap();
            if let (Some(kernel), Some((pass, conv))) = (&trial.kernel, Pass::of(own)) {
                let wanted = calls.iter().filter_map(Pass::of).any(|(_, other)| {
                    Conv2d { batch: 1, ..*other } == Conv2d { batch: 1, ..*conv } && conv.batch <= other.batch
                });
                assert!(wanted, "{}: {conv:?} is none of the network's", trial.subject);
                // A wave and a half, rounded up to images, unless the network has fewer.
                let table = crate::bench::configurations::table(&cuda, kernel, &trial.calls).unwrap();
                let (paper, _) = crate::bench::configurations::on_paper(&cuda).unwrap();
                let used = paper.with_table(table).unwrap().convolution_kernel(own).unwrap();
                assert_eq!(used.full_name, kernel.full_name);
                let image = used.tiles.div_ceil(conv.batch);
                let most = HALF_WAVES * used.tiles_in_a_wave / 2 + image;
                assert!(pass == Pass::Wgrad || used.tiles <= most, "{}: {} tiles", trial.subject, used.tiles);
            }
        }
        // The CPU computes all of it in f64: at 30 GFLOP/s, which two cores do, within the twenty seconds that a first use may take.
        let flop: f64 = trials.iter().flat_map(|trial| &trial.calls).map(Call::flop).sum();
        println!("{} trials, {:.0} GFLOP", trials.len(), flop / 1e9);
        assert!(flop < 500e9, "{:.0} GFLOP", flop / 1e9);
    }

    #[test]
    fn what_is_known_is_not_tried_again_and_the_first_pass_over_rows_brings_all() {
        let cuda = h200();
        let passes: Vec<Call<()>> =
            edge_cases().into_iter().filter(|call| computes_in(call, DType::Bf16) == DType::F64).collect();
        let planner = Planner::new(&cuda);
        let subjects = |known: &dyn Fn(&str) -> bool| -> Vec<String> {
            let trials = planner.trials(&passes[..1], known).unwrap();
            trials.into_iter().map(|trial| trial.subject).collect()
        };
        let all = subjects(&|_| false);
        assert!(passes.iter().all(|call| all.contains(&subject(&cuda, call))) && all.len() > 10, "{all:?}");
        let left = subjects(&|subject| subject != "cast.bf16");
        assert_eq!(left, ["cast.bf16"]);
    }
}
