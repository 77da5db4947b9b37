//! The gradients that losses leave behind, alone and together on one value, against central differences of their means, in f64.

use residua::autograd::{Mode, Tape, Var};
use residua::backend::cpu::Cpu;
use residua::ops::{Device, Direction, Side};
use residua::plan::{BufferId, Executable};
use residua::tensor::{DType, HostValues, Shape};

use crate::ops::gradients::random;

/// Losses on a tape: those of each sample, and the gradients of their means with respect to values.
#[derive(Default)]
struct Losses {
    per_sample: Vec<BufferId>,
    gradients: Vec<(Var, BufferId)>,
}

/// Compares the gradient of the sum of all mean losses with central differences. `inputs` are random, of the given extents and
/// size; `integers` and `numbers` are what else the losses need. A `detached` input is one that no gradient should reach.
struct Comparison<'a> {
    inputs: &'a [([usize; 2], f64)],
    integers: &'a [Vec<i32>],
    numbers: &'a [Vec<f64>],
    detached: Option<usize>,
}

impl Comparison<'_> {
    fn check(&self, name: &str, build: impl Fn(&mut Tape, &[Var], &[Var], &[Var]) -> Losses) {
        let mut device = Cpu::<f64>::new(1).unwrap();
        let mut tape = Tape::new(DType::F64, Mode::Train);
        let vars: Vec<Var> =
            self.inputs.iter().map(|(extents, _)| tape.differentiable_input("input", *extents)).collect();
        let integers: Vec<Var> =
            self.integers.iter().map(|values| tape.input("integers", [values.len()], DType::I32)).collect();
        let numbers: Vec<Var> =
            self.numbers.iter().map(|values| tape.number_input("numbers", [values.len()])).collect();
        let losses = build(&mut tape, &vars, &integers, &numbers);
        let gradients = tape.backward_from_all(&losses.gradients, &vars);
        let executable = Executable::new(tape.finish(), &device, 0);
        device.allocate(executable.bytes()).unwrap();
        let mut run = |values: &[Vec<f64>]| {
            for (var, values) in vars.iter().zip(values).chain(numbers.iter().zip(self.numbers)) {
                device.write(executable.span(var.buffer), HostValues::F64(values)).unwrap();
            }
            for (var, values) in integers.iter().zip(self.integers) {
                device.write(executable.span(var.buffer), HostValues::I32(values)).unwrap();
            }
            executable.run(&mut device).unwrap();
            let read = |id| {
                let mut values = vec![0.0; executable.span(id).elements];
                device.read_f64(executable.span(id), &mut values).unwrap();
                values
            };
            let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
            let loss: f64 = losses.per_sample.iter().map(|&id| mean(read(id))).sum();
            (loss, gradients.iter().map(|id| id.map(read)).collect::<Vec<_>>())
        };
        let values: Vec<Vec<f64>> = (self.inputs.iter().enumerate())
            .map(|(salt, (extents, size))| {
                random(&Shape::from(*extents), salt as u64 + 1).iter().map(|x| size * x).collect()
            })
            .collect();
        let analytic = run(&values).1;
        for (input, element) in
            (0..values.len()).flat_map(|input| (0..values[input].len()).map(move |element| (input, element)))
        {
            let found = analytic[input].as_ref().map_or(0.0, |gradient| gradient[element]);
            if self.detached == Some(input) {
                assert_eq!(found, 0.0, "{name}: detached input {input}");
                continue;
            }
            let mut at = |delta: f64| {
                let mut values = values.clone();
                values[input][element] += delta;
                run(&values).0
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (numeric - found).abs() < 1e-9 * numeric.abs().max(1.0),
                "{name}: input {input}, element {element}: {found} instead of {numeric}"
            );
        }
    }
}

#[test]
fn the_loss_gradient_is_that_of_the_mean_over_the_batch() {
    for smoothing in [0.0, 0.1, 1.0] {
        let comparison = Comparison {
            inputs: &[([5, 7], 1.0)],
            integers: &[vec![0, 6, 3, 3, 1]],
            numbers: &[],
            detached: None,
        };
        comparison.check(&format!("smoothing {smoothing}"), |tape, x, labels, _| {
            let loss = tape.softmax_cross_entropy(x[0], labels[0], smoothing);
            Losses { per_sample: vec![loss.per_sample], gradients: vec![(x[0], loss.logits_gradient)] }
        });
    }
}

