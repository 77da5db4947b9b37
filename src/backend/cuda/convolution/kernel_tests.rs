//! Every compiled kernel, also the ones that small problems never get, against the CPU in double precision.

use std::sync::Arc;

use super::heuristics::Chosen;
use super::kernel::Kernel;
use super::kernels::kernels;
use super::problem::Pass;
use super::{launch_dgrad, launch_fprop, launch_wgrad, parts_bytes, sum_parts};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::driver::emulator::{Copies, Emulator, Options, Order};
use crate::backend::cuda::{Cuda, Sources};
use crate::ops::{Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, Device};
use crate::rng::{Purpose, Stream};
use crate::tensor::{DType, HostValues, Span, aligned};

/// Two convolutions that take several tiles of most kernels, none of them full, in both directions; of kernels that keep rows
/// of images two of those they can do.
fn problems(kernel: &Kernel) -> Vec<Conv2d> {
    if ["sm90-rows-", "sm90-stream-"].iter().any(|family| kernel.name.starts_with(family)) {
        return patches().filter(|conv| kernel.fits(conv)).take(2).collect();
    }
    let vector = kernel.vector[0] || kernel.vector[1];
    let few = if vector { 24 } else { 19 };
    let many = if vector { 136 } else { 131 };
    let conv = |in_channels, out_channels, stride| Conv2d {
        batch: 2,
        height: 11,
        width: 9,
        in_channels: if kernel.vector[1] { in_channels } else { in_channels - 1 },
        out_channels,
        filter_height: 3,
        filter_width: 3,
        stride,
        padding: 1,
    };
    vec![conv(few, many, 1), conv(many, few, 2)]
}

/// Convolutions whose boxes of patches are of every kind: many images to a tile, many tiles to an image, pixels that no tap
/// sees, one pixel, filters larger than the image, several tiles to a thread block that each wrap around the pipeline; (batch, height, width, in channels, out channels, filter, stride, padding).
const BOXES: &[[usize; 8]] = &[
    [20, 4, 4, 64, 72, 3, 1, 1],
    [3, 7, 13, 72, 200, 1, 1, 0],
    [2, 12, 9, 8, 264, 1, 2, 0],
    [1, 21, 14, 16, 24, 7, 2, 3],
    [5, 8, 7, 24, 16, 5, 3, 2],
    [3, 1, 1, 136, 128, 3, 1, 1],
    [7, 2, 3, 40, 8, 7, 1, 3],
    [5, 17, 11, 72, 200, 3, 1, 1],
];

/// Convolutions for halo reuse and the streaming wgrad: several tiles to a consumer; whole images to a tile, the last tile with one;
/// parts of an image to a tile; several streams to a thread block; several images to a stream; outputs smaller and larger than their images;
/// other filters.
const ROWS: &[[usize; 8]] = &[
    [9, 16, 16, 8, 8, 3, 1, 1],
    [5, 8, 8, 136, 72, 3, 1, 1],
    [3, 16, 16, 56, 40, 3, 1, 1],
    [1, 32, 32, 24, 64, 3, 1, 1],
    [2, 8, 64, 64, 24, 3, 1, 1],
    [7, 8, 16, 8, 8, 3, 1, 1],
    [7, 4, 32, 8, 8, 3, 1, 1],
    [7, 3, 64, 8, 8, 3, 1, 1],
    [2, 10, 10, 72, 136, 3, 1, 0],
    [3, 14, 14, 8, 64, 3, 1, 2],
    [1, 16, 16, 16, 24, 5, 1, 2],
    [11, 17, 17, 72, 8, 2, 1, 0],
];

/// Of the same, filters whose rows and columns differ in number.
const OBLONG: [[usize; 2]; 2] = [[3, 1], [2, 9]];

fn patches() -> impl Iterator<Item = Conv2d> + Clone {
    let square = BOXES.iter().chain(ROWS);
    let square =
        square.map(|&[batch, height, width, in_channels, out_channels, filter, stride, padding]| Conv2d {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            filter_height: filter,
            filter_width: filter,
            stride,
            padding,
        });
    // Their outputs are 16 x 16.
    square.chain(OBLONG.iter().map(|&[filter_height, filter_width]| Conv2d {
        batch: 2,
        height: 15 + filter_height,
        width: 15 + filter_width,
        in_channels: 8,
        out_channels: 24,
        filter_height,
        filter_width,
        stride: 1,
        padding: 0,
    }))
}

