//! Batch normalisation, element-wise passes, pooling and shortcuts, each against its definition.

use residua::ops::{
    Accumulate, Add, BatchNorm, BatchNormFold, BatchNormFrozen, BatchNormGradient, BatchNormInputGradient,
    BatchNormReduce, BatchNormStatistics, Cast, CopyRows, GlobalAveragePool, GlobalAveragePoolGradient,
    GlobalPool, MaxPool, MaxPoolGradient, Pool, Relu, ReluGradient, ReluGradientInPlace, Rows, ScaleBias,
    ScaleBiasForward, ScaleBiasResidual, ShortcutA, ShortcutAForward, ShortcutAGradient,
};

use crate::ops::reference;
use crate::ops::{Values, check, held, in_every_precision, output, random};

const EXTENTS: [Rows; 10] = [
    Rows { rows: 1, channels: 1 },
    Rows { rows: 2, channels: 3 },
    Rows { rows: 5, channels: 17 },
    Rows { rows: 49, channels: 5 },
    Rows { rows: 1000, channels: 16 },
    Rows { rows: 1030, channels: 64 },
    Rows { rows: 20_011, channels: 1 },
    Rows { rows: 65, channels: 513 },
    // Several blocks along channels and along rows, and last ones that are not full.
    Rows { rows: 301, channels: 264 },
    Rows { rows: 2999, channels: 24 },
];

pub fn float(values: &[f64]) -> Values {
    Values::Float(values.to_vec())
}

/// Operands after a call: those given by index, nothing for the others.
pub fn after<const N: usize>(count: usize, written: [(usize, Vec<f64>); N]) -> Vec<Values> {
    let mut all = vec![output(0); count];
    for (index, values) in written {
        all[index] = Values::Float(values);
    }
    all
}

pub fn positive(elements: usize, key: u64) -> Vec<f64> {
    random(elements, key).iter().map(|x| f64::from((x.abs() + 0.25) as f32)).collect()
}

#[test]
fn batch_norm_statistics_are_those_of_the_columns() {
    in_every_precision(|| {
        for extent in EXTENTS {
            let (n, c) = (extent.rows * extent.channels, extent.channels);
            // A mean far from zero: E[x²] − E[x]² would lose digits of these variances in f32.
            let x: Vec<f64> = random(n, 1).iter().map(|x| held(4.0 * x + 200.0)).collect();
            let (gamma, beta) = (random(c, 2), random(c, 3));
            let (running_mean, running_variance) = (random(c, 4), positive(c, 5));
            let attributes = BatchNorm { extent, epsilon: 1e-5, momentum: 0.1 };
            let mut columns = vec![Vec::new(); 6];
            for channel in 0..c {
                let (mean, deviations) = reference::column_moments(&x, c, channel);
                let inverse_std = 1.0 / (deviations / extent.rows as f64 + 1e-5).sqrt();
                let scale = gamma[channel] * inverse_std;
                let unbiased = deviations / (extent.rows as f64 - 1.0).max(1.0);
                let values = [
                    mean,
                    inverse_std,
                    scale,
                    beta[channel] - mean * scale,
                    0.9 * running_mean[channel] + 0.1 * mean,
                    0.9 * running_variance[channel] + 0.1 * unbiased,
                ];
                columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            }
            let call = BatchNormStatistics {
                attributes,
                x: 0,
                gamma: 1,
                beta: 2,
                mean: 3,
                inverse_std: 4,
                scale: 5,
                bias: 6,
                running_mean: 7,
                running_variance: 8,
            };
            let mut operands = vec![float(&x), float(&gamma), float(&beta)];
            operands.extend(vec![output(c); 4]);
            operands.extend([float(&running_mean), float(&running_variance)]);
            let mut expected = vec![output(0); 3];
            expected.extend(columns.into_iter().map(Values::Float));
            check(call, &operands, &expected);
        }
    });
}

