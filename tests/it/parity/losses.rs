//! Losses between two levels of classes, for outliers and with weights of classes, in both precisions.

use residua::autograd::Var;
use residua::backend::cpu::Element;
use residua::ops::{Direction, Side};
use residua::plan::BufferId;

use super::rig::Rig;
use crate::parity::golden::{Case, each_case};

/// Walks back from losses, runs, and compares the mean of `per_sample` and the gradients of the inputs.
fn check<T: Element>(
    mut rig: Rig<T>,
    case: Case<'_>,
    per_sample: BufferId,
    gradients: &[(Var, BufferId)],
    inputs: &[(&str, Var)],
) {
    let vars: Vec<Var> = inputs.iter().map(|&(_, var)| var).collect();
    let found = rig.tape.backward_from_all(gradients, &vars);
    let outcome = rig.run();
    outcome.compare_loss(&case, per_sample);
    for ((name, _), gradient) in inputs.iter().zip(found) {
        let gradient = gradient.unwrap_or_else(|| panic!("{}: no gradient reached {name}", case.name));
        outcome.compare(&case, name, outcome.span(gradient));
    }
}

/// The logits of superclasses that the subclass logits of a case give.
fn aggregated<T: Element>(rig: &mut Rig<T>, case: &Case<'_>, superclasses: Var) -> (Var, Var) {
    let sub = rig.input(case.get("sub"));
    let parents = rig.labels(case.get("parents")).buffer;
    let temperature = case.get("temperature").scalar();
    (sub, rig.tape.log_sum_groups(sub, parents, superclasses.shape.channels(), temperature))
}

/// Cases are named after direction, detached side and temperature: `js-super-2_5`.
fn two_levels<T: Element>(case: Case<'_>) {
    let [direction, detached, _] = case.name.split('-').collect::<Vec<_>>().try_into().unwrap();
    let direction = match direction {
        "super_agg" => Direction::FirstToSecond,
        "agg_super" => Direction::SecondToFirst,
        _ => Direction::Both,
    };
    let detached = match detached {
        "super" => Some(Side::First),
        "sub" => Some(Side::Second),
        _ => None,
    };
    let mut rig = Rig::<T>::in_type();
    let superclasses = rig.input(case.get("super"));
    let (sub, summed) = aggregated(&mut rig, &case, superclasses);
    let temperature = case.get("temperature").scalar();
    let loss = rig.tape.kl_divergence(superclasses, summed, temperature, direction, detached);
    check(rig, case, loss.per_sample, &loss.gradients, &[("dsuper", superclasses), ("dsub", sub)]);
}

#[test]
fn the_divergence_of_two_levels_is_pytorchs_in_every_direction_with_either_side_detached() {
    each_case("losses/two_levels", 18, two_levels::<f64>);
    each_case("losses/two_levels", 18, two_levels::<f32>);
}

fn teacher<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let teacher = rig.input(case.get("teacher"));
    let (sub, summed) = aggregated(&mut rig, &case, teacher);
    let (direction, detached) = (Direction::FirstToSecond, Some(Side::First));
    let temperature = case.get("temperature").scalar();
    let loss = rig.tape.kl_divergence(teacher, summed, temperature, direction, detached);
    check(rig, case, loss.per_sample, &loss.gradients[1..], &[("dsub", sub)]);
}

#[test]
fn consistency_with_a_teacher_is_pytorchs_and_teaches_the_subclasses_alone() {
    each_case("losses/teacher", 2, teacher::<f64>);
    each_case("losses/teacher", 2, teacher::<f32>);
}

fn uniform_target<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let logits = rig.input(case.get("logits"));
    // Which class a label names does not matter where all of the target is spread.
    let mut labels = case.get("logits").clone();
    labels.shape.truncate(1);
    labels.values = (0..labels.shape[0]).map(|n| (n % 2) as f64).collect();
    let labels = rig.labels(&labels);
    let loss = rig.tape.softmax_cross_entropy(logits, labels, 1.0);
    check(rig, case, loss.per_sample, &[(logits, loss.logits_gradient)], &[("dlogits", logits)]);
}

#[test]
fn cross_entropy_smoothed_to_the_uniform_target_is_outlier_exposure() {
    each_case("losses/uniform_target", 3, uniform_target::<f64>);
    each_case("losses/uniform_target", 3, uniform_target::<f32>);
}

fn energy_margin<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let logits = rig.input(case.get("logits"));
    let outlier = rig.labels(case.get("outlier"));
    let [inside, outside] = ["inside", "outside"].map(|name| case.get(name).scalar());
    let loss = rig.tape.energy_margin(logits, outlier, inside, outside);
    // The mean over each kind of sample, from the mean over all.
    let marks = &case.get("outlier").values;
    let alike = |mark: f64| marks.iter().filter(|other| **other == mark).count() as f64;
    let weights: Vec<f64> = marks.iter().map(|&mark| marks.len() as f64 / alike(mark)).collect();
    let weights = rig.numbers(&weights);
    rig.tape.weigh(weights, loss.per_sample, outlier.shape);
    rig.tape.weigh(weights, loss.gradient.1, logits.shape);
    check(rig, case, loss.per_sample, &[loss.gradient], &[("dlogits", logits)]);
}

#[test]
fn energy_margins_with_a_mean_over_each_kind_of_sample_are_pytorchs() {
    each_case("losses/energy_margin", 3, energy_margin::<f64>);
    each_case("losses/energy_margin", 3, energy_margin::<f32>);
}

fn class_weights<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let logits = rig.input(case.get("logits"));
    let labels = rig.labels(case.get("labels"));
    let loss = rig.tape.softmax_cross_entropy(logits, labels, 0.0);
    // Weights of samples whose mean is one: the mean weighted loss is the sum over the sum of weights.
    let of_class = &case.get("weights").values;
    let weights: Vec<f64> =
        case.get("labels").labels().iter().map(|&label| of_class[label as usize]).collect();
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let weights = rig.numbers(&weights.iter().map(|weight| weight / mean).collect::<Vec<_>>());
    rig.tape.weigh(weights, loss.per_sample, labels.shape);
    rig.tape.weigh(weights, loss.logits_gradient, logits.shape);
    check(rig, case, loss.per_sample, &[(logits, loss.logits_gradient)], &[("dlogits", logits)]);
}

#[test]
fn weights_of_classes_through_weights_of_samples_are_pytorchs() {
    each_case("losses/class_weights", 3, class_weights::<f64>);
    each_case("losses/class_weights", 3, class_weights::<f32>);
}
