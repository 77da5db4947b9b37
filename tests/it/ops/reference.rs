//! Every operation once more, as the plainest loops over f64 that its definition allows: what the backends are held to.
//! Nothing here is shared with the implementations; speed does not count.

use residua::ops::{ClassGroups, Conv2d, EnergyMargin, ImageBatch, PLACEMENT_NUMBERS, Pool};

/// Index of (n, y, x, c) in an NHWC tensor of shape (_, h, w, channels).
pub fn nhwc(h: usize, w: usize, channels: usize, [n, y, x, c]: [usize; 4]) -> usize {
    ((n * h + y) * w + x) * channels + c
}

/// Calls `visit(x index, weight index, y index)` for every product of a convolution.
fn products(conv: &Conv2d, mut visit: impl FnMut(usize, usize, usize)) {
    for n in 0..conv.batch {
        for p in 0..conv.out_height() {
            for q in 0..conv.out_width() {
                for k in 0..conv.out_channels {
                    for r in 0..conv.filter_height {
                        for s in 0..conv.filter_width {
                            let row = (p * conv.stride + r) as isize - conv.padding as isize;
                            let column = (q * conv.stride + s) as isize - conv.padding as isize;
                            let inside = (0..conv.height as isize).contains(&row)
                                && (0..conv.width as isize).contains(&column);
                            if !inside {
                                continue;
                            }
                            for c in 0..conv.in_channels {
                                let from = [n, row as usize, column as usize, c];
                                let to = [n, p, q, k];
                                visit(
                                    nhwc(conv.height, conv.width, conv.in_channels, from),
                                    nhwc(
                                        conv.filter_height,
                                        conv.filter_width,
                                        conv.in_channels,
                                        [k, r, s, c],
                                    ),
                                    nhwc(conv.out_height(), conv.out_width(), conv.out_channels, to),
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Number of elements of x, weight and y.
pub fn conv_elements(conv: &Conv2d) -> [usize; 3] {
    [
        conv.batch * conv.height * conv.width * conv.in_channels,
        conv.out_channels * conv.filter_height * conv.filter_width * conv.in_channels,
        conv.batch * conv.out_height() * conv.out_width() * conv.out_channels,
    ]
}

pub fn convolution(conv: &Conv2d, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; conv_elements(conv)[2]];
    products(conv, |i, j, o| y[o] += x[i] * weight[j]);
    y
}

pub fn convolution_input_gradient(conv: &Conv2d, dy: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; conv_elements(conv)[0]];
    products(conv, |i, j, o| dx[i] += dy[o] * weight[j]);
    dx
}

pub fn convolution_weight_gradient(conv: &Conv2d, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dweight = vec![0.0; conv_elements(conv)[1]];
    products(conv, |i, j, o| dweight[j] += dy[o] * x[i]);
    dweight
}

/// Mean and sum of squared deviations of one column of a matrix with `channels` columns.
pub fn column_moments(x: &[f64], channels: usize, channel: usize) -> (f64, f64) {
    let column: Vec<f64> = x.iter().skip(channel).step_by(channels).copied().collect();
    let mean = column.iter().sum::<f64>() / column.len() as f64;
    (mean, column.iter().map(|x| (x - mean) * (x - mean)).sum())
}

pub fn rectifier(x: f64) -> f64 {
    if x > 0.0 { x } else { 0.0 }
}

/// Maximum and position of every window.
pub fn max_pool(pool: &Pool, x: &[f64]) -> (Vec<f64>, Vec<i32>) {
    let (mut y, mut argmax) = (Vec::new(), Vec::new());
    for n in 0..pool.batch {
        for p in 0..pool.out_height() {
            for q in 0..pool.out_width() {
                for c in 0..pool.channels {
                    let mut best: Option<(f64, usize)> = None;
                    for i in 0..pool.window {
                        for j in 0..pool.window {
                            let row = (p * pool.stride + i) as isize - pool.padding as isize;
                            let column = (q * pool.stride + j) as isize - pool.padding as isize;
                            if row < 0
                                || column < 0
                                || row >= pool.height as isize
                                || column >= pool.width as isize
                            {
                                continue;
                            }
                            let (row, column) = (row as usize, column as usize);
                            let value = x[nhwc(pool.height, pool.width, pool.channels, [n, row, column, c])];
                            let wins = match best {
                                None => true,
                                Some((b, _)) => !b.is_nan() && (value.is_nan() || value > b),
                            };
                            if wins {
                                best = Some((value, row * pool.width + column));
                            }
                        }
                    }
                    let (value, position) = best.expect("every window sees the input");
                    y.push(value);
                    argmax.push(position as i32);
                }
            }
        }
    }
    (y, argmax)
}

/// Loss, prediction and gradient of the mean loss.
pub fn cross_entropy(
    logits: &[f64],
    labels: &[i32],
    classes: usize,
    smoothing: f64,
) -> (Vec<f64>, Vec<i32>, Vec<f64>) {
    let (mut loss, mut prediction, mut gradient) = (Vec::new(), Vec::new(), Vec::new());
    for (row, &label) in logits.chunks(classes).zip(labels) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|l| (l - largest).exp()).sum();
        let log_softmax: Vec<f64> = row.iter().map(|l| l - largest - sum.ln()).collect();
        let target: Vec<f64> = (0..classes)
            .map(|c| {
                let hot = if c == label as usize { 1.0 } else { 0.0 };
                (1.0 - smoothing) * hot + smoothing / classes as f64
            })
            .collect();
        loss.push(-target.iter().zip(&log_softmax).map(|(t, l)| t * l).sum::<f64>());
        prediction.push(row.iter().position(|l| *l == largest).unwrap() as i32);
        gradient.extend(target.iter().zip(&log_softmax).map(|(t, l)| (l.exp() - t) / labels.len() as f64));
    }
    (loss, prediction, gradient)
}

/// The members of a group among a row's values.
fn members<'a>(row: &'a [f64], group_of: &'a [i32], group: usize) -> impl Iterator<Item = f64> + 'a {
    row.iter().zip(group_of).filter(move |(_, g)| **g == group as i32).map(|(x, _)| *x)
}

/// `T log sum exp(x / T)` over the members of each group.
pub fn log_sum_groups(shape: &ClassGroups, x: &[f64], group_of: &[i32]) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(shape.classes) {
        for group in 0..shape.groups {
            let largest =
                members(row, group_of, group).fold(f64::NEG_INFINITY, |a, b| if a > b { a } else { b });
            let sum: f64 =
                members(row, group_of, group).map(|x| ((x - largest) / shape.temperature).exp()).sum();
            y.push(largest + shape.temperature * sum.ln());
        }
    }
    y
}

/// Its gradient, from what it gave.
pub fn log_sum_groups_gradient(
    shape: &ClassGroups,
    x: &[f64],
    group_of: &[i32],
    y: &[f64],
    dy: &[f64],
) -> Vec<f64> {
    let mut dx = vec![0.0; x.len()];
    for (i, dx) in dx.iter_mut().enumerate() {
        let (n, c) = (i / shape.classes, i % shape.classes);
        for g in (0..shape.groups).filter(|&g| group_of[c] == g as i32) {
            let j = n * shape.groups + g;
            *dx += dy[j] * ((x[i] - y[j]) / shape.temperature).exp();
        }
    }
    dx
}

/// Loss of each sample, and the gradient of their mean.
pub fn energy_margin(shape: &EnergyMargin, logits: &[f64], outlier: &[i32]) -> (Vec<f64>, Vec<f64>) {
    let (mut loss, mut gradient) = (Vec::new(), Vec::new());
    for (row, &outlier) in logits.chunks(shape.classes).zip(outlier) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|l| (l - largest).exp()).sum();
        let energy = -(largest + sum.ln());
        let (excess, sign) =
            if outlier == 0 { (energy - shape.inside, 1.0) } else { (shape.outside - energy, -1.0) };
        let excess = if excess < 0.0 { 0.0 } else { excess };
        loss.push(excess * excess);
        let slope = sign * 2.0 * excess / shape.batch as f64;
        gradient.extend(row.iter().map(|l| -slope * (l - largest).exp() / sum));
    }
    (loss, gradient)
}

/// The pixels of a batch of images, each where its placement says.
pub fn load_images(batch: &ImageBatch, pixels: &[u8], table: &[f64], placement: &[i32]) -> Vec<f64> {
    let (side, channels) = (batch.side, batch.channels);
    let mut y = Vec::new();
    for numbers in placement.chunks(PLACEMENT_NUMBERS) {
        let number = |i: usize| f64::from(numbers[i]) / 65536.0;
        for row in 0..side {
            for column in 0..side {
                let along = |first: usize| {
                    number(first) + column as f64 * number(first + 1) + row as f64 * number(first + 2)
                };
                let (x_from, y_from) = (along(1).floor(), along(4).floor());
                let extent = 0.0..side as f64;
                for c in 0..channels {
                    let byte = if extent.contains(&x_from) && extent.contains(&y_from) {
                        pixels[nhwc(
                            side,
                            side,
                            channels,
                            [numbers[0] as usize, y_from as usize, x_from as usize, c],
                        )]
                    } else {
                        0
                    };
                    y.push(table[256 * c + usize::from(byte)]);
                }
            }
        }
    }
    y
}
