//! Neuron activation coverage: how many training samples brought each neuron into a similar state.

use std::sync::Arc;

use pulp::NullaryFnOnce;

use crate::error::Result;
use crate::features::Head;
use crate::instructions::arch;
use crate::linalg::{View, matmul};
use crate::ood::compute::{BlockScores, Projector};
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Parameters, Range, Value};
use crate::ood::rows::{Rows, fold_blocks};
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::values::{Reals, Wholes};

/// The family.
pub(super) struct Coverage;

const MEMBERS: &[About] = &[About {
    method: Method::Nac,
    explanation: "Score: share of neurons whose state, activation times gradient, enough training samples have had (Liu et al., 2024).",
    needs: Needs::TRAINING,
    cost: Cost::Head,
    parameters: &[
        Parameter {
            name: "alpha",
            range: Range::Real(Reals::POSITIVE),
            default: |_| Value::Real(50.0),
            grid: &["1", "50", "1000"],
            meaning: "steepness of the sigmoid of states (its authors: 50 for CIFAR-100, 100 for CIFAR-10)",
        },
        Parameter {
            name: "bins",
            range: Range::Whole(Wholes::between(4, 10_000)),
            default: |_| Value::Whole(50),
            grid: &[],
            meaning: "edges of the bins of states",
        },
        Parameter {
            name: "samples",
            range: Range::Whole(Wholes::POSITIVE),
            default: |_| Value::Whole(50),
            grid: &[],
            meaning: "training samples that cover a bin fully",
        },
    ],
}];

impl Family for Coverage {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        wanted.iter().map(|wanted| Ok(Arc::new(Nac::fit(wanted, training)) as Arc<dyn Fitted>)).collect()
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for wanted in wanted {
            let states = States::new(&wanted.parameters);
            let shape = [Some(head.dimension()), Some(states.bins())];
            let coverage = file.get(&wanted.name, &shape)?.1;
            fits.push(Arc::new(Nac { name: wanted.name.clone(), states, coverage }));
        }
        Ok(fits)
    }
}

/// How states are sorted into bins. A state is `σ(α h_d g_d)`, `g = (p - 1/C) W` the gradient of the divergence of p from
/// uniform; bins are narrow at 0 and 1 in the measure of their logarithm.
#[derive(Debug)]
struct States {
    alpha: f64,
    /// Inner edges of the bins before the sigmoid, ascending. The bin of x is the number of edges not above it.
    edges: Vec<f64>,
}

impl States {
    fn new(parameters: &Parameters) -> States {
        let half = parameters.whole("bins") / 2;
        // Edges in (0, 1): log_1000(1 + (√1000 - 1) i / (half - 1)) up to 1/2, mirrored above.
        let edge = |i: usize| {
            let share = i as f64 / (half - 1) as f64;
            (1.0 + (1000f64.sqrt() - 1.0) * share).ln() / 1000f64.ln()
        };
        let lower = (1..half - 1).map(edge);
        let upper = (1..half - 1).rev().map(|i| 1.0 - edge(i));
        let inner = lower.chain([0.5]).chain(upper);
        let edges: Vec<f64> = inner.map(|e| (e / (1.0 - e)).ln()).collect();
        States { alpha: parameters.real("alpha"), edges }
    }

    fn bins(&self) -> usize {
        self.edges.len() + 1
    }

    /// The bin of each neuron of each sample, row-major, count x D.
    fn of(&self, rows: &Rows, head: &Head) -> Vec<u32> {
        let (classes, d) = (rows.classes, rows.dimension);
        let mut centred = rows.softmax().probabilities();
        centred.iter_mut().for_each(|p| *p -= (classes as f64).recip());
        let mut gradients = vec![0.0; rows.count * d];
        matmul(
            View::new(&centred, rows.count, classes),
            View::new(head.weight(), classes, d),
            &mut gradients,
        );
        let mut states = vec![0; gradients.len()];
        arch().dispatch(Sort {
            states: self,
            features: &rows.features,
            gradients: &gradients,
            bins: &mut states,
        });
        states
    }
}

/// Sorts states into bins: a loop that is compiled for every set of instructions.
struct Sort<'a> {
    states: &'a States,
    features: &'a [f64],
    gradients: &'a [f64],
    bins: &'a mut [u32],
}

/// Up to this many edges all are compared with each state, by vectors; a search takes its branches wrongly.
const FEW_EDGES: usize = 128;