#[test]
fn frozen_and_folded_batch_norm_use_the_running_statistics() {
    in_every_precision(|| {
        for extent in EXTENTS {
            let (filter, c) = (extent.channels, extent.rows);
            let (gamma, beta, mean, variance) = (random(c, 1), random(c, 2), random(c, 3), positive(c, 4));
            let weight = random(filter * c, 5);
            let epsilon = 1e-5;
            let inverse_std: Vec<f64> = variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
            let scale: Vec<f64> = gamma.iter().zip(&inverse_std).map(|(g, i)| g * i).collect();
            let bias: Vec<f64> = (0..c).map(|k| beta[k] - mean[k] * scale[k]).collect();
            let folded: Vec<f64> = (0..c * filter).map(|i| weight[i] * scale[i / filter]).collect();
            let statistics = [float(&gamma), float(&beta), float(&mean), float(&variance)];

            let attributes = BatchNorm { extent: Rows { rows: 7, channels: c }, epsilon, momentum: 0.1 };
            let call = BatchNormFrozen {
                attributes,
                gamma: 0,
                beta: 1,
                running_mean: 2,
                running_variance: 3,
                inverse_std: 4,
                scale: 5,
                bias: 6,
            };
            let mut operands = statistics.to_vec();
            operands.extend(vec![output(c); 3]);
            check(call, &operands, &after(7, [(4, inverse_std), (5, scale), (6, bias.clone())]));

            let attributes = BatchNorm { extent, epsilon, momentum: 0.1 };
            let call = BatchNormFold {
                attributes,
                weight: 4,
                gamma: 0,
                beta: 1,
                running_mean: 2,
                running_variance: 3,
                folded: 5,
                bias: 6,
            };
            let mut operands = statistics.to_vec();
            operands.extend([float(&weight), output(c * filter), output(c)]);
            check(call, &operands, &after(7, [(5, folded), (6, bias)]));
        }
    });
}

#[test]
fn scale_bias_maps_adds_and_rectifies_in_this_order() {
    in_every_precision(|| {
        for (extent, relu) in EXTENTS.into_iter().flat_map(|extent| [(extent, false), (extent, true)]) {
            let (n, c) = (extent.rows * extent.channels, extent.channels);
            let (x, residual, scale, bias) = (random(n, 1), random(n, 2), random(c, 3), random(c, 4));
            let act = |y: f64| if relu { reference::rectifier(y) } else { y };
            let map = |i: usize| scale[i % c] * x[i] + bias[i % c];
            let plain = (0..n).map(|i| act(map(i))).collect();
            let with_residual = (0..n).map(|i| act(map(i) + residual[i])).collect();
            let attributes = ScaleBias { extent, relu };
            let operands = [float(&x), float(&scale), float(&bias), float(&residual), output(n)];
            let call = ScaleBiasForward { attributes, x: 0, scale: 1, bias: 2, y: 4 };
            check(call, &operands, &after(5, [(4, plain)]));
            let call = ScaleBiasResidual { attributes, x: 0, scale: 1, bias: 2, residual: 3, y: 4 };
            check(call, &operands, &after(5, [(4, with_residual)]));
        }
    });
}

#[test]
fn batch_norm_gradient_passes_through_rectifier_and_statistics() {
    in_every_precision(|| {
        for extent in EXTENTS {
            for (relu, frozen) in [(false, false), (true, false), (true, true)] {
                let (n, c, rows) = (extent.rows * extent.channels, extent.channels, extent.rows as f64);
                let (dy, x) = (random(n, 1), random(n, 2));
                let (scale, bias, mean) = (positive(c, 3), random(c, 4), random(c, 5));
                let inverse_std = positive(c, 6);
                let d = |i: usize| if relu && scale[i % c] * x[i] + bias[i % c] <= 0.0 { 0.0 } else { dy[i] };
                let normal = |i: usize| (x[i] - mean[i % c]) * inverse_std[i % c];
                let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
                for i in 0..n {
                    dgamma[i % c] += d(i) * normal(i);
                    dbeta[i % c] += d(i);
                }
                let attributes = BatchNormGradient { extent, relu, frozen };
                let mut operands = vec![
                    float(&dy),
                    float(&x),
                    float(&scale),
                    float(&bias),
                    float(&mean),
                    float(&inverse_std),
                ];
                operands.extend([output(c), output(c)]);
                let call = BatchNormReduce {
                    attributes,
                    dy: 0,
                    x: 1,
                    scale: 2,
                    bias: 3,
                    mean: 4,
                    inverse_std: 5,
                    dgamma: 6,
                    dbeta: 7,
                };
                check(call, &operands, &after(8, [(6, dgamma), (7, dbeta)]));

                // The second half reads the first half's results: any numbers that f32 holds.
                let (dgamma, dbeta) = (random(c, 7), random(c, 8));
                let through = |i: usize| d(i) - dbeta[i % c] / rows - normal(i) * dgamma[i % c] / rows;
                let dx = (0..n).map(|i| scale[i % c] * if frozen { d(i) } else { through(i) }).collect();
                operands.truncate(6);
                operands.extend([float(&dgamma), float(&dbeta), output(n)]);
                let call = BatchNormInputGradient {
                    attributes,
                    dy: 0,
                    x: 1,
                    scale: 2,
                    bias: 3,
                    mean: 4,
                    inverse_std: 5,
                    dgamma: 6,
                    dbeta: 7,
                    dx: 8,
                };
                check(call, &operands, &after(9, [(8, dx)]));
            }
        }
    });
}

