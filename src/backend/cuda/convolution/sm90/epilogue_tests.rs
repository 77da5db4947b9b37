//! BN partial sums of the epilogues of sm_90a, against sums in double precision over the stored results.

use super::super::kernel::Kernel;
use super::super::kernel_tests::{elements, emulated, numbers, results};
use super::super::problem::Pass;
use super::super::{launch_dgrad, launch_fprop};
use super::FAMILIES;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::emulator::{Copies, Options, Order};
use crate::ops::{Conv2d, Conv2dDgrad, Conv2dFprop, ReduceEpilogue, ReluBackward};
use crate::tensor::{DType, Span};

const BF16: DType = DType::Bf16;
const F32: DType = DType::F32;

fn device(copies: Copies) -> Cuda {
    emulated(Options { order: Order::Random(11), copies, threads: 1 }, BF16)
}

fn kernels(pass: Pass) -> impl Iterator<Item = &'static Kernel> {
    FAMILIES.into_iter().flatten().filter(move |kernel| kernel.pass == pass)
}

/// More rows than a tile of any kernel has, the last run with a few where there may be some, and columns that leave a tile half
/// empty.
fn problem(kernel: &Kernel, stride: usize) -> Conv2d {
    let ([batch, height, width, channels], stride) = match kernel.name {
        "sm90-rows-256x64" => ([3, 16, 16, 40], 1),
        name if name.starts_with("sm90-rows-") => ([5, 8, 8, 72], 1),
        _ => ([3, 11, 9, 72], stride),
    };
    Conv2d {
        batch,
        height,
        width,
        in_channels: channels,
        out_channels: channels,
        filter_height: 3,
        filter_width: 3,
        stride,
        padding: 1,
    }
}

fn close(got: f64, expected: f64, scale: f64) -> bool {
    (got - expected).abs() <= 1e-5 * scale
}

#[test]
fn a_forward_kernel_leaves_the_moments_of_what_it_stored() {
    for kernel in kernels(Pass::Fprop) {
        let conv = problem(kernel, 1);
        let channels = conv.out_channels;
        let [n_x, n_weight, n_y] = elements(&conv);
        let (x, weight, y) = (numbers(n_x, 1), numbers(n_weight, 2), vec![f64::NAN; n_y]);
        let partial = vec![f64::NAN; kernel.partial_elements(&conv)];
        let mut cuda = device(Copies::Lazy);
        let operands = [(&x[..], BF16), (&weight, BF16), (&y, BF16), (&partial, F32)];
        let [_, _, y, partial] = results(&mut cuda, operands, 0, |cuda, [x, weight, y, partial], _| {
            launch_fprop(cuda, kernel, &Conv2dFprop::new(conv, [x, weight, y]), Some(partial)).unwrap();
        });
        let (means, deviations) = partial.split_at(partial.len() / 2);
        let [run_rows, _] = kernel.partial_runs(&conv);
        assert_eq!(means.len(), y.len().div_ceil(run_rows * channels) * channels, "{kernel:?}");
        for (run, rows) in y.chunks(run_rows * channels).enumerate() {
            for channel in 0..channels {
                let column = || rows.iter().skip(channel).step_by(channels);
                let count = column().count() as f64;
                let mean = column().sum::<f64>() / count;
                let squares: f64 = column().map(|y| (y - mean) * (y - mean)).sum();
                let at = run * channels + channel;
                assert!(
                    close(means[at], mean, squares.sqrt()),
                    "{kernel:?} {run} {channel}: {} {mean}",
                    means[at]
                );
                assert!(close(deviations[at], squares, squares), "{kernel:?} {run} {channel}");
            }
        }
    }
}

#[test]
fn an_input_gradient_kernel_masks_and_leaves_the_sums_of_what_it_stored() {
    const OF_OUTPUT: ReluBackward<()> = ReluBackward::OfOutput(());
    let cases: [(usize, &[ReluBackward<()>]); 3] = [
        (1, &[OF_OUTPUT]),
        (2, &[ReluBackward::OfAffine]),
        (3, &[OF_OUTPUT, ReluBackward::OfAffine, ReluBackward::None]),
    ];
    for (kernel, (stride, rectifiers)) in kernels(Pass::Dgrad).zip(cases.into_iter().cycle()) {
        let conv = problem(kernel, stride);
        let channels = conv.in_channels;
        let [n_dx, n_weight, n_dy] = elements(&conv);
        let (dy, weight, before) = (numbers(n_dy, 1), numbers(n_weight, 2), numbers(n_dx, 3));
        let (x, mask) = (numbers(n_dx, 4), numbers(n_dx, 5));
        let [scale, bias, mean] = [6, 7, 8].map(|key| numbers(channels, key));
        let partial = vec![f64::NAN; kernel.partial_elements(&conv)];
        let run = |rectifier: Option<ReluBackward<()>>| {
            let mut cuda = device(Copies::Eager);
            let operands = [
                (&dy[..], BF16),
                (&weight, BF16),
                (&before, BF16),
                (&x, BF16),
                (&mask, BF16),
                (&scale, F32),
                (&bias, F32),
                (&mean, F32),
                (&partial, F32),
            ];
            results(
                &mut cuda,
                operands,
                0,
                |cuda, [dy, weight, dx, x, mask, scale, bias, mean, partial], _| {
                    // The kernel that finalizes the sums is not launched.
                    let nowhere = Span { offset: 0, elements: 0, dtype: F32 };
                    let epilogue = rectifier.map(|rectifier| ReduceEpilogue {
                        relu: match rectifier {
                            ReluBackward::None => ReluBackward::None,
                            ReluBackward::OfAffine => ReluBackward::OfAffine,
                            ReluBackward::OfOutput(()) => ReluBackward::OfOutput(mask),
                        },
                        x,
                        scale,
                        bias,
                        mean,
                        inverse_std: nowhere,
                        dgamma: nowhere,
                        dbeta: nowhere,
                    });
                    let alone = Conv2dDgrad::new(conv, [dy, weight, dx]);
                    let op = Conv2dDgrad { accumulate: true, epilogue, ..alone };
                    launch_dgrad(cuda, kernel, &op, rectifier.map(|_| partial)).unwrap();
                },
            )
        };
        let [_, _, plain, ..] = run(None);
        for &rectifier in rectifiers {
            let [_, _, dx, .., partial] = run(Some(rectifier));
            let (masked, relu) = (rectifier == OF_OUTPUT, rectifier == ReluBackward::OfAffine);
            for (i, (dx, plain)) in dx.iter().zip(&plain).enumerate() {
                let expected = if masked && mask[i] <= 0.0 { 0.0 } else { *plain };
                assert_eq!(*dx, expected, "{kernel:?} {rectifier:?} element {i}");
            }
            let (sums, products) = partial.split_at(partial.len() / 2);
            for channel in 0..channels {
                let total = |of: &[f64]| of.iter().skip(channel).step_by(channels).sum::<f64>();
                let (mut sum, mut product, mut size) = (0.0, 0.0, 0.0);
                for i in (channel..n_dx).step_by(channels) {
                    let d = if relu && scale[channel] * x[i] + bias[channel] <= 0.0 { 0.0 } else { dx[i] };
                    sum += d;
                    product += d * (x[i] - mean[channel]);
                    size += d.abs();
                }
                assert!(
                    close(total(sums), sum, size),
                    "{kernel:?} {rectifier:?} {channel}: {} {sum}",
                    total(sums)
                );
                assert!(close(total(products), product, 3.0 * size), "{kernel:?} {rectifier:?} {channel}");
            }
        }
    }
}
