//! The cosine classifier and the divergence of two softmaxes, against their definitions.

use residua::autograd::{Mode, Parameter, Tape};
use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::ops::{
    Cosine, CosineForward, CosineInputGradient, CosineWeightGradient, Device, Direction, KlDivergence, Side,
    SoftmaxDivergence,
};
use residua::plan::Executable;
use residua::tensor::{DType, HostValues, Shape, Span, aligned};

use crate::ops::{Values, check, in_every_precision, kernels, output, random};

fn float(values: &[f64]) -> Values {
    Values::Float(values.to_vec())
}

/// The results of the cosine classifier.
struct Forward {
    inverse_norms: Vec<f64>,
    cosines: Vec<f64>,
    y: Vec<f64>,
}

fn scale_and_slope(attributes: &Cosine, raw: f64) -> (f64, f64) {
    if attributes.softplus { ((1.0 + raw.exp()).ln(), 1.0 / (1.0 + (-raw).exp())) } else { (raw, 1.0) }
}

fn cosine_forward(attributes: &Cosine, x: &[f64], weight: &[f64], raw: f64) -> Forward {
    let d = attributes.inputs;
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let inverse_norms: Vec<f64> =
        x.chunks(d).chain(weight.chunks(d)).map(|row| 1.0 / norm(row).max(attributes.epsilon)).collect();
    let mut cosines = Vec::new();
    for (n, x) in x.chunks(d).enumerate() {
        for (o, weight) in weight.chunks(d).enumerate() {
            let product: f64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
            cosines.push(product * inverse_norms[n] * inverse_norms[attributes.batch + o]);
        }
    }
    let scale = scale_and_slope(attributes, raw).0;
    let y = cosines.iter().map(|cosine| scale * cosine).collect();
    Forward { inverse_norms, cosines, y }
}

/// dx, dweight, dscale from what the forward pass left behind, by the chain rule, one pair of rows at a time: d cos / d x = r (w' - cos x'), primes for unit
/// vectors; a row shorter than epsilon was only multiplied by a constant.
fn cosine_gradients(
    attributes: &Cosine,
    x: &[f64],
    weight: &[f64],
    raw: f64,
    forward: &Forward,
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Cosine { batch, inputs: d, outputs, epsilon, .. } = *attributes;
    let (scale, slope) = scale_and_slope(attributes, raw);
    let mut dx = vec![0.0; x.len()];
    let mut dweight = vec![0.0; weight.len()];
    let mut dscale = 0.0;
    for n in 0..batch {
        for o in 0..outputs {
            let (cosine, dy) = (forward.cosines[n * outputs + o], dy[n * outputs + o]);
            let (rx, rw) = (forward.inverse_norms[n], forward.inverse_norms[batch + o]);
            let (cx, cw) = (
                if rx < 1.0 / epsilon { cosine } else { 0.0 },
                if rw < 1.0 / epsilon { cosine } else { 0.0 },
            );
            dscale += slope * dy * cosine;
            for i in 0..d {
                let (ux, uw) = (x[n * d + i] * rx, weight[o * d + i] * rw);
                dx[n * d + i] += scale * dy * rx * (uw - cx * ux);
                dweight[o * d + i] += scale * dy * rw * (ux - cw * uw);
            }
        }
    }
    (dx, dweight, vec![dscale])
}

/// Shapes of the classifier, whether its scale goes through softplus, and the scale's parameter.
fn cosine_cases() -> Vec<(Cosine, f64)> {
    [
        ([1, 1, 1], false, 30.0),
        ([2, 3, 5], true, 30.0),
        ([5, 17, 3], true, -2.0),
        ([70, 64, 10], false, -1.5),
        ([65, 33, 129], true, 0.0),
        ([3, 130, 100], true, 3.0),
    ]
    .map(|([batch, inputs, outputs], softplus, raw)| {
        (Cosine { batch, inputs, outputs, epsilon: 1e-12, softplus }, raw)
    })
    .to_vec()
}

fn check_cosine(attributes: Cosine, x: &[f64], weight: &[f64], raw: f64) {
    let n_y = attributes.batch * attributes.outputs;
    let forward = cosine_forward(&attributes, x, weight, raw);
    let call = CosineForward { attributes, x: 0, weight: 1, scale: 2, inverse_norms: 3, cosines: 4, y: 5 };
    let read = [float(x), float(weight), float(&[raw])];
    let mut operands = read.to_vec();
    operands.extend([output(forward.inverse_norms.len()), output(n_y), output(n_y)]);
    let mut expected = vec![output(0); 3];
    expected.extend([float(&forward.inverse_norms), float(&forward.cosines), float(&forward.y)]);
    check(call, &operands, &expected);

    // The input of the gradients is such that f32 holds it.
    let single = |values: Vec<f64>| values.into_iter().map(|x| f64::from(x as f32)).collect::<Vec<f64>>();
    let forward = Forward {
        inverse_norms: single(forward.inverse_norms),
        cosines: single(forward.cosines),
        y: forward.y,
    };
    let dy = random(n_y, 7);
    let (dx, dweight, dscale) = cosine_gradients(&attributes, x, weight, raw, &forward, &dy);
    let mut given = read.to_vec();
    given.extend([float(&forward.inverse_norms), float(&forward.cosines), float(&dy)]);
    let call = CosineInputGradient {
        attributes,
        x: 0,
        weight: 1,
        scale: 2,
        inverse_norms: 3,
        cosines: 4,
        dy: 5,
        dx: 6,
    };
    let mut operands = given.clone();
    operands.push(output(dx.len()));
    let mut expected = vec![output(0); 6];
    expected.push(Values::Float(dx));
    check(call, &operands, &expected);

    let call = CosineWeightGradient {
        attributes,
        x: 0,
        weight: 1,
        scale: 2,
        inverse_norms: 3,
        cosines: 4,
        dy: 5,
        dweight: 6,
        dscale: 7,
    };
    let mut operands = given;
    operands.extend([output(dweight.len()), output(1)]);
    let mut expected = vec![output(0); 6];
    expected.extend([Values::Float(dweight), Values::Float(dscale)]);
    check(call, &operands, &expected);
}

