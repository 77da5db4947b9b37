//! Heads that compare directions, forward and backward, in both precisions.

use residua::backend::cpu::Element;

use super::rig::Rig;
use crate::parity::golden::{Case, each_case};

fn cosine<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let x = rig.input(case.get("x"));
    let (weight, scale) = (rig.parameter(case.get("w")), rig.parameter(case.get("scale")));
    let y = rig.tape.cosine(x, &weight, &scale, case.get("softplus").count() == 1);
    rig.check(&case, y, &[("dx", x)], &[("dw", weight), ("dscale", scale)], &[]);
}

#[test]
fn a_cosine_head_is_pytorchs_normalised_product_with_and_without_softplus() {
    each_case("heads/cosine", 6, cosine::<f64>);
    each_case("heads/cosine", 6, cosine::<f32>);
}

fn cosine_relu_linear<T: Element>(case: Case<'_>) {
    let mut rig = Rig::<T>::in_type();
    let x = rig.input(case.get("x"));
    let names = ["directions", "scale", "w", "b"];
    let [directions, scale, weight, bias] = names.map(|name| rig.parameter(case.get(name)));
    let cosines = rig.tape.cosine(x, &directions, &scale, false);
    let rectified = rig.tape.relu_number(cosines);
    let y = rig.tape.linear(rectified, &weight, &bias);
    let parameters = [("ddirections", directions), ("dscale", scale), ("dw", weight), ("db", bias)];
    rig.check(&case, y, &[("dx", x)], &parameters, &[]);
}

#[test]
fn cosines_a_rectifier_and_a_linear_layer_are_pytorchs_even_with_a_negative_scale() {
    each_case("heads/cosine_relu_linear", 3, cosine_relu_linear::<f64>);
    each_case("heads/cosine_relu_linear", 3, cosine_relu_linear::<f32>);
}