#[test]
fn elementwise_passes_follow_their_formulas() {
    in_every_precision(|| {
        for extent in EXTENTS {
            let n = extent.rows * extent.channels;
            let (a, b) = (random(n, 1), random(n, 2));
            let operands = [float(&a), float(&b), output(n)];
            let written = |f: &dyn Fn(f64, f64) -> f64| {
                after(3, [(2, a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect())])
            };
            check(Relu { attributes: extent, x: 0, y: 2 }, &operands, &written(&|a, _| a.max(0.0)));
            check(CopyRows { attributes: extent, x: 0, y: 2 }, &operands, &written(&|a, _| a));
            check(Add { attributes: extent, a: 0, b: 1, y: 2 }, &operands, &written(&|a, b| a + b));
            check(
                ReluGradient { attributes: extent, y: 0, dy: 1, dx: 2 },
                &operands,
                &written(&|a, b| if a > 0.0 { b } else { 0.0 }),
            );
            let cut = a.iter().zip(&b).map(|(&a, &b)| if a > 0.0 { b } else { 0.0 }).collect();
            check(ReluGradientInPlace { attributes: extent, y: 0, x: 1 }, &operands, &after(3, [(1, cut)]));
            let sum = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            check(Accumulate { attributes: extent, x: 0, y: 1 }, &operands, &after(3, [(1, sum)]));
        }
    });
}

#[test]
fn a_cast_keeps_every_number_that_both_types_hold() {
    in_every_precision(|| {
        for extent in EXTENTS {
            let x = random(extent.rows * extent.channels, 1);
            let operands = [float(&x), output(x.len())];
            check(Cast { attributes: extent, x: 0, y: 1 }, &operands, &after(2, [(1, x.clone())]));
        }
    });
}

#[test]
fn a_rectifier_keeps_nan_and_its_gradient_is_cut_at_zero() {
    in_every_precision(|| {
        let extent = Rows { rows: 1, channels: 6 };
        let x = [-1.0, -0.0, 0.0, 2.0, f64::NAN, 1024.0];
        let relu = vec![0.0, 0.0, 0.0, 2.0, f64::NAN, 1024.0];
        let attributes = extent;
        let results = after(2, [(1, relu[..5].to_vec())]);
        let short = Rows { rows: 1, channels: 5 };
        check(Relu { attributes: short, x: 0, y: 1 }, &[float(&x[..5]), output(5)], &results);
        let dx = vec![0.0, 0.0, 0.0, 3.0, 0.0, 3.0];
        let operands = [float(&relu), float(&[3.0; 6]), output(6)];
        check(ReluGradient { attributes, y: 0, dy: 1, dx: 2 }, &operands, &after(3, [(2, dx.clone())]));
        let call = ReluGradientInPlace { attributes, y: 0, x: 1 };
        check(call, &operands[..2], &after(2, [(1, dx)]));
        // What is cut becomes zero whatever it was.
        let spoilt = vec![0.0, 0.0, 0.0, f64::NAN, 0.0, f64::NAN];
        check(call, &[float(&x), float(&[f64::NAN; 6])], &after(2, [(1, spoilt)]));
    });
}

fn pools() -> Vec<Pool> {
    // batch, height, width, channels, window, stride, padding
    [
        [1, 1, 1, 1, 1, 1, 0],
        [2, 5, 4, 3, 2, 2, 0],
        [3, 9, 8, 17, 3, 2, 1],
        [1, 7, 7, 64, 3, 1, 1],
        [2, 11, 6, 40, 3, 2, 1],
        [2, 6, 9, 5, 5, 3, 2],
    ]
    .map(|[batch, height, width, channels, window, stride, padding]| Pool {
        batch,
        height,
        width,
        channels,
        window,
        stride,
        padding,
    })
    .to_vec()
}

