//! Logits of superclasses, margins for the energy and weights of samples, against their definitions.

use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::ops::{
    ClassGroups, Device, EnergyMargin, EnergyMarginLoss, LogSumGroups, LogSumGroupsGradient, Rows, ScaleRows,
};
use residua::tensor::{DType, HostValues, Span};

use crate::ops::passes::{after, float};
use crate::ops::reference;
use crate::ops::{Values, check, in_every_precision, kernels, output, random};

/// Classes dealt to groups unevenly: the first of each in turn, the others by a pattern.
fn dealt(classes: usize, groups: usize) -> Vec<i32> {
    (0..classes).map(|c| if c < groups { c } else { c * c % groups } as i32).collect()
}

fn check_groups(attributes: ClassGroups, x: &[f64], group_of: &[i32]) {
    let sums = attributes.batch * attributes.groups;
    let y = reference::log_sum_groups(&attributes, x, group_of);
    let call = LogSumGroups { attributes, x: 0, group_of: 1, y: 2 };
    let groups = Values::Integer(group_of.to_vec());
    check(call, &[float(x), groups.clone(), output(sums)], &after(3, [(2, y.clone())]));

    // What the gradient is given is such that f32 holds it.
    let y: Vec<f64> = y.into_iter().map(|y| f64::from(y as f32)).collect();
    let dy = random(sums, 3);
    let dx = reference::log_sum_groups_gradient(&attributes, x, group_of, &y, &dy);
    let call = LogSumGroupsGradient { attributes, x: 0, group_of: 1, y: 2, dy: 3, dx: 4 };
    check(call, &[float(x), groups, float(&y), float(&dy), output(x.len())], &after(5, [(4, dx)]));
}

#[test]
fn logits_of_groups_are_those_of_summed_probabilities_and_gradients_go_back_by_share() {
    in_every_precision(|| {
        for (batch, classes, groups, temperature, size) in [
            (1, 1, 1, 1.0, 1.0),
            (5, 7, 3, 1.0, 4.0),
            (3, 87, 3, 2.5, 8.0),
            (9, 10, 10, 0.5, 1.0),
            (2, 33, 1, 4.0, 64.0),
            (17, 100, 20, 1.0, 256.0),
        ] {
            let attributes = ClassGroups { batch, classes, groups, temperature };
            let x: Vec<f64> = random(batch * classes, 1).iter().map(|x| x * size).collect();
            check_groups(attributes, &x, &dealt(classes, groups));
        }
    });
}

#[test]
fn a_class_of_no_group_counts_nowhere_and_has_no_gradient() {
    in_every_precision(|| {
        let attributes = ClassGroups { batch: 3, classes: 40, groups: 5, temperature: 2.0 };
        let mut group_of = dealt(40, 5);
        for (class, group) in [(7, -1), (20, 5), (33, i32::MIN), (39, i32::MAX)] {
            group_of[class] = group;
        }
        // The classes left out would outweigh all others.
        let mut x = random(120, 1);
        x.iter_mut()
            .enumerate()
            .filter(|(i, _)| [7, 20, 33, 39].contains(&(i % 40)))
            .for_each(|(_, x)| *x = 64.0);
        check_groups(attributes, &x, &group_of);
    });
}

/// The sums of groups in f64 on the CPU and in f32 on the emulator.
fn sums_of_groups(attributes: ClassGroups, x: &[f64], group_of: &[i32]) -> [Vec<f64>; 2] {
    let on = |device: &mut dyn Device| -> Vec<f64> {
        device.allocate(1024).unwrap();
        let span = |place: usize, elements, dtype| Span { offset: 256 * place, elements, dtype };
        let (values, groups) = (span(0, x.len(), device.dtype()), span(1, x.len(), DType::I32));
        let y = span(2, attributes.groups, device.dtype());
        device.write(values, HostValues::F64(x)).unwrap();
        device.write(groups, HostValues::I32(group_of)).unwrap();
        let call = LogSumGroups { attributes, x: values, group_of: groups, y };
        device.run(&call.into(), span(3, 0, DType::F32)).unwrap();
        let mut found = vec![0.0; y.elements];
        device.read_f64(y, &mut found).unwrap();
        found
    };
    let mut emulator = kernels(Emulator::new(Options::default()).unwrap(), DType::F32);
    [on(&mut Cpu::<f64>::new(1).unwrap()), on(&mut *emulator)]
}