#[test]
fn two_losses_on_one_value_add_up_their_gradients() {
    for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
        let comparison = Comparison {
            inputs: &[([3, 4], 1.0), ([3, 4], 1.0)],
            integers: &[vec![0, 3, 1]],
            numbers: &[],
            detached: None,
        };
        comparison.check(&format!("{direction:?}"), |tape, x, labels, _| {
            let loss = tape.softmax_cross_entropy(x[0], labels[0], 0.0);
            let divergence = tape.kl_divergence(x[0], x[1], 2.0, direction, None);
            let [to_first, to_second] = divergence.gradients;
            Losses {
                per_sample: vec![loss.per_sample, divergence.per_sample],
                gradients: vec![(x[0], loss.logits_gradient), to_first, to_second],
            }
        });
    }
}

/// Superclass logits against subclass logits summed up, with cross-entropies on both heads.
#[test]
fn two_levels_agree_through_the_sums_of_subclasses_in_every_direction() {
    for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
        for temperature in [1.0, 2.5] {
            let comparison = Comparison {
                inputs: &[([4, 3], 2.0), ([4, 8], 2.0)],
                integers: &[vec![2, 0, 1, 0], vec![7, 0, 4, 3], vec![0, 1, 2, 0, 2, 2, 0, 2]],
                numbers: &[],
                detached: None,
            };
            comparison.check(&format!("{direction:?}, temperature {temperature}"), |tape, x, integers, _| {
                let heads = [0, 1].map(|head| tape.softmax_cross_entropy(x[head], integers[head], 0.0));
                let summed = tape.log_sum_groups(x[1], integers[2].buffer, 3, temperature);
                let divergence = tape.kl_divergence(x[0], summed, temperature, direction, None);
                let of_heads = heads.iter().map(|loss| (loss.logits, loss.logits_gradient));
                Losses {
                    per_sample: vec![heads[0].per_sample, heads[1].per_sample, divergence.per_sample],
                    gradients: of_heads.chain(divergence.gradients).collect(),
                }
            });
        }
    }
}

#[test]
fn a_detached_level_receives_no_gradient_while_the_other_follows_it() {
    for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
        for (detached, side) in [(0, Side::First), (1, Side::Second)] {
            let comparison = Comparison {
                inputs: &[([5, 2], 2.0), ([5, 6], 2.0)],
                integers: &[vec![1, 0, 1, 0, 1, 1]],
                numbers: &[],
                detached: Some(detached),
            };
            comparison.check(&format!("{direction:?}, {side:?} detached"), |tape, x, groups, _| {
                let summed = tape.log_sum_groups(x[1], groups[0].buffer, 2, 1.5);
                let divergence = tape.kl_divergence(x[0], summed, 1.5, direction, Some(side));
                Losses { per_sample: vec![divergence.per_sample], gradients: divergence.gradients.to_vec() }
            });
        }
    }
}

#[test]
fn energies_are_pulled_over_their_margins_from_both_sides() {
    // Energies of these logits lie around -3: for each kind of sample some are beyond their margin and some are not.
    for (inside, outside) in [(-3.0, -3.0), (-9.0, 5.0), (5.0, -9.0)] {
        let comparison = Comparison {
            inputs: &[([8, 6], 2.0)],
            integers: &[vec![0, 1, 0, 1, 0, 1, 0, 1]],
            numbers: &[],
            detached: None,
        };
        comparison.check(&format!("margins {inside}, {outside}"), |tape, x, outlier, _| {
            let loss = tape.energy_margin(x[0], outlier[0], inside, outside);
            Losses { per_sample: vec![loss.per_sample], gradients: vec![loss.gradient] }
        });
    }
}

#[test]
fn weights_of_samples_weigh_losses_and_gradients_alike() {
    let comparison = Comparison {
        inputs: &[([4, 5], 1.0)],
        integers: &[vec![4, 0, 2, 2], vec![0, 1, 1, 0]],
        numbers: &[vec![0.5, 0.0, 3.0, 1.25]],
        detached: None,
    };
    comparison.check("weights", |tape, x, integers, weights| {
        let (logits, weights) = (x[0], weights[0].buffer);
        let loss = tape.softmax_cross_entropy(logits, integers[0], 0.1);
        let energy = tape.energy_margin(logits, integers[1], -4.0, 0.0);
        for (per_sample, gradient) in
            [(loss.per_sample, loss.logits_gradient), (energy.per_sample, energy.gradient.1)]
        {
            tape.weigh(weights, per_sample, integers[0].shape);
            tape.weigh(weights, gradient, logits.shape);
        }
        Losses {
            per_sample: vec![loss.per_sample, energy.per_sample],
            gradients: vec![(logits, loss.logits_gradient), energy.gradient],
        }
    });
}
