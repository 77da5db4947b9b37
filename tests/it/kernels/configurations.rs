//! What plans can ask of a device is what `doctor --full` checks: every kernel of convolutions in every form, every other operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use residua::backend::cuda::driver::Properties;
use residua::backend::cuda::driver::recorder::Recorder;
use residua::backend::cuda::{Cuda, Sources};
use residua::bench::configurations::{configurations, subject};
use residua::bench::{NetworkName, edge_cases};
use residua::ops::{Call, Device, Part};
use residua::plan::Fusions;
use residua::tensor::DType;

/// A card that need not be there: its name, architecture, SMs and bytes of shared memory that a thread block may have.
struct Card(&'static str, &'static str, (u32, u32), u32, usize);

const CARDS: [Card; 8] = [
    Card("NVIDIA H200", "sm_90a", (9, 0), 132, 227 << 10),
    Card("NVIDIA H100 PCIe", "sm_90a", (9, 0), 114, 227 << 10),
    Card("NVIDIA A100-SXM4-80GB", "sm_80", (8, 0), 108, 163 << 10),
    Card("NVIDIA GeForce RTX 3090", "sm_86", (8, 6), 82, 99 << 10),
    Card("NVIDIA RTX A6000", "sm_86", (8, 6), 84, 99 << 10),
    Card("NVIDIA GeForce RTX 4090", "sm_89", (8, 9), 128, 99 << 10),
    Card("NVIDIA B200", "sm_100a", (10, 0), 148, 227 << 10),
    Card("NVIDIA GeForce RTX 5090", "sm_120a", (12, 0), 170, 99 << 10),
];

const NETWORKS: [&str; 14] = [
    "resnet18-cifar.32",
    "resnet34-cifar.32",
    "resnet50-cifar.32",
    "resnet101-cifar.32",
    "resnet18-cifar.64",
    "resnet50-cifar.64",
    "resnet18-imagenet.64",
    "resnet34-imagenet.64",
    "resnet50-imagenet.64",
    "resnet101-imagenet.64",
    "resnet20-cifar.32",
    "resnet32-cifar.32",
    "resnet56-cifar.32",
    "resnet110-cifar.32",
];

fn device(card: &Card, dtype: DType) -> Cuda {
    let &Card(name, architecture, capability, sms, shared_bytes_per_block) = card;
    let properties = Properties {
        name: name.into(),
        architecture: architecture.into(),
        capability,
        sms,
        memory_bytes: 1 << 37,
        shared_bytes_per_block,
        red_zone: 0,
        versions: String::new(),
    };
    Cuda::new(Arc::new(Recorder::new(properties)), dtype, Sources::default()).unwrap()
}

/// The calls that a device carries out for a call: itself, or its parts.
fn carried_out(device: &Cuda, call: &Call<()>, found: &mut Vec<Call<()>>) {
    match device.prepare(call).expansion {
        None => found.push(*call),
        Some(expansion) => {
            let parts = expansion.parts.iter().map(|(part, _): &(Call<Part<usize>>, _)| part.map(|_| ()));
            parts.for_each(|part| carried_out(device, &part, found));
        }
    }
}

/// What training and extraction of networks ask a device for, and for how many networks and batches.
fn wanted(device: &Cuda, networks: &[&str], batches: &[usize]) -> BTreeMap<String, usize> {
    let mut wanted = BTreeMap::new();
    for network in networks {
        let network: NetworkName = network.parse().unwrap();
        for &batch in batches {
            let mut calls = Vec::new();
            for call in network.calls(device, batch, Fusions::ALL).unwrap() {
                carried_out(device, &call, &mut calls);
            }
            let subjects: BTreeSet<String> = calls.iter().map(|call| subject(device, call)).collect();
            subjects.into_iter().for_each(|subject| *wanted.entry(subject).or_default() += 1);
        }
    }
    wanted
}

/// What `doctor --full` checks.
fn checked(device: &Cuda) -> BTreeSet<String> {
    let of_kernels = configurations(device).unwrap().into_iter().flat_map(|(kernel, calls)| {
        calls.into_iter().map(move |call| format!("{}{}", kernel.full_name, call.form()))
    });
    let others = edge_cases().into_iter().map(|call| subject(device, &call));
    of_kernels.chain(others).collect()
}

#[test]
fn whatever_plans_ask_of_any_card_is_checked_by_doctor() {
    for (index, card) in CARDS.iter().enumerate() {
        // The first card, on which there are most kernels, for all networks and batches; of the others a part.
        let (networks, batches): (&[&str], &[usize]) = if index == 0 {
            (&NETWORKS, &[32, 64, 128, 256, 512, 1024])
        } else {
            (&NETWORKS[..9], &[32, 512])
        };
        for dtype in [DType::Bf16, DType::F32] {
            let device = device(card, dtype);
            let (wanted, checked) = (wanted(&device, networks, batches), checked(&device));
            let missing: Vec<&String> = wanted.keys().filter(|subject| !checked.contains(*subject)).collect();
            println!("{}, {dtype:?}: {} of {} checked", card.0, wanted.len() - missing.len(), wanted.len());
            for (subject, plans) in &wanted {
                println!("    {subject}: {plans} plans");
            }
            assert!(missing.is_empty(), "{}, {dtype:?}: doctor --full does not check {missing:?}", card.0);
            assert!(wanted.len() > 30 && checked.len() > wanted.len(), "{}: {}", wanted.len(), checked.len());
        }
    }
}

#[test]
fn the_kernels_of_a_card_fit_its_shared_memory_and_every_card_has_some_for_any_alignment() {
    for card in &CARDS {
        for dtype in [DType::Bf16, DType::F32] {
            let kernels = device(card, dtype).convolution_kernels();
            let largest = kernels.iter().map(|kernel| kernel.shared_bytes).max().unwrap();
            println!("{}, {dtype:?}: {} kernels, at most {largest} bytes", card.0, kernels.len());
            assert!(largest as usize <= card.4, "{}: {largest}", card.0);
            let portable = kernels.iter().filter(|kernel| kernel.name.starts_with("sm80-"));
            assert!(portable.count() >= 10, "{}, {dtype:?}: portable kernels are left out", card.0);
        }
    }
}

#[test]
fn every_kernel_is_checked_in_the_plain_form_at_least() {
    for card in &CARDS {
        for dtype in [DType::Bf16, DType::F32] {
            let device = device(card, dtype);
            for (kernel, calls) in configurations(&device).unwrap() {
                let is_plain = |call: &Call<()>| call.form().is_empty();
                assert!(
                    calls.iter().any(is_plain),
                    "{}: {} is checked on {calls:?}",
                    card.0,
                    kernel.full_name
                );
            }
        }
    }
}