#[test]
fn max_pool_takes_the_first_maximum_and_nan_wins() {
    in_every_precision(|| {
        for pool in pools() {
            let n = pool.batch * pool.height * pool.width * pool.channels;
            // Few distinct values, so that ties are common, and some NaN.
            let mut x: Vec<f64> = random(n, 1).iter().map(|x| (x * 3.0).round()).collect();
            for at in (5..n).step_by(37) {
                x[at] = f64::NAN;
            }
            let (y, argmax) = reference::max_pool(&pool, &x);
            let call = MaxPool { attributes: pool, x: 0, y: 1, argmax: 2 };
            let operands = [float(&x), output(y.len()), Values::Integer(vec![0; y.len()])];
            check(call, &operands, &[output(0), Values::Float(y.clone()), Values::Integer(argmax.clone())]);

            let dy = random(y.len(), 2);
            let mut dx = vec![0.0; n];
            let (columns, pixels) = (pool.channels, pool.out_height() * pool.out_width());
            for (i, &position) in argmax.iter().enumerate() {
                let image = i / (pixels * columns);
                dx[(image * pool.height * pool.width + position as usize) * columns + i % columns] += dy[i];
            }
            let call = MaxPoolGradient { attributes: pool, dy: 0, argmax: 1, dx: 2 };
            check(call, &[float(&dy), Values::Integer(argmax), output(n)], &after(3, [(2, dx)]));
        }
    });
}

#[test]
fn global_average_pool_is_the_mean_over_pixels() {
    in_every_precision(|| {
        for Pool { batch, height, width, channels, .. } in pools() {
            let pool = GlobalPool { batch, height, width, channels };
            let (pixels, c) = (pool.height * pool.width, pool.channels);
            let (x, dy) = (random(pool.batch * pixels * c, 1), random(pool.batch * c, 2));
            let mut y = vec![0.0; pool.batch * c];
            for (i, x) in x.iter().enumerate() {
                y[i / (pixels * c) * c + i % c] += x / pixels as f64;
            }
            let dx = (0..x.len()).map(|i| dy[i / (pixels * c) * c + i % c] / pixels as f64).collect();
            let operands = [float(&x), output(y.len())];
            check(GlobalAveragePool { attributes: pool, x: 0, y: 1 }, &operands, &after(2, [(1, y)]));
            let operands = [float(&dy), output(x.len())];
            check(
                GlobalAveragePoolGradient { attributes: pool, dy: 0, dx: 1 },
                &operands,
                &after(2, [(1, dx)]),
            );
        }
    });
}

#[test]
fn shortcut_a_keeps_every_second_pixel_between_zero_channels() {
    in_every_precision(|| {
        for [batch, height, width, in_channels, out_channels, stride] in [
            [1, 1, 1, 1, 1, 1],
            [2, 5, 4, 3, 6, 2],
            [3, 8, 8, 16, 32, 2],
            [1, 7, 9, 5, 8, 3],
            [2, 6, 6, 8, 16, 2],
        ] {
            let attributes = ShortcutA { batch, height, width, in_channels, out_channels, stride };
            let (rows, columns) = (attributes.out_height(), attributes.out_width());
            let (n_x, n_y) = (batch * height * width * in_channels, batch * rows * columns * out_channels);
            let (x, dy) = (random(n_x, 1), random(n_y, 2));
            let (mut y, mut dx) = (vec![0.0; n_y], vec![0.0; n_x]);
            for n in 0..batch {
                for (p, q) in (0..rows).flat_map(|p| (0..columns).map(move |q| (p, q))) {
                    for c in 0..in_channels {
                        let from =
                            reference::nhwc(height, width, in_channels, [n, p * stride, q * stride, c]);
                        let channel = (out_channels - in_channels) / 2 + c;
                        let to = reference::nhwc(rows, columns, out_channels, [n, p, q, channel]);
                        y[to] = x[from];
                        dx[from] = dy[to];
                    }
                }
            }
            check(
                ShortcutAForward { attributes, x: 0, y: 1 },
                &[float(&x), output(n_y)],
                &after(2, [(1, y)]),
            );
            let call = ShortcutAGradient { attributes, dy: 0, dx: 1 };
            check(call, &[float(&dy), output(n_x)], &after(2, [(1, dx)]));
        }
    });
}
