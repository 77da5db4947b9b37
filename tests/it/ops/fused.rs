//! Convolutions with the passes of batch normalisation before and behind them, each against its definition.

use residua::ops::{
    Affine, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue, ReduceEpilogue, ReluBackward,
    StatisticsEpilogue,
};

use crate::ops::passes::{after, float, positive};
use crate::ops::reference;
use crate::ops::{Values, check, conv_shapes, in_every_precision, output, random, stored};

/// A third of the shapes, and all whose channels every kernel can take: each part is checked at all of them elsewhere.
fn some_shapes() -> impl Iterator<Item = Conv2d> {
    let aligned = |conv: &Conv2d| conv.in_channels.is_multiple_of(8) && conv.out_channels.is_multiple_of(8);
    let some = move |(index, conv): (usize, Conv2d)| (index % 3 == 0 || aligned(&conv)).then_some(conv);
    conv_shapes().enumerate().filter_map(some)
}

/// Behind a convolution whose output is y: the numbers of a batch normalisation before, from gamma on, and the numbers that it writes.
fn statistics(conv: &Conv2d, y: &[f64]) -> (Vec<Values>, Vec<Values>) {
    let (c, rows) = (conv.out_channels, conv.out_pixels() as f64);
    let (gamma, beta) = (random(c, 3), random(c, 4));
    let (running_mean, running_variance) = (random(c, 5), positive(c, 6));
    let rounded: Vec<f64> = y.iter().map(|&y| stored(y)).collect();
    let mut columns = vec![Vec::new(); 6];
    for channel in 0..c {
        let (mean, deviations) = reference::column_moments(&rounded, c, channel);
        let inverse_std = 1.0 / (deviations / rows + 1e-5).sqrt();
        let scale = gamma[channel] * inverse_std;
        let values = [
            mean,
            inverse_std,
            scale,
            beta[channel] - mean * scale,
            0.9 * running_mean[channel] + 0.1 * mean,
            0.9 * running_variance[channel] + 0.1 * deviations / (rows - 1.0),
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let given = [vec![float(&gamma), float(&beta)], vec![output(c); 4]].concat();
    let running = [float(&running_mean), float(&running_variance)];
    ([given, running.to_vec()].concat(), columns.into_iter().map(Values::Float).collect())
}

/// The same as an epilogue, whose operands are those from `first` on.
fn statistics_behind(first: usize) -> Option<FpropEpilogue<usize>> {
    Some(FpropEpilogue::Statistics(StatisticsEpilogue {
        epsilon: 1e-5,
        momentum: 0.1,
        gamma: first,
        beta: first + 1,
        mean: first + 2,
        inverse_std: first + 3,
        scale: first + 4,
        bias: first + 5,
        running_mean: first + 6,
        running_variance: first + 7,
    }))
}

/// Some shapes, and 1x1 convolutions of channels that fill less than a chunk of 64, one, one and a bit, almost two.
fn shapes_with_pointwise() -> impl Iterator<Item = Conv2d> {
    let pointwise =
        [[2, 9, 9, 8, 8], [3, 5, 7, 64, 136], [1, 4, 5, 136, 24], [2, 7, 5, 72, 64], [1, 9, 8, 120, 72]];
    let pointwise = pointwise.into_iter().map(|[batch, height, width, in_channels, out_channels]| Conv2d {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        filter_height: 1,
        filter_width: 1,
        stride: 1,
        padding: 0,
    });
    some_shapes().chain(pointwise)
}

/// A map per channel: x, its scale and bias, and what it makes of x as it is stored.
fn mapped(conv: &Conv2d, relu: bool) -> [Vec<f64>; 4] {
    let c = conv.in_channels;
    let [n_x, _, _] = reference::conv_elements(conv);
    let (x, scale, bias) = (random(n_x, 11), random(c, 12), random(c, 13));
    let map = |(i, x): (usize, &f64)| scale[i % c] * x + bias[i % c];
    let z = x.iter().enumerate().map(map);
    let z = z.map(|z| stored(if relu { reference::rectifier(z) } else { z })).collect();
    [x, scale, bias, z]
}

#[test]
fn a_convolution_behind_a_map_reads_what_the_map_would_have_stored() {
    in_every_precision(|| {
        for (conv, relu) in shapes_with_pointwise().zip([true, false].into_iter().cycle()) {
            let [_, n_weight, n_y] = reference::conv_elements(&conv);
            let [x, scale, bias, z] = mapped(&conv, relu);
            let (weight, dy) = (random(n_weight, 2), random(n_y, 7));
            let prologue = Some(Affine { scale: 1, bias: 2, relu });
            let call = Conv2dFprop { prologue, ..Conv2dFprop::new(conv, [0, 3, 4]) };
            let front = [&x, &scale, &bias].map(|values| float(values)).to_vec();
            let operands = [front.clone(), vec![float(&weight), output(n_y)]].concat();
            check(call, &operands, &after(5, [(4, reference::convolution(&conv, &z, &weight))]));

            let call = Conv2dWgrad { prologue, ..Conv2dWgrad::new(conv, [0, 3, 4]) };
            let operands = [front, vec![float(&dy), output(n_weight)]].concat();
            let dweight = reference::convolution_weight_gradient(&conv, &z, &dy);
            check(call, &operands, &after(5, [(4, dweight)]));
        }
    });
}

#[test]
fn a_convolution_between_two_normalisations_applies_the_first_and_leaves_the_statistics_of_the_second() {
    in_every_precision(|| {
        let shapes = shapes_with_pointwise().filter(|conv| conv.out_pixels() > 2);
        for (conv, relu) in shapes.zip([false, true].into_iter().cycle()) {
            let [_, n_weight, n_y] = reference::conv_elements(&conv);
            let [x, input_scale, input_bias, z] = mapped(&conv, relu);
            let weight = random(n_weight, 2);
            let y = reference::convolution(&conv, &z, &weight);
            let (given, columns) = statistics(&conv, &y);
            let call = Conv2dFprop {
                prologue: Some(Affine { scale: 1, bias: 2, relu }),
                epilogue: statistics_behind(5),
                ..Conv2dFprop::new(conv, [0, 3, 4])
            };
            let front = [&x, &input_scale, &input_bias, &weight].map(|values| float(values)).to_vec();
            let operands = [front, vec![output(n_y)], given].concat();
            let mut expected = after(7, [(4, y)]);
            expected.extend(columns);
            check(call, &operands, &expected);
        }
    });
}

#[test]
fn a_convolution_with_statistics_leaves_those_of_its_stored_output() {
    in_every_precision(|| {
        for conv in some_shapes().filter(|conv| conv.out_pixels() > 1) {
            let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
            let (x, weight) = (random(n_x, 1), random(n_weight, 2));
            let y = reference::convolution(&conv, &x, &weight);
            let (given, columns) = statistics(&conv, &y);
            let call = Conv2dFprop { epilogue: statistics_behind(3), ..Conv2dFprop::new(conv, [0, 1, 2]) };
            let operands = [vec![float(&x), float(&weight), output(n_y)], given].concat();
            let mut expected = after(5, [(2, y)]);
            expected.extend(columns);
            check(call, &operands, &expected);
        }
    });
}

/// The operands of a dgrad with a reduction epilogue, and the operands of its sums.
struct Problem {
    conv: Conv2d,
    dy: Vec<f64>,
    weight: Vec<f64>,
    before: Vec<f64>,
    /// Input of the normalisation.
    x: Vec<f64>,
    /// scale, bias, mean, inverse_std
    numbers: [Vec<f64>; 4],
}

impl Problem {
    fn new(conv: Conv2d) -> Problem {
        let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
        let c = conv.in_channels;
        Problem {
            conv,
            dy: random(n_y, 1),
            weight: random(n_weight, 2),
            before: random(n_x, 3),
            x: random(n_x, 4),
            numbers: [positive(c, 5), random(c, 6), random(c, 7), positive(c, 8)],
        }
    }

    /// The contents of dx before, and the gradient that arises.
    fn gradient(&self, accumulate: bool) -> (Vec<f64>, Vec<f64>) {
        let dx = reference::convolution_input_gradient(&self.conv, &self.dy, &self.weight);
        if accumulate {
            (self.before.clone(), dx.iter().zip(&self.before).map(|(d, b)| d + b).collect())
        } else {
            (vec![f64::NAN; dx.len()], dx)
        }
    }

    /// dgamma and dbeta of a gradient that is already masked, as it is stored.
    fn sums(&self, masked: &[f64]) -> [Vec<f64>; 2] {
        let c = self.conv.in_channels;
        let [_, _, mean, inverse_std] = &self.numbers;
        let mut sums = [vec![0.0; c], vec![0.0; c]];
        for (i, &d) in masked.iter().enumerate() {
            sums[0][i % c] += stored(d) * (self.x[i] - mean[i % c]) * inverse_std[i % c];
            sums[1][i % c] += stored(d);
        }
        sums
    }
}

#[test]
fn an_input_gradient_with_sums_stays_unmasked_and_sums_what_the_rectifier_passed() {
    in_every_precision(|| {
        for (index, conv) in some_shapes().enumerate() {
            let problem = Problem::new(conv);
            let c = conv.in_channels;
            for relu in [false, true] {
                let accumulate = relu == (index % 2 == 0);
                let (start, dx) = problem.gradient(accumulate);
                let [scale, bias, mean, inverse_std] = &problem.numbers;
                let passed = |i: usize| !relu || scale[i % c] * problem.x[i] + bias[i % c] > 0.0;
                let masked: Vec<f64> =
                    dx.iter().enumerate().map(|(i, &d)| if passed(i) { d } else { 0.0 }).collect();
                let [dgamma, dbeta] = problem.sums(&masked);
                let epilogue = Some(ReduceEpilogue {
                    relu: if relu { ReluBackward::OfAffine } else { ReluBackward::None },
                    x: 2,
                    scale: 3,
                    bias: 4,
                    mean: 5,
                    inverse_std: 6,
                    dgamma: 8,
                    dbeta: 9,
                });
                let call = Conv2dDgrad { accumulate, epilogue, ..Conv2dDgrad::new(conv, [0, 1, 7]) };
                let mut operands = vec![float(&problem.dy), float(&problem.weight), float(&problem.x)];
                operands.extend([scale, bias, mean, inverse_std].map(|values| float(values)));
                operands.extend([Values::Float(start), output(c), output(c)]);
                check(call, &operands, &after(10, [(7, dx), (8, dgamma), (9, dbeta)]));
            }
        }
    });
}

#[test]
fn an_input_gradient_with_a_mask_is_zero_where_the_output_below_is() {
    in_every_precision(|| {
        for (index, conv) in some_shapes().enumerate() {
            let problem = Problem::new(conv);
            let (c, accumulate) = (conv.in_channels, index % 2 == 0);
            let (start, dx) = problem.gradient(accumulate);
            let y: Vec<f64> = random(dx.len(), 9).iter().map(|&y| reference::rectifier(y)).collect();
            let masked: Vec<f64> = dx.iter().zip(&y).map(|(&d, &y)| if y > 0.0 { d } else { 0.0 }).collect();
            let [dgamma, dbeta] = problem.sums(&masked);
            let epilogue = Some(ReduceEpilogue {
                relu: ReluBackward::OfOutput(2),
                x: 3,
                scale: 4,
                bias: 5,
                mean: 6,
                inverse_std: 7,
                dgamma: 9,
                dbeta: 10,
            });
            let call = Conv2dDgrad { accumulate, epilogue, ..Conv2dDgrad::new(conv, [0, 1, 8]) };
            let mut operands = vec![float(&problem.dy), float(&problem.weight), float(&y), float(&problem.x)];
            operands.extend(problem.numbers.each_ref().map(|values| float(values)));
            operands.extend([Values::Float(start), output(c), output(c)]);
            check(call, &operands, &after(11, [(8, masked), (9, dgamma), (10, dbeta)]));
        }
    });
}
