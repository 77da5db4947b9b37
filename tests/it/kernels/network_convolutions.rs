//! Every convolution of both networks with both stems, all three passes in bf16, on the emulator in every order of threads and both
//! times of copies, against the CPU in double precision. The channels are the networks' own; images are small, and a batch
//! of three divides no tile.

use residua::backend::cpu::Cpu;
use residua::bench::NetworkName;
use residua::ops::{Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad};
use residua::plan::Fusions;
use residua::tensor::DType;

use crate::ops::reference;
use crate::ops::{Values, check_on, every_emulator, in_bf16, output, random, results};

const BATCH: usize = 3;

/// The convolutions of a training step, each once: every one has a wgrad.
fn convolutions(network: &str) -> Vec<Conv2d> {
    let network: NetworkName = network.parse().unwrap();
    let mut unique = Vec::new();
    for call in network.calls(&Cpu::<f64>::new(1).unwrap(), BATCH, Fusions::NONE).unwrap() {
        match call {
            Call::Conv2dWgrad(Conv2dWgrad { conv, .. }) if !unique.contains(&conv) => unique.push(conv),
            _ => {}
        }
    }
    assert!(unique.len() >= 8, "{unique:?}");
    unique
}

/// The three passes of a convolution, and their operands.
fn passes(conv: Conv2d) -> [(Call<usize>, [Values; 3]); 3] {
    let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
    let [x, weight, y] = [(n_x, 1), (n_weight, 2), (n_y, 3)].map(|(n, key)| Values::Float(random(n, key)));
    let fprop = Conv2dFprop::new(conv, [0, 1, 2]);
    let dgrad = Conv2dDgrad { accumulate: true, ..Conv2dDgrad::new(conv, [0, 1, 2]) };
    let wgrad = Conv2dWgrad::new(conv, [0, 1, 2]);
    [
        (fprop.into(), [x.clone(), weight.clone(), output(n_y)]),
        (dgrad.into(), [y.clone(), weight, x.clone()]),
        (wgrad.into(), [x, y, output(n_weight)]),
    ]
}

fn check(convolutions: impl IntoIterator<Item = Conv2d>) {
    let mut cpu = Cpu::<f64>::new(0).unwrap();
    let mut devices = every_emulator(DType::Bf16);
    in_bf16(|| {
        for (call, operands) in convolutions.into_iter().flat_map(passes) {
            let expected = results(&mut cpu, &call, &operands);
            check_on(&mut devices, &call, &operands, &expected, 1e-2);
        }
    });
}

#[test]
fn a_sample_of_the_convolutions_of_the_networks_is_right_in_every_order_and_at_every_time_of_copies() {
    // A large sum, and a shortcut with pixels that no tap sees.
    let wanted = |conv: &Conv2d| {
        let extents = (conv.in_channels, conv.out_channels, conv.filter_height, conv.stride);
        [(256, 512, 3, 2), (128, 256, 1, 2)].contains(&extents)
    };
    let sample: Vec<Conv2d> = convolutions("resnet18-cifar.8").into_iter().filter(wanted).collect();
    assert_eq!(sample.len(), 2);
    check(sample);
}

#[test]
#[ignore = "every convolution of the networks takes minutes on the emulator"]
fn every_convolution_of_the_networks_is_right_in_every_order_and_at_every_time_of_copies() {
    for network in ["resnet18-cifar.8", "resnet18-imagenet.32", "resnet50-cifar.8", "resnet50-imagenet.32"] {
        check(convolutions(network));
    }
}