impl NullaryFnOnce for Sort<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Sort { states: States { alpha, edges }, features, gradients, bins } = self;
        if edges.len() > FEW_EDGES {
            for ((h, g), bin) in features.iter().zip(gradients).zip(bins) {
                let x = alpha * h * g;
                *bin = edges.partition_point(|edge| *edge <= x) as u32;
            }
            return;
        }
        const LANES: usize = 16;
        let each = features.chunks(LANES).zip(gradients.chunks(LANES)).zip(bins.chunks_mut(LANES));
        for ((h, g), bins) in each {
            let (mut x, mut below) = ([0.0; LANES], [0u64; LANES]);
            x.iter_mut().zip(h).zip(g).for_each(|((x, h), g)| *x = alpha * h * g);
            for edge in edges {
                for lane in 0..LANES {
                    below[lane] += u64::from(*edge <= x[lane]);
                }
            }
            bins.iter_mut().zip(below).for_each(|(bin, below)| *bin = below as u32);
        }
    }
}

#[derive(Debug)]
struct Nac {
    name: String,
    states: States,
    /// Coverage of each bin, 0 to 1; row-major, D x bins.
    coverage: Vec<f64>,
}

impl Nac {
    fn fit(wanted: &Wanted, training: &Training<'_>) -> Nac {
        let states = States::new(&wanted.parameters);
        let (head, bins) = (training.head, states.bins());
        let d = head.dimension();
        let counts = fold_blocks(
            training.set,
            head,
            vec![0u32; d * bins],
            |rows, _| states.of(rows, head),
            |mut counts, states| {
                for row in states.chunks_exact(d) {
                    row.iter()
                        .enumerate()
                        .for_each(|(neuron, bin)| counts[neuron * bins + *bin as usize] += 1);
                }
                counts
            },
        );
        let full = wanted.parameters.whole("samples") as f64;
        let coverage = counts.into_iter().map(|count| (f64::from(count) / full).min(1.0)).collect();
        Nac { name: wanted.name.clone(), states, coverage }
    }
}

impl Fitted for Nac {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let (d, bins) = (rows.dimension, self.states.bins());
        let states = self.states.of(rows, head);
        let values = states.chunks_exact(d).map(|row| {
            let covered =
                row.iter().enumerate().map(|(neuron, bin)| self.coverage[neuron * bins + *bin as usize]);
            covered.sum::<f64>() / d as f64
        });
        scores.push((self.name.clone(), values.collect()));
    }

    fn save(&self, out: &mut Writer) {
        let bins = self.states.bins();
        out.put(&self.name, &[self.coverage.len() / bins, bins], &self.coverage);
    }

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let p = steps.softmax((head.classes() as f64).recip());
        let outputs = head.dimension();
        let by_weight = Projector { shift: None, divisor: None, basis: head.weight(), outputs };
        let gradients = steps.project(p, &by_weight);
        let covered = steps.coverage(gradients, self.states.alpha, &self.states.edges, &self.coverage);
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(covered).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::options::Options;
    use crate::ood::spec::ScoreSpec;

    #[test]
    fn a_neuron_at_rest_lies_on_the_middle_edge_and_bins_mirror_each_other() {
        let parameters = ScoreSpec::from(Method::Nac).parameters(&Options::default());
        let states = States::new(&parameters);
        assert_eq!(states.bins(), 48);
        assert!(states.edges.is_sorted());
        assert_eq!(states.edges[states.edges.len() / 2], 0.0);
        let between = states.edges.iter().flat_map(|edge| [edge - 1e-12, *edge, edge + 1e-12]);
        let x: Vec<f64> =
            between.chain([-1e9, 1e9]).chain((0..4000).map(|i| f64::from(i) * 0.005 - 10.0)).collect();
        let gradients = vec![states.alpha.recip(); x.len()];
        let mut bins = vec![0; x.len()];
        Sort { states: &states, features: &x, gradients: &gradients, bins: &mut bins }.call();
        for ((x, g), bin) in x.iter().zip(gradients).zip(bins) {
            let x = states.alpha * x * g;
            assert_eq!(bin, states.edges.partition_point(|edge| *edge <= x) as u32, "{x}");
        }
        for (low, high) in states.edges.iter().zip(states.edges.iter().rev()) {
            assert!((low + high).abs() < 1e-12, "{low} {high}");
        }
    }
}