/// Several features vary together, so that no gradient is a difference of nearly equal numbers alone.
#[test]
fn the_cosine_classifier_compares_directions_and_its_gradients_leave_norms_alone() {
    in_every_precision(|| {
        for (attributes, raw) in cosine_cases().into_iter().skip(1) {
            let x = random(attributes.batch * attributes.inputs, 1);
            let weight = random(attributes.outputs * attributes.inputs, 2);
            check_cosine(attributes, &x, &weight, raw);
        }
    });
}

#[test]
fn one_feature_has_no_direction_to_change() {
    in_every_precision(|| {
        let (attributes, raw) = cosine_cases()[0];
        check_cosine(attributes, &[0.5], &[-2.0], raw);
    });
}

#[test]
fn a_vector_of_zeros_has_cosine_zero_and_a_gradient_that_is_finite() {
    in_every_precision(|| {
        for softplus in [false, true] {
            // An epsilon that f32 squares can tell from zero.
            let attributes = Cosine { batch: 3, inputs: 6, outputs: 4, epsilon: 0.0625, softplus };
            let mut x = random(18, 1);
            let mut weight = random(24, 2);
            x[6..12].fill(0.0);
            weight[..6].fill(0.0);
            weight[18..24].copy_from_slice(&[0.03125, 0.0, 0.0, -0.015625, 0.0, 0.0]);
            check_cosine(attributes, &x, &weight, 1.5);
        }
    });
}

/// Loss and both gradients of the mean, from probabilities.
fn divergence(attributes: &KlDivergence, first: &[f64], second: &[f64]) -> [Vec<f64>; 3] {
    let KlDivergence { batch, classes, temperature, direction, detached } = *attributes;
    let softmax = |logits: &[f64]| -> Vec<f64> {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let terms: Vec<f64> = logits.iter().map(|l| ((l - largest) / temperature).exp()).collect();
        let sum: f64 = terms.iter().sum();
        terms.iter().map(|term| term / sum).collect()
    };
    let kl = |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum() };
    let mut loss = Vec::new();
    let mut gradients = [Vec::new(), Vec::new()];
    for (first, second) in first.chunks(classes).zip(second.chunks(classes)) {
        let (p, q) = (softmax(first), softmax(second));
        let m: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (p + q)).collect();
        loss.push(match direction {
            Direction::FirstToSecond => kl(&p, &q),
            Direction::SecondToFirst => kl(&q, &p),
            Direction::Both => 0.5 * (kl(&p, &m) + kl(&q, &m)),
        });
        // Derivatives with respect to probabilities, then through the softmax: p (g - sum of p g) / T.
        let slopes: [Vec<f64>; 2] = match direction {
            Direction::FirstToSecond => [
                p.iter().zip(&q).map(|(p, q)| (p / q).ln()).collect(),
                p.iter().zip(&q).map(|(p, q)| -p / q).collect(),
            ],
            Direction::SecondToFirst => [
                p.iter().zip(&q).map(|(p, q)| -q / p).collect(),
                p.iter().zip(&q).map(|(p, q)| (q / p).ln()).collect(),
            ],
            Direction::Both => [
                p.iter().zip(&m).map(|(p, m)| 0.5 * (p / m).ln()).collect(),
                q.iter().zip(&m).map(|(q, m)| 0.5 * (q / m).ln()).collect(),
            ],
        };
        for (side, (probability, slope)) in [&p, &q].into_iter().zip(&slopes).enumerate() {
            let mean: f64 = probability.iter().zip(slope).map(|(p, g)| p * g).sum();
            let kept = [Side::First, Side::Second][side] as usize;
            let share = if detached.is_some_and(|side| side as usize == kept) { 0.0 } else { 1.0 };
            let factor = share / (temperature * batch as f64);
            gradients[side].extend(probability.iter().zip(slope).map(|(p, g)| factor * p * (g - mean)));
        }
    }
    let [dfirst, dsecond] = gradients;
    [loss, dfirst, dsecond]
}