#[test]
fn a_group_without_classes_is_impossible_and_a_diverged_logit_spoils_its_own_group_only() {
    let attributes = ClassGroups { batch: 1, classes: 4, groups: 3, temperature: 2.0 };
    for y in sums_of_groups(attributes, &[1.0, 5.0, 1.0, 5.0], &[0, 2, 0, 2]) {
        assert_eq!(y[1], f64::NEG_INFINITY);
        assert!((y[0] - (1.0 + 2.0 * 2f64.ln())).abs() < 1e-6 && (y[2] - y[0] - 4.0).abs() < 1e-6, "{y:?}");
    }
    for y in sums_of_groups(attributes, &[1.0, 5.0, 1.0, f64::NAN], &[0, 2, 0, 2]) {
        assert!(y[0].is_finite() && y[2].is_nan(), "{y:?}");
    }
}

fn check_margins(attributes: EnergyMargin, logits: &[f64], outlier: &[i32]) -> Vec<f64> {
    let (loss, dlogits) = reference::energy_margin(&attributes, logits, outlier);
    let call = EnergyMarginLoss { attributes, logits: 0, outlier: 1, loss: 2, dlogits: 3 };
    let operands =
        [float(logits), Values::Integer(outlier.to_vec()), output(attributes.batch), output(logits.len())];
    check(call, &operands, &after(4, [(2, loss.clone()), (3, dlogits)]));
    loss
}

#[test]
fn energies_on_the_wrong_side_of_their_margin_cost_the_square_of_the_way_back() {
    in_every_precision(|| {
        for (batch, classes, size) in [(1, 1, 1.0), (9, 10, 8.0), (33, 87, 16.0), (20, 100, 512.0)] {
            let logits: Vec<f64> = random(batch * classes, 1).iter().map(|x| x * size).collect();
            // Anything but zero marks an outlier.
            let outlier: Vec<i32> = (0..batch as i32).map(|n| [0, 1, 0, -1, 7][n as usize % 5]).collect();
            // The energy of logits with this spread, so that samples of both kinds lie on both sides.
            let middle = -0.9 * size;
            for (inside, outside) in [(middle - 0.5, middle + 0.5), (middle + 0.5, middle - 0.5), (-1e4, 1e4)]
            {
                check_margins(EnergyMargin { batch, classes, inside, outside }, &logits, &outlier);
            }
        }
    });
}

#[test]
fn an_energy_at_its_margin_or_beyond_costs_nothing_and_a_diverged_one_is_not_a_number() {
    in_every_precision(|| {
        // One class: the energy is minus the logit.
        let attributes = EnergyMargin { batch: 8, classes: 1, inside: -4.0, outside: -2.0 };
        let logits = [4.0, 5.0, 3.0, 2.0, 1.0, 3.0, f64::NAN, f64::NAN];
        let loss = check_margins(attributes, &logits, &[0, 0, 0, 1, 1, 1, 0, 1]);
        assert_eq!(loss[..6], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert!(loss[6].is_nan() && loss[7].is_nan());
    });
}

#[test]
fn every_row_is_multiplied_by_its_weight() {
    in_every_precision(|| {
        for [rows, channels] in [[1, 1], [7, 1], [300, 1], [5, 3], [64, 87], [33, 100]] {
            let (mut weights, x) = (random(rows, 1), random(rows * channels, 2));
            weights[rows / 2] = 0.0;
            let weighed = x.iter().enumerate().map(|(i, x)| x * weights[i / channels]).collect();
            let call = ScaleRows { attributes: Rows { rows, channels }, weights: 0, x: 1 };
            check(call, &[float(&weights), float(&x)], &after(2, [(1, weighed)]));
        }
    });
}