/// Numbers that bf16 holds exactly.
pub(super) fn numbers(elements: usize, key: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(12, Purpose::Synthetic, &[key]);
    (0..elements as u64).map(|i| (stream.uniform(i) * 64.0).floor() / 32.0 - 1.0).collect()
}

/// Elements of a convolution's input, weights and output.
pub(super) fn elements(conv: &Conv2d) -> [usize; 3] {
    [conv.inputs().elements(), conv.weights(), conv.outputs().elements()]
}

/// The emulator, without memory yet.
pub(super) fn emulated(options: Options, dtype: DType) -> Cuda {
    Cuda::new(Arc::new(Emulator::new(options).unwrap()), dtype, Sources::default()).unwrap()
}

/// Lays operands and a workspace out in memory, computes, and reads the operands.
pub(super) fn results<D: Device, const N: usize>(
    device: &mut D,
    operands: [(&[f64], DType); N],
    workspace_bytes: usize,
    compute: impl FnOnce(&mut D, [Span; N], Span),
) -> [Vec<f64>; N] {
    let mut end = 0;
    let mut place = |elements: usize, dtype: DType| {
        let span = Span { offset: end, elements, dtype };
        end += aligned(span.bytes());
        span
    };
    let spans = operands.map(|(values, dtype)| place(values.len(), dtype));
    let scratch = device.dtype().accumulator();
    let workspace = place(workspace_bytes.div_ceil(scratch.size()), scratch);
    device.allocate(end).unwrap();
    for (span, (values, _)) in spans.into_iter().zip(operands) {
        device.write(span, HostValues::F64(values)).unwrap();
    }
    compute(device, spans, workspace);
    spans.map(|span| {
        let mut values = vec![0.0; span.elements];
        device.read_f64(span, &mut values).unwrap();
        values
    })
}

/// One pass of a convolution, by a kernel and by the CPU.
fn both(kernel: &'static Kernel, conv: &Conv2d, options: Options) -> [Vec<f64>; 2] {
    let mut cpu = Cpu::<f64>::new(1).unwrap();
    let mut cuda = emulated(options, kernel.dtype);
    let [n_x, n_weight, n_y] = elements(conv);
    let (x, weight, y) = (numbers(n_x, 1), numbers(n_weight, 2), numbers(n_y, 3));
    let call = |spans: [Span; 3]| -> Call<Span> {
        match kernel.pass {
            Pass::Fprop => Conv2dFprop::new(*conv, spans).into(),
            Pass::Dgrad => Conv2dDgrad { accumulate: true, ..Conv2dDgrad::new(*conv, spans) }.into(),
            Pass::Wgrad => Conv2dWgrad::new(*conv, spans).into(),
        }
    };
    let [a, b, c]: [&[f64]; 3] = match kernel.pass {
        Pass::Fprop => [&x, &weight, &y],
        Pass::Dgrad => [&y, &weight, &x],
        Pass::Wgrad => [&x, &y, &weight],
    };
    let nowhere = Span { offset: 0, elements: 0, dtype: DType::F64 };
    let bytes = cpu.workspace_bytes(&call([nowhere; 3]).map(|_| ()));
    let [_, _, expected] = results(
        &mut cpu,
        [(a, DType::F64), (b, DType::F64), (c, DType::F64)],
        bytes,
        |cpu, spans, workspace| {
            cpu.run(&call(spans), workspace).unwrap();
        },
    );

    const SPLITS: usize = 3;
    let out = if kernel.pass == Pass::Wgrad { DType::F32 } else { kernel.dtype };
    let operands = [(a, kernel.dtype), (b, kernel.dtype), (c, out)];
    let [_, _, got] = results(&mut cuda, operands, parts_bytes(conv, SPLITS), |cuda, spans, workspace| {
        match call(spans) {
            Call::Conv2dFprop(op) => launch_fprop(cuda, kernel, &op, None),
            Call::Conv2dDgrad(op) => launch_dgrad(cuda, kernel, &op, None),
            Call::Conv2dWgrad(op) => launch_wgrad(cuda, Chosen { kernel, splits: SPLITS }, &op, workspace),
            other => panic!("{other:?}"),
        }
        .unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    });
    [got, expected]
}

