//! Every differentiable operation, forward and backward, in f64 over odd shapes.

use residua::autograd::{BatchNormOptions, BatchNormParameters, Parameter, Statistics};

use super::rig::Rig;
use crate::parity::golden::Case;

fn each_case(name: &str, count: usize, check: impl Fn(Case<'_>)) {
    crate::parity::golden::each_case(&format!("operations/{name}"), count, check);
}

fn batch_norm(rig: &mut Rig, case: &Case<'_>) -> BatchNormParameters {
    BatchNormParameters {
        gamma: rig.parameter(case.get("gamma")),
        beta: rig.parameter(case.get("beta")),
        running_mean: rig.statistic(case.get("running_mean")),
        running_variance: rig.statistic(case.get("running_variance")),
        epsilon: case.get("epsilon").scalar(),
        momentum: case.get("momentum").scalar(),
    }
}

fn affine(norm: &BatchNormParameters) -> [(&'static str, Parameter); 2] {
    [("dgamma", norm.gamma), ("dbeta", norm.beta)]
}

fn statistics_after(norm: &BatchNormParameters) -> [(&'static str, Parameter); 2] {
    [("running_mean_after", norm.running_mean), ("running_variance_after", norm.running_variance)]
}

#[test]
fn convolution_and_its_gradients_are_pytorchs() {
    each_case("conv2d", 20, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let weight = rig.parameter(case.get("w"));
        let (stride, padding) = (case.get("stride").count(), case.get("padding").count());
        let y = rig.tape.conv2d(x, &weight, stride, padding);
        rig.check(&case, y, &[("dx", x)], &[("dw", weight)], &[]);
    });
}

#[test]
fn batch_norm_with_batch_statistics_is_pytorchs() {
    each_case("batch_norm_train", 7, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let norm = batch_norm(&mut rig, &case);
        let options = BatchNormOptions { statistics: Statistics::Batch, residual: None, relu: false };
        let y = rig.tape.batch_norm(x, &norm, options);
        rig.check(&case, y, &[("dx", x)], &affine(&norm), &statistics_after(&norm));
    });
}

#[test]
fn batch_norm_with_running_statistics_is_pytorchs() {
    each_case("batch_norm_eval", 7, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let norm = batch_norm(&mut rig, &case);
        let options = BatchNormOptions { statistics: Statistics::Frozen, residual: None, relu: false };
        let y = rig.tape.batch_norm(x, &norm, options);
        // The running statistics must stay what they were.
        let unmoved = [("running_mean", norm.running_mean), ("running_variance", norm.running_variance)];
        rig.check(&case, y, &[("dx", x)], &affine(&norm), &unmoved);
    });
}

#[test]
fn convolution_batch_norm_residual_and_relu_together_are_pytorchs() {
    each_case("fused_convolution", 6, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let weight = rig.parameter(case.get("w"));
        let norm = batch_norm(&mut rig, &case);
        let residual = case.find("residual").map(|residual| rig.input(residual));
        let (stride, padding) = (case.get("stride").count(), case.get("padding").count());
        let relu = case.get("relu").count() == 1;
        let y = rig.tape.conv_batch_norm(x, &weight, &norm, (stride, padding), residual, relu);
        let mut inputs = vec![("dx", x)];
        inputs.extend(residual.map(|residual| ("dresidual", residual)));
        let [dgamma, dbeta] = affine(&norm);
        rig.check(&case, y, &inputs, &[("dw", weight), dgamma, dbeta], &statistics_after(&norm));
    });
}

#[test]
fn relu_and_addition_are_pytorchs() {
    each_case("elementwise", 9, |case| {
        let mut rig = Rig::new();
        if case.name.starts_with("relu") {
            let x = rig.input(case.get("x"));
            let y = rig.tape.relu(x);
            rig.check(&case, y, &[("dx", x)], &[], &[]);
        } else {
            let (a, b) = (rig.input(case.get("a")), rig.input(case.get("b")));
            let sum = rig.tape.add(a, b);
            let y = if case.name.starts_with("add_relu") { rig.tape.relu(sum) } else { sum };
            rig.check(&case, y, &[("da", a), ("db", b)], &[], &[]);
        }
    });
}

#[test]
fn max_pool_is_pytorchs_with_ties_and_negative_inputs() {
    each_case("max_pool", 18, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let [kernel, stride, padding] = ["kernel", "stride", "padding"].map(|name| case.get(name).count());
        let y = rig.tape.max_pool(x, kernel, stride, padding);
        rig.check(&case, y, &[("dx", x)], &[], &[]);
    });
}

#[test]
fn global_average_pool_is_pytorchs() {
    each_case("global_average_pool", 3, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let y = rig.tape.global_average_pool(x);
        rig.check(&case, y, &[("dx", x)], &[], &[]);
    });
}

#[test]
fn linear_layer_is_pytorchs() {
    each_case("linear", 3, |case| {
        let mut rig = Rig::new();
        let x = rig.input(case.get("x"));
        let (weight, bias) = (rig.parameter(case.get("w")), rig.parameter(case.get("b")));
        let y = rig.tape.linear(x, &weight, &bias);
        rig.check(&case, y, &[("dx", x)], &[("dw", weight), ("db", bias)], &[]);
    });
}

#[test]
fn cross_entropy_is_pytorchs_with_smoothing_and_huge_logits() {
    each_case("cross_entropy", 8, |case| {
        let mut rig = Rig::new();
        let logits = rig.input(case.get("logits"));
        let labels = rig.labels(case.get("labels"));
        let smoothing = case.get("label_smoothing").scalar();
        let loss = rig.tape.softmax_cross_entropy(logits, labels, smoothing);
        rig.tape.backward(&loss, &[logits]);
        let outcome = rig.run();
        outcome.compare(&case, "dlogits", outcome.span(loss.logits_gradient));
        outcome.compare_loss(&case, loss.per_sample);
    });
}
