//! Kernels that apply a prologue to patches, against the same kernels on what a pass of its own has stored: equal bit for bit.

use std::sync::Arc;

use super::heuristics::Chosen;
use super::kernel::Kernel;
use super::kernel_tests::{elements, emulated, numbers, results};
use super::kernels::kernels;
use super::problem::Pass;
use super::{fuses_prologue, launch_fprop, launch_wgrad, parts_bytes};
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::driver::emulator::{Copies, Options, Order};
use crate::backend::cuda::driver::recorder::Recorder;
use crate::backend::cuda::{Cuda, Sources, batch_norm};
use crate::ops::{Affine, Conv2d, Conv2dFprop, Conv2dWgrad, ScaleBiasForward};
use crate::tensor::DType;

const BF16: DType = DType::Bf16;
const F32: DType = DType::F32;
const SPLITS: usize = 2;

/// (batch, height, width, in channels, out channels): the last chunk of channels and the last tile of pixels with a few, several
/// tiles to a block, fewer channels than a chunk.
const PROBLEMS: [[usize; 5]; 3] = [[3, 11, 9, 136, 72], [5, 8, 7, 72, 264], [1, 3, 5, 8, 8]];

fn pointwise([batch, height, width, in_channels, out_channels]: [usize; 5]) -> Conv2d {
    let (filter_height, filter_width, stride, padding) = (1, 1, 1, 0);
    Conv2d { batch, height, width, in_channels, out_channels, filter_height, filter_width, stride, padding }
}

/// The result of a kernel, and the partials it leaves, of patches with a prologue: applied by itself, or by the pass.
fn computed(
    kernel: &'static Kernel,
    conv: Conv2d,
    relu: bool,
    options: Options,
    by_itself: bool,
) -> [Vec<f64>; 2] {
    let mut cuda = emulated(options, BF16);
    let [n_x, n_weight, n_y] = elements(&conv);
    let forward = kernel.pass == Pass::Fprop;
    let (n_other, n_out, out) = if forward { (n_weight, n_y, BF16) } else { (n_y, n_weight, F32) };
    let partials = if forward { kernel.partial_elements(&conv) } else { 0 };
    let [x, scale, bias, other] = [(n_x, 1), (conv.in_channels, 2), (conv.in_channels, 3), (n_other, 4)]
        .map(|(n, key)| numbers(n, key));
    let [z, nothing, moments] = [n_x, n_out, partials].map(|elements| vec![f64::NAN; elements]);
    let operands = [
        (&x[..], BF16),
        (&scale, F32),
        (&bias, F32),
        (&other, BF16),
        (&z, BF16),
        (&nothing, out),
        (&moments, F32),
    ];
    let bytes = parts_bytes(&conv, SPLITS);
    let [.., result, moments] =
        results(&mut cuda, operands, bytes, |cuda, [x, scale, bias, other, z, to, moments], workspace| {
            let affine = Affine { scale, bias, relu };
            let (from, prologue) = if by_itself {
                (x, Some(affine))
            } else {
                let attributes = affine.attributes(&conv);
                let pass = ScaleBiasForward { attributes, x, scale, bias, y: z };
                batch_norm::scale_bias(cuda, &pass, workspace).unwrap();
                (z, None)
            };
            let spans = [from, other, to];
            if forward {
                let op = Conv2dFprop { prologue, ..Conv2dFprop::new(conv, spans) };
                launch_fprop(cuda, kernel, &op, Some(moments))
            } else {
                let op = Conv2dWgrad { prologue, ..Conv2dWgrad::new(conv, spans) };
                launch_wgrad(cuda, Chosen { kernel, splits: SPLITS }, &op, workspace)
            }
            .unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        });
    [result, moments]
}

#[test]
fn patches_mapped_in_shared_memory_give_the_bits_of_those_a_pass_has_stored() {
    let orders =
        [(Order::Forward, Copies::Eager), (Order::Reverse, Copies::Lazy), (Order::Random(5), Copies::Lazy)];
    let mut turn = 0;
    for conv in PROBLEMS.map(pointwise) {
        for kernel in kernels().filter(|kernel| kernel.applies_prologue(&conv)) {
            let (order, copies) = orders[turn % orders.len()];
            let (options, relu) = (Options { order, copies, threads: 1 }, turn % 2 == 0);
            let [own, stored] =
                [true, false].map(|by_itself| computed(kernel, conv, relu, options, by_itself));
            assert!(
                own == stored && own[0].iter().all(|y| y.is_finite()),
                "{kernel:?} {conv:?} {relu} {options:?}"
            );
            turn += 1;
        }
    }
    // fprop and wgrad, each with and without clusters.
    assert_eq!(turn, 3 * (9 + 6));
}

#[test]
fn a_map_is_refused_by_kernels_and_for_convolutions_that_cannot_apply_it() {
    let mut cuda = emulated(Options::default(), BF16);
    let flat = pointwise([1, 4, 4, 8, 8]);
    let padded = Conv2d { padding: 1, ..flat };
    let named = |name: &str| kernels().find(|kernel| kernel.name == name && kernel.dtype == BF16).unwrap();
    for (name, conv) in [("sm90-64x64", padded), ("sm80-64x64", flat)] {
        let [n_x, n_weight, n_y] = elements(&conv);
        let ones = |n: usize| vec![1.0; n];
        let (x, number, weight, y) = (ones(n_x), ones(8), ones(n_weight), ones(n_y));
        let operands = [(&x[..], BF16), (&number, F32), (&number, F32), (&weight, BF16), (&y, BF16)];
        results(&mut cuda, operands, 0, |cuda, [x, scale, bias, weight, y], _| {
            let prologue = Some(Affine { scale, bias, relu: true });
            let op = Conv2dFprop { prologue, ..Conv2dFprop::new(conv, [x, weight, y]) };
            let error = launch_fprop(cuda, named(name), &op, None).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("run scale_bias before it"), "{text}");
        });
    }
}

#[test]
fn maps_are_left_to_kernels_that_apply_them_while_few_tiles_read_the_same_patches() {
    let card = |dtype, architecture: &str, capability| {
        let properties = Properties {
            name: "a card".into(),
            architecture: architecture.into(),
            capability,
            sms: 132,
            memory_bytes: 1 << 36,
            shared_bytes_per_block: 227 << 10,
            red_zone: 0,
            versions: String::new(),
        };
        Cuda::new(Arc::new(Recorder::new(properties)), dtype, Sources::default()).unwrap()
    };
    let hopper = card(BF16, "sm_90a", (9, 0));
    // The last convolutions of a ResNet-50's blocks, for images of 64 pixels a side.
    let last = |side, channels| pointwise([256, side, side, channels, 4 * channels]);
    let blocks = [last(64, 64), last(32, 128), last(16, 256), last(8, 512)];
    assert_eq!(blocks.map(|conv| fuses_prologue(&hopper, &conv)), [true, true, false, false]);
    for other in [card(F32, "sm_90a", (9, 0)), card(BF16, "sm_80", (8, 0))] {
        assert!(!fuses_prologue(&other, &blocks[0]));
    }
    assert!(!fuses_prologue(&hopper, &Conv2d { stride: 2, ..blocks[0] }));
}