/// Compares a kernel with the CPU.
fn check(kernel: &'static Kernel, conv: &Conv2d, options: Options) {
    assert!(kernel.fits(conv), "{kernel:?} {conv:?}");
    let [got, expected] = both(kernel, conv, options);
    let difference: f64 = got.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    let error = (difference / norm).sqrt();
    // A wgrad of exact bf16 numbers is f32 throughout.
    let rounded = kernel.dtype == DType::Bf16 && kernel.pass != Pass::Wgrad;
    assert!(error <= if rounded { 5e-3 } else { 1e-5 }, "{kernel:?} {conv:?} {options:?}: off by {error:e}");
}

fn is_sm90(kernel: &&Kernel) -> bool {
    kernel.name.starts_with("sm90-")
}

#[test]
fn every_kernel_computes_its_product() {
    let options = Options { order: Order::Random(3), copies: Copies::Lazy, threads: 1 };
    for kernel in kernels() {
        for conv in problems(kernel) {
            check(kernel, &conv, options);
        }
    }
}

#[test]
fn kernels_with_tma_compute_patches_of_every_kind() {
    // Each problem by each kernel, but not in each order.
    let orders =
        [(Order::Forward, Copies::Eager), (Order::Reverse, Copies::Lazy), (Order::Random(5), Copies::Eager)];
    for (kernel_index, kernel) in kernels().filter(is_sm90).enumerate() {
        let possible = patches().filter(|conv| kernel.fits(conv));
        assert!(possible.clone().count() >= 3, "{kernel:?}");
        for (index, conv) in possible.enumerate() {
            let (order, copies) = orders[(kernel_index + index) % orders.len()];
            check(kernel, &conv, Options { order, copies, threads: 1 });
        }
    }
}

#[test]
#[ignore = "every order and time of copies takes minutes"]
fn kernels_with_tma_compute_patches_of_every_kind_in_every_order() {
    for kernel in kernels().filter(is_sm90) {
        for conv in patches().filter(|conv| kernel.fits(conv)).chain(problems(kernel)) {
            for order in [Order::Forward, Order::Reverse, Order::Random(5)] {
                for copies in [Copies::Eager, Copies::Lazy] {
                    check(kernel, &conv, Options { order, copies, threads: 1 });
                }
            }
        }
    }
}

#[test]
fn blocks_of_a_cluster_ask_for_what_they_share_once_and_compute_whole_pieces() {
    let named = |name: &str| kernels().find(|kernel| kernel.name == name).unwrap();
    let conv = &problems(named("sm90-256x128"))[0];
    let alone = named("sm90-256x128");
    assert_eq!((alone.family.loaded(alone, conv), alone.tiles(600, 300)), ([768.0, 768.0], 3 * 3));
    // Side by side they share 128 rows of two bytes, and fill a row of three tiles up to four.
    let beside = named("sm90-128x128-cluster-1x2");
    assert_eq!((beside.family.loaded(beside, conv), beside.tiles(600, 300)), ([512.0, 384.0], 5 * 4));
    // One below the other they share 128 columns.
    let below = named("sm90-256x128-cluster-2x1");
    assert_eq!((below.family.loaded(below, conv), below.tiles(600, 300)), ([768.0, 640.0], 4 * 3));
}

#[test]
fn parts_of_a_sum_are_added_whether_they_are_fewer_or_more_than_warps() {
    for (splits, elements) in [(2, 5), (3, 128), (21, 203), (40, 1204)] {
        let mut cuda = emulated(Options::default(), DType::Bf16);
        let (parts, out) = (numbers(splits * elements, 1), vec![f64::NAN; elements]);
        let operands = [(&parts[..], DType::F32), (&out, DType::F32)];
        let [_, sums] = results(&mut cuda, operands, 0, |cuda, [parts, out], _| {
            sum_parts(cuda, parts, out, splits).unwrap();
        });
        for (i, sum) in sums.iter().enumerate() {
            let column = parts.iter().skip(i).step_by(elements);
            // Sixty-fourths, few enough that f32 holds every sum.
            assert_eq!(*sum, column.sum::<f64>(), "{splits} parts of {elements}, element {i}");
        }
    }
}

#[test]
fn a_name_is_one_kernel_within_a_pass_and_a_type() {
    for (index, kernel) in kernels().enumerate() {
        let named = |other: &&Kernel| {
            (other.pass, other.dtype, other.name) == (kernel.pass, kernel.dtype, kernel.name)
        };
        assert_eq!(kernels().position(|other| named(&other)), Some(index), "{kernel:?}");
    }
}