#[test]
fn a_divergence_and_its_gradients_follow_their_definition_in_every_direction() {
    in_every_precision(|| {
        for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
            for (batch, classes, temperature, detached, size) in [
                (3, 2, 1.0, None, 1.0),
                (5, 17, 2.0, Some(Side::First), 4.0),
                (9, 100, 0.5, Some(Side::Second), 2.0),
                (2, 33, 4.0, None, 64.0),
            ] {
                let attributes = KlDivergence { batch, classes, temperature, direction, detached };
                let n = batch * classes;
                let logits = |key| random(n, key).iter().map(|l| l * size).collect::<Vec<f64>>();
                let (first, second) = (logits(1), logits(2));
                let [loss, dfirst, dsecond] = divergence(&attributes, &first, &second);
                let call =
                    SoftmaxDivergence { attributes, first: 0, second: 1, loss: 2, dfirst: 3, dsecond: 4 };
                let operands = [float(&first), float(&second), output(batch), output(n), output(n)];
                let expected =
                    [output(0), output(0), float(&loss), Values::Float(dfirst), Values::Float(dsecond)];
                check(call, &operands, &expected);
            }
        }
    });
}

#[test]
fn equal_logits_do_not_diverge_and_huge_ones_do_not_overflow() {
    in_every_precision(|| {
        for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
            let attributes =
                KlDivergence { batch: 2, classes: 3, temperature: 1.0, direction, detached: None };
            let call = SoftmaxDivergence { attributes, first: 0, second: 1, loss: 2, dfirst: 3, dsecond: 4 };
            // One-hot against one-hot: the first row agrees, in the second all probability is elsewhere.
            let first = [3000.0, 0.0, -3000.0, 3000.0, 0.0, 0.0];
            let second = [3000.0, 0.0, -3000.0, 0.0, 3000.0, 0.0];
            let (loss, to_first, to_second) = match direction {
                Direction::FirstToSecond => (3000.0, [0.0; 3], [-0.5, 0.5, 0.0]),
                Direction::SecondToFirst => (3000.0, [0.5, -0.5, 0.0], [0.0; 3]),
                Direction::Both => (std::f64::consts::LN_2, [0.0; 3], [0.0; 3]),
            };
            let row = |gradient: [f64; 3]| float(&[[0.0; 3], gradient].concat());
            let operands = [float(&first), float(&second), output(2), output(6), output(6)];
            let expected = [output(0), output(0), float(&[0.0, loss]), row(to_first), row(to_second)];
            check(call, &operands, &expected);
        }
    });
}

/// Gradient of a batch of activations whose pooled features go to two heads: a linear one, and cosines, rectified, that go to
/// a linear layer.
fn gradient_through_two_heads(device: &mut dyn Device) -> Vec<f64> {
    let number = device.dtype().accumulator();
    let mut end = 0;
    let mut place = |extents: &[usize]| {
        let shape = Shape::new(extents);
        let value = Span { offset: end, elements: shape.elements(), dtype: number };
        let gradient = Span { offset: end + aligned(value.bytes()), ..value };
        end += 2 * aligned(value.bytes());
        Parameter { value, gradient: Some(gradient), copy: None, shape }
    };
    let [weight, bias, directions, scale, weight_behind, bias_behind] =
        [&[5, 8][..], &[5], &[7, 8], &[1], &[3, 7], &[3]].map(&mut place);
    let parameters = [weight, bias, directions, scale, weight_behind, bias_behind];
    let mut tape = Tape::new(device.dtype(), Mode::Train);
    let x = tape.differentiable_input("x", [2, 3, 3, 8]);
    let features = tape.global_average_pool(x);
    let cosines = tape.cosine(features, &directions, &scale, false);
    let rectified = tape.relu_number(cosines);
    let logits =
        [tape.linear(features, &weight, &bias), tape.linear(rectified, &weight_behind, &bias_behind)];
    let given = logits.map(|logits| tape.number_input("gradient", logits.shape).buffer);
    let dx = tape.backward_from_all(&[(logits[0], given[0]), (logits[1], given[1])], &[x])[0].unwrap();
    let executable = Executable::new(tape.finish(), device, end);
    device.allocate(executable.bytes()).unwrap();
    let spans = [executable.span(x.buffer), executable.span(given[0]), executable.span(given[1])];
    for (key, span) in spans.into_iter().chain(parameters.iter().map(|p| p.value)).enumerate() {
        device.write(span, HostValues::F64(&random(span.elements, key as u64))).unwrap();
    }
    executable.run(device).unwrap_or_else(|error| panic!("{}: {error}", device.name()));
    let mut values = vec![0.0; executable.span(dx).elements];
    device.read_f64(executable.span(dx), &mut values).unwrap();
    values
}

#[test]
fn gradients_of_two_heads_on_the_same_features_add_up() {
    let expected = gradient_through_two_heads(&mut Cpu::<f64>::new(1).unwrap());
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::Bf16, 1e-2)] {
        let emulator = Emulator::new(Options::default()).unwrap();
        let found = gradient_through_two_heads(&mut *kernels(emulator, dtype));
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= tolerance * expected.abs().max(0.1),
                "{dtype:?}: {found} {expected}"
            );
        }
    }
}
